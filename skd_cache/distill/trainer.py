"""A student's training from the first step to the last, over any number of interruptions."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from skd_cache.distill.checkpoint import Progress, load_checkpoint, save_checkpoint
from skd_cache.distill.evaluate import Validation
from skd_cache.distill.learner import Learner
from skd_cache.distill.loader import Loader
from skd_cache.distill.metrics import Metrics
from skd_cache.distill.pace import Pace
from skd_cache.distill.run_folder import RunFolder
from skd_cache.distill.schedules import learning_rate, size_at
from skd_cache.distill.settings import Settings
from skd_cache.distill.stopping import StopRequest
from skd_cache.distill.student import Portrait, save_student
from skd_cache.errors import SkdCacheError
from skd_cache.progress import Bar, track

Say = Callable[[str], None]


class StoppedError(SkdCacheError):
    """The run was asked to stop; its state is on disk."""


class Trainer:
    """One session of a run: from where it stands to its end or the next interruption.

    Args:
        settings: how the student learns.
        views: what each epoch looks at, in turn.
        count: images of an epoch.
        folder: where the run's files go.
        learner: the student, freshly made.
        open_loader: gives the batches at a size in pixels.
        validation: what the student is measured on after each epoch, if anything.
        portrait: what is saved with the weights.
        device: where the student learns.
        stop: asked after every step.
        say: hears a sentence per epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        views: tuple[int, ...],
        count: int,
        folder: RunFolder,
        learner: Learner,
        open_loader: Callable[[int], Loader],
        validation: Validation | None,
        portrait: Portrait,
        device: torch.device,
        stop: StopRequest,
        say: Say,
    ) -> None:
        self._settings, self._views, self._count = settings, views, count
        self._folder, self._learner, self._portrait = folder, learner, portrait
        self._open_loader, self._validation = open_loader, validation
        self._device, self._stop, self._say = device, stop, say
        self._steps_per_epoch = math.ceil(count / settings.batch_size)
        self._size = 0
        self._loader: Loader | None = None
        self._epoch_pace = self.pace = Pace()  # of this session

    def run(self) -> Progress:
        """All epochs that are left; the weights are saved at the end.

        Raises:
            StoppedError: SIGTERM or Ctrl-C came; the state is on disk.
            SkdCacheError: the loss is no longer a number, or the disk failed.
        """
        settings = self._settings
        self._progress = self._resume()
        done = self._progress.step * settings.batch_size
        total = settings.epochs * self._count
        self._metrics = Metrics(
            self._folder.path, self._progress.metrics_bytes, self._progress.step
        )
        try:
            with track(total, "distilling", "images", min(done, total)) as bar:
                for epoch in range(self._progress.epochs, settings.epochs):
                    self._train(epoch, bar)
                    self._validate(epoch)
        finally:
            self._metrics.close()
        save_student(self._folder.student, self._learner.model, self._portrait)
        return self._progress

    def _train(self, epoch: int, bar: Bar) -> None:
        """The steps of an epoch that are left."""
        settings, first = self._settings, epoch * self._steps_per_epoch
        self._learner.enter(epoch)
        loader = self._loader_at(size_at(settings.sizes, epoch))
        view = self._views[epoch % len(self._views)]
        self._epoch_pace = Pace()
        waits, began, images = loader.waits, time.perf_counter(), 0
        for batch in loader.epoch(view, self._progress.step - first):
            loss = self._learner.step(batch.to(self._device), self._progress.step)
            images += len(batch)
            self._loss_sum += loss * len(batch)
            self._progress = replace(
                self._progress,
                step=self._progress.step + 1,
                images=self._progress.images + len(batch),
            )
            bar.advance(len(batch))
            self._epoch_pace = Pace(images, time.perf_counter() - began, loader.waits - waits)
            self._after_step(epoch, loss)
        self._mean_loss(epoch)  # waits for the device, so that the seconds are all there
        self._epoch_pace = replace(self._epoch_pace, seconds=time.perf_counter() - began)
        self.pace += self._epoch_pace

    def _after_step(self, epoch: int, loss: torch.Tensor) -> None:
        """Note, keep or stop, as the step has it."""
        step, settings = self._progress.step, self._settings
        if step % settings.log_every == 0:
            self._note_step(epoch, loss)
        self._heed(epoch)
        if step % settings.checkpoint_every == 0:
            self._save()

    def _note_step(self, epoch: int, loss: torch.Tensor) -> None:
        self._mean_loss(epoch)
        step = self._progress.step
        rate = learning_rate(self._settings, step - 1, self._steps_per_epoch)
        values = {"epoch": epoch, "loss": loss.item(), "lr": rate, **self._epoch_pace.to_dict()}
        self._metrics.write("step", step, values)

    def _validate(self, epoch: int) -> None:
        """Measure the student, keep it if it is the best so far, and close the epoch."""
        progress = self._progress
        top1 = top5 = None
        if self._validation is not None:
            found = self._validation.measure(self._learner.model, lambda _: self._heed(epoch))
            top1, top5 = found.top1, found.top5
            if progress.best_top1 is None or top1 > progress.best_top1:
                save_student(self._folder.best, self._learner.model, self._portrait)
                progress = replace(progress, best_top1=top1, best_epoch=epoch)
        loss, size = self._mean_loss(epoch), size_at(self._settings.sizes, epoch)
        rate = learning_rate(self._settings, progress.step - 1, self._steps_per_epoch)
        values = {
            "epoch": epoch,
            "loss": loss,
            "lr": rate,
            "size": size,
            "top1": top1,
            "top5": top5,
        }
        self._metrics.write("epoch", progress.step, values | self._epoch_pace.to_dict())
        self._say(_epoch_line(epoch, self._settings.epochs, loss, top1, top5, self._epoch_pace))
        self._loss_sum.zero_()
        self._progress = replace(progress, epochs=epoch + 1, images=0, top1=top1, top5=top5)
        self._save()

    def _heed(self, epoch: int) -> None:
        """Save and stop, if that was asked; a validation under way is done again later."""
        if not self._stop:
            return
        self._save()
        by = "Ctrl-C" if self._stop.by is not None and self._stop.by.name == "SIGINT" else "SIGTERM"
        raise StoppedError(
            f"stopped by {by} in epoch {epoch + 1} after step {self._progress.step:,}, all of it "
            f"saved in {self._folder.path}: the same command goes on from there."
        )

    def _mean_loss(self, epoch: int) -> float:
        """Mean loss of the epoch so far.

        Raises:
            SkdCacheError: it is no longer a number.
        """
        mean = self._loss_sum.item() / max(self._progress.images, 1)
        if not math.isfinite(mean):
            raise SkdCacheError(
                f"the loss is no longer a number in epoch {epoch + 1}, by step "
                f"{self._progress.step:,}: lower --lr, clip gradients or raise the precision."
            )
        return mean

    def _loader_at(self, size: int) -> Loader:
        if self._loader is None or size != self._size:
            self._size, self._loader = size, self._open_loader(size)
        return self._loader

    def _save(self) -> None:
        progress = replace(
            self._progress,
            loss_sum=self._loss_sum.item(),
            metrics_bytes=self._metrics.bytes,
            scaler=self._learner.scaler,
        )
        save_checkpoint(self._folder.checkpoints, progress, self._learner.tensors())

    def _resume(self) -> Progress:
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        self._loss_sum = torch.zeros((), dtype=dtype, device=self._device)
        found = load_checkpoint(self._folder.checkpoints)
        if found is None:
            return Progress()
        progress, state = found
        self._learner.restore(state, progress.scaler)
        self._loss_sum += progress.loss_sum
        if progress.epochs < self._settings.epochs:
            self._say(
                f"resuming in {self._folder.path} after step {progress.step:,} "
                f"(epoch {progress.epochs + 1} of {self._settings.epochs})"
            )
        return progress


def _epoch_line(
    epoch: int, epochs: int, loss: float, top1: float | None, top5: float | None, pace: Pace
) -> str:
    parts = [f"epoch {epoch + 1}/{epochs}: loss {loss:.4f}"]
    if top1 is not None and top5 is not None:
        parts += [f"top-1 {top1:.2%}", f"top-5 {top5:.2%}"]
    if pace.images:
        parts.append(f"{pace.images_per_second:,.0f} images/s")
    return ", ".join(parts)
