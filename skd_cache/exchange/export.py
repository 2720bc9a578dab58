"""A cache, or some views of it, as one HDF5 file."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from skd_cache.codec import NotFiniteError
from skd_cache.errors import DataError, InputError
from skd_cache.exchange.layout import (
    FORMAT,
    GZIP_LEVEL,
    VERSION,
    Column,
    Form,
    OutOfRangeError,
    UnitRecord,
    probe_rows,
    side_columns,
    view_columns,
    view_name,
)
from skd_cache.progress import track
from skd_cache.seed import samples_at
from skd_cache.store import Cache, Rows, Unit
from skd_cache.store.document import canonical_json

ABOUT = {
    "hdf5": "Row p of view/VVVVV is of the sample s = view/VVVVV/sample[p], whose label is "
    "label[s]. logits are the teacher's, minus their mean over the classes: softmax(logits) are "
    "its probabilities.",
    "topk": "Row p of view/VVVVV is of the sample s = view/VVVVV/sample[p], whose label is "
    "label[s]. probability holds the largest probabilities of the teacher's softmax at "
    "temperature 1, in descending order, index their classes.",
}
BATCH_ROWS = 1024


def complete_views(cache: Cache, asked: range | None) -> tuple[list[int], list[int]]:
    """Which of the views asked for (all that were begun if None) are whole, and which are not.

    Raises:
        InputError: if none is.
    """
    whole = cache.views()
    begun = {unit.view for unit in cache.commits}
    wanted = sorted(begun) if asked is None else list(asked)
    views = [view for view in wanted if view in whole]
    if not views:
        raise InputError(
            f"{cache.location} holds none of the views asked for completely: "
            f"it holds {', '.join(map(str, whole)) or 'none'}"
        )
    return views, [view for view in wanted if view not in whole]


def export_views(
    cache: Cache, form: Form, file: Path, views: Sequence[int], *, force: bool = False
) -> None:
    """Write these views of a cache to one file, which appears when it is whole.

    Rows pass through memory a thousand at a time, however large the cache is.

    Args:
        cache: with all these views complete.
        form: how logits stand in the file.
        file: where; its folder is made if need be.
        views: which.
        force: replace a file that is there.

    Raises:
        InputError: the cache cannot be written in this form, the file exists or does not fit.
        DataError: the cache is damaged.
    """
    _require_form(cache, form)
    _require_place(cache, form, file, views, force)
    features = None if cache.class_weight is None else cache.class_weight.shape[1]
    total = len(views) * cache.recipe.dataset.samples
    with _writing(file, force) as h5, track(total, f"export {file.name}", "rows") as bar:
        _write_root(h5, cache, form, views)
        arrays: dict[str, NDArray[Any]] = {"label": cache.labels, "content": cache.contents}
        if cache.class_weight is not None:
            arrays["class_weight"] = cache.class_weight
        for name, column in side_columns(cache.recipe, features).items():
            h5.create_dataset(name, data=arrays[name].astype(column.dtype, copy=False))
        for view in views:
            group = _create_view(h5, cache, form, view)
            for shard in range(cache.shards):
                group["unit"][shard] = _write_unit(group, cache, form, Unit(view, shard))
                start, stop = cache.unit_range(shard)
                bar.advance(stop - start)


def _require_form(cache: Cache, form: Form) -> None:
    if cache.codec.settings["name"] != "topk" or cache.codec == form.codec:
        return
    kept = cache.codec.settings["k"]
    if form.to != "topk":
        raise InputError(
            f"{cache.location} keeps {kept} probabilities a row, not logits: export it --to topk"
        )
    if form.codec.settings["k"] > kept:
        raise InputError(f"{cache.location} keeps {kept} probabilities a row: ask --k {kept}")


def _require_place(cache: Cache, form: Form, file: Path, views: Sequence[int], force: bool) -> None:
    if file.is_dir():
        raise InputError(f"{file} is a folder: name the file to write")
    _require_free(file, force)
    columns = view_columns(cache.recipe, form).values()
    view = sum(_bytes(column) for column in columns)
    weight = 0 if cache.class_weight is None else cache.class_weight.nbytes
    need = len(views) * view + cache.recipe.dataset.samples * 12 + weight
    folder = next(place for place in file.absolute().parents if place.exists())
    if need > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{file} needs up to {decimal(need)} and its disk has {decimal(free)} free: free "
            "some, ask for fewer --views, or for --to topk"
        )


def _bytes(column: Column) -> int:
    """At most, of a whole array: gzip leaves a fifth of a byte of a correction, or far less."""
    whole = column.shape[0] * column.row_bytes
    return whole // 8 if column.gzip else whole


def _require_free(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise InputError(f"{file} exists already: remove it, use --force, or another -o")


@contextmanager
def _writing(file: Path, force: bool) -> Iterator[h5py.File]:
    """A file that appears under its name only when it is whole and on the disk."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _held(partial, file) as held:
            # Ours alone by our own lock: HDF5 would take its lock after cutting the file.
            with h5py.File(partial, "w", locking=False) as h5:
                yield h5
            os.fsync(held)
            _require_free(file, force)  # another may have come meanwhile
            partial.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError) as error:  # h5py raises either over a full disk
        raise InputError(f"cannot write {file}: {error}") from error


