"""A whole run: inputs checked before anything is written, the student trained, what came of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from skd_cache.dataset.dataset import Dataset
from skd_cache.device import open_device
from skd_cache.distill.evaluate import Validation
from skd_cache.distill.learner import DTYPES, Learner
from skd_cache.distill.loader import Loader
from skd_cache.distill.matching import check_images, check_views
from skd_cache.distill.online import Look
from skd_cache.distill.pace import Pace
from skd_cache.distill.run_folder import Frozen, RunFolder
from skd_cache.distill.settings import Settings
from skd_cache.distill.stopping import stop_requests
from skd_cache.distill.student import Portrait, loading_lines, make_student, try_student
from skd_cache.distill.together import Team, joined
from skd_cache.distill.trainer import Say, Trainer
from skd_cache.distill.views import Pixels, Seat, check_division, smallest_part
from skd_cache.errors import InputError
from skd_cache.losses import give_class_weight, needs_class_weight
from skd_cache.replay import Views
from skd_cache.store import Cache
from skd_cache.world import World

VALIDATION_BATCH = 250


@dataclass(frozen=True)
class Result:
    """What came of a run; accuracies are shares in [0, 1], None without validation images.

    ``pace`` is that of this session's training, validation apart; ``fallbacks`` counts its images
    that DALI refused and PIL decoded; ``loading`` are lines of Python that load ``student``.
    """

    student: Path
    top1: float | None
    top5: float | None
    best_top1: float | None
    best_epoch: int | None
    steps: int
    pace: Pace
    fallbacks: int
    loading: list[str]


def distill(
    settings: Settings,
    dataset: Dataset,
    out: Path,
    *,
    cache: Cache | None = None,
    look: Look | None = None,
    fresh: bool = False,
    say: Say = print,
) -> Result:
    """Train a student as ``settings`` say, or go on where an interrupted run stopped.

    Processes that torchrun started do so together; the first one writes, and says what there is
    to say.

    Args:
        settings: everything the run depends on.
        dataset: the images; its training split must be the one the cache was built from.
        out: the run's folder. A run with the same settings there is resumed.
        cache: where the teacher's logits lie; None only for losses without a teacher.
        look: the teacher itself, asked in every step, where ``settings.online``.
        fresh: start over whatever run is in ``out``.
        say: hears a sentence now and then.

    Raises:
        InputError: something asked for cannot be done; nothing was written.
        DataError: pixels are not those the teacher saw, or the cache is damaged.
        StoppedError: SIGTERM or Ctrl-C came; the run's state is on disk.
        UnreachableError: a remote cache does not answer any more; the run's state is on disk.
        PeerLostError: another process of the run ended.
        SkdCacheError: the loss is no longer a number, or the disk failed.
    """
    world, device = World.here(), open_device(settings.device)
    _check(settings, dataset, cache, look)
    _check_world(settings, world, len(dataset.train), device)
    with joined(world, device) as team:
        _check_same(settings, team)
        run = _Run(settings, dataset, cache, look, device, team)
        return _train(run, RunFolder(out), fresh=fresh, say=say if team.first else _leave_unsaid)


@dataclass(frozen=True)
class _Run:
    """What a run is made of, once its processes have met."""

    settings: Settings
    dataset: Dataset
    cache: Cache | None
    look: Look | None
    device: torch.device
    team: Team

    @property
    def pixels(self) -> Pixels:
        asked = self.settings
        return Pixels(asked.pixels, asked.decoder, asked.threads, str(self.device))

    def loader(self, size: int, frozen: Frozen) -> Loader:
        """This process's part of the batches at a size."""
        settings = self.settings
        return Loader(
            Views(self.dataset.train, settings.policy, settings.view_seed),
            size,
            settings.batch_size,
            self.pixels,
            cache=self.cache,
            statistics=frozen.statistics,
            look=self.look,
            seat=Seat(self.team.rank, self.team.size),
        )

    def learner(self) -> Learner:
        """The student, made from torch's seeded generator and tried on the smallest batches."""
        settings, count = self.settings, len(self.dataset.train)
        name, classes = settings.student, len(self.dataset.train.classes)
        student = make_student(name, classes, settings.student_weights)
        world, accumulate = self.team.size, settings.accumulate
        smallest = smallest_part(count, settings.batch_size, world, accumulate)
        with torch.random.fork_rng(devices=[]):
            for size in sorted({size for _, size in settings.sizes}):
                try_student(student, name, classes, size, min(2, smallest))
        steps_per_epoch = -(-count // settings.batch_size)
        weight = _class_weight(settings, self.cache)
        return Learner(settings, student, self.device, steps_per_epoch, self.team, weight)

    def validation(self, portrait: Portrait) -> Validation | None:
        """This process's part of the validation images, if there are any."""
        if self.dataset.val is None:
            return None
        return Validation(
            self.dataset.val,
            portrait,
            batch_size=VALIDATION_BATCH,
            pixels=self.pixels,
            device=self.device,
            dtype=DTYPES[self.settings.precision],
            team=self.team,
        )


def _train(run: _Run, folder: RunFolder, *, fresh: bool, say: Say) -> Result:
    """The whole run, or what is left of it; the first process decides what there is."""
    settings, team = run.settings, run.team
    before = team.agree(lambda: None if fresh else folder.resume(settings, team.size))
    frozen = before or team.agree(lambda: _freeze(settings, run.cache))
    portrait = portrait_of(settings, run.dataset)
    loaders: list[Loader] = []

    def open_loader(size: int) -> Loader:
        loaders.append(run.loader(size, frozen))
        return loaders[-1]

    with _seeded(settings.seed, run.device), stop_requests(once=team.size == 1) as stop:
        trainer = Trainer(
            settings,
            views=frozen.views,
            count=len(run.dataset.train),
            folder=folder,
            learner=run.learner(),
            open_loader=open_loader,
            validation=run.validation(portrait),
            portrait=portrait,
            device=run.device,
            team=team,
            stop=stop,
            say=say,
        )
        if fresh and team.first:
            folder.clear()
        if before is None and team.first:
            folder.start(settings, frozen, team.size)
        progress = trainer.run()
    return Result(
        folder.student,
        progress.top1,
        progress.top5,
        progress.best_top1,
        progress.best_epoch,
        progress.step,
        trainer.pace,
        round(team.totals(sum(loader.fallbacks for loader in loaders))[0]),
        loading_lines(folder.student, portrait),
    )


def portrait_of(settings: Settings, dataset: Dataset) -> Portrait:
    """What is saved with the weights of a run."""
    return Portrait(
        architecture=settings.student,
        classes=len(dataset.train.classes),
        dataset=settings.dataset,
        size=settings.final_size,
        resize=settings.eval_resize,
        interpolation=settings.eval_interpolation,
        mean=settings.mean,
        std=settings.std,
    )


def _check(settings: Settings, dataset: Dataset, cache: Cache | None, look: Look | None) -> None:
    """See that what was asked for can be done, before anything is opened for writing."""
    train = dataset.train
    if settings.batch_size > len(train):
        raise InputError(
            f"batch-size {settings.batch_size:,} is more than the {len(train):,} images of "
            f"{train.name}."
        )
    if cache is not None:
        check_images(cache, train)
        give_class_weight(settings.make_loss(), _class_weight(settings, cache))
    elif settings.make_loss().needs_teacher or settings.online:
        raise InputError(
            f"{' + '.join(settings.losses)} compares with a teacher: give the cache to read, "
            "or train with --loss ce."
        )
    asked = settings.fingerprint, settings.cache, settings.online
    given = train.fingerprint, None if cache is None else cache.id, look is not None
    if asked != given:
        raise InputError(
            f"the settings speak of dataset, cache and online teacher {asked}, given are {given}."
        )


def _class_weight(settings: Settings, cache: Cache | None) -> NDArray[np.float32] | None:
    """The teacher's last layer, where a loss looks at it and the cache has it."""
    wanted = cache is not None and needs_class_weight(settings.make_loss())
    return cache.class_weight if wanted and cache is not None else None


def _check_world(settings: Settings, world: World, count: int, device: torch.device) -> None:
    """See that so many processes can do what was asked."""
    check_division(settings.batch_size, count, world.size, settings.accumulate)
    if settings.sync_batch_norm and device.type != "cuda":
        raise InputError(
            f"sync-batch-norm works on GPUs only, and this is '{device.type}': leave it away."
        )


def _check_same(settings: Settings, team: Team) -> None:
    """See that all processes were asked for the same."""
    first = team.agree(settings.to_dict)
    different = settings.differences(first, same_world=False)
    if different:
        raise InputError(f"the first process was asked for {', '.join(different)}.")


def _freeze(settings: Settings, cache: Cache | None) -> Frozen:
    """The views of a run, and the statistics its losses use, whatever happens to the cache."""
    if cache is not None:
        return Frozen(check_views(cache, settings.views), cache.statistics)
    return Frozen(settings.views or tuple(range(settings.epochs)), None)


def _leave_unsaid(line: str) -> None:
    """The first process says it."""


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators seeded inside, and outside as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        searching = torch.backends.cudnn.benchmark
        # Sizes repeat for whole epochs: trying out convolutions once pays.
        torch.backends.cudnn.benchmark = device.type == "cuda" or searching
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = searching
