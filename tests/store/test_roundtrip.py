"""What is written is what is read, however it was cut."""

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from skd_cache.batch import Statistics
from skd_cache.errors import InputError
from skd_cache.store import Unit, create_cache, open_cache
from skd_cache.store.objects import Objects
from tests.store.small_cache import (
    create,
    fill,
    logits_of,
    make_recipe,
    probes_of,
    samples_of,
    side_arrays,
    write,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = create(tmp_path_factory.mktemp("home"))
    fill(cache, views=2)
    return cache


def expected(recipe, view, start, stop):
    return logits_of(recipe, view, samples_of(recipe, view, start, stop))


def test_rows_come_back_in_position_order(cache):
    rows = cache.read(1, 100, 260)
    assert (rows.start, rows.stop, len(rows)) == (100, 260, 160)
    assert (rows.teacher.logits().numpy() == expected(cache.recipe, 1, 100, 260)).all()


def test_probes_stand_at_every_64th_position(cache):
    rows = cache.read(1, 60, 200)
    assert rows.probe_positions.tolist() == [64, 128, 192]
    assert (rows.probes.numpy() == probes_of(1, [64, 128, 192])).all()
    positions, probes = cache.probes(1, 60, 200)
    assert torch.equal(positions, rows.probe_positions)
    assert torch.equal(probes, rows.probes)
    assert cache.probes(1, 1, 64)[1].shape == (0, 8, 8, 3)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 96, 128, 150, 300, 1000])
