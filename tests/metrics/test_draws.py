"""Patients are drawn with replacement, within their strata, as numpy draws them."""

import numpy as np
import pytest

from jaxseg.metrics import draws


def test_every_resample_has_as_many_patients_as_there_are_in_each_stratum():
    strata = (1, 0, 1, 1, 0, 0, 0)
    drawn = draws.of_patients(7, 300, 4, strata=strata)
    of = np.array(strata)
    for stratum, count in ((0, 4), (1, 3)):
        np.testing.assert_array_equal(drawn[:, of == stratum].sum(1), count)
    np.testing.assert_allclose(drawn.mean(0), 1, atol=0.25)
    alone = np.random.default_rng(4).multinomial(4, np.full(4, 0.25), 300)  # the first stratum comes first
    np.testing.assert_array_equal(drawn[:, of == 0], alone)
    np.testing.assert_array_equal(draws.of_patients(4, 300, 4), alone)


def test_a_case_is_drawn_as_often_as_its_patient():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = draws.of_patients(3, 50, 1)
    for times, cases in zip(drawn, draws.of_cases(patients, 50, 1), strict=True):
        counts = np.bincount(cases, minlength=6)
        np.testing.assert_array_equal(counts, times[[1, 0, 1, 2, 0, 1]])


def test_totals_are_sums_over_the_drawn_and_the_draws_take_few_bytes():
    values = np.random.default_rng(0).normal(size=300)
    drawn = draws.of_patients(300, 290, 2)
    sums = [sum(count * value for count, value in zip(times.tolist(), values, strict=True)) for times in drawn]
    np.testing.assert_allclose(draws.totals(drawn, values), sums, rtol=0, atol=1e-11)
    assert drawn.itemsize == 2 and draws.of_patients(9, 4, 2).itemsize == 1
    np.testing.assert_array_equal(draws.totals(drawn, np.ones(300)), 300)


@pytest.mark.parametrize("patients", [4, 5])
def test_halves_are_of_one_size_share_nobody_and_take_everyone_alike(patients):
    first, second = draws.halves(patients, 2000, 0)
    assert (first.sum(1) == 2).all() and (second.sum(1) == 2).all() and not (first * second).any()
    np.testing.assert_allclose([first.mean(0), second.mean(0)], 2 / patients, atol=0.05)
    np.testing.assert_array_equal(draws.halves(patients, 2000, 0)[0], first)
