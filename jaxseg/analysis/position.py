"""How much position a feature map encodes: can the distance from the border be predicted from its feature vectors?

A ridge regression from the feature vector of a pixel to that pixel's distance from the border, cross-validated over
images. R^2 is 1 for a layer that carries the position and 0 for one that does not, such as the layers of a network
whose padding is circular. No data are kept: per fold, the number of pixels, the means and the centred second moments
are enough to fit and to score. They are pytrees, so the states of many layers can be updated in one jitted function.

    state = init(activations.shape[-1], folds=5)
    for activations, folds in batches:  # folds: one number per image; cases of one patient share theirs
        state = update(state, activations, folds)
    r2 = compute(state)
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import cells
from jaxseg.metrics import arrays, pixels

_EXACT = jax.lax.Precision.HIGHEST


class PositionStatistics(NamedTuple):
    """What is kept of F folds of feature vectors x with D channels and of their distances y from the border.

    The second moments are about the means of their own fold: sums of raw products would lose all digits of channels
    whose mean is large compared with their spread.

    Attributes:
      pixels: `[F]` how many, float32.
      x: `[F,D]` mean feature vector.
      y: `[F]` mean distance.
      xx: `[F,D,D]` sum of the products of centred features.
      xy: `[F,D]` sum of the products of centred features and centred distance.
      yy: `[F]` sum of the squares of the centred distance.
    """

    pixels: jax.Array
    x: jax.Array
    y: jax.Array
    xx: jax.Array
    xy: jax.Array
    yy: jax.Array


def border_distance(sizes: Sequence[int]) -> np.ndarray:
    """Distance of every pixel's centre from the nearest border, in units of half the shorter side.

    With n pixels along the shorter side, the centre of pixel i of an axis with m pixels lies `min(i, m-1-i) + 1/2`
    pixels from that axis's borders; the distance is the minimum over the axes, divided by `n / 2`. It is `1 / n` in the
    outermost pixels and 1 in the middle of the shorter side, where a pixel has its centre if n is odd; if n is even,
    the nearest pixels have `1 - 1/n`. A map of lower resolution thus measures the same distances at its own pixel
    centres, as long as all axes were reduced alike. The border is that of the map, also where the network works on a
    larger image than it was given.

    Args:
      sizes: spatial sizes of the map, two or three.

    Returns:
      `[*sizes]` float32, above 0 and at most 1.

    Raises:
      ValueError: not two or three sizes of at least 1.
    """
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise ValueError(f"sizes are {tuple(sizes)}; a map has two or three, each at least 1")
    along = [np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5 for size in sizes]
    nearest = np.min(np.meshgrid(*along, indexing="ij"), axis=0)
    return (nearest / (min(sizes) / 2)).astype(np.float32)


@arrays.native("features", "valid")
def position_r2(
    features: jax.Array, *, folds: int = 5, ridge: float = 1e-3, valid: jax.Array | None = None
) -> jax.Array:
    """R^2 of the distance from the border, predicted from one layer's features of N images; see `compute`.

    Image i is held out in fold `i % folds`. Where images belong together, such as those of one patient, choose the
    folds yourself and call `update`.

    Args:
      features: `[N,H,W,C]` or `[N,D,H,W,C]`, floating.
      folds: of the cross-validation, at least 2. Folds without images are skipped.
      ridge: as for `compute`.
      valid: as for `update`.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: not a batch of maps, fewer than two folds, ridge not positive.
      TypeError: not floating.
    """
    _check_maps(features)
    state = init(features.shape[-1], folds=folds)
    places = np.arange(len(features), dtype=np.int32) % folds
    return compute(update(state, features, places, valid=valid), ridge=ridge)


def init(channels: int, *, folds: int) -> PositionStatistics:
    """Statistics of no image, for features with `channels` channels; their size is `folds * channels**2` floats.

    Raises:
      ValueError: no channels, or fewer than two folds.
    """
    if channels < 1 or folds < 2:
        raise ValueError(
            f"{channels} channels and {folds} folds; there must be a channel, and two folds, to fit and to score"
        )
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)
    vectors = (folds, channels)
    return PositionStatistics(
        pixels=zeros(folds),
        x=zeros(*vectors),
        y=zeros(folds),
        xx=zeros(*vectors, channels),
        xy=zeros(*vectors),
        yy=zeros(folds),
    )


@arrays.native("state", "features", "folds", "valid")
@jax.jit  # outside jit, every call would compile the loop again
def update(
    state: PositionStatistics, features: jax.Array, folds: jax.Array, *, valid: jax.Array | None = None
) -> PositionStatistics:
    """The statistics with more images, one after the other: memory does not grow with the batch.

    Args:
      state: from `init`, `update` or `merge`.
      features: `[B,H,W,C]` or `[B,D,H,W,C]`, floating, C the state's channels; the maps' size may change from call to
        call.
      folds: `[B]` integer, the fold in which each image is held out, 0 to F-1. An image with another number is left
        out, which is how a batch is padded.
      valid: `[B,*S]` bool, the pixels of the image that count; None: all. Vectors of whose pixels at most half count
        are left out; the border is that of the map all the same.

    Raises:
      ValueError: not a batch of maps, other channels than the state's, or not one fold per image.
      TypeError: features are not floating, or folds not integer.
    """
    _check_maps(features)
    if features.shape[-1] != state.x.shape[1]:
        raise ValueError(
            f"features {features.shape} have {features.shape[-1]} channels and the statistics {state.x.shape[1]}; "
            "keep one state per layer"
        )
    if folds.shape != features.shape[:1]:
        raise ValueError(f"folds {folds.shape} and features {features.shape}: give one fold per image")
    if not jnp.issubdtype(folds.dtype, jnp.integer):
        raise TypeError(f"folds must be integer, got {folds.dtype}")
    pixels.check_of_layer(valid, features.shape)
    distance = border_distance(features.shape[1:-1]).ravel()
    counted = (
        None if valid is None else cells.counted(valid, features.shape[1:-1]).reshape(len(features), distance.size)
    )

    def add(state: PositionStatistics, image: tuple[jax.Array, ...]) -> tuple[PositionStatistics, None]:
        vectors, fold, *counts = image
        position = jnp.where(fold < 0, len(state.pixels), fold)  # a negative index would count from the end
        before = jax.tree.map(lambda all_folds: all_folds.at[position].get(mode="clip"), state)
        own = _of_image(vectors.reshape(-1, vectors.shape[-1]), distance, *counts)
        after = _combine(before, own)
        return jax.tree.map(lambda all_folds, one: all_folds.at[position].set(one, mode="drop"), state, after), None

    return jax.lax.scan(add, state, (features, folds, *([] if counted is None else [counted])))[0]


@arrays.native("a", "b")
def merge(a: PositionStatistics, b: PositionStatistics) -> PositionStatistics:
    """The statistics of two disjoint sets of images with the same folds, as from two hosts (Chan et al. 1979).

    Raises:
      ValueError: folds or channels differ.
    """
    if a.x.shape != b.x.shape:
        raise ValueError(f"statistics of [folds, channels] {a.x.shape} and {b.x.shape}; they must be of one layer")
    return _merge(a, b)


@arrays.native("state")
def compute(state: PositionStatistics, *, ridge: float = 1e-3) -> jax.Array:
    """Cross-validated R^2 of the distance from the border.

    For every fold, a ridge regression is fitted on the other folds: features are standardised with the mean and
    standard deviation there, so that a channel's unit does not matter, `mean of squared errors + ridge * |weights|^2`
    is minimal, and the intercept is not penalised. It is scored on the fold: `R^2 = 1 - SSE / SST`, both summed over
    the folds, and SST about the mean of the *training* distances, which is what an uninformed regression would
    predict. (Where all maps have one size, held-out and training mean are equal.)

    Args:
      state: from `update`.
      ridge: weight of the penalty, above 0. The moments are float32: below 1e-4, a layer of many dependent channels
        may have no solution, and the result is NaN.

    Returns:
      A float32 scalar, at most 1, about 0 for uninformative features, and below it where the regression found
      something in the other folds that does not hold: far below with no more pixels than channels. Channels that are
      constant in the other folds count nothing. NaN when only one fold has images, when all distances are equal (a map
      of at most 2 pixels along a side), and when a feature is NaN.

    Raises:
      ValueError: ridge not positive.
    """
    if not isinstance(ridge, jax.core.Tracer) and ridge <= 0:
        raise ValueError(f"ridge is {ridge}; it must be above 0, or dependent channels have no solution")
    return _r2(state, ridge)


@jax.jit
def _r2(state: PositionStatistics, ridge: jax.Array | float) -> jax.Array:
    def errors(held_out: jax.Array) -> tuple[jax.Array, jax.Array]:
        fitted_on = _without(state, held_out)
        test = jax.tree.map(lambda all_folds: all_folds[held_out], state)
        weights = _ridge_weights(fitted_on, ridge)
        spread = jnp.dot(weights, jnp.matmul(test.xx, weights, precision=_EXACT), precision=_EXACT)
        centred = test.yy - 2 * jnp.dot(weights, test.xy, precision=_EXACT) + spread
        shift = test.y - fitted_on.y
        offset = shift - jnp.dot(weights, test.x - fitted_on.x, precision=_EXACT)
        sse, sst = centred + test.pixels * jnp.square(offset), test.yy + test.pixels * jnp.square(shift)
        impossible = (test.pixels > 0) & (fitted_on.pixels == 0)
        return jnp.where(impossible, jnp.nan, sse), sst

    sse, sst = jax.tree.map(jnp.sum, jax.lax.map(errors, jnp.arange(len(state.pixels))))
    return jnp.where(sst == 0, jnp.nan, 1 - sse / jnp.where(sst == 0, 1.0, sst))


def _of_image(vectors: jax.Array, distance: np.ndarray, counts: jax.Array | None = None) -> PositionStatistics:
    """Statistics of the feature vectors `[P,D]` of one image, whose pixels lie at `distance` `[P]`.

    With `counts` `[P]` bool those of the vectors that count.
    """
    x = vectors.astype(jnp.float32)
    if counts is not None:
        return _of_counted(x, distance, counts)
    mean = jnp.mean(x, 0)
    x = x - mean[None]
    exact = distance.astype(np.float64)
    y = exact - exact.mean()
    return PositionStatistics(
        pixels=jnp.asarray(len(distance), jnp.float32),
        x=mean,
        y=jnp.asarray(exact.mean(), jnp.float32),
        xx=jnp.matmul(x.T, x, precision=_EXACT),
        xy=jnp.matmul(x.T, y.astype(np.float32), precision=_EXACT),
        yy=jnp.asarray(np.sum(y**2), jnp.float32),
    )


def _of_counted(x: jax.Array, distance: np.ndarray, counts: jax.Array) -> PositionStatistics:
    number = jnp.sum(counts, dtype=jnp.int32).astype(jnp.float32)

    def centred(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = jnp.sum(pixels.only(values, counts), 0) / jnp.maximum(number, 1.0)
        return mean, pixels.only(values - mean[None] if values.ndim > 1 else values - mean, counts)

    mean, rest = centred(x)
    middle, apart = centred(jnp.asarray(distance, jnp.float32))
    return PositionStatistics(
        pixels=number,
        x=mean,
        y=middle,
        xx=jnp.matmul(rest.T, rest, precision=_EXACT),
        xy=jnp.matmul(rest.T, apart, precision=_EXACT),
        yy=jnp.sum(jnp.square(apart)),
    )


def _combine(a: PositionStatistics, b: PositionStatistics) -> PositionStatistics:
    """The statistics of two sets of one fold together; either may be empty."""
    pixels = a.pixels + b.pixels
    share = b.pixels / jnp.maximum(pixels, 1.0)
    pairs = a.pixels * share
    x, y = b.x - a.x, b.y - a.y
    return PositionStatistics(
        pixels=pixels,
        x=a.x + share * x,
        y=a.y + share * y,
        xx=a.xx + b.xx + pairs * jnp.outer(x, x),
        xy=a.xy + b.xy + pairs * x * y,
        yy=a.yy + b.yy + pairs * jnp.square(y),
    )


_merge = jax.jit(jax.vmap(_combine))


def _without(state: PositionStatistics, held_out: jax.Array) -> PositionStatistics:
    """All folds but one, together. Added up again: subtracting the one from the sum of all would cancel digits."""
    others = jnp.arange(len(state.pixels)) != held_out

    def add(total: PositionStatistics, fold: tuple[PositionStatistics, jax.Array]) -> tuple[PositionStatistics, None]:
        one, taken = fold
        return _combine(total, jax.tree.map(lambda value: jnp.where(taken, value, 0.0), one)), None

    nothing = jax.tree.map(lambda all_folds: jnp.zeros_like(all_folds[0]), state)
    return jax.lax.scan(add, nothing, (state, others))[0]


def _ridge_weights(fitted_on: PositionStatistics, ridge: jax.Array | float) -> jax.Array:
    """Weights `[D]` of the features as they are, from the ridge regression on standardised ones."""
    pixels = jnp.maximum(fitted_on.pixels, 1.0)
    variance = jnp.diagonal(fitted_on.xx) / pixels
    rounding = 8 * jnp.finfo(jnp.float32).eps * jnp.abs(fitted_on.x)
    varies = variance > jnp.square(rounding)  # a constant channel's variance need not be exactly 0
    scale = jnp.where(varies, jax.lax.rsqrt(jnp.where(varies, variance, 1.0)), 0.0)
    correlations = fitted_on.xx / pixels * scale[:, None] * scale[None]
    penalised = correlations + ridge * jnp.eye(len(scale), dtype=jnp.float32)
    factor = jax.scipy.linalg.cho_factor(penalised)
    return scale * jax.scipy.linalg.cho_solve(factor, scale * fitted_on.xy / pixels)


def _check_maps(features: jax.Array) -> None:
    if features.ndim not in (4, 5):
        raise ValueError(f"features must be [B,H,W,C] or [B,D,H,W,C], got {features.shape}; add the batch axis")
    arrays.check_filled(features=features)
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise TypeError(f"features must be floating, got {features.dtype}; convert them to float32")
