"""Annotations with wrong topology, which teach DTU-Net what a false mask looks like (Lin et al. 2023)."""

import jax
import jax.numpy as jnp

from jaxseg.metrics import pixels

PATCH = 8  # pixels


def corrupt(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    fraction: float = 0.2,
    valid: jax.Array | None = None,
) -> jax.Array:
    """The annotation with missed and with false splits, drawn anew for every image.

    Missed splits: of the patches of 8 pixels on a regular grid that hold foreground, a random `fraction` is erased.
    False splits: one foreground class of the annotation is painted on a random `fraction` of those background pixels
    whose gray value (the mean over channels) is within one standard deviation of the class's mean.

    Args:
      key: typed random key.
      images: `[B,H,W,C]` or `[B,D,H,W,C]`.
      labels: the annotation, `[B,...]` int32.
      num_classes: K.
      fraction: of patches and of pixels, rounded up, so that small objects lose a patch too.
      valid: `[B,...]` bool, the pixels that count: nothing is painted elsewhere; None: all.

    Returns:
      Labels of the same shape; those of an image without foreground come back as they are.

    Raises:
      ValueError: the shapes do not match.
    """
    if images.shape[:-1] != labels.shape:
        raise ValueError(f"images {images.shape} must have the labels' shape {labels.shape} and one axis of channels")
    pixels.check(valid, labels=labels.shape)
    gray = jnp.mean(images.astype(jnp.float32), -1)

    def one(key: jax.Array, gray: jax.Array, labels: jax.Array, counts: jax.Array | None) -> jax.Array:
        erase_key, class_key, paint_key = jax.random.split(key, 3)
        erased = erase_patches(erase_key, labels, fraction=fraction)
        present = jnp.stack([jnp.any(labels == k) for k in range(1, num_classes)])
        weights = jnp.where(jnp.any(present), present, True).astype(jnp.float32)  # a choice needs a candidate
        chosen = 1 + jax.random.choice(class_key, num_classes - 1, p=weights / jnp.sum(weights)).astype(labels.dtype)
        alike = _alike(gray, labels == chosen) & (labels == 0)
        alike = alike if counts is None else alike & counts
        return jnp.where(_random_subset(paint_key, alike, fraction), chosen, erased)

    return jax.vmap(one)(jax.random.split(key, labels.shape[0]), gray, labels, valid)


def erase_patches(key: jax.Array, labels: jax.Array, *, fraction: float) -> jax.Array:
    """Sets a random `fraction` of the patches that hold foreground to background.

    Args:
      key: typed random key.
      labels: of one image, `[H,W]` or `[D,H,W]` int32; at the far borders a patch may be smaller.
      fraction: of the patches with foreground, rounded up.
    """
    counts = [-(-size // PATCH) for size in labels.shape]
    padded = jnp.pad(labels > 0, [(0, n * PATCH - size) for n, size in zip(counts, labels.shape, strict=True)])
    # [H, W] -> [h, 8, w, 8]
    grid = padded.reshape([side for n in counts for side in (n, PATCH)])
    filled = jnp.any(grid, tuple(range(1, grid.ndim, 2)))
    gone = _random_subset(key, filled, fraction)
    for axis, size in enumerate(labels.shape):
        gone = jnp.take(jnp.repeat(gone, PATCH, axis=axis), jnp.arange(size, dtype=jnp.int32), axis=axis)
    return jnp.where(gone, 0, labels)


def _alike(gray: jax.Array, region: jax.Array) -> jax.Array:
    """Pixels within one standard deviation of the region's mean; none if the region is empty."""
    count = jnp.maximum(jnp.sum(region), 1).astype(gray.dtype)
    mean = jnp.sum(jnp.where(region, gray, 0)) / count
    deviation = jnp.sqrt(jnp.sum(jnp.where(region, jnp.square(gray - mean), 0)) / count)
    return (jnp.abs(gray - mean) <= deviation) & jnp.any(region)


def _random_subset(key: jax.Array, candidates: jax.Array, fraction: float) -> jax.Array:
    """Exactly `ceil(fraction n)` of the n true entries, each equally likely."""
    scores = jnp.where(candidates, jax.random.uniform(key, candidates.shape, jnp.float32), 2.0).ravel()
    share = fraction * jnp.sum(candidates).astype(jnp.float32)
    keep = jnp.ceil(share * (1 - 1e-6)).astype(jnp.int32)  # 0.3 * 10 is above 3 in float32
    rank = jnp.argsort(jnp.argsort(scores)).astype(jnp.int32)
    return (rank < keep).reshape(candidates.shape)
