"""Training losses against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.training import losses


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 3, 4, 5)])
def test_dice_loss_is_the_mean_over_images_and_classes(shape):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(*shape, 3)).astype(np.float32), random.integers(0, 3, shape)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    terms = []
    for i in range(2):
        for k in (1, 2):
            truth = labels[i] == k
            terms.append((2 * p[i, ..., k][truth].sum() + 1) / (p[i, ..., k].sum() + truth.sum() + 1))
    np.testing.assert_allclose(jax.jit(losses.dice_loss)(logits, labels), 1 - np.mean(terms), rtol=1e-5)


def test_a_certain_and_right_network_loses_nothing():
    labels = jnp.zeros((1, 8, 8), jnp.int32).at[0, 2:5, 2:5].set(1)
    logits = 40 * (2 * jax.nn.one_hot(labels, 2) - 1)
    assert losses.dice_loss(logits, labels) < 1e-6
    assert losses.dice_loss(-logits, labels) > 0.9


def test_an_image_without_lesion_has_a_gradient_that_lowers_the_lesion():
    labels = jnp.zeros((1, 4, 4), jnp.int32)
    gradient = jax.grad(losses.dice_loss)(jnp.zeros((1, 4, 4, 2)), labels)
    assert np.isfinite(gradient).all()
    assert (gradient[..., 1] > 0).all() and (gradient[..., 0] < 0).all()


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.ones((1, 64, 64, 2), jnp.bfloat16)
    loss = losses.dice_loss(logits, jnp.ones((1, 64, 64), jnp.int32))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 1 - (4096 + 1) / (1.5 * 4096 + 1), rtol=1e-5)


def test_shapes_that_do_not_match_are_named():
    with pytest.raises(ValueError, match=r"logits \(1, 4, 4, 2\) must have the labels' shape \(1, 2, 2\)"):
        losses.dice_loss(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 2, 2), jnp.int32))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_is_the_mean_over_pixels(gamma):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(2, 5, 4, 3)).astype(np.float32), random.integers(0, 3, (2, 5, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p = np.take_along_axis(p, labels[..., None], -1)
    expected = np.mean(-((1 - p) ** gamma) * np.log(p))
    np.testing.assert_allclose(losses.focal_loss(logits, labels, gamma=gamma), expected, rtol=1e-5)


def test_focal_loss_of_certain_networks_has_finite_gradients():
    labels = jnp.zeros((1, 2, 2), jnp.int32)
    for certainty in (200.0, -200.0):
        logits = jnp.zeros((1, 2, 2, 2)).at[..., 0].set(certainty)
        loss, gradient = jax.value_and_grad(losses.focal_loss)(logits, labels)
        np.testing.assert_allclose(loss, max(-certainty, 0), atol=1e-6)
        assert np.isfinite(gradient).all()


def test_binary_cross_entropy_is_the_mean_log_probability():
    logits, truth = jnp.array([[0.0, 2.0], [-300.0, 300.0]]), jnp.array([[True, False], [False, True]])
    expected = np.mean([np.log(2), np.log1p(np.exp(2)), 0, 0])
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, truth), expected, rtol=1e-6)


def test_the_triplet_loss_asks_for_a_margin():
    anchor = jnp.zeros((1, 2, 1, 2))
    positive = anchor.at[0, 0, 0].set(jnp.array([3.0, 4.0]))  # distances 5 and 0
    negative = anchor.at[0, 1, 0].set(jnp.array([0.0, 0.04]))  # distances 0 and 0.04
    expected = np.mean([5 - 0 + 0.1, 0 - 0.04 + 0.1])
    np.testing.assert_allclose(losses.triplet_loss(anchor, positive, negative), expected, rtol=1e-4)
    assert np.isfinite(jax.grad(losses.triplet_loss)(anchor, anchor, anchor)).all()
    with pytest.raises(ValueError, match="differ"):
        losses.triplet_loss(anchor, positive, negative[:, :1])


@pytest.mark.parametrize("k", [2, 3])
def test_cross_entropy_is_the_mean_log_probability_and_adds_to_dice(k):
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(2, 5, 4, k)).astype(np.float32), random.integers(0, k, (2, 5, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.mean(np.log(np.take_along_axis(p, labels[..., None], -1)))
    np.testing.assert_allclose(losses.cross_entropy_loss(logits, labels), expected, rtol=1e-5)
    np.testing.assert_allclose(
        losses.dice_cross_entropy_loss(logits, labels, smooth=0.5),
        losses.dice_loss(logits, labels, smooth=0.5) + expected,
        rtol=1e-5,
    )


@pytest.mark.parametrize("k", [2, 3])
def test_dice_bce_takes_each_class_against_the_rest(k):
    random = np.random.default_rng(2)
    logits, labels = random.normal(size=(2, 5, 4, k)).astype(np.float32), random.integers(0, k, (2, 5, 4))
    p = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))[..., 1:]
    truth = labels[..., None] == np.arange(1, k)
    expected = -np.mean(np.where(truth, np.log(p), np.log(1 - p)))
    found = losses.dice_bce_loss(logits, labels) - losses.dice_loss(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_dice_bce_of_two_classes_is_that_of_one_logit_to_the_bit():
    random = np.random.default_rng(3)
    z, labels = jnp.asarray(random.normal(size=(2, 4, 4)), jnp.float32), jnp.asarray(random.integers(0, 2, (2, 4, 4)))
    logits = jnp.stack([jnp.zeros_like(z), z], -1)
    expected = losses.dice_loss(logits, labels) + losses.binary_cross_entropy(z, labels == 1)
    assert losses.dice_bce_loss(logits, labels) == expected


@pytest.mark.parametrize("loss", [losses.dice_bce_loss, losses.dice_cross_entropy_loss])
def test_certain_networks_have_finite_gradients(loss):
    labels = jnp.zeros((1, 2, 2), jnp.int32)
    for certainty in (200.0, -200.0):
        logits = jnp.zeros((1, 2, 2, 3)).at[..., 0].set(certainty)
        assert np.isfinite(jax.grad(loss)(logits, labels)).all()


@pytest.mark.parametrize(
    "loss",
    [
        losses.dice_loss,
        losses.cross_entropy_loss,
        losses.focal_loss,
        losses.dice_focal_loss,
        losses.dice_cross_entropy_loss,
        losses.dice_bce_loss,
    ],
)
def test_the_mean_over_equal_parts_of_a_batch_is_the_value_of_the_batch(loss):
    random = np.random.default_rng(4)
    logits = jnp.asarray(random.normal(size=(4, 5, 4, 3)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 3, (4, 5, 4)))
    labels = labels.at[0].set(0)  # one part has an image without foreground
    parts = [loss(logits[i : i + 2], labels[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(np.mean(parts), loss(logits, labels), rtol=1e-6)
