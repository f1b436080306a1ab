"""Variance of gradients: by loops, in a stream, and through a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import vog

SHAPES = [(5, 3, 4, 6, 2), (4, 2, 3, 4, 5, 3)]


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def slow_vog(gradients):
    scores = []
    for image in np.moveaxis(gradients.astype(float), 1, 0):
        total = 0.0
        for pixel in image.mean(-1).reshape(len(image), -1).T:
            middle = sum(pixel) / len(pixel)
            total += np.sqrt(sum((value - middle) ** 2 for value in pixel) / len(pixel))
        scores.append(total / image[0, ..., 0].size)
    return scores


def streamed(gradients):
    state = vog.init(gradients[0].shape[:-1])
    for one in gradients:
        state = vog.update(state, one)
    return state


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0, 100])
def test_variance_of_gradients_is_the_loop_at_once_and_in_a_stream(shape, mean):
    gradients = drawn(*shape) + np.float32(mean)
    expected = slow_vog(gradients)
    np.testing.assert_allclose(vog.variance_of_gradients(gradients), expected, rtol=2e-5)
    np.testing.assert_allclose(jax.jit(vog.variance_of_gradients)(gradients), expected, rtol=2e-5)
    np.testing.assert_allclose(vog.compute(streamed(gradients)), expected, rtol=2e-5)


def test_by_hand_it_is_the_deviation_of_the_mean_channel():
    # two checkpoints, one pixel: channel means 1 and 5, so the standard deviation is 2; opposite channels cancel
    gradients = np.array([[0, 2], [6, 4]], np.float32).reshape(2, 1, 1, 1, 2)
    np.testing.assert_allclose(vog.variance_of_gradients(gradients), [2])
    np.testing.assert_allclose(vog.variance_of_gradients(gradients * np.array([1, -1], np.float32)), [1])


def test_merged_streams_are_one_stream_in_any_order():
    gradients = drawn(7, 3, 4, 4, 2)
    whole = vog.compute(streamed(gradients))
    parts = [streamed(part) for part in (gradients[5:], gradients[:1], gradients[1:5])]
    merged = vog.merge(vog.merge(parts[0], parts[1]), parts[2])
    np.testing.assert_allclose(vog.compute(merged), whole, rtol=1e-5)
    nothing = vog.init((3, 4, 4))
    np.testing.assert_allclose(vog.compute(vog.merge(nothing, merged)), whole, rtol=1e-5)
    np.testing.assert_allclose(vog.compute(vog.merge(merged, nothing)), whole, rtol=1e-5)
    np.testing.assert_allclose(vog.compute(vog.merge(vog.merge(nothing, nothing), merged)), whole, rtol=1e-5)
    assert merged.checkpoints == 7


def test_it_scales_with_the_gradients_and_ignores_what_stays():
    gradients = drawn(4, 3, 5, 5, 2)
    scores = np.asarray(vog.variance_of_gradients(gradients))
    np.testing.assert_allclose(vog.variance_of_gradients(-3 * gradients), 3 * scores, rtol=1e-5)
    np.testing.assert_allclose(vog.variance_of_gradients(gradients + drawn(3, 5, 5, 2, seed=1)), scores, rtol=1e-4)
    np.testing.assert_array_equal(vog.variance_of_gradients(np.ones_like(gradients)), 0)
    order = [2, 0, 1]
    np.testing.assert_allclose(vog.variance_of_gradients(gradients[:, order]), scores[order], rtol=1e-6)


def test_fewer_than_two_checkpoints_say_nothing():
    gradients = drawn(2, 3, 4, 4, 1)
    assert np.isnan(vog.variance_of_gradients(gradients[:1])).all()
    assert np.isnan(vog.compute(streamed(gradients[:1]))).all()
    assert np.isnan(vog.compute(vog.init((3, 4, 4)))).all()
    assert np.isfinite(vog.compute(streamed(gradients))).all()


def test_nan_stays_with_its_image_and_slopes_are_finite():
    gradients = drawn(3, 2, 4, 4, 1)
    gradients[1, 0, 2, 2] = np.nan
    for scores in (vog.variance_of_gradients(gradients), vog.compute(streamed(gradients))):
        np.testing.assert_array_equal(np.isnan(scores), [True, False])
    still = drawn(3, 2, 4, 4, 1)
    still[:, 0] = 1
    slope = jax.jit(jax.grad(lambda g: jnp.sum(vog.variance_of_gradients(g))))(still)
    assert np.isfinite(slope).all() and np.abs(slope[:, 1]).max() > 0


WEIGHTS = drawn(3, 4, seed=5)


def linear(images):
    return jnp.matmul(images, WEIGHTS, precision="highest")


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 2, 3, 4, 3)])
def test_of_a_linear_network_the_gradient_is_the_weights_of_each_pixels_class(shape):
    images = drawn(*shape)
    predicted = np.argmax(images @ WEIGHTS, -1)
    assert len(np.unique(predicted)) > 1
    found = jax.jit(lambda x: vog.input_gradients(linear, x))(images)
    np.testing.assert_allclose(found, WEIGHTS.T[predicted], atol=1e-6)
    labels = np.random.default_rng(0).integers(0, 4, shape[:-1], dtype=np.int32)
    np.testing.assert_allclose(vog.input_gradients(linear, images, labels=labels), WEIGHTS.T[labels], atol=1e-6)
    ignored = np.where(labels == 0, 255, labels)
    expected = np.where((labels == 0)[..., None], 0, WEIGHTS.T[labels])
    np.testing.assert_allclose(vog.input_gradients(linear, images, labels=ignored), expected, atol=1e-6)


def test_through_a_network_over_checkpoints(drawn_variables):
    module = models.build("unet", 2, features=(2, 4))
    images = drawn(2, 8, 8, 1)
    start = drawn_variables(module, images)

    @jax.jit
    def gradients_of(variables):
        logits_from = lambda x: module.apply(variables, x)
        return vog.input_gradients(logits_from, images), jnp.argmax(logits_from(images), -1)

    @jax.jit
    def score(x, labels):
        return jnp.take_along_axis(module.apply(start, x), labels[..., None], -1)

    gradients, labels = gradients_of(start)
    step = np.float32(1e-4)
    directions = drawn(6, *images.shape)
    sums = lambda d: np.sum(np.asarray(score(images + step * d, labels), np.float64))
    measured = [(sums(d) - sums(-d)) / (2 * float(step)) for d in directions]
    expected = np.sum(np.asarray(gradients) * directions, (1, 2, 3, 4))
    # the kinks of the ReLU and rounding leave some percent
    assert np.linalg.norm(measured - expected) < 0.08 * np.linalg.norm(expected)

    checkpoints = [jax.tree.map(lambda leaf, s=scale: leaf * np.float32(s), start) for scale in (1.0, 1.1, 1.3)]
    gradients = [np.asarray(gradients_of(variables)[0]) for variables in checkpoints]
    expected = np.asarray(vog.variance_of_gradients(np.stack(gradients)))
    assert (expected > 0).all()
    np.testing.assert_allclose(vog.compute(streamed(gradients)), expected, rtol=1e-4)


def test_what_does_not_fit_is_refused():
    images = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="batch axis"):
        vog.input_gradients(linear, images[0])
    with pytest.raises(ValueError, match=r"logits \(2, 4, 4\) and images \(2, 4, 4, 3\) differ in rank"):
        vog.input_gradients(lambda x: linear(x)[..., 0], images)
    with pytest.raises(TypeError, match="images must be floating, got uint8"):
        vog.input_gradients(linear, images.astype(np.uint8))
    with pytest.raises(ValueError, match=r"labels \(2, 4\) and logits \(2, 4, 4, 4\)"):
        vog.input_gradients(linear, images, labels=np.zeros((2, 4), np.int32))
    with pytest.raises(TypeError, match="labels must be integer"):
        vog.input_gradients(linear, images, labels=images[..., 0])
    with pytest.raises(ValueError, match="stack those of all checkpoints"):
        vog.variance_of_gradients(images)
    for empty in (images[None, :, :0], images[None, :, :, :0], images[None, ..., :0]):
        with pytest.raises(ValueError, match="with pixels, got"):
            vog.variance_of_gradients(empty)
    for shape in ((2, 0, 4), (2, 4, 0)):
        with pytest.raises(ValueError, match="with pixels, got"):
            vog.init(shape)
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 0\) do not fit the statistics"):
        vog.update(vog.init((2, 4, 4)), images[..., :0])
    with pytest.raises(TypeError, match="gradients must be floating"):
        vog.variance_of_gradients(images[None].astype(np.int32))
    with pytest.raises(ValueError, match="leave out the channels"):
        vog.init((2, 4, 4, 4, 3))
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 3\) do not fit the statistics of images \(2, 4, 4\)"):
        vog.update(vog.init((2, 4, 4)), images[:1])
    with pytest.raises(TypeError, match="gradients must be floating"):
        vog.update(vog.init((2, 4, 4)), images.astype(np.int32))
    with pytest.raises(ValueError, match="of the same images"):
        vog.merge(vog.init((2, 4, 4)), vog.init((1, 4, 4)))
