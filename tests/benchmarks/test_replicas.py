"""The benchmark of replicas in its smallest size: its two sides do the same, and what a row says of them."""

import jax
import numpy as np
import pytest

from jaxseg.benchmarks import replicas, timing


def test_both_sides_take_the_same_step(ticking, monkeypatch):
    ticking(1.0, 2.0, 4.0)  # the first step of both folds together, and of each
    sides = []

    def compare(together, apart, rounds):
        sides.append((together(), apart(), together.__self__._program.members))
        return timing.Comparison((0.25,), (0.75,))

    monkeypatch.setattr(timing, "compare", compare)
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
        found = replicas.run(rounds=1, settings=(replicas.Setting((2, 4), 8, 4),), folds=2)
    [row] = found["replicas"]
    assert row.pop("largest_difference") < 1e-5
    assert row == {
        "network": "2-4, 8 px, batch 4",
        "milliseconds": 250,
        "milliseconds_apart": 750,
        "ratio": 3,
        "first_step_seconds": 1,
        "first_step_seconds_apart": 6,
    }
    [(together, apart, members)] = sides
    for fold, member in enumerate(members):
        np.testing.assert_array_equal(member.validation.index, np.arange(fold, 100, 2))
        np.testing.assert_array_equal(member.train.index, np.arange(1 - fold, 100, 2))
        np.testing.assert_allclose(np.ravel(together["loss"])[fold], np.ravel(apart[fold]["loss"])[0], rtol=1e-5)


def test_the_drawn_cases_have_a_brighter_square():
    cases = replicas._cases(30)
    assert cases.images.shape == (100, 30, 30, 3) and len(cases.cases) == 100
    corners = np.array([np.argwhere(mask).min(0) for mask in cases.labels])
    assert corners.min() == 0 and corners.max() == 14  # in the upper left quarter
    for mask, corner in zip(cases.labels, corners, strict=True):
        inside = np.zeros((30, 30), np.uint8)
        inside[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = 1
        np.testing.assert_array_equal(mask, inside)
    inside, outside = cases.images[cases.labels == 1], cases.images[cases.labels == 0]
    assert (inside.min(), inside.max(), outside.min(), outside.max()) == (80, 199, 0, 119)


@pytest.mark.parametrize(("backend", "settings"), [("cpu", replicas.CPU), ("gpu", replicas.ACCELERATOR)])
def test_an_accelerator_has_larger_networks_too(monkeypatch, backend, settings):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(replicas, "_compare", lambda *of: of)
    monkeypatch.setattr(timing, "machine", lambda: "here")
    assert replicas.run(rounds=2) == {"machine": "here", "replicas": [(one, 2, 5) for one in settings]}
