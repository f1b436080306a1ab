"""Intensities of training images changed, whatever their scale: [-1, 1] or z-scores; nothing moves.

Every change of `CHANGES` takes images with channels first, `[B,C,*spatial]`, which pixels are valid, bool
`[B,1,*spatial]` or None for all, and numbers in 0 to 1 that make its parameters. Statistics are those of the valid
pixels of a channel, and where neighbours are mixed, those that are not valid count for nothing. Definitions are those
of batchgeneratorsv2, which nnU-Net v2 uses, but for what the docstrings say.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.augmentation.settings import INTENSITIES, Augmentation

Valid = jax.Array | None


class Change(NamedTuple):
    """A row of `CHANGES`.

    Attributes:
      function: `(images, valid, drawn, keys, augmentation) -> images`, where `drawn [n,B,C]` is uniform in 0 to 1 and
        `keys [B]` are for whatever is drawn for each pixel.
      numbers: n, by the number of axes.
      channels: name of the field with the probability of a channel.
    """

    function: Callable[[jax.Array, Valid, jax.Array, jax.Array, Augmentation], jax.Array]
    numbers: Callable[[int], int]
    channels: str


def change(keys: jax.Array, seen: Mapping[str, jax.Array], augmentation: Augmentation) -> dict[str, jax.Array]:
    """What a network sees, with its intensities changed as `augmentation` says.

    Args:
      keys: `[B]`, of the samples.
      seen: `{"images": [B,*spatial,C], ...}`, and `"valid": bool [B,*spatial]` or not; what is not valid stays.
      augmentation: what may happen.
    """
    images = jnp.moveaxis(seen["images"], -1, 1)  # so that what belongs to a channel lies together
    valid = seen["valid"][:, None] if "valid" in seen else None
    for name in augmentation.intensities:
        row = CHANGES[name]
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, INTENSITIES.index(name))
        chosen, drawn = _draw(own, images, row, getattr(augmentation, name), augmentation)
        new = row.function(images, valid, drawn, own, augmentation)
        chosen = _spread(chosen, images)
        images = jnp.where(chosen if valid is None else chosen & valid, new, images)
    return {**seen, "images": jnp.moveaxis(images, 1, -1)}


def noise(images: jax.Array, valid: Valid, drawn: jax.Array, keys: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Gaussian noise, of one standard deviation for all channels where they share it."""
    channels = 1 if augmentation.noise_shared else images.shape[1]
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, 1), (channels, *images.shape[2:]), jnp.float32)
    deviation = _between(drawn[0, :, :channels], augmentation.noise_std)
    return images + _spread(deviation, images) * jax.vmap(draw)(keys)


def blur(images: jax.Array, valid: Valid, drawn: jax.Array, keys: jax.Array, augmentation: Augmentation) -> jax.Array:
    """A Gaussian of its own width along each axis; beyond the border is the mirror image at the outermost centres.

    All kernels end at three times the largest width, not each at three times its own.
    """
    reach = math.ceil(3 * augmentation.blur_sigma[1])
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    sigma = _between(drawn, augmentation.blur_sigma)[..., None]
    weights = jnp.exp(-0.5 * jnp.square(offsets[None, None, None] / sigma))
    weights = weights / jnp.sum(weights, -1, keepdims=True)

    def along(axis: int, images: jax.Array) -> jax.Array:
        pad = [(reach, reach) if other == axis + 2 else (0, 0) for other in range(images.ndim)]
        padded = jnp.pad(images, pad, mode="reflect")
        part = lambda k: jax.lax.slice_in_dim(padded, k, k + images.shape[axis + 2], axis=axis + 2)
        terms = (_spread(weights[axis, :, :, k], images) * part(k) for k in range(2 * reach + 1))
        return functools.reduce(jnp.add, terms)

    return _filtered(along, images, valid)


