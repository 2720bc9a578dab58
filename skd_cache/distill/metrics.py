"""What is written down while a student learns: ``metrics.jsonl``, and TensorBoard's files."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from skd_cache.distill.durable import explained


class Metrics:
    """Lines of a run, appended as they come; a resumed run first forgets what it will do again."""

    def __init__(self, folder: Path, keep_bytes: int, step: int) -> None:
        path = folder / "metrics.jsonl"
        with explained("write", path):
            self._file = path.open("ab")
            if self._file.tell() > keep_bytes:
                os.truncate(path, keep_bytes)
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Note values of a ``step`` or an ``epoch``."""
        line = json.dumps({"kind": kind, "step": step, **values})
        with explained("write", Path(self._file.name)):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    @property
    def bytes(self) -> int:
        """Length of the file so far."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
