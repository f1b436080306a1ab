"""Means with bootstrap intervals over patients (Efron 1979), exact intervals of rates; host side, numpy."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from jaxseg.metrics import arrays, draws


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, its interval, and the cases it is based on.

    Attributes:
      mean: mean over the defined values; infinite where one of them is.
      low, high: bootstrap percentile interval, over patients.
      n: defined values.
      undefined: NaN values, left out.
      patients: groups with at least one defined value.
    """

    mean: float
    low: float
    high: float
    n: int
    undefined: int
    patients: int


def bootstrap_mean(values: np.ndarray, patients: np.ndarray, **options: Any) -> Estimate:
    """Mean of the defined values with a percentile interval from resampled patients.

    Args:
      values: `[N]` one value per case, NaN where undefined.
      patients: `[N]` whose case it is; cases of one patient are drawn together.
      **options: as for `bootstrap_contrast`.

    Raises:
      ValueError: as `bootstrap_contrast`.
      TypeError: as `bootstrap_contrast`.
    """
    return bootstrap_contrast([(1.0, values)], patients, **options)


def bootstrap_contrast(
    terms: Sequence[tuple[float, np.ndarray]],
    patients: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> Estimate:
    """A weighted sum of means over the same cases, with the same patients drawn for all of them (paired).

    Each mean is over that term's own defined values, so a difference (weights 1 and -1) is that of the two means as
    `bootstrap_mean` reports them. `n` counts the cases that are defined in at least one term.

    Infinite values, such as distances from a class that is missing, count as they are: a resample with one has an
    infinite mean, and the interval ends at infinity where enough of them have. A difference of two infinite means is
    NaN, and so is its interval.

    Args:
      terms: pairs of a weight and values `[N]`, NaN where undefined.
      patients: `[N]` whose case it is; cases of one patient are drawn together.
      level: coverage of the interval.
      resamples: bootstrap resamples.
      seed: of the resampling.

    Raises:
      ValueError: lengths differ, nothing is given, a level outside (0, 1), no resample, or a case without a patient.
      TypeError: values that are not numbers, or patients of several kinds.
    """
    check_options(level, resamples)
    patients = patient_names(patients)
    vectors = [np.asarray(arrays.converted("values", values), float) for _, values in terms]
    if not patients.size or any(values.shape != patients.shape or values.ndim != 1 for values in vectors):
        shapes = ", ".join(str(values.shape) for values in vectors)
        raise ValueError(f"values {shapes} and patients {patients.shape} must be equal, non-empty vectors")
    names, group = np.unique(patients, return_inverse=True)
    drawn = draws.of_patients(len(names), resamples, seed)
    weights = np.array([weight for weight, _ in terms])
    with np.errstate(invalid="ignore"):  # a difference of infinite means
        mean = float(weights @ [_mean(values) for values in vectors])
        resampled = weights @ np.stack([_means(values, group, drawn) for values in vectors])
    low, high = (np.nan, np.nan) if np.isnan(mean) else interval(resampled, level)
    defined = ~np.all([np.isnan(values) for values in vectors], axis=0)
    return Estimate(
        mean=mean,
        low=low,
        high=high,
        n=int(defined.sum()),
        undefined=int((~defined).sum()),
        patients=len(np.unique(patients[defined])),
    )


def exact_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """The interval of a rate (Clopper and Pearson 1934), which covers the true rate at least as often as `level`.

    Args:
      successes: from 0 to all trials.
      trials: at least one.
      level: coverage of the interval.

    Raises:
      ValueError: no trial, more successes than trials or fewer than none, or a level outside (0, 1).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes is {successes} of {trials} trials; give at least one trial, and 0 to all of them")
    check_options(level, 1)
    tail = (1 - level) / 2
    low = special.betaincinv(successes, trials - successes + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, trials - successes, 1 - tail) if successes < trials else 1.0
    return float(low), float(high)


@arrays.native("values")
def defined_mean(values: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """Mean along an axis, ignoring NaN; NaN where nothing is left.

    Args:
      values: numbers, with at least one axis; they are summed in their own type.
      axis: over which the mean is taken.

    Returns:
      float64.

    Raises:
      ValueError: there is no such axis.
    """
    values = np.asarray(values)
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"values {values.shape} have no axis {axis}, over which the mean would be taken")
    defined = ~np.isnan(values)
    total, count = np.where(defined, values, 0.0).sum(axis), defined.sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def check_options(level: float, resamples: int) -> None:
    """Raises a ValueError unless these define an interval."""
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}; 95 % is 0.95, and one resample the least")


def patient_names(patients: Any) -> np.ndarray:
    """Whose case each is, as an array `[N]` of distinguishable names or numbers.

    Raises:
      ValueError: there is not one axis; a case has no patient: a masked, NaN or None value, which would all be one.
      TypeError: names of several kinds, which have no order.
    """
    missing = np.ma.getmaskarray(patients) if isinstance(patients, np.ma.MaskedArray) else np.zeros(1, bool)
    names = np.asarray(patients)
    if names.ndim != 1:
        raise ValueError(f"patients must be [N], one for each case, got {names.shape}")
    names = names.astype(names.dtype.newbyteorder("="), copy=False)
    if names.dtype.kind == "O":
        missing = missing | np.array([name is None or not _equal(name) for name in names.flat], bool)
    elif names.dtype.kind in "fcmM":
        missing = missing | (names != names)
    if missing.any():
        raise ValueError(
            f"patients {names.shape} has {np.count_nonzero(missing)} masked, NaN or None values, which do not tell "
            "whose case it is; give each such case a patient of its own, or leave it out"
        )
    kinds = {type(name) for name in names.flat} if names.dtype.kind == "O" else set()
    if len(kinds) > 1:
        several = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"patients are of several types, {several}; give all as text or all as numbers")
    return names


@arrays.native("drawn")
def interval(drawn: np.ndarray, level: float) -> tuple[float, float]:
    """The percentile interval of the statistics `[R]` of resamples, ignoring NaN; NaN if all are."""
    if drawn.ndim != 1:
        raise ValueError(f"drawn must be [R], one statistic for each resample, got {drawn.shape}")
    defined = drawn[~np.isnan(drawn)]
    if not defined.size:
        return np.nan, np.nan
    tails = [50 * (1 - level), 100 - 50 * (1 - level)]
    if np.isfinite(defined).all():
        low, high = np.percentile(defined, tails)
        return float(low), float(high)
    below, above = (np.percentile(defined, tails, method=method) for method in ("lower", "higher"))
    return float(below[0]), float(above[1])  # no interpolation between a finite number and infinity


def _equal(name: Any) -> bool:
    """Whether it equals itself, as NaN, NaT and pandas' NA do not."""
    try:
        return bool(name == name)
    except TypeError:
        return False


def _means(values: np.ndarray, group: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The mean of the defined values in every resample; NaN where none was drawn."""
    defined = ~np.isnan(values)
    drawn_of = lambda column: draws.totals(drawn, np.bincount(group, column, drawn.shape[1]))
    totals, sums = drawn_of(defined), drawn_of(np.where(np.isfinite(values), values, 0.0))
    if np.isinf(values).any():  # a group that was not drawn would add 0 times infinity
        for infinite in (np.inf, -np.inf):
            sums = sums + np.where(drawn_of(values == infinite) > 0, infinite, 0.0)
    return np.divide(sums, totals, out=np.full(len(drawn), np.nan), where=totals > 0)


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
