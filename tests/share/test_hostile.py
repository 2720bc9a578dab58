"""A registry that lies: refused, in bounded memory, and nothing is written beside the cache."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numcodecs
import numpy as np
import pytest

from skd_cache.errors import DataError, InputError, SkdCacheError
from skd_cache.share import Pin, Registry, pull
from skd_cache.store import open_cache
from skd_cache.store.commit import ObjectPrint
from skd_cache.store.document import canonical_json
from skd_cache.store.objects import Objects, fingerprint
from tests.share.test_team import pull_all, quiet
from tests.store.small_cache import create, fill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def team(tmp_path):
    """A folder as registry, with a cache that the tests spoil."""
    made = create(tmp_path / "team")
    fill(made)
    return made


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(team, tmp_path, match, kind=DataError):
    """Pull, and see that it is refused and writes nothing but inside the cache folder."""
    before = {path for path in everything(tmp_path) if not path.startswith("home")}
    with pytest.raises(kind, match=match):
        pull_all(team, str(tmp_path / "team"), tmp_path / "home")
    after = {path for path in everything(tmp_path) if not path.startswith("home")}
    assert before == after
    home = tmp_path / "home"
    assert {path.name for path in home.iterdir()} <= {team.id} if home.exists() else True


def rewrite(place, change):
    found = json.loads(place.read_bytes())
    change(found)
    place.write_bytes(canonical_json(found))


def test_ids_that_lead_elsewhere_are_no_ids(bucket, tmp_path):
    for name in ("../../etc", "/etc", "..", "0" * 15 + "/", "%2e%2e", "A" * 16):
        with pytest.raises(InputError, match="there is no cache"):
            pull(name, Registry(bucket), tmp_path / "home", None, None, quiet)
        with pytest.raises(InputError):
            Pin.parse(f"{name}@0:1:sha256:xyz")
    Objects(bucket).replace("..%2f..%2fetc/recipe.json", b"{}")
    assert Registry(bucket).caches() == []


def test_a_recipe_whose_hash_is_not_its_name(team, tmp_path):
    rewrite(Path(team.location) / "recipe.json", lambda found: found.update(seed=8))
    refused(team, tmp_path, "holds the recipe of")


@pytest.mark.parametrize("name", ["recipe.json", "commit/cache.json", "commit/00000/00000.json"])
def test_gigantic_json_is_not_read(team, tmp_path, name):
    place = Path(team.location) / name
    place.unlink()
    with place.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it costs the test nothing
    refused(team, tmp_path, "at most 65,536 can be right")


def test_deep_json_is_refused(team, tmp_path):
    place = Path(team.location) / "commit/00000/00000.json"
    place.write_bytes(b"[" * 60_000)
    refused(team, tmp_path, "is damaged")


def test_a_commit_that_names_other_arrays(team, tmp_path):
    def change(found):
        found["objects"]["elsewhere"] = found["objects"].pop("norm")

    rewrite(Path(team.location) / "commit/00000/00000.json", change)
    refused(team, tmp_path, "does not cover its shard")


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "norm/../../evil"])
def test_a_commit_that_points_outside(team, tmp_path, name):
    def change(found):
        found["objects"][name] = found["objects"].pop("norm")

    rewrite(Path(team.location) / "commit/00000/00000.json", change)
    refused(team, tmp_path, "is damaged")


def test_a_commit_of_another_view(team, tmp_path):
    place = Path(team.location)
    data = (place / "commit/00000/00000.json").read_bytes()
    (place / "commit/00000/00001.json").write_bytes(data)
    refused(team, tmp_path, "another cache, view or shard")


def test_an_object_too_large_to_be_right(team, tmp_path):
    def change(found):
        found["objects"]["norm"]["size"] = 1 << 40

    rewrite(Path(team.location) / "commit/00000/00000.json", change)
    refused(team, tmp_path, "can be right")


def test_an_object_larger_than_its_commit_says(team, tmp_path):
    place = Path(team.location) / "logits.zarr/view/00000/norm/c/0"
    with place.open("wb") as file:
        file.truncate(1 << 40)
    refused(team, tmp_path, "is not what was committed")


@pytest.mark.parametrize(
    "name", ["recipe.json", "logits.zarr/view/00000/norm/c/0", "commit/00000", "commit/00000/loop"]
)
def test_links_are_not_followed(team, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    place = Path(team.location) / name
    if place.is_dir():
        place.rename(outside / "moved")
        place.symlink_to(outside / "moved")
    elif place.exists():
        place.unlink()
        place.symlink_to(outside / "secret")
    else:
        place.symlink_to(place.parent.parent)
    refused(team, tmp_path, "a cache has no links")


def test_a_pipe_does_not_hold_us_up(team, tmp_path):
    place = Path(team.location) / "logits.zarr/view/00000/norm/c/1"
    place.unlink()
    os.mkfifo(place)
    refused(team, tmp_path, "a cache has no links")


def test_a_push_does_not_write_through_a_link(team, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "shared" / team.id
    folder.mkdir(parents=True)
    (folder / "logits.zarr").symlink_to(outside)
    from skd_cache.share import push

    with pytest.raises(DataError, match="a cache has no links"):
        push(team.location, Registry(str(tmp_path / "shared")), None, quiet)
    assert list(outside.iterdir()) == []


def bomb(team):
    """A probe shard whose chunk says it holds a terabyte of zeros; its commit agrees with it."""
    folder = Path(team.location)
    name = team._layout.view(0)["probe"].object(0)
    stored = (folder / name).read_bytes()
    real = numcodecs.Zstd().encode(np.zeros(1 << 28, np.uint8))
    assert len(real) < 1 << 15
    import google_crc32c

    chunk = real + google_crc32c.value(real).to_bytes(4, "little")
    index = np.array([[0, len(chunk)]] * (team.recipe.shard // 64), "<u8").tobytes()
    if len(index) + 4 > len(stored):
        raise AssertionError("the index has another length")
    data = chunk + index + google_crc32c.value(index).to_bytes(4, "little")
    (folder / name).write_bytes(data)

    def change(found):
        found["objects"]["probe"] = ObjectPrint.of(fingerprint(data)).model_dump(mode="json")

    rewrite(folder / "commit/00000/00000.json", change)


READ = """
import resource, sys
from skd_cache.store import open_cache
cache = open_cache(sys.argv[1])
room = 256 << 20  # beyond what importing took
soft = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + room
resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
from skd_cache.errors import DataError
try:
    cache.read(0, 0, 64)
except DataError as error:
    print("refused:", error)
"""


def test_a_shard_that_swells_is_refused_when_it_is_read(team, tmp_path):
    """It is what its commit says, so it travels; decoding it takes no more room than a chunk."""
    bomb(team)
    found = pull_all(team, str(tmp_path / "team"), tmp_path / "home").location
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READ, found]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "probe cannot be decoded" in told.stdout
    problems = list(open_cache(found).verify(full=True))
    assert any("probe cannot be decoded" in problem for problem in problems)


def test_nothing_a_registry_says_takes_memory(team, tmp_path):
    """All of the above in one process that may not grow."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    place = Path(team.location) / "logits.zarr/view/00000/code/c/0/0"
    with place.open("wb") as file:
        file.truncate(1 << 36)
    for _ in range(3):
        with pytest.raises(SkdCacheError):
            pull_all(team, str(tmp_path / "team"), tmp_path / "home")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
