"""Overlap of a predicted segmentation with the annotated one."""

import math

import jax
import jax.numpy as jnp


def check_labels(labels: jax.Array, predictions: jax.Array) -> None:
    """Raises unless both are integer class numbers of one shape `[B,H,W]` or `[B,D,H,W]`."""
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape; "
            "resize the predictions to the labels first"
        )
    if labels.ndim not in (3, 4):
        raise ValueError(f"labels must be [B,H,W] or [B,D,H,W], got {labels.shape}; add the batch axis")
    for name, array in (("labels", labels), ("predictions", predictions)):
        if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_):
            raise TypeError(f"{name} must be integer class numbers, got {array.dtype}; take the argmax over classes")


def dice_from_sums(intersection: jax.Array, total: jax.Array, *, empty: float, smooth: float) -> jax.Array:
    """`(2 I + smooth) / (T + smooth)`, and `empty` where T is 0 and nothing smooths it.

    Args:
      intersection: pixels in both masks, any shape.
      total: pixels in the one plus pixels in the other, same shape.
      empty: the value where both masks are empty; not used when `smooth` is above 0.
      smooth: added to numerator and denominator.
    """
    total = total.astype(jnp.float32)
    numerator = 2.0 * intersection.astype(jnp.float32) + smooth
    denominator = total + smooth
    undefined = denominator == 0
    return jnp.where(undefined, empty, numerator / jnp.where(undefined, 1.0, denominator))


def dice(
    labels: jax.Array, predictions: jax.Array, *, num_classes: int, empty: float = math.nan, smooth: float = 0.0
) -> jax.Array:
    """Dice coefficient per case and foreground class (Dice 1945).

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      empty: the value of a class absent from label and prediction; by default NaN, to be left out of means and
        counted. Absent from one of them is 0.
      smooth: added to numerator and denominator; the convention of Lin, Weng et al. 2024 is 1.

    Returns:
      `[B,K-1]` float32, class 1 first.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes.
      TypeError: not integers.
    """
    check_labels(labels, predictions)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; the background counts, so it must be at least 2")
    axes = tuple(range(1, labels.ndim))

    def one(k: int) -> jax.Array:
        a, b = labels.astype(jnp.int32) == k, predictions.astype(jnp.int32) == k  # bool has no 1
        both, total = jnp.sum(a & b, axes), jnp.sum(a, axes) + jnp.sum(b, axes)
        return dice_from_sums(both, total, empty=empty, smooth=smooth)

    return jnp.stack([one(k) for k in range(1, num_classes)], -1)
