"""Pooling and doubling, whose gradients are written out for speed, beside their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import layers

PADDINGS = ("zero", "circular", "valid")


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def vjp(function, x, gradient):
    return jax.vjp(function, x)[1](gradient)[0]


def pool_by_xla(x):
    window = (2,) * (x.ndim - 2)
    return nn.max_pool(x, window, strides=window)


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 4, 6, 2, 3), (2, 5, 7, 3)])
def test_max_pool_and_its_gradient_are_those_of_xla_also_among_equal_pixels(shape):
    # few different values, so that most windows have equal pixels
    x = np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)
    gradient = drawn((shape[0], *(size // 2 for size in shape[1:-1]), shape[-1]), seed=1)

    @jax.jit
    def run(x, gradient):
        of_type = lambda dtype: (x.astype(dtype), gradient.astype(dtype))
        both = lambda pool, x, gradient: (pool(x), vjp(pool, x, gradient))
        types = (jnp.float32, jnp.bfloat16)
        return [[both(pool, *of_type(dtype)) for pool in (layers.max_pool, pool_by_xla)] for dtype in types]

    for dtype, (ours, expected) in zip((jnp.float32, jnp.bfloat16), run(x, gradient), strict=True):
        assert ours[0].dtype == ours[1].dtype == dtype
        for found, wanted in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=str(dtype))


def test_max_pool_does_not_hide_what_is_not_a_number():
    """Wherever it stands in its window."""
    x = np.ones((4, 4, 4, 1), np.float32)
    for place in range(4):
        x[place, place // 2, place % 2] = np.nan
    assert np.isnan(jax.jit(layers.max_pool)(x)).sum((1, 2, 3)).tolist() == [1, 1, 1, 1]


def test_max_pool_has_derivatives_in_forward_mode_and_maps():
    x = drawn((2, 4, 4, 3))

    @jax.jit
    def run(x):
        return *jax.jvp(layers.max_pool, (x,), (jnp.ones_like(x),)), jax.vmap(layers.max_pool)(x[None])[0]

    pooled, tangent, mapped = run(x)
    np.testing.assert_array_equal(tangent, 1)
    np.testing.assert_array_equal(mapped, pooled)


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 2, 3, 4, 2), (1, 2, 5, 1)])
def test_the_gradient_of_doubling_is_the_transposed_matrix(shape):
    x = drawn(shape)
    units = np.eye(x.size, dtype=np.float32).reshape(x.size, *shape)

    @jax.jit
    def run(x, units, gradients):
        results = []
        for padding, gradient in zip(PADDINGS, gradients, strict=True):
            double = lambda x, padding=padding: layers.double(x, padding)
            results.append((jax.vmap(double)(units), double(x), vjp(double, x, gradient)))
        return results

    sizes = lambda padding: [2 * size - 2 * (padding == "valid") for size in shape[1:-1]]
    gradients = [drawn((shape[0], *sizes(padding), shape[-1]), seed=1) for padding in PADDINGS]
    for padding, gradient, results in zip(PADDINGS, gradients, run(x, units, gradients), strict=True):
        columns, doubled, found = map(np.asarray, results)
        matrix = columns.reshape(x.size, -1)
        np.testing.assert_allclose(doubled.ravel(), x.ravel() @ matrix, atol=1e-5, err_msg=padding)
        wanted = (matrix @ gradient.ravel()).reshape(shape)
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=padding)


def test_doubling_one_pixel_and_in_bfloat16():
    x = np.full((1, 2, 1, 3), 2, jnp.bfloat16)

    @jax.jit
    def run(x):
        doubled = {padding: layers.double(x, padding) for padding in PADDINGS}
        back = lambda padding: vjp(lambda x: layers.double(x, padding), x, jnp.ones_like(doubled[padding]))
        return doubled, {padding: back(padding) for padding in PADDINGS}

    doubled, gradients = run(x)
    for padding in PADDINGS:
        assert doubled[padding].dtype == jnp.bfloat16, padding
        np.testing.assert_array_equal(doubled[padding], 2, err_msg=padding)
        assert gradients[padding].dtype == jnp.bfloat16 and gradients[padding].shape == x.shape, padding


def test_doubling_has_no_forward_mode_and_says_so():
    x = np.ones((1, 2, 2, 1), np.float32)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: layers.double(x, "zero"), (x,), (x,))


def test_crops_are_central_and_margins_even():
    x = np.arange(2 * 6 * 5 * 1).reshape(2, 6, 5, 1)
    np.testing.assert_array_equal(layers.crop(jnp.asarray(x), (2, 3)), x[:, 2:4, 1:4])
    for sizes, margin in (((6, 4), 1), ((8, 5), -2)):
        with pytest.raises(ValueError, match=f"the margin {margin} is odd or negative"):
            jax.eval_shape(lambda x, sizes=sizes: layers.crop(x, sizes), x)
    for sizes in ((6, 5), (8, 3), (8, 5)):  # an axis without a margin: the features are not wider
        assert layers.over_image(x, sizes) is x


@pytest.mark.parametrize("padding", ["zero", "circular", "reflect", "valid"])
def test_overlapping_pooling_is_the_loop(padding):
    x = drawn((1, 8, 6, 2)) - 3  # below the zeros that must not count
    mode = {"zero": {"mode": "constant", "constant_values": -np.inf}, "circular": {"mode": "wrap"}}
    around = (
        x
        if padding == "valid"
        else np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), **mode.get(padding, {"mode": "reflect"}))
    )
    height, width = ((size - 3) // 2 + 1 for size in around.shape[1:3])
    expected = [
        [around[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(width)] for i in range(height)
    ]
    np.testing.assert_array_equal(jax.jit(lambda x: layers.max_pool_overlapping(x, padding))(x)[0], expected)


def test_dropout_keeps_its_share_and_the_mean():
    x, dropout = np.ones((4, 500), np.float32), layers.Dropout(0.25)
    run = jax.jit(lambda x: dropout.apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    dropped = np.asarray(run(x))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert abs((dropped > 0).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / x.size)
    assert dropout.apply({}, x, False) is x
