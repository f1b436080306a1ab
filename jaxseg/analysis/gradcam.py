"""Which places of a layer support a class: Grad-CAM for segmentation, at any layer, for any class and region.

A network enters as a function from a layer's activations to the logits; the analysis takes two calls:

    gradients = score_gradients(logits_from, activations, class_index=1)
    saliency = gradcam(activations, gradients, size=images.shape[1:-1])

With this project's networks, `logits_from` is
`lambda x: capture.replace(module, variables, images, {layer: lambda _: x})`.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxseg.analysis import cells
from jaxseg.analysis.layout import check_channels_last
from jaxseg.metrics import arrays, pixels

_EXACT = jax.lax.Precision.HIGHEST


@arrays.native("activations", "region", "valid")
def score_gradients(
    logits_from: Callable[[jax.Array], jax.Array],
    activations: jax.Array,
    *,
    class_index: int,
    region: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Gradient of a class's score, the sum of its logit over a region, with respect to a layer's activations.

    The score is that of Seg-Grad-CAM (Vinogradova et al. 2020), which makes Grad-CAM (Selvaraju et al. 2017) a method
    for segmentation. Lin, Weng et al. 2024 (supplement, Fig. 2) used Grad-CAM on the last layer of the encoder and do
    not name a score; the default is that of Vinogradova et al. for a whole class. The images of a batch must not
    depend on each other, as they would through the statistics of batch norm in training.

    Args:
      logits_from: activations -> logits `[B,H,W,K]` or `[B,D,H,W,K]`, before the softmax. Everything else that the
        logits depend on, such as skip connections, is held fixed.
      activations: `[B,*s,C]` floating; the layer may have any size.
      class_index: whose logit, 0 to K-1, 0 the background.
      region: `[B,H,W]` or `[B,D,H,W]`, the logits' size: the pixels whose logits are summed, bool, or their weights,
        floating, from 0 to 1. By default the pixels that are predicted as the class; no gradient flows through that
        choice.
      valid: bool, the logits' size: pixels whose logits may be summed; None: all.

    Returns:
      The activations' shape and type. Zeros for an image whose region is empty.

    Raises:
      ValueError: not a batch of maps, no such class, a region of another shape than the logits, or one with known
        values (`metrics.arrays`) that are not weights.
      TypeError: activations are not floating, or a region neither bool nor floating.
    """
    _check_maps("activations", activations)
    logits, pull_back = jax.vjp(logits_from, activations)
    _check_maps("logits", logits)
    classes = logits.shape[-1]
    if not isinstance(class_index, jax.core.Tracer) and not 0 <= class_index < classes:
        raise ValueError(f"class_index is {class_index}, but the logits have classes 0 to {classes - 1}")
    if region is not None:
        if region.shape != logits.shape[:-1]:
            raise ValueError(
                f"region {region.shape} and logits {logits.shape} differ in batch or size; resize the region to the "
                "logits"
            )
        _check_weights("region", region)
        arrays.check_shares(region=region)
    pixels.check(valid, logits=logits.shape[:-1])
    return pull_back(_score_slope(logits, class_index, region, valid))[0]


