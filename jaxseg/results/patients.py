"""Cases by patient: the one place from which estimates over cases take their intervals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.metrics import intervals, ranking
from jaxseg.metrics.intervals import Estimate
from jaxseg.results.table import OVER_PATIENTS, PAIRED, Row

Terms = Sequence[tuple[float, np.ndarray]]  # a weight, and values `[N]` whose mean is taken


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

    def contrast(self, terms: Terms, *, level: float = 0.95) -> Estimate:
        """A weighted sum of means, each over its own defined cases (`intervals.bootstrap_contrast`)."""
        return intervals.bootstrap_contrast(terms, self.names, level=level, resamples=self.resamples)

    def row(
        self,
        of: np.ndarray | Terms,
        convention: str,
        /,
        *,
        interval: str = "",
        more: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> Row:
        """A row of a table: the mean of `[N]`, or a contrast.

        Args:
          of: values or terms.
          convention: of the row.
          interval: how it was taken, where that is not plain: a contrast of several means is paired.
          more: further columns.
          **keys: of the row.
        """
        terms = [(1.0, of)] if isinstance(of, np.ndarray) else of
        how = interval or (PAIRED if len(terms) > 1 else OVER_PATIENTS)
        return Row(keys, self.contrast(terms), convention, how, more or {})

    def statistic(self, statistic: Callable[..., float], columns: Mapping[str, np.ndarray]) -> Estimate:
        """Any number of columns `[N]`, computed anew of every resample (`ranking.bootstrap`)."""
        return ranking.bootstrap(statistic, columns, self.names, resamples=self.resamples)

    def spearman(self, scores: Any, risks: Any) -> Estimate:
        """Rank correlation (`ranking.spearman_estimate`)."""
        return ranking.spearman_estimate(scores, risks, self.names, resamples=self.resamples)
