"""A window that slides within a compiled program, against the one that slides on the host."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data.windows import Tiling
from jaxseg.networks import of_linen
from jaxseg.training import sliding


class Blurred(nn.Module):
    """Three classes by sums over neighbours, of which zeros beyond a tile's border are some."""

    @nn.compact
    def __call__(self, images, train=False):
        wide = jnp.pad(images[..., 0], [(0, 0)] + [(1, 1)] * (images.ndim - 2))
        n = images.shape[1:-1]
        spots = np.stack(np.meshgrid(*[[0, 1, 2]] * len(n), indexing="ij"), -1).reshape(-1, len(n))
        parts = [wide[(slice(None), *(slice(a, a + m) for a, m in zip(at, n, strict=True)))] for at in spots]
        total = sum(parts)
        return jnp.stack([jnp.zeros_like(total), total, 2 * images[..., 0] - total], -1)


def blurred(side):
    return of_linen(Blurred(), {}, image_size=side, channels=1)


@functools.partial(jax.jit, static_argnames="tiling")
def slid(images, tiling):
    network = lambda tiles: sliding.mean_probabilities([blurred(tiles.shape[1:-1])], tiles)
    return sliding.probabilities(network, images, tiling)


@pytest.mark.parametrize(
    ("size", "side", "overlap", "batch"),
    [
        ((21, 13), (8, 8), 0.5, 64),  # all tiles at once
        ((21, 13), (8, 6), 0.25, 5),  # in groups, of which the last is filled up
        ((5, 20), (8, 8), 0.5, 64),  # a case that is smaller than a tile along an axis
        ((8, 8), (8, 8), 0.5, 64),  # one tile
        ((3, 11, 9), (2, 6, 6), 0.5, 16),
    ],
)
def test_a_window_slides_on_the_device_as_on_the_host(size, side, overlap, batch):
    images = np.random.default_rng(0).normal(size=(2, *size, 1)).astype(np.float32)
    found = np.asarray(slid(images, Tiling(side, overlap, "gaussian", batch)))
    host = sliding.Sliding(sides=side, overlap=overlap)
    wanted = np.stack([host([blurred(side)], one) for one in images])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
