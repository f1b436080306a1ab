"""What tests of several studies share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def drawn_variables():
    """`(module, shape of its input, seed) -> variables` as if trained for a while; to compile `init` takes longer."""

    def draw(module, shape, seed=0):
        random = np.random.default_rng(seed)

        def values(path, like):
            deviation = (2 / np.prod(like.shape[:-1])) ** 0.5 if len(like.shape) > 1 else 0.3
            drawn = random.normal(0, deviation, like.shape)
            of_norm = path[-1].key in ("scale", "var")  # above 0, or whole layers are dead
            return (0.5 + abs(drawn) if of_norm else drawn).astype(np.float32)

        like = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
        return jax.tree_util.tree_map_with_path(values, like)

    return draw
