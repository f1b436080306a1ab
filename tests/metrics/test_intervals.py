"""Bootstrap means: closed forms, coverage, pairing, clusters; exact intervals; means of what is defined."""

import math

import numpy as np
import pytest

from jaxseg.metrics import ranking
from jaxseg.metrics.intervals import (
    bootstrap_contrast,
    bootstrap_mean,
    defined_mean,
    exact_interval,
    interval,
    patient_names,
)


def test_the_interval_of_many_normal_values_is_the_textbook_one():
    values = np.random.default_rng(0).normal(2.0, 3.0, 2000)
    estimate = bootstrap_mean(values, np.arange(2000))
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_it_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        estimate = bootstrap_mean(random.exponential(1.0, 60), np.arange(60), resamples=400)
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.87 < hits / 300 < 0.98


def test_cases_of_one_patient_are_drawn_together():
    values = np.repeat(np.random.default_rng(2).normal(size=25), 16)
    wide = bootstrap_mean(values, np.repeat(np.arange(25), 16))
    narrow = bootstrap_mean(values, np.arange(400))
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(4.0, rel=0.15)
    assert (wide.n, wide.patients) == (400, 25)


def test_undefined_values_are_left_out_and_counted():
    estimate = bootstrap_mean(np.array([1.0, np.nan, 3.0, np.nan]), np.array(["a", "a", "b", "c"]))
    assert (estimate.mean, estimate.n, estimate.undefined, estimate.patients) == (2.0, 2, 2, 2)
    assert 1.0 <= estimate.low <= estimate.high <= 3.0
    nothing = bootstrap_mean(np.full(3, np.nan), np.arange(3))
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert (nothing.n, nothing.undefined) == (0, 3)


def test_a_contrast_is_paired():
    random = np.random.default_rng(3)
    first = random.normal(size=500)
    second = first + 0.5
    estimate = bootstrap_contrast([(1.0, second), (-1.0, first)], np.arange(500))
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.high - estimate.low < 1e-9


def test_a_contrast_is_the_difference_of_the_means_shown():
    first, second = np.array([1.0, np.nan, 0.0]), np.array([np.nan, 0.5, 0.7])
    estimate = bootstrap_contrast([(1.0, first), (-1.0, second)], np.arange(3))
    assert estimate.mean == pytest.approx(0.5 - 0.6)
    assert (estimate.n, estimate.undefined) == (3, 0)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(4).random(50)
    assert bootstrap_mean(values, np.arange(50)) == bootstrap_mean(values, np.arange(50))
    assert bootstrap_mean(values, np.arange(50), seed=1) != bootstrap_mean(values, np.arange(50))


def test_vectors_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) and patients \(2,\)"):
        bootstrap_mean(np.zeros(3), np.zeros(2))


@pytest.mark.parametrize("options", [{"level": 95}, {"level": 0}, {"level": 1.0}, {"resamples": 0}])
def test_options_that_make_no_interval_are_refused(options):
    for estimate in (bootstrap_mean, lambda x, patients, **o: ranking.spearman_estimate(x, x, patients, **o)):
        with pytest.raises(ValueError, match=r"95 % is 0\.95"):
            estimate(np.arange(4.0), np.arange(4), **options)


def test_values_that_are_no_numbers_are_named():
    with pytest.raises(ValueError, match=r"values .* masked array with 1 masked"):
        bootstrap_mean(np.ma.masked_less(np.arange(4.0), 1), np.arange(4))
    with pytest.raises(TypeError, match=r"values must be .* got complex128"):
        bootstrap_mean(np.arange(4) * 1j, np.arange(4))
    with pytest.raises(TypeError, match=r"score must be .* got <U"):
        ranking.spearman(["low", "high"], [0.1, 0.2])
    with pytest.raises(TypeError, match="out_scores must be"):
        ranking.auroc([0.1, 0.2], [None, 0.2])


MISSING = {
    "masked": np.ma.masked_greater(np.arange(6), 3),
    "NaN": np.array([0, 1, 2, 3, np.nan, np.nan]),
    "None": ["a", "b", "c", "d", None, None],
    "NaN beside text": np.array(["a", "b", "c", "d", np.nan, np.nan], object),
    "no time": np.array(["2020-01-01"] * 4 + ["NaT"] * 2, "datetime64[D]"),
}
WITH_PATIENTS = [
    bootstrap_mean,
    lambda x, patients: ranking.spearman_estimate(x, x, patients),
    lambda x, patients: ranking.coverage_table(x, x, patients),
]


@pytest.mark.parametrize("patients", MISSING.values(), ids=MISSING)
@pytest.mark.parametrize("estimate", WITH_PATIENTS)
def test_cases_without_a_patient_are_not_one_patient(estimate, patients):
    with pytest.raises(ValueError, match=r"patients \(6,\) has 2 masked, NaN or None values.*patient of its own"):
        estimate(np.arange(6.0), patients)


