"""What is just within a range is taken."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import gradcam, hellinger, mahalanobis, position, resampling


def test_one_of_each_is_enough():
    assert mahalanobis.init(1).scatter.shape == (1, 1)
    assert hellinger.init_range(1).low.shape == (1,)
    assert position.init(1, folds=2).xx.shape == (2, 1, 1)
    np.testing.assert_array_equal(position.border_distance((1, 1)), [[1]])
    np.testing.assert_array_equal(resampling.matrix(1, 1), [[1]])
    map_of = jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32)
    assert jax.eval_shape(lambda x: gradcam.gradcam(x, x, size=(1, 1)), map_of).shape == (1, 1, 1)


def test_two_images_are_halved_once_into_one_bin():
    vectors = jax.ShapeDtypeStruct((2, 1, 1), jnp.float32)
    null = lambda key, vectors: hellinger.split_half_null(key, vectors, splits=1, bins=1)
    assert jax.eval_shape(null, jax.random.key(0), vectors).shape == (1, 1)
