"""Failure metrics against loops, closed forms, other libraries and reference numbers."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from jaxseg.metrics import intervals, ranking


def slow_spearman(score, risk):
    def ranks(values):
        return np.array([np.mean([1 + sum(v < x for v in values), sum(v <= x for v in values)]) for x in values])

    a, b = ranks(score), ranks(risk)
    covariance = np.mean(a * b) - a.mean() * b.mean()
    return covariance / (a.std() * b.std())


def slow_curve(order, risk):
    return np.array([np.mean([risk[i] for i in order[:k]]) for k in range(1, len(risk) + 1)])


def orders_by(score):
    """All orders of the cases that sort the scores."""
    return [o for o in itertools.permutations(range(len(score))) if all(np.diff(np.asarray(score)[list(o)]) >= 0)]


def with_ties(seed, n=60, levels=9):
    random = np.random.default_rng(seed)
    risk = random.random(n).round(1)
    return (random.integers(0, levels, n) + 4 * risk).round(), risk


# Spearman


@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_the_loop_and_scipys(seed):
    score, risk = with_ties(seed)
    expected = slow_spearman(score, risk)
    assert ranking.spearman(score, risk) == pytest.approx(expected, abs=1e-12)
    assert ranking.spearman(score, risk) == pytest.approx(stats.spearmanr(score, risk).statistic, abs=1e-12)


def test_spearman_of_known_orders():
    assert ranking.spearman(np.arange(5), np.exp(np.arange(5))) == 1
    assert ranking.spearman(np.arange(5), -np.arange(5)) == -1
    assert ranking.spearman([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)  # 1 - 6 sum d^2 / n (n^2 - 1)
    assert ranking.spearman([0, np.inf, 1], [0.1, 0.9, 0.5]) == 1


def test_spearman_sees_only_order_and_is_symmetric():
    score, risk = with_ties(5)
    value = ranking.spearman(score, risk)
    assert ranking.spearman(risk, score) == pytest.approx(value, abs=1e-15)
    assert ranking.spearman(np.exp(score), risk**3) == pytest.approx(value, abs=1e-15)
    assert ranking.spearman(-score, risk) == pytest.approx(-value, abs=1e-15)
    order = np.random.default_rng(0).permutation(len(score))
    assert ranking.spearman(score[order], risk[order]) == pytest.approx(value, abs=1e-15)


def test_spearman_without_an_answer_is_nan():
    assert np.isnan(ranking.spearman([], []))
    assert np.isnan(ranking.spearman([1.0], [1.0]))
    assert np.isnan(ranking.spearman([1.0, 1.0], [0.0, 1.0]))
    assert np.isnan(ranking.spearman([0.0, 1.0], [1.0, 1.0]))
    assert np.isnan(ranking.spearman([0.0, np.nan], [1.0, 2.0]))


def test_cases_with_nan_are_left_out_and_counted():
    score, risk = with_ties(6)
    value = ranking.spearman(score, risk)
    score, risk = np.append(score, [np.nan, 3]), np.append(risk, [0.1, np.nan])
    assert ranking.spearman(score, risk) == value
    estimate = ranking.spearman_estimate(score, risk, np.arange(62) // 2, resamples=50)
    assert (estimate.mean, estimate.n, estimate.undefined, estimate.patients) == (value, 60, 2, 30)


def test_the_interval_of_spearman_is_the_textbook_one():
    random = np.random.default_rng(0)
    score = random.normal(size=400)
    risk = score + 1.5 * random.normal(size=400)
    estimate = ranking.spearman_estimate(score, risk, np.arange(400), resamples=600)
    # Fisher's z with the variance of Bonett & Wright 2000
    half = 1.96 * np.sqrt((1 + estimate.mean**2 / 2) / (400 - 3))
    expected = np.tanh(np.arctanh(estimate.mean) + np.array([-half, half]))
    np.testing.assert_allclose([estimate.low, estimate.high], expected, atol=0.25 * half)


# Bootstrap


def test_the_bootstrap_draws_the_patients_that_means_draw():
    random = np.random.default_rng(1)
    values, patients = random.normal(size=50), random.integers(0, 12, 50)
    values[:4] = np.nan
    ours = ranking.bootstrap(lambda x: x.mean() if x.size else np.nan, {"values": values}, patients, resamples=300)
    theirs = intervals.bootstrap_mean(values, patients, resamples=300)
    np.testing.assert_allclose([ours.mean, ours.low, ours.high], [theirs.mean, theirs.low, theirs.high], rtol=1e-12)
    assert (ours.n, ours.undefined, ours.patients) == (theirs.n, theirs.undefined, theirs.patients)
    other = ranking.bootstrap(np.mean, {"values": values}, patients, resamples=300, seed=1)
    assert other.low != ours.low
    narrow = ranking.bootstrap(np.mean, {"values": values}, patients, resamples=300, level=0.5)
    assert ours.low < narrow.low < narrow.high < ours.high


def test_resamples_without_an_answer_are_left_out():
    score, risk = np.array([0.0, 0.0, 1.0, 1.0]), np.arange(4.0)
    estimate = ranking.spearman_estimate(score, risk, np.array(["a", "a", "b", "b"]), resamples=200)
    assert estimate.low == estimate.high == estimate.mean  # with one of the two patients the score is constant
    nothing = ranking.spearman_estimate(0 * score, risk, np.arange(4), resamples=20)
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert (nothing.n, nothing.undefined) == (4, 0)


def test_two_groups_fit_the_bootstrap():
    random = np.random.default_rng(2)
    scores, out = random.normal(size=80), np.repeat([0, 1], 40)
    scores[out == 1] += 1
    columns = {"score": scores, "out": out}
    estimate = ranking.bootstrap(
        lambda s, o: ranking.auroc(s[o == 0], s[o == 1]), columns, np.arange(80), resamples=200
    )
    assert estimate.low < estimate.mean == ranking.auroc(scores[:40], scores[40:]) < estimate.high
    assert estimate.n == 80


# Risk and coverage


def test_aurc_is_the_reference(oracles):
    reference = np.load(oracles / "aurc.npz")
    curve = ranking.risk_coverage(reference["score"], reference["risk"])
    assert curve.aurc == pytest.approx(float(reference["aurc"]), abs=1e-6)
    assert curve.excess_aurc == pytest.approx(float(reference["e_aurc"]), abs=1e-6)


def test_the_curve_is_the_loop():
    random = np.random.default_rng(3)
    score, risk = random.random((2, 40))
    curve = ranking.risk_coverage(score, risk)
    slow = slow_curve(sorted(range(40), key=lambda i: score[i]), risk)
    best = slow_curve(sorted(range(40), key=lambda i: risk[i]), risk)
    np.testing.assert_allclose(curve.risk, slow, rtol=1e-12)
    np.testing.assert_allclose(curve.coverage, [k / 40 for k in range(1, 41)], rtol=1e-15)
    area = sum((slow[k] + slow[k + 1]) / 2 / 40 for k in range(39))
    assert curve.aurc == pytest.approx(area, rel=1e-12)
    assert curve.excess_aurc == pytest.approx(area - sum(best) / 40, rel=1e-12)
    assert (curve.n, curve.undefined) == (40, 0)


def test_equal_scores_are_the_mean_over_their_orders():
    score, risk = np.array([2, 1, 1, 3, 3, 3]), np.array([0.7, 0.1, 0.4, 0.9, 0.2, 0.3])
    curves = [slow_curve(order, risk) for order in orders_by(score)]
    assert len(curves) == 12
    curve = ranking.risk_coverage(score, risk)
    np.testing.assert_allclose(curve.risk, np.mean(curves, axis=0), rtol=1e-12)
    for order in itertools.islice(itertools.permutations(range(6)), 0, None, 7):
        other = ranking.risk_coverage(score[list(order)], risk[list(order)])
        assert other.aurc == pytest.approx(curve.aurc, rel=1e-12)


def test_areas_of_known_scores():
    risk = np.array([0.0, 0.0, 1.0, 1.0])
    # the curves are 0 0 1/3 1/2 and 1 1 2/3 1/2
    perfect, worst = ranking.risk_coverage(risk, risk), ranking.risk_coverage(-risk, risk)
    assert perfect.aurc == pytest.approx((1 / 6 + 5 / 12) / 4)
    assert worst.aurc == pytest.approx((1 + 5 / 6 + 7 / 12) / 4)
    assert perfect.excess_aurc == pytest.approx(-(perfect.risk[0] + perfect.risk[-1]) / 8)
    blind = ranking.risk_coverage(np.zeros(4), risk)
    np.testing.assert_allclose(blind.risk, 0.5)
    assert blind.aurc == pytest.approx(0.5 * 3 / 4)


def test_no_score_beats_the_risk_and_only_order_counts():
    random = np.random.default_rng(4)
    score, risk = random.random((2, 30))
    curve = ranking.risk_coverage(score, risk)
    assert ranking.risk_coverage(risk, risk).aurc <= curve.aurc <= ranking.risk_coverage(-risk, risk).aurc
    assert ranking.risk_coverage(np.log(score), risk).aurc == curve.aurc
    assert curve.risk[-1] == pytest.approx(risk.mean())


def test_risk_and_coverage_without_an_answer():
    for score in ([], [1.0], [np.nan, 1.0]):
        curve = ranking.risk_coverage(score, np.arange(len(score)))
        assert np.isnan([curve.aurc, curve.excess_aurc]).all()
    assert (curve.n, curve.undefined, len(curve.risk)) == (1, 1, 1)
    with pytest.raises(ValueError, match="risk holds 1 infinite"):
        ranking.risk_coverage([0.0, 1.0], [0.0, np.inf])
    assert ranking.risk_coverage([0.0, -np.inf], [0.0, 1.0]).risk[0] == 1


# Coverage table


def test_the_coverage_table_is_the_loop():
    random = np.random.default_rng(5)
    mu, quality = random.random((2, 50))
    rows = ranking.coverage_table(-mu, quality, np.arange(50) // 2, resamples=20)
    assert [row.coverage for row in rows] == [1.0, 0.9, 0.7, 0.5]
    for row, n in zip(rows, [50, 45, 35, 25], strict=True):
        kept = sorted(range(50), key=lambda i: mu[i])[50 - n :]
        assert row.estimate.mean == pytest.approx(np.mean(quality[kept]), rel=1e-12)
        assert row.std == pytest.approx(np.std(quality[kept]), rel=1e-12)
        assert (row.estimate.n, row.estimate.patients) == (n, len({i // 2 for i in kept}))
        assert row.estimate.undefined == 0


def test_everything_kept_is_the_mean_with_its_interval():
    random = np.random.default_rng(6)
    score, quality = random.random((2, 40))
    quality[3] = np.nan
    (row,) = ranking.coverage_table(score, quality, np.arange(40) // 4, coverages=(1.0,), resamples=200)
    expected = intervals.bootstrap_mean(quality, np.arange(40) // 4, resamples=200)
    np.testing.assert_allclose(
        [row.estimate.mean, row.estimate.low, row.estimate.high], [expected.mean, expected.low, expected.high]
    )
    assert (row.estimate.n, row.estimate.undefined, row.estimate.patients) == (39, 1, 10)


def test_the_interval_of_a_coverage_ranks_every_resample_anew():
    random = np.random.default_rng(7)
    score, quality = random.random((2, 30))
    _, row = ranking.coverage_table(score, quality, np.arange(30), coverages=(1.0, 0.5), resamples=100, seed=3)
    slow = []
    for times in np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), 100):
        cases = sorted((i for i in range(30) for _ in range(times[i])), key=lambda i: score[i])
        slow.append(np.mean(quality[cases[:15]]))
    np.testing.assert_allclose([row.estimate.low, row.estimate.high], np.percentile(slow, [2.5, 97.5]), rtol=1e-12)


def test_equal_scores_are_kept_in_no_order():
    score, quality = np.array([1, 2, 2, 2]), np.array([0.5, 0.1, 0.2, 0.9])
    (row,) = ranking.coverage_table(score, quality, np.arange(4), coverages=(0.5,), resamples=5)
    kept = [quality[list(order[:2])] for order in orders_by(score)]
    assert row.estimate.mean == pytest.approx(np.mean(kept))
    assert row.std == pytest.approx(np.sqrt(np.mean((kept - np.mean(kept)) ** 2)))
    assert (row.estimate.n, row.estimate.patients) == (2, 4)


def test_a_coverage_keeps_at_least_its_share():
    score = np.arange(30.0)
    rows = ranking.coverage_table(score, score, score, coverages=(0.7, 0.71, 0.001), resamples=2)
    assert [row.estimate.n for row in rows] == [21, 22, 1]  # 0.7 * 30 is a little more than 21 or exactly that
    (row,) = ranking.coverage_table(np.arange(100), np.zeros(100), np.arange(100), coverages=(0.55,), resamples=2)
    assert row.estimate.n == 55  # 0.55 * 100 is 55.00000000000001
    assert row.std == 0


def test_a_table_of_nothing_is_nan_and_wrong_input_is_named():
    nan = np.full(3, np.nan)
    (row,) = ranking.coverage_table(np.arange(3), nan, np.arange(3), coverages=(0.5,), resamples=5)
    assert np.isnan([row.estimate.mean, row.estimate.low, row.estimate.high, row.std]).all()
    assert (row.estimate.n, row.estimate.undefined, row.estimate.patients) == (0, 3, 0)
    with pytest.raises(ValueError, match=r"coverages \(90,\)"):
        ranking.coverage_table(np.arange(3), np.arange(3), np.arange(3), coverages=(90,))
    with pytest.raises(ValueError, match="values holds 1 infinite"):
        ranking.coverage_table(np.arange(2), [0, np.inf], np.arange(2))
    with pytest.raises(ValueError, match=r"score, values \(3,\) and patients \(2,\)"):
        ranking.coverage_table(np.arange(3), np.arange(3), np.arange(2))


# Out of domain


def test_out_of_domain_detection_of_known_scores():
    validation = np.arange(1.0, 101.0)
    found = ranking.ood_accuracy(validation, [1.0, 95.0, 95.5, 200.0], [95.0, 96.0, np.nan])
    assert found.threshold == 95  # 95 of 100 lie at or below
    assert (found.kept, found.detected, found.accuracy) == (0.5, 0.5, 0.5)
    assert (found.validation, found.in_domain, found.out_of_domain, found.undefined) == (100, 4, 2, 1)
    assert ranking.ood_accuracy(validation, [0.0, 96.0], [100.0] * 3, keep=0.955).accuracy == 1
    assert ranking.ood_accuracy(validation, [1000.0], [1000.0], keep=1.0).threshold == 100


@pytest.mark.parametrize("n", [1, 19, 20, 21, 60])
def test_the_threshold_keeps_the_share_and_no_lower_one_does(n):
    validation = np.random.default_rng(n).integers(0, 30, n).astype(float)
    threshold = ranking.ood_accuracy(validation, [], [0.0]).threshold
    assert np.mean(validation <= threshold) >= 0.95
    assert all(np.mean(validation <= lower) < 0.95 for lower in validation if lower < threshold)
    assert threshold in validation


def test_accuracy_counts_the_cases_of_both():
    found = ranking.ood_accuracy([1.0, 2.0], [0.0, 1.0, 5.0], [3.0])
    assert (found.kept, found.detected, found.accuracy) == (2 / 3, 1.0, 0.75)


def test_out_of_domain_detection_without_cases():
    found = ranking.ood_accuracy([1.0], [], [])
    assert np.isnan([found.kept, found.detected, found.accuracy]).all()
    with pytest.raises(ValueError, match="no validation score"):
        ranking.ood_accuracy([np.nan], [1.0], [1.0])
    with pytest.raises(ValueError, match="keep is 95"):
        ranking.ood_accuracy([1.0], [1.0], [1.0], keep=95)
    assert np.isnan(ranking.auroc([], [1.0])) and np.isnan(ranking.auroc([1.0], [np.nan]))
    assert np.isnan(ranking.fpr_at_95([], [1.0])) and np.isnan(ranking.fpr_at_95([1.0], []))


@pytest.mark.parametrize("seed", range(4))
def test_auroc_and_false_positives_are_the_loops(seed):
    random = np.random.default_rng(seed)
    inside, outside = random.integers(0, 20, 33).astype(float), random.integers(8, 28, 41).astype(float)
    wins = [(a < b) + (a == b) / 2 for a in inside for b in outside]
    assert ranking.auroc(inside, outside) == pytest.approx(np.mean(wins), abs=1e-14)
    rates = [np.mean(inside >= t) for t in outside if np.mean(outside >= t) >= 0.95]
    assert ranking.fpr_at_95(inside, outside) == min(rates)


def test_auroc_and_false_positives_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(8)
    inside, outside = random.normal(size=100), random.normal(1, 1, 60).round(1)
    truth, scores = np.repeat([0, 1], [100, 60]), np.concatenate([inside, outside])
    assert ranking.auroc(inside, outside) == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-14)
    false, true, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert ranking.fpr_at_95(inside, outside) == false[true >= 0.95].min()


def test_areas_and_rates_of_known_scores():
    assert ranking.auroc([0, 1], [2, 3]) == 1
    assert ranking.auroc([2, 3], [0, 1]) == 0
    assert ranking.auroc([1, 1], [1]) == 0.5
    assert ranking.auroc([0, 1, np.nan], [2, np.inf]) == 1
    foreign = np.arange(20.0)  # 19 of 20 must be found: the threshold is 1
    assert ranking.fpr_at_95([0.0, 1.0, 2.0, 3.0], foreign) == 0.75
    random = np.random.default_rng(9)
    a, b = random.random((2, 25))
    assert ranking.auroc(a, b) == pytest.approx(1 - ranking.auroc(b, a), abs=1e-14)
    assert ranking.auroc(np.exp(a), np.exp(b)) == ranking.auroc(a, b)


def test_vectors_that_do_not_match_are_named():
    with pytest.raises(ValueError, match=r"score \(3,\) and risk \(2,\) must be vectors"):
        ranking.spearman(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"score \(2, 2\)"):
        ranking.risk_coverage(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"scores \(\) must be vectors"):
        ranking.auroc(1.0, [2.0])
    with pytest.raises(ValueError, match="non-empty"):
        ranking.spearman_estimate([], [], [])


def test_what_rejecting_gains_is_that_over_all_with_a_score():
    score, values = np.array([0.1, 0.4, 0.2, 0.3, np.nan]), np.array([0.9, 0.1, 0.8, 0.6, 0.0])
    assert ranking.kept_gain(score, values, coverage=0.5) == pytest.approx((0.9 + 0.8) / 2 - 0.6)
    assert ranking.kept_gain(score, values, coverage=0.6) == pytest.approx((0.9 + 0.8 + 0.6) / 3 - 0.6)
    assert ranking.kept_gain(score, values, coverage=1.0) == 0
    assert math.isnan(ranking.kept_gain(score[4:], values[4:], coverage=0.5))


def test_a_single_number_has_no_rank():
    with pytest.raises(ValueError, match="values is a single number"):
        ranking.ranks(3.0)
    np.testing.assert_array_equal(ranking.ranks([[3.0, 1.0, 3.0], [np.nan, 2.0, np.inf]]), [[2.5, 1, 2.5], [3, 1, 2]])