@contextmanager
def _held(partial: Path, file: Path) -> Iterator[int]:
    """Be the one to write a partial file, also one that a killed export left; it is removed."""
    handle = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _lock(handle) or not _is(partial, handle):
            raise InputError(f"another export writes {file}: wait for it, or use another -o")
        try:
            yield handle
        finally:
            if _is(partial, handle):
                partial.unlink()
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, handle: int) -> bool:
    """Whether a path still names an open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(handle))
    return False


def _write_root(h5: h5py.File, cache: Cache, form: Form, views: Sequence[int]) -> None:
    """What the file is and where it comes from."""
    h5.attrs["format"], h5.attrs["version"] = np.bytes_(FORMAT.encode()), VERSION
    h5.attrs["about"] = np.bytes_(ABOUT[form.to].encode())
    h5.attrs["codec"] = np.bytes_(form.codec.name.encode())
    h5.attrs["recipe"] = np.bytes_(cache.recipe.canonical())
    digests = {str(view): cache.digest(view) for view in views}
    origin = {"cache": cache.id, "digest": digests, "skd-cache": version("skd-cache")}
    h5["origin"] = np.bytes_(canonical_json(origin))
    h5["provenance"] = np.bytes_(canonical_json(dict(cache.provenance)))
    classes = cache.provenance.get("classes")
    if isinstance(classes, list) and len(classes) == cache.recipe.dataset.classes:
        names = [str(name).encode(errors="replace") for name in classes]
        kind = h5py.string_dtype("utf-8", max(map(len, names), default=1) or 1)
        h5.create_dataset("class_name", data=np.array(names, dtype=kind), dtype=kind)


def _create_view(h5: h5py.File, cache: Cache, form: Form, view: int) -> h5py.Group:
    """The empty arrays of a view."""
    group = h5.create_group(view_name(view))
    for name, column in view_columns(cache.recipe, form).items():
        packing: dict[str, Any] = {}
        if column.gzip:
            packing = {"compression": "gzip", "compression_opts": GZIP_LEVEL}
        group.create_dataset(
            name, column.shape, np.dtype(column.dtype), chunks=column.block, **packing
        )
    return group


def _write_unit(group: h5py.Group, cache: Cache, form: Form, unit: Unit) -> bytes:
    """Write the rows of one unit; its record."""
    recipe = cache.recipe
    start, stop = cache.unit_range(unit.shard)
    digests = {name: hashlib.sha256() for name in ("norm", "probe", *form.codec.arrays)}
    for rows in cache.stream(unit.view, start, stop, BATCH_ROWS):
        norm = rows.teacher.norm.numpy()
        code = _codes(cache, form, rows)
        try:
            blocks = form.to_file(code, norm)
        except OutOfRangeError as error:
            raise InputError(
                f"{_place(cache, rows, error.row)} has {error}, which is more than the file's "
                "float16 holds: export it --to topk"
            ) from error
        place = slice(rows.start, rows.stop)
        positions = np.arange(rows.start, rows.stop, dtype=np.int64)
        of_view = unit.view // recipe.views_per_decode
        samples = samples_at(recipe.seed, of_view, positions, recipe.dataset.samples)
        for name, block in {"sample": samples, "norm": norm, **blocks}.items():
            group[name][place] = block
        group["probe"][probe_rows(rows.start, rows.stop)] = rows.probes.numpy()
        for name, array in {"norm": norm, "probe": rows.probes.numpy(), **code}.items():
            digests[name].update(np.ascontiguousarray(array).data)
    commit = cache.commits[unit]
    record = UnitRecord(
        params=commit.params,
        statistics=commit.statistics,
        arrays={name: digest.hexdigest() for name, digest in digests.items()},
    )
    return record.canonical()


def _codes(cache: Cache, form: Form, rows: Rows) -> Mapping[str, NDArray[Any]]:
    """The rows' codes by the file's codec: copied where the cache has the same or more of it."""
    codec = form.codec
    code = {name: array.numpy() for name, array in rows.teacher.code.items()}
    if cache.codec == codec:
        return code
    if cache.codec.settings["name"] == "topk":  # ranked, so the first are what fewer would be
        return {name: np.ascontiguousarray(array[:, : _k(codec)]) for name, array in code.items()}
    try:
        return codec.encode(rows.teacher.logits().numpy()).code
    except NotFiniteError as error:
        raise DataError(f"{_place(cache, rows, error.row)}: its logits {error.what}") from error


def _k(codec: Any) -> int:
    return int(codec.settings["k"])


def _place(cache: Cache, rows: Rows, row: int) -> str:
    position = np.array([rows.start + row], np.int64)
    group = rows.view // cache.recipe.views_per_decode
    sample = samples_at(cache.recipe.seed, group, position, cache.recipe.dataset.samples)[0]
    return f"{cache.location}, view {rows.view}, sample {sample}"
