"""How uncertain a network or an ensemble claims to be: one number per case from its class probabilities.

Natural logarithms, sums over classes, means over pixels, NaN where none counts; a pixel is a voxel in 3-D. Lennartz &
Schultz 2023 (section 4.2) compare with the entropy of one network and of an ensemble. Half precision is raised to
float32 first.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

from jaxseg.metrics import arrays, overlap, pixels


@arrays.native("probabilities", "valid")
def entropy(probabilities: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Entropy of the class probabilities, `-sum_k p_k ln p_k`, mean over the pixels of a case.

    A probability of 0 adds 0 to the value and to the gradient, which is finite everywhere.

    Args:
      probabilities: `[B,...,K]` floats that sum to 1 over K; any number of pixel axes, none included.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      `[B]` float32 in nats, 0 (certain) to ln K; NaN for a case with a NaN or a negative probability.

    Raises:
      ValueError: wrong rank, a single class, or known values (`metrics.arrays`) that are not probabilities.
      TypeError: not floating point.
    """
    _check(probabilities, "[B,...,K]", 2, valid)
    return _mean_entropy(probabilities, valid)


@arrays.native("probabilities", "valid")
def ensemble_entropy(probabilities: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Entropy of the mean probability of the members: the total uncertainty of an ensemble.

    Args:
      probabilities: `[M,B,...,K]`, one set of class probabilities per member.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      `[B]` float32 in nats; of one member, its `entropy`.

    Raises:
      ValueError: wrong rank, no member, a single class, or known values that are not probabilities.
      TypeError: not floating point.
    """
    _check(probabilities, "[M,B,...,K]", 3, valid)
    return _entropy_of_mean(probabilities, valid)


@arrays.native("probabilities", "valid")
def mutual_information(probabilities: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Disagreement of the members: entropy of their mean minus the mean of their entropies.

    Args:
      probabilities: `[M,B,...,K]`, one set of class probabilities per member.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      `[B]` float32 in nats, at least 0 and at most ln M. One member agrees with itself: 0.

    Raises:
      ValueError: wrong rank, no member, a single class, or known values that are not probabilities.
      TypeError: not floating point.
    """
    _check(probabilities, "[M,B,...,K]", 3, valid)
    return _mutual_information(probabilities, valid)


@arrays.native("probabilities", "valid")
def maximum_probability(probabilities: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Probability of the likeliest class, mean over the pixels of a case: a confidence, not an uncertainty.

    Args:
      probabilities: `[B,...,K]` floats that sum to 1 over K; any number of pixel axes, none included.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      `[B]` float32, 1/K to 1 (certain); NaN for a case with a NaN.

    Raises:
      ValueError: wrong rank, a single class, or known values (`metrics.arrays`) that are not probabilities.
      TypeError: not floating point.
    """
    _check(probabilities, "[B,...,K]", 2, valid)
    return _mean_maximum(probabilities, valid)


@arrays.native("predictions", "valid")
def pairwise_dice(predictions: jax.Array, *, num_classes: int, valid: jax.Array | None = None) -> jax.Array:
    """Agreement of the members of an ensemble: Dice of every two members, mean over pairs and foreground classes.

    Args:
      predictions: `[M,B,H,W]` or `[M,B,D,H,W]` integer class numbers, 0 the background.
      num_classes: K, background included.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      `[B]` float32, 1 where all members agree. A class that neither of two members predicts is undefined for that
      pair (`metrics.overlap.dice`) and left out of the mean; NaN where nothing is left, so for one member too.

    Raises:
      ValueError: wrong rank, no member, fewer than two classes, or known values that are not class numbers.
      TypeError: not integers.
    """
    if predictions.ndim not in (4, 5) or not predictions.shape[0]:
        raise ValueError(
            f"predictions must be [M,B,H,W] or [M,B,D,H,W] with M >= 1, got {predictions.shape}; "
            "stack the members' class numbers on axis 0"
        )
    # here, as the pairs are traced below
    arrays.check_integers(predictions=predictions)
    arrays.check_class_numbers(num_classes, predictions=predictions)
    pixels.check(valid, predictions=predictions.shape[1:])
    return _pairwise_dice(predictions, valid, num_classes=num_classes)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@jax.jit
def _mean_entropy(probabilities: jax.Array, valid: jax.Array | None) -> jax.Array:
    return pixels.mean(_entropy(_filled(probabilities, valid)), valid)


@jax.jit
def _entropy_of_mean(probabilities: jax.Array, valid: jax.Array | None) -> jax.Array:
    return pixels.mean(_entropy(_filled(jnp.mean(probabilities.astype(jnp.float32), 0), valid)), valid)


@jax.jit
def _mutual_information(probabilities: jax.Array, valid: jax.Array | None) -> jax.Array:
    members = probabilities.astype(jnp.float32)
    total = _entropy(jnp.mean(members, 0))
    own = jnp.mean(_entropy(members), 0)
    return jnp.maximum(pixels.mean(total - own, valid), 0.0)  # rounding can leave -1e-8


@jax.jit
def _mean_maximum(probabilities: jax.Array, valid: jax.Array | None) -> jax.Array:
    return pixels.mean(jnp.max(probabilities.astype(jnp.float32), -1), valid)


@functools.partial(jax.jit, static_argnames="num_classes")
def _pairwise_dice(members: jax.Array, valid: jax.Array | None, *, num_classes: int) -> jax.Array:
    pairs = list(itertools.combinations(range(members.shape[0]), 2))
    if not pairs:  # the checks of `dice` hold for one member too
        return jnp.full_like(overlap.dice(members[0], members[0], num_classes=num_classes)[:, 0], jnp.nan)

    def one(pair: jax.Array) -> jax.Array:
        return overlap.dice(members[pair[0]], members[pair[1]], num_classes=num_classes, valid=valid)

    scores = jax.lax.map(one, jnp.array(pairs, jnp.int32))  # one pair at a time: memory does not grow with M
    defined = ~jnp.isnan(scores)
    total = jnp.sum(jnp.where(defined, scores, 0.0), (0, 2))
    return total / jnp.sum(defined, (0, 2)).astype(jnp.float32)  # 0 / 0 is the documented NaN


def _entropy(probabilities: jax.Array) -> jax.Array:
    """Entropy over the last axis; NaN stays NaN, which `p > 0` would hide."""
    safe = jnp.where(probabilities == 0, 1.0, probabilities)
    return jnp.sum(safe * -jnp.log(safe), -1)  # 1 ln 1 is 0, and a constant has no gradient


def _filled(probabilities: jax.Array, valid: jax.Array | None) -> jax.Array:
    """In float32, and 1 where pixels do not count: what was there has no slope, whatever it is."""
    return pixels.only(probabilities.astype(jnp.float32), valid, other=1.0)


def _check(probabilities: jax.Array, form: str, rank: int, valid: jax.Array | None) -> None:
    shape = probabilities.shape
    if len(shape) < rank:
        raise ValueError(f"probabilities must be {form}, got {shape}; keep the batch axis")
    if not jnp.issubdtype(probabilities.dtype, jnp.floating):
        raise TypeError(
            f"probabilities must be floating point, got {probabilities.dtype}; take a softmax of the logits"
        )
    if shape[-1] < 2:
        raise ValueError(f"probabilities {shape} have {shape[-1]} class; of one logit z take a softmax of [0, z]")
    pixels.check(valid, probabilities=shape[rank - 2 : -1])
    if 0 in shape[:-1]:
        raise ValueError(f"probabilities {shape} have an empty axis; leave out empty batches")
    arrays.check_probabilities(probabilities)
