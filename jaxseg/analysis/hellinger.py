"""How far apart activations of two domains are, channel by channel: distances of histograms.

Wilm et al. 2024 (section IV-B) call the Hellinger distance of a layer's activations its domain susceptibility.
Activations are pooled to a few vectors per image (`pool_vectors`), every channel is binned over the range that both
domains take jointly, and the distances of the channels are averaged (`layer_distance`).

`hellinger_distance` does this for vectors that fit into memory. Otherwise the range comes first, the histograms second,
and the memory does not depend on the number of images:

    joint = init_range(channels)
    for vectors in batches of both domains:
        joint = update_range(joint, vectors)
    p, q = init(*joint, bins=100), init(*joint, bins=100)
    for vectors in batches of the first domain:
        p = update(p, vectors)  # likewise q of the second
    distances = compute(p, q)

`jax.jit(update, donate_argnums=0)` keeps one copy of the histograms. `merge_range` and `merge` join devices and hosts;
over a mapped axis, the fields `counts`, `clipped` and `undefined` may be summed with `lax.psum`.

XLA on CPU runs an update on one core. Two domains, or two layers, that are updated from two Python threads use two.

The bins are those of `numpy.histogram` for float32 values and a float32 range, value for value: the last bin is closed,
and the range of a channel that has only one value is widened by 0.5 on both sides. Half precision is raised to float32
first; numbers below the smallest normal one (1e-38) count as 0. Counts have no gradient.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import cells as grids
from jaxseg.analysis.layout import check_channels_last
from jaxseg.metrics import arrays, pixels

_CELL = 32  # side in image pixels of the region that becomes one vector (Wilm et al.)
_BLOCK = 2**15  # values that are binned at a time
_MOST_BINS = 4095  # see `_upper_half`


class Range(NamedTuple):
    """The range of values of every channel.

    Attributes:
      low, high: `[D]` float32, the least and the greatest; infinity and minus infinity before any vector, NaN after a
        NaN.
    """

    low: jax.Array
    high: jax.Array


class Histograms(NamedTuple):
    """How often every channel's values fell into every bin.

    Attributes:
      counts: `[D,bins]` int32; at most 2^31 - 1 per bin, which is 33 million images of 64 vectors.
      low, high: `[D]` float32, the range that the bins divide.
      clipped: `[D]` int32, values outside the range: they are in the end bins too, so that nothing is lost.
      undefined: `[D]` int32, NaN values, which are in no bin.
    """

    counts: jax.Array
    low: jax.Array
    high: jax.Array
    clipped: jax.Array
    undefined: jax.Array


@arrays.native("activations", "valid")
def pool_vectors(
    activations: jax.Array,
    *,
    image_shape: Sequence[int] | None = None,
    grid: Sequence[int] | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """A few vectors per image: activations averaged over the cells of a grid that is the same for all layers.

    Args:
      activations: `[B,H,W,C]` or `[B,D,H,W,C]` of a layer.
      image_shape: sides of the *image* in pixels, one per spatial axis. The grid is then the paper's, one cell per 32
        pixels along every axis (rounded up), the size of the deepest layer of its networks: 8 x 8 for 256 x 256.
      grid: cells along every axis, instead. Cells are those of PyTorch's adaptive average pooling: where a side is not
        divisible, they overlap by one element; where it is smaller than the grid, elements are repeated.
      valid: `[B,*S]` bool, the pixels of the image that count; None: all. Activations then weigh by the share of their
        pixels that count, and cells of whose pixels at most half count are NaN: leave them out of ranges and
        histograms, by `analysis.cells.counted(valid, grid)`.

    Returns:
      `[B*n,C]` float32, n cells per image, image after image and row after row.

    Raises:
      ValueError: wrong rank, empty, neither or both of `image_shape` and `grid`, not one number per axis, or
        activations that fit these with their channels first and not last.
      TypeError: not floating point.
    """
    if activations.ndim not in (4, 5) or 0 in activations.shape:
        raise ValueError(f"activations must be [B,H,W,C] or [B,D,H,W,C] and not empty, got {activations.shape}")
    _check_floating("activations", activations)
    if (image_shape is None) == (grid is None):
        raise ValueError(f"give one of image_shape and grid, got {image_shape} and {grid}; the paper's is image_shape")
    cells = tuple(grid) if grid is not None else tuple(-(-side // _CELL) for side in image_shape or ())
    if len(cells) != activations.ndim - 2 or min(cells) < 1:
        raise ValueError(
            f"image_shape {image_shape} or grid {grid} must have a number above 0 for each of the "
            f"{activations.ndim - 2} spatial axes of activations {activations.shape}"
        )
    if image_shape is not None:
        check_channels_last("activations", activations.shape, image_shape, "image_shape")
    elif min(cells) > 1:  # a single cell says nothing about proportions
        check_channels_last("activations", activations.shape, cells, "grid")
    pixels.check_of_layer(valid, activations.shape)
    return _pool(activations, valid, cells=cells)


def init_range(dimension: int) -> Range:
    """The range of no vectors.

    Args:
      dimension: D, channels of the layer.
    """
    if dimension < 1:
        raise ValueError(f"dimension is {dimension}; a layer has at least 1 channel")
    return Range(jnp.full(dimension, jnp.inf, jnp.float32), jnp.full(dimension, -jnp.inf, jnp.float32))


@arrays.native("so_far", "vectors", "valid")
def update_range(so_far: Range, vectors: jax.Array, *, valid: jax.Array | None = None) -> Range:
    """The range of these vectors `[N,D]` too, of those that are `valid` `[N]` bool; a NaN makes its channel NaN.

    Raises:
      ValueError: wrong rank, or another D.
      TypeError: not floating point.
    """
    _check_vectors("vectors", vectors, so_far.low.shape[0])
    pixels.check(valid, vectors=vectors.shape[:1])
    return _update_range(so_far, vectors, valid)


@arrays.native("a", "b")
def merge_range(a: Range, b: Range) -> Range:
    """The range of the vectors of both: of two devices, or the joint range of two domains."""
    _check_same_channels(a.low, b.low)
    return _merge_range(a, b)


@arrays.native("low", "high")
def init(low: jax.Array, high: jax.Array, *, bins: int = 100) -> Histograms:
    """Empty histograms over a given range.

    The range is copied, so that donating a state takes no array of another state with it.

    Args:
      low, high: `[D]` floats, the same for both domains.
      bins: of equal width; 1 to 4095.

    Raises:
      ValueError: not two vectors of one length, or bins out of range.
      TypeError: not floating point.
    """
    _check_bins(bins)
    if low.shape != high.shape or low.ndim != 1 or not low.shape[0]:
        raise ValueError(f"low {low.shape} and high {high.shape} must both be [D], one number per channel")
    for name, array in (("low", low), ("high", high)):
        _check_floating(name, array)
    dimension = low.shape[0]
    return Histograms(
        counts=jnp.zeros((dimension, bins), jnp.int32),
        low=jnp.array(low, jnp.float32, copy=True),
        high=jnp.array(high, jnp.float32, copy=True),
        clipped=jnp.zeros(dimension, jnp.int32),
        undefined=jnp.zeros(dimension, jnp.int32),
    )


@arrays.native("state", "vectors", "valid")
def update(state: Histograms, vectors: jax.Array, *, valid: jax.Array | None = None) -> Histograms:
    """Histograms with these vectors added.

    Args:
      state: so far.
      vectors: `[N,D]` floats, any N.
      valid: `[N]` bool, those that count; None: all.

    Raises:
      ValueError: wrong rank, or another D than the state's.
      TypeError: not floating point.
    """
    _check_vectors("vectors", vectors, state.low.shape[0])
    pixels.check(valid, vectors=vectors.shape[:1])
    return _update(state, vectors, valid)


@arrays.native("a", "b")
def merge(a: Histograms, b: Histograms) -> Histograms:
    """Histograms of the vectors of both.

    Their ranges must be equal. Values are not checked; where they differ, the range becomes NaN, and so does every
    distance.

    Raises:
      ValueError: channels or bins differ.
    """
    _check_same_bins(a, b)
    return _merge(a, b)


@arrays.native("p", "q")
@jax.jit
def compute(p: Histograms, q: Histograms) -> jax.Array:
    """Hellinger distance per channel (Wilm et al. 2024, Eqs. 8 and 9): `sqrt(1 - sum_b sqrt(P_b Q_b))`.

    Args:
      p, q: over the same range.

    Returns:
      `[D]` float32 from 0 (equal frequencies; exactly 0 for equal counts, else to 1e-7) to 1 (no bin in common). NaN
      for a channel with a NaN among the values, without any value on one side, with a range that is not finite or
      upside down, or with different ranges on the two sides.

    Raises:
      ValueError: channels or bins differ.
    """
    frequencies = _frequencies(p, q)
    roots = jnp.sqrt(frequencies)
    # half the squared difference is 1 - BC; the subtraction itself would turn a rounding of 1e-7 into 3e-4
    return jnp.sqrt(jnp.minimum(jnp.sum(jnp.square(roots[0] - roots[1]), -1) / 2, 1.0))


@arrays.native("joint", "p", "q", "weights_p", "weights_q")
def weighted_distances(
    joint: Range, p: np.ndarray, q: np.ndarray, weights_p: np.ndarray, weights_q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hellinger distances of weighted sums of histograms: of resampled patients, or of some of them.

    Args:
      joint: the range that the bins divide.
      p, q: counts of every patient, `[P,D,bins]` and `[Q,D,bins]`; with their weights they stay below 2^24 in sum, up
        to which float32 is exact.
      weights_p, weights_q: how often each patient counts, whole numbers `[R,P]` and `[R,Q]`.

    Returns:
      `[R,D]` per channel, and `[R]` of the layer.

    Raises:
      ValueError: channels, bins or patients do not match.
    """
    shapes = p.shape, q.shape, weights_p.shape, weights_q.shape
    wanted = p.ndim == q.ndim == 3 and p.shape[1:] == q.shape[1:] == (len(joint.low), p.shape[2])
    if not wanted or weights_p.shape != (len(weights_p), len(p)) or weights_q.shape != (len(weights_p), len(q)):
        raise ValueError(
            "counts [P,D,bins] and [Q,D,bins] with weights [R,P] and [R,Q] are needed, got "
            f"{', '.join(map(str, shapes))} with a range of {len(joint.low)} channels"
        )
    total = lambda counts, weights: weights.astype(np.float32) @ counts.reshape(len(counts), -1).astype(np.float32)
    shape = (len(weights_p), *p.shape[1:])
    sums = [np.asarray(total(*pair)).astype(np.int32).reshape(shape) for pair in ((p, weights_p), (q, weights_q))]
    channels, layer = _compute_each(*sums, *joint)
    return np.asarray(channels), np.asarray(layer)


