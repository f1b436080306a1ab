"""Folds: what they promise, for many data sets drawn at random."""

import numpy as np
import pytest

from jaxseg.data import folds
from jaxseg.errors import InputError


def sizes(of_case, strata, count):
    """Cases per fold, and per fold and stratum."""
    return np.bincount(of_case, minlength=count), np.array(
        [np.bincount(of_case[strata == s], minlength=count) for s in np.unique(strata)]
    )


@pytest.mark.parametrize("seed", range(20))
def test_single_cases_differ_by_at_most_one_in_size_and_in_every_stratum(seed):
    random = np.random.default_rng(seed)
    count, n = int(random.integers(2, 7)), int(random.integers(10, 60))
    strata = random.integers(0, 5, n)
    found = folds.stratified_folds(strata, np.arange(n), folds=count, seed=seed)
    total, by_stratum = sizes(found, strata, count)
    assert np.ptp(total) <= 1 and np.ptp(by_stratum, axis=1).max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_whole_and_folds_differ_by_at_most_the_largest(seed):
    random = np.random.default_rng(seed)
    count, n = int(random.integers(2, 6)), int(random.integers(40, 120))
    groups, strata = random.integers(0, 20, n), random.integers(0, 3, n)
    found = folds.stratified_folds(strata, groups, folds=count, seed=seed)
    assert all(len(set(found[groups == g])) == 1 for g in np.unique(groups))
    total, by_stratum = sizes(found, strata, count)
    assert np.ptp(total) <= np.bincount(groups).max()
    assert total.min() > 0
    # better than chance, which is all that can be promised of strata cut across groups
    by_chance = np.random.default_rng(seed).permutation(np.arange(20) % count)[groups]
    assert np.ptp(by_stratum, axis=1).mean() <= np.ptp(sizes(by_chance, strata, count)[1], axis=1).mean()


def test_folds_belong_to_the_cases_whatever_their_order_and_change_with_the_seed():
    random = np.random.default_rng(0)
    groups = np.array([f"patient {i}" for i in random.integers(0, 30, 80)])
    strata = np.array(["small", "large"])[random.integers(0, 2, 80)]
    found = folds.stratified_folds(strata, groups, folds=5, seed=3)
    order = random.permutation(80)
    np.testing.assert_array_equal(folds.stratified_folds(strata[order], groups[order], folds=5, seed=3), found[order])
    assert (folds.stratified_folds(strata, groups, folds=5, seed=4) != found).any()
    assert set(found) == set(range(5))


def test_folds_are_those_that_earlier_versions_drew():
    random = np.random.default_rng(7)
    groups, strata = random.integers(0, 11, 36), random.integers(0, 3, 36)
    found = folds.stratified_folds(strata, groups, folds=4, seed=5)
    assert "".join(map(str, found)) == "332130103111332100020111203122332300"


def test_folds_that_cannot_be_are_named():
    with pytest.raises(InputError, match=r"3 groups of cases \(patients\) for 4 folds"):
        folds.stratified_folds(np.zeros(6), np.arange(6) // 2, folds=4, seed=0)
    with pytest.raises(InputError, match="folds is 1"):
        folds.stratified_folds(np.zeros(6), np.arange(6), folds=1, seed=0)
    with pytest.raises(ValueError, match=r"strata \(6,\) and groups \(5,\)"):
        folds.stratified_folds(np.zeros(6), np.arange(5), folds=2, seed=0)


def test_strata_are_quantiles_of_the_foreground_and_empty_masks_their_own():
    labels = np.zeros((12, 4, 4), np.uint8)
    for i, pixels in enumerate([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 16]):
        labels[i].ravel()[:pixels] = 1 + i % 2
    expected = [0] * 4 + [1, 1, 2, 2, 3, 3, 4, 4]
    np.testing.assert_array_equal(folds.foreground_strata(labels), expected)
    np.testing.assert_array_equal(folds.foreground_strata((labels > 0).mean((1, 2))), expected)
    np.testing.assert_array_equal(folds.foreground_strata(labels, bins=1), [0] * 4 + [1] * 8)
    shares = np.array([0, 0.1, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.5, 0.6, 0.9])
    np.testing.assert_array_equal(folds.foreground_strata(shares, bins=3), [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    assert not folds.foreground_strata(np.zeros((3, 2, 2), int)).any()
    assert len(set(folds.foreground_strata(np.full(5, 0.25)))) == 1
    with pytest.raises(InputError, match="bins is 0"):
        folds.foreground_strata(labels, bins=0)
