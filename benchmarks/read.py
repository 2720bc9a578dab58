"""One epoch of codes read in batches of 256: ours against the ways people store logits.

    ours     cache.stream: klt codes, norms and thumbnails, checked and decompressed
    lookup   cache.lookup of shuffled samples
    oindex   the same Zarr array through plain zarr-python, oindex of shuffled rows
    h5py     shuffled rows of an HDF5 file of the codes, sorted in each batch, as h5py wants
    files    one torch file a sample, shuffled
    records  a binary file of fixed records, seek and read for each shuffled sample
    mmap     the codes as they lie in a view, [R, N], not compressed, in one memory-mapped file,
             each batch copied, into memory that the processor has in its cache: the limit
    rows     the same from [N, R], one stretch of memory a batch
    kept     as mmap, but the batches stay, so each is copied into new memory; against ours kept

All hold the same int16 codes, so what is decoded on the device afterwards is left out. Files are
in the page cache. The ways take turns; each rate is the median over the rounds.

    python benchmarks/read.py --logits FILE.npz [--samples 131072] [--codec klt] [--rounds 5]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import zarr
from codec import load
from numpy.typing import NDArray
from stored import fitted, store

from skd_cache.codec import parse_codec
from skd_cache.store import Cache, Rows, open_cache

BATCH = 256
OURS_KEPT = "ours, kept"
REQUIRED = {"mmap": 0.25, "oindex": 50.0, "records": 3.0}
RATE = 300_000
ROWS = {"lookup": 16, "oindex": 8, "h5py": 16, "files": 16, "records": 128}
"""Batches that are enough to time the slow ways."""

Codes = NDArray[np.int16]
Read = Callable[[], int]


def shuffled(samples: int, batches: int) -> Iterator[NDArray[np.int64]]:
    order = np.random.default_rng(1).permutation(samples)[: BATCH * batches]
    return iter(np.array_split(order, len(order) // BATCH))


def batches(cache: Cache) -> Iterator[Rows]:
    fresh = open_cache(cache.location)  # nothing checked or kept yet
    return fresh.stream(0, 0, fresh.recipe.dataset.samples, BATCH)


def lookup(cache: Cache) -> int:
    picked = shuffled(cache.recipe.dataset.samples, ROWS["lookup"])
    return sum(len(cache.lookup(0, samples)) for samples in picked)


def oindex(cache: Cache, samples: int) -> int:
    array: Any = zarr.open_group(f"{cache.location}/logits.zarr", mode="r")["view/00000/code"]
    picked = shuffled(samples, ROWS["oindex"])
    return sum(torch.from_numpy(array.oindex[:, rows]).shape[1] for rows in picked)


def of_h5py(file: Path, samples: int) -> int:
    with h5py.File(file) as h5:
        codes = h5["code"]
        picked = shuffled(samples, ROWS["h5py"])
        return sum(len(torch.from_numpy(codes[np.sort(rows)])) for rows in picked)


def files(folder: Path, samples: int) -> int:
    def read(row: int) -> torch.Tensor:
        tensor: torch.Tensor = torch.load(folder / f"{row}.pt", weights_only=True)
        return tensor

    picked = shuffled(samples, ROWS["files"])
    return sum(len(torch.stack([read(int(row)) for row in rows])) for rows in picked)


def records(file: Path, samples: int, width: int) -> int:
    count = 0
    with file.open("rb") as handle:
        for rows in shuffled(samples, ROWS["records"]):
            batch = np.empty((len(rows), width), np.int16)
            for place, row in zip(batch, rows, strict=True):
                handle.seek(int(row) * width * 2)
                place[:] = np.frombuffer(handle.read(width * 2), np.int16)
            count += len(torch.from_numpy(batch))
    return count


def copied(file: Path, samples: int, width: int) -> Iterator[torch.Tensor]:
    codes = np.memmap(file, np.int16, "r", shape=(width, samples))
    for at in range(0, samples, BATCH):
        yield torch.from_numpy(codes[:, at : at + BATCH].copy()).T


def mmap_rows(file: Path, samples: int, width: int) -> int:
    codes = np.memmap(file, np.int16, "r", shape=(samples, width))
    starts = range(0, samples, BATCH)
    return sum(len(torch.from_numpy(codes[at : at + BATCH].copy())) for at in starts)


def ways(folder: Path, cache: Cache, samples: int) -> dict[str, Read]:
    """All ways of reading, each over what it needs in a folder."""
    name = next(iter(cache.codec.arrays))
    width = cache.codec.arrays[name].row[0]
    with (folder / "records.bin").open("wb") as handle, h5py.File(folder / "codes.h5", "w") as h5:
        codes = h5.create_dataset("code", (samples, width), np.int16, chunks=(BATCH, width))
        for rows in cache.stream(0, 0, samples, 4096):
            some = np.ascontiguousarray(rows.teacher.code[name].numpy())
            handle.write(some.tobytes())
            codes[rows.start : rows.stop] = some
    rows_first = np.memmap(folder / "records.bin", np.int16, "r", shape=(samples, width))
    np.ascontiguousarray(rows_first.T).tofile(folder / "view.bin")
    (folder / "files").mkdir()
    for rows in shuffled(samples, ROWS["files"]):
        found = cache.read(0, 0, BATCH).teacher.code[name]
        for row, at in zip(rows, range(BATCH), strict=True):
            torch.save(found[at].clone(), folder / "files" / f"{row}.pt")
    return {
        "ours": lambda: sum(map(len, batches(cache))),
        "lookup": lambda: lookup(cache),
        "oindex": lambda: oindex(cache, samples),
        "h5py": lambda: of_h5py(folder / "codes.h5", samples),
        "files": lambda: files(folder / "files", samples),
        "records": lambda: records(folder / "records.bin", samples, width),
        "mmap": lambda: sum(map(len, copied(folder / "view.bin", samples, width))),
        "rows": lambda: mmap_rows(folder / "records.bin", samples, width),
        "kept": lambda: sum(map(len, list(copied(folder / "view.bin", samples, width)))),
        OURS_KEPT: lambda: sum(map(len, list(batches(cache)))),
    }


def rate(read: Read) -> float:
    began = time.perf_counter()
    rows = read()
    return rows / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--logits", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=131072)
    parser.add_argument("--codec", default="klt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+")
    arguments = parser.parse_args()
    logits, _, weight = load(arguments.logits)
    codec = fitted(parse_codec(arguments.codec, logits.shape[1]), logits, weight)
    with tempfile.TemporaryDirectory() as folder:
        cache = store(Path(folder), codec, logits, arguments.samples)
        reads = ways(Path(folder), cache, arguments.samples)
        picked = {name: reads[name] for name in arguments.only or reads}
        for read in picked.values():
            read()
        rounds = [
            {name: rate(read) for name, read in picked.items()} for _ in range(arguments.rounds)
        ]
    print("| way | samples/s | ours is so many times it | required |\n| --- | --- | --- | --- |")
    found = {}
    for name in picked:
        speed = statistics.median(one[name] for one in rounds)
        side = OURS_KEPT if name == "kept" else "ours"
        ratio = statistics.median(one[side] / one[name] for one in rounds)
        wanted = f">= {REQUIRED[name]:g}" if name in REQUIRED else ""
        wanted = f">= {RATE:,} samples/s" if name == "ours" else wanted
        print(f"| {name} | {speed:,.0f} | {ratio:,.2f} | {wanted} |")
        found[name] = {"samples_per_second": speed, "ratio": ratio}
    print(json.dumps({"benchmark": "read", "samples": arguments.samples, "ways": found}))


if __name__ == "__main__":
    main()
