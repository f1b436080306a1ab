"""How far a probe is: a bar on a terminal, and what it was answered so far, so that a killed audit goes on."""

import contextlib
import dataclasses
import io
import itertools
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from jaxseg import atomic, inference
from jaxseg.data import pipeline
from jaxseg.networks import host

_EVERY = 20.0  # seconds after which answers are kept: so much is lost at most
Rows = dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class Progress:
    """The questions of one probe, one after the other.

    Attributes:
      name: of the probe, shown by the bar.
      folder: for the answers to a part of the cases; None: they are not kept.
    """

    name: str = "asking"
    folder: pathlib.Path | None = None
    _asked: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def batches(
        self,
        cases: pipeline.Source,
        *,
        batch_size: int,
        first: int = 0,
        names: Collection[str] | None = pipeline.ARRAYS,
    ) -> Iterator[pipeline.Batch]:
        """`pipeline.epoch`, with a bar that appears after a second and is erased at the end."""
        options: dict[str, Any] = {"leave": False, "delay": 1, "mininterval": 0.5, "disable": None}
        with tqdm.tqdm(None, self.name, len(cases), unit="case", initial=first * batch_size, **options) as bar:
            for batch in pipeline.epoch(cases, batch_size=batch_size, first=first, names=names):
                yield batch
                bar.update(int(np.count_nonzero(batch["real"])))

    def over_cases(
        self,
        run: Callable[[pipeline.Batch], Mapping[str, jax.Array]],
        cases: pipeline.Source,
        *,
        batch_size: int,
        names: Collection[str] | None = pipeline.ARRAYS,
    ) -> Rows:
        """Results per case, in the order of the cases, from where an earlier process was killed.

        Args:
          run: `stored batch -> {name: [B,...]}`, the same in every process.
          cases: of one size.
          batch_size: B.
          names: as of `pipeline.epoch`.
        """
        parts = _Parts(self.folder, f"{next(self._asked)}_{len(cases)}_{batch_size}")
        with host.plainly():
            for batch in self.batches(cases, batch_size=batch_size, first=parts.batches, names=names):
                parts.add(inference.of_real(run(batch), batch["real"]))
        return parts.all()


class _Parts:
    """The answers to one question, kept in files that follow each other."""

    def __init__(self, folder: pathlib.Path | None, name: str):
        self._folder, self._name = folder, name
        self._rows: list[Rows] = []
        self._new: list[Rows] = []
        self.batches = 0  # that are answered
        while (found := self._read()) is not None:
            self.batches += int(found.pop("batches"))
            self._rows.append(found)
        self._kept = time.monotonic()

    def add(self, rows: Rows) -> None:
        """The answers to one more batch."""
        self._new.append(rows)
        if time.monotonic() - self._kept < _EVERY:
            return
        number, rows = len(self._new), _joined(self._new)
        if self._folder is not None:
            content = io.BytesIO()
            np.savez(content, allow_pickle=False, batches=number, **rows)
            atomic.replace(self._path, content.getvalue())
        self._rows.append(rows)
        self._new, self.batches, self._kept = [], self.batches + number, time.monotonic()

    def all(self) -> Rows:
        """Of all cases."""
        return _joined([*self._rows, *self._new])

    @property
    def _path(self) -> pathlib.Path:
        """Of the next file: it begins where those before end."""
        assert self._folder is not None
        return self._folder / f"{self._name}_{self.batches}.npz"

    def _read(self) -> Rows | None:
        if self._folder is not None:
            # it may be missing or damaged: then the rest is asked again
            with contextlib.suppress(Exception), np.load(io.BytesIO(self._path.read_bytes())) as stored:
                return dict(stored)
        return None


def _joined(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
