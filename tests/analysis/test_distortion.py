"""Segmentation distortion against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import distortion


def draw(shape=(3, 4, 5, 3), seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=shape).astype(np.float32) for _ in range(2))


def softmax(x):
    e = np.exp(x.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("shape", [(3, 4, 5, 3), (2, 3, 4, 2, 4)])
def test_it_is_the_mean_over_pixels_and_classes(shape):
    before, after = draw(shape)
    expected = []
    for a, b in zip(softmax(before), softmax(after), strict=True):
        total = 0.0
        for index in np.ndindex(*shape[1:]):
            total += (a[index] - b[index]) ** 2
        expected.append(total)
    pixels = np.prod(shape[1:])
    run = jax.jit(distortion.segmentation_distortion, static_argnames="reduction")
    np.testing.assert_allclose(run(before, after), np.array(expected) / pixels, rtol=1e-5)
    np.testing.assert_allclose(run(before, after, reduction="sum"), expected, rtol=1e-5)
    spread = np.asarray(distortion.distortion_map(before, after))
    assert spread.shape == shape[:-1]
    np.testing.assert_allclose(spread.mean(tuple(range(1, len(shape) - 1))), run(before, after), rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
def test_bounds_symmetry_and_shifts(classes):
    certain, other = (np.tile(np.float32(500) * np.eye(classes, dtype=np.float32)[k], (1, 2, 2, 1)) for k in (0, 1))
    run = distortion.segmentation_distortion
    assert run(certain, certain)[0] == 0
    np.testing.assert_allclose(run(certain, other), 2 / classes, rtol=1e-6)
    before, after = draw()
    np.testing.assert_allclose(run(before, after), run(after, before), rtol=1e-6)
    np.testing.assert_allclose(run(before + 7, after - 3), run(before, after), rtol=1e-4)  # logits have no zero
    order = np.random.default_rng(1).permutation(20)
    shuffled = (x.reshape(3, 20, 1, 3)[:, order] for x in (before, after))
    np.testing.assert_allclose(run(*shuffled), run(before, after), rtol=1e-5)


def test_nan_stays_in_its_image_and_gradients_are_finite():
    before, after = draw()
    gradient = jax.jit(jax.grad(lambda x: distortion.segmentation_distortion(before, x).sum()))(300 * after)
    assert np.isfinite(gradient).all()
    before[1, 0, 0, 0] = np.nan
    assert np.isnan(distortion.segmentation_distortion(before, after)).tolist() == [False, True, False]


def test_the_autoencoders_loss_is_the_sum_of_two_mean_squares():
    before, after = draw()
    x, r = draw((3, 2, 2, 8), 1)
    expected = np.mean((before - after) ** 2) + np.mean((x - r) ** 2)
    np.testing.assert_allclose(jax.jit(distortion.autoencoder_loss)(before, after, x, r), expected, rtol=1e-5)
    assert distortion.autoencoder_loss(before, before, x, x) == 0
    by_logits, by_reconstruction = jax.jit(jax.grad(distortion.autoencoder_loss, (1, 3)))(before, after, x, r)
    np.testing.assert_allclose(by_logits, 2 * (after - before) / before.size, atol=1e-6)
    np.testing.assert_allclose(by_reconstruction, 2 * (r - x) / x.size, atol=1e-6)


def test_half_precision_is_computed_in_float32():
    before, after = (x.astype(jnp.bfloat16) for x in draw())
    exact = distortion.segmentation_distortion(before.astype(np.float32), after.astype(np.float32))
    found = distortion.segmentation_distortion(before, after)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_arguments_that_cannot_be_are_named():
    x = np.zeros((1, 4, 4, 2))
    with pytest.raises(ValueError, match=r"reconstructed_logits \(1, 4, 4, 3\) must have the shape of the original"):
        distortion.segmentation_distortion(x, np.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match="must be"):
        distortion.distortion_map(x[0], x[0])
    with pytest.raises(ValueError, match=r"reconstruction \(1, 2, 2, 8\)"):
        distortion.autoencoder_loss(x, x, np.zeros((1, 2, 2, 4)), np.zeros((1, 2, 2, 8)))
    with pytest.raises(TypeError, match="got int32"):
        distortion.segmentation_distortion(x.astype(np.int32), x.astype(np.int32))
    with pytest.raises(ValueError, match=r"logits \(1, 4, 4, 1\) have one class"):
        distortion.segmentation_distortion(x[..., :1], x[..., :1])
    with pytest.raises(ValueError, match="reduction is 'max'; choose one of mean, sum"):
        distortion.segmentation_distortion(x, x, reduction="max")


def test_the_loss_of_no_images_is_refused():
    logits, activations = np.zeros((0, 4, 4, 2), np.float32), np.zeros((0, 2, 2, 8), np.float32)
    with pytest.raises(ValueError, match="empty, and have no mean"):
        distortion.autoencoder_loss(logits, logits, activations, activations)
    assert distortion.segmentation_distortion(logits, logits).shape == (0,)
