"""Images and labels between their pixels and beyond their border: one sample at a time, by rank."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Places = Sequence[jax.Array]  # of the same shape, one for each axis, in pixels


def linear(image: jax.Array, places: Places, *, fill: str, fill_value: float) -> jax.Array:
    """`[*spatial,C]` between its pixels, linearly along each axis.

    Args:
      image: `[*spatial,C]`.
      places: where.
      fill: `reflect` or `constant`; places are those of `within`.
      fill_value: for `constant`.
    """
    first = [jnp.floor(place) for place in places]
    parts = [(place - low)[..., None] for place, low in zip(places, first, strict=True)]

    def blend(chosen: list[jax.Array]) -> jax.Array:
        axis = len(chosen)
        if axis == len(places):
            return _at(image, chosen, fill, fill_value)
        part = parts[axis]
        return blend([*chosen, first[axis]]) * (1 - part) + blend([*chosen, first[axis] + 1]) * part

    return blend([])


def cubic(image: jax.Array, places: Places, *, fill: str, fill_value: float) -> jax.Array:
    """The cubic B-spline through the pixels of `image [*spatial,C]`, mirrored at the outermost pixels' centres.

    `scipy.ndimage.map_coordinates` of order 3 with mode `mirror`; with `constant` it goes over into `fill_value` within
    a pixel from the outermost pixels' centres on. It may leave the image's range by a little.

    Args:
      image: `[*spatial,C]`.
      places: where.
      fill: `reflect` or `constant`; places are those of `within`.
      fill_value: for `constant`.
    """
    shape, rank = image.shape[:-1], len(places)
    for axis, size in enumerate(shape):
        # otherwise accelerators round the factors of a product
        product = jnp.tensordot(_prefilter(size), image, ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
        image = jnp.moveaxis(product, 0, axis)
    first = [jnp.floor(place) for place in places]
    taps = []  # of each axis, index and weight of four pixels
    for place, low, size in zip(places, first, shape, strict=True):
        last = max(size - 1, 1)
        index = [low.astype(jnp.int32) + k for k in range(-1, 3)]
        index = [jnp.minimum(last - jnp.abs(jnp.mod(i, 2 * last) - last), size - 1) for i in index]
        taps.append([(i, cubic_spline(place - low - k)[..., None]) for i, k in zip(index, range(-1, 3), strict=True)])
    total = jnp.zeros((*places[0].shape, image.shape[-1]), image.dtype)
    for chosen in itertools.product(*taps):
        weight = functools.reduce(jnp.multiply, (weight for _, weight in chosen))
        total = total + weight * image.at[tuple(index for index, _ in chosen)].get(mode="promise_in_bounds")
    if fill == "reflect" or not rank:
        return total
    beyond = [jnp.maximum(jnp.maximum(-p, p - (n - 1)), 0) for p, n in zip(places, shape, strict=True)]
    share = functools.reduce(jnp.multiply, (jnp.maximum(1 - d, 0) for d in beyond))[..., None]
    return total * share + fill_value * (1 - share)


def nearest(array: jax.Array, places: Places, *, fill: str) -> jax.Array:
    """`[*spatial]` at the nearest pixel; with `constant` 0, or False, beyond the border."""
    return _at(array, [jnp.floor(place + 0.5) for place in places], fill, 0)


def within(place: jax.Array, size: int, *, fill: str) -> jax.Array:
    """A place in or beyond an axis as the other functions take it: mirrored into it, or no more than a pixel beyond."""
    if fill == "constant":
        return jnp.clip(place, -1, size)  # beyond that nothing of the image is left
    last = max(size - 1, 1)
    rest = jnp.mod(place, 2 * last)
    return last - jnp.abs(rest - last)


def cubic_spline(distance: jax.Array) -> jax.Array:
    """The cubic B-spline with knots at whole numbers, at a distance from its centre."""
    x = jnp.abs(distance)
    inner, outer = 2 / 3 - x * x * (1 - x / 2), jnp.maximum(2 - x, 0) ** 3 / 6
    return jnp.where(x < 1, inner, outer)


def _at(array: jax.Array, places: Places, fill: str, outside: float) -> jax.Array:
    """The pixels at whole `places`, `outside` where there are none."""
    shape = array.shape[: len(places)]
    index = tuple(jnp.clip(i, 0, n - 1).astype(jnp.int32) for i, n in zip(places, shape, strict=True))
    values = array.at[index].get(mode="promise_in_bounds")
    if fill == "reflect":
        return values
    inside = functools.reduce(jnp.logical_and, ((i >= 0) & (i < n) for i, n in zip(places, shape, strict=True)))
    inside = inside.reshape(inside.shape + (1,) * (values.ndim - inside.ndim))
    return jnp.where(inside, values, jnp.asarray(outside, values.dtype))


@functools.cache
def _prefilter(size: int) -> np.ndarray:
    """`[size,size]` float32: pixels -> the coefficients of the B-spline through them."""
    values = np.diag(np.full(size, 2 / 3))
    last = max(size - 1, 1)
    for i in range(size):
        for j in (i - 1, i + 1):
            values[i, min(last - abs(j % (2 * last) - last), size - 1)] += 1 / 6
    return np.linalg.inv(values).astype(np.float32)
