"""An exported file, opened to be read with suspicion."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from skd_cache.batch import Judgement, Statistics
from skd_cache.codec import parse_codec
from skd_cache.errors import DataError, InputError
from skd_cache.exchange.column import (
    Stored,
    explained,
    find,
    number_attribute,
    require,
    text,
    text_attribute,
)
from skd_cache.exchange.dense import Dense
from skd_cache.exchange.layout import (
    FORMAT,
    VERSION,
    Form,
    UnitRecord,
    probe_rows,
    side_columns,
    view_columns,
    view_name,
)
from skd_cache.exchange.top import Top
from skd_cache.seed import samples_at
from skd_cache.store import Recipe, Unit
from skd_cache.store.document import MAX_BYTES, canonical_json
from skd_cache.store.objects import fingerprint
from skd_cache.store.recipe import PROBE_EVERY
from skd_cache.store.side import MAX_PROVENANCE_BYTES

BLOCK_ROWS = 1024
MAX_FEATURES = 2**20
NORM_AND_PROBE_BYTES = 4 + 8 * 8 * 3 / PROBE_EVERY
_VIEW = re.compile(r"^\d{5}$")


@dataclass(frozen=True)
class UnitRows:
    """One unit as a cache takes it."""

    norm: NDArray[np.float32]  # [n]
    code: Mapping[str, NDArray[Any]]  # rows first
    probe: NDArray[np.uint8]  # [p, 8, 8, 3]
    params: str
    statistics: Statistics


@dataclass(frozen=True)
class Source:
    """An exported file whose structure is checked; values are as they are read."""

    file: Path
    h5: h5py.File
    form: Form
    exported: Recipe  # of the cache it was made of

    @property
    def recipe(self) -> Recipe:
        """Of a cache made of it: the same with the file's codec."""
        return self.exported.model_copy(update={"codec": self.form.codec.settings})

    @cached_property
    def views(self) -> list[int]:
        """The views it holds."""
        with explained(self.file):
            names = list(find(self.h5, "view"))
            good = names and all(_VIEW.match(name) for name in names)
            require(bool(good), "it holds no views, or things that are none")
            return sorted(map(int, names))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What was noted about the build, and about the export under ``imported``."""
        with explained(self.file):
            told = _document(text(self.h5, "provenance", MAX_PROVENANCE_BYTES), "provenance")
            origin = _document(text(self.h5, "origin", MAX_PROVENANCE_BYTES), "origin")
            return {**told, "imported": origin}

    @cached_property
    def columns(self) -> dict[str, Stored]:
        """All arrays by name, checked to be no larger together than the file."""
        with explained(self.file):
            wanted = side_columns(self.exported, self._features())
            for view in self.views:
                columns = view_columns(self.exported, self.form)
                wanted |= {f"{view_name(view)}/{name}": each for name, each in columns.items()}
            found = {name: Stored.open(self.h5, name, each) for name, each in wanted.items()}
            stored = sum(each.stored_bytes for each in found.values())
            require(stored <= self.file.stat().st_size, "its arrays lie over each other")
            return found

    def check(self) -> None:
        """Look at everything but the rows.

        Raises:
            DataError: if something is missing, of another shape or type, or stored elsewhere.
        """
        _ = self.columns, self.provenance

    @property
    def cache_bytes(self) -> int:
        """At most, of all the views in a cache; shard indexes and commits are the fiftieth."""
        count = self.exported.dataset.samples
        row = sum(each.row_bytes for each in self.form.columns(count).values() if not each.gzip)
        return int(len(self.views) * count * (row + NORM_AND_PROBE_BYTES) * 1.02)

    def sides(self) -> tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.float32] | None]:
        """Labels, contents, and the teacher's last layer if it is there.

        Raises:
            DataError: if a label is no class, or the layer holds what is no number.
        """
        with explained(self.file):
            labels = self._whole("label")
            known = labels.min() >= 0 and labels.max() < self.exported.dataset.classes
            require(known, "label holds labels that are no class")
            weight = self._whole("class_weight") if "class_weight" in self.columns else None
            finite = weight is None or np.isfinite(weight).all()
            require(finite, "class_weight holds a NaN or an infinity")
            return labels, self._whole("content"), weight

    def unit(self, unit: Unit) -> UnitRows:
        """The rows of one unit, compared with what was exported.

        Raises:
            DataError: if they are not what was exported, or no unit of such a cache.
        """
        start = unit.shard * self.exported.shard
        stop = min(start + self.exported.shard, self.exported.dataset.samples)
        with explained(self.file):
            try:
                return self._unit(unit, start, stop)
            except DataError as error:  # the record's
                raise ValueError(str(error)) from error
            except ValueError as error:
                place = f"view {unit.view}, shard {unit.shard}"
                raise ValueError(f"{place}: {error}") from error

    def _unit(self, unit: Unit, start: int, stop: int) -> UnitRows:
        record = self._record(unit)
        norm = self._column(unit, "norm").rows(start, stop)
        require((np.isfinite(norm) & (norm >= 0)).all(), "it has norms that are no length")
        probe = self._column(unit, "probe").rows(*_ends(probe_rows(start, stop)))
        self._require_order(unit, start, stop)
        code = self._code(unit, start, stop, norm)
        for name, array in {"norm": norm, "probe": probe, **code}.items():
            found = fingerprint(np.ascontiguousarray(array).data).sha256
            same = record.arrays.get(name) == found
            require(same, f"its {name} is not what was exported (sha256 differs)")
        statistics = record.statistics.statistics()
        _require_statistics(statistics, norm)
        return UnitRows(norm, code, probe, record.params, statistics)

    def _code(
        self, unit: Unit, start: int, stop: int, norm: NDArray[np.float32]
    ) -> dict[str, NDArray[Any]]:
        """The codes of the rows ``[start, stop)``, from as much of the file at a time as fits."""
        names = self.form.columns(self.exported.dataset.samples)
        code = {
            name: np.empty((stop - start, *spec.row), spec.dtype)
            for name, spec in self.form.codec.arrays.items()
        }
        for low in range(start, stop, BLOCK_ROWS):
            high = min(low + BLOCK_ROWS, stop)
            rows = slice(low - start, high - start)
            blocks = {name: self._column(unit, name).rows(low, high) for name in names}
            for name, part in self.form.to_code(blocks, norm[rows]).items():
                code[name][rows] = part
        return code

    def _require_order(self, unit: Unit, start: int, stop: int) -> None:
        recipe = self.exported
        positions = np.arange(start, stop, dtype=np.int64)
        group = unit.view // recipe.views_per_decode
        wanted = samples_at(recipe.seed, group, positions, recipe.dataset.samples)
        found = self._column(unit, "sample").rows(start, stop)
        ordered = np.array_equal(found, wanted)
        require(ordered, "its samples are not in the order that the recipe's seed gives")

    def _record(self, unit: Unit) -> UnitRecord:
        data = bytes(self._column(unit, "unit").rows(unit.shard, unit.shard + 1)[0])
        return UnitRecord.parse(data, "what it tells of it")

    def _column(self, unit: Unit, name: str) -> Stored:
        return self.columns[f"{view_name(unit.view)}/{name}"]

    def _whole(self, name: str) -> NDArray[Any]:
        column = self.columns[name]
        return column.rows(0, column.column.shape[0])

    def _features(self) -> int | None:
        if "class_weight" not in self.h5:
            return None
        shape: tuple[int, ...] = getattr(find(self.h5, "class_weight"), "shape", ())
        good = len(shape) == 2 and 1 <= shape[-1] <= MAX_FEATURES
        require(good, f"class_weight has the shape {shape}")
        return int(shape[-1])


@contextmanager
def open_source(file: Path) -> Iterator[Source]:
    """An exported file, to be made a cache of.

    Raises:
        InputError: if it is no such file, or one of another version.
        DataError: if it is damaged.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    try:
        h5 = h5py.File(file, "r", locking=False)
    except OSError as error:
        raise InputError(f"{file} is not a readable HDF5 file: {error}") from error
    with h5:
        form, recipe = _identify(file, h5)
        yield Source(file, h5, form, recipe)


