"""Entropy, mutual information, confidence and agreement against loops and closed forms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import uncertainty
from jaxseg.metrics import overlap


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]) / 2, shape[:-1]).astype(np.float32)


def slow_entropy(probabilities):
    values = []
    for case in probabilities.astype(float):
        pixels = case.reshape(-1, case.shape[-1])
        values.append(sum(-p * math.log(p) for pixel in pixels for p in pixel if p > 0) / len(pixels))
    return np.array(values)


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4, 2), (2, 3, 4, 2, 5)])
def test_entropy_and_maximum_are_the_loops(shape):
    probabilities = drawn(*shape)
    probabilities[0].reshape(-1, shape[-1])[0] = np.eye(shape[-1])[0]
    np.testing.assert_allclose(jax.jit(uncertainty.entropy)(probabilities), slow_entropy(probabilities), rtol=1e-5)
    slow = [np.mean([max(pixel) for pixel in case.reshape(-1, shape[-1])]) for case in probabilities]
    np.testing.assert_allclose(jax.jit(uncertainty.maximum_probability)(probabilities), slow, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3, 4, 2, 3), (2, 2, 3, 2, 2, 4), (1, 2, 3)])
def test_ensembles_are_the_loops(shape):
    members = drawn(*shape)
    of_mean = slow_entropy(members.astype(float).mean(0))
    mean_of = np.mean([slow_entropy(member) for member in members], 0)
    np.testing.assert_allclose(jax.jit(uncertainty.ensemble_entropy)(members), of_mean, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(uncertainty.mutual_information)(members), of_mean - mean_of, atol=1e-6)


def test_known_distributions():
    even, certain = np.full((1, 2, 2, 4), 0.25, np.float32), np.tile(np.eye(4, dtype=np.float32)[0], (1, 2, 2, 1))
    np.testing.assert_allclose(uncertainty.entropy(even), math.log(4), rtol=1e-6)
    assert uncertainty.entropy(certain) == 0
    assert (uncertainty.maximum_probability(even), uncertainty.maximum_probability(certain)) == (0.25, 1)
    half = np.concatenate([certain[:, :1], even[:, 1:]], 1)  # certain in half the pixels
    np.testing.assert_allclose(uncertainty.entropy(half), math.log(4) / 2, rtol=1e-6)
    # members that are certain of two different classes differ by ln 2; one member and equal members do not differ
    other = np.roll(certain, 1, -1)
    np.testing.assert_allclose(uncertainty.mutual_information(np.stack([certain, other])), math.log(2), rtol=1e-6)
    assert uncertainty.mutual_information(certain[None]) == 0
    np.testing.assert_array_equal(uncertainty.ensemble_entropy(half[None]), uncertainty.entropy(half))


def test_bounds_and_order():
    members = drawn(6, 40, 3, 3, 5)
    mutual, total = uncertainty.mutual_information(members), uncertainty.ensemble_entropy(members)
    assert (mutual > 0).all() and (mutual < total).all() and (total < math.log(5)).all()
    assert (uncertainty.mutual_information(np.stack([members[0]] * 3)) >= 0).all()
    shuffled = members[::-1, :, ::-1, :, ::-1]  # members, pixels, classes
    np.testing.assert_allclose(uncertainty.mutual_information(shuffled), mutual, rtol=1e-5)


def test_gradients_are_finite_also_for_certain_pixels():
    probabilities = np.array([[[1.0, 0.0], [0.3, 0.7]]], np.float32)
    members = np.stack([probabilities, probabilities[..., ::-1]])

    @jax.jit
    def gradients(probabilities, members):
        slope = lambda measure, of: jax.grad(lambda p: measure(p).sum())(of)
        return (
            slope(uncertainty.entropy, probabilities),
            slope(uncertainty.maximum_probability, probabilities),
            slope(uncertainty.ensemble_entropy, members),
            slope(uncertainty.mutual_information, members),
        )

    found = gradients(probabilities, members)
    assert all(np.isfinite(gradient).all() for gradient in found)
    np.testing.assert_allclose(found[0][0, 1], -(np.log([0.3, 0.7]) + 1) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[0][0, 0], [-0.5, 0], rtol=1e-6)


def test_nan_stays_with_its_case():
    probabilities = drawn(3, 2, 2, 3)
    probabilities[1, 0, 0, 0] = np.nan
    for values in (
        uncertainty.entropy(probabilities),
        uncertainty.maximum_probability(probabilities),
        uncertainty.ensemble_entropy(probabilities[None]),
        uncertainty.mutual_information(np.stack([probabilities, drawn(3, 2, 2, 3)])),
    ):
        np.testing.assert_array_equal(np.isnan(values), [False, True, False])
    assert np.isnan(
        jax.jit(uncertainty.entropy)(np.array([[-0.1, 1.1]], np.float32))
    )  # traced, so that nothing is checked


def test_half_precision_is_summed_in_float32():
    probabilities = drawn(1, 64, 64, 3).astype(jnp.bfloat16)
    values = uncertainty.entropy(probabilities)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, slow_entropy(np.asarray(probabilities, np.float32)), rtol=1e-5)


def slow_pairwise_dice(predictions, num_classes):
    rows = []
    for case in np.moveaxis(predictions, 1, 0):
        scores = []
        for a, b in itertools.combinations(case, 2):
            for k in range(1, num_classes):
                total = (a == k).sum() + (b == k).sum()
                if total:
                    scores.append(2 * ((a == k) & (b == k)).sum() / total)
        rows.append(np.mean(scores) if scores else np.nan)
    return np.array(rows)


@pytest.mark.parametrize("shape", [(4, 3, 5, 4), (2, 3, 2, 3, 3), (3, 1, 6, 6)])
def test_pairwise_dice_is_the_loop(shape):
    predictions = np.random.default_rng(0).integers(0, 4, shape, dtype=np.int32)
    predictions[:, 0] = np.minimum(predictions[:, 0], 1)  # only one class is defined
    predictions[0, 0] = 0  # and not found by one member
    ours = jax.jit(lambda p: uncertainty.pairwise_dice(p, num_classes=4))(predictions)
    np.testing.assert_allclose(ours, slow_pairwise_dice(predictions, 4), rtol=1e-5)
    np.testing.assert_allclose(uncertainty.pairwise_dice(predictions[::-1], num_classes=4), ours, rtol=1e-6)


def test_agreement_of_two_of_equals_and_of_nobody():
    predictions = np.random.default_rng(0).integers(0, 3, (2, 3, 8, 8), dtype=np.int32)
    expected = overlap.dice(*predictions, num_classes=3).mean(-1)
    np.testing.assert_allclose(uncertainty.pairwise_dice(predictions, num_classes=3), expected, rtol=1e-6)
    same = np.stack([predictions[0]] * 4)
    np.testing.assert_array_equal(uncertainty.pairwise_dice(same, num_classes=3), 1)
    assert np.isnan(uncertainty.pairwise_dice(predictions[:1], num_classes=3)).all()
    assert np.isnan(uncertainty.pairwise_dice(0 * predictions, num_classes=3)).all()


def test_what_has_no_uncertainty_is_named():
    with pytest.raises(ValueError, match=r"\[B,...,K\], got \(4,\); keep the batch axis"):
        uncertainty.entropy(np.ones(4))
    with pytest.raises(ValueError, match=r"\[M,B,...,K\], got \(4, 2\)"):
        uncertainty.mutual_information(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"1 class; of one logit z"):
        uncertainty.maximum_probability(np.ones((2, 4, 4, 1)))
    for empty in ((0, 2, 4, 4, 3), (2, 2, 4, 0, 3), (2, 0, 4, 4, 3)):
        with pytest.raises(ValueError, match="empty axis"):
            uncertainty.ensemble_entropy(np.ones(empty))
    with pytest.raises(TypeError, match="int32; take a softmax"):
        uncertainty.entropy(np.ones((2, 2), np.int32))
    labels = np.zeros((2, 1, 4, 4), np.int32)
    for wrong in (labels[0], labels[:0]):
        with pytest.raises(ValueError, match=r"M >= 1, got"):
            uncertainty.pairwise_dice(wrong, num_classes=2)
    for members in (labels, labels[:1]):
        with pytest.raises(ValueError, match="num_classes is 1"):
            uncertainty.pairwise_dice(members, num_classes=1)
        with pytest.raises(TypeError, match="take the argmax"):
            uncertainty.pairwise_dice(members.astype(np.float32), num_classes=2)
