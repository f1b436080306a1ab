"""Do the probabilities say how often the network is right? Calibration error and Brier score."""

import functools
import math

import jax
import jax.numpy as jnp

from jaxseg.metrics import arrays, pixels

_RUN = 256  # pixels that are summed in one run; in float32, longer sums drift


@arrays.native("probabilities", "labels", "valid")
def expected_calibration_error(
    probabilities: jax.Array, labels: jax.Array, *, bins: int = 15, valid: jax.Array | None = None
) -> jax.Array:
    """Expected calibration error of the most likely class, per image (Guo et al. 2017, Eq. 3).

    Over bins of confidence: the distance of mean confidence and accuracy, weighted by the share of pixels. That of
    a whole data set is not the mean of these; add up `calibration_sums` for it.

    Args:
      probabilities: `[B,H,W,K]` or `[B,D,H,W,K]` softmax.
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers; traced, one outside 0 ... K-1 is never matched.
      bins: of equal width over [0, 1].
      valid: the labels' shape, bool, the pixels that count; None: all.

    Returns:
      `[B]` float32 in [0, 1]; NaN for an image with a NaN, or without a pixel that counts.

    Raises:
      ValueError: shapes do not fit, fewer than two classes, no bin, or known values that are not probabilities or class
        numbers.
      TypeError: probabilities are not floating, or labels not integers.
    """
    return calibration_error_from_sums(calibration_sums(probabilities, labels, bins=bins, valid=valid))


@arrays.native("probabilities", "labels", "valid")
def calibration_sums(
    probabilities: jax.Array, labels: jax.Array, *, bins: int = 15, valid: jax.Array | None = None
) -> jax.Array:
    """What a calibration error and a reliability diagram need, per image and bin of confidence.

    The sums of images, batches and hosts add up. A float32 counts to 2^24: beyond so many pixels add in float64, as
    `numpy.sum(sums, axis=0, dtype=float)` does.

    Args:
      probabilities: `[B,H,W,K]` or `[B,D,H,W,K]` softmax.
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers; traced, one outside 0 ... K-1 is never matched.
      bins: of equal width over [0, 1]; a confidence at an edge is in the bin below, as in the paper.
      valid: the labels' shape, bool, the pixels that count; None: all.

    Returns:
      `[B,bins,3]` float32: pixels; the sum of their confidence, which is the probability of the most likely class; and
      how many of them have that class. Of equally likely classes the first counts.

    Raises:
      ValueError: shapes do not fit, fewer than two classes, no bin, or known values that are not probabilities or class
        numbers.
      TypeError: probabilities are not floating, or labels not integers.
    """
    _check(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins is {bins}; there must be at least 1")
    pixels.check(valid, labels=labels.shape)
    return _sums(probabilities, labels, valid, bins=bins)


@arrays.native("sums")
def calibration_error_from_sums(sums: jax.Array) -> jax.Array:
    """Expected calibration error from `calibration_sums`, of one image or added up over many.

    Args:
      sums: `[...,bins,3]`.

    Returns:
      `[...]` float32 in [0, 1]; NaN where there is no pixel.

    Raises:
      ValueError: the last axis is not 3, or there is no bin.
    """
    if len(sums.shape) < 2 or sums.shape[-1] != 3 or not sums.shape[-2]:
        raise ValueError(f"sums must be [...,bins,3] with a bin, got {sums.shape}; calibration_sums makes them")
    return _error(sums.astype(jnp.float32))


@arrays.native("probabilities", "labels", "valid")
def brier(probabilities: jax.Array, labels: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Brier score of many classes (Brier 1950): squared distance from the labels, summed over classes.

    Args:
      probabilities: `[B,H,W,K]` or `[B,D,H,W,K]` softmax.
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers.
      valid: the labels' shape, bool, the pixels that count; None: all.

    Returns:
      `[B]` float32, mean over the pixels of an image: 0 if certain and right, 2 if certain and wrong, NaN with a NaN
      or without a pixel that counts.
      (For two classes some divide by 2.)

    Raises:
      ValueError: shapes do not fit, fewer than two classes, or known values that are not probabilities or classes.
      TypeError: probabilities are not floating, or labels not integers.
    """
    _check(probabilities, labels)
    pixels.check(valid, labels=labels.shape)
    return _brier(probabilities, labels, valid)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@functools.partial(jax.jit, static_argnames="bins")
def _sums(probabilities: jax.Array, labels: jax.Array, valid: jax.Array | None, *, bins: int) -> jax.Array:
    batch, num_classes = probabilities.shape[0], probabilities.shape[-1]
    size = math.prod(probabilities.shape[1:-1])
    flat = probabilities.reshape(batch, size, num_classes).astype(jnp.float32)
    confidence = jnp.max(flat, -1)
    right = jnp.argmax(flat, -1).astype(jnp.int32) == labels.reshape(batch, size).astype(jnp.int32)
    there = jnp.ones_like(confidence)
    if valid is not None:  # the others add 0 to some bin
        counts = valid.reshape(batch, size)
        confidence, right, there = pixels.only(confidence, counts), right & counts, counts.astype(jnp.float32)
    index = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1)
    index = jnp.where(jnp.isnan(confidence), 0, index)  # a NaN must appear in some bin

    runs = -(-size // _RUN)
    segment = index.astype(jnp.int32) + bins * (jnp.arange(size, dtype=jnp.int32) // _RUN)[None]
    columns = jnp.stack([there, confidence, right.astype(jnp.float32)], -1)
    sums = jax.vmap(lambda x, at: jax.ops.segment_sum(x, at, num_segments=runs * bins))(columns, segment)
    return jnp.sum(sums.reshape(batch, runs, bins, 3), 1)  # named sizes, as a batch of no images has no -1


@jax.jit
def _error(sums: jax.Array) -> jax.Array:
    number, confidence, right = (sums[..., i] for i in range(3))
    return jnp.sum(jnp.abs(confidence - right), -1) / jnp.sum(number, -1)


@jax.jit
def _brier(probabilities: jax.Array, labels: jax.Array, valid: jax.Array | None) -> jax.Array:
    truth = jax.nn.one_hot(labels.astype(jnp.int32), probabilities.shape[-1], dtype=jnp.float32)
    squares = jnp.sum((probabilities.astype(jnp.float32) - truth) ** 2, -1)
    return pixels.mean(squares, valid)


def _check(probabilities: jax.Array, labels: jax.Array) -> None:
    if probabilities.ndim not in (4, 5):
        raise ValueError(
            f"probabilities must be [B,H,W,K] or [B,D,H,W,K], got {probabilities.shape}; add the batch or class axis"
        )
    if probabilities.shape[:-1] != labels.shape:
        raise ValueError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit; without its last axis, the "
            "classes, the first must have the shape of the second"
        )
    if probabilities.shape[-1] < 2:
        raise ValueError(f"probabilities {probabilities.shape} have one class; the background counts, so give two")
    if not jnp.issubdtype(probabilities.dtype, jnp.floating):
        raise TypeError(f"probabilities must be floating, got {probabilities.dtype}; take the softmax of the logits")
    arrays.check_integers(labels=labels)
    arrays.check_filled(probabilities=probabilities)
    arrays.check_probabilities(probabilities)
    arrays.check_class_numbers(probabilities.shape[-1], labels=labels)
