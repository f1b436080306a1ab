"""Pixels that count: a mask `valid`, its checks, and means over it.

`valid` is bool `[B,*S]`, True where a pixel counts; None is another way to say that all do, and leaves every number as
it is, to the bit. Padding and regions without annotation do not count: a number of an image is that of its valid pixels
alone, and what lies elsewhere may be anything, NaN too. The labels of such pixels are class numbers all the same, 0.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp


def check(valid: Any, **pixels: tuple[int, ...]) -> None:
    """Raises unless `valid` is None, or bool of the shape that the pixels of these arrays have, by their names."""
    if valid is None:
        return
    if valid.dtype != jnp.bool_:
        raise TypeError(f"valid must be bool, got {valid.dtype}; compare it with a threshold")
    for name, shape in pixels.items():
        if valid.shape != tuple(shape):
            raise ValueError(
                f"valid {valid.shape} must say of every pixel of {name}, {tuple(shape)}, whether it counts; "
                "resize or crop it as the labels"
            )


def check_of_layer(valid: Any, shape: tuple[int, ...]) -> None:
    """Raises unless `valid` is None, or bool of images whose features in some layer have the shape `[B,*s,C]`."""
    check(valid)
    if valid is not None and (valid.ndim != len(shape) - 1 or valid.shape[0] != shape[0]):
        raise ValueError(f"valid {valid.shape} must say of every pixel of the images of {tuple(shape)} if it counts")


def only(values: Any, valid: Any, *, other: float = 0.0) -> Any:
    """`values [B,*S,...]` where they are valid, and `other` elsewhere, so that no gradient comes from there."""
    if valid is None:
        return values
    return jnp.where(_over(valid, values.ndim), values, jnp.asarray(other, values.dtype))


def mean(values: jax.Array, valid: jax.Array | None, *, empty: float = math.nan) -> jax.Array:
    """Mean of every image over its pixels that count, and over what axes there are after these.

    Args:
      values: `[B,*S,...]` floats.
      valid: `[B,*S]`, or None.
      empty: the value of an image without a valid pixel.

    Returns:
      `[B]`.
    """
    axes = tuple(range(1, values.ndim))
    if valid is None:
        return jnp.mean(values, axes)
    each = math.prod(values.shape[valid.ndim :])
    count = number(valid) * each
    return jnp.where(count > 0, jnp.sum(only(values, valid), axes) / jnp.maximum(count, 1.0), empty)


def number(valid: jax.Array) -> jax.Array:
    """How many pixels of every image count, float32 `[B]`."""
    return jnp.sum(valid, tuple(range(1, valid.ndim)), dtype=jnp.int32).astype(jnp.float32)


def _over(valid: Any, rank: int) -> Any:
    """With axes of 1 after its own."""
    return valid.reshape(*valid.shape, *(1,) * (rank - valid.ndim))
