"""A student and all that changes while it learns: one step, and the state between two."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skd_cache.distill.checkpoint import flatten_optimizer, restore_optimizer
from skd_cache.distill.ema import MovingAverage
from skd_cache.distill.loader import Batch
from skd_cache.distill.schedules import learning_rate
from skd_cache.distill.settings import Settings
from skd_cache.distill.student import has_idle_weights
from skd_cache.distill.together import Team, unsynchronised
from skd_cache.distill.views import micro_bounds
from skd_cache.losses import give_class_weight
from skd_cache.pixels import normalise

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner:
    """Trains a student; what it draws at random comes from torch's generators.

    Args:
        settings: how.
        student: freshly made, on the CPU.
        device: where it learns.
        steps_per_epoch: batches of an epoch.
        team: the processes that learn together.
        class_weight: the teacher's last layer, for losses that look at it.
    """

    def __init__(
        self,
        settings: Settings,
        student: nn.Module,
        device: torch.device,
        steps_per_epoch: int,
        team: Team,
        class_weight: NDArray[Any] | None = None,
    ) -> None:
        self._settings, self._device, self._steps_per_epoch = settings, device, steps_per_epoch
        self._team = team
        idle = team.size > 1 and has_idle_weights(student, settings.final_size)
        if settings.sync_batch_norm and team.size > 1:
            student = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
        student.to(device)
        if settings.channels_last:
            student.to(memory_format=torch.channels_last)
        self.student = student.train()
        self._network = team.wrap(student, device, idle_weights=idle)
        self._average = MovingAverage(student, settings.ema) if settings.ema is not None else None
        if settings.compile:
            self._network.compile()
        self._optimizer = _optimizer(settings, student)
        self._dtype = DTYPES[settings.precision]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)
        self._loss = settings.make_loss()
        give_class_weight(self._loss, class_weight)
        self._loss.to(device)
        self._loss_schedules = settings.make_loss_schedules()

    @property
    def model(self) -> nn.Module:
        """The network that is validated and saved: the moving average where there is one."""
        return self.student if self._average is None else self._average.model

    def enter(self, epoch: int) -> None:
        """Set what the losses' schedules have for an epoch."""
        for schedule in self._loss_schedules:
            schedule.apply(self._loss, epoch)

    def step(self, batch: Batch, step: int) -> Tensor:
        """Learn from a batch, of which this process has a part.

        Returns the mean loss of that part before, a scalar on the device that nobody waited for.
        """
        settings = self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, self._steps_per_epoch)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._learn_from(batch)
        if settings.clip is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self.student, step)
        return loss

    def _learn_from(self, batch: Batch) -> Tensor:
        """The gradient of the mean loss of all processes' images; the mean loss of our own."""
        team, accumulate = self._team.size, self._settings.accumulate
        bounds = micro_bounds(len(batch), batch.whole, team, accumulate)
        if len(bounds) == 1:
            return self._add_gradient(batch)
        total = torch.zeros((), device=self._device)
        for place, (start, stop) in enumerate(bounds):
            last = place == len(bounds) - 1
            with nullcontext() if last else unsynchronised(self._network):
                total += self._add_gradient(batch.cut(start, stop)) * (stop - start)
        return total / max(len(batch), 1)

    def _add_gradient(self, batch: Batch) -> Tensor:
        """Add the share that these images have in the gradient; their mean loss.

        Without images this process takes part all the same, with a weight of nothing: batch norm
        over all processes takes that as it is, any other is given two images to have a mean of.
        """
        settings, pixels = self._settings, batch.images
        if not len(batch):
            pixels = pixels.new_zeros(0 if settings.sync_batch_norm else 2, *pixels.shape[1:])
        images = normalise(pixels, settings.mean, settings.std)  # [B, 3, S, S]
        if not settings.channels_last:
            images = images.contiguous()
        reduced = self._dtype != torch.float32
        autocast = torch.autocast(self._device.type, self._dtype) if reduced else nullcontext()
        with autocast:
            logits = self._network(images)  # [B, C]
        if len(batch):
            loss: Tensor = self._loss(logits, batch.teacher, batch.labels)
        else:
            loss = logits.float().sum()
        # Gradients are averaged over the team.
        share = len(batch) * self._team.size / batch.whole
        self._scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimizer and moving average, by name."""
        state = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        buffers = flatten_optimizer(self._optimizer)
        state |= {f"optimizer.{name}": value for name, value in buffers.items()}
        if self._average is not None:
            average = self._average.model.state_dict()
            state |= {f"average.{name}": value for name, value in average.items()}
        return state

    @property
    def scaler(self) -> dict[str, Any]:
        """State of the gradient scaler; empty where there is none."""
        return self._scaler.state_dict()

    def restore(self, state: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """Go back to what :meth:`tensors` and :attr:`scaler` gave."""
        self.student.load_state_dict(_under("student.", state))
        restore_optimizer(self._optimizer, _under("optimizer.", state))
        if self._average is not None:
            self._average.model.load_state_dict(_under("average.", state))
        if scaler:
            self._scaler.load_state_dict(dict(scaler))


def _optimizer(settings: Settings, student: nn.Module) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            student.parameters(), settings.lr, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        student.parameters(),
        settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