@arrays.native("activations", "gradients", "valid")
def gradcam(
    activations: jax.Array,
    gradients: jax.Array,
    *,
    size: Sequence[int] | None = None,
    normalise: bool = True,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Grad-CAM: `ReLU(sum_c a_c A_c)`, with `a_c` the mean over space of channel c's gradient (Selvaraju et al. 2017).

    Args:
      activations: `[B,H,W,C]` or `[B,D,H,W,C]`, floating: A, of any one layer.
      gradients: the same shape: the gradient of a score with respect to them, as from `score_gradients`.
      size: the spatial size to which the map is resized after the ReLU, linearly with half-pixel centres (smaller
        sizes are averaged); None leaves the layer's own.
      normalise: divides the map of every image by its maximum. The resized map's, so that it reaches 1.
      valid: bool, the map's size, the pixels that count; None: all. Elsewhere the map is 0, and the mean over space is
        over cells of whose pixels more than half count.

    Returns:
      `[B,*size]` float32, at least 0. A map without saliency stays 0, also when normalised; a NaN in an image's
      activations or gradients spreads over its own map and no other.

    Raises:
      ValueError: not a batch of maps, shapes differ, a size of another rank, or activations that fit the size with
        their channels first and not last.
      TypeError: not floating.
    """
    _check_maps("activations", activations)
    _check_maps("gradients", gradients)
    if activations.shape != gradients.shape:
        raise ValueError(
            f"activations {activations.shape} and gradients {gradients.shape} differ in shape; "
            "take the gradient with respect to these activations"
        )
    space = tuple(range(1, activations.ndim - 1))
    if size is not None and (len(size) != len(space) or min(size) < 1):
        raise ValueError(
            f"size {tuple(size)} does not fit activations {activations.shape}; give {len(space)} sizes of at least 1"
        )
    if size is not None:
        check_channels_last("activations", activations.shape, size, "size")
    sizes = activations.shape[1:-1] if size is None else tuple(size)
    pixels.check(valid, map=(len(activations), *sizes))
    return _gradcam(activations, gradients, valid, size=None if size is None else tuple(size), normalise=normalise)


@arrays.native("saliency", "region", "valid")
def saliency_share(saliency: jax.Array, region: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """The share of an image's saliency that lies on a region, such as the overlays of an ultrasound image.

    Compare it with the region's share of the pixels, `saliency_share(jnp.ones(region.shape), region)`: that is what
    saliency independent of the region has.

    Args:
      saliency: `[B,H,W]` or `[B,D,H,W]`, floating, at least 0, in any unit.
      region: the same shape, bool, or weights between 0 and 1.
      valid: bool, the same shape, the pixels whose saliency counts; None: all.

    Returns:
      `[B]` float32 between 0 and 1; NaN for an image without saliency, to be left out of means and counted.

    Raises:
      ValueError: shapes differ, wrong rank, or known values (`metrics.arrays`) that are negative or no weights.
      TypeError: saliency is not floating, or the region neither bool nor floating.
    """
    if saliency.shape != region.shape or saliency.ndim not in (3, 4):
        raise ValueError(
            f"saliency {saliency.shape} and region {region.shape} must both be [B,H,W] or [B,D,H,W]; "
            "resize one to the other, or add the batch axis"
        )
    if not jnp.issubdtype(saliency.dtype, jnp.floating):
        raise TypeError(f"saliency must be floating, got {saliency.dtype}; convert it to float32")
    _check_weights("region", region)
    arrays.check_filled(saliency=saliency)
    arrays.check_shares(region=region)
    if (limits := arrays.extremes(saliency)) is not None and limits[0] < 0:
        raise ValueError(
            f"saliency holds {limits[0]:.6g}, and a share needs 0 or more; give jax.nn.relu or jnp.abs of it"
        )
    pixels.check(valid, saliency=saliency.shape)
    return _share(saliency, region, valid)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@jax.jit
def _score_slope(
    logits: jax.Array, class_index: jax.Array | int, region: jax.Array | None, valid: jax.Array | None
) -> jax.Array:
    """Gradient of the score with respect to the logits."""
    weights = pixels.only(jnp.argmax(logits, -1) == class_index if region is None else region, valid)
    return jnp.zeros_like(logits).at[..., class_index].set(weights.astype(logits.dtype))


@functools.partial(jax.jit, static_argnames=("size", "normalise"))
def _gradcam(
    activations: jax.Array,
    gradients: jax.Array,
    valid: jax.Array | None,
    *,
    size: tuple[int, ...] | None,
    normalise: bool,
) -> jax.Array:
    space = tuple(range(1, gradients.ndim - 1))
    slopes, maps = gradients.astype(jnp.float32), activations.astype(jnp.float32)
    if valid is None:
        weights = jnp.mean(slopes, space)
    else:
        counts = cells.counted(valid, activations.shape[1:-1])
        slopes, maps = (pixels.only(x, counts) for x in (slopes, maps))
        weights = jnp.sum(slopes, space) / jnp.maximum(pixels.number(counts), 1.0)[:, None]
    weighted = jnp.einsum("b...c,bc->b...", maps, weights, precision=_EXACT)
    saliency = jax.nn.relu(weighted)
    if size is not None:
        saliency = jax.image.resize(saliency, (len(saliency), *size), "linear")
    saliency = pixels.only(saliency, valid)
    if normalise:
        highest = jnp.max(saliency, tuple(range(1, saliency.ndim)), keepdims=True)
        saliency = saliency / jnp.where(highest == 0, 1.0, highest)
    return saliency


@jax.jit
def _share(saliency: jax.Array, region: jax.Array, valid: jax.Array | None) -> jax.Array:
    space = tuple(range(1, saliency.ndim))
    saliency = pixels.only(saliency.astype(jnp.float32), valid)
    total = jnp.sum(saliency, space)
    inside = jnp.sum(saliency * region.astype(jnp.float32), space)
    return jnp.where(total == 0, math.nan, inside / jnp.where(total == 0, 1.0, total))


def _check_maps(name: str, array: jax.Array) -> None:
    if array.ndim not in (4, 5):
        raise ValueError(f"{name} must be [B,H,W,C] or [B,D,H,W,C], got {array.shape}; add the batch axis")
    arrays.check_filled(**{name: array})
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {array.dtype}; convert them to float32")


def _check_weights(name: str, array: jax.Array) -> None:
    if not (array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.floating)):
        raise TypeError(f"{name} must be bool or floating weights, got {array.dtype}; compare labels with a class")
