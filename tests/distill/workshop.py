"""A small dataset, a teacher and a cache, made from seeds: equal in every process that asks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from skd_cache.batch import Statistics, judge
from skd_cache.build import fit_codec
from skd_cache.codec import parse_codec
from skd_cache.dataset.dataset import Dataset, Defaults
from skd_cache.dataset.images import ImageSet, image_set
from skd_cache.dataset.table import Table, join_names
from skd_cache.distill.settings import Settings, settings_for
from skd_cache.distill.views import Pixels, batch_bounds
from skd_cache.pixels import normalise, thumbnails
from skd_cache.replay import Params, Policy, Views, digest
from skd_cache.store import (
    Cache,
    DatasetRecipe,
    PixelRecipe,
    Recipe,
    TeacherRecipe,
    Unit,
    create_cache,
)

COUNT, CLASSES, SIZE, BATCH, SHARD = 150, 6, 16, 32, 64
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
POLICY = Policy(crop="pad", flip=True, padding=2)
PIXELS = Pixels("reference", threads=2)
DEFAULTS = Defaults(
    size=SIZE, policy="pad-crop-flip", eval_resize=SIZE, mean=MEAN, std=STD,
    student="tests.distill.tiny_students:student", epochs=4, batch_size=BATCH, lr=0.1,
    weight_decay=1e-3, schedule="cosine", views=2,
)  # fmt: skip


def make_images(name: str, count: int = COUNT, seed: int = 0) -> ImageSet:
    """Images whose colour leans towards their class, as PPM files end to end in memory."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    palette = np.random.default_rng(99).integers(60, 200, (CLASSES, 1, 1, 3))
    pixels = palette[labels] + draws.integers(-60, 56, (count, SIZE, SIZE, 3))
    header = f"P6\n{SIZE} {SIZE}\n255\n".encode()
    files = [header + image.tobytes() for image in pixels.astype(np.uint8)]
    paths, path_offsets = join_names([f"train/{i:05d}.ppm".encode() for i in range(count)])
    table = Table(
        labels=labels,
        heights=np.full(count, SIZE, np.int32),
        widths=np.full(count, SIZE, np.int32),
        lengths=np.array([len(file) for file in files], np.int64),
        contents=np.array([xxhash.xxh3_64_intdigest(file) for file in files], np.uint64),
        fallback=np.zeros(count, np.bool_),
        paths=paths,
        path_offsets=path_offsets,
    )
    offsets = np.cumsum([0, *(len(file) for file in files)])
    data = np.frombuffer(b"".join(files), np.uint8)
    classes = tuple("abcdef"[:CLASSES])
    return image_set(
        table, name=name, classes=classes, file=Path("toy.h5"), data=data, offsets=offsets
    )


def make_dataset() -> Dataset:
    val = make_images("toy/val", 60, seed=1)
    return Dataset("toy", "imagefolder", make_images("toy/train"), val, DEFAULTS)


class ToyTeacher:
    """Colours to logits; notes how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self._model = nn.Sequential(
                nn.Conv2d(3, 12, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES)
            ).eval()
            self._model(torch.zeros(1, 3, SIZE, SIZE))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = self._model(normalise(images, MEAN, STD).contiguous()) * 4
        return logits


class Silence:
    def advance(self, count: int = 1) -> None:
        """Hear of progress and say nothing."""


def make_cache(
    home: Path,
    images: ImageSet,
    views: int = 2,
    codec: str = "float32",
    size: int = SIZE,
    class_weight: np.ndarray | None = None,
) -> Cache:
    """What a build leaves behind, with the batches of this module."""
    recipe = Recipe(
        teachers=[
            TeacherRecipe(
                architecture="toy", weights="0" * 64, size=size, mean=list(MEAN), std=list(STD)
            )
        ],
        precision="float32",
        dataset=DatasetRecipe(fingerprint=images.fingerprint, samples=len(images), classes=CLASSES),
        policy=POLICY.to_dict(),
        seed=7,
        pixels=PixelRecipe(backend="reference", decoder="cpu"),
        codec=parse_codec(codec, CLASSES).settings,
        shard=SHARD,
        chunk=SHARD,
    )  # fmt: skip
    cache = create_cache(
        home / recipe.cache_id,
        recipe,
        labels=images.labels,
        contents=images.contents,
        class_weight=class_weight,
        provenance={},
        codec=fit_codec(
            recipe,
            images,
            PIXELS.open(images, POLICY, size),
            ToyTeacher(),
            None,
            batch_size=BATCH,
            bar=Silence(),
        ),
    )
    teacher, replayed = ToyTeacher(), Views(images, POLICY, recipe.seed)
    for unit in cache.missing(range(views)):
        _build_unit(cache, unit, replayed, teacher)
    return cache


def _build_unit(cache: Cache, unit: Unit, views: Views, teacher: ToyTeacher) -> None:
    begin, end = cache.unit_range(unit.shard)
    bounds = [(begin + low, begin + high) for low, high in batch_bounds(end - begin, BATCH)]
    requests = [views.request(unit.view, np.arange(*part)) for part in bounds]
    backend = PIXELS.open(views.images, POLICY, cache.recipe.sizes[0])
    logits, probes = [], []
    for (low, _), images in zip(bounds, backend.stream(iter(requests)), strict=True):
        logits.append(teacher(images))
        probes.append(thumbnails(images[-low % 64 :: 64]))
    encoded = cache.codec.encode(torch.cat(logits).numpy())
    samples = np.concatenate([request.samples for request in requests])
    boxes = np.concatenate([request.params.box for request in requests])
    flips = np.concatenate([request.params.flip for request in requests])
    judged = judge(torch.cat(logits).numpy(), views.images.labels[samples])
    cache.write_unit(
        unit,
        encoded.norm,
        encoded.code,
        torch.cat(probes).numpy(),
        digest(Params(boxes, flips)),
        Statistics.of(encoded.norm, judged),
    )


def make_settings(dataset: Dataset, cache: Cache | None, **chosen: object) -> Settings:
    options: dict[str, object] = {
        "losses": ("kd:temperature=2",), "pixels": "reference", "threads": 2,
        "checkpoint_every": 3, "log_every": 2,
    }  # fmt: skip
    return settings_for(dataset, cache, **(options | chosen))


def reencode(images: ImageSet, sample: int) -> ImageSet:
    """The same images, but one file's bytes differ and its length does not."""
    contents = images.contents.copy()
    contents[sample] += 1
    return replace(images, contents=contents)
