"""What fails its commit is dropped, and nothing else; a build makes it again."""

import shutil
from pathlib import Path

import pytest

from skd_cache.errors import DataError, InputError
from skd_cache.store import Unit, Work, create_cache, open_cache, repair
from tests.store.small_cache import create, fill, side_arrays
from tests.store.test_damage import damages, flip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    cache = create(tmp_path_factory.mktemp("sound"))
    fill(cache, views=2)
    return cache


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound.location, tmp_path / sound.id))


def repaired(folder, **options):
    return list(repair(str(folder), **options))


def assert_whole_again(folder, sound):
    """Built again, it is what it was."""
    assert list(open_cache(folder).verify(full=True)) == []
    fill(open_cache(folder), views=2)
    cache = open_cache(folder)
    assert [cache.digest(view) for view in (0, 1)] == [sound.digest(view) for view in (0, 1)]
    assert list(cache.verify(full=True)) == []


def test_a_sound_cache_is_left_alone(folder):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert repaired(folder, full=True) == []
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("damage", damages(Path()).keys() - {"a folder"})
def test_a_damaged_unit_is_dropped_and_built_again(folder, sound, damage):
    damages(folder)[damage]()
    (done,) = repaired(folder, full=True)
    assert "dropped view 0, shard 1" in done
    assert open_cache(folder).missing(range(2)) == [Unit(0, 1)]
    assert_whole_again(folder, sound)


def test_without_full_only_sizes_are_looked_at(folder):
    flip(folder / "logits.zarr/view/00000/code/c/1/0")
    assert repaired(folder) == []
    assert len(repaired(folder, full=True)) == 1


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":1}'])
def test_a_damaged_commit_is_dropped_with_its_unit(folder, sound, data):
    (folder / "commit/00001/00002.json").write_bytes(data)
    with pytest.raises(DataError):
        open_cache(folder)
    (done,) = repaired(folder)
    assert "dropped view 1, shard 2" in done
    assert open_cache(folder).missing(range(2)) == [Unit(1, 2)]
    assert_whole_again(folder, sound)


def test_metadata_are_written_again(folder, sound):
    for name in ("view/00000/code/zarr.json", "sample/label/zarr.json", "view/zarr.json"):
        (folder / "logits.zarr" / name).write_bytes(b"{}")
    done = repaired(folder)
    assert len(done) == 3
    assert all(line.startswith("wrote again") for line in done)
    assert_whole_again(folder, sound)


def test_a_decision_left_by_a_latecomer_does_not_come_back(folder, sound):
    """What a builder decided after the commit was there must not count after the repair."""
    late = folder / "stage/00000/00001"
    late.mkdir(parents=True, exist_ok=True)
    (late / "decision.json").write_bytes((folder / "commit/00000/00001.json").read_bytes())
    flip(folder / "logits.zarr/view/00000/code/c/1/0")
    assert len(repaired(folder, full=True)) == 1
    assert not list(folder.glob("stage/**/*.json"))
    assert_whole_again(folder, sound)


def test_what_all_views_share_cannot_be_dropped(folder):
    flip(folder / "logits.zarr/sample/label/c/0", at=0)
    with pytest.raises(DataError, match=r"label.*cannot be dropped"):
        repaired(folder, full=True)


def test_nothing_is_dropped_while_somebody_builds(folder):
    cache = create_cache(
        folder, open_cache(folder).recipe, provenance={}, **side_arrays(open_cache(folder).recipe)
    )
    with Work(cache, range(3)) as work:
        next(work.free())
        with pytest.raises(InputError, match="when nobody does"):
            repaired(folder)