@arrays.native("p", "q")
@jax.jit
def wasserstein(p: Histograms, q: Histograms) -> jax.Array:
    """Wasserstein-1 distance per channel: the area between the cumulated frequencies.

    Its mean over channels is the representation shift of Stacke et al. 2021.

    Args:
      p, q: over the same range.

    Returns:
      `[D]` float32 in units of the activation, exact for values at the centres of the bins, otherwise to one bin's
      width; NaN as for `compute`.

    Raises:
      ValueError: channels or bins differ.
    """
    frequencies = _frequencies(p, q)
    cumulated = jnp.cumsum(frequencies, -1)
    low, high = _widened(p.low, p.high)
    return jnp.sum(jnp.abs(cumulated[0] - cumulated[1]), -1) * ((high - low) / p.counts.shape[1])


@arrays.native("p", "q")
def symmetric_kl(p: Histograms, q: Histograms, *, epsilon: float = 1e-6) -> jax.Array:
    """Kullback-Leibler divergence of the channels, the sum of both directions: `sum_b (P_b - Q_b) ln(P_b / Q_b)`.

    Args:
      p, q: over the same range.
      epsilon: added to every frequency before they are normalised again, because a bin that one domain leaves empty
        makes the divergence infinite. Where domains hardly overlap, the value is that of `epsilon`.

    Returns:
      `[D]` float32 in nats, at least 0; with `epsilon=0` infinite where a bin is empty on one side only. NaN as for
      `compute`.

    Raises:
      ValueError: channels or bins differ, or epsilon is negative.
    """
    if not isinstance(epsilon, jax.core.Tracer) and epsilon < 0:
        raise ValueError(f"epsilon is {epsilon}; a frequency cannot be negative, give 0 or more")
    return _symmetric_kl(p, q, epsilon)


