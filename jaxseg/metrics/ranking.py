"""Does a score predict where a segmentation fails? Rank correlation, risk and coverage, out-of-domain detection.

A score is an uncertainty: the higher, the worse a case is expected to be (segmentation distortion, entropy, a
Mahalanobis distance). A score of confidence, such as the mean SA score of He et al. 2022, is passed with its sign
changed. A risk measures what goes wrong: 1 - Dice, or a distance in mm. Only the order of the scores matters, so they
may be infinite. NaN means undefined: the case is left out, and counted where an object is returned.

Host side, numpy in float64. `bootstrap` gives any of these statistics its interval over patients.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.metrics import arrays, draws
from jaxseg.metrics.intervals import Estimate, check_options, interval, patient_names


def spearman(score: np.ndarray, risk: np.ndarray) -> float:
    """Spearman's rank correlation (1904), in [-1, 1]; ties have their mean rank.

    Lennartz & Schultz 2023, Fig. 3, correlate scores with 1 - Dice, so that a useful score is positive.

    Args:
      score: `[N]`.
      risk: `[N]` of the same cases. A case with NaN in either is left out; `spearman_estimate` says how many.

    Returns:
      The correlation; NaN for fewer than two cases, or when all scores or all risks are equal.

    Raises:
      ValueError: not two vectors of one length.
    """
    (score, risk), _ = _defined(score=score, risk=risk)
    centred = ranks(np.stack([score, risk])) - (len(score) + 1) / 2  # the mean of ranks 1 ... n, ties or not
    variances = np.sum(centred**2, axis=1)
    if not variances.all():
        return float("nan")
    return float(np.clip(centred[0] @ centred[1] / np.sqrt(variances.prod()), -1, 1))


def spearman_estimate(score: np.ndarray, risk: np.ndarray, patients: np.ndarray, **options: Any) -> Estimate:
    """`spearman` with its interval over patients.

    Args:
      score: `[N]`.
      risk: `[N]` of the same cases.
      patients: `[N]` whose case it is.
      **options: as for `bootstrap`.
    """
    return bootstrap(spearman, {"score": score, "risk": risk}, patients, **options)


def bootstrap(
    statistic: Callable[..., float],
    columns: Mapping[str, np.ndarray],
    patients: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> Estimate:
    """Any statistic of a set of cases, with a percentile interval from resampled patients (Efron 1979).

    The draws are those of `intervals.bootstrap_mean` with the same seed. Examples: of an area under the
    risk-coverage curve, and of an AUROC with an array that says which cases are out of domain:

        bootstrap(lambda score, risk: risk_coverage(score, risk).aurc, {"score": score, "risk": risk}, patients)
        bootstrap(lambda score, out: auroc(score[out == 0], score[out == 1]), {"score": score, "out": out}, patients)

    Args:
      statistic: of the columns, in their order; NaN where it is not defined.
      columns: `[N]` arrays of the same cases, by name.
      patients: `[N]` whose case it is; cases of one patient are drawn together.
      level: coverage of the interval.
      resamples: bootstrap resamples; those whose statistic is NaN are left out of the interval.
      seed: of the resampling.

    Returns:
      The statistic as `mean`. `undefined` counts the cases with a NaN in any column, which are left out.

    Raises:
      ValueError: not vectors of one length, no case at all, a case without a patient, a level outside (0, 1), or no
        resample.
    """
    check_options(level, resamples)
    drawn = _resample(statistic, columns, patients, resamples, seed)
    defined, kept = _defined(**columns)
    low, high = interval(drawn, level)
    return Estimate(
        mean=float(statistic(*defined)),
        low=low,
        high=high,
        n=int(kept.sum()),
        undefined=int((~kept).sum()),
        patients=len(np.unique(patient_names(patients)[kept])),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Mean risk of the cases that are left when the most uncertain ones are rejected.

    Attributes:
      aurc: area under the curve, by trapezoids from coverage 1/n to 1; a constant risk r gives r (1 - 1/n).
      excess_aurc: `aurc` minus the mean over all coverages of the curve of a perfect score, which is the risk itself.
        It follows the code behind the reference numbers, which integrates the two areas in these two ways; a perfect
        score therefore has -(r[0] + r[-1]) / 2n and not 0. The difference of equal areas is
        `aurc - risk_coverage(risk, risk).aurc`.
      coverage: `[n]` ascending, 1/n to 1.
      risk: `[n]` mean risk of the cases kept at each coverage.
      n: cases.
      undefined: cases with a NaN, left out.
    """

    aurc: float
    excess_aurc: float
    coverage: np.ndarray
    risk: np.ndarray
    n: int
    undefined: int


