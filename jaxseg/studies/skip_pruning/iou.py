"""IoU of the skip-pruning study's networks: of the set and per case, with resampled patients and by fold."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.metrics.intervals import defined_mean
from jaxseg.results.resampled import Resampled
from jaxseg.studies.base import Measures
from jaxseg.studies.skip_pruning.conditions import Condition, patient_draws
from jaxseg.studies.skip_pruning.settings import Evaluation, Network

SET, CASE = "of the set", "per case"  # measures
Scores = Mapping[tuple[Network, str, str], Resampled]  # network, name of the condition, measure


def class_numbers(wanted: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the `wanted` classes, whose IoU is averaged; raises InputError if one is unknown.

    None means all but the background, the first of all `names`.
    """
    known = list(names[1:])
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"config.evaluation.classes has {unknown[0]!r}; choose from {', '.join(known)}")
    return tuple(names.index(name) for name in wanted or known)


def scores(evaluation: Evaluation, tested: Sequence[Condition], measured: Mapping[Network, Measures]) -> Scores:
    """IoU of all networks under all conditions by both measures."""
    classes = class_numbers(evaluation.classes, tested[0].cases.class_names)
    draws = patient_draws(tested, evaluation.resamples)
    weights = {condition.name: draws.of_cases(condition.cases.patients) for condition in tested}
    count = lambda condition: len(set(condition.cases.patients))
    of_condition = lambda one, counts: resampled(counts, weights[one.name], count(one), classes)
    return {
        (network, condition.name, measure): score
        for network, measures in measured.items()
        for condition, counts in _by_condition(measures["counts"], tested)
        for measure, score in of_condition(condition, counts).items()
    }


def _by_condition(counts: np.ndarray, tested: Sequence[Condition]) -> Iterator[tuple[Condition, np.ndarray]]:
    """Every condition with its part of `[F,M,K,3]`."""
    ends = np.cumsum([len(condition.cases) for condition in tested])
    return zip(tested, np.split(counts, ends[:-1], 1), strict=True)


def resampled(counts: np.ndarray, weights: np.ndarray, patients: int, classes: Sequence[int]) -> dict[str, Resampled]:
    """IoU of one network and condition by both measures.

    Args:
      counts: `[F,N,K,3]`, as of `overlap.class_counts`.
      weights: `[R,N]`, how often each case is in a resample.
      patients: how many there are.
      classes: indices of those that are averaged.
    """
    return {SET: _of_set(counts, weights, patients, classes), CASE: _per_case(counts, weights, patients, classes)}


def _of_set(counts: np.ndarray, weights: np.ndarray, patients: int, classes: Sequence[int]) -> Resampled:
    n = counts.shape[1]
    flat = np.moveaxis(counts, 1, 0).reshape(n, -1).astype(np.float64)
    resamples = np.rint(weights @ flat).reshape(len(weights), len(counts), *counts.shape[2:])
    folds = overlap.class_mean_iou(counts.sum(1, dtype=np.int64), classes=classes)
    of_draws = defined_mean(overlap.class_mean_iou(resamples, classes=classes), axis=1)
    return Resampled(float(defined_mean(folds, axis=0)), of_draws, folds, n, 0, patients)


def _per_case(counts: np.ndarray, weights: np.ndarray, patients: int, classes: Sequence[int]) -> Resampled:
    by_fold = overlap.class_mean_iou(counts, classes=classes)  # [F,N]
    cases = defined_mean(by_fold, axis=0)
    defined = ~np.isnan(cases)
    with np.errstate(invalid="ignore"):  # a resample without a defined case
        of_draws = weights @ np.where(defined, cases, 0) / (weights @ defined)
    value, folds = float(defined_mean(cases, axis=0)), defined_mean(by_fold, axis=1)
    return Resampled(value, of_draws, folds, int(defined.sum()), int((~defined).sum()), patients)


def of_cases(counts: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """IoU of every case `[M]`, mean over folds, of counts `[F,M,K,3]`."""
    return defined_mean(overlap.class_mean_iou(counts, classes=classes), axis=0)
