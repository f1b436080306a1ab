"""Segmentation distortion (Lennartz and Schultz 2023): how outputs change when activations become in-distribution.

U(I) are the logits of a network; U o r(x) those with its bottleneck's activation x replaced by an autoencoder's
reconstruction r(x).
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxseg.analysis import cells
from jaxseg.metrics import arrays, pixels

Reduction = Literal["mean", "sum"]


@arrays.native("logits", "reconstructed_logits", "valid")
def segmentation_distortion(
    logits: jax.Array,
    reconstructed_logits: jax.Array,
    *,
    reduction: Reduction = "mean",
    valid: jax.Array | None = None,
) -> jax.Array:
    """Squared difference of the two class probabilities, mean over pixels and classes (Eq. 4).

    Args:
      logits: U(I), `[B,*s,K]` floating.
      reconstructed_logits: U o r(x), of the same shape.
      reduction: mean; or sum, over pixels and classes.
      valid: `[B,*s]` bool, the pixels that count; None: all.

    Returns:
      `[B]` float32. The mean is in [0, 2 / K]: 0 where nothing changes, 2 / K where two certain predictions contradict
      each other everywhere. NaN logits give NaN for their image; so does the mean of an image without a pixel that
      counts.

    Raises:
      ValueError: shapes or ranks do not match, an unknown reduction.
      TypeError: logits that are not floating-point numbers.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction is {reduction!r}; choose one of {', '.join(get_args(Reduction))}")
    _check_logits(logits, reconstructed_logits)
    pixels.check(valid, logits=logits.shape[:-1])
    return _distortion(logits, reconstructed_logits, valid, reduction=reduction)


@arrays.native("logits", "reconstructed_logits")
def distortion_map(logits: jax.Array, reconstructed_logits: jax.Array) -> jax.Array:
    """Its map: the mean over classes at every pixel, `[B,*s]` float32; arguments and errors as there."""
    _check_logits(logits, reconstructed_logits)
    return _distortion_map(logits, reconstructed_logits)


@arrays.native("logits", "reconstructed_logits", "activations", "reconstruction", "valid")
def autoencoder_loss(
    logits: jax.Array,
    reconstructed_logits: jax.Array,
    activations: jax.Array,
    reconstruction: jax.Array,
    *,
    valid: jax.Array | None = None,
) -> jax.Array:
    """L_seg + L_mse (Eqs. 1 to 3), with which the autoencoder is fitted on training images.

    Both norms are means over all elements, so that neither the size of the images nor that of the activations weighs
    one against the other.

    Args:
      logits: U(I), `[B,*s,K]`, of the frozen network.
      reconstructed_logits: U o r(x), of the same shape.
      activations: x, `[B,*h,C]`.
      reconstruction: r(x), of the same shape.
      valid: `[B,*s]` bool, the pixels that count; None: all. Of the activations those cells count of whose pixels more
        than half do. Both norms are then means over the elements of every image and over images; an image without any
        adds 0, and is one of the images.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: shapes or ranks do not match.
      TypeError: arrays that are not floating-point numbers.
    """
    _check(logits, reconstructed_logits, "reconstructed_logits")
    _check(activations, reconstruction, "reconstruction")
    if 0 in (*logits.shape, *activations.shape):
        raise ValueError(f"logits {logits.shape} and activations {activations.shape} are empty, and have no mean")
    pixels.check(valid, logits=logits.shape[:-1])
    return _mean_square(logits, reconstructed_logits, valid) + _mean_square(
        activations, reconstruction, None if valid is None else cells.counted(valid, activations.shape[1:-1])
    )


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@jax.jit
def _distortion_map(logits: jax.Array, reconstructed_logits: jax.Array) -> jax.Array:
    before, after = (jax.nn.softmax(x.astype(jnp.float32)) for x in (logits, reconstructed_logits))
    return jnp.mean(jnp.square(before - after), -1)


@functools.partial(jax.jit, static_argnames="reduction")
def _distortion(
    logits: jax.Array, reconstructed_logits: jax.Array, valid: jax.Array | None, *, reduction: Reduction
) -> jax.Array:
    squares = _distortion_map(logits, reconstructed_logits)
    if reduction == "mean":
        return pixels.mean(squares, valid)
    return jnp.sum(pixels.only(squares, valid), tuple(range(1, squares.ndim))) * logits.shape[-1]


@jax.jit
def _mean_square(a: jax.Array, b: jax.Array, valid: jax.Array | None) -> jax.Array:
    a, b = (pixels.only(x.astype(jnp.float32), valid) for x in (a, b))
    squares = jnp.square(a - b)
    return jnp.mean(squares) if valid is None else jnp.mean(pixels.mean(squares, valid, empty=0.0))


def _check_logits(logits: jax.Array, reconstructed_logits: jax.Array) -> None:
    _check(logits, reconstructed_logits, "reconstructed_logits")
    if logits.shape[-1] < 2:
        raise ValueError(f"logits {logits.shape} have one class; the background counts, so there must be at least two")


def _check(original: jax.Array, other: jax.Array, name: str) -> None:
    if original.shape != other.shape or original.ndim not in (4, 5):
        raise ValueError(
            f"{name} {other.shape} must have the shape of the original, {original.shape}, which must be [B,h,w,C] or "
            "[B,d,h,w,C]"
        )
    arrays.check_filled(**{name: other})
    for array in (original, other):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} and its original must be floating-point numbers, got {array.dtype}")
