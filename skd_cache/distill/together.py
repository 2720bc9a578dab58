"""The processes that train one student together, and what they tell each other.

Gradients go through torch's DistributedDataParallel. All else is a few numbers on the CPU, through
a group of its own, so that no GPU waits for them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skd_cache.errors import InputError, PeerLostError
from skd_cache.world import World

Found = TypeVar("Found")


class Team:
    """This process's place in the team, and its ways to the others; alone, it asks nobody.

    Args:
        world: which of how many processes this is.
        control: the group that numbers on the CPU go through; None for a world of one.
    """

    def __init__(self, world: World, control: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self.first = world.rank, world.size, world.first
        self._control = control
        self._asked: tuple[dist.Work, Tensor] | None = None

    def wrap(self, student: nn.Module, device: torch.device, *, idle_weights: bool) -> nn.Module:
        """The network to call in training: its gradients become the mean over the team.

        Every process then has the first one's weights. Batch statistics are the first one's too:
        they are handed out before each step.
        """
        if self._control is None:
            return student
        ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(student, ids, find_unused_parameters=idle_weights)

    def share_buffers(self, model: nn.Module) -> None:
        """Give everyone the first process's batch statistics."""
        if self._control is not None:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def agree(self, decide: Callable[[], Found]) -> Found:
        """What the first process finds; the others do not look."""
        if self._control is None:
            return decide()
        box: list[Any] = [decide() if self.first else None]
        dist.broadcast_object_list(box, 0, self._control)
        found: Found = box[0]
        return found

    def gather(self, mine: Found) -> list[Found]:
        """What everyone has, by rank, for the first process; the others get an empty list."""
        if self._control is None:
            return [mine]
        everyone: list[Any] = [None] * self.size if self.first else []
        dist.gather_object(mine, everyone if self.first else None, 0, self._control)
        return everyone

    def totals(self, *values: float) -> list[float]:
        """The sums over the team."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, *values: float) -> list[float]:
        """The largest of the team."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def wait(self) -> None:
        """Go on when everyone is here."""
        if self._control is not None:
            dist.barrier(self._control)

    def heed(self, request: int) -> int:
        """The largest request that anyone had at the call before this one; alone, one's own now.

        So everyone hears of it after the same step, and nobody waited for an answer.
        """
        if self._control is None:
            return request
        before, number = self._asked, torch.tensor(request)
        work = dist.all_reduce(number, dist.ReduceOp.MAX, self._control, async_op=True)
        self._asked = (work, number)
        if before is None:
            return 0
        before[0].wait()
        return int(before[1])

    def _reduced(self, values: tuple[float, ...], how: Any) -> list[float]:
        if self._control is None:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, how, self._control)
        found: list[float] = numbers.tolist()
        return found


def unsynchronised(network: nn.Module) -> AbstractContextManager[None]:
    """Keep gradients to oneself: more are added before they are the team's."""
    if isinstance(network, DistributedDataParallel):
        keeping: AbstractContextManager[None] = network.no_sync()
        return keeping
    return nullcontext()


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[Team]:
    """Meet the other processes; the groups are gone afterwards, however it ended.

    Process groups that somebody else made are used and left as they are.

    Raises:
        InputError: torchrun's variables are not all there, or the device cannot do this.
        PeerLostError: another process ended in between.
    """
    if world.size == 1:
        yield Team(world)
        return
    _check(world, device)
    made_here = not dist.is_initialized()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        if made_here:
            gpu = device if device.type == "cuda" else None
            dist.init_process_group("nccl" if gpu else "gloo", device_id=gpu)
        control: Any = dist.new_group(backend="gloo")
        yield Team(world, control)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PeerLostError("another process of this run ended; it says why") from error
        raise
    finally:
        if made_here and dist.is_initialized():
            dist.destroy_process_group()


def _check(world: World, device: torch.device) -> None:
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{world.size} processes cannot train together on '{device.type}'")
    if device.type == "cuda" and device.index != world.local_rank and world.local_size > 1:
        raise InputError(
            f"--device {device} names one GPU for {world.local_size} processes: leave the number "
            "away, and each takes its own"
        )
    if "MASTER_ADDR" not in os.environ and not dist.is_initialized():
        raise InputError(
            f"WORLD_SIZE says {world.size} processes, but not where they meet: start with torchrun"
        )
