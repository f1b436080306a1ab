"""Weights drawn with NumPy: nothing is compiled for them."""

import math

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def drawn_variables():
    """`(module, images) -> variables`, in which no bias is 0 and no scale 1, so that a wrong constant anywhere shows.

    Of the images the shape is enough.
    """

    def draw(module, images):
        random = np.random.default_rng(1)

        def values(path, leaf):
            if path[-1].key == "kernel":
                drawn = random.standard_normal(leaf.shape) * math.sqrt(2 / math.prod(leaf.shape[:-1]))
            else:
                drawn = random.uniform(-0.5, 0.5, leaf.shape) + (path[-1].key in ("scale", "var"))
            return drawn.astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(values, jax.eval_shape(module.init, jax.random.key(0), images))

    return draw
