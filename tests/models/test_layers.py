"""Pooling and doubling, whose gradients are written out for speed, beside their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import layers

PADDINGS = ("zero", "circular", "valid")


def vjp(function, x, gradient):
    return jax.vjp(function, x)[1](gradient)[0]


def pool_by_xla(x):
    window = (2,) * (x.ndim - 2)
    return nn.max_pool(x, window, strides=window)


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 4, 6, 2, 3), (2, 5, 7, 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool_and_its_gradient_are_those_of_xla_also_among_equal_pixels(shape, dtype):
    # few different values, so that most windows have equal pixels
    x = jax.random.randint(jax.random.key(0), shape, 0, 3).astype(dtype)
    pooled = layers.max_pool(x)
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(pooled, pool_by_xla(x))
    gradient = jax.random.normal(jax.random.key(1), pooled.shape, dtype)
    np.testing.assert_array_equal(vjp(layers.max_pool, x, gradient), vjp(pool_by_xla, x, gradient))


@pytest.mark.parametrize("place", range(4))
def test_max_pool_does_not_hide_what_is_not_a_number(place):
    x = jnp.ones((1, 4, 4, 1)).at[0, place // 2, place % 2, 0].set(jnp.nan)
    assert jnp.isnan(layers.max_pool(x)).sum() == 1


def test_max_pool_has_derivatives_in_forward_mode_and_maps():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    _, tangent = jax.jvp(layers.max_pool, (x,), (jnp.ones_like(x),))
    np.testing.assert_array_equal(tangent, 1)
    np.testing.assert_array_equal(jax.vmap(layers.max_pool)(x[None])[0], layers.max_pool(x))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 2, 3, 4, 2), (1, 2, 5, 1)])
def test_the_gradient_of_doubling_is_the_transposed_matrix(shape, padding):
    x = jax.random.normal(jax.random.key(0), shape)
    size = x.size
    units = jnp.eye(size).reshape(size, *shape)
    matrix = jax.vmap(lambda unit: layers.double(unit, padding))(units).reshape(size, -1)
    doubled = layers.double(x, padding)
    np.testing.assert_allclose(doubled.ravel(), x.ravel() @ matrix, atol=1e-5)
    gradient = jax.random.normal(jax.random.key(1), doubled.shape)
    wanted = (matrix @ gradient.ravel()).reshape(shape)
    np.testing.assert_allclose(vjp(lambda x: layers.double(x, padding), x, gradient), wanted, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
def test_doubling_one_pixel_and_in_bfloat16(padding):
    x = jnp.full((1, 2, 1, 3), 2.0, jnp.bfloat16)
    doubled = layers.double(x, padding)
    assert doubled.dtype == jnp.bfloat16
    np.testing.assert_array_equal(doubled, 2)
    gradient = vjp(lambda x: layers.double(x, padding), x, jnp.ones_like(doubled))
    assert gradient.dtype == jnp.bfloat16 and gradient.shape == x.shape


def test_doubling_has_no_forward_mode_and_says_so():
    x = jnp.ones((1, 2, 2, 1))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: layers.double(x, "zero"), (x,), (x,))
