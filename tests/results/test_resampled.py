"""Resampled numbers: intervals over patients, ranges over folds, and differences that are paired."""

import math

import numpy as np
import pytest

from jaxseg.results import resampled
from jaxseg.results.resampled import PatientDraws, Resampled, mean_of, weighted_sum


def test_patients_are_drawn_within_their_domains_and_alike_for_all_sets():
    sets = [(("b", "a", "c"), ("x", "x", "x")), (("a", "d", "d", "e"), ("y", "z", "z", "z"))]
    draws = PatientDraws(sets, 100)
    first, second = (draws.of_patients(patients) for patients, _ in sets)  # a b c, and a d e
    np.testing.assert_array_equal(first[:, 0], second[:, 0])
    np.testing.assert_array_equal(second[:, 0], 1)  # the only one who occurs in x and y
    assert (first[:, 1:].sum(1) == 2).all() and (second[:, 1:].sum(1) == 2).all() and first[:, 1].std() > 0.5
    np.testing.assert_array_equal(draws.of_cases(sets[1][0]), second[:, [0, 1, 1, 2]])


def test_one_patient_gives_no_interval():
    number = Resampled(0.5, np.full(50, 0.5), np.array([0.4, 0.6]), 3, 0, 1)
    estimate = number.estimate
    assert math.isnan(estimate.low) and math.isnan(estimate.high) and estimate.mean == 0.5
    assert number.over_folds == {"lowest_fold": 0.4, "highest_fold": 0.6, "folds": 2}
    assert number._replace(patients=2, resampled=np.linspace(0, 1, 1001)).estimate.low == pytest.approx(0.025)


def test_a_difference_is_paired():
    random = np.random.default_rng(0)
    a = random.standard_normal(400)
    one = Resampled(0.0, a, np.array([0.0]), 9, 0, 9)
    other = Resampled(0.3, a + 0.3, np.array([0.3]), 9, 0, 9)
    estimate = weighted_sum([(1.0, other), (-1.0, one)]).estimate
    assert (estimate.low, estimate.mean, estimate.high) == pytest.approx((0.3, 0.3, 0.3))
    assert mean_of([one, other]).value == pytest.approx(0.15)


def test_a_weighted_sum_is_of_every_part_and_has_the_numbers_of_its_largest():
    random = np.random.default_rng(1)
    (a, b), (c, d) = random.random((2, 50)), random.random((2, 3))
    one, other = Resampled(0.25, a, c, 9, 1, 5), Resampled(0.5, b, d, 7, 2, 6)
    found = weighted_sum([(2.0, one), (-0.5, other)])
    assert (found.value, found.n, found.undefined, found.patients) == (2 * 0.25 - 0.5 * 0.5, 7, 2, 6)
    np.testing.assert_allclose(found.resampled, 2 * a - 0.5 * b)
    np.testing.assert_allclose(found.folds, 2 * c - 0.5 * d)
    np.testing.assert_allclose(mean_of([one, other, one]).resampled, (2 * a + b) / 3)


def test_iou_is_that_of_a_slow_count_for_every_resample():
    random = np.random.default_rng(0)
    both = random.integers(0, 20, (2, 6, 3))
    counts = np.stack([both, both + random.integers(0, 20, both.shape), both + random.integers(0, 20, both.shape)], -1)
    counts[:, 2, 1] = 0  # a case without the first class in label and prediction
    counts[:, 4, 1:] = 0  # and one without any
    weights = random.multinomial(6, np.full(6, 1 / 6), 7).astype(float)

    def slow(weights):
        folds = []
        for fold in counts:
            total = sum(int(w) * case for w, case in zip(weights, fold, strict=True))
            folds.append(np.mean([i / (a + b - i) for i, a, b in total[1:] if a + b > i]))
        return folds

    whole = resampled.iou_of_set(counts, weights, 6, (1, 2))
    np.testing.assert_allclose(whole.folds, slow(np.ones(6)))
    assert whole.value == pytest.approx(np.mean(whole.folds)) and (whole.n, whole.undefined) == (6, 0)
    np.testing.assert_allclose(whole.resampled, [np.mean(slow(row)) for row in weights])
    per_case = []
    for case in range(6):
        values = [[i / (a + b - i) for i, a, b in fold[case][1:] if a + b > i] for fold in counts]
        per_case.append(np.mean([np.mean(v) for v in values]) if values[0] else np.nan)
    mean = resampled.iou_per_case(counts, weights, 6, (1, 2))
    assert mean.value == pytest.approx(np.nanmean(per_case)) and (mean.n, mean.undefined) == (5, 1)
    defined = ~np.isnan(per_case)
    expected = [np.average(np.array(per_case)[defined], weights=row[defined]) for row in weights]
    np.testing.assert_allclose(mean.resampled, expected)