def test_a_stream_is_the_view_cut_into_batches(cache, batch_size):
    batches = list(cache.stream(0, 0, 300, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    logits = torch.cat([batch.teacher.logits() for batch in batches]).numpy()
    assert (logits == expected(cache.recipe, 0, 0, 300)).all()
    probes = torch.cat([batch.probes for batch in batches]).numpy()
    assert (probes == probes_of(0, np.arange(0, 300, 64))).all()
    assert [b.start for b in batches] == list(range(0, 300, batch_size))


def test_a_stream_may_begin_and_end_anywhere(cache):
    batches = list(cache.stream(1, 45, 211, 50))
    assert [(batch.start, len(batch)) for batch in batches] == [
        (45, 50),
        (95, 50),
        (145, 50),
        (195, 16),
    ]
    logits = torch.cat([batch.teacher.logits() for batch in batches]).numpy()
    assert (logits == expected(cache.recipe, 1, 45, 211)).all()
    assert list(cache.stream(1, 45, 45, 50)) == []


def test_a_stream_can_be_left_early(cache):
    stream = cache.stream(0, 0, 300, 10)
    next(stream)
    stream.close()


def test_changing_a_batch_does_not_change_the_cache(cache):
    rows = cache.read(0, 0, 64)
    before = rows.teacher.norm.clone(), rows.teacher.logits().clone()
    for tensor in (rows.teacher.norm, rows.teacher.code["code"], rows.probes):
        tensor.zero_()
    again = cache.read(0, 0, 64)
    assert torch.equal(again.teacher.norm, before[0])
    assert torch.equal(again.teacher.logits(), before[1])
    assert again.probes.any()


def test_lookup_finds_samples_in_any_order(cache):
    samples = np.array([299, 0, 17, 17, 250], np.int64)
    found = cache.lookup(1, samples)
    assert (found.logits().numpy() == logits_of(cache.recipe, 1, samples)).all()
    assert found.norm.shape == (5,)


def test_lookup_refuses_samples_that_are_not_there(cache):
    with pytest.raises(InputError, match="0 to 299"):
        cache.lookup(0, np.array([300]))


def test_a_view_that_is_not_built_is_refused(cache):
    with pytest.raises(InputError, match="view 5"):
        cache.read(5, 0, 10)
    with pytest.raises(InputError, match="view 5"):
        cache.digest(5)


def test_positions_outside_the_view_are_refused(cache):
    with pytest.raises(ValueError, match="outside"):
        cache.read(0, 0, 301)


def test_what_lies_beside_the_views_comes_back(cache):
    again, sides = open_cache(cache.location), side_arrays(cache.recipe)
    assert (again.labels == sides["labels"]).all()
    assert (again.contents == sides["contents"]).all()
    assert (again.class_weight == sides["class_weight"]).all()
    assert again.provenance["software"]["numpy"] == np.__version__
    assert again.recipe == cache.recipe
    assert again.id == cache.id == cache.recipe.cache_id


def test_a_teacher_without_a_last_layer_leaves_none(tmp_path):
    cache = create(tmp_path, class_weight=None)
    assert cache.class_weight is None


def test_statistics_are_summed_over_the_commits(cache):
    again = open_cache(cache.location)
    assert again.statistics == cache.statistics
    assert again.statistics.count == 600
    norms = np.concatenate([cache.read(view, 0, 300).teacher.norm for view in (0, 1)])
    assert again.statistics.mean_norm == pytest.approx(norms.mean(), rel=1e-6)
    assert cache.read(0, 0, 1).teacher.statistics == cache.statistics


def test_a_view_counts_when_all_its_shards_do(tmp_path):
    cache = create(tmp_path)
    write(cache, Unit(0, 0))
    write(cache, Unit(0, 2))
    assert cache.views() == []
    assert cache.missing(range(2)) == [Unit(0, 1), Unit(1, 0), Unit(1, 1), Unit(1, 2)]
    write(cache, Unit(0, 1))
    assert cache.views() == [0]
    assert open_cache(cache.location).views() == [0]


def test_a_reader_sees_new_units_after_refresh(tmp_path):
    cache = create(tmp_path)
    reader = open_cache(cache.location)
    fill(cache)
    assert reader.views() == []
    reader.refresh()
    assert reader.views() == [0]
    assert len(reader.read(0, 0, 300)) == 300


def test_a_sound_cache_verifies(cache):
    assert list(cache.verify(full=True)) == []
    assert 0 < cache.data_bytes < cache.bytes_on_disk()


def test_two_builds_of_the_same_logits_have_the_same_bytes(cache, tmp_path):
    other = create(tmp_path)
    for view in (1, 0):
        for unit in reversed(other.missing(range(view, view + 1))):
            write(other, unit)
    assert [other.digest(view) for view in (0, 1)] == [cache.digest(view) for view in (0, 1)]
    assert cache.digest(0) != cache.digest(1)


def test_provenance_is_part_of_no_digest(cache, tmp_path):
    other = create(tmp_path)
    fill(other)
    (tmp_path / "b").mkdir()
    where = tmp_path / "b" / other.id
    told = {"machine": "another"}
    third = create_cache(where, other.recipe, provenance=told, **side_arrays(other.recipe))
    fill(third)
    assert third.provenance == told
    assert third.digest(0) == cache.digest(0)


def test_an_object_store_holds_the_same_bytes_as_a_disk(cache):
    recipe = cache.recipe
    objects = Objects(f"memory:///{recipe.cache_id}", store=MemoryStore())
    remote = create_cache(objects, recipe, provenance={}, **side_arrays(recipe))
    fill(remote)
    again = open_cache(objects)
    assert again.digest(0) == cache.digest(0)
    assert list(again.verify(full=True)) == []
    assert torch.equal(
        again.read(0, 0, 300).teacher.logits(), cache.read(0, 0, 300).teacher.logits()
    )


def test_of_a_unit_that_is_written_twice_the_first_counts(tmp_path):
    cache, other = create(tmp_path), create(tmp_path)
    assert write(cache, Unit(0, 0))
    commit = cache.commits[Unit(0, 0)]
    assert write(other, Unit(0, 0))  # the same rows
    assert not write(other, Unit(0, 0), noise=1e-5)
    assert other.commits[Unit(0, 0)] == commit
    assert list(open_cache(cache.location).verify(full=True)) == []


def test_rows_that_are_not_the_units_are_refused(tmp_path):
    cache = create(tmp_path)
    encoded = cache.codec.encode(np.zeros((5, 7), np.float32))
    probe = np.zeros((1, 8, 8, 3), np.uint8)
    statistics = Statistics(count=5)
    with pytest.raises(ValueError, match="128"):
        cache.write_unit(Unit(0, 0), encoded.norm, encoded.code, probe, "c" * 64, statistics)


@pytest.mark.parametrize("cut", [(64, 64), (128, 64), (128, 128)])
def test_chunks_that_fill_a_shard_are_written_in_the_right_order(tmp_path, cut):
    """Zarr gives such a chunk to pcodec without a copy: transposed, it came back wrong."""
    recipe = make_recipe(128, 40, "klt", *cut)
    cache = create(tmp_path, recipe)
    fill(cache)
    wanted = cache.codec.encode(expected(recipe, 0, 0, 128)).code
    plain = zarr.open_group(f"{cache.location}/logits.zarr", mode="r")["view/00000"]
    ours = cache.read(0, 0, 128).teacher.code
    for name in ("code", "refine"):
        assert (wanted[name] == plain[name][:].T).all()
        assert (ours[name].numpy() == wanted[name]).all()
    assert (plain["guard"][:] == wanted["guard"]).all()


@given(
    samples=st.integers(1, 400),
    classes=st.integers(2, 40),
    cut=st.sampled_from([(64, 64), (64, 1), (128, 16), (192, 96), (64, 8), (320, 64)]),
    codec=st.sampled_from(["float32", "float16", "int8", "klt", "topk:1"]),
    batch_size=st.integers(1, 130),
)
@settings(deadline=None, max_examples=25)
def test_any_size_comes_back(tmp_path_factory, samples, classes, cut, codec, batch_size):
    recipe = make_recipe(samples, classes, codec, *cut)
    cache = create(tmp_path_factory.mktemp("any"), recipe)
    fill(cache)
    again = open_cache(cache.location)
    codes = again.codec.encode(expected(recipe, 0, 0, samples))
    batches = list(again.stream(0, 0, samples, batch_size))
    for name, rows in codes.code.items():
        stored = torch.cat([batch.teacher.code[name] for batch in batches]).numpy()
        assert (stored == rows).all()
    assert torch.cat([batch.teacher.norm for batch in batches]).numpy().tobytes() == (
        codes.norm.tobytes()
    )
    assert sum(len(batch.probes) for batch in batches) == -(-samples // 64)
    assert list(again.verify(full=True)) == []
