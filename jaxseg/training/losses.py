"""Training losses: scalars from logits and labels, sums in float32.

Every loss is a mean over images, so the mean over equal parts of a batch, as devices hold them, is that of the batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def dice_loss(logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """One minus the soft Dice, per image, mean over foreground classes and images (Milletari et al. 2016).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      smooth: added to numerator and denominator of every image and class, so that an image without a class has a
        gradient: it asks the network to predict less of it.

    Returns:
      A float32 scalar in [0, 1].

    Raises:
      ValueError: the shapes do not match.
    """
    _check(logits, labels)
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))[..., 1:]
    truth = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)[..., 1:]
    axes = tuple(range(1, labels.ndim))
    both = jnp.sum(probabilities * truth, axes)
    total = jnp.sum(probabilities, axes) + jnp.sum(truth, axes)
    return 1.0 - jnp.mean((2.0 * both + smooth) / (total + smooth))


def cross_entropy_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the logarithm of the probability of each pixel's class; the mean (He et al. 2022, section 4.2).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.

    Returns:
      A float32 scalar in nats, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    return -jnp.mean(_log_probability(logits, labels))


def focal_loss(logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """Cross-entropy of each pixel times `(1 - p)^gamma`, `p` the probability of its class; the mean (Lin et al. 2017).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      gamma: at 0 this is the cross-entropy.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    log_p = _log_probability(logits, labels)
    # -expm1 is exact where p is near one; its power would have no gradient at exactly one
    doubt = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return -jnp.mean(doubt**gamma * log_p)


def dice_focal_loss(logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0, gamma: float = 2.0) -> jax.Array:
    """The sum of `dice_loss` and `focal_loss`."""
    return dice_loss(logits, labels, smooth=smooth) + focal_loss(logits, labels, gamma=gamma)


def dice_cross_entropy_loss(logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """The sum of `dice_loss` and `cross_entropy_loss` (Wilm et al. 2024, section IV.C)."""
    return dice_loss(logits, labels, smooth=smooth) + cross_entropy_loss(logits, labels)


def dice_bce_loss(logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """The sum of `dice_loss` and the binary cross-entropy of every foreground class against the rest.

    A class's probability is that of the softmax, so its binary logit is its logit less the log-sum-exp of all others.
    With K = 2 this is `z = logits[..., 1] - logits[..., 0]`: the loss is that of a network with the one logit z, and
    the second term is `cross_entropy_loss`. With more classes it is the mean over pixels and foreground classes.

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      smooth: of `dice_loss`.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    overlap = dice_loss(logits, labels, smooth=smooth)
    wide = logits.astype(jnp.float32)
    foreground = range(1, logits.shape[-1])
    others = [jax.nn.logsumexp(jnp.delete(wide, k, -1), -1) for k in foreground]
    truth = jnp.stack([labels == k for k in foreground], -1)
    return overlap + binary_cross_entropy(wide[..., 1:] - jnp.stack(others, -1), truth)


def binary_cross_entropy(logits: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean over all pixels; `logits` and boolean `truth` have the same shape."""
    if logits.shape != truth.shape:
        raise ValueError(f"logits {logits.shape} and truth {truth.shape} must have the same shape")
    wide = logits.astype(jnp.float32)
    return -jnp.mean(jnp.where(truth, jax.nn.log_sigmoid(wide), jax.nn.log_sigmoid(-wide)))


def triplet_loss(anchor: jax.Array, positive: jax.Array, negative: jax.Array, *, margin: float = 0.1) -> jax.Array:
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`, mean over images and places.

    Args:
      anchor: `[B,...,C]`; the distance `d` is the Euclidean one over channels, at the same place.
      positive: what the anchor should be near to, of the same shape.
      negative: what it should be away from, of the same shape.
      margin: how much further away.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes differ.
    """
    if not anchor.shape == positive.shape == negative.shape:
        raise ValueError(f"anchor {anchor.shape}, positive {positive.shape} and negative {negative.shape} differ")

    def distance(x: jax.Array, y: jax.Array) -> jax.Array:
        squares = jnp.sum(jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32)), -1)
        return jnp.sqrt(squares + 1e-12)  # the root has no gradient at zero

    return jnp.mean(jax.nn.relu(distance(anchor, positive) - distance(anchor, negative) + margin))


def _log_probability(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`[B,...]` float32: of each pixel's own class."""
    _check(logits, labels)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jnp.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]


def _check(logits: jax.Array, labels: jax.Array) -> None:
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {logits.shape} must have the labels' shape {labels.shape} and one axis of classes")


# of logits and labels, by the name in a config
LOSSES: dict[str, Callable[..., jax.Array]] = {
    "dice": dice_loss,
    "cross_entropy": cross_entropy_loss,
    "dice_cross_entropy": dice_cross_entropy_loss,
    "dice_bce": dice_bce_loss,
    "dice_focal": dice_focal_loss,
}
