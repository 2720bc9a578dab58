"""A student and all that changes while it learns: one step, and the state between two."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from skd_cache.distill.checkpoint import flatten_optimizer, restore_optimizer
from skd_cache.distill.ema import MovingAverage
from skd_cache.distill.loader import Batch
from skd_cache.distill.schedules import learning_rate
from skd_cache.distill.settings import Settings
from skd_cache.pixels import normalise

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner:
    """Trains a student; what it draws at random comes from torch's generators.

    Args:
        settings: how.
        student: freshly made, on the CPU.
        device: where it learns.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self, settings: Settings, student: nn.Module, device: torch.device, steps_per_epoch: int
    ) -> None:
        self._settings, self._device, self._steps_per_epoch = settings, device, steps_per_epoch
        student.to(device)
        if settings.channels_last:
            student.to(memory_format=torch.channels_last)
        self.student = student.train()
        self._average = MovingAverage(student, settings.ema) if settings.ema is not None else None
        if settings.compile:
            student.compile()
        self._optimizer = _optimizer(settings, student)
        self._dtype = DTYPES[settings.precision]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)
        self._loss = settings.make_loss().to(device)
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
        """Learn from a batch; the loss before, as a scalar on the device that nobody waited for."""
        settings = self._settings
        images = normalise(batch.images, settings.mean, settings.std)  # [B, 3, S, S]
        if not settings.channels_last:
            images = images.contiguous()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, self._steps_per_epoch)
        reduced = self._dtype != torch.float32
        autocast = torch.autocast(self._device.type, self._dtype) if reduced else nullcontext()
        with autocast:
            logits = self.student(images)  # [B, C]
        loss: Tensor = self._loss(logits, batch.teacher, batch.labels)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if settings.clip is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self.student, step)
        return loss.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimizer, moving average and random generators, by name."""
        state = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        buffers = flatten_optimizer(self._optimizer)
        state |= {f"optimizer.{name}": value for name, value in buffers.items()}
        if self._average is not None:
            average = self._average.model.state_dict()
            state |= {f"average.{name}": value for name, value in average.items()}
        state["random.cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state(self._device)
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
        torch.set_rng_state(state["random.cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random.cuda"], self._device)
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
