"""A student's training from the first step to the last, over any number of interruptions."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from skd_cache.distill.checkpoint import Progress, load_checkpoint, save_checkpoint
from skd_cache.distill.evaluate import Validation
from skd_cache.distill.learner import Learner
from skd_cache.distill.loader import Batch, Loader
from skd_cache.distill.metrics import Metrics
from skd_cache.distill.pace import Pace
from skd_cache.distill.randomness import named_by_rank, random_state, restore_random
from skd_cache.distill.run_folder import RunFolder
from skd_cache.distill.schedules import learning_rate, size_at
from skd_cache.distill.settings import Settings
from skd_cache.distill.stopping import StopRequest
from skd_cache.distill.student import Portrait, save_student
from skd_cache.distill.together import Team
from skd_cache.errors import SkdCacheError, UnreachableError
from skd_cache.progress import Bar, track

Say = Callable[[str], None]


class StoppedError(SkdCacheError):
    """The run was asked to stop; its state is on disk."""

    everywhere = True


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
        team: the processes that do this together; the first of them writes the files.
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
        team: Team,
        stop: StopRequest,
        say: Say,
    ) -> None:
        self._settings, self._views, self._count = settings, views, count
        self._folder, self._learner, self._portrait = folder, learner, portrait
        self._open_loader, self._validation = open_loader, validation
        self._device, self._team, self._stop, self._say = device, team, stop, say
        self._steps_per_epoch = math.ceil(count / settings.batch_size)
        self._size = 0
        self._loader: Loader | None = None
        self._epoch_pace = self.pace = Pace()  # of this session

    def run(self) -> Progress:
        """All epochs that are left; the weights are saved at the end.

        Raises:
            StoppedError: SIGTERM or Ctrl-C came; the state is on disk.
            UnreachableError: a remote cache does not answer any more; the state is on disk.
            SkdCacheError: the loss is no longer a number, or the disk failed.
        """
        settings = self._settings
        self._progress = self._resume()
        done = self._progress.step * settings.batch_size
        total = settings.epochs * self._count
        first = self._team.first
        if first:
            self._metrics = Metrics(
                self._folder.path, self._progress.metrics_bytes, self._progress.step
            )
        try:
            with track(total, "distilling", "images", min(done, total), shown=first) as bar:
                for epoch in range(self._progress.epochs, settings.epochs):
                    self._train(epoch, bar)
                    self._validate(epoch)
        finally:
            if first:
                self._metrics.close()
        if first:
            save_student(self._folder.student, self._learner.model, self._portrait)
        self._team.wait()
        return self._progress

    def _train(self, epoch: int, bar: Bar) -> None:
        """The steps of an epoch that are left."""
        settings, first = self._settings, epoch * self._steps_per_epoch
        self._learner.enter(epoch)
        loader = self._loader_at(size_at(settings.sizes, epoch))
        view = self._views[epoch % len(self._views)]
        last = epoch + 1 == settings.epochs
        then = None if last else self._views[(epoch + 1) % len(self._views)]
        self._epoch_pace = Pace()
        waits, began, images = loader.waits, time.perf_counter(), 0
        for batch in self._had(loader.epoch(view, self._progress.step - first, then), epoch):
            loss = self._learner.step(batch.to(self._device), self._progress.step)
            images += batch.whole
            self._loss_sum += loss * len(batch)
            self._progress = replace(
                self._progress,
                step=self._progress.step + 1,
                images=self._progress.images + batch.whole,
            )
            bar.advance(batch.whole)
            self._epoch_pace = Pace(images, time.perf_counter() - began, loader.waits - waits)
            self._after_step(epoch, loss, len(batch), batch.whole)
        self._mean_loss(epoch)  # waits for the device, so that the seconds are all there
        pace = replace(self._epoch_pace, seconds=time.perf_counter() - began)
        self._epoch_pace = pace.over(self._team)
        self.pace += self._epoch_pace

    def _had(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        """The batches; if one cannot be had, the run is saved as it is.

        Not one of several processes: saving takes all of them, and the others have their batches.
        """
        try:
            yield from batches
        except UnreachableError as error:
            if self._team.size > 1:
                raise
            self._save()
            raise UnreachableError(
                f"{error}; the run stopped in epoch {epoch + 1} after step "
                f"{self._progress.step:,}, all of it saved in {self._folder.path}: the same "
                "command goes on from there"
            ) from error

    def _after_step(self, epoch: int, loss: torch.Tensor, ours: int, whole: int) -> None:
        """Note, keep or stop, as the step has it: ``ours`` of its ``whole`` images had a loss."""
        step, settings = self._progress.step, self._settings
        if step % settings.log_every == 0:
            alone = self._team.size == 1
            mean = loss.item() if alone else self._team.totals(loss.item() * ours)[0] / whole
            self._note_step(epoch, mean)
        self._heed(epoch)
        if step % settings.checkpoint_every == 0:
            self._save()

    def _note_step(self, epoch: int, loss: float) -> None:
        self._mean_loss(epoch)
        step, pace = self._progress.step, self._epoch_pace.over(self._team)
        rate = learning_rate(self._settings, step - 1, self._steps_per_epoch)
        self._note("step", {"epoch": epoch, "loss": loss, "lr": rate, **pace.to_dict()})

    def _note(self, kind: str, values: dict[str, Any]) -> None:
        if self._team.first:
            self._metrics.write(kind, self._progress.step, values)

    def _validate(self, epoch: int) -> None:
        """Measure the student, keep it if it is the best so far, and close the epoch."""
        progress = self._progress
        top1 = top5 = None
        if self._validation is not None:
            self._team.share_buffers(self._learner.model)
            found = self._validation.measure(self._learner.model, lambda _: self._heed(epoch))
            top1, top5 = found.top1, found.top5
            if progress.best_top1 is None or top1 > progress.best_top1:
                if self._team.first:
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
        self._note("epoch", values | self._epoch_pace.to_dict())
        self._say(_epoch_line(epoch, self._settings.epochs, loss, top1, top5, self._epoch_pace))
        self._loss_sum.zero_()
        self._progress = replace(progress, epochs=epoch + 1, images=0, top1=top1, top5=top5)
        self._save()

    def _heed(self, epoch: int) -> None:
        """Save and stop, if that was asked; a validation under way is done again later."""
        number = self._team.heed(int(self._stop.by or 0))
        if not number:
            return
        self._save()
        self._team.wait()  # for the file: torchrun ends all processes soon after the first to end
        by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        raise StoppedError(
            f"stopped by {by} in epoch {epoch + 1} after step {self._progress.step:,}, all of it "
            f"saved in {self._folder.path}: the same command goes on from there."
        )

    def _mean_loss(self, epoch: int) -> float:
        """Mean loss of the epoch so far.

        Raises:
            SkdCacheError: it is no longer a number.
        """
        mean = self._team.totals(self._loss_sum.item())[0] / max(self._progress.images, 1)
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
        states = self._team.gather(random_state(self._device))
        loss_sum = self._team.totals(self._loss_sum.item())[0]
        if not self._team.first:
            return
        progress = replace(
            self._progress,
            loss_sum=loss_sum,
            metrics_bytes=self._metrics.bytes,
            scaler=self._learner.scaler,
        )
        tensors = self._learner.tensors() | named_by_rank(states)
        save_checkpoint(self._folder.checkpoints, progress, tensors)

    def _resume(self) -> Progress:
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        self._loss_sum = torch.zeros((), dtype=dtype, device=self._device)
        rank, seed = self._team.rank, self._settings.seed
        # Read by the first and handed on: on a shared disk the others may not see it yet.
        found = self._team.agree(lambda: load_checkpoint(self._folder.checkpoints))
        if found is None:
            if rank:
                restore_random({}, self._device, seed=seed, rank=rank, step=0)
            return Progress()
        progress, state = found
        self._learner.restore(state, progress.scaler)
        restore_random(state, self._device, seed=seed, rank=rank, step=progress.step)
        self._loss_sum += progress.loss_sum if rank == 0 else 0.0
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