@arrays.native("p", "q")
def hellinger_distance(p: jax.Array, q: jax.Array, *, bins: int = 100) -> jax.Array:
    """Hellinger distance of two sets of vectors per channel, over their joint range (Wilm et al. 2024, Eqs. 4 to 9).

    Args:
      p: `[N,D]` floats, the vectors of one domain.
      q: `[M,D]` floats, those of the other.
      bins: of equal width; 1 to 4095.

    Returns:
      `[D]` float32 from 0 to 1. A channel that is constant in both sets is 0 where the constants are equal, else 1; NaN
      where a value is NaN or infinite.

    Raises:
      ValueError: wrong rank, no vector, channels differ, or bins out of range.
      TypeError: not floating point.
    """
    if p.ndim != 2 or 0 in p.shape or 0 in q.shape:
        raise ValueError(f"p {p.shape} and q {q.shape} must be [N,D] and [M,D] with a vector each; see pool_vectors")
    _check_vectors("q", q, p.shape[1])
    _check_floating("p", p)
    _check_bins(bins)
    return _hellinger(p, q, None, None, bins=bins)


@arrays.native("distances")
def layer_distance(distances: jax.Array) -> jax.Array:
    """The layer's number: mean over channels (Wilm et al. 2024, Eq. 10).

    Channels that are constant in both domains count with their 0. One undefined channel makes the layer NaN: its
    activations are not finite, which must not pass as a small shift.

    Args:
      distances: `[...,D]` per channel.

    Raises:
      ValueError: no channel.
      TypeError: not floating point.
    """
    if not distances.ndim or not distances.shape[-1]:
        raise ValueError(f"distances must be [...,D] of at least one channel, got {distances.shape}")
    _check_floating("distances", distances)
    return jnp.mean(distances.astype(jnp.float32), -1)


