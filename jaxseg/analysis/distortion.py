"""Segmentation distortion (Lennartz and Schultz 2023): how outputs change when activations become in-distribution.

U(I) are the logits of a network; U o r(x) those with its bottleneck's activation x replaced by an autoencoder's
reconstruction r(x).
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxseg.metrics import arrays

Reduction = Literal["mean", "sum"]


@arrays.native("logits", "reconstructed_logits")
def segmentation_distortion(
    logits: jax.Array, reconstructed_logits: jax.Array, *, reduction: Reduction = "mean"
) -> jax.Array:
    """Squared difference of the two class probabilities, mean over pixels and classes (Eq. 4).

    Args:
      logits: U(I), `[B,*s,K]` floating.
      reconstructed_logits: U o r(x), of the same shape.
      reduction: mean; or sum, over pixels and classes.

    Returns:
      `[B]` float32. The mean is in [0, 2 / K]: 0 where nothing changes, 2 / K where two certain predictions contradict
      each other everywhere. NaN logits give NaN for their image.

    Raises:
      ValueError: shapes or ranks do not match, an unknown reduction.
      TypeError: logits that are not floating-point numbers.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction is {reduction!r}; choose one of {', '.join(get_args(Reduction))}")
    _check_logits(logits, reconstructed_logits)
    return _distortion(logits, reconstructed_logits, reduction=reduction)


@arrays.native("logits", "reconstructed_logits")
def distortion_map(logits: jax.Array, reconstructed_logits: jax.Array) -> jax.Array:
    """Its map: the mean over classes at every pixel, `[B,*s]` float32; arguments and errors as there."""
    _check_logits(logits, reconstructed_logits)
    return _distortion_map(logits, reconstructed_logits)


@arrays.native("logits", "reconstructed_logits", "activations", "reconstruction")
def autoencoder_loss(
    logits: jax.Array, reconstructed_logits: jax.Array, activations: jax.Array, reconstruction: jax.Array
) -> jax.Array:
    """L_seg + L_mse (Eqs. 1 to 3), with which the autoencoder is fitted on training images.

    Both norms are means over all elements, so that neither the size of the images nor that of the activations weighs
    one against the other.

    Args:
      logits: U(I), `[B,*s,K]`, of the frozen network.
      reconstructed_logits: U o r(x), of the same shape.
      activations: x, `[B,*h,C]`.
      reconstruction: r(x), of the same shape.

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
    return _mean_square(logits, reconstructed_logits) + _mean_square(activations, reconstruction)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@jax.jit
def _distortion_map(logits: jax.Array, reconstructed_logits: jax.Array) -> jax.Array:
    before, after = (jax.nn.softmax(x.astype(jnp.float32)) for x in (logits, reconstructed_logits))
    return jnp.mean(jnp.square(before - after), -1)


@functools.partial(jax.jit, static_argnames="reduction")
def _distortion(logits: jax.Array, reconstructed_logits: jax.Array, *, reduction: Reduction) -> jax.Array:
    squares = _distortion_map(logits, reconstructed_logits)
    axes = tuple(range(1, squares.ndim))
    return jnp.mean(squares, axes) if reduction == "mean" else jnp.sum(squares, axes) * logits.shape[-1]


@jax.jit
def _mean_square(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)))


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
