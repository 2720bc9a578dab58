"""The DALI pipelines: encoded images and numbers in, pixels out."""

from collections.abc import Callable
from typing import Any, Literal

from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from skd_cache.pixels.feed import Encoded, Numbers

Kind = Literal["inside", "beyond", "eval"]

INTERPOLATION = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "nearest": types.INTERP_NN,
}


def build_pipeline(
    kind: Kind,
    encoded: Callable[[], Encoded],
    numbers: Callable[[], Numbers],
    *,
    paths: bool,
    mapped: bool,
    size: int,
    interpolation: str,
    gpu: int | None,
    **execution: int,
) -> Pipeline:
    """A built pipeline.

    On the CPU it gives uint8 ``[h, w, 3]`` images of any shape that are still to be resized; on
    a GPU finished ones, ``[B, size, size, 3]``.

    Args:
        kind: ``inside`` cuts boxes within the image, which the decoder does for itself;
            ``beyond`` cuts boxes that may reach outside; both are then flipped and resized.
            ``eval`` resizes the whole image and then cuts.
        encoded: gives a batch of encoded images, or of the paths of their files.
        numbers: gives the same batch's anchors ``[B, 2]`` (top, left), shapes ``[B, 2]``
            (height, width: of the box, or for ``eval`` of the resized image) and flips ``[B]``.
        paths: whether ``encoded`` gives paths.
        mapped: whether what ``encoded`` gives stays where it is for as long as the pipeline
            lives, so that it need not be copied.
        size: S.
        interpolation: as policies name it.
        gpu: index of the GPU that decodes and resizes, None for the CPU.
        execution: DALI's ``batch_size``, ``num_threads`` and ``prefetch_queue_depth``.
    """
    device = {"device": "cpu" if gpu is None else "mixed", "output_type": types.RGB}
    resize = {"antialias": True, "interp_type": INTERPOLATION[interpolation]}
    pad = {"axes": (0, 1), "out_of_bounds_policy": "pad", "fill_values": 0}
    # The dynamic executor never reuses the memory of outputs that somebody still holds.
    pipeline = Pipeline(device_id=gpu, exec_dynamic=True, **execution)
    with pipeline:
        data = fn.external_source(source=encoded, dtype=types.UINT8, ndim=1, no_copy=mapped)
        anchor, shape, flip = fn.external_source(
            source=numbers, num_outputs=3, dtype=types.INT32, ndim=[1, 1, 0]
        )
        data = fn.io.file.read(data) if paths else data
        # Slice first: resizing a region of the whole image gives other pixels.
        image: Any
        if kind == "inside":
            image = fn.decoders.image_slice(data, start=anchor, shape=shape, axes=(0, 1), **device)
        else:
            image = fn.decoders.image(data, **device)
        if kind == "beyond":
            image = fn.slice(image, start=anchor, shape=shape, **pad)
        if kind != "eval":
            image = fn.flip(image, horizontal=flip)
        if gpu is not None and kind == "eval":
            image = fn.resize(image, size=fn.cast(shape, dtype=types.FLOAT), **resize)
            image = fn.slice(image, start=anchor, shape=(size, size), **pad)
        elif gpu is not None:
            image = fn.resize(image, size=(size, size), **resize)
        pipeline.set_outputs(image)
    pipeline.build()
    return pipeline
