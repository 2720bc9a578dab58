"""One split of a dataset: its columns, mapped, and the encoded bytes of each sample."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.table import Table
from skd_cache.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet(Table):
    """The images of one split, in the dataset's order, which every machine agrees on.

    The columns are those of `Table`. Nothing here is a Python object per sample, so that a
    million images cost what they cost on disk, shared between processes.
    """

    name: str  # "demo/train"
    classes: tuple[str, ...]
    fingerprint: str  # sha256 of relative path, byte length and label of every sample in order
    file: Path  # the index or packed file that is mapped
    root: Path | None  # folder the paths are relative to; None when packed
    data: NDArray[np.uint8] | None = None  # all encoded images end to end, when packed
    offsets: NDArray[np.int64] | None = None  # [N + 1] where each begins in data

    def path(self, sample: int) -> str:
        """The path of a sample relative to its split's folder, with forward slashes."""
        return self._path(sample).decode("utf-8", "surrogateescape")

    def describe(self, sample: int) -> str:
        """Where a sample lies, for messages: its file, or its place in the packed file."""
        shown = self._path(sample).decode("utf-8", "backslashreplace")
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)
        if self.root is not None:
            return str(self.root / shown)
        return f"{self.file.name}: {self.name.rpartition('/')[2]}/{shown}"

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded image ``[bytes]``, as it lies on disk.

        Raises:
            InputError: the file cannot be read or changed its length since it was indexed.
        """
        if self.data is not None and self.offsets is not None:
            return self.data[self.offsets[sample] : self.offsets[sample + 1]]
        try:
            encoded = np.fromfile((self.root or Path()) / self.path(sample), np.uint8)
        except OSError as error:
            raise InputError(f"cannot read {self.describe(sample)}: {error.strerror}") from error
        if len(encoded) != self.lengths[sample]:
            raise InputError(
                f"{self.describe(sample)} has {len(encoded):,} bytes but had "
                f"{int(self.lengths[sample]):,} when it was indexed: run the command again"
            )
        return encoded

    def _path(self, sample: int) -> bytes:
        begin, end = self.path_offsets[sample], self.path_offsets[sample + 1]
        return self.paths[begin : end - 1].tobytes()


def fingerprint(table: Table) -> str:
    """The identity of a split: equal where path, byte length and label of every sample are.

    sha256 over three columns: the relative paths, each followed by a NUL byte, the byte lengths
    as little-endian int64 and the labels as little-endian int32. Hex.
    """
    digest = hashlib.sha256(np.ascontiguousarray(table.paths).data)
    digest.update(np.ascontiguousarray(table.lengths, "<i8").data)
    digest.update(np.ascontiguousarray(table.labels, "<i4").data)
    return digest.hexdigest()


def image_set(
    table: Table,
    *,
    name: str,
    classes: tuple[str, ...],
    file: Path,
    root: Path | None = None,
    data: NDArray[np.uint8] | None = None,
    offsets: NDArray[np.int64] | None = None,
) -> ImageSet:
    """A split from its columns and where its bytes are: ``root``, or ``data`` and ``offsets``."""
    return ImageSet(
        **{column: getattr(table, column) for column in Table.__dataclass_fields__},
        name=name,
        classes=classes,
        fingerprint=fingerprint(table),
        file=file,
        root=root,
        data=data,
        offsets=offsets,
    )
