"""Training losses: scalars from logits and labels, sums in float32.

Every loss is a mean over images, so the mean over equal parts of a batch, as devices hold them, is that of the batch.

With `valid`, bool `[B,...]`, the loss of an image is that of its valid pixels alone, whatever the others hold, which
get no gradient: a padded batch has the loss and the gradient of its images one by one. An image without a valid pixel
has loss 0 and no gradient, and is one of the images over which the mean is taken: were it left out, parts of a batch
would weigh by how many such images they have, and would no longer average to the batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxseg.metrics import pixels


def dice_loss(
    logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0, valid: jax.Array | None = None
) -> jax.Array:
    """One minus the soft Dice, per image, mean over foreground classes and images (Milletari et al. 2016).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      smooth: added to numerator and denominator of every image and class, so that an image without a class has a
        gradient: it asks the network to predict less of it.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      A float32 scalar in [0, 1].

    Raises:
      ValueError: the shapes do not match.
    """
    wide = _wide(logits, labels, valid)
    probabilities = pixels.only(jax.nn.softmax(wide)[..., 1:], valid)
    truth = pixels.only(jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)[..., 1:], valid)
    axes = tuple(range(1, labels.ndim))
    both = jnp.sum(probabilities * truth, axes)
    total = jnp.sum(probabilities, axes) + jnp.sum(truth, axes)
    if valid is None:
        return 1.0 - jnp.mean((2.0 * both + smooth) / (total + smooth))
    added = jnp.where(pixels.number(valid) > 0, jnp.asarray(smooth, jnp.float32), 1.0)[:, None]  # of no pixel 1 / 1
    return 1.0 - jnp.mean((2.0 * both + added) / (total + added))


def generalised_dice_loss(logits: jax.Array, labels: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """One minus the generalised Dice of an image, mean over images (Sudre et al. 2017, section 2.1).

    With r and p the truth and the probability of class l, `1 - 2 sum_l w_l sum r p / sum_l w_l sum (r + p)` over all
    classes, the background too, where `w_l = 1 / (sum r)^2`: a class weighs by the inverse square of its volume. A
    class that an image does not have would weigh infinitely; it weighs as much as the smallest one that is there, as in
    the authors' NiftyNet.

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      A float32 scalar in [0, 1].

    Raises:
      ValueError: the shapes do not match.
    """
    wide = _wide(logits, labels, valid)
    probabilities = pixels.only(jax.nn.softmax(wide), valid)
    truth = pixels.only(jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), valid)
    axes = tuple(range(1, labels.ndim))
    volume = jnp.sum(truth, axes)
    smallest = jnp.min(jnp.where(volume > 0, volume, jnp.inf), -1, keepdims=True)
    # a common factor does not matter; with this one no weight leaves the range of a float
    weights = jnp.where(volume > 0, jnp.square(smallest / jnp.maximum(volume, 1.0)), 1.0)
    both = jnp.sum(weights * jnp.sum(probabilities * truth, axes), -1)
    total = jnp.sum(weights * (jnp.sum(probabilities, axes) + volume), -1)
    return jnp.mean(jnp.where(total > 0, 1.0 - 2.0 * both / jnp.where(total > 0, total, 1.0), 0.0))


def cross_entropy_loss(logits: jax.Array, labels: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Minus the logarithm of the probability of each pixel's class; the mean (He et al. 2022, section 4.2).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      A float32 scalar in nats, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    return -_mean(_log_probability(logits, labels, valid), valid)


def focal_loss(
    logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0, valid: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy of each pixel times `(1 - p)^gamma`, `p` the probability of its class; the mean (Lin et al. 2017).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      gamma: at 0 this is the cross-entropy.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    log_p = _log_probability(logits, labels, valid)
    # -expm1 is exact where p is near one; its power would have no gradient at exactly one
    doubt = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return -_mean(doubt**gamma * log_p, valid)


def dice_focal_loss(
    logits: jax.Array,
    labels: jax.Array,
    *,
    smooth: float = 1.0,
    gamma: float = 2.0,
    valid: jax.Array | None = None,
) -> jax.Array:
    """The sum of `dice_loss` and `focal_loss`."""
    overlap = dice_loss(logits, labels, smooth=smooth, valid=valid)
    return overlap + focal_loss(logits, labels, gamma=gamma, valid=valid)


def dice_cross_entropy_loss(
    logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0, valid: jax.Array | None = None
) -> jax.Array:
    """The sum of `dice_loss` and `cross_entropy_loss` (Wilm et al. 2024, section IV.C)."""
    return dice_loss(logits, labels, smooth=smooth, valid=valid) + cross_entropy_loss(logits, labels, valid=valid)


def generalised_dice_cross_entropy_loss(
    logits: jax.Array, labels: jax.Array, *, valid: jax.Array | None = None
) -> jax.Array:
    """The sum of `generalised_dice_loss` and `cross_entropy_loss`."""
    return generalised_dice_loss(logits, labels, valid=valid) + cross_entropy_loss(logits, labels, valid=valid)


def dice_bce_loss(
    logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0, valid: jax.Array | None = None
) -> jax.Array:
    """The sum of `dice_loss` and the binary cross-entropy of every foreground class against the rest.

    A class's probability is that of the softmax, so its binary logit is its logit less the log-sum-exp of all others.
    With K = 2 this is `z = logits[..., 1] - logits[..., 0]`: the loss is that of a network with the one logit z, and
    the second term is `cross_entropy_loss`. With more classes it is the mean over pixels and foreground classes.

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class indices.
      smooth: of `dice_loss`.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    overlap = dice_loss(logits, labels, smooth=smooth, valid=valid)
    wide = _wide(logits, labels, valid)
    foreground = range(1, logits.shape[-1])
    others = [jax.nn.logsumexp(jnp.delete(wide, k, -1), -1) for k in foreground]
    truth = jnp.stack([labels == k for k in foreground], -1)
    return overlap + binary_cross_entropy(wide[..., 1:] - jnp.stack(others, -1), truth, valid=valid)


