"""Rows of scores against `ranking`, one by one; means over runs, subjects, and intervals from resampled patients."""

import numpy as np
import pytest

from jaxseg.metrics import ranking
from jaxseg.metrics.resampled_ranking import Observations, auroc_rows, fpr_at_95_rows, risk_areas, spearman_rows


def observations(count=60, seed=0):
    """Two networks and an ensemble; some numbers undefined; ties; a patient in two domains."""
    random = np.random.default_rng(seed)
    scores, risks = random.integers(0, 12, (5, count)) / 4, random.random((5, count))
    scores[0, 3] = scores[3, 10] = risks[1, 5] = risks[4, 7] = np.nan
    domains = np.array(["a", "b", "c", "d"])[np.arange(count) % 4]
    patients = np.array([f"p{i // 8}" for i in range(count)])
    return Observations(scores, risks, np.array([0, 0, 1, 1, 2]), ("SD", "PM", "E"), domains, patients)


def test_rows_of_correlations_are_those_of_ranking():
    of = observations()
    scores = of.scores.copy()
    scores[2, :2] = np.inf  # the largest there is, not one of those that are left out
    scores[2, 5:9] = np.nan
    expected = [ranking.spearman(s, r) for s, r in zip(scores, of.risks, strict=True)]
    np.testing.assert_allclose(spearman_rows(scores, of.risks), expected, rtol=1e-12)
    assert np.isnan(spearman_rows(np.ones((1, 5)), np.arange(5.0)[None])).all()
    assert np.isnan(spearman_rows(np.zeros((2, 0)), np.zeros((2, 0)))).all()


def test_rows_of_detection_leave_out_what_is_undefined():
    random = np.random.default_rng(1)
    inside, outside = random.integers(0, 9, (4, 30)) / 8, random.integers(2, 12, (4, 21)) / 8
    inside[0, 3], outside[1, :5], outside[2, :], inside[3, :] = np.nan, np.nan, np.nan, np.nan
    inside[1, 4:6], outside[1, 7], outside[0, 2:4] = np.inf, np.inf, -np.inf
    for rows, one in ((auroc_rows, ranking.auroc), (fpr_at_95_rows, ranking.fpr_at_95)):
        for kept in (slice(0, 2), slice(0, 4), slice(2, 3)):  # with and without rows that have nothing
            expected = [one(a, b) for a, b in zip(inside[kept], outside[kept], strict=True)]
            np.testing.assert_allclose(rows(inside[kept], outside[kept]), expected)
        assert np.isnan(rows(inside, np.zeros((4, 0)))).all()


def test_rows_of_risk_areas_are_those_of_ranking():
    of = observations()
    for areas, score, risk in zip(risk_areas(of.scores, of.risks).T, of.scores, of.risks, strict=True):
        curve = ranking.risk_coverage(score, risk)
        assert tuple(areas) == (curve.aurc, curve.excess_aurc)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"scores \(2, 5\) and risks \(2, 4\) must be matrices of one shape"):
        spearman_rows(np.zeros((2, 5)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"in_domain_scores \(2, 5\) and out_scores \(3, 4\) must .* as many rows"):
        auroc_rows(np.zeros((2, 5)), np.zeros((3, 4)))


def test_means_and_deviations_over_runs():
    of = observations()
    values = np.array([1.0, 4.0, np.nan, 2.0, np.nan])
    np.testing.assert_allclose(of.mean_over_runs(values), [2.5, 2.0, np.nan])
    np.testing.assert_allclose(of.deviation_over_runs(values), [np.std([1, 4], ddof=1), np.nan, np.nan])
    assert of.of_score("PM").tolist() == [False, False, True, True, False]


def test_subjects_are_means_over_their_cases_in_one_domain():
    of = observations()
    subjects = of.by_subject()
    assert len(subjects.patients) == len(set(zip(of.domains, of.patients, strict=True)))
    for i in range(len(subjects.patients)):
        own = (of.domains == subjects.domains[i]) & (of.patients == subjects.patients[i])
        np.testing.assert_allclose(subjects.scores[:, i], np.nanmean(of.scores[:, own], 1))
        np.testing.assert_allclose(subjects.risks[:, i], np.nanmean(of.risks[:, own], 1))


def within(domain):
    def numbers(of):
        own = of.take(of.domains == domain)
        return np.stack([spearman_rows(own.scores, own.risks)])

    return numbers


def test_intervals_are_those_of_ranking_where_there_is_one_run():
    of = observations()
    resampled = of.resampled(within("c"), resamples=200)
    where = of.domains == "c"
    expected = ranking.spearman_estimate(of.scores[4], np.where(where, of.risks[4], np.nan), of.patients, resamples=200)
    found = resampled.estimate(0, "E", where)
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (found.n, found.undefined, found.patients) == (expected.n, 0, expected.patients)


def test_differences_are_of_the_same_resamples():
    of = observations()
    resampled = of.resampled(within("c"), resamples=200)
    where = of.domains == "c"
    difference, same = (resampled.estimate(0, "SD", where, minus=other) for other in ("PM", "SD"))
    each = [resampled.estimate(0, score, where).mean for score in ("SD", "PM")]
    assert difference.mean == pytest.approx(each[0] - each[1])
    drawn = resampled.resampled[:, 0, 0] - resampled.resampled[:, 0, 1]
    assert (difference.low, difference.high) == pytest.approx(tuple(np.nanpercentile(drawn, [2.5, 97.5])))
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_cases_without_a_risk_take_part_where_scores_alone_are_asked():
    of = observations()
    counts = {}
    for needs_risk in (True, False):
        numbers = lambda of: np.stack([np.nanmean(of.scores, 1)])
        resampled = of.resampled(numbers, resamples=5, needs_risk=needs_risk)
        estimate = resampled.estimate(0, "E", np.ones(60, bool))
        counts[needs_risk] = (estimate.n, estimate.undefined)
    assert counts == {True: (59, 1), False: (60, 0)}
