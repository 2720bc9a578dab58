"""What changes over training as pure functions of the step: learning rate and image size."""

import math

from skd_cache.distill.settings import Settings


def learning_rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step (0 is the first).

    A linear climb over the warm-up, then half a cosine down to 0 over the rest (Loshchilov and
    Hutter, arXiv 1608.03983, without restarts), or ``lr_decay`` at the start of each milestone.
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "step":
        passed = sum(step // steps_per_epoch >= epoch for epoch in settings.milestones)
        return settings.lr * settings.lr_decay**passed
    total = settings.epochs * steps_per_epoch
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def size_at(sizes: tuple[tuple[int, int], ...], epoch: int) -> int:
    """Pixels of the images in ``epoch``."""
    return next(size for first, size in reversed(sizes) if first <= epoch)