def binary_cross_entropy(logits: jax.Array, truth: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Mean over all pixels, and classes where there are several.

    Args:
      logits: `[B,...]` or `[B,...,K]`.
      truth: bool, of the same shape.
      valid: `[B,...]` bool, the pixels that count; None: all.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes do not match.
    """
    if logits.shape != truth.shape:
        raise ValueError(f"logits {logits.shape} and truth {truth.shape} must have the same shape")
    if valid is not None:
        pixels.check(valid, logits=logits.shape[: max(valid.ndim, logits.ndim - 1)])
    wide = pixels.only(logits.astype(jnp.float32), valid)
    return -_mean(jnp.where(truth, jax.nn.log_sigmoid(wide), jax.nn.log_sigmoid(-wide)), valid)


def triplet_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    margin: float = 0.1,
    valid: jax.Array | None = None,
) -> jax.Array:
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`, mean over images and places.

    Args:
      anchor: `[B,...,C]`; the distance `d` is the Euclidean one over channels, at the same place.
      positive: what the anchor should be near to, of the same shape.
      negative: what it should be away from, of the same shape.
      margin: how much further away.
      valid: `[B,...]` bool, the places that count; None: all.

    Returns:
      A float32 scalar, at least 0.

    Raises:
      ValueError: the shapes differ.
    """
    if not anchor.shape == positive.shape == negative.shape:
        raise ValueError(f"anchor {anchor.shape}, positive {positive.shape} and negative {negative.shape} differ")
    pixels.check(valid, embeddings=anchor.shape[:-1])
    anchor, positive, negative = (pixels.only(x, valid) for x in (anchor, positive, negative))

    def distance(x: jax.Array, y: jax.Array) -> jax.Array:
        squares = jnp.sum(jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32)), -1)
        return jnp.sqrt(squares + 1e-12)  # the root has no gradient at zero

    return _mean(jax.nn.relu(distance(anchor, positive) - distance(anchor, negative) + margin), valid)


def _log_probability(logits: jax.Array, labels: jax.Array, valid: jax.Array | None) -> jax.Array:
    """`[B,...]` float32: of each pixel's own class."""
    log_probabilities = jax.nn.log_softmax(_wide(logits, labels, valid))
    return jnp.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]


def _mean(values: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Over the pixels that count of every image, then over images."""
    return jnp.mean(values) if valid is None else jnp.mean(pixels.mean(values, valid, empty=0.0))


def _wide(logits: jax.Array, labels: jax.Array, valid: jax.Array | None) -> jax.Array:
    """The checked logits in float32; 0 where pixels do not count, so that what was there, if infinite, has no slope."""
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {logits.shape} must have the labels' shape {labels.shape} and one axis of classes")
    pixels.check(valid, labels=labels.shape)
    return pixels.only(logits.astype(jnp.float32), valid)


# of logits and labels, and of valid pixels where a batch names some, by the name in a config
LOSSES: dict[str, Callable[..., jax.Array]] = {
    "dice": dice_loss,
    "cross_entropy": cross_entropy_loss,
    "dice_cross_entropy": dice_cross_entropy_loss,
    "generalised_dice": generalised_dice_loss,
    "generalised_dice_cross_entropy": generalised_dice_cross_entropy_loss,
    "dice_bce": dice_bce_loss,
    "dice_focal": dice_focal_loss,
}
