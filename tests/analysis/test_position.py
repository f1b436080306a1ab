"""What a feature map knows of where it is: exact against an explicit regression, and shown by zero padding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import position
from jaxseg.models import capture

SIZES = [(12, 9), (5, 6, 7)]
THREE_FOLDS = np.arange(7, dtype=np.int32) % 3


def noisy(images, sizes, channels, *, seed=0, signal=2.0):
    """Features of which each holds some of the distance, beside noise."""
    random = np.random.default_rng(seed)
    mixture = random.standard_normal(channels)
    noise = random.standard_normal((images, *sizes, channels))
    return (noise + signal * position.border_distance(sizes)[..., None] * mixture).astype(np.float32)


def slow_r2(features, folds, ridge):
    """Cross-validated ridge regression with all data at hand, in float64. Lists of images, of any sizes."""
    vectors = [image.reshape(-1, image.shape[-1]).astype(float) for image in features]
    targets = [slow_distance(image.shape[:-1]).ravel() for image in features]
    sse = sst = 0.0
    for fold in np.unique(folds):
        train = [i for i, f in enumerate(folds) if f != fold]
        x, y = (np.concatenate([part[i] for i in train]) for part in (vectors, targets))
        mean, deviation = x.mean(0), x.std(0)
        deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)
        z = (x - mean) / deviation
        weights = np.linalg.solve(z.T @ z / len(z) + ridge * np.eye(z.shape[1]), z.T @ (y - y.mean()) / len(z))
        for i in np.flatnonzero(folds == fold):
            predicted = y.mean() + (vectors[i] - mean) / deviation @ weights
            sse += np.sum((targets[i] - predicted) ** 2)
            sst += np.sum((targets[i] - y.mean()) ** 2)
    return 1 - sse / sst


def slow_distance(sizes):
    out = np.zeros(sizes)
    for pixel in itertools.product(*map(range, sizes)):
        edges = [edge for i, n in zip(pixel, sizes, strict=True) for edge in (i + 0.5, n - i - 0.5)]
        out[pixel] = min(edges) / (min(sizes) / 2)
    return out


@pytest.mark.parametrize("sizes", [(4, 6), (5, 5), (1, 3), (3, 4, 5), (8, 2, 6)])
def test_border_distance_is_the_loop(sizes):
    np.testing.assert_allclose(position.border_distance(sizes), slow_distance(sizes), rtol=1e-6)


def test_border_distance_by_hand():
    np.testing.assert_allclose(position.border_distance((5, 7))[2], [0.2, 0.6, 1, 1, 1, 0.6, 0.2], rtol=1e-6)
    np.testing.assert_allclose(position.border_distance((4, 4))[1], [0.25, 0.75, 0.75, 0.25])
    coarse = position.border_distance((24, 36, 27))[1::3, 1::3, 1::3]  # every third centre is a coarse pixel's
    np.testing.assert_allclose(coarse, position.border_distance((8, 12, 9)), rtol=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_r2_is_that_of_the_explicit_regression(sizes, ridge):
    features = noisy(7, sizes, 5)
    expected = slow_r2(features, THREE_FOLDS, ridge)
    assert 0.1 < expected < 0.9
    np.testing.assert_allclose(position.position_r2(features, folds=3, ridge=ridge), expected, atol=1e-4)


def test_r2_is_the_same_under_jit():
    features = noisy(7, (12, 9), 5)
    jitted = jax.jit(lambda f: position.position_r2(f, folds=3))(features)
    np.testing.assert_allclose(jitted, position.position_r2(features, folds=3), atol=1e-6)


def test_where_nothing_holds_in_other_images_it_is_negative_as_in_the_explicit_regression():
    """Held-out images lie far from what was fitted, to chance."""
    features = noisy(7, (3, 3), 5, signal=0.0)
    features[0] += 1
    values = [float(position.position_r2(features, folds=3, ridge=ridge)) for ridge in (1e-2, 1.0)]
    expected = [slow_r2(features, THREE_FOLDS, ridge) for ridge in (1e-2, 1.0)]
    assert expected[0] < expected[1] < -0.01
    np.testing.assert_allclose(values, expected, rtol=1e-3)


def test_large_means_keep_their_digits():
    features = noisy(7, (12, 9), 5) + np.array([1e3, -1e3, 0, 3e3, 1], np.float32)
    expected = slow_r2(features, THREE_FOLDS, 1e-3)
    np.testing.assert_allclose(position.position_r2(features, folds=3), expected, atol=1e-3)


def test_the_distance_itself_is_known_and_noise_is_not():
    noise = noisy(7, (12, 9), 5, signal=0.0)
    assert -0.05 < position.position_r2(noise, folds=3) < 0.01
    noise[..., 3] = 5 - 2 * position.border_distance((12, 9))
    assert position.position_r2(noise, folds=3) > 0.999


def test_r2_of_one_channel_is_the_squared_correlation():
    """With folds that are copies of each other, held out or not makes no difference."""
    one = noisy(1, (10, 10), 1)
    features = np.repeat(one, 2, 0)
    correlation = np.corrcoef(one.ravel(), position.border_distance((10, 10)).ravel())[0, 1]
    np.testing.assert_allclose(position.position_r2(features, folds=2, ridge=1e-6), correlation**2, atol=1e-5)


def test_units_and_order_of_channels_do_not_matter_nor_do_mirrors():
    features = noisy(7, (12, 9), 5)
    r2 = lambda f: position.position_r2(f, folds=3)
    plain = r2(features)
    np.testing.assert_allclose(r2(features * np.array([1e-8, 1e8, 1, -3, 0.1], np.float32)), plain, atol=1e-5)
    np.testing.assert_allclose(r2(features[..., ::-1]), plain, atol=1e-5)
    np.testing.assert_allclose(r2(features[:, ::-1, ::-1]), plain, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_constant_channels_count_nothing(value):
    features = noisy(7, (33, 31), 5)
    features[..., :2] = value
    r2 = lambda f: position.position_r2(f, folds=3)
    expected = slow_r2(features[..., 2:], THREE_FOLDS, 1e-3)
    assert expected > 0.1
    np.testing.assert_allclose(r2(features), expected, atol=1e-4)
    features[2, ..., 0] += 1  # constant in the folds that fit image 2, another value in the image itself
    np.testing.assert_allclose(r2(features), slow_r2(features, THREE_FOLDS, 1e-3), atol=1e-3)
    np.testing.assert_allclose(r2(np.full_like(features, value)), 0, atol=1e-6)


def test_streams_of_maps_of_any_size_merge_to_the_same():
    maps = [noisy(7, sizes, 5, seed=i) for i, sizes in enumerate([(12, 9), (7, 16), (12, 9)])]
    folds = np.random.default_rng(0).integers(0, 3, (3, 7), dtype=np.int32)
    nothing = position.init(5, folds=3)
    one = parts = nothing
    for features, fold in zip(maps, folds, strict=True):
        one = position.update(one, features, fold)
        parts = jax.jit(position.merge)(position.update(nothing, features, fold), parts)
    expected = slow_r2([image for features in maps for image in features], folds.ravel(), 1e-3)
    np.testing.assert_allclose(position.compute(one), expected, atol=1e-4)
    np.testing.assert_allclose(position.compute(parts), expected, atol=1e-4)
    for name, merged in parts._asdict().items():
        np.testing.assert_allclose(merged, getattr(one, name), rtol=1e-4, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(one.pixels.sum(), 7 * (108 + 112 + 108))


def test_the_moments_are_those_of_numpy():
    features = noisy(7, (12, 9), 5) + np.float32(5)
    state = position.update(position.init(5, folds=3), features, THREE_FOLDS)
    x = features[1::3].reshape(-1, 5).astype(float)
    y = np.tile(slow_distance((12, 9)).ravel(), 2)
    np.testing.assert_allclose(state.x[1], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state.xx[1], len(x) * np.cov(x.T, bias=True), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(state.xy[1], (x - x.mean(0)).T @ (y - y.mean()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([state.y[1], state.yy[1]], [y.mean(), len(y) * y.var()], rtol=1e-5)


def test_images_of_no_fold_are_left_out_and_slopes_are_finite():
    features = noisy(7, (12, 9), 5)
    features[..., 2] = 3  # a constant channel
    folds = np.array([0, 1, 2, 1, 0, -1, 3], np.int32)
    nothing = position.init(5, folds=3)
    state = position.update(nothing, np.where(folds[:, None, None, None] == 3, np.nan, features), folds)
    kept = position.update(nothing, features[:5], folds[:5])
    jax.tree.map(np.testing.assert_array_equal, state, kept)
    slope = jax.jit(jax.grad(lambda f: position.compute(position.update(nothing, f, folds))))(features)
    slope = np.asarray(slope)
    assert np.isfinite(slope).all() and not slope[5:].any()
    assert (np.abs(slope[:5]).max((1, 2, 3)) > 0).all()


def test_what_cannot_be_known_is_undefined():
    features = noisy(7, (12, 9), 5)
    r2_of = lambda f, folds: position.compute(position.update(position.init(5, folds=3), f, folds))
    assert np.isnan(position.compute(position.init(5, folds=3)))
    assert np.isnan(r2_of(features, np.full(7, 1, np.int32)))  # nothing to fit on
    assert np.isnan(r2_of(features, np.array([1, *[-1] * 6], np.int32)))  # one image
    assert np.isnan(position.position_r2(features[:, :2], folds=3))  # two rows: all pixels are at the border
    two = THREE_FOLDS % 2  # a fold without images is skipped
    np.testing.assert_allclose(r2_of(features, two), slow_r2(features, two, 1e-3), atol=1e-4)
    features[3, 1, 1, 0] = np.nan
    assert np.isnan(r2_of(features, THREE_FOLDS))


def test_half_precision_is_added_up_in_float32():
    features = noisy(7, (12, 9), 5).astype(jnp.bfloat16)
    expected = position.position_r2(features.astype(np.float32), folds=3)
    np.testing.assert_allclose(position.position_r2(features, folds=3), expected, atol=1e-6)


def test_zero_padding_tells_an_untrained_network_where_it_is_and_circular_padding_does_not(drawn_variables):
    images = np.random.default_rng(0).standard_normal((24, 64, 64, 1)).astype(np.float32)
    layers = ("encoder_0", "encoder_1", "bottleneck")
    known = {}
    for padding in ("zero", "circular"):
        module = models.build("unet", 2, features=(8, 12, 16), padding=padding)

        @jax.jit
        def read(variables, images, module=module):
            captured = capture.capture(module, variables, images, layers)[1]
            return {layer: position.position_r2(captured[layer]) for layer in layers}

        known[padding] = jax.tree.map(float, read(drawn_variables(module, images), images))
    assert all(abs(r2) < 0.02 for r2 in known["circular"].values()), known
    zero = [known["zero"][layer] for layer in layers]  # the deeper, the farther the border is felt
    assert zero[2] > 0.2 and zero[2] > zero[1] + 0.05 > zero[0] + 0.05, known


def test_what_does_not_fit_is_refused():
    features = np.zeros((2, 4, 4, 3), np.float32)
    state = position.init(3, folds=2)
    folds = np.zeros(2, np.int32)
    for sizes in [(4,), (4, 0), (2, 2, 2, 2)]:
        with pytest.raises(ValueError, match="two or three, each at least 1"):
            position.border_distance(sizes)
    with pytest.raises(ValueError, match="3 channels and 1 folds"):
        position.position_r2(features, folds=1)
    with pytest.raises(ValueError, match="0 channels"):
        position.init(0, folds=2)
    with pytest.raises(ValueError, match="batch axis"):
        position.position_r2(features[0])
    with pytest.raises(TypeError, match="features must be floating, got int32"):
        position.position_r2(features.astype(np.int32))
    with pytest.raises(ValueError, match="have 2 channels and the statistics 3"):
        position.update(state, features[..., :2], folds)
    with pytest.raises(ValueError, match=r"folds \(1,\) and features \(2, 4, 4, 3\)"):
        position.update(state, features, folds[:1])
    with pytest.raises(TypeError, match="folds must be integer, got float32"):
        position.update(state, features, folds.astype(np.float32))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 3\)"):
        position.merge(state, position.init(3, folds=3))
    with pytest.raises(ValueError, match="ridge is 0"):
        position.compute(state, ridge=0)