def risk_coverage(score: np.ndarray, risk: np.ndarray) -> RiskCoverage:
    """The risk-coverage curve, its area and excess area (El-Yaniv & Wiener 2010; Geifman et al. 2019).

    Cases with equal scores are kept in no order: the curve is the mean over all orders, so it does not depend on how
    the cases are listed. A constant score gives the mean risk at every coverage.

    Args:
      score: `[N]`, lowest kept first.
      risk: `[N]` of the same cases, finite or NaN.

    Returns:
      Curve and areas; the areas are NaN for fewer than two cases.

    Raises:
      ValueError: not two vectors of one length, or an infinite risk.
    """
    (score, risk), defined = _defined(score=score, risk=risk)
    _check_finite("risk", risk)
    n = len(risk)
    curve = _means_of_kept(score, risk)
    coverage = np.arange(1, n + 1) / n if n else np.zeros(0)
    aurc = excess = float("nan")
    if n > 1:
        aurc = float(np.trapezoid(curve, coverage))
        excess = aurc - float(np.mean(_means_of_kept(risk, risk)))
    return RiskCoverage(aurc, excess, coverage, curve, n, int((~defined).sum()))


@dataclasses.dataclass(frozen=True)
class CoverageRow:
    """Quality of the cases that are kept at one coverage.

    Attributes:
      coverage: requested share of the cases; at least that many are kept.
      estimate: mean over the kept cases with its interval over patients; `n` and `patients` count what is kept (of tied
        scores, `patients` counts all), `undefined` the cases left out before anything was kept.
      std: standard deviation over the kept cases (divided by n), which the paper prints after +-.
    """

    coverage: float
    estimate: Estimate
    std: float


