"""IoU of the skip-pruning study's networks: of the set and per case, with resampled patients and by fold."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.metrics.intervals import defined_mean
from jaxseg.results import resampled
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
    kinds = {SET: resampled.iou_of_set, CASE: resampled.iou_per_case}
    return {
        (network, condition.name, measure): iou(counts, weights[condition.name], count(condition), classes)
        for network, measures in measured.items()
        for condition, counts in _by_condition(measures["counts"], tested)
        for measure, iou in kinds.items()
    }


def _by_condition(counts: np.ndarray, tested: Sequence[Condition]) -> Iterator[tuple[Condition, np.ndarray]]:
    """Every condition with its part of `[F,M,K,3]`."""
    ends = np.cumsum([len(condition.cases) for condition in tested])
    return zip(tested, np.split(counts, ends[:-1], 1), strict=True)


def of_cases(counts: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """IoU of every case `[M]`, mean over folds, of counts `[F,M,K,3]`."""
    return defined_mean(overlap.class_mean_iou(counts, classes=classes), axis=0)
