"""A bad image is named, and what came before it stays given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError
from skd_cache.pixels import BACKENDS, open_backend
from skd_cache.replay import Policy, load_policy
from tests.pixels.conftest import Folder, encode, request

both = pytest.mark.parametrize("name", BACKENDS)
BAD = 9


def files(photographs: list[Image.Image], bad: bytes | None) -> dict[str, bytes]:
    good = encode(photographs[0].resize((160, 120)), "JPEG", quality=90)
    made = {f"{index:02d}.jpg": good for index in range(14)}
    made[f"{BAD:02d}.jpg"] = good[: len(good) // 2] if bad is None else bad
    return made


def stream_until_error(name: str, images: ImageSet, policy: Policy) -> tuple[list[int], str]:
    """The sizes of the batches given, and what the error after them said."""
    backend = open_backend(name, images, 32, policy, threads=2)
    requests = [request(images, policy, range(i, min(i + 4, 14))) for i in range(0, 14, 4)]
    given: list[int] = []
    with pytest.raises(InputError) as error:
        given.extend(len(batch) for batch in backend.stream(requests))
    return given, str(error.value)


@both
@pytest.mark.parametrize("bad", [None, b"not an image", b"", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize("policy", [Policy(), Policy(crop="pad", padding=4)], ids=["none", "pad"])
def test_a_bad_file_is_named_and_the_batches_before_it_are_given(
    name: str, bad: bytes | None, policy: Policy, folder: Folder, photographs: list[Image.Image]
) -> None:
    images = folder(files(photographs, bad))
    given, said = stream_until_error(name, images, policy)
    assert given == [4, 4]
    assert images.describe(BAD) in said
    assert "cannot be decoded" in said
    assert "skd-cache index photos --check" in said
    assert "\n" not in said


@both
def test_a_bad_image_in_a_packed_file_is_named(
    name: str, packed: Folder, photographs: list[Image.Image]
) -> None:
    images = packed(files(photographs, None))
    given, said = stream_until_error(name, images, Policy())
    assert given == [4, 4]
    assert "packed.bin: train/09.jpg (" in said


@both
def test_a_bad_image_that_pil_decodes_for_dali_is_named(
    name: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    gif = encode(photographs[0].resize((160, 120)).quantize(64), "GIF")
    images = folder(files(photographs, gif[: len(gif) // 2]), fallback=[f"{BAD:02d}.jpg"])
    given, said = stream_until_error(name, images, Policy())
    assert given == [4, 4]
    assert images.describe(BAD) in said


@both
def test_a_file_that_vanished_is_named(
    name: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    images = folder(files(photographs, encode(photographs[0], "JPEG")))
    Path(images.describe(BAD)).unlink()
    given, said = stream_until_error(name, images, Policy())
    assert given == [4, 4]
    assert f"cannot read {images.describe(BAD)}" in said


@both
def test_bad_validation_images_are_named(
    name: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    images = folder(files(photographs, None))
    batches = [np.arange(0, 7), np.arange(7, 14)]
    stream = open_backend(name, images, 32, Policy()).stream_eval(batches, 36)
    assert len(next(stream)) == 7
    with pytest.raises(InputError, match=r"09\.jpg"):
        next(stream)


@both
def test_a_backend_goes_on_after_an_error(
    name: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    images = folder(files(photographs, None))
    backend = open_backend(name, images, 32, Policy())
    with pytest.raises(InputError):
        list(backend.stream([request(images, Policy(), [BAD])]))
    assert len(list(backend.stream([request(images, Policy(), [0, 1])]))) == 1


@both
def test_an_error_of_the_requests_comes_after_the_batches_before_it(
    name: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    images, policy = folder(files(photographs, None)), load_policy("rrc-flip")

    def requests():
        yield request(images, policy, [0, 1])
        yield request(images, policy, [2])
        raise KeyError("gone")

    given: list[int] = []
    stream = open_backend(name, images, 32, policy).stream(requests())
    with pytest.raises(KeyError, match="gone"):
        given.extend(len(batch) for batch in stream)
    assert given == [2, 1]


@both
def test_a_stream_may_be_left_early(
    name: str, folder: Folder, photographs: list[Image.Image]
) -> None:
    images, policy = folder(files(photographs, None)), Policy()
    stream = open_backend(name, images, 32, policy).stream(
        request(images, policy, [0, 1, 2]) for _ in range(100)
    )
    assert len(next(stream)) == 3
    stream.close()
