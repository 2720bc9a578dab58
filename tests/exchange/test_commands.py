"""`skd-cache export` and `skd-cache import` as they are typed, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from skd_cache.store import Unit, open_cache
from tests.store.small_cache import create, fill, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    """A cache home with one cache of two complete views and a begun one."""
    cache = create(tmp_path / "home")
    fill(cache, 2)
    write(cache, Unit(2, 1))
    return tmp_path / "home"


def typed(home, *arguments, code=0):
    line = [sys.executable, "-m", "skd_cache", *map(str, arguments)]
    environment = {**os.environ, "SKD_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, cwd=home.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_there_and_back(home):
    (cache,) = home.iterdir()
    done = typed(home, "export", cache.name[:6], "--to", "hdf5")
    file = Path(f"{cache.name}-hdf5.h5")
    assert done.stdout.strip() == str(file)
    assert "not complete: view 2" in done.stderr
    place = Path(typed(home, "import", home.parent / file, "--out", home / "else").stdout.strip())
    assert place.parent == home / "else"
    assert open_cache(place).views() == [0, 1]
    assert open_cache(place).codec.name == "float16"
    again = typed(home, "import", home.parent / file, "--out", home / "else")
    assert again.stdout.strip() == str(place)


def test_as_many_of_the_largest_as_asked_for_and_as_there_are(home):
    (cache,) = home.iterdir()
    typed(home, "export", cache.name, "--to", "topk", "--views", "1:2", "-o", "all.h5")
    typed(home, "export", cache.name, "--to", "topk", "--k", 2, "-o", "two.h5")
    with h5py.File(home.parent / "all.h5") as most, h5py.File(home.parent / "two.h5") as two:
        assert list(most["view"]) == ["00001"]
        assert most["view/00001/index"].shape == (300, 6)
        assert two["view/00001/index"].shape == (300, 2)
    place = Path(typed(home, "import", "two.h5").stdout.strip())
    assert open_cache(place).codec.name == "topk:2"


def test_what_cannot_be_is_one_sentence(home):
    (cache,) = home.iterdir()
    (home.parent / "there.h5").write_text("no export")
    for arguments in (
        ("export", cache.name, "--to", "hdf5", "--k", 3),
        ("export", cache.name, "--to", "topk", "--k", 7),
        ("export", cache.name, "--to", "hdf5", "-o", "there.h5"),
        ("export", cache.name, "--to", "hdf5", "-o", home),
        ("export", cache.name, "--to", "hdf5", "--views", "2:3"),
        ("export", "feedfeed", "--to", "hdf5"),
        ("import", "there.h5"),
        ("import", "missing.h5"),
    ):
        done = typed(home, *arguments, code=2)
        *said, sentence = done.stderr.splitlines()
        assert sentence.startswith("error: "), done.stderr
        assert said in ([], ["left out, not complete: view 2"])
    typed(home, "export", cache.name, "--to", "hdf5", "-o", "there.h5", "--force")


def test_a_damaged_file_is_exit_code_3(home):
    (cache,) = home.iterdir()
    typed(home, "export", cache.name, "--to", "topk", "-o", "out.h5")
    with h5py.File(home.parent / "out.h5", "r+") as h5:
        h5["view/00001/index"][9] = 100
    done = typed(home, "import", "out.h5", code=3)
    assert "view 1, shard 0" in done.stderr


def test_help_shows_examples(home):
    for command in ("export", "import"):
        assert f"skd-cache {command} " in typed(home, command, "--help").stdout
        assert f"  {command} " in typed(home, "--help").stdout
