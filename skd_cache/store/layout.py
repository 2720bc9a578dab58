"""Where everything of a cache lies: object names and Zarr metadata, all computed from the recipe.

Nothing here is read from a cache, so nothing a cache contains can point elsewhere. The metadata
are written by hand, not by zarr-python: they are the same bytes whatever its version, and a
reader can tell a wrong one by comparing.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zarr
from zarr.core.array import AsyncArray
from zarr.errors import ZarrUserWarning
from zarr.storage import StorePath

from skd_cache.codec import ArraySpec, arrays_of
from skd_cache.codec.codec import BYTES, PCODEC, ZSTD
from skd_cache.errors import DataError
from skd_cache.store.document import canonical_json
from skd_cache.store.recipe import PROBE_EVERY, Recipe

# Zarr says of every numcodecs codec that others may lack it; docs/format.md says which we use.
warnings.filterwarnings("ignore", "Numcodecs codecs are not in", ZarrUserWarning)

RECIPE = "recipe.json"
ROOT = "logits.zarr"
SIDE = "commit/cache.json"
NORM, PROBE, CLASS_WEIGHT = "norm", "probe", "class_weight"
THUMBNAIL = (8, 8, 3)
_CRC = {"name": "crc32c"}
_COMMIT = re.compile(r"^commit/(\d{5})/(\d{5})\.json$")


@dataclass(frozen=True, order=True)
class Unit:
    """The least that is committed: one shard of one view."""

    view: int
    shard: int


@dataclass(frozen=True)
class Grid:
    """One array: its shape, where positions run, and how it is cut."""

    name: str  # inside the Zarr hierarchy: "view/00000/norm"
    dtype: str
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...] | None  # None: one chunk holds the whole array, no shards
    axis: int
    fill: int | float | str
    codecs: tuple[Mapping[str, Any], ...] = (BYTES,)

    def metadata(self) -> dict[str, Any]:
        """Zarr v3 metadata of the array."""
        inner = [dict(codec) for codec in (*self.codecs, _CRC)]
        sharding = {
            "chunk_shape": list(self.chunk or ()),
            "codecs": inner,
            "index_codecs": [dict(BYTES), _CRC],
            "index_location": "end",
        }
        whole = [{"name": "sharding_indexed", "configuration": sharding}]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shard)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.fill,
            "codecs": whole if self.chunk else inner,
            "attributes": {},
        }

    def object(self, shard: int = 0) -> str:
        """The name of the object that holds a shard."""
        place = ["0"] * len(self.shape)
        place[self.axis] = str(shard)
        return f"{ROOT}/{self.name}/c/{'/'.join(place)}"

    def open(self, store: Any, root: str = ROOT) -> zarr.Array[Any]:
        """The array in a Zarr store, by our metadata rather than the store's."""
        place = StorePath(store, f"{root}/{self.name}")
        config = {"write_empty_chunks": True}
        return zarr.Array(AsyncArray(self.metadata(), place, config))  # type: ignore[call-overload]


