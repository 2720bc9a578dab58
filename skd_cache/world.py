"""This process's place among those that ``torchrun`` started together."""

import os
from dataclasses import dataclass
from typing import Self

from skd_cache.errors import InputError


@dataclass(frozen=True)
class World:
    """Which of how many processes this is: on all machines together, and on this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> Self:
        """What torchrun told this process; a process of its own is a world of one.

        Raises:
            InputError: if the variables do not fit together.
        """
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return cls()
        size, rank = _number("WORLD_SIZE", "1"), _number("RANK", "0")
        world = cls(
            rank=rank,
            size=size,
            local_rank=_number("LOCAL_RANK", str(rank)),
            local_size=_number("LOCAL_WORLD_SIZE", "1"),
        )
        if not (world.rank < world.size and world.local_size <= world.size):
            raise InputError(f"RANK {rank} and WORLD_SIZE {size} do not fit: start with torchrun")
        return world

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.rank == 0


def _number(name: str, default: str) -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r}, not a number: start with torchrun")
    return int(text)
