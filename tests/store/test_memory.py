"""Reading a cache needs a few chunks of memory, not a shard."""

import subprocess
import sys

import numpy as np

from skd_cache.batch import Statistics, judge
from skd_cache.store import Unit
from tests.store.small_cache import create, make_recipe

READ = """
import resource, sys
from skd_cache.store import open_cache
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
cache = open_cache(sys.argv[1])
next(iter(cache.stream(0, 0, 64, 64)))  # threads and codecs are up
before = peak()
total = sum(len(rows.teacher.logits()) for rows in cache.stream(0, 0, 16384, 256))
print(total, peak() - before)
"""


def test_streaming_a_large_shard_takes_little_memory(tmp_path):
    cache = create(tmp_path, make_recipe(16384, 1000, "float32", 16384, 1024))
    logits = np.random.default_rng(0).normal(size=(16384, 1000)).astype(np.float32)
    encoded = cache.codec.encode(logits)
    statistics = Statistics.of(encoded.norm, judge(logits, np.zeros(16384, np.int32)))
    probe = np.zeros((256, 8, 8, 3), np.uint8)
    cache.write_unit(Unit(0, 0), encoded.norm, encoded.code, probe, "c" * 64, statistics)
    command = [sys.executable, "-c", READ, cache.location]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows, megabytes = map(int, said.split())
    assert rows == 16384
    assert megabytes < 32, "the shard has 64 MB"
