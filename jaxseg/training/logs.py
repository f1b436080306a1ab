"""The metrics of a run, as JSON lines and, where tensorboardX is installed, for TensorBoard."""

import json
import math
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from jaxseg import atomic


class MetricLog:
    """Appends `{"step", ...}` rows to `metrics.jsonl`; rows past `start` (written before a kill) are dropped."""

    def __init__(self, folder: pathlib.Path, start: int):
        self._path = folder / "metrics.jsonl"
        rows = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        kept = [line for line in rows if _complete_step(line) <= start]
        atomic.replace(self._path, "".join(f"{line}\n" for line in kept).encode())
        try:
            from tensorboardX import SummaryWriter
        except ImportError:  # optional: the JSON lines hold the same values
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Appends a row; NaN becomes null."""
        clean = {name: None if math.isnan(value) else value for name, value in row.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **clean}) + "\n")
        if self._board:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._board:
            self._board.close()


def _complete_step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):  # truncated by a kill
        return math.inf
