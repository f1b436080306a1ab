"""Up-sampling as a matrix per axis, so that its adjoint is available; rows sum to one, so constants stay constant."""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics import arrays

Interpolation = Literal["bilinear", "bilinear_aligned", "nearest"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bilinear_aligned", "nearest")


@arrays.native("x")
def upsample(x: jax.Array, sizes: Sequence[int], *, interpolation: Interpolation = "bilinear") -> jax.Array:
    """`[B,*h,...]` at the spatial `sizes`: `U x`.

    Args:
      x: batch first, then as many spatial axes as `sizes` has, then any others.
      sizes: of the result.
      interpolation: bilinear (half-pixel centres, edge pixels continued), bilinear_aligned (aligned corners), nearest.
    """
    return _contract(x, x.shape[1 : 1 + len(sizes)], tuple(sizes), interpolation, adjoint=False)


@arrays.native("y")
def upsample_adjoint(y: jax.Array, sizes: Sequence[int], *, interpolation: Interpolation = "bilinear") -> jax.Array:
    """`U^T y`: `[B,*H,...]` gathered to the spatial `sizes`, so that `sum(y U x) = sum(x U^T y)`."""
    return _contract(y, tuple(sizes), y.shape[1 : 1 + len(sizes)], interpolation, adjoint=True)


def matrix(low: int, high: int, *, interpolation: Interpolation = "bilinear") -> np.ndarray:
    """`[high, low]` float32: what each of `high` pixels takes from `low` ones along one axis.

    Raises:
      ValueError: an unknown interpolation, or no pixels.
    """
    if low < 1 or high < 1:
        raise ValueError(f"{low} and {high} pixels; an axis has at least 1")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}; choose one of {', '.join(INTERPOLATIONS)}")
    pixels = np.arange(high)
    if interpolation == "nearest":
        return np.eye(low, dtype=np.float32)[pixels * low // high]
    if interpolation == "bilinear":
        position = np.clip((pixels + 0.5) * low / high - 0.5, 0, low - 1)
    else:
        position = pixels * (low - 1) / max(high - 1, 1)
    below = np.minimum(position.astype(int), max(low - 2, 0))
    weight = position - below
    weights = np.zeros((high, low))
    weights[pixels, below] = 1 - weight
    weights[pixels, np.minimum(below + 1, low - 1)] += weight
    return weights.astype(np.float32)


# compiled as a whole, so that a call outside jit does not compile and run every operation
@functools.partial(jax.jit, static_argnames=("low", "high", "interpolation", "adjoint"))
def _contract(
    x: jax.Array, low: tuple[int, ...], high: tuple[int, ...], interpolation: Interpolation, *, adjoint: bool
) -> jax.Array:
    if len(low) != len(high) or 0 in (*low, *high):
        raise ValueError(f"{x.shape} cannot be resampled from {low} to {high}; it must be [B,*size,...], not empty")
    for axis, (small, large) in enumerate(zip(low, high, strict=True), 1):
        if small == large:  # the identity, in every interpolation
            continue
        weights = jnp.asarray(matrix(small, large, interpolation=interpolation))
        summed = jnp.tensordot(
            weights, x.astype(jnp.float32), axes=(0 if adjoint else 1, axis), precision=jax.lax.Precision.HIGHEST
        )
        x = jnp.moveaxis(summed, 0, axis)
    return x.astype(jnp.float32)
