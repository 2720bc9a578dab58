"""Push and pull against copying the same bytes with obstore alone, on a loopback S3 server.

    python benchmarks/share.py [--rounds 3] [--units 8] [--rows 16384] [--classes 500] [--json]

The copy is what obstore does best: the same objects, as many at once, nothing looked at. Ours
hashes everything it moves, stages it and commits it, and on local disk makes it last. Rounds are
interleaved, medians of the ratios reported: 1 is as fast as copying, 0.5 takes twice as long. The
server is moto's, in Python, which shares the cores; a copy inside it costs as much as a put, so
push is also compared with a plain copy followed by the server's own.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import obstore

from skd_cache.batch import Statistics, judge
from skd_cache.share import Registry, pull, push
from skd_cache.share.transfer import UNITS_AT_ONCE
from skd_cache.store import Cache, Unit, open_cache
from skd_cache.store.objects import Objects
from tests.share.server import S3Server
from tests.store.small_cache import create, make_recipe


def make_cache(home: Path, units: int, rows: int, classes: int) -> Cache:
    """One view of random logits; what they are does not matter to a transfer."""
    cache = create(home, make_recipe(units * rows, classes, "float32", shard=rows, chunk=1024))
    draws = np.random.default_rng(1)
    probe = np.zeros((rows // 64, 8, 8, 3), np.uint8)
    for shard in range(units):
        logits = draws.normal(size=(rows, classes)).astype(np.float32)
        encoded = cache.codec.encode(logits)
        sums = Statistics.of(encoded.norm, judge(logits, np.zeros(rows, np.int32)))
        cache.write_unit(Unit(0, shard), encoded.norm, encoded.code, probe, "c" * 64, sums)
    return open_cache(cache.location)


def copy(source: Objects, target: Objects) -> None:
    """All objects of data, as obstore moves them."""
    names = [found.name for found in source.list("logits.zarr")]

    def one(name: str) -> None:
        data = obstore.get(source.store, name).bytes()
        obstore.put(target.store, name, data, use_multipart=False)

    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        list(pool.map(one, names))


def copy_inside(place: Objects) -> None:
    """The server's own copies of the same objects, which a push that stages must wait for."""
    names = [found.name for found in place.list("logits.zarr")]
    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        list(pool.map(lambda name: place.copy(name, f"again/{name}"), names))


def seconds(act, *arguments) -> float:
    began = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - began


def measure(folder: Path, rounds: int, cache: Cache) -> dict:
    ratios: dict[str, list[float]] = {"push": [], "pull": []}
    staged: list[float] = []
    rates: dict[str, list[float]] = {
        name: [] for name in ("push", "push_copy", "inside", "pull", "pull_copy")
    }
    count = cache.data_bytes / 2**20
    for turn in range(rounds):
        ours, plain = f"s3://team/ours-{turn}", f"s3://team/plain-{turn}"
        home, elsewhere = folder / f"home-{turn}", folder / f"copied-{turn}"
        elsewhere.mkdir()
        there = Objects(f"{plain}/{cache.id}")
        took = {
            "push": seconds(push, cache.location, Registry(ours), None, lambda _line: None),
            "push_copy": seconds(copy, cache.objects, there),
            "inside": seconds(copy_inside, there),
            "pull": seconds(pull, cache.id, Registry(ours), home, None, None, lambda _line: None),
            "pull_copy": seconds(copy, there, Objects(elsewhere)),
        }
        assert open_cache(home / cache.id).views() == cache.views()
        for name, one in took.items():
            rates[name].append(count / one)
        staged.append((took["push_copy"] + took["inside"]) / took["push"])
        for name in ratios:
            ratios[name].append(took[f"{name}_copy"] / took[name])
        shutil.rmtree(home)
        shutil.rmtree(elsewhere)
    return {
        "megabytes": count,
        **{f"{name}_ratio": statistics.median(found) for name, found in ratios.items()},
        "push_ratio_with_the_servers_copies": statistics.median(staged),
        **{f"{name}_mb_per_s": statistics.median(found) for name, found in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--rows", type=int, default=16384, help="of a unit")
    parser.add_argument("--classes", type=int, default=500, help="four bytes each in a row")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    shape = arguments.units, arguments.rows, arguments.classes
    server = S3Server()
    server.make_bucket("team")
    os.environ.update(
        AWS_ENDPOINT_URL=server.url,
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_REGION="us-east-1",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            cache = make_cache(Path(folder) / "made", *shape)
            found = measure(Path(folder), arguments.rounds, cache)
    finally:
        server.stop()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:35} {value:.2f}")


if __name__ == "__main__":
    main()
