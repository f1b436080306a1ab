"""Patches of cases, drawn anew at every step: on the host, from decoded or memory-mapped cases.

A share of them is sure to hold foreground, as nnU-Net has it (Isensee et al. 2021): these patches have a pixel of a
drawn class in their middle, as far as the case's border allows; the others lie anywhere. The share holds over steps,
whatever the batch size; nnU-Net rounds it in every batch, which makes its third a half of two.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from jaxseg.data import pipeline
from jaxseg.data.pipeline.batches import read_ahead, shuffled

_PLACES = 1000  # pixels of a class that are remembered of a case


class Sampler:
    """Training batches of patches.

    Attributes:
      source: the cases, none smaller than a patch.
      sides: spatial sizes of a patch.
      foreground: share of the patches that are sure to hold foreground, where a case has any.
    """

    def __init__(self, source: pipeline.Source, *, sides: Sequence[int], foreground: float):
        """Reads nothing yet."""
        self.source, self.sides, self.foreground = source, tuple(sides), foreground
        self._places: dict[int, list[np.ndarray]] = {}

    def batches(
        self, *, batch_size: int, seed: int, start_step: int = 0, part: tuple[int, int] = (0, 1)
    ) -> Iterator[pipeline.Batch]:
        """Endless batches, a function of their step alone; arguments and errors as `pipeline.batches`.

        Yields:
          `{"image": [B/P,*sides,C], "labels": uint8 [B/P,*sides], "index": int32 [B/P]}`, and `valid` where the source
          has it.
        """
        pipeline.check_batch_size(self.source.name, len(self.source), batch_size)
        own = pipeline.part_of_batch(batch_size, *part)
        order = shuffled(len(self.source), batch_size, seed)
        drawn = functools.partial(self._batch, batch_size=batch_size, seed=seed, own=own)
        return read_ahead(order.map_with_index(drawn)[start_step:])

    def _batch(self, step: int, index: np.ndarray, *, batch_size: int, seed: int, own: slice) -> pipeline.Batch:
        first_sure = batch_size - self._sure(batch_size * (step + 1)) + self._sure(batch_size * step)
        patches = [
            self.draw(np.random.default_rng([seed, int(step), place]), int(index[place]), sure=place >= first_sure)
            for place in range(*own.indices(batch_size))
        ]
        return {name: np.stack([patch[name] for patch in patches]) for name in patches[0]} | {"index": index[own]}

    def _sure(self, count: int) -> int:
        """How many of the first `count` patches of a run are sure to hold foreground."""
        return math.floor(int(count) * self.foreground + 1e-6)

    def draw(self, rng: np.random.Generator, index: int, *, sure: bool) -> dict[str, np.ndarray]:
        """One patch of a case.

        Args:
          rng: from which it is drawn.
          index: of the case in the source.
          sure: whether it is to hold foreground, if the case has any.
        """
        case = self.source[index]
        last = np.subtract(case["labels"].shape, self.sides)
        places = self._foreground(index, case["labels"]) if sure else []
        if places:
            of_class = places[rng.integers(len(places))]
            start = np.clip(of_class[rng.integers(len(of_class))] - np.array(self.sides) // 2, 0, last)
        else:
            start = rng.integers(0, last + 1)
        where = tuple(slice(first, first + side) for first, side in zip(start.tolist(), self.sides, strict=True))
        return {name: np.asarray(case[name][where]) for name in ("image", "labels", "valid") if name in case}

    def _foreground(self, index: int, labels: np.ndarray) -> list[np.ndarray]:
        """Some pixels `[M,rank]` of every class that a case has but the background, the same ones in every process."""
        if index not in self._places:
            self._places[index] = [_some(labels == k, index) for k in np.unique(labels).tolist() if k]
        return self._places[index]


def _some(mask: np.ndarray, seed: int) -> np.ndarray:
    flat = np.flatnonzero(mask)
    if len(flat) > _PLACES:
        flat = np.random.default_rng(seed).choice(flat, _PLACES, replace=False)
    return np.stack(np.unravel_index(flat, mask.shape), -1)
