"""Estimates over patients are those of the metrics that they come from."""

import numpy as np
import pytest

from jaxseg.metrics import intervals, ranking
from jaxseg.results.patients import Patients
from jaxseg.results.table import OVER_PATIENTS, PAIRED

RANDOM = np.random.default_rng(0)
NAMES = np.repeat(np.arange(6), 3)
FIRST, SECOND = RANDOM.random((2, 18))
PATIENTS = Patients(NAMES, 40)


def test_means_and_differences():
    assert PATIENTS.mean(FIRST) == intervals.bootstrap_mean(FIRST, NAMES, resamples=40)
    assert PATIENTS.difference(FIRST, SECOND) == intervals.bootstrap_mean(FIRST - SECOND, NAMES, resamples=40)
    assert PATIENTS.difference(FIRST, SECOND).mean == pytest.approx(FIRST.mean() - SECOND.mean())
    terms = [(1.0, FIRST), (-0.5, SECOND)]
    wide = intervals.bootstrap_contrast(terms, NAMES, level=0.99, resamples=40)
    assert PATIENTS.contrast(terms, level=0.99) == wide
    assert wide.mean == pytest.approx(FIRST.mean() - SECOND.mean() / 2)


def test_ranks_and_other_statistics():
    assert PATIENTS.spearman(FIRST, SECOND) == ranking.spearman_estimate(FIRST, SECOND, NAMES, resamples=40)
    highest = PATIENTS.statistic(lambda x: float(x.max()), {"x": FIRST})
    assert highest == ranking.bootstrap(lambda x: float(x.max()), {"x": FIRST}, NAMES, resamples=40)
    assert highest.mean == FIRST.max()


def test_some_of_the_cases():
    some = NAMES < 4
    assert PATIENTS.of(some).mean(FIRST[some]) == intervals.bootstrap_mean(FIRST[some], NAMES[some], resamples=40)
    assert PATIENTS.of(np.array([0, 3])).names.tolist() == [0, 1]


def test_a_row_says_whether_its_means_are_paired():
    random = np.random.default_rng(0)
    first, second = random.random((2, 12))
    patients = Patients(np.array([f"p{i // 2}" for i in range(12)]), 50)
    alone = patients.row(first, "mean", network="online", convention="its own")
    assert (alone.estimate, alone.interval) == (patients.mean(first), OVER_PATIENTS)
    assert alone.keys == {"network": "online", "convention": "its own"} and alone.convention == "mean"
    terms = [(1.0, first), (-1.0, second)]
    difference = patients.row(terms, "difference", more={"paper": 0.5}, network="both")
    assert (difference.estimate, difference.interval) == (patients.contrast(terms), PAIRED)
    assert difference["paper"] == 0.5
    assert patients.row(first - second, "change", interval=PAIRED).interval == PAIRED
