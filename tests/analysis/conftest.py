"""What tests of analyses need of a network."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def drawn_weights():
    """`(module, images, seed) -> variables` as an initialiser draws them, of which nothing is compiled."""

    def draw(module, images, seed=0):
        random = np.random.default_rng(seed)

        def leaf(path, of):
            if of.ndim > 1:
                return (random.standard_normal(of.shape) * np.sqrt(2 / np.prod(of.shape[:-1]))).astype(of.dtype)
            return np.full(of.shape, path[-1].key in ("scale", "var"), of.dtype)

        return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(module.init, jax.random.key(0), images))

    return draw