def _identify(file: Path, h5: h5py.File) -> tuple[Form, Recipe]:
    try:
        kind = text_attribute(h5, "format", 64)
    except (OSError, RuntimeError, LookupError, TypeError, ValueError):
        kind = b""
    if kind != FORMAT.encode():
        raise InputError(f"{file} was not made by skd-cache export")
    with explained(file):
        version = number_attribute(h5, "version")
        codec = text_attribute(h5, "codec", 64).decode()
        recipe = Recipe.parse(text_attribute(h5, "recipe", MAX_BYTES), f"{file}: its recipe")
    if version != VERSION:
        raise InputError(f"{file} is of version {version}, this reads {VERSION}: update skd-cache")
    return _form(file, codec, recipe.dataset.classes), recipe


def _form(file: Path, text: str, classes: int) -> Form:
    try:
        settings = parse_codec(text, classes).settings
    except InputError as error:
        raise DataError(f"{file} is damaged: {error}") from error
    if settings == {"name": "float16"}:
        return Dense(classes)
    if settings["name"] == "topk":
        return Top(classes, settings["k"])
    raise DataError(f"{file} is damaged: no export is in the codec {text!r}")


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
        canonical_json(value)  # what cannot be written again is refused now
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    require(isinstance(value, dict), f"{what} is no JSON object")
    return dict(value)


def _require_statistics(told: Statistics, norm: NDArray[np.float32]) -> None:
    """What follows from the norms must; the rest, hits and confidences, must be possible."""
    nothing = np.zeros(len(norm))
    own = Statistics.of(norm, Judgement(nothing > 0, nothing, nothing))
    for name in ("count", "norm_sum", "norm_square_sum", "norm_histogram"):
        follows = getattr(own, name) == getattr(told, name)
        require(follows, f"the statistics do not follow from its norms ({name})")
    confidence = max(told.top_confidence_sum, told.true_confidence_sum)
    require(confidence <= len(norm) + 1e-3, "the statistics hold confidences above 1")


def _ends(rows: slice) -> tuple[int, int]:
    return rows.start, rows.stop