def test_patients_may_be_text_numbers_or_objects_of_one_kind():
    expected = bootstrap_mean(np.arange(4.0), np.array([0, 0, 1, 2]))
    for patients in (["a", "a", "b", "c"], np.array(["a", "a", "b", "c"], object), np.ma.masked_array([0, 0, 1, 2])):
        assert bootstrap_mean(np.arange(4.0), patients) == expected
    with pytest.raises(TypeError, match="patients are of several types, int, str"):
        bootstrap_mean(np.arange(4.0), np.array([0, 0, "b", "c"], object))


def test_a_resample_with_an_infinite_value_has_an_infinite_mean():
    values = np.array([1.0, 3.0, np.inf, 5.0, np.nan])
    estimate = bootstrap_mean(values, np.arange(5))
    assert (estimate.mean, estimate.n, estimate.undefined) == (np.inf, 4, 1)
    assert 1 <= estimate.low < np.inf and estimate.high == np.inf  # a third of the resamples has no infinite value
    below = bootstrap_mean(-values, np.arange(5))
    assert (below.mean, below.low, below.high) == (-np.inf, -np.inf, -estimate.low)
    many = bootstrap_mean(np.r_[np.full(50, np.inf), 1.0], np.arange(51))
    assert (many.mean, many.low, many.high) == (np.inf, np.inf, np.inf)
    ranked = ranking.bootstrap(lambda x: x.mean(), {"x": values[:4]}, np.arange(4))
    four = bootstrap_mean(values[:4], np.arange(4))
    assert (ranked.low, ranked.high) == (four.low, four.high)


def test_one_infinite_value_of_many_patients_leaves_the_lower_end_finite():
    values = np.r_[np.random.default_rng(5).normal(2, 1, 400), np.inf]
    estimate = bootstrap_mean(values, np.arange(401), resamples=1000)
    assert estimate.low == pytest.approx(1.93, abs=0.1) and estimate.high == np.inf


def test_a_difference_of_infinite_means_is_undefined_and_of_one_it_is_infinite():
    infinite, finite = np.array([1.0, np.inf, 2.0]), np.array([1.0, 2.0, 2.5])
    one = bootstrap_contrast([(1.0, infinite), (-1.0, finite)], np.arange(3))
    assert one.mean == one.high == np.inf
    both = bootstrap_contrast([(1.0, infinite), (-1.0, infinite)], np.arange(3))
    assert np.isnan([both.mean, both.low, both.high]).all()


def test_the_exact_interval_is_that_of_clopper_and_pearson():
    # no success: 1 - (1 - p)^n = 0.975 at the upper end; all: the mirror image
    low, high = exact_interval(0, 10)
    assert low == 0 and high == pytest.approx(1 - 0.025**0.1)
    assert exact_interval(10, 10) == pytest.approx((1 - high, 1.0))
    low, high = exact_interval(3, 10)
    tail = lambda p, counts: sum(math.comb(10, k) * p**k * (1 - p) ** (10 - k) for k in counts)
    assert tail(low, range(3, 11)) == pytest.approx(0.025) and tail(high, range(4)) == pytest.approx(0.025)
    for successes, trials in ((0, 0), (4, 3), (-1, 3)):
        with pytest.raises(ValueError, match="give at least one trial, and 0 to all of them"):
            exact_interval(successes, trials)


def test_means_of_what_is_defined():
    values = np.array([[1.0, np.nan, 4.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(defined_mean(values), [2.5, np.nan])
    np.testing.assert_array_equal(defined_mean(values, axis=0), [1.0, np.nan, 4.0])
    assert defined_mean([3, 4]) == 3.5 and np.isnan(defined_mean(np.zeros((2, 0)))).all()


@pytest.mark.parametrize("patients", ["a", [["a", "b"]]])
def test_patients_are_one_axis(patients):
    with pytest.raises(ValueError, match=r"patients must be \[N\], one for each case"):
        patient_names(patients)


class Unequal:
    """As pandas' NA, which has no truth value."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


def test_what_makes_no_estimate_is_named():
    with pytest.raises(ValueError, match=r"values \(2, 3\) have no axis 2"):
        defined_mean(np.zeros((2, 3)), axis=2)
    with pytest.raises(ValueError, match=r"values \(2, 3\) have no axis -3"):
        defined_mean(np.zeros((2, 3)), axis=-3)
    np.testing.assert_array_equal(defined_mean(np.ones((2, 3)), axis=-2), np.ones(3))
    with pytest.raises(ValueError, match=r"drawn must be \[R\], one statistic for each resample, got \(2, 3\)"):
        interval(np.zeros((2, 3)), 0.95)
    with pytest.raises(ValueError, match=r"values \(2, 2\) and patients \(2,\)"):
        bootstrap_mean(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="has 1 masked, NaN or None values"):
        patient_names(np.array(["a", Unequal()], object))


def test_one_resample_and_one_trial_are_the_least():
    estimate = bootstrap_mean(np.array([1.0, 3.0]), np.arange(2), resamples=1)
    assert estimate.low == estimate.high and estimate.mean == 2
    assert exact_interval(1, 1) == pytest.approx((0.025, 1))
