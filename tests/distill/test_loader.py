"""The loader: images joined with logits by position, checked all the time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import skd_cache
from skd_cache.dataset.catalog import open_dataset
from skd_cache.distill.loader import Loader, compact
from skd_cache.distill.probing import comparable
from skd_cache.distill.views import Pixels, Seat
from skd_cache.errors import DataError, InputError
from skd_cache.replay import Views
from tests.distill.workshop import (
    BATCH,
    CLASSES,
    COUNT,
    PIXELS,
    POLICY,
    SIZE,
    ToyTeacher,
    make_cache,
    make_images,
)


def open_loader(images, cache, *, size=SIZE, seat=None, pixels=PIXELS, batch_size=BATCH):
    seed = cache.recipe.seed if cache is not None else 7
    return Loader(Views(images, POLICY, seed), size, batch_size, pixels, cache=cache, seat=seat)


def test_what_the_teacher_said_belongs_to_what_it_saw(dataset, cache):
    teacher = ToyTeacher()
    batches = list(open_loader(dataset.train, cache).epoch(1))
    assert [len(batch) for batch in batches] == [32, 32, 32, 32, 22]
    for batch in batches:
        assert batch.teacher.logits().equal(teacher(batch.images))
        assert batch.labels.equal(torch.from_numpy(batch.samples % CLASSES))
        assert batch.teacher.statistics == cache.statistics
    samples = np.concatenate([batch.samples for batch in batches])
    assert np.array_equal(np.sort(samples), np.arange(COUNT))


def test_an_epoch_starts_anywhere_without_reading_what_precedes(dataset, cache):
    loader = open_loader(dataset.train, cache)
    whole, rest = list(loader.epoch(0)), list(loader.epoch(0, first_batch=3))
    assert len(rest) == 2
    for ours, theirs in zip(rest, whole[3:], strict=True):
        assert ours.images.equal(theirs.images)
        assert ours.start == theirs.start
        assert ours.teacher.logits().equal(theirs.teacher.logits())
    assert list(loader.epoch(0, first_batch=5)) == []


def test_batches_of_any_size_hold_the_same_rows(dataset, cache):
    rows = [
        torch.cat([b.teacher.logits() for b in
                   open_loader(dataset.train, cache, batch_size=size).epoch(0)])
        for size in (7, 64, 150)
    ]  # fmt: skip
    assert rows[0].equal(rows[1])
    assert rows[0].equal(rows[2])


def test_ranks_share_every_batch(dataset, cache):
    whole = list(open_loader(dataset.train, cache).epoch(0))
    parts = [
        list(open_loader(dataset.train, cache, seat=Seat(rank, 3)).epoch(0)) for rank in range(3)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.cat([share.images for share in shares]).equal(batch.images)
        assert torch.cat([share.teacher.logits() for share in shares]).equal(batch.teacher.logits())


def test_a_view_that_differs_from_the_teacher_s_stops_with_sample_and_thumbnails(dataset, cache):
    pixels = make_images("toy/train", seed=3)  # other pictures under the same names
    impostor = replace(dataset.train, data=pixels.data)
    with pytest.raises(DataError, match=r"sample \d+ in view 0 are not those the teacher saw"):
        list(open_loader(impostor, cache).epoch(0))


def test_pixels_one_level_off_are_seen_at_the_build_s_own_size(dataset, cache):
    header = len(f"P6\n{SIZE} {SIZE}\n255\n")
    data = dataset.train.data.copy().reshape(COUNT, -1)
    data[:, header:] += 1
    brighter = replace(dataset.train, data=data.reshape(-1))
    with pytest.raises(DataError, match="up to 1 grey levels where 0 are allowed"):
        list(open_loader(brighter, cache).epoch(0))


@pytest.mark.parametrize("size", [8, 20, 24])
def test_students_of_any_size_are_checked_against_the_teacher_s_thumbnails(dataset, cache, size):
    batches = list(open_loader(dataset.train, cache, size=size).epoch(0))
    assert {batch.images.shape[1] for batch in batches} == {size}
    impostor = replace(dataset.train, data=make_images("toy/train", seed=3).data)
    with pytest.raises(DataError, match="are not those the teacher saw"):
        list(open_loader(impostor, cache, size=size).epoch(0))


def test_thumbnails_of_large_images_are_compared_across_sizes_that_share_their_edges():
    assert all(comparable(size, 224) for size in (96, 128, 160, 224, 288))
    assert not any(comparable(size, 224) for size in (32, 64, 100, 150, 180, 300))
    assert comparable(28, 28)


def test_dali_replays_what_the_reference_built(dataset, cache):
    pytest.importorskip("nvidia.dali")
    batches = list(open_loader(dataset.train, cache, pixels=Pixels("dali", threads=2)).epoch(0))
    reference = list(open_loader(dataset.train, cache).epoch(0))
    for ours, theirs in zip(batches, reference, strict=True):
        assert ours.images.equal(theirs.images)  # same size in and out: nothing is resized


def test_a_view_that_is_not_built_is_refused(dataset, cache):
    with pytest.raises(InputError, match="view 2"):
        list(open_loader(dataset.train, cache).epoch(2))


def test_the_library_streams_epochs_in_turn(dataset, cache):
    opened = skd_cache.open(cache.location)
    assert opened.views == [0, 1]
    options = {"batch_size": 64, "pixels": "reference"}
    first = list(opened.stream(images=dataset.train, epoch=1, **options))
    again = list(opened.stream(images=dataset.train, epoch=3, **options))
    images, labels, teacher = first[0]
    assert images.shape == (64, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert labels.shape == (64,)
    assert teacher.logits().shape == (64, CLASSES)
    assert all(one[0].equal(other[0]) for one, other in zip(first, again, strict=True))


def test_the_library_gives_bytes_where_asked(dataset, cache):
    opened = skd_cache.open(cache.location)
    stream = opened.stream(dataset.train, 50, 0, normalised=False, pixels="reference", size=8)
    images, _, _ = next(stream)
    assert images.shape == (50, 8, 8, 3)
    assert images.dtype == torch.uint8


def test_the_library_takes_the_folder_of_the_images(tmp_path, monkeypatch):
    monkeypatch.setenv("SKD_CACHE_HOME", str(tmp_path / "home"))
    draws = np.random.default_rng(0)
    for place in range(CLASSES * 2):
        folder = tmp_path / "images" / f"class{place % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    images = open_dataset("imagefolder", tmp_path / "images").train
    opened = skd_cache.open(make_cache(tmp_path / "caches", images, views=1).location)
    stream = opened.stream(images=tmp_path / "images", batch_size=5, epoch=0, pixels="reference")
    assert [len(labels) for _, labels, _ in stream] == [5, 5, 2]


def test_the_library_refuses_other_images(cache):
    opened = skd_cache.open(cache.location)
    with pytest.raises(InputError, match="another dataset"):
        next(opened.stream(make_images("other/train", 30), 10, 0))
    with pytest.raises(InputError, match="no cache"):
        skd_cache.open("abcdef")


def test_a_cache_without_a_complete_view_says_so(dataset, tmp_path):
    empty = skd_cache.open(make_cache(tmp_path, dataset.train, views=0).location)
    with pytest.raises(InputError, match="no complete view yet"):
        next(empty.stream(dataset.train, 10, 0))


def test_codes_by_component_are_made_one_piece_before_they_are_copied():
    chunk = torch.arange(7 * 4096, dtype=torch.int16).reshape(7, 4096)
    cut = chunk.T[256:512]  # [256, 7], a view of the chunk
    piece = compact(cut)
    assert torch.equal(piece, cut)
    assert piece.stride() == (1, 256)
    assert piece.untyped_storage().nbytes() == 256 * 7 * 2
    rows = torch.zeros(8, 3)
    assert compact(rows) is rows
