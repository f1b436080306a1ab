"""Dice of all foreground classes together inside a region, in which a pixel of a wrong class is wrong."""

import math

import jax
import jax.numpy as jnp
import numpy as np

WHAT = "Dice of all foreground classes together"


def counts(labels: jax.Array, predictions: jax.Array, region: jax.Array) -> jax.Array:
    """Pixels that are right foreground, and foreground of labels plus that of predictions, inside the region.

    Args:
      labels: `[...,n,n]` integer class numbers, 0 the background.
      predictions: the same.
      region: bool, the same shape.

    Returns:
      `[...,2]` float32, so that sums over parts of an image can be added before `dice`.
    """
    there, called = (labels > 0) & region, (predictions > 0) & region
    right = there & (labels == predictions)
    area = lambda mask: jnp.sum(mask, (-2, -1)).astype(jnp.float32)
    return jnp.stack([area(right), area(there) + area(called)], -1)


def dice(counted: np.ndarray) -> np.ndarray:
    """Dice `[...]` of `counts` `[...,2]`, NaN where there is no foreground at all."""
    both, total = np.moveaxis(np.asarray(counted, float), -1, 0)
    return np.where(total > 0, 2 * both / np.where(total > 0, total, 1.0), math.nan)
