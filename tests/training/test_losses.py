"""Training losses against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.training import losses

dice_loss = jax.jit(losses.dice_loss)
generalised_dice_loss = jax.jit(losses.generalised_dice_loss)
focal_loss = jax.jit(losses.focal_loss, static_argnames="gamma")
triplet_loss = jax.jit(losses.triplet_loss)


def drawn(seed, shape, k):
    """Logits, labels and the probability of every class."""
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(*shape, k)).astype(np.float32), random.integers(0, k, shape)
    return logits, labels, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def certain(k):
    """Logits `[2,1,2,2,K]` of networks that are certain of the background, and certain that it is anything else."""
    logits = np.zeros((2, 1, 2, 2, k), np.float32)
    logits[0, ..., 0], logits[1, ..., 0] = 200, -200
    return logits, np.zeros((1, 2, 2), np.int32)


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 3, 4, 5)])
def test_dice_loss_is_the_mean_over_images_and_classes(shape):
    logits, labels, p = drawn(0, shape, 3)
    terms = []
    for i in range(2):
        for k in (1, 2):
            truth = labels[i] == k
            terms.append((2 * p[i, ..., k][truth].sum() + 1) / (p[i, ..., k].sum() + truth.sum() + 1))
    np.testing.assert_allclose(dice_loss(logits, labels), 1 - np.mean(terms), rtol=1e-5)


def test_a_certain_and_right_network_loses_nothing():
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, 2:5, 2:5] = 1
    logits = 40 * (2 * np.eye(2, dtype=np.float32)[labels] - 1)
    assert dice_loss(logits, labels) < 1e-6
    assert dice_loss(-logits, labels) > 0.9


def test_an_image_without_lesion_has_a_gradient_that_lowers_the_lesion():
    labels = np.zeros((1, 4, 4), np.int32)
    gradient = np.asarray(jax.jit(jax.grad(losses.dice_loss))(np.zeros((1, 4, 4, 2), np.float32), labels))
    assert np.isfinite(gradient).all()
    assert (gradient[..., 1] > 0).all() and (gradient[..., 0] < 0).all()


def test_bfloat16_logits_are_summed_in_float32():
    loss = dice_loss(np.ones((1, 64, 64, 2), jnp.bfloat16), np.ones((1, 64, 64), np.int32))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 1 - (4096 + 1) / (1.5 * 4096 + 1), rtol=1e-5)


def test_generalised_dice_weighs_a_class_by_the_inverse_square_of_its_volume():
    logits, labels, p = drawn(6, (3, 6, 5), 4)
    labels[labels == 3] = 0  # nowhere
    labels[2] = 1  # one class alone
    found = []
    for i in range(3):
        volumes = [int((labels[i] == k).sum()) for k in range(4)]
        smallest = min(v for v in volumes if v)
        above = below = 0.0
        for k, volume in enumerate(volumes):
            weight = 1 / (volume or smallest) ** 2
            above += weight * p[i, ..., k][labels[i] == k].sum()
            below += weight * (p[i, ..., k].sum() + volume)
        found.append(1 - 2 * above / below)
    np.testing.assert_allclose(generalised_dice_loss(logits, labels), np.mean(found), rtol=1e-5)


def test_generalised_dice_of_volumes_whose_squares_no_float_holds():
    labels = np.zeros((1, 256, 256, 256), np.int8)  # the background's is 2^48
    labels[0, 0, 0, 0] = 1
    loss = generalised_dice_loss(np.zeros((*labels.shape, 2), np.float32), labels)
    n = 2.0**24
    weights, volumes = np.array([(n - 1) ** -2, 1]), np.array([n - 1, 1])
    np.testing.assert_allclose(loss, 1 - np.sum(weights * volumes) / np.sum(weights * (n / 2 + volumes)), rtol=1e-5)


def test_shapes_that_do_not_match_are_named():
    with pytest.raises(ValueError, match=r"logits \(1, 4, 4, 2\) must have the labels' shape \(1, 2, 2\)"):
        losses.dice_loss(np.zeros((1, 4, 4, 2), np.float32), np.zeros((1, 2, 2), np.int32))
    with pytest.raises(ValueError, match=r"logits \(2, 4\) and truth \(1, 4\) must have the same shape"):
        losses.binary_cross_entropy(np.zeros((2, 4), np.float32), np.zeros((1, 4), bool))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_is_the_mean_over_pixels(gamma):
    logits, labels, p = drawn(0, (2, 5, 4), 3)
    p = np.take_along_axis(p, labels[..., None], -1)
    expected = np.mean(-((1 - p) ** gamma) * np.log(p))
    np.testing.assert_allclose(focal_loss(logits, labels, gamma=gamma), expected, rtol=1e-5)


def test_focal_loss_of_certain_networks_has_finite_gradients():
    loss, gradient = jax.jit(jax.vmap(jax.value_and_grad(losses.focal_loss), (0, None)))(*certain(2))
    np.testing.assert_allclose(loss, [0, 200], atol=1e-6)
    assert np.isfinite(gradient).all()


def test_binary_cross_entropy_is_the_mean_log_probability():
    logits, truth = np.float32([[0, 2], [-300, 300]]), np.array([[True, False], [False, True]])
    expected = np.mean([np.log(2), np.log1p(np.exp(2)), 0, 0])
    np.testing.assert_allclose(jax.jit(losses.binary_cross_entropy)(logits, truth), expected, rtol=1e-6)


def test_the_triplet_loss_asks_for_a_margin():
    anchor, positive, negative = np.zeros((3, 1, 2, 1, 2), np.float32)
    positive[0, 0, 0] = 3, 4  # distances 5 and 0
    negative[0, 1, 0] = 0, 0.04  # distances 0 and 0.04
    expected = np.mean([5 - 0 + 0.1, 0 - 0.04 + 0.1])
    np.testing.assert_allclose(triplet_loss(anchor, positive, negative), expected, rtol=1e-4)
    assert np.isfinite(jax.jit(jax.grad(losses.triplet_loss))(anchor, anchor, anchor)).all()
    with pytest.raises(ValueError, match="differ"):
        losses.triplet_loss(anchor, positive, negative[:, :1])


@pytest.mark.parametrize("k", [2, 3])
def test_cross_entropy_is_the_mean_log_probability_and_adds_to_dice(k):
    logits, labels, p = drawn(1, (2, 5, 4), k)
    expected = -np.mean(np.log(np.take_along_axis(p, labels[..., None], -1)))
    both = jax.jit(
        lambda *arguments: (
            losses.cross_entropy_loss(*arguments),
            losses.dice_cross_entropy_loss(*arguments, smooth=0.5) - losses.dice_loss(*arguments, smooth=0.5),
        )
    )
    np.testing.assert_allclose(both(logits, labels), expected, rtol=1e-5)


def test_dice_and_focal_add_up():
    logits, labels, _ = drawn(5, (2, 5, 4), 3)
    parts = lambda *of: (
        losses.dice_focal_loss(*of, smooth=0.5, gamma=1.0),
        losses.dice_loss(*of, smooth=0.5),
        losses.focal_loss(*of, gamma=1.0),
    )
    both, dice, focal = map(float, jax.jit(parts)(logits, labels))
    assert both == pytest.approx(dice + focal, rel=1e-6) and min(dice, focal) > 0.1


@pytest.mark.parametrize("k", [2, 3])
def test_dice_bce_takes_each_class_against_the_rest(k):
    logits, labels, p = drawn(2, (2, 5, 4), k)
    p, truth = p[..., 1:], labels[..., None] == np.arange(1, k)
    expected = -np.mean(np.where(truth, np.log(p), np.log(1 - p)))
    found = jax.jit(lambda *arguments: losses.dice_bce_loss(*arguments) - losses.dice_loss(*arguments))(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_dice_bce_of_two_classes_is_that_of_one_logit_to_the_bit():
    random = np.random.default_rng(3)
    z, labels = random.normal(size=(2, 4, 4)).astype(np.float32), random.integers(0, 2, (2, 4, 4))
    logits = np.stack([np.zeros_like(z), z], -1)
    parts = lambda logits, z, labels: losses.dice_loss(logits, labels) + losses.binary_cross_entropy(z, labels == 1)
    assert jax.jit(losses.dice_bce_loss)(logits, labels) == jax.jit(parts)(logits, z, labels)


@pytest.mark.parametrize(
    "loss", [losses.dice_bce_loss, losses.dice_cross_entropy_loss, losses.generalised_dice_cross_entropy_loss]
)
def test_certain_networks_have_finite_gradients(loss):
    assert np.isfinite(jax.jit(jax.vmap(jax.grad(loss), (0, None)))(*certain(3))).all()


@pytest.mark.parametrize("loss", [*losses.LOSSES.values(), losses.focal_loss])
def test_the_mean_over_equal_parts_of_a_batch_is_the_value_of_the_batch(loss):
    logits, labels, _ = drawn(4, (4, 5, 4), 3)
    labels[0] = 0  # one part has an image without foreground
    parts = jax.jit(jax.vmap(loss))(logits.reshape(2, 2, 5, 4, 3), labels.reshape(2, 2, 5, 4))
    np.testing.assert_allclose(np.mean(parts), jax.jit(loss)(logits, labels), rtol=1e-6)
