"""Variance of gradients over a training run's checkpoints (Agarwal et al. 2022), as a score of an image's difficulty.

He et al. 2022 (section 4.6, Figs. 10 and 11) compare it with their mean SA score. They say that it was made for
classification, and not which gradient they took; `input_gradients` defines it for a segmentation.

With many checkpoints, stream: two maps per image are kept, however many checkpoints there are.

    state = init(images.shape[:-1])
    for variables in checkpoints:
        state = update(state, input_gradients(lambda x: module.apply(variables, x), images))
    scores = compute(state)
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.analysis.layout import check_channels_last
from jaxseg.metrics import arrays, pixels


class GradientStatistics(NamedTuple):
    """What is kept of the checkpoints so far: mean and spread of every pixel's gradient (Welford 1962).

    Attributes:
      checkpoints: how many, a float32 scalar.
      mean: `[B,*s]` float32, over checkpoints.
      squares: `[B,*s]` float32, sum over checkpoints of the squared distance from the mean.
    """

    checkpoints: jax.Array
    mean: jax.Array
    squares: jax.Array


@arrays.native("images", "labels", "valid")
def input_gradients(
    logits_from: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    *,
    labels: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Gradient, with respect to the image, of the sum over pixels of the logit of each pixel's class.

    With one pixel this is the gradient of Agarwal et al. 2022: that of the activation before the softmax of the true or
    of the predicted class. The sum, not the mean, so that gradients do not shrink as images grow. The images of
    a batch must not depend on each other, as they would through the statistics of batch norm in training.

    Args:
      logits_from: images -> logits `[B,H,W,K]` or `[B,D,H,W,K]`, of one checkpoint.
      images: `[B,H,W,C]` or `[B,D,H,W,C]`, floating.
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers; other numbers, such as 255, take the pixel out of the
        sum. None takes the class that this checkpoint predicts; no gradient flows through that choice.
      valid: bool, the logits' size, the pixels that are in the sum; None: all.

    Returns:
      The images' shape and type.

    Raises:
      ValueError: not a batch of images, labels of another shape than the logits, or images that fit the logits with
        their channels first and not last.
      TypeError: images are not floating, or labels not integer.
    """
    if images.ndim not in (4, 5):
        raise ValueError(f"images must be [B,H,W,C] or [B,D,H,W,C], got {images.shape}; add the batch axis")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floating, got {images.dtype}; scale them as in training")
    arrays.check_filled(images=images)
    logits, pull_back = jax.vjp(logits_from, images)
    if logits.ndim != images.ndim:
        raise ValueError(f"logits {logits.shape} and images {images.shape} differ in rank; logits are [B,*size,K]")
    check_channels_last("images", images.shape, logits.shape[1:-1], "the logits")
    if labels is None:
        labels = jnp.argmax(logits, -1)
    elif labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels {labels.shape} and logits {logits.shape} differ in batch or size; resize the labels to the logits"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integer class numbers, got {labels.dtype}; convert masks to int32")
    pixels.check(valid, logits=logits.shape[:-1])
    return pull_back(pixels.only(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), valid))[0]