def brightness(
    images: jax.Array, valid: Valid, drawn: jax.Array, keys: jax.Array, augmentation: Augmentation
) -> jax.Array:
    """Intensities times a factor."""
    return images * _spread(_around_one(drawn[0], augmentation.brightness_factor), images)


def brightness_shift(
    images: jax.Array, valid: Valid, drawn: jax.Array, keys: jax.Array, augmentation: Augmentation
) -> jax.Array:
    """A normally distributed number added."""
    inside = jnp.maximum(2 * drawn[0] - 1, jnp.float32(-1 + 2**-23))  # the quantile of 0 is not finite
    normal = jnp.float32(math.sqrt(2)) * jax.lax.erf_inv(inside)
    return images + _spread(augmentation.brightness_shift_mean + augmentation.brightness_shift_std * normal, images)


def contrast(
    images: jax.Array, valid: Valid, drawn: jax.Array, keys: jax.Array, augmentation: Augmentation
) -> jax.Array:
    """Distances from the mean times a factor, clipped to the range of the image or not."""
    mean = _mean(images, valid)
    new = mean + _spread(_around_one(drawn[0], augmentation.contrast_factor), images) * (images - mean)
    return jnp.clip(new, *_range(images, valid)) if augmentation.contrast_clip else new


def low_resolution(
    images: jax.Array, valid: Valid, drawn: jax.Array, keys: jax.Array, augmentation: Augmentation
) -> jax.Array:
    """Sampled at the nearest pixels of a coarser grid, and from there linearly; the same share of every side."""
    scale = _between(drawn[0], augmentation.low_resolution_scale)

    def along(axis: int, images: jax.Array) -> jax.Array:
        # gathers of lines take three times as long on CPU
        lines = jnp.moveaxis(images, axis + 2, 2)
        matrix = _coarse_and_back(scale, lines.shape[2])
        precise = jax.lax.Precision.HIGHEST  # otherwise accelerators round the factors of a product
        lines = jax.lax.dot_general(matrix, lines, (((3,), (2,)), ((0, 1), (0, 1))), precision=precise)
        return jnp.moveaxis(lines, 2, axis + 2)

    return _filtered(along, images, valid)


def gamma(
    images: jax.Array,
    valid: Valid,
    drawn: jax.Array,
    keys: jax.Array,
    augmentation: Augmentation,
    *,
    inverted: bool = False,
) -> jax.Array:
    """Intensities, as shares of their range, to a power; mean and standard deviation stay or not."""
    images = -images if inverted else images
    low, high = _range(images, valid)
    share = (images - low) / jnp.maximum(high - low, 1e-7)
    exponent = _spread(_around_one(drawn[0], augmentation.gamma_exponent), images)
    # not the power function, which takes twice as long; what is not valid may lie outside of the range
    new = jnp.exp(exponent * jnp.log(jnp.maximum(share, 0))) * (high - low) + low
    if augmentation.gamma_keeps_moments:
        mean, new_mean = _mean(images, valid), _mean(new, valid)
        variance, new_variance = _mean(jnp.square(images - mean), valid), _mean(jnp.square(new - new_mean), valid)
        new = (new - new_mean) * (jnp.sqrt(variance) / jnp.maximum(jnp.sqrt(new_variance), 1e-7)) + mean
    return -new if inverted else new


_ONE = lambda rank: 1
CHANGES: Mapping[str, Change] = {
    "noise": Change(noise, _ONE, "noise_channels"),
    "blur": Change(blur, lambda rank: rank, "blur_channels"),
    "brightness": Change(brightness, _ONE, "brightness_channels"),
    "brightness_shift": Change(brightness_shift, _ONE, "brightness_shift_channels"),
    "contrast": Change(contrast, _ONE, "contrast_channels"),
    "low_resolution": Change(low_resolution, _ONE, "low_resolution_channels"),
    "inverted_gamma": Change(functools.partial(gamma, inverted=True), _ONE, "gamma_channels"),
    "gamma": Change(gamma, _ONE, "gamma_channels"),
}


