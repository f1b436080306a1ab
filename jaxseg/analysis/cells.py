"""Which cells of a layer count: masks of pixels brought to a coarser grid.

A layer has fewer cells than the image has pixels. The cells of a grid are those of PyTorch's adaptive average pooling:
where a side is not divisible, they overlap by one element; where it is smaller than the grid, elements are repeated. A
cell counts where more than half of its pixels do.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics import arrays

_HALF = 0.5 + 1e-6  # a mean over rows and then columns is rounded


@arrays.native("array")
def averaged(array: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Means over the cells of a grid.

    Args:
      array: `[B,*s,C]` floating.
      sizes: of the grid, one number per spatial axis.

    Returns:
      `[B,*sizes,C]` float32.

    Raises:
      ValueError: wrong rank, empty, or not a number above 0 for every axis.
      TypeError: not floating point.
    """
    if array.ndim not in (4, 5) or 0 in array.shape[1:]:
        raise ValueError(f"array must be [B,H,W,C] or [B,D,H,W,C] and not empty, got {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"array must be floating point, got {array.dtype}; convert to float32")
    _check_sizes(sizes, array.ndim - 2)
    return _averaged(array, sizes=tuple(sizes))


@arrays.native("valid")
def shares(valid: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """The share of every cell's pixels that count.

    Args:
      valid: `[B,*S]` bool.
      sizes: of the grid, one number per spatial axis.

    Returns:
      `[B,*sizes]` float32 in [0, 1].

    Raises:
      ValueError: wrong rank, empty, or not a number above 0 for every axis.
      TypeError: not bool.
    """
    _check_valid(valid)
    _check_sizes(sizes, valid.ndim - 1)
    return _shares(valid, sizes=tuple(sizes))


@arrays.native("valid")
def counted(valid: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Which cells count, `[B,*sizes]` bool: those of whose pixels more than half do; arguments as of `shares`."""
    _check_valid(valid)
    _check_sizes(sizes, valid.ndim - 1)
    return _counted(valid, sizes=tuple(sizes))


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@functools.partial(jax.jit, static_argnames="sizes")
def _averaged(array: jax.Array, *, sizes: tuple[int, ...]) -> jax.Array:
    means = array.astype(jnp.float32)
    for axis, number in enumerate(sizes, 1):
        means = _along(means, axis, number)
    return means


@functools.partial(jax.jit, static_argnames="sizes")
def _shares(valid: jax.Array, *, sizes: tuple[int, ...]) -> jax.Array:
    return _averaged(valid.astype(jnp.float32)[..., None], sizes=sizes)[..., 0]


@functools.partial(jax.jit, static_argnames="sizes")
def _counted(valid: jax.Array, *, sizes: tuple[int, ...]) -> jax.Array:
    return _shares(valid, sizes=sizes) > _HALF


def _along(array: jax.Array, axis: int, cells: int) -> jax.Array:
    size = array.shape[axis]
    if size % cells == 0:
        return jnp.mean(array.reshape(*array.shape[:axis], cells, size // cells, *array.shape[axis + 1 :]), axis + 1)
    first = np.arange(cells) * size // cells
    end = -(-(np.arange(cells) + 1) * size // cells)
    inside = (np.arange(size) >= first[:, None]) & (np.arange(size) < end[:, None])
    weights = (inside / inside.sum(1, keepdims=True)).astype(np.float32)
    pooled = jnp.tensordot(weights, array, ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(pooled, 0, axis)


def _check_valid(valid: jax.Array) -> None:
    if valid.dtype != jnp.bool_:
        raise TypeError(f"valid must be bool, got {valid.dtype}; compare it with a threshold")
    if valid.ndim not in (3, 4) or 0 in valid.shape[1:]:
        raise ValueError(f"valid must be [B,H,W] or [B,D,H,W] and not empty, got {valid.shape}")


def _check_sizes(sizes: Sequence[int], axes: int) -> None:
    if len(sizes) != axes or min(sizes) < 1:
        raise ValueError(f"sizes are {tuple(sizes)}; give a number above 0 for each of the {axes} spatial axes")
