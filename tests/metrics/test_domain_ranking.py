"""Scores of cases of several domains, domain by domain against `ranking`."""

import numpy as np
import pytest

from jaxseg.metrics import domain_ranking, ranking
from jaxseg.metrics.domain_ranking import Domains
from jaxseg.metrics.resampled_ranking import Observations

DOMAINS = Domains(("in (validation)", "in (test)", "b", "c"), "in (validation)", "in (test)", ("b", "c"))


def observations(count=60, seed=0):
    """Two networks and an ensemble; some numbers undefined; ties; a patient in two domains."""
    random = np.random.default_rng(seed)
    scores, risks = random.integers(0, 12, (5, count)) / 4, random.random((5, count))
    scores[0, 3] = scores[3, 10] = risks[1, 5] = risks[4, 7] = np.nan
    domains = np.array(DOMAINS.names)[np.arange(count) % 4]
    patients = np.array([f"p{i // 8}" for i in range(count)])
    return Observations(scores, risks, np.array([0, 0, 1, 1, 2]), ("SD", "PM", "E"), domains, patients)


def test_correlations_are_within_domains_and_their_mean():
    of = observations()
    found = domain_ranking.correlations(of, DOMAINS)
    for q, name in enumerate(DOMAINS.names):
        where = of.domains == name
        expected = [ranking.spearman(of.scores[p, where], of.risks[p, where]) for p in range(5)]
        np.testing.assert_allclose(found[q], expected)
    np.testing.assert_allclose(found[4], (found[2] + found[3]) / 2)
    where = np.isin(of.domains, DOMAINS.counted)
    np.testing.assert_allclose(found[5], [ranking.spearman(of.scores[p, where], of.risks[p, where]) for p in range(5)])


def test_detection_is_that_of_ranking():
    of = observations()
    threshold = domain_ranking.thresholds(of, DOMAINS, 0.95)
    found = domain_ranking.detection(of, DOMAINS, threshold).reshape(3, 5, 5)
    for p in range(5):
        validation, test = (of.scores[p, of.domains == name] for name in (DOMAINS.validation, DOMAINS.inside))
        for d, name in ((2, "b"), (3, "c")):
            outside = of.scores[p, of.domains == name]
            ood = ranking.ood_accuracy(validation, test, outside)
            assert threshold[p] == ood.threshold
            expected = ood.detected, ranking.auroc(test, outside), ranking.fpr_at_95(test, outside)
            np.testing.assert_allclose(found[:, d, p], expected)
        assert found[0, 1, p] == pytest.approx(1 - ood.kept)
    np.testing.assert_allclose(found[:, 4], found[:, 2:4].mean(1))
    assert np.isnan(found[1:, :2]).all()


def test_a_score_without_validation_has_no_threshold_and_flags_nothing():
    of = observations()
    of.scores[1, of.domains == DOMAINS.validation] = np.nan
    threshold = domain_ranking.thresholds(of, DOMAINS, 0.95)
    assert np.isnan(threshold).tolist() == [False, True, False, False, False]
    found = domain_ranking.detection(of, DOMAINS, threshold).reshape(3, 5, 5)
    assert np.isnan(found[0, :, 1]).all() and not np.isnan(found[1, 2:, 1]).any()


def test_risk_areas_are_of_the_shifted_domains_together():
    of = observations()
    found = domain_ranking.areas(of, DOMAINS)
    where = np.isin(of.domains, DOMAINS.counted)
    for p in range(5):
        curve = ranking.risk_coverage(of.scores[p, where], of.risks[p, where])
        assert tuple(found[:, p]) == (curve.aurc, curve.excess_aurc)
