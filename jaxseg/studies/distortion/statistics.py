"""What scores are worth, over resampled patients, all scores of all networks at once (Lennartz and Schultz 2023).

`metrics.ranking` has the same numbers one by one; a study asks for hundreds of them, each a thousand times.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxseg.metrics import draws, ranking
from jaxseg.metrics.intervals import Estimate

MEAN = "mean of shifted domains"
TOGETHER = "shifted domains together"


@dataclasses.dataclass(frozen=True, eq=False)
class Observations:
    """Scores and risks, a row for every score of every network or ensemble.

    Attributes:
      scores: `[P,N]`, finite, or NaN where undefined; higher means worse.
      risks: `[P,N]` 1 - Dice of the network or ensemble whose score it is; NaN where undefined.
      owner: which score a row is, `[P]`: its place in `names`.
      names: of the scores, S of them.
      domains, roles, patients: of the cases, `[N]`; a role is validation, test or shifted.
    """

    scores: np.ndarray
    risks: np.ndarray
    owner: np.ndarray
    names: tuple[str, ...]
    domains: np.ndarray
    roles: np.ndarray
    patients: np.ndarray

    def by_subject(self) -> "Observations":
        """The means over the slices of each patient in each domain, of what is defined."""
        pairs = np.stack([self.domains, self.patients], 1)
        subjects, first, group = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        group = group.ravel()

        def means(rows: np.ndarray) -> np.ndarray:
            defined = ~np.isnan(rows)
            sums = lambda weights: np.stack([np.bincount(group, row, len(subjects)) for row in weights])
            return _quotient(sums(np.where(defined, rows, 0.0)), sums(defined))

        return dataclasses.replace(
            self,
            scores=means(self.scores),
            risks=means(self.risks),
            domains=self.domains[first],
            roles=self.roles[first],
            patients=self.patients[first],
        )

    def mean_over_runs(self, values: np.ndarray) -> np.ndarray:
        """`[...,P]` -> `[...,S]`, the mean of the defined runs of each score."""
        member = (self.owner[:, None] == np.arange(len(self.names))).astype(float)
        defined = ~np.isnan(values)
        return _quotient(np.where(defined, values, 0.0) @ member, defined @ member)

    def deviation_over_runs(self, values: np.ndarray) -> np.ndarray:
        """`[...,P]` -> `[...,S]`, standard deviation over the defined runs (divided by one less); NaN of one run."""
        centred = values - self.mean_over_runs(values)[..., self.owner]
        member = (self.owner[:, None] == np.arange(len(self.names))).astype(float)
        defined = ~np.isnan(values)
        squares = np.where(defined, centred, 0.0) ** 2 @ member
        return np.sqrt(_quotient(squares, np.maximum(defined @ member - 1, 0)))


class Drawn(NamedTuple):
    """A set of numbers of all cases, and of every resample of patients.

    Attributes:
      runs: `[Q,P]` of all cases, run by run.
      point: `[Q,S]`, their means over runs.
      resampled: `[R,Q,S]`, the same of every resample.
      defined: `[P,N]`, which cases stand behind a run's numbers.
    """

    runs: np.ndarray
    point: np.ndarray
    resampled: np.ndarray
    defined: np.ndarray

    def estimate(self, quantity: int, score: int, of: Observations, where: np.ndarray) -> Estimate:
        """One of them; `where` says which cases stand behind it."""
        low, high = interval(self.resampled[:, quantity, score])
        return Estimate(float(self.point[quantity, score]), low, high, *self._count(of, score, where))

    def difference(self, quantity: int, score: int, other: int, of: Observations, where: np.ndarray) -> Estimate:
        """A score's number less that of another, of the same resamples."""
        drawn = self.resampled[:, quantity, score] - self.resampled[:, quantity, other]
        point = self.point[quantity, score] - self.point[quantity, other]
        return Estimate(float(point), *interval(drawn), *self._count(of, score, where))

    def _count(self, of: Observations, score: int, where: np.ndarray) -> tuple[int, int, int]:
        """Of the cases `where`: how many are defined in some run, how many in none, and the patients of the former."""
        defined = where & self.defined[of.owner == score].any(0)
        return int(defined.sum()), int((where & ~defined).sum()), len(np.unique(of.patients[defined]))


def draw(
    numbers: Callable[[np.ndarray], np.ndarray],
    of: Observations,
    *,
    resamples: int,
    defined: np.ndarray | None = None,
    seed: int = 0,
) -> Drawn:
    """`numbers` of all cases and of resampled patients.

    Args:
      numbers: case numbers, with repetitions -> `[Q,P]`.
      of: whose patients are drawn.
      resamples: R.
      defined: `[P,N]`, which cases a run's numbers are of; None: those that have a score and a risk.
      seed: of the resampling; the draws are those of `intervals.bootstrap_mean` with the same seed.
    """
    runs = numbers(np.arange(len(of.patients)))
    resampled = [of.mean_over_runs(numbers(drawn)) for drawn in draws.of_cases(of.patients, resamples, seed)]
    both = ~(np.isnan(of.scores) | np.isnan(of.risks))
    return Drawn(runs, of.mean_over_runs(runs), np.stack(resampled), both if defined is None else defined)