@arrays.native("vectors", "valid")
def split_half_null(
    key: jax.Array, vectors: jax.Array, *, splits: int = 100, bins: int = 100, valid: jax.Array | None = None
) -> jax.Array:
    """The distance without any shift: between two random halves of the images of one domain.

    Halves are drawn over images, because vectors of one image resemble each other. Of an odd number, each split leaves
    out one image. Halves have half the vectors, so this is more than the null of two whole sets.

    Args:
      key: typed random key.
      vectors: `[images,n,D]` floats, n vectors per image; at least two images.
      splits: how many times to split.
      bins: as for `hellinger_distance`, over the joint range of the two halves.
      valid: `[images,n]` bool, the vectors that count; None: all.

    Returns:
      `[splits,D]` float32; its mean over D is the null of `layer_distance`.

    Raises:
      ValueError: wrong rank, fewer than two images, no split, or bins out of range.
      TypeError: not floating point.
    """
    if vectors.ndim != 3 or vectors.shape[0] < 2 or 0 in vectors.shape:
        raise ValueError(f"vectors must be [images,n,D] with two images or more, got {vectors.shape}")
    if splits < 1:
        raise ValueError(f"splits is {splits}; at least 1 is needed")
    _check_floating("vectors", vectors)
    _check_bins(bins)
    pixels.check(valid, vectors=vectors.shape[:2])
    return _split_half_null(key, vectors, valid, splits=splits, bins=bins)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@functools.partial(jax.jit, static_argnames="cells")
def _pool(activations: jax.Array, valid: jax.Array | None, *, cells: tuple[int, ...]) -> jax.Array:
    if valid is None:
        pooled = grids.averaged(activations, cells)
    else:
        weights = grids.shares(valid, activations.shape[1:-1])[..., None]
        wide = jnp.where(weights > 0, activations.astype(jnp.float32), 0.0)
        total = grids.averaged(weights, cells)
        counts = grids.counted(valid, cells)[..., None] & (total > 0)
        pooled = jnp.where(counts, grids.averaged(wide * weights, cells) / jnp.where(counts, total, 1.0), jnp.nan)
    return pooled.reshape(-1, pooled.shape[-1])


