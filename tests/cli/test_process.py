"""How the command line sets its process up."""

import os
import platform
import subprocess
import sys

import pytest

from skd_cache.cli.process import wait_briefly

FREED = """
import numpy as np
from skd_cache.cli.process import keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if {keep}:
    keep_memory()
before = resident()
block = np.ones(50_000_000, np.uint8)
del block
print(resident() - before)
"""


def test_threads_wait_briefly_unless_somebody_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep their ways")
@pytest.mark.parametrize("keep", [False, True])
def test_freed_memory_is_kept_only_when_asked(keep: bool) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FREED.format(keep=keep)], capture_output=True, text=True, check=True
    )
    assert (int(ran.stdout) > 40_000_000) == keep
