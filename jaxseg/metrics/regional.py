"""Overlap of all foreground together, inside a region or over whole images; a pixel of the wrong class is wrong."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics import arrays, pixels

WHAT = "Dice of all foreground classes together"


@arrays.native("labels", "predictions", "region")
def region_sums(
    labels: np.ndarray | jax.Array, predictions: np.ndarray | jax.Array, region: np.ndarray | jax.Array
) -> jax.Array:
    """Correct foreground pixels, and foreground of labels plus that of predictions, inside the region.

    Args:
      labels: `[...,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      region: bool, the same shape.

    Returns:
      `[...,2]` float32; sums over parts of an image may be added before `dice_from_region_sums`.

    Raises:
      ValueError: shapes differ, or there is no image.
      TypeError: labels and predictions that are not integers, or a region that is not bool.
    """
    if not labels.shape == predictions.shape == region.shape or labels.ndim < 2:
        shapes = f"{labels.shape}, predictions {predictions.shape} and region {region.shape}"
        raise ValueError(f"labels {shapes} must be [...,H,W] of one shape")
    arrays.check_integers(labels=labels, predictions=predictions)
    arrays.check_filled(labels=labels)
    if region.dtype != bool:
        raise TypeError(f"region must be bool, got {region.dtype}; compare it with a threshold")
    there, called = (labels > 0) & region, (predictions > 0) & region
    right = there & (labels == predictions)
    area = lambda mask: jnp.sum(mask, (-2, -1)).astype(jnp.float32)
    return jnp.stack([area(right), area(there) + area(called)], -1)


@arrays.native("sums")
def dice_from_region_sums(sums: np.ndarray) -> np.ndarray:
    """Dice of `region_sums`, or of sums of these.

    Args:
      sums: `[...,2]`.

    Returns:
      `[...]` float64, NaN where there is no foreground at all.

    Raises:
      ValueError: not pairs of sums.
    """
    if not sums.ndim or sums.shape[-1] != 2:
        raise ValueError(f"sums must be [...,2], got {sums.shape}; region_sums makes them")
    both, total = np.moveaxis(np.asarray(sums, float), -1, 0)
    return np.divide(2 * both, total, out=np.full(total.shape, math.nan), where=total > 0)


@arrays.native("labels", "predictions", "valid")
def foreground_dice(
    labels: np.ndarray | jax.Array, predictions: np.ndarray | jax.Array, *, valid: np.ndarray | jax.Array | None = None
) -> np.ndarray:
    """Dice of all foreground classes together, over whole images; also the agreement of two predictions.

    Args:
      labels: `[...,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      valid: bool, the same shape, the pixels that count; None: all.

    Returns:
      `[...]` float64, NaN where there is no foreground at all.

    Raises:
      ValueError: shapes differ, or there is no image.
      TypeError: not integers.
    """
    pixels.check(valid, labels=labels.shape)
    region = np.ones(labels.shape, bool) if valid is None else valid
    return dice_from_region_sums(np.asarray(region_sums(labels, predictions, region)))