@functools.partial(jax.jit, static_argnames="bins")
def _hellinger(
    p: jax.Array, q: jax.Array, valid_p: jax.Array | None, valid_q: jax.Array | None, *, bins: int
) -> jax.Array:
    joint = update_range(update_range(init_range(p.shape[1]), p, valid=valid_p), q, valid=valid_q)
    empty = init(*joint, bins=bins)
    return compute(update(empty, p, valid=valid_p), update(empty, q, valid=valid_q))


@functools.partial(jax.jit, static_argnames=("splits", "bins"))
def _split_half_null(
    key: jax.Array, vectors: jax.Array, valid: jax.Array | None, *, splits: int, bins: int
) -> jax.Array:
    images, half = vectors.shape[0], vectors.shape[0] // 2

    def one(index: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, index), images)
        halves = order[:half], order[half : 2 * half]
        p, q = (vectors[chosen].reshape(-1, vectors.shape[2]) for chosen in halves)
        counted = (None if valid is None else valid[chosen].ravel() for chosen in halves)
        return _hellinger(p, q, *counted, bins=bins)

    return jax.lax.map(one, jnp.arange(splits, dtype=jnp.int32))


@jax.jit
def _symmetric_kl(p: Histograms, q: Histograms, epsilon: float) -> jax.Array:
    frequencies = (_frequencies(p, q) + epsilon) / (1 + p.counts.shape[1] * epsilon)
    logs = jnp.log(frequencies)
    apart = jnp.where(logs[0] == logs[1], 0.0, logs[0] - logs[1])  # of two empty bins too
    return jnp.sum((frequencies[0] - frequencies[1]) * apart, -1)


@jax.jit
def _merge_range(a: Range, b: Range) -> Range:
    return Range(jnp.minimum(a.low, b.low), jnp.maximum(a.high, b.high))


@jax.jit
def _merge(a: Histograms, b: Histograms) -> Histograms:
    return Histograms(
        counts=a.counts + b.counts,
        low=_common(a.low, b.low),
        high=_common(a.high, b.high),
        clipped=a.clipped + b.clipped,
        undefined=a.undefined + b.undefined,
    )


@jax.jit
def _update_range(so_far: Range, vectors: jax.Array, valid: jax.Array | None) -> Range:
    values = vectors.astype(jnp.float32)
    low = jnp.min(pixels.only(values, valid, other=jnp.inf), 0, initial=jnp.inf)
    high = jnp.max(pixels.only(values, valid, other=-jnp.inf), 0, initial=-jnp.inf)
    return merge_range(so_far, Range(low, high))


@jax.jit
def _update(state: Histograms, vectors: jax.Array, valid: jax.Array | None) -> Histograms:
    vectors = pixels.only(vectors, valid, other=jnp.nan)  # which is in no bin
    below, counts, above, undefined = _count(vectors, state.low, state.high, state.counts.shape[1])
    if valid is not None:
        undefined = undefined - jnp.sum(~valid, dtype=jnp.int32)
    return state._replace(
        counts=(state.counts + counts).at[:, 0].add(below).at[:, -1].add(above),
        clipped=state.clipped + below + above,
        undefined=state.undefined + undefined,
    )