def coverage_table(
    score: np.ndarray,
    values: np.ndarray,
    patients: np.ndarray,
    *,
    coverages: Sequence[float] = (1.0, 0.9, 0.7, 0.5),
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> tuple[CoverageRow, ...]:
    """Mean quality of the cases that are left when the most uncertain ones are rejected (He et al. 2022, Table 2).

    The default coverages are those of the table's columns; its caption has 75 % where the column says 70 %. The
    interval repeats the whole procedure: every resample ranks its own cases. Cases with equal scores are kept in no
    order, as in `risk_coverage`.

    Args:
      score: `[N]`, lowest kept first; for the mean SA score mu of the paper, give -mu.
      values: `[N]` quality or risk of the same cases, such as Dice; finite or NaN.
      patients: `[N]` whose case it is; cases of one patient are drawn together.
      coverages: shares of the cases to keep, above 0 and at most 1.
      level: coverage of the interval.
      resamples: bootstrap resamples.
      seed: of the resampling.

    Raises:
      ValueError: not vectors of one length, no case at all, an infinite value, a coverage outside (0, 1], a level
        outside (0, 1), or no resample.
    """
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise ValueError(f"coverages {tuple(coverages)} must lie above 0 and be at most 1; 90 % is 0.9")

    def means(score: np.ndarray, values: np.ndarray) -> np.ndarray:
        if not len(score):
            return np.full(len(coverages), np.nan)
        last = [_at_least(coverage, len(score)) - 1 for coverage in coverages]
        return _means_of_kept(score, values)[last]

    check_options(level, resamples)
    columns = {"score": score, "values": values}
    (score, values), defined = _defined(**columns)
    _check_finite("values", values)
    drawn = _resample(means, columns, patients, resamples, seed)
    patients = patient_names(patients)[defined]
    averages = means(score, values)
    rows = []
    for i, coverage in enumerate(coverages):
        n = _at_least(coverage, len(score))
        threshold = np.sort(score)[n - 1] if n else np.nan
        variance = means(score, (values - averages[i]) ** 2)[i]
        low, high = interval(drawn[:, i], level)
        estimate = Estimate(
            mean=float(averages[i]),
            low=low,
            high=high,
            n=n,
            undefined=int((~defined).sum()),
            patients=len(np.unique(patients[score <= threshold])),
        )
        rows.append(CoverageRow(coverage, estimate, float(np.sqrt(variance))))
    return tuple(rows)


def kept_gain(score: np.ndarray, values: np.ndarray, *, coverage: float) -> float:
    """What rejecting cases gains: the mean value of those that are kept minus that of all with a score.

    Args:
      score: `[N]`, high for the cases that are rejected.
      values: `[N]` of any quality.
      coverage: share of the cases that is kept.

    Returns:
      NaN without a case.

    Raises:
      ValueError: as `risk_coverage`.
    """
    curve = risk_coverage(score, values).risk  # the mean of the k that are kept
    return float(curve[_at_least(coverage, len(curve)) - 1] - curve[-1]) if len(curve) else float("nan")


@dataclasses.dataclass(frozen=True)
class OodDetection:
    """How well a threshold on a score detects out-of-domain images.

    Attributes:
      threshold: the lowest score at or below which the wanted share of the validation cases lies.
      kept: share of the in-domain cases at or below it.
      detected: share of the out-of-domain cases above it: the accuracy on another domain of Lennartz & Schultz 2023,
        Fig. 4. Its interval is `intervals.bootstrap_mean(out_scores > threshold, patients)`.
      accuracy: share of right decisions over the cases of both; it depends on how many there are of each.
      validation, in_domain, out_of_domain: how many cases these are based on.
      undefined: NaN scores of all three, left out.
    """

    threshold: float
    kept: float
    detected: float
    accuracy: float
    validation: int
    in_domain: int
    out_of_domain: int
    undefined: int


def ood_accuracy(
    in_domain_validation_scores: np.ndarray,
    in_domain_scores: np.ndarray,
    out_scores: np.ndarray,
    *,
    keep: float = 0.95,
) -> OodDetection:
    """Out-of-domain detection at the threshold that calls 95 % of in-domain validation in-domain.

    Lennartz & Schultz 2023, section 4.3: the threshold is set once, then applied to every other domain.

    Args:
      in_domain_validation_scores: `[V]`, which set the threshold.
      in_domain_scores: `[N]` of other in-domain cases; may be empty, then `kept` is NaN.
      out_scores: `[M]` of another domain; may be empty, then `detected` is NaN.
      keep: share of the validation cases that must be called in-domain.

    Raises:
      ValueError: not vectors, no defined validation score, or `keep` outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}; it must lie above 0 and be at most 1, 95 % is 0.95")
    given = {
        "in_domain_validation_scores": in_domain_validation_scores,
        "in_domain_scores": in_domain_scores,
        "out_scores": out_scores,
    }
    validation, inside, outside = (_vector(**{name: scores}) for name, scores in given.items())
    if not len(validation):
        raise ValueError("no validation score is defined, so there is no threshold; give in-domain validation cases")
    threshold = np.sort(validation)[_at_least(keep, len(validation)) - 1]
    kept, detected = inside <= threshold, outside > threshold
    return OodDetection(
        threshold=float(threshold),
        kept=_share(kept),
        detected=_share(detected),
        accuracy=_share(np.concatenate([kept, detected])),
        validation=len(validation),
        in_domain=len(inside),
        out_of_domain=len(outside),
        undefined=sum(np.size(scores) for scores in given.values()) - len(validation) - len(inside) - len(outside),
    )


def auroc(in_domain_scores: np.ndarray, out_scores: np.ndarray) -> float:
    """Area under the ROC curve: how often an out-of-domain case scores higher than an in-domain one, ties counted half.

    Args:
      in_domain_scores: `[N]`, the negatives; NaN are left out.
      out_scores: `[M]`, the positives; NaN are left out.

    Returns:
      In [0, 1]; NaN if either is empty.

    Raises:
      ValueError: not vectors.
    """
    inside, outside = _vector(in_domain_scores=in_domain_scores), _vector(out_scores=out_scores)
    if not len(inside) or not len(outside):
        return float("nan")
    wins = (
        ranks(np.concatenate([inside, outside]))[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2
    )  # Mann & Whitney's U
    return float(wins / (len(inside) * len(outside)))


def fpr_at_95(in_domain_scores: np.ndarray, out_scores: np.ndarray) -> float:
    """Share of in-domain cases flagged at the highest threshold that flags at least 95 % of the out-of-domain ones.

    A case is flagged as out-of-domain when its score is at or above the threshold.

    Args:
      in_domain_scores: `[N]`, the negatives; NaN are left out.
      out_scores: `[M]`, the positives; NaN are left out.

    Returns:
      In [0, 1]; NaN if either is empty.

    Raises:
      ValueError: not vectors.
    """
    inside, outside = _vector(in_domain_scores=in_domain_scores), _vector(out_scores=out_scores)
    if not len(outside):
        return float("nan")
    threshold = np.sort(outside)[-_at_least(0.95, len(outside))]
    return _share(inside >= threshold)


@arrays.native("values")
def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis; ties have their mean rank, and NaN ranks last.

    As `scipy.stats.rankdata`, which takes twice as long for the few cases of a resample, and a second to import.

    Args:
      values: `[...,N]`.

    Returns:
      float64 `[...,N]`.

    Raises:
      ValueError: there is no axis.
    """
    if not np.ndim(values):
        raise ValueError("values is a single number; give [...,N], which are ranked along their last axis")
    values = np.asarray(values)
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, -1)
    place = np.arange(1, values.shape[-1] + 1)
    differs = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*values.shape[:-1], 1), bool)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, differs], -1), place, 0), axis=-1)
    last = np.where(np.concatenate([differs, edge], -1), place, len(place))
    last = np.minimum.accumulate(last[..., ::-1], axis=-1)[..., ::-1]
    ranked = np.empty(values.shape)
    np.put_along_axis(ranked, order, (first + last) / 2, -1)
    return ranked


