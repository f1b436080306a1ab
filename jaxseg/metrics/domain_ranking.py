"""What scores are worth where cases are of several domains: do they order errors within one, and detect shifted cases?

Each function gives statistics of every row of observations, for `Observations.resampled` (Lennartz and Schultz 2023).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxseg.metrics import arrays, ranking
from jaxseg.metrics.intervals import defined_mean
from jaxseg.metrics.resampled_ranking import Observations, auroc_rows, fpr_at_95_rows, risk_areas, spearman_rows

MEAN = "mean of shifted domains"
TOGETHER = "shifted domains together"


class Domains(NamedTuple):
    """The domains of the cases, by name.

    Attributes:
      names: of all, in the order of tables: validation, test, then those that are shifted.
      validation: in-distribution; sets the threshold of detection.
      inside: in-distribution, to tell shifted cases from: test, or validation where there are no test cases.
      counted: shifted, with enough patients for an interval; means are over these.
    """

    names: tuple[str, ...]
    validation: str
    inside: str
    counted: tuple[str, ...]


def correlations(of: Observations, domains: Domains) -> np.ndarray:
    """Spearman's correlation of score and risk, `[D+2,P]`: within every domain, then `MEAN`, then `TOGETHER`."""
    within = [spearman_rows(own.scores, own.risks) for own in (of.take(of.domains == name) for name in domains.names)]
    pooled = of.take(np.isin(of.domains, domains.counted))
    return np.stack([*within, _mean_of_counted(within, domains), spearman_rows(pooled.scores, pooled.risks)])


def areas(of: Observations, domains: Domains) -> np.ndarray:
    """Area under the risk-coverage curve, and its excess, of the shifted domains together, `[2,P]`."""
    pooled = of.take(np.isin(of.domains, domains.counted))
    return risk_areas(pooled.scores, pooled.risks)


def thresholds(of: Observations, domains: Domains, keep: float) -> np.ndarray:
    """Per row the score at or below which that share of validation lies, `[P]`; NaN where none is defined."""
    none = np.zeros(0)
    of_row = lambda row: ranking.ood_accuracy(row, none, none, keep=keep).threshold
    rows = of.scores[:, of.domains == domains.validation]
    return np.array([np.nan if np.isnan(row).all() else of_row(row) for row in rows])


@arrays.native("threshold")
def detection(of: Observations, domains: Domains, threshold: np.ndarray) -> np.ndarray:
    """How well each score tells the cases of a domain from in-distribution ones.

    Args:
      of: P rows.
      domains: D of them.
      threshold: `[P]` of `thresholds`, which is not resampled.

    Returns:
      `[3(D+1),P]`: share above the threshold for each of the D domains and then `MEAN`, area under the ROC curve
      likewise, and the false-positive rate at 95 % sensitivity likewise; the latter two only for counted domains.

    Raises:
      ValueError: not a threshold for every row.
    """
    if threshold.shape != of.scores.shape[:1]:
        raise ValueError(f"threshold {threshold.shape} and scores {of.scores.shape}: give one for every row of scores")
    scores_of = lambda name: of.scores[:, of.domains == name]
    inside, nothing = scores_of(domains.inside), np.full(len(threshold), np.nan)
    shares = [_share_above(scores_of(name), threshold) for name in domains.names]
    aurocs, rates = (
        [measure(inside, scores_of(name)) if name in domains.counted else nothing for name in domains.names]
        for measure in (auroc_rows, fpr_at_95_rows)
    )
    return np.stack([row for rows in (shares, aurocs, rates) for row in (*rows, _mean_of_counted(rows, domains))])


def _share_above(scores: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    above = np.where(np.isnan(scores) | np.isnan(threshold)[:, None], np.nan, scores > threshold[:, None])
    return defined_mean(above, axis=1)


def _mean_of_counted(rows: Sequence[np.ndarray], domains: Domains) -> np.ndarray:
    return defined_mean(np.stack(rows)[np.isin(domains.names, domains.counted)], axis=0)