def _count(vectors: jax.Array, low: jax.Array, high: jax.Array, bins: int) -> tuple[jax.Array, ...]:
    """Values below the range `[D]`, in every bin `[D,bins]`, above the range `[D]`, and NaN `[D]`; int32.

    Block by block: besides the vectors, memory holds the slots of one block, which fit into the cache.
    """
    number, dimension = vectors.shape
    rows = max(1, _BLOCK // dimension)
    width = bins + 3
    first = width * jnp.arange(dimension, dtype=jnp.int32)

    def places(values: jax.Array) -> jax.Array:
        return first + _slot(values.astype(jnp.float32), low=low, high=high, bins=bins)

    def add(table: jax.Array, block: jax.Array) -> jax.Array:
        # The loop of two rounds is for XLA on CPU. It would fuse `places` into the flat list of indices of the scatter,
        # whose loop does not vectorise (4x slower); what comes out of a loop is not fused.
        slots = jax.lax.map(places, block, batch_size=max(1, block.shape[0] // 2))
        return table.at[slots.ravel()].add(1, mode="promise_in_bounds", wrap_negative_indices=False)

    def add_block(i: jax.Array, table: jax.Array) -> jax.Array:
        return add(table, jax.lax.dynamic_slice_in_dim(vectors, i * rows, rows))

    whole = number // rows
    table = jnp.zeros(dimension * width, jnp.int32)
    if whole:
        table = jax.lax.fori_loop(0, whole, add_block, table)
    if number % rows:
        table = add(table, vectors[whole * rows :])
    table = table.reshape(dimension, width)
    return table[:, 0], table[:, 1:-2], table[:, -2], table[:, -1]


def _slot(values: jax.Array, *, low: jax.Array, high: jax.Array, bins: int) -> jax.Array:
    """1 + the bin of every value; 0 below the range, bins + 1 above, bins + 2 for NaN.

    The edges are numpy's, `low + (k * step)` with both operations rounded. A value is compared with the edge that is
    nearest to it.
    """
    low, high = _widened(low, high)
    width = high - low
    some = width > 0  # not for NaN, nor where 0.5 is less than the spacing of floats
    # XLA turns a division by a constant into a product with its reciprocal, which rounds differently
    step = width / jnp.where(some, float(bins), 1.0)
    upper = _upper_half(step)
    lower = step - upper
    scale = jnp.where(some, bins / width, 0.0)
    k = jnp.clip(jnp.floor((values - low) * scale + 0.5), 0.0, float(bins))
    # both products are exact, so that it does not matter whether the compiler fuses one with the sum
    edge = low + (k * upper + k * lower)
    # the bin is -1 below the first edge, and the last bin is closed
    slot = jnp.minimum(k.astype(jnp.int32) - (values < edge).astype(jnp.int32), bins - 1) + 1
    slot = jnp.where(values > high, bins + 1, slot)
    return jnp.where(jnp.isnan(values), bins + 2, slot)


def _widened(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    single = low == high
    return jnp.where(single, low - 0.5, low), jnp.where(single, high + 0.5, high)


def _upper_half(values: jax.Array) -> jax.Array:
    """The upper 12 of the 24 significant bits, so that a product with a number below 2^12 is exact."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jax.lax.bitcast_convert_type(bits & jnp.int32(-(1 << 12)), jnp.float32)


def _frequencies(p: Histograms, q: Histograms) -> jax.Array:
    """Relative frequencies `[2,D,bins]`; NaN for the channels for which no distance is defined."""
    _check_same_bins(p, q)
    counts = jnp.stack([p.counts, q.counts]).astype(jnp.float32)
    totals = jnp.sum(counts, -1, keepdims=True)
    width = _common(p.high, q.high) - _common(p.low, q.low)
    defined = (width >= 0) & jnp.isfinite(width) & (p.undefined + q.undefined == 0) & jnp.all(totals[..., 0] > 0, 0)
    return jnp.where(defined[:, None], counts / jnp.maximum(totals, 1.0), jnp.nan)


@jax.jit
def _compute_each(p: jax.Array, q: jax.Array, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    none = jnp.zeros(low.shape, jnp.int32)
    whole = lambda counts: Histograms(counts, low, high, none, none)
    channels = jax.lax.map(lambda pair: compute(whole(pair[0]), whole(pair[1])), (p, q))
    return channels, layer_distance(channels)


def _common(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(a == b, a, jnp.nan)


def _check_vectors(name: str, vectors: jax.Array, dimension: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(
            f"{name} {vectors.shape} must be [N,{dimension}], as many channels as the other side has; "
            "compare one layer at a time"
        )
    _check_floating(name, vectors)


def _check_floating(name: str, array: jax.Array) -> None:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}; convert to float32")


def _check_bins(bins: int) -> None:
    if not 1 <= bins <= _MOST_BINS:
        raise ValueError(f"bins is {bins}; 1 to {_MOST_BINS} are possible")


def _check_same_channels(a: jax.Array, b: jax.Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"channels {a.shape} and {b.shape} differ; compare one layer at a time")


def _check_same_bins(a: Histograms, b: Histograms) -> None:
    if a.counts.shape != b.counts.shape:
        raise ValueError(
            f"histograms {a.counts.shape} and {b.counts.shape} differ in channels or bins; "
            "compare one layer at a time, with the same bins"
        )
