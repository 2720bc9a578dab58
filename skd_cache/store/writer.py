"""Puts a unit into a cache: objects first, read back, then the commit that makes them count.

Fault points, for tests: every put of a unit is announced before and after as ``before NAME`` and
``after NAME``, the commit's included. With ``SKD_CACHE_FAULT=n`` in the environment the process
ends with exit code 137 at the n-th point (from 1) it reaches, as a SIGKILL would end it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from skd_cache.batch import Statistics
from skd_cache.errors import DataError, SkdCacheError
from skd_cache.store.claim import Held
from skd_cache.store.commit import Commit, ObjectPrint, StatisticsRecord
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.layout import (
    NORM,
    PROBE,
    Grid,
    Layout,
    Unit,
    commit_name,
    metadata_objects,
)
from skd_cache.store.objects import Objects, Print, fingerprint
from skd_cache.store.recipe import PROBE_EVERY

FAULT_VARIABLE = "SKD_CACHE_FAULT"
Fault = Callable[[str], None]


def fault_from_environment() -> Fault:
    """The fault that ``SKD_CACHE_FAULT`` asks for: none, or the end of the process."""
    left = int(os.environ.get(FAULT_VARIABLE, "0"))

    def reach(point: str) -> None:  # noqa: ARG001
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(137)

    return reach


def encode_shard(grid: Grid, shard: int, rows: NDArray[Any]) -> bytes:
    """The bytes of a shard object; ``rows`` along the grid's axis are the shard's positions."""
    memory: dict[str, Any] = {}
    array = grid.open(zarr.storage.MemoryStore(memory))
    begin = shard * grid.shard[grid.axis]
    place = [slice(None)] * len(grid.shape)
    place[grid.axis] = slice(begin, begin + rows.shape[grid.axis])
    # Zarr hands an array in Fortran order to pcodec as it lies, and reads back other numbers.
    array[tuple(place)] = np.ascontiguousarray(rows)
    return bytes(memory[grid.object(shard)].to_bytes())


def put_data(objects: Objects, name: str, data: bytes, fault: Fault) -> Print:
    """Put an object that no commit names yet, replacing what a killed build left, and read it back.

    Raises:
        DataError: if the storage gives back something else.
    """
    fault(f"before {name}")
    wanted = fingerprint(data)
    if not _holds(objects, name, wanted) and not objects.create(name, data):
        objects.replace(name, data)
    if not _holds(objects, name, wanted):
        raise DataError(f"{objects.location}/{name} does not read back as written: check the disk")
    fault(f"after {name}")
    return wanted


def _holds(objects: Objects, name: str, wanted: Print) -> bool:
    return objects.size(name) == wanted.size and objects.print_of(name) == wanted


def put_commit(objects: Objects, name: str, document: bytes, fault: Fault) -> None:
    """Make what was put count; a commit is never rewritten.

    Raises:
        SkdCacheError: if there is a different commit already.
    """
    fault(f"before {name}")
    if not objects.create(name, document) and objects.get(name, MAX_BYTES) != document:
        raise SkdCacheError(f"{objects.location}/{name} was committed by another build meanwhile")
    fault(f"after {name}")


def check_rows(
    layout: Layout,
    unit: Unit,
    norm: NDArray[np.float32],
    code: Mapping[str, NDArray[Any]],
    probe: NDArray[np.uint8],
) -> None:
    """Refuse arrays that are not exactly one unit's.

    Raises:
        ValueError: naming the array and the shape it should have.
    """
    recipe = layout.recipe
    rows = min(recipe.shard, recipe.dataset.samples - unit.shard * recipe.shard)
    wanted: dict[str, tuple[tuple[int, ...], str]] = {
        name: ((rows, *spec.row), spec.dtype) for name, spec in layout.codes.items()
    }
    wanted[NORM] = ((rows,), "float32")
    wanted[PROBE] = ((-(-rows // PROBE_EVERY), 8, 8, 3), "uint8")
    given = {**code, NORM: norm, PROBE: probe}
    if given.keys() != wanted.keys():
        raise ValueError(f"a unit consists of {sorted(wanted)}, not {sorted(given)}")
    for name, (shape, dtype) in wanted.items():
        if given[name].shape != shape or given[name].dtype != dtype:
            found = f"{given[name].shape} {given[name].dtype}"
            raise ValueError(f"{name} of {unit} is {found}; it should be {shape} {dtype}")
    if not np.isfinite(norm).all():
        raise ValueError(f"norms of {unit} hold a NaN or an infinity")


def write_unit(
    objects: Objects,
    layout: Layout,
    side: str,
    held: Held,
    unit: Unit,
    norm: NDArray[np.float32],
    code: Mapping[str, NDArray[Any]],
    probe: NDArray[np.uint8],
    params: str,
    statistics: Statistics,
    fault: Fault,
) -> Commit:
    """Encode, put, read back and commit one unit; see :meth:`skd_cache.store.Cache.write_unit`."""
    check_rows(layout, unit, norm, code, probe)
    if objects.size(commit_name(unit)) is not None:
        raise SkdCacheError(f"{objects.location} has view {unit.view}, shard {unit.shard} already")
    grids = layout.view(unit.view)
    for name, data in metadata_objects(grids).items():
        put_data(objects, name, data, fault)
    prints = {}
    for name, rows in {NORM: norm, **code, PROBE: probe}.items():
        grid = grids[name]
        shard = encode_shard(grid, unit.shard, np.moveaxis(rows, 0, grid.axis))
        prints[name] = ObjectPrint.of(put_data(objects, grid.object(unit.shard), shard, fault))
    commit = Commit(
        cache=layout.recipe.cache_id,
        side=side,
        view=unit.view,
        shard=unit.shard,
        objects=prints,
        params=params,
        statistics=StatisticsRecord.of(statistics),
    )
    held.check()
    put_commit(objects, commit_name(unit), commit.canonical(), fault)
    return commit
