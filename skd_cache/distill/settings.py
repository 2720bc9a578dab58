"""Everything that determines a run, chosen once and compared when a run is resumed."""

import re
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, get_args

from skd_cache.dataset.dataset import Dataset
from skd_cache.errors import InputError
from skd_cache.losses import (
    Combined,
    Fixed,
    Loss,
    Schedule,
    combine,
    fix_teacher,
    parse,
    parse_fix,
    parse_schedule,
)
from skd_cache.replay import Policy, load_policy
from skd_cache.store import Cache

Optimizer = Literal["sgd", "adamw"]
RateSchedule = Literal["cosine", "step"]
Precision = Literal["float32", "bfloat16", "float16"]

# What may differ between the two halves of an interrupted run: which images it sees, and what is
# asked of the student, stay the same.
_HARMLESS = {"checkpoint_every", "log_every", "accumulate"}
_MAX_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a run depends on; with equal settings on a CPU, two runs end in equal weights.

    Attributes:
        dataset: name of the dataset, and ``fingerprint`` of its training images.
        cache: id of the cache whose views are replayed, or None for fresh views of ``policy``.
        views: views that the epochs go through in turn; None for all that are built when the run
            starts (without a cache: a new view every epoch).
        policy: what may happen to an image; the cache's own where there is one.
        view_seed: seed of the views; the cache's own where there is one.
        batch_size: images of a step, of all processes together.
        accumulate: micro-batches in which each process goes through its part of a step.
        sync_batch_norm: whether batch norm's means are those of all processes; on GPUs only.
        seed: of the student's initial weights and its dropout.
        student: name of the network, see `skd_cache.models.architecture.create_model`.
        student_weights: a safetensors file to start from, or None.
        losses: ``NAME[:key=value,…]`` each; teacher terms add up.
        teacher_fixes: corrections of the teacher's logits, in order; see `losses.parse_fix`.
        loss_schedules: ``OPTION=VALUE@EPOCH,…`` each.
        online: whether the teacher answers inside every step instead of from the cache.
        sizes: ``(first epoch, pixels)`` of each size the student trains at, from epoch 0.
        eval_resize: pixels of the shorter side before the validation crop of the last size.
        eval_interpolation: how validation images are resized.
        clip: largest L2 norm of all gradients together, or None.
        ema: decay of an exponential moving average of the weights, or None.
        lr_decay: factor of the ``step`` schedule at each epoch of ``milestones``.
        warmup_epochs: epochs over which the rate climbs linearly from 0.
        pixels: backend, or None for DALI where it is installed.
        threads: CPU threads that decode; None for one per core.
        checkpoint_every: steps between checkpoints, besides the one after every epoch.
        log_every: steps between lines of ``metrics.jsonl``.
    """

    dataset: str
    fingerprint: str
    cache: str | None
    policy: Policy
    view_seed: int
    student: str
    losses: tuple[str, ...]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    sizes: tuple[tuple[int, int], ...]
    eval_resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    views: tuple[int, ...] | None = None
    seed: int = 0
    student_weights: str | None = None
    teacher_fixes: tuple[str, ...] = ()
    loss_schedules: tuple[str, ...] = ()
    online: bool = False
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    schedule: RateSchedule = "cosine"
    milestones: tuple[int, ...] = ()
    lr_decay: float = 0.1
    warmup_epochs: int = 0
    accumulate: int = 1
    sync_batch_norm: bool = False
    clip: float | None = None
    ema: float | None = None
    eval_interpolation: str = "bilinear"
    precision: Precision = "float32"
    channels_last: bool = True
    compile: bool = False
    pixels: str | None = None
    decoder: str = "cpu"
    device: str = "cpu"
    threads: int | None = None
    checkpoint_every: int = 1000
    log_every: int = 100

    def __post_init__(self) -> None:
        for name, kind in (
            ("optimizer", Optimizer),
            ("schedule", RateSchedule),
            ("precision", Precision),
        ):
            _one_of(name, getattr(self, name), get_args(kind))
        for name in ("epochs", "batch_size", "accumulate", "checkpoint_every", "log_every"):
            _check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        _check("lr", 0 < self.lr < 1e6, "greater than 0", self.lr)
        _check("lr_decay", 0 < self.lr_decay <= 1, "in (0, 1]", self.lr_decay)
        _check("weight_decay", 0 <= self.weight_decay < 1e6, "at least 0", self.weight_decay)
        _check("momentum", 0 <= self.momentum < 1, "in [0, 1)", self.momentum)
        _check("seed", 0 <= self.seed < 2**63, "at least 0", self.seed)
        fits = 0 <= self.warmup_epochs < self.epochs
        _check("warmup_epochs", fits, f"fewer than the {self.epochs} epochs", self.warmup_epochs)
        _check("clip", self.clip is None or self.clip > 0, "greater than 0", self.clip)
        _check("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1", self.ema)
        _check("losses", len(self.losses) > 0, "one or more", "none")
        if self.views is not None:
            _check("views", len(self.views) > 0, "one or more", "none")
        loss = self.make_loss()
        for one in self.make_loss_schedules():
            one.check(loss)

    @property
    def final_size(self) -> int:
        """Pixels of the last epochs and of validation."""
        return self.sizes[-1][1]

    def make_loss(self) -> Loss | Combined | Fixed:
        """The losses as one module, behind the corrections of their teacher."""
        loss = combine([parse(text) for text in self.losses])
        return fix_teacher(loss, [parse_fix(text) for text in self.teacher_fixes])

    def make_loss_schedules(self) -> list[Schedule]:
        """What changes in the losses over the epochs."""
        return [parse_schedule(text) for text in self.loss_schedules]

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: _plain(value) for key, value in values.items()}

    def differences(self, stored: dict[str, Any], *, same_world: bool = True) -> list[str]:
        """Where another run's settings (its :meth:`to_dict`) are not these, a phrase each.

        Args:
            stored: the other's; what they do not mention is as if it had never been chosen.
            same_world: whether both are of equally many processes.
        """
        ours = self.to_dict()
        stored = {"sync_batch_norm": False, "teacher_fixes": [], **stored}
        # Threads change the last bits of a CPU's sums; a GPU's are never promised, nor are those of
        # another number of processes.
        last_bits = self.device == "cpu" and same_world
        harmless = _HARMLESS | (set() if last_bits else {"threads"})
        return [
            f"{key.replace('_', '-')} {stored.get(key)!r} where {value!r} is asked"
            for key, value in ours.items()
            if key not in harmless and stored.get(key) != value
        ]


def settings_for(
    dataset: Dataset,
    cache: Cache | None = None,
    *,
    size: str | int | None = None,
    policy: str | None = None,
    **chosen: Any,
) -> Settings:
    """Settings for a dataset and a cache: what is chosen, else what the dataset comes with.

    Args:
        dataset: whose defaults fill in what is not chosen.
        cache: whose policy and seed are replayed; without one, ``policy`` and ``seed`` count.
        size: pixels, or ``128@0,160@30,224@80`` (pixels from an epoch on).
        policy: name or file, only without a cache.
        chosen: fields of :class:`Settings`; None means not chosen.

    Raises:
        InputError: a value out of range, or a policy chosen against a cache's.
    """
    defaults = dataset.defaults
    chosen = {key: value for key, value in chosen.items() if value is not None}
    sizes = parse_sizes(str(size)) if size is not None else ((0, defaults.size),)
    filled: dict[str, Any] = {
        "dataset": dataset.name,
        "fingerprint": dataset.train.fingerprint,
        "sizes": sizes,
        # The proportion of resize to crop is the recipe's, whatever the size.
        "eval_resize": round(defaults.eval_resize * sizes[-1][1] / defaults.size),
        "eval_interpolation": defaults.interpolation,
        "mean": tuple(defaults.mean),
        "std": tuple(defaults.std),
        "student": defaults.student,
        "epochs": defaults.epochs,
        "batch_size": defaults.batch_size,
        "lr": defaults.lr,
        "weight_decay": defaults.weight_decay,
        "schedule": defaults.schedule,
        "milestones": tuple(defaults.milestones),
        "warmup_epochs": defaults.warmup_epochs,
    }
    if cache is None:
        filled |= {"cache": None, "policy": load_policy(policy or defaults.policy)}
        filled["view_seed"] = chosen.get("seed", 0)
    else:
        recorded = Policy.from_dict(dict(cache.recipe.policy))
        if policy is not None and load_policy(policy) != recorded:
            raise InputError(
                f"cache {cache.id} was built with another policy than '{policy}': "
                "leave --policy away to replay the cache's."
            )
        filled |= {"cache": cache.id, "policy": recorded, "view_seed": cache.recipe.seed}
    return Settings(**(filled | chosen))


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Read ``224`` or ``128@0,160@30,224@80``: pixels, and the epoch from which they count.

    Raises:
        InputError: not of that form, or the epochs do not ascend from 0.
    """
    form = f"--size '{text}' is not PIXELS or PIXELS@EPOCH,… with epochs that ascend from 0 "
    steps: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:@(\d{1,6}))?\s*", part)
        if match is None or (match[2] is None and "," in text):
            raise InputError(form + "(for example 128@0,160@30,224@80).")
        steps.append((int(match[2] or 0), int(match[1])))
    ascending = all(before < after for (before, _), (after, _) in pairwise(steps))
    if steps[0][0] != 0 or not ascending or not all(8 <= size <= _MAX_SIDE for _, size in steps):
        raise InputError(form + f"and pixels from 8 to {_MAX_SIDE}.")
    return tuple(steps)


def _plain(value: Any) -> Any:
    if isinstance(value, Policy):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    _check(name, value in known, f"one of {', '.join(known)}", value)


def _check(name: str, fine: bool, wanted: str, value: object) -> None:
    if not fine:
        raise InputError(f"{name.replace('_', '-')} must be {wanted}, not {value}.")
