"""Encodes a unit and brings it into a cache.

With ``SKD_CACHE_FAULT=n`` in the environment the process ends with exit code 137 at the n-th fault
point (from 1) it reaches, see :mod:`skd_cache.store.agree`, as a SIGKILL would end it.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from skd_cache.batch import Statistics
from skd_cache.errors import DataError
from skd_cache.store.agree import Agreement, Fault, put_object
from skd_cache.store.commit import Commit, ObjectPrint, StatisticsRecord
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
    unit: Unit,
    norm: NDArray[np.float32],
    code: Mapping[str, NDArray[Any]],
    probe: NDArray[np.uint8],
    params: str,
    statistics: Statistics,
    fault: Fault,
) -> tuple[Commit, bytes]:
    """Encode, put and commit one unit; see :meth:`skd_cache.store.Cache.write_unit`.

    Returns:
        the commit proposed, and the document of the one that counts.
    """
    check_rows(layout, unit, norm, code, probe)
    grids = layout.view(unit.view)
    for name, data in metadata_objects(grids).items():
        put_object(objects, name, data, fault)
    shards = {
        name: encode_shard(grids[name], unit.shard, np.moveaxis(rows, 0, grids[name].axis))
        for name, rows in {NORM: norm, **code, PROBE: probe}.items()
    }
    commit = Commit(
        cache=layout.recipe.cache_id,
        side=side,
        view=unit.view,
        shard=unit.shard,
        objects={name: ObjectPrint.of(fingerprint(data)) for name, data in shards.items()},
        params=params,
        statistics=StatisticsRecord.of(statistics),
    )
    agreement = unit_agreement(objects, layout, unit, fault)
    return commit, agreement.propose(commit.canonical(), shards)


def unit_agreement(objects: Objects, layout: Layout, unit: Unit, fault: Fault) -> Agreement:
    """How the builders of a unit come to one commit."""
    grids = layout.view(unit.view)

    def targets(document: bytes) -> dict[str, Print]:
        commit = Commit.parse(document, f"the decision on {commit_name(unit)}")
        if commit.objects.keys() != grids.keys():
            raise DataError(f"the decision on {commit_name(unit)} is another unit's")
        return {grids[n].object(unit.shard): told.print for n, told in commit.objects.items()}

    return Agreement(objects, commit_name(unit), targets, fault)