def _defined(**columns: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The columns as float64 without the cases that have a NaN in any, and which cases are kept."""
    vectors = [np.asarray(arrays.converted(name, column), np.float64) for name, column in columns.items()]
    if any(vector.ndim != 1 or vector.shape != vectors[0].shape for vector in vectors):
        shapes = " and ".join(f"{name} {vector.shape}" for name, vector in zip(columns, vectors, strict=True))
        raise ValueError(f"{shapes} must be vectors of one length; give one number per case")
    kept = ~np.any([np.isnan(vector) for vector in vectors], axis=0)
    return [vector[kept] for vector in vectors], kept


def _vector(**scores: np.ndarray) -> np.ndarray:
    return _defined(**scores)[0][0]


def _check_finite(name: str, values: np.ndarray) -> None:
    if infinite := int(np.isinf(values).sum()):
        raise ValueError(
            f"{name} holds {infinite} infinite values, which have no mean; give them a finite value, or NaN to leave "
            "the cases out"
        )


def _means_of_kept(score: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the values of the k lowest scores, for k = 1 ... n.

    Averaged over the orders of a block of equal scores, every case of the block contributes the block's mean.
    """
    _, block, sizes = np.unique(score, return_inverse=True, return_counts=True)
    means = np.bincount(block, values) / sizes
    return np.cumsum(np.repeat(means, sizes)) / np.arange(1, len(score) + 1)


def _at_least(share: float, n: int) -> int:
    """The smallest number of n cases that is at least that share of them, also where the product is rounded up."""
    return int(np.ceil(share * n - 1e-9))


def _share(decisions: np.ndarray) -> float:
    return float(decisions.mean()) if decisions.size else float("nan")


def _resample(
    statistic: Callable[..., Any], columns: Mapping[str, np.ndarray], patients: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """The statistic, a number or a vector, of every resample of patients, stacked."""
    vectors, kept = _defined(**columns)
    patients = patient_names(patients)
    if patients.shape != kept.shape or not patients.size:
        raise ValueError(
            f"{', '.join(columns)} {kept.shape} and patients {patients.shape} must be equal, non-empty vectors"
        )
    place = np.cumsum(kept) - 1  # of a case among those that are kept
    cases = (place[drawn[kept[drawn]]] for drawn in draws.of_cases(patients, resamples, seed))
    return np.array([statistic(*(vector[drawn] for vector in vectors)) for drawn in cases], np.float64)
