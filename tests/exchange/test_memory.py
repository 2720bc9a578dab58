"""A cache goes into a file and back a unit at a time, however many it has."""

import subprocess
import sys

import numpy as np
import pytest

from skd_cache.batch import Statistics, judge
from tests.store.small_cache import create, make_recipe

SAMPLES, CLASSES, SHARD = 65_536, 500, 2048

RUN = """
import resource, sys
from pathlib import Path
from skd_cache.exchange import Dense, Top, export_views, restore
from skd_cache.store import open_cache
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
cache, form, folder = open_cache(sys.argv[1]), eval(sys.argv[2]), Path(sys.argv[3])
next(iter(cache.stream(0, 0, 64, 64))).teacher.logits()
before = peak()
export_views(cache, form, folder / "out.h5", [0])
exported = peak()
restore(folder / "out.h5", str(folder / "there"))
print(exported - before, peak() - exported)
"""


@pytest.mark.parametrize("form", [f"Dense({CLASSES})", f"Top({CLASSES}, 100)"])
def test_memory_does_not_grow_with_the_cache(tmp_path, form):
    cache = create(tmp_path, make_recipe(SAMPLES, CLASSES, "float16", SHARD, 512))
    logits = np.random.default_rng(0).normal(size=(SHARD, CLASSES)).astype(np.float32)
    encoded = cache.codec.encode(logits)
    statistics = Statistics.of(encoded.norm, judge(logits, np.zeros(SHARD, np.int32)))
    probe = np.zeros((SHARD // 64, 8, 8, 3), np.uint8)
    for unit in cache.missing(range(1)):
        cache.write_unit(unit, encoded.norm, encoded.code, probe, "c" * 64, statistics)
    line = [sys.executable, "-c", RUN, cache.location, form, tmp_path]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    exporting, importing = map(int, said.split())
    assert exporting < 40, "the view has 66 MB"
    assert importing < 40
