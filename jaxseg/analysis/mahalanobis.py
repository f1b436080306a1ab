"""Distance of activations from those of the training set: Mahalanobis with a shrunk covariance.

Lennartz & Schultz 2023 (section 4.2) compare two of them with segmentation distortion: of pooled activations (PM),
which `fit` and `distance` pool themselves when they are given activations, and of an autoencoder's latent vectors (LM),
which are taken as they are. The distances are squared, as in the authors' code; ranks are the same either way.

A training set that does not fit into memory is streamed, each vector being seen once:

    moments = init(dimension)
    for activations in batches:
        moments = update(moments, pool(activations))
    fitted = finish(moments)

`merge` joins the moments of two devices or hosts. Half precision is raised to float32 before anything is summed.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.analysis import cells
from jaxseg.metrics import arrays, pixels

_POOLINGS = ("all", "spatial")
_MOST_ENTRIES = 10_000


class Moments(NamedTuple):
    """What Ledoit-Wolf needs of N vectors x; y = x - mean.

    The shrinkage contains the sum of the entries of `sum_i (y_i^2)(y_i^2)^T`. That is `sum_i |y_i|^4`, a single number,
    and moving it to another mean takes `third` and `scatter` and nothing else, so one pass over the data is exact.

    Attributes:
      number: `[]` int32, N; at most 2^31 - 1.
      mean: `[D]` float32.
      scatter: `[D,D]` float32, `sum_i y_i y_i^T`.
      third: `[D]` float32, `sum_i |y_i|^2 y_i`.
      fourth: `[]` float32, `sum_i |y_i|^4`.
    """

    number: jax.Array
    mean: jax.Array
    scatter: jax.Array
    third: jax.Array
    fourth: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("mean", "cholesky", "shrinkage"), meta_fields=("pooling",)
)
@dataclasses.dataclass(frozen=True)
class Fitted:
    """A mean and a covariance to measure from.

    Attributes:
      mean: `[D]` float32.
      cholesky: `[D,D]` float32, lower triangular factor of the shrunk covariance.
      shrinkage: `[]` float32, 0 (the empirical covariance) to 1 (a multiple of the identity).
      pooling: how `distance` pools activations.
    """

    mean: jax.Array
    cholesky: jax.Array
    shrinkage: jax.Array
    pooling: str = "all"


@arrays.native("activations", "valid")
def pool(activations: jax.Array, *, pooling: str = "all", valid: jax.Array | None = None) -> jax.Array:
    """Activations as vectors: halved by average pooling until they have at most 10^4 entries, and once more.

    Args:
      activations: `[B,H,W,C]` or `[B,D,H,W,C]`.
      pooling: `all` pools the channels too, which is what the authors' code does (2x2x2 for images); `spatial` leaves
        the channels alone. The rest of an odd axis is dropped, as PyTorch does; an axis of size 1 stays.
      valid: `[B,*S]` bool, the pixels of the image that count; None: all. A vector has an entry for every place, so
        activations of whose pixels at most half count are replaced by the mean of the others of their image and
        channel.

    Returns:
      `[B,E]` float32; 256 entries of 16 x 16 x 64. NaN for an image none of whose activations counts.

    Raises:
      ValueError: wrong rank, no such pooling.
      TypeError: not floating point.
    """
    _check_pooling(pooling)
    if activations.ndim not in (4, 5) or 0 in activations.shape:
        raise ValueError(f"activations must be [B,H,W,C] or [B,D,H,W,C] and not empty, got {activations.shape}")
    _check_floating(activations)
    pixels.check_of_layer(valid, activations.shape)
    return _pool(activations, valid, channels=pooling == "all")


def init(dimension: int) -> Moments:
    """Moments of no vectors.

    Args:
      dimension: D, entries of a vector.
    """
    if dimension < 1:
        raise ValueError(f"dimension is {dimension}; a vector has at least 1 entry")
    return Moments(
        number=jnp.zeros((), jnp.int32),
        mean=jnp.zeros(dimension, jnp.float32),
        scatter=jnp.zeros((dimension, dimension), jnp.float32),
        third=jnp.zeros(dimension, jnp.float32),
        fourth=jnp.zeros((), jnp.float32),
    )


@arrays.native("moments", "vectors")
def update(moments: Moments, vectors: jax.Array) -> Moments:
    """Moments with these vectors added.

    Args:
      moments: so far.
      vectors: `[N,D]` floats, N at least 1.

    Raises:
      ValueError: wrong rank, no vector, or another D than the moments have.
      TypeError: not floating point.
    """
    _check_vectors(vectors)
    if vectors.shape[1] != moments.mean.shape[0]:
        raise ValueError(
            f"vectors {vectors.shape} have {vectors.shape[1]} entries, the moments were initialised for "
            f"{moments.mean.shape[0]}; pool both in the same way"
        )
    return _update(moments, vectors)


@arrays.native("a", "b")
def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the vectors of both.

    Raises:
      ValueError: they are of different dimension.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"moments of dimension {a.mean.shape[0]} and {b.mean.shape[0]} cannot be merged; pool both in the same way"
        )
    return _merge(a, b)


@arrays.native("moments")
def finish(moments: Moments, *, pooling: str = "all") -> Fitted:
    """The covariance of Ledoit & Wolf 2004 (scikit-learn's `LedoitWolf`, means removed) and its Cholesky factor.

    With C the empirical covariance (divided by N) and m the mean of its diagonal, it is `(1 - s) C + s m I` with
    `s = min(1, b / d)`, `d = |C - m I|^2 / D` and `b = (fourth / N - |C|^2) / (N D)`.

    Args:
      moments: of the training set.
      pooling: how `distance` is to pool activations; the same as was used for the training set.

    Returns:
      What `distance` measures from. Fewer vectors than dimensions are enough, from three on: one vector, or equal
      vectors, have no covariance, and of two the shrinkage is 0 and the covariance singular (unless D is 1). There
      the factor, and so every distance, is NaN. So are they for a NaN among the vectors, and where the covariance is
      singular in float32 (a feature that depends on others, and so many vectors that nothing is shrunk).
    """
    _check_pooling(pooling)
    factor, shrinkage = _factor(moments)
    return Fitted(moments.mean, factor, shrinkage, pooling)


@arrays.native("features", "valid")
def fit(features: jax.Array, *, pooling: str = "all", valid: jax.Array | None = None) -> Fitted:
    """Mean and shrunk covariance of a training set that fits into memory.

    Args:
      features: `[N,D]` vectors, taken as they are, or activations `[N,H,W,C]` or `[N,D,H,W,C]`, pooled first.
      pooling: of activations, see `pool`; remembered for `distance`.
      valid: of activations, see `pool`.

    Returns:
      What `distance` measures from; see `finish` for few, equal and NaN vectors.

    Raises:
      ValueError: wrong rank, empty, no such pooling.
      TypeError: not floating point.
    """
    _check_pooling(pooling)
    mean, factor, shrinkage = _fit(_vectors(features, pooling, valid))
    return Fitted(mean, factor, shrinkage, pooling)


@arrays.native("fitted", "features", "valid")
def distance(fitted: Fitted, features: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Squared Mahalanobis distance from the training set, `(x - mean)^T covariance^-1 (x - mean)`.

    Args:
      fitted: from `fit` or `finish`.
      features: `[B,D]` vectors, or activations of the shape of the training set's, pooled as they were.
      valid: of activations, see `pool`.

    Returns:
      `[B]` float32; NaN for a case with a NaN, or none of whose activations counts.

    Raises:
      ValueError: wrong rank, or not as many entries as the training set's vectors.
      TypeError: not floating point.
    """
    vectors = _vectors(features, fitted.pooling, valid)
    if vectors.shape[1] != fitted.mean.shape[0]:
        raise ValueError(
            f"features {features.shape} give vectors of {vectors.shape[1]} entries, the training set's have "
            f"{fitted.mean.shape[0]}; give both from the same layer and crop images to one size"
        )
    return _squared_length(vectors, fitted.mean, fitted.cholesky)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@jax.jit
def _update(moments: Moments, vectors: jax.Array) -> Moments:
    return _merge(moments, _moments(vectors.astype(jnp.float32)))


@jax.jit
def _merge(a: Moments, b: Moments) -> Moments:
    number = a.number + b.number
    # the share of b, so that an empty side leaves the other's mean unchanged
    share = b.number.astype(jnp.float32) / jnp.maximum(number, 1).astype(jnp.float32)
    between = b.mean - a.mean
    parts = _moved(a, -share * between), _moved(b, (1 - share) * between)
    scatter, third, fourth = (x + y for x, y in zip(*parts, strict=True))
    return Moments(number, a.mean + share * between, scatter, third, fourth)


@jax.jit
def _factor(moments: Moments) -> tuple[jax.Array, jax.Array]:
    """Cholesky factor of the shrunk covariance, and the shrinkage."""
    dimension = moments.mean.shape[0]
    number = moments.number.astype(jnp.float32)
    covariance = moments.scatter / number
    identity = jnp.eye(dimension, dtype=jnp.float32)
    variance = jnp.trace(covariance) / dimension
    # the difference first: the expanded square would cancel
    apart = jnp.sum(jnp.square(covariance - variance * identity)) / dimension
    noise = (moments.fourth / number - jnp.sum(jnp.square(covariance))) / (number * dimension)
    noise = jnp.clip(noise, 0.0, apart)
    shrinkage = jnp.where(noise == 0, 0.0, noise / jnp.where(noise == 0, 1.0, apart))
    factor = jnp.linalg.cholesky((1 - shrinkage) * covariance + shrinkage * variance * identity)
    # without variance the factor is NaN already; for two vectors, rounding could make it finite
    enough = moments.number >= (2 if dimension == 1 else 3)
    return jnp.where(enough, factor, jnp.nan), shrinkage


@jax.jit
def _fit(vectors: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, Cholesky factor and shrinkage."""
    moments = _update(init(vectors.shape[1]), vectors)
    return moments.mean, *_factor(moments)


@jax.jit
def _squared_length(vectors: jax.Array, mean: jax.Array, factor: jax.Array) -> jax.Array:
    centred = vectors.astype(jnp.float32) - mean[None]
    whitened = jax.scipy.linalg.solve_triangular(factor, centred.T, lower=True)
    return jnp.sum(jnp.square(whitened), 0)


def _moments(vectors: jax.Array) -> Moments:
    mean = jnp.mean(vectors, 0)
    centred = vectors - mean[None]
    # the mean of large numbers is rounded; the remainder is small and accurate
    rest = jnp.mean(centred, 0)
    centred = centred - rest[None]
    norms = jnp.sum(jnp.square(centred), 1)
    return Moments(
        number=jnp.asarray(vectors.shape[0], jnp.int32),
        mean=mean + rest,
        scatter=_exact(centred.T, centred),
        third=_exact(norms, centred),
        fourth=jnp.sum(jnp.square(norms)),
    )


def _moved(moments: Moments, shift: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`scatter`, `third` and `fourth` about `mean - shift`: every y becomes y + shift, and the y sum to 0."""
    number, spread = moments.number.astype(jnp.float32), jnp.trace(moments.scatter)
    square = _exact(shift, shift)
    across = _exact(moments.scatter, shift)
    scatter = moments.scatter + number * jnp.outer(shift, shift)
    third = moments.third + spread * shift + 2 * across + number * square * shift
    fourth = (
        moments.fourth
        + 4 * _exact(shift, moments.third)
        + 4 * _exact(shift, across)
        + 2 * square * spread
        + number * jnp.square(square)
    )
    return scatter, third, fourth


def _exact(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product whose terms no accelerator rounds to half precision."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="channels")
def _pool(activations: jax.Array, valid: jax.Array | None, *, channels: bool) -> jax.Array:
    pooled = activations.astype(jnp.float32)
    if valid is not None:
        counts = cells.counted(valid, activations.shape[1:-1])
        total = jnp.sum(pixels.only(pooled, counts), tuple(range(1, pooled.ndim - 1)), keepdims=True)
        number = pixels.number(counts).reshape(-1, *(1,) * (pooled.ndim - 1))
        pooled = jnp.where(counts[..., None], pooled, total / number)  # 0 / 0 is the documented NaN
    axes = range(1, pooled.ndim if channels else pooled.ndim - 1)
    halved = _halve(pooled, axes)
    while math.prod(pooled.shape[1:]) > _MOST_ENTRIES and halved.shape != pooled.shape:
        pooled, halved = halved, _halve(halved, axes)
    return halved.reshape(pooled.shape[0], -1)


def _halve(array: jax.Array, axes: range) -> jax.Array:
    """Means of pairs along the axes; a last element without a partner is dropped, a single element stays."""
    for axis in axes:
        pairs = array.shape[axis] // 2
        if pairs:
            kept = jax.lax.slice_in_dim(array, 0, 2 * pairs, axis=axis)
            array = jnp.mean(kept.reshape(*array.shape[:axis], pairs, 2, *array.shape[axis + 1 :]), axis + 1)
    return array


def _vectors(features: jax.Array, pooling: str, valid: jax.Array | None) -> jax.Array:
    if features.ndim > 2:
        return pool(features, pooling=pooling, valid=valid)
    if valid is not None:
        raise ValueError(f"valid is of activations; features {features.shape} are vectors, leave it to what makes them")
    _check_vectors(features)
    return features


def _check_vectors(vectors: jax.Array) -> None:
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(
            "features must be vectors [N,D], or activations [N,H,W,C] or [N,D,H,W,C], and not empty; "
            f"got {vectors.shape}"
        )
    _check_floating(vectors)


def _check_floating(features: jax.Array) -> None:
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise TypeError(f"features must be floating point, got {features.dtype}; convert them to float32")


def _check_pooling(pooling: str) -> None:
    if pooling not in _POOLINGS:
        raise ValueError(f"pooling is {pooling!r}; choose one of {', '.join(_POOLINGS)}")
