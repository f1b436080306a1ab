"""Means with bootstrap intervals over patients (Efron 1979); host side, numpy."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxseg.metrics import arrays


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, its interval, and what stands behind it.

    Attributes:
      mean: mean over the defined values.
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

    Args:
      terms: pairs of a weight and values `[N]`, NaN where undefined.
      patients: `[N]` whose case it is; cases of one patient are drawn together.
      level: coverage of the interval.
      resamples: bootstrap resamples.
      seed: of the resampling.

    Raises:
      ValueError: lengths differ, nothing is given, a level outside (0, 1), or no resample.
    """
    check_options(level, resamples)
    patients = np.asarray(patients)
    vectors = [np.asarray(arrays.converted("values", values), float) for _, values in terms]
    if not patients.size or any(values.shape != patients.shape or values.ndim != 1 for values in vectors):
        shapes = ", ".join(str(values.shape) for values in vectors)
        raise ValueError(f"values {shapes} and patients {patients.shape} must be equal, non-empty vectors")
    names, group = np.unique(patients, return_inverse=True)
    draws = _draws(len(names), resamples, seed)
    weights = np.array([weight for weight, _ in terms])
    resampled = weights @ np.stack([_means(values, group, draws) for values in vectors])
    defined = ~np.all([np.isnan(values) for values in vectors], axis=0)
    finite = resampled[~np.isnan(resampled)]
    tail = 50 * (1 - level)
    low, high = np.percentile(finite, [tail, 100 - tail]) if finite.size else (np.nan, np.nan)
    return Estimate(
        mean=float(weights @ [_mean(values) for values in vectors]),
        low=float(low),
        high=float(high),
        n=int(defined.sum()),
        undefined=int((~defined).sum()),
        patients=len(np.unique(patients[defined])),
    )


def check_options(level: float, resamples: int) -> None:
    """Raises a ValueError unless an interval can be made with these."""
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}; 95 % is 0.95, and one resample the least")


def _means(values: np.ndarray, group: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The mean of the defined values in every resample; NaN where none was drawn."""
    defined = ~np.isnan(values)
    sums = np.bincount(group, np.where(defined, values, 0.0), draws.shape[1])
    counts = np.bincount(group, defined, draws.shape[1])
    totals = draws @ counts
    return np.divide(draws @ sums, totals, out=np.full(len(draws), np.nan), where=totals > 0)


@functools.lru_cache(maxsize=4)
def _draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each group is drawn, `[resamples, groups]`; kept, because a study asks for hundreds of intervals."""
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), resamples).astype(float)
    draws.flags.writeable = False
    return draws


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