class Layout:
    """Where all arrays of a cache lie and how they are cut."""

    def __init__(self, recipe: Recipe, shapes: Mapping[str, Sequence[int]]) -> None:
        """From the recipe, and the shapes of the arrays beside the views that it leaves open.

        Raises:
            DataError: if the codec has no arrays of such shapes.
        """
        self.recipe = recipe
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        codecs = {name: shape for name, shape in shapes.items() if name != CLASS_WEIGHT}
        self.codes = arrays_of(recipe.planned_codec(), recipe.dataset.classes, codecs)
        weight = self.shapes.get(CLASS_WEIGHT, (recipe.dataset.classes, 1))
        if len(weight) != 2 or weight[0] != recipe.dataset.classes:
            raise DataError(f"{CLASS_WEIGHT} has the shape {weight}")

    def view(self, view: int) -> dict[str, Grid]:
        """The arrays of a view: ``norm``, the codec's, ``probe``."""
        recipe, base = self.recipe, f"view/{view:05d}"
        count, shard, chunk = recipe.dataset.samples, recipe.shard, recipe.chunk
        norm = Grid(f"{base}/{NORM}", "float32", (count,), (shard,), (chunk,), 0, "NaN", (PCODEC,))
        grids = {NORM: norm}
        for name, spec in self.codes.items():
            grids[name] = _code_grid(f"{base}/{name}", spec, recipe)
        probes, per_shard = math.ceil(count / PROBE_EVERY), shard // PROBE_EVERY
        # Chunks of probes follow those of the codes where they can, so none is decoded twice.
        per_chunk = per_shard if chunk % PROBE_EVERY else chunk // PROBE_EVERY
        shape, cut = (probes, *THUMBNAIL), (per_shard, *THUMBNAIL)
        # zstd for the sake of the last chunk, most of which may be fill.
        grids[PROBE] = Grid(
            f"{base}/{PROBE}", "uint8", shape, cut, (per_chunk, *THUMBNAIL), 0, 0, (BYTES, ZSTD)
        )
        return grids

    def side(self) -> dict[str, Grid]:
        """The arrays beside the views: label, content, the codec's, the teacher's last layer."""
        count = (self.recipe.dataset.samples,)
        grids = {
            "label": Grid("sample/label", "int32", count, count, None, 0, 0),
            "content": Grid("sample/content", "uint64", count, count, None, 0, 0),
        }
        for name, shape in self.shapes.items():
            folder = "teacher" if name == CLASS_WEIGHT else "codec"
            grids[name] = Grid(f"{folder}/{name}", "float32", shape, shape, None, 0, 0.0)
        return grids


def _code_grid(name: str, spec: ArraySpec, recipe: Recipe) -> Grid:
    def around(along: int, row: Sequence[int]) -> tuple[int, ...]:
        return (*row[: spec.axis], along, *row[spec.axis :])

    cut = spec.row_chunk or spec.row
    # A shard holds whole chunks: the row axes are filled up where they end inside one.
    whole = [math.ceil(size / part) * part for size, part in zip(spec.row, cut, strict=True)]
    return Grid(
        name,
        spec.dtype,
        around(recipe.dataset.samples, spec.row),
        around(recipe.shard, whole),
        around(recipe.chunk, cut),
        spec.axis,
        0,
        spec.codecs,
    )


def commit_name(unit: Unit) -> str:
    """The name of a unit's commit."""
    return f"commit/{unit.view:05d}/{unit.shard:05d}.json"


def claim_of(unit: Unit) -> str:
    """What a unit is called where builders claim it."""
    return f"{unit.view:05d}/{unit.shard:05d}"


def unit_of(name: str, recipe: Recipe) -> Unit | None:
    """The unit whose commit has this name, or ``None`` if no unit's has."""
    if not (match := _COMMIT.match(name)):
        return None
    unit = Unit(int(match[1]), int(match[2]))
    return unit if unit.shard < recipe.shards else None


def group_metadata(attributes: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a group's zarr.json."""
    return canonical_json(
        {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
    )


def root_metadata(recipe: Recipe, provenance: Mapping[str, Any]) -> bytes:
    """The bytes of the root's zarr.json, which carries recipe and provenance."""
    told = {"recipe": recipe.model_dump(mode="json"), "provenance": dict(provenance)}
    return group_metadata(told)


def metadata_objects(grids: Mapping[str, Grid]) -> dict[str, bytes]:
    """The zarr.json of these arrays and of the groups above them, below the root, by name."""
    objects = {}
    for grid in grids.values():
        parts = grid.name.split("/")
        for depth in range(1, len(parts)):
            objects[f"{ROOT}/{'/'.join(parts[:depth])}/zarr.json"] = group_metadata()
        objects[f"{ROOT}/{grid.name}/zarr.json"] = canonical_json(grid.metadata())
    return objects