@arrays.native("gradients", "valid")
def variance_of_gradients(gradients: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """VoG of every image from the gradients of all checkpoints; `init`, `update`, `compute` give the same as a stream.

    The mean over pixels of the *standard deviation* over checkpoints (divided by their number, not one less) of the
    gradient's mean over the image's channels. That is what the code of Agarwal et al. computes; in the formula of their
    paper the root covers the division alone. Their normalisation by class has no counterpart where an image has many
    classes, and He et al. do not mention one: it is left out.

    Args:
      gradients: `[T,B,H,W,C]` or `[T,B,D,H,W,C]`, floating: of T checkpoints, as from `input_gradients`.
      valid: `[B,H,W]` or `[B,D,H,W]` bool, the pixels over which the mean is taken; None: all.

    Returns:
      `[B]` float32, in units of the gradient; NaN with fewer than two checkpoints, which say nothing about variance.
      NaN in an image's gradients makes its own score NaN and no other; so does an image without a pixel that counts.

    Raises:
      ValueError: wrong rank.
      TypeError: not floating.
    """
    if gradients.ndim not in (5, 6) or 0 in gradients.shape[2:]:
        raise ValueError(
            f"gradients must be [T,B,H,W,C] or [T,B,D,H,W,C] with pixels, got {gradients.shape}; "
            "stack those of all checkpoints"
        )
    _check_floating(gradients)
    pixels.check(valid, gradients=gradients.shape[1:-1])
    return _at_once(gradients, valid)


def init(shape: Sequence[int]) -> GradientStatistics:
    """Statistics of no checkpoint, for images of `shape` `[B,H,W]` or `[B,D,H,W]`, channels left out."""
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise ValueError(f"shape must be (B,H,W) or (B,D,H,W) with pixels, got {tuple(shape)}; leave out the channels")
    nothing = jnp.zeros(tuple(shape), jnp.float32)
    return GradientStatistics(jnp.zeros((), jnp.float32), nothing, nothing)


@arrays.native("state", "gradients")
def update(state: GradientStatistics, gradients: jax.Array) -> GradientStatistics:
    """The statistics with one more checkpoint.

    Args:
      state: from `init` or `update`.
      gradients: `[B,H,W,C]` or `[B,D,H,W,C]`, floating: of the same images, as from `input_gradients`.

    Raises:
      ValueError: other images than the state's.
      TypeError: not floating.
    """
    if gradients.shape[:-1] != state.mean.shape or not gradients.shape[-1]:
        raise ValueError(
            f"gradients {gradients.shape} do not fit the statistics of images {state.mean.shape}; "
            "they must be those of the same images, with channels last"
        )
    _check_floating(gradients)
    return _update(state, gradients)


@arrays.native("a", "b")
def merge(a: GradientStatistics, b: GradientStatistics) -> GradientStatistics:
    """The statistics of two disjoint sets of checkpoints, of the same images in the same order (Chan et al. 1979).

    Raises:
      ValueError: the images' shapes differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics of images {a.mean.shape} and {b.mean.shape}; they must be of the same images")
    return _merge(a, b)


@arrays.native("state", "valid")
def compute(state: GradientStatistics, *, valid: jax.Array | None = None) -> jax.Array:
    """VoG of every image, `[B]` float32, as `variance_of_gradients`; NaN with fewer than two checkpoints."""
    pixels.check(valid, state=state.mean.shape)
    return _compute(state, valid)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@jax.jit
def _at_once(gradients: jax.Array, valid: jax.Array | None) -> jax.Array:
    maps = jnp.mean(gradients.astype(jnp.float32), -1)
    return _score(jnp.asarray(len(maps), jnp.float32), jnp.var(maps, 0), valid)


@jax.jit
def _update(state: GradientStatistics, gradients: jax.Array) -> GradientStatistics:
    mean = jnp.mean(gradients.astype(jnp.float32), -1)
    return _merge(state, GradientStatistics(jnp.ones((), jnp.float32), mean, jnp.zeros_like(mean)))


@jax.jit
def _merge(a: GradientStatistics, b: GradientStatistics) -> GradientStatistics:
    checkpoints = a.checkpoints + b.checkpoints
    share = b.checkpoints / jnp.maximum(checkpoints, 1.0)
    step = b.mean - a.mean
    return GradientStatistics(
        checkpoints, a.mean + share * step, a.squares + b.squares + a.checkpoints * share * jnp.square(step)
    )


@jax.jit
def _compute(state: GradientStatistics, valid: jax.Array | None) -> jax.Array:
    return _score(state.checkpoints, state.squares / jnp.maximum(state.checkpoints, 1.0), valid)


def _score(checkpoints: jax.Array, variance: jax.Array, valid: jax.Array | None) -> jax.Array:
    still = variance == 0  # the root has no finite slope there
    deviation = jnp.where(still, 0.0, jnp.sqrt(jnp.where(still, 1.0, variance)))
    return jnp.where(checkpoints < 2, math.nan, pixels.mean(deviation, valid))


def _check_floating(gradients: jax.Array) -> None:
    if not jnp.issubdtype(gradients.dtype, jnp.floating):
        raise TypeError(f"gradients must be floating, got {gradients.dtype}; convert them to float32")
