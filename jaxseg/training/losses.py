"""Training losses: scalars from logits and labels, sums in float32."""

import jax
import jax.numpy as jnp


def dice_loss(logits: jax.Array, labels: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """One minus the soft Dice, per image, mean over foreground classes and images (Milletari et al. 2016).

    Args:
      logits: `[B,...,K]`.
      labels: `[B,...]` integer class numbers.
      smooth: added to numerator and denominator of every image and class, so that an image without a class has a
        gradient: it asks the network to predict less of it.

    Returns:
      A float32 scalar in [0, 1].

    Raises:
      ValueError: the shapes do not match.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {logits.shape} must have the labels' shape {labels.shape} and one axis of classes")
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))[..., 1:]
    truth = jax.nn.one_hot(labels, logits.shape[-1])[..., 1:]
    axes = tuple(range(1, labels.ndim))
    both = jnp.sum(probabilities * truth, axes)
    total = jnp.sum(probabilities, axes) + jnp.sum(truth, axes)
    return 1.0 - jnp.mean((2.0 * both + smooth) / (total + smooth))
