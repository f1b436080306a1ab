"""Percentiles and flags in closed form."""

import math

import numpy as np
import pytest

from jaxseg.prediction import quality

KNOWN = np.array([0.9, 0.5, 0.7, 0.6, 0.8])


@pytest.mark.parametrize(
    ("value", "high_is_good", "wanted"),
    [
        (0.95, True, 0),  # better than all
        (0.9, True, 0),
        (0.85, True, 20),
        (0.7, True, 40),
        (0.5, True, 80),
        (0.1, True, 100),
        (0.1, False, 0),
        (0.7, False, 40),
        (0.95, False, 100),
        (math.nan, False, 100),  # after all others
        (math.nan, True, 100),
    ],
)
def test_a_percentile_is_the_share_of_validation_cases_that_look_better(value, high_is_good, wanted):
    assert quality.percentile(KNOWN, value, high_is_good=high_is_good) == pytest.approx(wanted)


def test_undefined_scores_rank_behind_all_and_do_not_look_better_than_each_other():
    reference = np.array([0.9, math.nan, 0.7, math.nan])
    assert quality.percentile(reference, math.nan, high_is_good=True) == 50
    assert quality.percentile(reference, 0.8, high_is_good=True) == 25
    assert quality.percentile(np.full(3, math.nan), 0.8, high_is_good=True) == 0


@pytest.mark.parametrize("count", [1, 5, 7, 10, 150])
@pytest.mark.parametrize("coverage", [0.0, 0.1, 0.5, 0.8, 0.9, 1.0])
def test_of_the_validation_cases_themselves_what_is_beyond_the_coverage_is_flagged(count, coverage):
    scores = np.random.default_rng(0).permutation(count) / count
    percentiles = [quality.percentile(scores, value, high_is_good=True) for value in scores]
    flagged = np.array([quality.is_flagged(value, coverage=coverage) for value in percentiles])
    assert flagged.sum() == math.floor((1 - coverage) * count + 1e-9)
    if 0 < flagged.sum() < count:
        assert scores[flagged].max() < scores[~flagged].min()


def test_at_full_coverage_only_what_is_worse_than_all_is_flagged():
    flagged = lambda value: quality.is_flagged(quality.percentile(KNOWN, value, high_is_good=True), coverage=1.0)
    assert not flagged(0.5) and flagged(0.4999)


def test_slices_are_averaged_by_volume():
    cases = ["p1_frame01_000", "p2_frame01_000", "p1_frame01_001", "p2_frame01_001", "p3_1000"]
    scores = {"mean_sa": np.array([0.2, 1.0, 0.4, math.nan, math.nan])}
    np.testing.assert_allclose(quality.by_volume(cases, scores)["mean_sa"], [0.3, 1.0, math.nan])


def test_without_validation_cases_there_is_no_percentile():
    with pytest.raises(ValueError, match="reference is empty"):
        quality.percentile(np.array([]), 0.3, high_is_good=False)


def test_a_percentile_at_the_coverage_is_flagged_whatever_its_product_rounds_to():
    assert 100 * 0.55 > 55 and quality.is_flagged(55.0, coverage=0.55)
    assert not quality.is_flagged(54.9, coverage=0.55)
