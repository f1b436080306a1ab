"""Where in the image a segmentation is right: Dice by distance from the border, and where the masks lie."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics import arrays, pixels
from jaxseg.metrics.overlap import check_labels, dice_from_sums


def band_index(shape: Sequence[int], width: int) -> np.ndarray:
    """The ring of every pixel of an image of `shape`, `[H,W]` int32, 0 the innermost.

    Rings are counted inwards from the border in steps of `width` pixels; the innermost takes the rest.
    """
    _check_rings(shape, width)
    to_border = [np.minimum(np.arange(size), np.arange(size)[::-1]) for size in shape]
    distance = np.minimum(to_border[0][:, None], to_border[1][None, :])
    last = (min(shape) // 2 - 1) // width  # for an odd side the middle pixel belongs to the innermost ring
    return (last - np.minimum(distance // width, last)).astype(np.int32)


def outer_distances(shape: Sequence[int], width: int) -> np.ndarray:
    """Distance in pixels from the centre to the outer edge of every ring, `[R]` int32 ascending."""
    _check_rings(shape, width)
    half = min(shape) // 2
    rings = (half - 1) // width + 1
    return (half - width * np.arange(rings)[::-1]).astype(np.int32)


@arrays.native("labels", "predictions", "valid")
def band_dice(
    labels: jax.Array,
    predictions: jax.Array,
    *,
    width: int = 10,
    empty: float = math.nan,
    smooth: float = 0.0,
    valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Foreground Dice inside square rings of increasing distance from the centre (Lin, Weng et al. 2024, Fig. 4).

    Args:
      labels: `[B,H,W]` integer class numbers; every class above 0 is foreground.
      predictions: the same shape.
      width: of a ring, in pixels; the paper uses 10 at 256 pixels.
      empty: the value of a ring that both masks leave empty; by default NaN, to be left out of means and counted.
      smooth: added to numerator and denominator. The authors' code uses 1, which scores an empty ring as perfect.
      valid: bool, the same shape, the pixels that count; None: all. The border stays that of the array.

    Returns:
      The outer distance of every ring from the centre, `[R]` int32 ascending, and Dice `[B,R]` float32.

    Raises:
      ValueError: shapes differ, not 2-D images, no ring fits, or a known label is negative.
      TypeError: not integers.
    """
    check_labels(labels, predictions)
    if labels.ndim != 3:
        raise ValueError(f"rings are defined in 2-D, labels must be [B,H,W], got {labels.shape}")
    distances = outer_distances(labels.shape[1:], width)
    pixels.check(valid, labels=labels.shape)
    both, total = _ring_sums(_within(labels > 0, valid), _within(predictions > 0, valid), width=width)
    return jnp.asarray(distances), dice_from_sums(both, total, empty=empty, smooth=smooth)


@arrays.native("labels", "valid")
def mask_centres(labels: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Centre of mass of the foreground (Lin, Weng et al. 2024, Fig. 6).

    Args:
      labels: `[B,H,W]` integer class numbers; every class above 0 is foreground.
      valid: bool, the same shape, the pixels that count; None: all. The image is the array's all the same.

    Returns:
      `[B,2]` float32: vertical and horizontal position in units of half the image side, 0 the centre of the image
      and -1 and 1 its borders; NaN for an empty mask.

    Raises:
      ValueError: not 2-D images, or a known label is negative.
      TypeError: not integers.
    """
    check_labels(labels, labels)
    if labels.ndim != 3:
        raise ValueError(f"labels must be [B,H,W], got {labels.shape}")
    pixels.check(valid, labels=labels.shape)
    return _centres(_within(labels > 0, valid))


@arrays.native("masks", "inside")
def window_agreement(masks: jax.Array, inside: jax.Array) -> jax.Array:
    """How far predictions of the same pixels agree when a window moves over an image.

    Lin, Weng et al. 2024, appendix Fig. 1, shows windows side by side; this is one number for it: over all pairs of
    windows, twice the pixels that both call foreground, divided by the foreground pixels of either inside the overlap
    (Dice, accumulated over the pairs). 1 when every pixel keeps its class, NaN when no overlap has foreground.

    Args:
      masks: `[W,H,W']` bool: the prediction of each of W windows, mapped back to the image; False outside the window.
      inside: the same shape: True where the window lies.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: shapes differ or wrong rank.
      TypeError: not bool.
    """
    if masks.shape != inside.shape or masks.ndim != 3:
        raise ValueError(f"masks {masks.shape} and inside {inside.shape} must both be [windows, height, width]")
    for name, array in (("masks", masks), ("inside", inside)):
        if array.dtype != jnp.bool_:
            raise TypeError(f"{name} must be bool, got {array.dtype}; compare with a class, such as predictions == 1")
    arrays.check_filled(masks=masks)
    return dice_from_sums(*_pair_sums(masks, inside), empty=math.nan, smooth=0.0)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@functools.partial(jax.jit, static_argnames="width")
def _ring_sums(labels: jax.Array, predictions: jax.Array, *, width: int) -> tuple[jax.Array, jax.Array]:
    """Pixels of every ring in both masks, and those in one plus those in the other."""
    shape = labels.shape[1:]
    ring, rings = jnp.asarray(band_index(shape, width)).ravel(), len(outer_distances(shape, width))

    def per_ring(mask: jax.Array) -> jax.Array:
        flat = mask.reshape(mask.shape[0], math.prod(shape)).astype(jnp.float32)
        return jax.vmap(lambda m: jax.ops.segment_sum(m, ring, num_segments=rings))(flat)

    return per_ring(labels & predictions), per_ring(labels) + per_ring(predictions)


@jax.jit
def _centres(foreground: jax.Array) -> jax.Array:
    mask = foreground.astype(jnp.float32)
    area = jnp.sum(mask, (1, 2))

    def along(axis: int) -> jax.Array:
        size = mask.shape[axis]
        position = np.arange(1, 2 * size, 2, dtype=np.float32) / np.float32(size) - np.float32(1)
        profile = jnp.sum(mask, 3 - axis)
        return jnp.where(area > 0, profile @ position / jnp.maximum(area, 1), jnp.nan)

    return jnp.stack([along(1), along(2)], -1)


@jax.jit
def _pair_sums(masks: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Over all pairs of windows: pixels that both call foreground, and foreground of either inside the overlap."""
    windows, pixels = masks.shape[0], math.prod(masks.shape[1:])
    flat = (masks & inside).reshape(windows, pixels).astype(jnp.float32)
    where = inside.reshape(windows, pixels).astype(jnp.float32)
    exact = jax.lax.Precision.HIGHEST
    both = jnp.matmul(flat, flat.T, precision=exact)
    seen = jnp.matmul(flat, where.T, precision=exact)  # foreground of window i inside window j
    pairs = jnp.triu(jnp.ones_like(both), 1)
    return jnp.sum(pairs * both), jnp.sum(pairs * (seen + seen.T))


def _within(mask: jax.Array, valid: jax.Array | None) -> jax.Array:
    return mask if valid is None else mask & valid


def _check_rings(shape: Sequence[int], width: int) -> None:
    if len(shape) != 2 or min(shape) < 2:
        raise ValueError(f"an image of {tuple(shape)} has no rings; it must have two sides of at least 2")
    if width < 1:
        raise ValueError(f"width is {width}; a ring is at least 1 pixel wide")
