"""What lies beside the views of a cache: recipe, metadata, labels, basis, last layer."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import ObjectStore

from skd_cache.errors import DataError, InputError
from skd_cache.store.agree import Agreement, Fault, put_object
from skd_cache.store.commit import ObjectPrint, SideCommit
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.layout import (
    CLASS_WEIGHT,
    RECIPE,
    ROOT,
    SIDE,
    Grid,
    Layout,
    group_metadata,
    metadata_objects,
    root_metadata,
)
from skd_cache.store.objects import Objects, Print, fingerprint
from skd_cache.store.recipe import Recipe
from skd_cache.store.writer import encode_shard

CRC_BYTES = 4
MAX_PROVENANCE_BYTES = 4 * 1024 * 1024
_OF_SAMPLES = ("label", "content")
_ROOT_METADATA = f"{ROOT}/zarr.json"
_VIEW_METADATA = f"{ROOT}/view/zarr.json"


def create(
    objects: Objects,
    recipe: Recipe,
    arrays: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, Any],
    fault: Fault,
) -> None:
    """Put all that lies beside the views, if it is not there yet; the commit comes last.

    Of several that do this at once, one counts.

    Of a codec that was fitted twice the arrays of the first stay: two fits may differ in their
    last bits, and either does.

    Raises:
        InputError: if other labels or contents were committed under the same recipe.
    """
    if objects.size(SIDE) is not None:
        _compare(objects, recipe, arrays)
        return
    open_shapes = (name for name in arrays if name not in _OF_SAMPLES)
    layout = Layout(recipe, {name: list(arrays[name].shape) for name in open_shapes})
    grids = layout.side()
    encoded = {name: _encode(grid, arrays[name]) for name, grid in grids.items()}
    commit = SideCommit(
        cache=recipe.cache_id,
        shapes={name: list(shape) for name, shape in layout.shapes.items()},
        objects={name: ObjectPrint.of(fingerprint(data)) for name, data in encoded.items()},
    )
    counts = propose(objects, layout, commit, encoded, provenance, fault)
    if counts != commit.canonical():
        _compare(objects, recipe, arrays)


def propose(
    objects: Objects,
    layout: Layout,
    commit: SideCommit,
    encoded: Mapping[str, bytes],
    provenance: Mapping[str, Any],
    fault: Fault,
) -> bytes:
    """Let this lie beside the views, unless something does already; the commit that counts.

    Of ``encoded``, the objects by array name, those on the stage may be left out.
    """
    put_object(objects, RECIPE, layout.recipe.canonical(), fault)
    _put_provenance(objects, layout.recipe, provenance, fault)
    put_object(objects, _VIEW_METADATA, group_metadata(), fault)
    # Metadata too: another fit may keep another number of components.
    data = {**encoded, **metadata_objects(layout.side())}
    return agreement(objects, layout.recipe, fault).propose(commit.canonical(), data)


def agreement(objects: Objects, recipe: Recipe, fault: Fault) -> Agreement:
    """How those who create a cache come to one commit."""
    return Agreement(objects, SIDE, lambda found: _targets(objects, recipe, found), fault)


def _put_provenance(
    objects: Objects, recipe: Recipe, provenance: Mapping[str, Any], fault: Fault
) -> None:
    """Put the root's metadata, unless another builder's are there: any will do."""
    root = root_metadata(recipe, provenance)
    if len(root) > MAX_PROVENANCE_BYTES:
        raise InputError(f"the provenance has more than {MAX_PROVENANCE_BYTES:,} bytes")
    fault(f"before {_ROOT_METADATA}")
    if not objects.create(_ROOT_METADATA, root):
        try:
            read_provenance(objects, recipe)
        except DataError:  # cut short by a kill on storage that is not atomic
            objects.replace(_ROOT_METADATA, root)
    fault(f"after {_ROOT_METADATA}")


def _targets(objects: Objects, recipe: Recipe, document: bytes) -> dict[str, Print]:
    """Where the objects belong that a decision on the side commit speaks of."""
    commit, layout = _parse_commit(document, f"{objects.location}: the decision on {SIDE}", recipe)
    grids = layout.side()
    metadata = {name: fingerprint(data) for name, data in metadata_objects(grids).items()}
    arrays = {grids[name].object(): told.print for name, told in commit.objects.items()}
    return metadata | arrays


def read_commit(objects: Objects, recipe: Recipe) -> tuple[SideCommit, Layout]:
    """The commit of what lies beside the views, and the layout that it completes.

    Raises:
        InputError: if there is none: the cache was never completely created.
        DataError: if it is damaged or another cache's.
    """
    try:
        document = objects.get(SIDE, MAX_BYTES)
    except FileNotFoundError as error:
        raise InputError(
            f"{objects.location} was never completely created: run its build again"
        ) from error
    return _parse_commit(document, f"{objects.location}/{SIDE}", recipe)


def _parse_commit(document: bytes, place: str, recipe: Recipe) -> tuple[SideCommit, Layout]:
    commit = SideCommit.parse(document, place)
    if commit.cache != recipe.cache_id:
        raise DataError(f"{place} belongs to another cache")
    try:
        layout = Layout(recipe, commit.shapes)
    except DataError as error:
        raise DataError(f"{place} is damaged: {error}") from error
    if commit.objects.keys() != layout.side().keys():
        raise DataError(f"{place} belongs to another cache")
    return commit, layout


def read_recipe(objects: Objects) -> Recipe:
    """The recipe of the cache at a location.

    Raises:
        InputError: if there is no cache.
        DataError: if the recipe is damaged or not the one the folder is named after.
    """
    try:
        data = objects.get(RECIPE, MAX_BYTES)
    except FileNotFoundError as error:
        message = f"{objects.location} is not a cache: it has no {RECIPE}"
        raise InputError(message) from error
    recipe = Recipe.parse(data, f"{objects.location}/{RECIPE}")
    if recipe.cache_id != objects.leaf:
        raise DataError(
            f"{objects.location} holds the recipe of {recipe.cache_id}: give the folder that name "
            "if it was renamed, do not use it otherwise"
        )
    return recipe


def read_provenance(objects: Objects, recipe: Recipe) -> dict[str, Any]:
    """What was noted about the build; not part of any digest.

    Raises:
        DataError: if the root's metadata are damaged or carry another recipe.
    """
    try:
        data = objects.get(_ROOT_METADATA, MAX_PROVENANCE_BYTES)
        provenance = json.loads(data)["attributes"]["provenance"]
        if root_metadata(recipe, provenance) == data:
            return dict(provenance)
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        pass
    place = f"{objects.location}/{_ROOT_METADATA}"
    raise DataError(f"{place} is missing or damaged: get the cache from where it came again")


def read_array(objects: Objects, layout: Layout, commit: SideCommit, name: str) -> NDArray[Any]:
    """An array from beside the views, compared with its commit first.

    Raises:
        DataError: if it differs from what was committed.
    """
    grid = layout.side()[name]
    for problem in check_array(objects, grid, commit.objects[name], full=True):
        raise DataError(f"{objects.location}: {problem}")
    try:
        array: Any = grid.open(ObjectStore(objects.store, read_only=True))[...]
    except Exception as error:  # whatever zarr makes of damaged bytes
        raise DataError(f"{objects.location}: {grid.name} cannot be decoded: {error}") from error
    return np.asarray(array)


def check_array(objects: Objects, grid: Grid, wanted: ObjectPrint, *, full: bool) -> Iterator[str]:
    """What is wrong with an object: its size, and with ``full`` every byte."""
    place, plain = grid.object(), math.prod(grid.shape) * np.dtype(grid.dtype).itemsize
    size = objects.size(place)
    if size is None:
        yield f"{place} is missing"
    elif size != wanted.size:
        yield f"{place} has {size:,} bytes, the commit says {wanted.size:,}"
    elif size != plain + CRC_BYTES:  # before anything is allocated by the recipe's word
        yield f"{place} has {size:,} bytes, the recipe says {plain + CRC_BYTES:,}"
    elif full and objects.print_of(place) != wanted.print:
        yield f"{place} is not what was committed (sha256 differs)"


def check(objects: Objects, recipe: Recipe, *, full: bool) -> Iterator[str]:
    """What is wrong beside the views, in words."""
    try:
        commit, layout = read_commit(objects, recipe)
        read_provenance(objects, recipe)
    except (DataError, InputError) as error:
        yield str(error)
        return
    grids = layout.side()
    for name, grid in grids.items():
        yield from check_array(objects, grid, commit.objects[name], full=full)
    yield from check_metadata(objects, side_metadata(layout))


def side_metadata(layout: Layout) -> dict[str, bytes]:
    """The Zarr metadata beside the views, without the root's, by name."""
    return {_VIEW_METADATA: group_metadata(), **metadata_objects(layout.side())}


