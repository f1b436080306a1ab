"""How good many scores are, also for resampled patients: the statistics of `ranking`, all rows of a matrix at once.

`ranking` computes them one by one, which is slow for hundreds of scores, each with a thousand resamples. A row is one
score of one network or ensemble, its run; a column is a case. NaN leaves a case out of its row alone.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxseg.metrics import arrays, draws, intervals, ranking
from jaxseg.metrics.intervals import Estimate

Numbers = Callable[["Observations"], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Observations:
    """Scores and risks of cases, a row for every score of every run.

    Attributes:
      scores: `[P,N]`, NaN where undefined; higher means worse.
      risks: `[P,N]` of the run whose score it is; NaN where undefined.
      owner: which score a row is, `[P]`: its index in `names`.
      names: of the scores, S of them.
      domains: of the cases, `[N]`.
      patients: of the cases, `[N]`; cases of one are drawn together, whatever their domain.
    """

    scores: np.ndarray
    risks: np.ndarray
    owner: np.ndarray
    names: tuple[str, ...]
    domains: np.ndarray
    patients: np.ndarray

    def take(self, cases: np.ndarray) -> "Observations":
        """Some of the cases: a mask `[N]`, or their indices, with repetitions."""
        return dataclasses.replace(
            self,
            scores=self.scores[:, cases],
            risks=self.risks[:, cases],
            domains=self.domains[cases],
            patients=self.patients[cases],
        )

    def by_subject(self) -> "Observations":
        """The means over the defined cases of each patient in each domain."""
        pairs = np.stack([self.domains, self.patients], 1)
        subjects, first, group = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        group = group.ravel()

        def means(rows: np.ndarray) -> np.ndarray:
            defined = ~np.isnan(rows)
            sums = lambda weights: np.stack([np.bincount(group, row, len(subjects)) for row in weights])
            return _quotient(sums(np.where(defined, rows, 0.0)), sums(defined))

        return dataclasses.replace(self.take(first), scores=means(self.scores), risks=means(self.risks))

    def of_score(self, score: str) -> np.ndarray:
        """Which rows are those of a score, bool `[P]`."""
        return self.owner == self.names.index(score)

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

    def resampled(self, numbers: Numbers, *, resamples: int, needs_risk: bool = True, seed: int = 0) -> "Resampled":
        """Statistics of all cases, and of resampled patients.

        Args:
          numbers: observations -> `[Q,P]`, Q statistics of every row.
          resamples: R.
          needs_risk: whether a case counts only where its risk is defined too, not only its score.
          seed: of the resampling; the draws are those of `intervals.bootstrap_mean` with the same seed.
        """
        of_runs = numbers(self)
        drawn = draws.of_cases(self.patients, resamples, seed)
        resampled = np.stack([self.mean_over_runs(numbers(self.take(cases))) for cases in drawn])
        defined = ~np.isnan(self.scores) & ~(needs_risk & np.isnan(self.risks))
        return Resampled(self, of_runs, self.mean_over_runs(of_runs), resampled, defined)


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """Statistics of all cases, and of every resample of patients.

    Attributes:
      of: the observations.
      runs: `[Q,P]` of all cases, run by run.
      point: `[Q,S]`, their means over runs.
      resampled: `[R,Q,S]`, the same of every resample.
      defined: `[P,N]`, which cases count for a run.
    """

    of: Observations
    runs: np.ndarray
    point: np.ndarray
    resampled: np.ndarray
    defined: np.ndarray

    def estimate(self, number: int, score: str, where: np.ndarray, *, minus: str | None = None) -> Estimate:
        """One statistic of a score, with its interval.

        Args:
          number: which, of Q.
          score: whose.
          where: bool `[N]`, the cases of the statistic; those with a defined score are counted.
          minus: another score, whose statistic on the same resamples is subtracted.
        """
        place = self.of.names.index(score)
        point, resampled = self.point[number, place], self.resampled[:, number, place]
        if minus is not None:
            other = self.of.names.index(minus)
            point, resampled = point - self.point[number, other], resampled - self.resampled[:, number, other]
        defined = where & self.defined[self.of.owner == place].any(0)
        return Estimate(
            float(point),
            *intervals.interval(resampled, 0.95),
            n=int(defined.sum()),
            undefined=int((where & ~defined).sum()),
            patients=len(np.unique(self.of.patients[defined])),
        )


@arrays.native("scores", "risks")
def spearman_rows(scores: np.ndarray, risks: np.ndarray) -> np.ndarray:
    """`ranking.spearman` of every row.

    Args:
      scores: `[P,N]`.
      risks: `[P,N]` of the same cases.

    Returns:
      `[P]`.

    Raises:
      ValueError: not two matrices of one shape.
    """
    scores, risks = _matrices(scores=scores, risks=risks)
    kept = ~(np.isnan(scores) | np.isnan(risks))
    middle = (kept.sum(1, keepdims=True) + 1) / 2
    # cases left out are NaN and rank last, so that the ranks of the others are 1 to n
    a, b = (np.where(kept, ranking.ranks(np.where(kept, values, np.nan)) - middle, 0.0) for values in (scores, risks))
    return _quotient((a * b).sum(1), np.sqrt((a**2).sum(1) * (b**2).sum(1)))


@arrays.native("in_domain_scores", "out_scores")
def auroc_rows(in_domain_scores: np.ndarray, out_scores: np.ndarray) -> np.ndarray:
    """`ranking.auroc` of every row.

    Args:
      in_domain_scores: `[P,N]`, the negatives.
      out_scores: `[P,M]`, the positives.

    Returns:
      `[P]`.

    Raises:
      ValueError: not two matrices with the same number of rows.
    """
    inside, outside = _matrices(in_domain_scores=in_domain_scores, out_scores=out_scores, of_one_shape=False)
    ranked = ranking.ranks(np.concatenate([inside, outside], 1))[:, inside.shape[1] :]
    a, b = (~np.isnan(inside)).sum(1), (~np.isnan(outside)).sum(1)
    wins = np.where(np.isnan(outside), 0.0, ranked).sum(1) - b * (b + 1) / 2  # Mann & Whitney's U
    return _quotient(wins, a * b)


@arrays.native("in_domain_scores", "out_scores")
def fpr_at_95_rows(in_domain_scores: np.ndarray, out_scores: np.ndarray) -> np.ndarray:
    """`ranking.fpr_at_95` of every row.

    Args:
      in_domain_scores: `[P,N]`, the negatives.
      out_scores: `[P,M]`, the positives.

    Returns:
      `[P]`.

    Raises:
      ValueError: not two matrices with the same number of rows.
    """
    inside, outside = _matrices(in_domain_scores=in_domain_scores, out_scores=out_scores, of_one_shape=False)
    count = (~np.isnan(outside)).sum(1)
    if not count.any():
        return np.full(len(outside), np.nan)
    descending = -np.sort(-outside, axis=1)  # NaN last
    wanted = np.ceil(0.95 * count - 1e-9).astype(int)
    threshold = np.take_along_axis(descending, np.maximum(wanted - 1, 0)[:, None], 1)
    return np.where(count > 0, _quotient((inside >= threshold).sum(1), (~np.isnan(inside)).sum(1)), np.nan)


@arrays.native("scores", "risks")
def risk_areas(scores: np.ndarray, risks: np.ndarray) -> np.ndarray:
    """Area under the risk-coverage curve of every row, and its excess (`ranking.risk_coverage`).

    Args:
      scores: `[P,N]`.
      risks: `[P,N]` of the same cases, finite or NaN.

    Returns:
      `[2,P]`.

    Raises:
      ValueError: not two matrices of one shape, or an infinite risk.
    """
    scores, risks = _matrices(scores=scores, risks=risks)
    curves = [ranking.risk_coverage(*pair) for pair in zip(scores, risks, strict=True)]
    return np.array([[curve.aurc for curve in curves], [curve.excess_aurc for curve in curves]])


def _matrices(*, of_one_shape: bool = True, **given: np.ndarray) -> list[np.ndarray]:
    """The matrices in float64."""
    matrices = [np.asarray(matrix, np.float64) for matrix in given.values()]
    shapes = [matrix.shape if of_one_shape else matrix.shape[:1] for matrix in matrices]
    if any(matrix.ndim != 2 for matrix in matrices) or len(set(shapes)) > 1:
        words = " and ".join(f"{name} {matrix.shape}" for name, matrix in zip(given, matrices, strict=True))
        wanted = "one shape" if of_one_shape else "as many rows"
        raise ValueError(f"{words} must be matrices of {wanted}; give a row per score, and a column per case")
    return matrices


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0)