def correlations(of: Observations, domains: Sequence[str], counted: Sequence[str], drawn: np.ndarray) -> np.ndarray:
    """Spearman's correlation of score and risk within every domain; their mean over some domains; over all these cases.

    Args:
      of: scores and risks.
      domains: D names.
      counted: those that count for the two last rows.
      drawn: case numbers.

    Returns:
      `[D+2,P]`: a row per domain, then `MEAN`, then `TOGETHER`.
    """
    names = of.domains[drawn]
    chosen = [drawn[names == domain] for domain in domains] + [drawn[np.isin(names, counted)]]
    *within, together = (spearman_rows(of.scores[:, where], of.risks[:, where]) for where in chosen)
    return np.stack([*within, _mean_of(within, domains, counted), together])


def risk_areas(of: Observations, counted: Sequence[str], drawn: np.ndarray) -> np.ndarray:
    """Area under the risk-coverage curve, and its excess, of the cases of some domains together, `[2,P]`."""
    where = drawn[np.isin(of.domains[drawn], counted)]
    curves = [ranking.risk_coverage(*pair) for pair in zip(of.scores[:, where], of.risks[:, where], strict=True)]
    return np.array([[curve.aurc for curve in curves], [curve.excess_aurc for curve in curves]])


def thresholds(of: Observations, keep: float) -> np.ndarray:
    """Per row the score at or below which that share of in-domain validation lies, `[P]`; NaN where none is defined."""
    inside, none = of.scores[:, of.roles == "validation"], np.zeros(0)
    return np.array(
        [
            np.nan if np.isnan(row).all() else ranking.ood_accuracy(row, none, none, keep=keep).threshold
            for row in inside
        ]
    )


def detection(
    of: Observations, domains: Sequence[str], counted: Sequence[str], threshold: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """How well each score finds the cases of a domain among in-domain ones.

    In-domain are the test cases, or those of validation where there are no test cases.

    Args:
      of: scores.
      domains: D names.
      counted: those that count for the mean.
      threshold: `[P]`, from `thresholds`; the resamples leave it as it is.
      drawn: case numbers.

    Returns:
      `[3(D+1),P]`: share above the threshold for every domain and then `MEAN`, area under the ROC curve likewise, and
      the false positive rate at 95 % likewise; of a domain that is in-domain itself, the first alone.
    """
    role = "test" if (of.roles == "test").any() else "validation"
    inside = of.scores[:, drawn[of.roles[drawn] == role]]
    rows: list[list[np.ndarray]] = [[], [], []]
    for domain in domains:
        where = drawn[of.domains[drawn] == domain]
        outside = of.scores[:, where]
        defined = ~np.isnan(outside)
        above = _quotient((defined & (outside > threshold[:, None])).sum(1), defined.sum(1))
        rows[0].append(np.where(np.isnan(threshold), np.nan, above))
        for found, measure in ((rows[1], auroc_rows), (rows[2], false_positive_rows)):
            found.append(measure(inside, outside) if domain in counted else np.full(len(threshold), np.nan))
    return np.concatenate([[*found, _mean_of(found, domains, counted)] for found in rows])


def spearman_rows(scores: np.ndarray, risks: np.ndarray) -> np.ndarray:
    """`ranking.spearman` of every row of `[P,N]`, where NaN in either leaves a case out of its row alone."""
    kept = ~(np.isnan(scores) | np.isnan(risks))
    centred = []
    for values in (scores, risks):
        # what is left out ranks last, so that the ranks of the others are 1 to n
        ranks = stats.rankdata(np.where(kept, values, np.inf), axis=1) if values.size else values
        centred.append(np.where(kept, ranks - (kept.sum(1, keepdims=True) + 1) / 2, 0.0))
    a, b = centred
    return _quotient((a * b).sum(1), np.sqrt((a**2).sum(1) * (b**2).sum(1)))


def auroc_rows(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """`ranking.auroc` of every row of `[P,N]` and `[P,M]`, NaN left out."""
    values = np.concatenate([inside, outside], 1)
    ranks = stats.rankdata(np.where(np.isnan(values), np.inf, values), axis=1) if values.size else values
    a, b = (~np.isnan(inside)).sum(1), (~np.isnan(outside)).sum(1)
    own = np.where(np.isnan(outside), 0.0, ranks[:, inside.shape[1] :]).sum(1)
    return _quotient(own - b * (b + 1) / 2, a * b)


def false_positive_rows(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """`ranking.fpr_at_95` of every row of `[P,N]` and `[P,M]`, NaN left out."""
    found = (~np.isnan(outside)).sum(1)
    if not outside.shape[1] or not found.all():
        return np.array([ranking.fpr_at_95(a, b) for a, b in zip(inside, outside, strict=True)])
    order = np.sort(np.where(np.isnan(outside), -np.inf, outside), axis=1)
    place = outside.shape[1] - np.ceil(0.95 * found - 1e-9).astype(int)
    threshold = np.take_along_axis(order, place[:, None], 1)
    return _quotient((inside >= threshold).sum(1), (~np.isnan(inside)).sum(1))


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of the defined numbers."""
    finite = drawn[~np.isnan(drawn)]
    low, high = np.percentile(finite, [2.5, 97.5]) if finite.size else (np.nan, np.nan)
    return float(low), float(high)


def _mean_of(rows: Sequence[np.ndarray], domains: Sequence[str], counted: Sequence[str]) -> np.ndarray:
    chosen = np.stack(rows)[np.isin(domains, counted)]
    return _quotient(np.nansum(chosen, 0), (~np.isnan(chosen)).sum(0))


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0)