def check_metadata(objects: Objects, wanted: Mapping[str, bytes]) -> Iterator[str]:
    """Which Zarr metadata are not what follows from the recipe."""
    for name, data in wanted.items():
        try:
            if objects.get(name, len(data)) == data:
                continue
            yield f"{name} is not what the recipe says"
        except FileNotFoundError:
            yield f"{name} is missing"
        except DataError as error:
            yield str(error)


def _compare(objects: Objects, recipe: Recipe, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse to go on with a cache that was made from other files or another last layer."""
    commit, layout = read_commit(objects, recipe)
    grids = layout.side()
    for name in (*_OF_SAMPLES, CLASS_WEIGHT):
        ours, grid = arrays.get(name), grids.get(name)
        same = ours is None and grid is None
        if ours is not None and grid is not None and ours.shape == grid.shape:
            same = commit.objects[name].print == fingerprint(_encode(grid, ours))
        if not same:
            raise InputError(
                f"{objects.location} was built from other data, its {name} differs: restore what "
                "it was built from, or build in another place"
            )


def _encode(grid: Grid, array: NDArray[Any]) -> bytes:
    if array.shape != grid.shape:
        raise ValueError(f"{grid.name} has shape {array.shape}; it should be {grid.shape}")
    return encode_shard(grid, 0, array.astype(grid.dtype, casting="safe", copy=False))
