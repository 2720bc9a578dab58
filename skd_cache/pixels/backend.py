"""What every pixel backend does, and which one is used."""

import os
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError
from skd_cache.replay import Policy, Request

BACKENDS = ("dali", "reference")
DECODERS = ("cpu", "gpu")

Item = TypeVar("Item")


class Backend(Protocol):
    """Turns requests into pixels, working ahead of whoever takes them.

    Attributes:
        name: ``dali`` or ``reference``, as recipes have it.
        fallbacks: images so far that DALI refuses and PIL decoded for it.
    """

    name: str
    fallbacks: int

    def stream(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """The pixels of each request, in order: uint8 ``[B, S, S, 3]`` RGB, not normalised.

        Crop, then antialiased resize to S x S, then flip. Requests are pulled lazily, a few
        ahead of the batch being given; what they raise comes after the batches before them.

        Raises:
            InputError: an image cannot be decoded; the message names its file.
        """

    def stream_eval(self, batches: Iterable[NDArray[np.int64]], resize: int) -> Iterator[Tensor]:
        """The pixels of samples as for validation: uint8 ``[B, S, S, 3]`` RGB, not normalised.

        torchvision's ``Resize(resize)``, shorter side, then ``CenterCrop(S)``.

        Raises:
            InputError: as in :meth:`stream`.
        """


class Ahead(Generic[Item]):
    """Pulls items early and keeps back an error of their source until its turn has come."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self._error = error
            self._items = iter(())
            raise StopIteration from None

    def finish(self) -> None:
        """Raise what ended the items, if that was an error."""
        if self._error is not None:
            raise self._error


def open_backend(
    name: str | None,
    images: ImageSet,
    size: int,
    policy: Policy,
    *,
    decoder: str = "cpu",
    threads: int | None = None,
    device: str = "cpu",
) -> Backend:
    """The pixels of an image set at one size.

    Args:
        name: ``dali``, ``reference``, or None for DALI where it is installed.
        images: whose pixels.
        size: S, the side in pixels of what the network sees.
        policy: says how boxes are resized, and whether they may reach outside the image.
        decoder: where pixels are made, ``cpu`` or ``gpu`` (DALI alone, and ``device`` CUDA).
        threads: CPU threads that decode; None for one per core this process may use.
        device: where the tensors are wanted, as torch says it.

    Raises:
        InputError: an unknown name, DALI missing, or a decoder the backend or device cannot be.
    """
    if name is not None and name not in BACKENDS:
        raise InputError(f"unknown pixel backend {name!r}: it is one of {', '.join(BACKENDS)}")
    if decoder not in DECODERS:
        raise InputError(f"unknown decoder {decoder!r}: it is one of {', '.join(DECODERS)}")
    if decoder == "gpu" and not device.startswith("cuda"):
        raise InputError(f"the gpu decoder needs a CUDA device, and the device is {device}")
    threads = threads or cores()
    if name != "reference":
        try:
            from skd_cache.pixels.dali import DaliBackend
        except ImportError as error:
            if name == "dali":
                raise InputError(
                    "DALI is not installed: `pip install 'skd-cache[cuda13]'` (or cuda12) brings "
                    f"it, `--pixels reference` does without ({error})"
                ) from error
        else:
            return DaliBackend(images, size, policy, decoder, threads, device)
    if decoder == "gpu":
        raise InputError("the reference backend decodes on the CPU: the gpu decoder is DALI's")
    from skd_cache.pixels.reference import ReferenceBackend

    return ReferenceBackend(images, size, policy, threads, device)


def deliver(images: Tensor, device: str) -> Tensor:
    """A batch made on the CPU, where it is wanted; the copy to a GPU does not wait."""
    if device == "cpu":
        return images
    return images.pin_memory().to(device, non_blocking=True)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
