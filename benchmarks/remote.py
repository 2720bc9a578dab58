"""A student's steps over a remote cache, on a line twice as fast as they need, against local disk.

The student is a pause for each batch, as a GPU is to its CPU; logits are read as training reads
them. The bucket is moto's S3 server on this machine, behind a line that carries twice the bytes
that the student uses. Every round begins with nothing fetched, and has room for a part of the
view. Counted are the steps after the first batch is there; how long that took is told apart.

    python benchmarks/remote.py [--rate 16000] [--samples 131072] [--rounds 3]
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
from line import Line
from stored import fitted, store

from skd_cache.codec import parse_codec
from skd_cache.share.place import open_in_place
from skd_cache.store import Cache, open_cache
from skd_cache.store.objects import Objects

BATCH, CLASSES, REQUIRED = 256, 100, 0.95
MOTO = """
import sys
from werkzeug.serving import WSGIRequestHandler
from moto.server import main
WSGIRequestHandler.disable_nagle_algorithm = True
main(sys.argv[1:])
"""


def serve() -> tuple[subprocess.Popen[bytes], int]:
    """An S3 server with an empty bucket named ``team``."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    command = [sys.executable, "-c", MOTO, "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    for _ in range(300):
        with suppress(OSError):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/team", method="PUT")
            urllib.request.urlopen(request)
            return process, port
        time.sleep(0.1)
    raise TimeoutError("moto did not start")


def upload(cache: Cache, url: str) -> None:
    there = Objects(url)
    for path in Path(cache.location).rglob("*"):
        if path.is_file():
            there.create(path.relative_to(cache.location).as_posix(), path.read_bytes())


def steps(cache: Cache, rate: float) -> tuple[float, float, float]:
    """Seconds to the first batch, of the steps after it, and the longest wait among them."""
    began = time.perf_counter()
    stream = cache.stream(0, 0, cache.recipe.dataset.samples, BATCH)
    next(stream)
    first = time.perf_counter()
    longest = 0.0
    while True:
        time.sleep(BATCH / rate)
        asked = time.perf_counter()
        if next(stream, None) is None:
            return first - began, asked - first, longest
        longest = max(longest, time.perf_counter() - asked)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=16_000, help="images/s of the student")
    parser.add_argument("--samples", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    logits = np.random.default_rng(0).normal(size=(8192, CLASSES)).astype(np.float32) * 4
    process, port = serve()
    settings = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    os.environ.update(settings | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    try:
        with tempfile.TemporaryDirectory() as folder:
            codec = fitted(parse_codec("int8", CLASSES), logits, None)
            local = store(Path(folder), codec, logits, asked.samples)
            url = f"s3://team/{local.id}"
            upload(local, url)
            need = asked.rate * local.data_bytes / asked.samples
            rows = []
            for number in range(asked.rounds):
                near = steps(open_cache(local.location), asked.rate)
                line = Line(port, rate=2 * need)
                os.environ["AWS_ENDPOINT_URL"] = line.url
                home, limit = Path(folder, f"home-{number}"), 6 * local.largest_unit
                cache = open_in_place(url, home, limit=limit, say=print)
                far = steps(cache, asked.rate)
                line.cut()
                rows.append((near[1] / far[1], near, far))
                print(
                    f"round {number + 1}: local {near[1]:.2f} s, remote {far[1]:.2f} s "
                    f"({rows[-1][0]:.3f}), longest wait {far[2] * 1000:.0f} ms (local "
                    f"{near[2] * 1000:.0f}), first batch after {far[0]:.2f} s"
                )
            print(f"need {need / 1e6:.2f} MB/s, line {2 * need / 1e6:.2f} MB/s")
    finally:
        process.kill()
    ratio = statistics.median(row[0] for row in rows)
    print(f"{'steps, remote against local':32} {ratio:.3f}   aim >= {REQUIRED}")
    told = {"ratio": ratio, "rounds": [row[0] for row in rows], "required": REQUIRED}
    print(json.dumps({"benchmark": "remote", **told}))


if __name__ == "__main__":
    main()
