"""Notices that decoding came out otherwise than encoding did, without making a GPU wait."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from skd_cache.errors import DataError


@dataclass
class DecodeWatch:
    """Counts rows whose check failed; on a GPU the counts are looked at when they have arrived."""

    _pending: "deque[tuple[Tensor, Any, int]]" = field(default_factory=deque)

    def see(self, wrong: Tensor) -> None:
        """Take note of which rows ``[B]`` failed.

        Raises:
            DataError: if any did, now or in a batch that was decoded on a GPU before.
        """
        if wrong.device.type != "cuda":
            self._judge(int(wrong.sum()), len(wrong))
            return
        count = torch.empty((), dtype=torch.int64, pin_memory=True)
        count.copy_(wrong.sum(), non_blocking=True)
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending.append((count, event, len(wrong)))
        while self._pending and self._pending[0][1].query():
            self._next()

    def settle(self) -> None:
        """Wait for what is still under way.

        Raises:
            DataError: as :meth:`see`.
        """
        while self._pending:
            self._pending[0][1].synchronize()
            self._next()

    def _next(self) -> None:
        count, _, rows = self._pending.popleft()
        self._judge(int(count), rows)

    def _judge(self, wrong: int, rows: int) -> None:
        if wrong:
            self._pending.clear()
            raise DataError(
                f"{wrong} of {rows} rows decode to other classes than were encoded: the codes or "
                "the basis are damaged, or this device does not multiply small integers exactly"
            )
