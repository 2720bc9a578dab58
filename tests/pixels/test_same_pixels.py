"""Any (view, sample) is the same bytes however it is asked for, and close between backends."""

from itertools import product

import numpy as np
import pytest
from PIL import Image

from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import BACKENDS, normalise, open_backend
from skd_cache.replay import Policy, load_policy
from tests.pixels.conftest import Folder, encode, pixels_of, request

both = pytest.mark.parametrize("name", BACKENDS)
policies = pytest.mark.parametrize(
    "policy", [load_policy("rrc-flip"), Policy(crop="pad", flip=True, padding=20), Policy()],
    ids=["rrc", "pad", "none"],
)  # fmt: skip


def jpegs(photographs: list[Image.Image], count: int = 12) -> dict[str, bytes]:
    """Cuts of different sizes, so that no two batches look alike to a decoder."""
    files = {}
    for index in range(count):
        image = photographs[index % len(photographs)]
        width, height = image.width - 17 * index, image.height - 11 * index
        cut = image.crop((index, index, width, height))
        files[f"{index:02d}.jpg"] = encode(cut, "JPEG", quality=85 + index % 10)
    return files


@pytest.fixture
def images(folder: Folder, photographs: list[Image.Image]) -> ImageSet:
    return folder(jpegs(photographs))


@both
@policies
def test_pixels_do_not_depend_on_batch_size_threads_order_or_restart(
    name: str, policy: Policy, images: ImageSet
) -> None:
    views = [(view, sample) for view in (0, 7) for sample in range(len(images))]

    def pixels(asked: list[tuple[int, int]], batch: int, threads: int) -> dict:
        backend = open_backend(name, images, 96, policy, threads=threads)
        groups = []
        for view in (0, 7):
            samples = [sample for v, sample in asked if v == view]
            groups += [(view, samples[i : i + batch]) for i in range(0, len(samples), batch)]
        made = pixels_of(backend, (request(images, policy, s, v) for v, s in groups))
        names = [(view, sample) for view, samples in groups for sample in samples]
        return {key: image.tobytes() for key, image in zip(names, made, strict=True)}

    whole = pixels(views, len(images), 2)
    assert len(set(whole.values())) >= len(images)
    assert pixels(views, 1, 1) == whole
    assert pixels(views, 5, 3) == whole
    assert pixels(views[::-1], 7, 4) == whole
    assert pixels(views[5:9], 2, 2) == {key: whole[key] for key in views[5:9]}


@both
def test_eval_pixels_do_not_depend_on_batch_size_or_threads(name: str, images: ImageSet) -> None:
    everything = np.arange(len(images))

    def pixels(batches: list, threads: int) -> np.ndarray:
        backend = open_backend(name, images, 96, Policy(), threads=threads)
        return np.concatenate([batch.numpy() for batch in backend.stream_eval(batches, 110)])

    whole = pixels([everything], 2)
    assert (pixels(np.array_split(everything, 5), 3) == whole).all()
    assert (pixels([everything[::-1]], 1)[::-1] == whole).all()


@both
def test_a_batch_stays_as_given_while_later_ones_are_made(name: str, images: ImageSet) -> None:
    policy = load_policy("rrc-flip")
    backend = open_backend(name, images, 96, policy, threads=2)
    requests = [request(images, policy, range(len(images)), view) for view in range(12)]
    held, then = [], []
    for batch in backend.stream(requests):
        held.append(batch)
        then.append(batch.clone())
    assert all((now == copy).all() for now, copy in zip(held, then, strict=True))


@both
def test_a_packed_set_has_the_pixels_of_its_folder(
    name: str, folder: Folder, packed: Folder, photographs: list[Image.Image]
) -> None:
    policy, files = load_policy("rrc-flip"), jpegs(photographs)
    made = [
        pixels_of(open_backend(name, images, 64, policy), [request(images, policy, range(12))])
        for images in (folder(files), packed(files))
    ]
    assert (made[0] == made[1]).all()


@both
def test_batches_may_grow_and_requests_are_pulled_lazily(name: str, images: ImageSet) -> None:
    policy = load_policy("rrc-flip")
    pulled = []

    def requests():
        for index, count in enumerate((2, 2, 5, 12, 1, 3, 3, 3, 3, 3)):
            pulled.append(index)
            yield request(images, policy, range(count))

    stream = open_backend(name, images, 32, policy, threads=2).stream(requests())
    assert pulled == []
    assert [len(next(stream)) for _ in range(3)] == [2, 2, 5]
    assert 3 <= len(pulled) <= 7
    assert [len(batch) for batch in stream] == [12, 1, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("size", "interpolation"), [*product((224, 160), ("bilinear", "bicubic")), (224, "nearest")]
)
def test_the_backends_agree_on_photographs(
    size: int, interpolation: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    policy = Policy(crop="rrc", flip=True, interpolation=interpolation)
    images = folder({
        f"{index}.jpg": encode(image, "JPEG", quality=90)
        for index, image in enumerate(photographs)
    })  # fmt: skip
    requests = [request(images, policy, range(len(images)), view) for view in range(8)]
    dali, reference = (
        pixels_of(open_backend(name, images, size, policy), requests).astype(int)
        for name in ("dali", "reference")
    )
    difference = np.abs(dali - reference)
    assert difference.mean() <= 0.05
    assert np.percentile(difference, 99.9) <= 1


@both
def test_normalised_pixels_are_the_same_bytes_for_any_batch_size(
    name: str, images: ImageSet
) -> None:
    policy = load_policy("rrc-flip")
    backend = open_backend(name, images, 32, policy)
    (batch,) = backend.stream([request(images, policy, range(12))])
    whole = normalise(batch, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for sample in range(12):
        alone = normalise(batch[sample : sample + 1], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert (alone == whole[sample : sample + 1]).all()
