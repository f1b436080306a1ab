"""Numbers that are computed anew of every resample of patients, and of every fold: what `Patients` cannot give.

The number of a whole set, such as the IoU of all its pixels, is no mean over cases.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.metrics import draws, intervals, overlap
from jaxseg.metrics.intervals import Estimate, defined_mean

_SEED = 0


class PatientDraws:
    """How often every patient is drawn in each resample, alike for all sets of cases, so that differences are paired.

    Patients are drawn within the domains that they occur in, so that no domain is left without any. Who occurs in
    several (one sample on many scanners) is drawn for all of them at once.

    Args:
      sets: patients and domains of the cases of each set, `[N]` both.
      resamples: R.
    """

    def __init__(self, sets: Iterable[tuple[Sequence[str], Sequence[str]]], resamples: int):
        domains: dict[str, set[str]] = {}
        for pairs in sets:
            for patient, domain in zip(*pairs, strict=True):
                domains.setdefault(patient, set()).add(domain)
        self._place = {patient: i for i, patient in enumerate(domains)}
        strata = np.unique([", ".join(sorted(names)) for names in domains.values()], return_inverse=True)[1]
        drawn = draws.of_patients(len(domains), resamples, _SEED, strata=tuple(strata.tolist()))
        self._draws = drawn.astype(float)

    def of_patients(self, patients: Iterable[str]) -> np.ndarray:
        """`[R,P]` of the patients, each once, sorted by name."""
        return self._draws[:, [self._place[patient] for patient in sorted(set(patients))]]

    def of_cases(self, patients: Iterable[str]) -> np.ndarray:
        """`[R,N]` of cases, by their patients: how often each is drawn."""
        return self._draws[:, [self._place[patient] for patient in patients]]


class Resampled(NamedTuple):
    """A number of all patients, of every resample of them, and of every fold.

    Attributes:
      value: of all patients, mean over folds.
      resampled: `[R]`, the same of every resample.
      folds: `[F]`, of all patients, of every fold by itself.
      n, undefined, patients: as of `Estimate`.
    """

    value: float
    resampled: np.ndarray
    folds: np.ndarray
    n: int
    undefined: int
    patients: int

    @property
    def estimate(self) -> Estimate:
        """With its interval over patients, which one patient alone does not give."""
        low, high = intervals.interval(self.resampled, 0.95) if self.patients > 1 else (np.nan, np.nan)
        return Estimate(self.value, low, high, self.n, self.undefined, self.patients)

    @property
    def over_folds(self) -> dict[str, Any]:
        """The range over folds, as columns of a table."""
        low, high = float(self.folds.min()), float(self.folds.max())
        return {"lowest_fold": low, "highest_fold": high, "folds": len(self.folds)}


def weighted_sum(terms: Sequence[tuple[float, Resampled]]) -> Resampled:
    """A weighted sum, paired: resample by resample, and fold by fold."""
    total = lambda pick: sum(weight * pick(term) for weight, term in terms)
    largest = max((term for _, term in terms), key=lambda term: term.patients)
    return Resampled(
        float(total(lambda term: term.value)),
        total(lambda term: term.resampled),
        total(lambda term: term.folds),
        largest.n,
        max(term.undefined for _, term in terms),
        largest.patients,
    )


def mean_of(terms: Sequence[Resampled]) -> Resampled:
    """Their mean, each with the same weight."""
    return weighted_sum([(1 / len(terms), term) for term in terms])


def iou_of_set(counts: np.ndarray, weights: np.ndarray, patients: int, classes: Sequence[int]) -> Resampled:
    """IoU of pixels accumulated over a set of cases, mean over classes.

    Args:
      counts: `[F,N,K,3]`, as of `overlap.class_counts`, of every fold.
      weights: `[R,N]`, how often each case is in a resample.
      patients: how many there are.
      classes: indices of those that are averaged.
    """
    n = counts.shape[1]
    flat = np.moveaxis(counts, 1, 0).reshape(n, -1).astype(np.float64)
    resamples = np.rint(weights @ flat).reshape(len(weights), len(counts), *counts.shape[2:])
    folds = overlap.class_mean_iou(counts.sum(1, dtype=np.int64), classes=classes)
    of_draws = defined_mean(overlap.class_mean_iou(resamples, classes=classes), axis=1)
    return Resampled(float(defined_mean(folds, axis=0)), of_draws, folds, n, 0, patients)


def iou_per_case(counts: np.ndarray, weights: np.ndarray, patients: int, classes: Sequence[int]) -> Resampled:
    """Mean over cases of each one's IoU; arguments as of `iou_of_set`."""
    by_fold = overlap.class_mean_iou(counts, classes=classes)  # [F,N]
    cases = defined_mean(by_fold, axis=0)
    defined = ~np.isnan(cases)
    with np.errstate(invalid="ignore"):  # a resample without a defined case
        of_draws = weights @ np.where(defined, cases, 0) / (weights @ defined)
    value, folds = float(defined_mean(cases, axis=0)), defined_mean(by_fold, axis=1)
    return Resampled(value, of_draws, folds, int(defined.sum()), int((~defined).sum()), patients)