def _draw(
    keys: jax.Array, images: jax.Array, row: Change, probability: float, augmentation: Augmentation
) -> tuple[jax.Array, jax.Array]:
    """Whether channels of samples are changed, `[B,C]`, and the numbers that make their parameters, `[n,B,C]`."""
    shape = (2 + row.numbers(images.ndim - 2), images.shape[1])
    drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), shape, jnp.float32))(keys)
    drawn = jnp.moveaxis(drawn, 1, 0)
    if augmentation.channels_alike:
        drawn = jnp.broadcast_to(drawn[..., :1], drawn.shape)
    chosen = (drawn[0, :, :1] < probability) & (drawn[1] < getattr(augmentation, row.channels))
    return chosen, drawn[2:]


def _spread(numbers: jax.Array, images: jax.Array) -> jax.Array:
    """Numbers by channel, `[B,C]`, for images `[B,C,*spatial]`."""
    return numbers.reshape(numbers.shape + (1,) * (images.ndim - 2))


def _between(drawn: jax.Array, ends: tuple[float, float]) -> jax.Array:
    return ends[0] + (ends[1] - ends[0]) * drawn


def _around_one(drawn: jax.Array, ends: tuple[float, float]) -> jax.Array:
    """As often below 1 as above, uniformly on either side; uniformly in a range that lies on one side."""
    low, high = ends
    if not low < 1 < high:
        return _between(drawn, ends)
    return jnp.where(drawn < 0.5, low + (1 - low) * 2 * drawn, 1 + (high - 1) * (2 * drawn - 1))


def _coarse_and_back(scale: jax.Array, size: int) -> jax.Array:
    """`[B,C,size,size]`: what each pixel takes from those of a line that is sampled at `scale [B,C]` of them."""
    pixel = np.arange(size, dtype=np.float32)
    coarse = jnp.maximum(jnp.round(scale * size), 1)[..., None]
    place = jnp.maximum((pixel[None, None] + 0.5) * (coarse / size) - 0.5, 0)
    first = jnp.floor(place)

    def taken(number: jax.Array, share: jax.Array) -> jax.Array:
        # the pixel in which the centre of the coarser one lies: a quotient of whole numbers, so rounding is harmless
        source = jnp.floor((2 * number + 1) * size / (2 * coarse))
        return jnp.where(source[..., None] == pixel[None, None, None], share[..., None], 0)

    return taken(first, 1 - (place - first)) + taken(jnp.minimum(first + 1, coarse - 1), place - first)


def _mean(values: jax.Array, valid: Valid) -> jax.Array:
    axes = tuple(range(2, values.ndim))
    if valid is None:
        return jnp.mean(values, axes, keepdims=True)
    count = jnp.maximum(jnp.sum(valid, axes, keepdims=True, dtype=jnp.float32), 1)
    return jnp.sum(jnp.where(valid, values, 0), axes, keepdims=True) / count


def _range(values: jax.Array, valid: Valid) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(2, values.ndim))
    if valid is None:
        return jnp.min(values, axes, keepdims=True), jnp.max(values, axes, keepdims=True)
    least = jnp.min(jnp.where(valid, values, jnp.inf), axes, keepdims=True)
    return least, jnp.max(jnp.where(valid, values, -jnp.inf), axes, keepdims=True)


def _filtered(along: Callable[[int, jax.Array], jax.Array], images: jax.Array, valid: Valid) -> jax.Array:
    """A linear filter with a sum of 1, `along` each axis; what is not valid counts for nothing."""

    def apply(images: jax.Array) -> jax.Array:
        for axis in range(images.ndim - 2):
            images = along(axis, images)
        return images

    if valid is None:
        return apply(images)
    weight = apply(jnp.broadcast_to(valid, images.shape).astype(jnp.float32))
    reached = weight > 1e-6  # less is a rounding error: there is no valid pixel to take anything from
    return jnp.where(reached, apply(jnp.where(valid, images, 0)) / jnp.where(reached, weight, 1), images)
