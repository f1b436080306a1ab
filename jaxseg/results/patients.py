"""Cases by patient: the one place from which estimates over cases take their intervals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.metrics import intervals, ranking
from jaxseg.metrics.intervals import Estimate


@dataclasses.dataclass(frozen=True, eq=False)
class Patients:
    """Whose cases they are, and how often patients are drawn.

    Attributes:
      names: patient of every case, `[N]`.
      resamples: of the bootstrap.
    """

    names: np.ndarray
    resamples: int

    def of(self, where: np.ndarray) -> "Patients":
        """The patients of some cases: a mask, or case numbers."""
        return Patients(self.names[where], self.resamples)

    def mean(self, values: np.ndarray) -> Estimate:
        """Mean over the defined of `[N]`."""
        return intervals.bootstrap_mean(values, self.names, resamples=self.resamples)

    def difference(self, first: np.ndarray, second: np.ndarray) -> Estimate:
        """Mean of first minus second over the cases that have both."""
        return self.mean(np.asarray(first, float) - second)

    def contrast(self, terms: Sequence[tuple[float, np.ndarray]], *, level: float = 0.95) -> Estimate:
        """A weighted sum of means, each over its own defined cases (`intervals.bootstrap_contrast`)."""
        return intervals.bootstrap_contrast(terms, self.names, level=level, resamples=self.resamples)

    def statistic(self, statistic: Callable[..., float], columns: Mapping[str, np.ndarray]) -> Estimate:
        """Any number of columns `[N]`, computed anew of every resample (`ranking.bootstrap`)."""
        return ranking.bootstrap(statistic, columns, self.names, resamples=self.resamples)

    def spearman(self, scores: Any, risks: Any) -> Estimate:
        """Rank correlation (`ranking.spearman_estimate`)."""
        return ranking.spearman_estimate(scores, risks, self.names, resamples=self.resamples)
