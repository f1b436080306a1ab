"""Grad-CAM of segmentations: by loops, by hand, and through a network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import gradcam
from jaxseg.models import capture

SHAPES = [(2, 4, 5, 3), (2, 3, 2, 4, 3)]


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def slow_resize(array, size):
    """Linear, half-pixel centres, the border pixel beyond the border; `[*s] -> [*size]`, larger."""
    out = np.zeros(size)
    for target in itertools.product(*map(range, size)):
        corners = []
        for i, m, n in zip(target, array.shape, size, strict=True):
            position = min(max((i + 0.5) * m / n - 0.5, 0), m - 1)
            low = min(int(position), max(m - 2, 0))
            part = position - low
            corners.append([(low, 1 - part), (min(low + 1, m - 1), part)])
        for corner in itertools.product(*corners):
            out[target] += np.prod([weight for _, weight in corner]) * array[tuple(index for index, _ in corner)]
    return out


def slow_gradcam(activations, gradients, size=None, normalise=True):
    maps = []
    for a, g in zip(activations.astype(float), gradients.astype(float), strict=True):
        saliency = np.zeros(a.shape[:-1])
        for c in range(a.shape[-1]):
            saliency += g[..., c].mean() * a[..., c]
        saliency = np.maximum(saliency, 0)
        if size is not None:
            saliency = slow_resize(saliency, size)
        maps.append(saliency / saliency.max() if normalise and saliency.max() > 0 else saliency)
    return np.stack(maps)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("factor", "normalise"), [(None, False), (3, True)])
def test_gradcam_is_the_loop_also_jitted(shape, factor, normalise):
    activations, gradients = drawn(*shape), drawn(*shape, seed=1) + 0.2
    size = None if factor is None else tuple(factor * n + 1 for n in shape[1:-1])
    run = lambda a, g: gradcam.gradcam(a, g, size=size, normalise=normalise)
    expected = slow_gradcam(activations, gradients, size, normalise)
    assert expected.max() > 0.1
    np.testing.assert_allclose(run(activations, gradients), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(run)(activations, gradients), expected, atol=1e-5)


def test_gradcam_by_hand():
    activations = np.array([[[[1, 2]], [[3, 4]]]], np.float32)  # two pixels, two channels
    gradients = np.array([[[[3, -1]], [[1, -1]]]], np.float32)  # channel means 2 and -1
    np.testing.assert_allclose(gradcam.gradcam(activations, gradients, normalise=False)[0, :, 0], [0, 2])
    np.testing.assert_allclose(gradcam.gradcam(activations, -gradients, normalise=False)[0, :, 0], [0, 0])
    np.testing.assert_allclose(gradcam.gradcam(activations, gradients)[0, :, 0], [0, 1])


def test_gradcam_is_bounded_and_blind_to_scale_and_order():
    activations, gradients = drawn(3, 5, 4, 6), drawn(3, 5, 4, 6, seed=1) + 0.3
    saliency = gradcam.gradcam(activations, gradients)
    np.testing.assert_allclose(saliency.max((1, 2)), 1)
    assert saliency.min() == 0
    scaled = gradcam.gradcam(
        activations * np.float32(7), gradients * np.array([1, 1e-3, 1e3], np.float32)[:, None, None, None]
    )
    np.testing.assert_allclose(scaled, saliency, atol=1e-5)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(gradcam.gradcam(activations[..., order], gradients[..., order]), saliency, atol=1e-5)


def test_maps_without_saliency_stay_zero_and_nan_stays_with_its_image():
    activations, gradients = np.ones((2, 3, 2, 2, 1), np.float32)
    activations[2, 0, 0, 0], gradients[0] = np.nan, -1
    saliency = gradcam.gradcam(activations, gradients, size=(4, 4))
    np.testing.assert_array_equal(saliency[0], 0)
    np.testing.assert_array_equal(saliency[1], 1)
    assert np.isnan(saliency[2]).any()


def test_gradcam_has_finite_slopes_and_takes_bfloat16():
    activations, gradients = drawn(2, 3, 3, 2), drawn(2, 3, 3, 2, seed=1)
    activations[0] = 0
    slope = jax.jit(jax.grad(lambda a, g: jnp.sum(gradcam.gradcam(a, g, size=(6, 6)) ** 2), (0, 1)))
    slopes = slope(activations, gradients)
    assert all(np.isfinite(slope).all() for slope in slopes) and np.abs(slopes[0][1]).max() > 0
    half = gradcam.gradcam(activations.astype(jnp.bfloat16), gradients)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, gradcam.gradcam(activations, gradients), atol=0.05)


WEIGHTS = drawn(3, 4, seed=5)


def linear(activations):
    return jnp.matmul(activations, WEIGHTS, precision="highest")


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_linear_network_the_gradient_is_its_weights_on_the_region(shape):
    activations = drawn(*shape)
    region = np.random.default_rng(3).random(shape[:-1]) < 0.5
    for weights in (region, (0.5 * region).astype(np.float32)):
        run = jax.jit(lambda a, w: gradcam.score_gradients(linear, a, class_index=2, region=w))
        found = run(activations, weights)
        np.testing.assert_allclose(found, weights[..., None] * WEIGHTS[:, 2], atol=1e-6)


def test_a_region_of_logits_or_of_0_and_255_is_no_region():
    activations = np.random.default_rng(2).standard_normal((2, 3, 3, 4)).astype(np.float32)
    for region in (activations[..., 0], 255 * (activations[..., 0] > 0).astype(np.float32)):
        with pytest.raises(ValueError, match=r"region \(2, 3, 3\) holds values from .* 0 to 1"):
            gradcam.score_gradients(lambda x: x, activations, class_index=1, region=region)


def test_by_default_the_region_is_the_predicted_class():
    activations = drawn(2, 6, 6, 3)
    predicted = np.argmax(activations @ WEIGHTS, -1)
    run = jax.jit(lambda a: [gradcam.score_gradients(linear, a, class_index=index) for index in range(4)])
    for index, found in enumerate(run(activations)):
        np.testing.assert_allclose(found, (predicted == index)[..., None] * WEIGHTS[:, index], atol=1e-6)
    assert len(np.unique(predicted)) > 1


def test_an_empty_region_has_neither_gradient_nor_saliency():
    activations = drawn(2, 3, 3, 3)
    region = np.zeros((2, 3, 3), bool)
    region[0] = True
    gradients = gradcam.score_gradients(linear, activations, class_index=0, region=region)
    assert not np.asarray(gradients[1]).any() and np.asarray(gradients[0]).any()
    saliency = gradcam.gradcam(activations, gradients)
    assert np.isnan(gradcam.saliency_share(saliency, ~region)[1])


@pytest.fixture(scope="module")
def network(drawn_variables):
    module = models.build("unet", 2, features=(4, 6))
    images = drawn(2, 8, 8, 3)
    return module, drawn_variables(module, images), images


@pytest.mark.parametrize("layer", ["bottleneck", "encoder_0"])
def test_gradients_through_a_network_are_those_of_finite_differences(network, layer):
    module, variables, images = network
    logits_from = lambda x: capture.replace(module, variables, images, {layer: lambda _: x})
    logits, captured = jax.jit(lambda x: capture.capture(module, variables, x, [layer]))(images)
    # beside the true activation, whose zeros tie in the pooling: there the slopes of the two sides differ
    activations = np.asarray(captured[layer]) + np.float32(0.05) * drawn(*captured[layer].shape, seed=9)

    @jax.jit
    def run(x):
        gradients = gradcam.score_gradients(logits_from, x, class_index=1)
        return logits_from(x), gradients, gradcam.gradcam(x, gradients, size=images.shape[1:-1])

    np.testing.assert_allclose(run(captured[layer])[0], logits, atol=1e-5)
    replaced, gradients, saliency = run(activations)
    assert gradients.shape == activations.shape
    region = np.argmax(replaced, -1) == 1
    assert 0.02 < region.mean() < 0.98
    score = lambda x: float(np.sum(np.asarray(run(x)[0], np.float64)[..., 1][region]))
    step = np.float32(1e-4)
    directions = drawn(6, *activations.shape)
    measured = [(score(activations + step * d) - score(activations - step * d)) / (2 * float(step)) for d in directions]
    expected = np.sum(np.asarray(gradients) * directions, (1, 2, 3, 4))
    assert np.linalg.norm(measured - expected) < 0.03 * np.linalg.norm(expected)
    expected = slow_gradcam(activations, np.asarray(gradients), images.shape[1:-1])
    np.testing.assert_allclose(saliency, expected, atol=1e-4)


def test_a_network_that_only_looks_at_the_overlay_has_its_saliency_there():
    overlay = np.zeros((2, 8, 8), bool)
    overlay[:, 1:3, 2:7] = True
    evidence = np.maximum(drawn(2, 8, 8), 0) * overlay
    activations = np.stack([evidence, np.abs(drawn(2, 8, 8, seed=1))], -1).astype(np.float32)

    def logits_from(x):  # the first channel speaks for class 1 everywhere, the second for nothing
        z = jnp.mean(x[..., 0], (1, 2), keepdims=True) + 0 * x[..., 1]
        return jnp.stack([-z, z], -1)

    @jax.jit
    def share(class_index, region):
        gradients = gradcam.score_gradients(logits_from, activations, class_index=class_index, region=region)
        return gradcam.saliency_share(gradcam.gradcam(activations, gradients), overlay)

    np.testing.assert_allclose(share(1, None), 1, rtol=1e-6)
    assert np.isnan(share(0, np.ones((2, 8, 8), bool))).all()


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 2, 4, 5)])
def test_saliency_share_is_the_loop_and_the_area_for_flat_maps(shape):
    saliency = np.abs(drawn(*shape))
    region = np.random.default_rng(0).random(shape) < 0.3
    expected = [s[r].sum() / s.sum() for s, r in zip(saliency.astype(float), region, strict=True)]
    np.testing.assert_allclose(jax.jit(gradcam.saliency_share)(saliency, region), expected, rtol=1e-5)
    np.testing.assert_allclose(gradcam.saliency_share(5 * saliency, region.astype(np.float32)), expected, rtol=1e-5)
    rest = gradcam.saliency_share(saliency, ~region)
    np.testing.assert_allclose(rest + gradcam.saliency_share(saliency, region), 1, rtol=1e-5)
    flat = gradcam.saliency_share(np.ones(shape, np.float32), region)
    np.testing.assert_allclose(flat, region.reshape(3, -1).mean(1), rtol=1e-5)


def test_saliency_share_of_nothing_is_undefined_with_finite_slopes():
    saliency = np.float32([0, 1, np.nan])[:, None, None] * np.ones((3, 3, 3), np.float32)
    region = np.zeros((3, 3, 3), bool)
    np.testing.assert_array_equal(gradcam.saliency_share(saliency, region), [np.nan, 0, np.nan])
    region[:, 0] = True
    slope = jax.jit(jax.grad(lambda s: jnp.nansum(gradcam.saliency_share(s, region[:2]))))(saliency[:2])
    assert np.isfinite(slope).all() and np.abs(slope[1]).max() > 0


def test_what_does_not_fit_is_refused():
    maps = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="batch axis"):
        gradcam.gradcam(maps[0], maps[0])
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 3\) and gradients \(1, 4, 4, 3\)"):
        gradcam.gradcam(maps, maps[:1])
    with pytest.raises(TypeError, match="gradients must be floating, got int32"):
        gradcam.gradcam(maps, maps.astype(np.int32))
    for size in [(8,), (8, 8, 8), (0, 8)]:
        with pytest.raises(ValueError, match="give 2 sizes"):
            gradcam.gradcam(maps, maps, size=size)
    for index in (-1, 4):
        with pytest.raises(ValueError, match=f"class_index is {index}, but the logits have classes 0 to 3"):
            gradcam.score_gradients(linear, maps, class_index=index)
    with pytest.raises(ValueError, match=r"region \(2, 2, 2\) and logits \(2, 4, 4, 4\)"):
        gradcam.score_gradients(linear, maps, class_index=0, region=np.zeros((2, 2, 2), bool))
    with pytest.raises(TypeError, match="compare labels with a class"):
        gradcam.score_gradients(linear, maps, class_index=0, region=np.zeros((2, 4, 4), np.int32))
    with pytest.raises(ValueError, match="logits must be"):
        gradcam.score_gradients(lambda x: jnp.sum(x, -1), maps, class_index=0)
    with pytest.raises(ValueError, match="resize one to the other"):
        gradcam.saliency_share(maps[..., 0], maps[:, :2, :2, 0])
    with pytest.raises(TypeError, match="saliency must be floating"):
        gradcam.saliency_share(maps[..., 0].astype(np.int32), maps[..., 0])
    with pytest.raises(TypeError, match="region must be bool"):
        gradcam.saliency_share(maps[..., 0], maps[..., 0].astype(np.int32))


def test_a_saliency_of_both_signs_has_no_share():
    saliency = np.array([[[1.0, -0.5], [0.0, 2.0]]], np.float32)
    with pytest.raises(ValueError, match=r"saliency holds -0\.5.*relu"):
        gradcam.saliency_share(saliency, saliency > 0)
    with pytest.raises(ValueError, match=r"region .* 0 to 1"):
        gradcam.saliency_share(np.abs(saliency), 2 * np.abs(saliency))
    traced = jax.jit(gradcam.saliency_share)(saliency, saliency > 0)
    np.testing.assert_allclose(traced, 3 / 2.5)
