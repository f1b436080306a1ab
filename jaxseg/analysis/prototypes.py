"""ProtoSeg and the segmentation ability (SA) score (He et al. 2022): how well does a feature map separate an object?

Symbols, per image:
  f    features at their own resolution, `[*h, C]`; U f: up-sampled to the mask's size
  m    mask, the object's probability in [0, 1], `[*H]`; r: region that counts, 1 everywhere if not given
  c_t  object's prototype, sum(r m Uf) / sum(r m); c_b: background's, with 1 - m (Eq. 6)
  p    object probability, softmax of -|Uf - c_t|^2 against -|Uf - c_b|^2
  SA   overlap of the map p > 1/2 (Eq. 7) with the annotation (Eq. 8)

No function up-samples C channels to get a prototype or a probability. U is linear, so the prototypes are
f^T (U^T (r m)) / sum(r m), and p = sigmoid(2 U((f - (c_t + c_b) / 2) (c_t - c_b))): one number per low-resolution
pixel is up-sampled. All of it holds in 2-D and 3-D alike.

A side of the mask that is empty has no prototype: probabilities and scores of that image are NaN, to be left out of
means and counted. A constant feature map has equal prototypes: p is 1/2 everywhere and nothing is object. NaN features
give NaN for their image (per unit: for that unit), also where they lie outside the region. Integer masks are hard, any
number above 0 is the object. All is computed in float32: scale raw intensities to about [-1, 1] first.

Shapes of features that fit the mask with their channels first, and not last, are a ValueError. So are, where values are
known (`metrics.arrays`), soft masks and regions outside 0 to 1 and negative labels or hard masks.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis.layout import check_channels_last
from jaxseg.analysis.resampling import Interpolation, upsample, upsample_adjoint
from jaxseg.metrics import arrays
from jaxseg.metrics.intervals import defined_mean

Score = Literal["dice", "jaccard", "accuracy", "sensitivity", "specificity"]
_EXACT = jax.lax.Precision.HIGHEST  # otherwise accelerators round the factors of a product
_T = TypeVar("_T")
_FEW = 32  # channels, as images have, which are centred first: their means are large compared with their spread
_NEARLY_EMPTY = 1e-3  # pixels; below, a side of the mask has prototypes whose gradients are rounding errors
_CHUNK = 16  # units that are up-sampled at a time


class Prototypes(NamedTuple):
    """The two centres.

    Attributes:
      target: of the object, `[B,C]` float32.
      background: `[B,C]` float32.
    """

    target: jax.Array
    background: jax.Array


@arrays.native("features", "mask", "region")
def prototypes(
    features: jax.Array,
    mask: jax.Array,
    *,
    region: jax.Array | None = None,
    interpolation: Interpolation = "bilinear",
) -> Prototypes:
    """Mean feature vectors of object and background (Eq. 6).

    Args:
      features: `[B,*h,C]`, floating.
      mask: `[B,*H]` object probability in [0, 1], or a hard mask.
      region: `[B,*H]`, 1 where pixels count and 0 elsewhere; None counts all.
      interpolation: how features are brought to the mask's size.

    Raises:
      ValueError: shapes or ranks do not match.
      TypeError: features that are not floating-point numbers.
    """
    _check(features, mask, region=region)
    _check_values(mask, region=region)
    return _shifted_prototypes(features, _float(mask), _float(region), interpolation)


@arrays.native("features", "mask", "region")
def object_probability(
    features: jax.Array,
    mask: jax.Array,
    *,
    region: jax.Array | None = None,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """Probability of the object at every pixel, from the distance to the two prototypes (Algorithm 1).

    Args:
      features: `[B,*h,C]`, floating.
      mask: `[B,*H]` object probability in [0, 1], or a hard mask; the paper takes the network's soft output.
      region: `[B,*H]`, 1 where pixels count for the prototypes; None counts all. The result covers all pixels.
      interpolation: how features are brought to the mask's size.

    Returns:
      `[B,*H]` float32; NaN for an image whose mask has an empty side.

    Raises:
      ValueError: shapes or ranks do not match.
      TypeError: features that are not floating-point numbers.
    """
    _check(features, mask, region=region)
    _check_values(mask, region=region)
    return _object_probability(features, _float(mask), _float(region), interpolation)


@arrays.native("features", "masks", "region")
def class_probabilities(
    features: jax.Array,
    masks: jax.Array,
    *,
    region: jax.Array | None = None,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """Softmax over K classes of the negative squared distances to their prototypes.

    Args:
      features: `[B,*h,C]`, floating.
      masks: `[B,*H,K]` probabilities of the classes, background first.
      region: `[B,*H]`, 1 where pixels count for the prototypes; None counts all.
      interpolation: how features are brought to the masks' size.

    Returns:
      `[B,*H,K]` float32. A class with an empty mask has no prototype and probability 0; an image with fewer than two
      prototypes is NaN.

    Raises:
      ValueError: shapes or ranks do not match.
      TypeError: features that are not floating-point numbers.
    """
    _check_classes(features, masks, region=region)
    _check_values(masks, region=region)
    return _class_probabilities(features, _float(masks), _float(region), interpolation)


@arrays.native("features", "mask", "region")
def unit_object_probability(
    features: jax.Array,
    mask: jax.Array,
    *,
    region: jax.Array | None = None,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """`object_probability` of every unit (channel) by itself (section 4.5).

    The result is as large as the up-sampled features; `unit_sa_scores` and `unit_heat_map` never hold that much.

    Returns:
      `[B,*H,C]` float32; NaN for an image whose mask has an empty side.
    """
    _check(features, mask, region=region)
    _check_values(mask, region=region)
    return _unit_object_probability(features, _float(mask), _float(region), interpolation)


@arrays.native("features", "mask", "labels", "region")
def sa_score(
    features: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    *,
    region: jax.Array | None = None,
    score: Score = "dice",
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """The segmentation ability of a layer: overlap of its map with the annotation (Eqs. 7 and 8).

    Section 4.7 calls the score of the raw image as features its separableness.

    Args:
      features: `[B,*h,C]`, floating.
      mask: `[B,*H]` from which the prototypes come; the paper takes the network's soft output.
      labels: `[B,*H]` integers, any above 0 is the object.
      region: `[B,*H]`, 1 where pixels count, for prototypes and score; None counts all.
      score: dice, jaccard, accuracy, sensitivity or specificity.
      interpolation: how features are brought to the mask's size.

    Returns:
      `[B]` float32 in [0, 1]. NaN where the mask has an empty side or the score divides 0 by 0.

    Raises:
      ValueError: shapes or ranks do not match, an unknown score.
      TypeError: features that are not floating point, or labels that are not integers.
    """
    _check(features, mask, labels=labels, region=region)
    _check_values(mask, labels=labels, region=region)
    return _sa_score(features, _float(mask), labels > 0, _float(region), score, interpolation)


@arrays.native("features", "mask", "labels", "region")
def unit_sa_scores(
    features: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    *,
    region: jax.Array | None = None,
    score: Score = "dice",
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """`sa_score` of every unit by itself (section 4.5, Fig. 7); arguments and errors as there.

    Returns:
      `[B,C]` float32.
    """
    _check(features, mask, labels=labels, region=region)
    _check_values(mask, labels=labels, region=region)
    return _unit_sa_scores(features, _float(mask), labels > 0, _float(region), score, interpolation)


@arrays.native("features", "masks", "labels", "region")
def class_sa_scores(
    features: jax.Array,
    masks: jax.Array,
    labels: jax.Array,
    *,
    region: jax.Array | None = None,
    score: Score = "dice",
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """`sa_score` with one prototype per class.

    Args:
      features: `[B,*h,C]`, floating.
      masks: `[B,*H,K]` probabilities of the classes, background first.
      labels: `[B,*H]` integer class numbers.
      region: `[B,*H]`, 1 where pixels count; None counts all.
      score: as in `sa_score`.
      interpolation: as in `sa_score`.

    Returns:
      `[B,K-1]` float32, class 1 first; NaN for an image with fewer than two prototypes.

    Raises:
      ValueError: shapes or ranks do not match, an unknown score, or known labels that are not class numbers.
      TypeError: features that are not floating point, or labels that are not integers.
    """
    _check_classes(features, masks, labels=labels, region=region)
    arrays.check_class_numbers(masks.shape[-1], labels=labels)
    _check_values(masks, region=region)
    return _class_sa_scores(features, _float(masks), labels, _float(region), score, interpolation)


@arrays.native("features", "mask", "region")
def unit_heat_map(
    features: jax.Array,
    mask: jax.Array,
    *,
    region: jax.Array | None = None,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """The share of units whose map holds the pixel (Fig. 9): `[B,*H]` float32; arguments as `object_probability`."""
    _check(features, mask, region=region)
    _check_values(mask, region=region)
    return _unit_heat_map(features, _float(mask), _float(region), interpolation)


@arrays.native("units", "dice")
def active_units(units: np.ndarray, dice: np.ndarray, share: float) -> np.ndarray:
    """Which units are active: their mean SA score is at least a share of the output's mean Dice.

    The paper (section 4.5) speaks of scores close to the performance of the output and has no threshold. The best unit
    is always active, so that pruning leaves a network.

    Args:
      units: `[N,C]` SA score of every unit for every case (`unit_sa_scores`), NaN where undefined.
      dice: `[N]` of the output.
      share: of the mean Dice.

    Returns:
      bool `[C]`.

    Raises:
      ValueError: not a score of every unit, and a Dice, for every case.
    """
    if units.ndim != 2 or not units.shape[1] or dice.shape != units.shape[:1]:
        raise ValueError(f"units {units.shape} and dice {dice.shape} must be [N,C] and [N], a row for every case")
    scores = np.nan_to_num(defined_mean(np.asarray(units, float), axis=0))
    active = scores >= share * defined_mean(np.asarray(dice, float))
    active[scores.argmax()] = True
    return active


@arrays.native("mask", "labels", "region")
def mean_sa_score(
    layers: Sequence[jax.Array],
    mask: jax.Array,
    labels: jax.Array | None = None,
    *,
    region: jax.Array | None = None,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """The mean SA score of all units of some layers, mu(x) (Eq. 12): an estimate of quality without annotation.

    Args:
      layers: features `[B,*h,C]` of each; the paper takes the last two layers of a U-Net.
      mask: `[B,*H]` the network's object probability.
      labels: `[B,*H]` integers to score against; None scores against the network's own output, `mask > 1/2`.
      region: `[B,*H]`, 1 where pixels count; None counts all.
      interpolation: how features are brought to the mask's size.

    Returns:
      `[B]` float32; the mean over the units whose score is defined, NaN where none is.

    Raises:
      ValueError: no layers, or shapes that do not match.
    """
    layers = _layers(layers, mask, labels, region)
    truth = None if labels is None else labels > 0
    return _mean_sa_score(layers, _float(mask), truth, _float(region), interpolation)


@arrays.native("images", "mask", "labels", "region")
def segmentation_gain(
    images: jax.Array, mask: jax.Array, labels: jax.Array, *, region: jax.Array | None = None
) -> jax.Array:
    """d = Dice of the network minus the separableness of the image (section 4.7).

    Its mean over images is the paper's m(d): `metrics.intervals.bootstrap_mean` gives it with interval, n and how many
    are undefined.

    Args:
      images: `[B,*H,C]`, taken as features, scaled to about [-1, 1].
      mask: `[B,*H]` the network's object probability, thresholded at 1/2 for its Dice.
      labels: `[B,*H]` integers, any above 0 is the object.
      region: `[B,*H]`, 1 where pixels count; None counts all.

    Returns:
      `[B]` float32; NaN where one of the two is undefined.
    """
    _check(images, mask, labels=labels, region=region)
    _check_values(mask, labels=labels, region=region)
    return _segmentation_gain(images, _float(mask), labels > 0, _float(region))


@arrays.native("noisy_features", "noisy_mask", "features", "mask", "labels")
def sa_difference(
    noisy_features: jax.Array,
    noisy_mask: jax.Array,
    features: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    *,
    score: Score = "dice",
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """How much noise in the image changes the SA score of a layer (section 4.8, Fig. 16): noisy minus clean.

    Args:
      noisy_features: `[B,*h,C]`, of the images with noise.
      noisy_mask: `[B,*H]`, the network's object probability for them.
      features: `[B,*h,C]`, of the images as they are.
      mask: `[B,*H]`, the network's object probability for these.
      labels: `[B,*H]` integers, any above 0 is the object.
      score: as in `sa_score`.
      interpolation: as in `sa_score`.

    Returns:
      `[B]` float32, below 0 where noise lowers it; NaN where one of the two is undefined.
    """
    run = lambda f, m: sa_score(f, m, labels, score=score, interpolation=interpolation)
    return run(noisy_features, noisy_mask) - run(features, mask)


@arrays.native("mask", "labels", "region")
def sa_loss(
    layers: Sequence[jax.Array],
    mask: jax.Array,
    labels: jax.Array,
    *,
    region: jax.Array | None = None,
    smooth: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """One minus the soft SA score, mean over layers and images: the addition of online ProtoSeg (section 4.2).

    The paper writes that the score is added to the loss, which would lower it; its complement is meant. The
    soft score is the Dice of the object probability. An image whose mask has a side of less than 0.001 pixels has no
    meaningful prototypes: it counts with p = 1/2 and has no gradient. Where the region is empty it counts with 0.

    Args:
      layers: features `[B,*h,C]` of each.
      mask: `[B,*H]` the network's object probability; gradients flow through it too.
      labels: `[B,*H]` integers, any above 0 is the object.
      region: `[B,*H]`, 1 where pixels count; None counts all.
      smooth: added to numerator and denominator of the Dice.
      interpolation: how features are brought to the mask's size.

    Returns:
      A float32 scalar in [0, 1], with finite gradients.

    Raises:
      ValueError: no layers, or shapes that do not match.
    """
    layers = _layers(layers, mask, labels, region)
    return _sa_loss(layers, _float(mask), labels > 0, _float(region), smooth, interpolation)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
# Masks and regions come in float32 and annotations in bool, because JAX would drop the upper half of 64-bit labels.
@functools.partial(jax.jit, static_argnames="interpolation")
def _shifted_prototypes(
    features: jax.Array, mask: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> Prototypes:
    features, shift = _centred(features)
    return Prototypes(*(centre + shift for centre in _prototypes(features, mask, region, interpolation)))


@functools.partial(jax.jit, static_argnames="interpolation")
def _object_probability(
    features: jax.Array, mask: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> jax.Array:
    return jax.nn.sigmoid(_object_logit(features, mask, region, interpolation))


@functools.partial(jax.jit, static_argnames="interpolation")
def _class_probabilities(
    features: jax.Array, masks: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> jax.Array:
    features, _ = _centred(features)
    weights = masks * _region(masks[..., 0], region)[..., None]
    centres, defined = _weighted_means(features, jnp.unstack(weights, axis=-1), interpolation)  # [B,K,C], [B,K]
    count = jnp.maximum(jnp.sum(defined, 1, keepdims=True), 1).astype(jnp.float32)
    shift = jnp.sum(centres, 1) / count  # distances do not depend on it, rounding does
    centres = jnp.where(defined[..., None], centres - shift[:, None], 0.0)
    moved = features.astype(jnp.float32) - _over_pixels(shift, features.ndim)
    scores = jnp.einsum("b...c,bkc->b...k", moved, centres, precision=_EXACT)
    offset = jnp.where(defined, jnp.sum(centres**2, -1), jnp.inf)
    logits = upsample(2 * scores, masks.shape[1:-1], interpolation=interpolation) - _over_pixels(offset, features.ndim)
    enough = _over_pixels(jnp.sum(defined, 1, keepdims=True) > 1, features.ndim)
    return jnp.where(enough, jax.nn.softmax(jnp.where(enough, logits, 0.0)), jnp.nan)


@functools.partial(jax.jit, static_argnames="interpolation")
def _unit_object_probability(
    features: jax.Array, mask: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> jax.Array:
    features, _ = _centred(features)
    centres = _prototypes(features, mask, region, interpolation)
    return jax.nn.sigmoid(_unit_logits(features, centres, mask.shape[1:], interpolation))


@functools.partial(jax.jit, static_argnames=("score", "interpolation"))
def _sa_score(
    features: jax.Array,
    mask: jax.Array,
    truth: jax.Array,
    region: jax.Array | None,
    score: Score,
    interpolation: Interpolation,
) -> jax.Array:
    logit = _object_logit(features, mask, region, interpolation)
    return _scored(logit[..., None], truth, _region(mask, region), score)[:, 0]


@functools.partial(jax.jit, static_argnames=("score", "interpolation"))
def _class_sa_scores(
    features: jax.Array,
    masks: jax.Array,
    labels: jax.Array,
    region: jax.Array | None,
    score: Score,
    interpolation: Interpolation,
) -> jax.Array:
    probabilities = _class_probabilities(features, masks, region, interpolation)
    inside, defined = _region(masks[..., 0], region), ~jnp.isnan(probabilities[..., :1])
    winner = jnp.argmax(probabilities, -1)
    scores = [
        _scored(jnp.where(defined, jnp.where(winner == k, 1.0, -1.0)[..., None], jnp.nan), labels == k, inside, score)
        for k in range(1, masks.shape[-1])
    ]
    return jnp.concatenate(scores, -1)


@functools.partial(jax.jit, static_argnames="interpolation")
def _unit_heat_map(
    features: jax.Array, mask: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> jax.Array:
    features, _ = _centred(features)
    centres = _prototypes(features, mask, region, interpolation)
    undefined = jnp.any(jnp.isnan(centres.target + centres.background), 1)

    def add(carry: tuple[jax.Array, jax.Array], start: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        count, done = carry
        # the last chunk begins earlier, so that all have one size: what it repeats is left out
        fresh = start + jnp.arange(logits.shape[-1], dtype=jnp.int32) >= done
        inside = _is_object(logits) & _over_pixels(fresh[None], logits.ndim)
        return count + jnp.sum(inside, -1, dtype=jnp.int32), start + logits.shape[-1]

    zero = (jnp.zeros(mask.shape, jnp.int32), jnp.zeros((), jnp.int32))
    count, _ = _over_unit_chunks(add, zero, features, centres, mask.shape[1:], interpolation)
    share = count.astype(jnp.float32) / features.shape[-1]
    return jnp.where(_over_pixels(undefined, mask.ndim), jnp.nan, share)


@functools.partial(jax.jit, static_argnames="interpolation")
def _mean_sa_score(
    layers: Sequence[jax.Array],
    mask: jax.Array,
    truth: jax.Array | None,
    region: jax.Array | None,
    interpolation: Interpolation,
) -> jax.Array:
    reference = mask > 0.5 if truth is None else truth
    score = lambda f: _unit_sa_scores(f, mask, reference, region, "dice", interpolation)
    scores = jnp.concatenate([score(features) for features in layers], 1)
    defined = ~jnp.isnan(scores)
    count = jnp.sum(defined, 1).astype(jnp.float32)
    return jnp.where(count > 0, jnp.sum(jnp.where(defined, scores, 0.0), 1) / jnp.maximum(count, 1.0), jnp.nan)


@jax.jit
def _segmentation_gain(images: jax.Array, mask: jax.Array, truth: jax.Array, region: jax.Array | None) -> jax.Array:
    own = _scored((mask - 0.5)[..., None], truth, _region(mask, region), "dice")[:, 0]
    return own - _sa_score(images, mask, truth, region, "dice", "bilinear")


@functools.partial(jax.jit, static_argnames="interpolation")
def _sa_loss(
    layers: Sequence[jax.Array],
    mask: jax.Array,
    labels: jax.Array,
    region: jax.Array | None,
    smooth: float,
    interpolation: Interpolation,
) -> jax.Array:
    axes = tuple(range(1, mask.ndim))
    inside = _region(mask, region)
    truth = labels.astype(jnp.float32) * inside
    shown, added = region, jnp.asarray(smooth, jnp.float32)
    if region is not None:  # of nothing there are no prototypes either, and the Dice is 1 / 1
        nowhere = jnp.sum(region, axes) == 0
        shown = jnp.where(_over_pixels(nowhere, mask.ndim), 1.0, region)
        added = jnp.where(nowhere, 1.0, added)

    def loss(features: jax.Array) -> jax.Array:
        smaller = jnp.minimum(jnp.sum(inside * mask, axes), jnp.sum(inside * (1 - mask), axes))
        empty = smaller < _NEARLY_EMPTY
        # prototypes of some other mask, whose result is not used: a NaN would spoil the gradient of the chosen one
        safe = jnp.where(_over_pixels(empty, mask.ndim), 0.5, mask)
        p = jax.nn.sigmoid(_object_logit(features, safe, shown, interpolation))
        p = jnp.where(_over_pixels(empty, mask.ndim), 0.5, p) * inside
        both, total = jnp.sum(p * truth, axes), jnp.sum(p, axes) + jnp.sum(truth, axes)
        return 1 - jnp.mean((2 * both + added) / (total + added))

    return sum((loss(features) for features in layers), jnp.float32(0)) / len(layers)


def _object_logit(
    features: jax.Array, mask: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> jax.Array:
    """`[B,*H]`: log of p over 1 - p."""
    features, _ = _centred(features)
    centres = _prototypes(features, mask, region, interpolation)
    difference = centres.target - centres.background
    middle = (centres.target + centres.background) / 2
    along = jnp.einsum("bnc,bc->bn", _flat(features), difference, precision=_EXACT)
    along = (along - jnp.sum(middle * difference, -1)[:, None]).reshape(features.shape[:-1])
    return upsample(2 * along, mask.shape[1:], interpolation=interpolation)


@functools.partial(jax.jit, static_argnames=("score", "interpolation"))
def _unit_sa_scores(
    features: jax.Array,
    mask: jax.Array,
    truth: jax.Array,
    region: jax.Array | None,
    score: Score,
    interpolation: Interpolation,
) -> jax.Array:
    features, _ = _centred(features)
    centres = _prototypes(features, mask, region, interpolation)
    inside = _region(mask, region)

    def score_chunk(scores: jax.Array, start: jax.Array, logits: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(scores, _scored(logits, truth, inside, score), start, 1)

    scores = jnp.zeros((features.shape[0], features.shape[-1]), jnp.float32)
    return _over_unit_chunks(score_chunk, scores, features, centres, mask.shape[1:], interpolation)


def _prototypes(
    features: jax.Array, mask: jax.Array, region: jax.Array | None, interpolation: Interpolation
) -> Prototypes:
    region = _region(mask, region)
    centres, defined = _weighted_means(features, [region * mask, region * (1 - mask)], interpolation)
    centres = jnp.where(defined[..., None], centres, jnp.nan)  # no prototype
    return Prototypes(centres[:, 0], centres[:, 1])


def _centred(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features less the mean of each channel, and that mean `[B,C]`, if there are few; distances do not change."""
    if features.shape[-1] >= _FEW:
        return features, jnp.zeros((features.shape[0], features.shape[-1]), jnp.float32)
    wide = features.astype(jnp.float32)
    shift = jnp.mean(wide, tuple(range(1, features.ndim - 1)))
    return wide - _over_pixels(shift, features.ndim), shift


def _weighted_means(
    features: jax.Array, weights: Sequence[jax.Array], interpolation: Interpolation
) -> tuple[jax.Array, jax.Array]:
    """Means `[B,K,C]` of the up-sampled features with K weights `[B,*H]`, and where `[B,K]` these are not all 0."""
    sizes, axes = features.shape[1:-1], tuple(range(1, features.ndim - 1))
    # each gathered by itself: stacked at the mask's size they would take more memory than deep features
    low = jnp.stack([upsample_adjoint(weight, sizes, interpolation=interpolation) for weight in weights], -1)
    sums = jnp.einsum("bnk,bnc->bkc", _flat(low), _flat(features), precision=_EXACT)
    total = jnp.stack([jnp.sum(weight, axes) for weight in weights], -1)
    defined = total > 0
    return sums / jnp.where(defined, total, 1.0)[..., None], defined


def _unit_logits(
    features: jax.Array, centres: Prototypes, sizes: Sequence[int], interpolation: Interpolation
) -> jax.Array:
    """`[B,*H,C]`: log of p over 1 - p of every unit."""
    difference = _over_pixels(centres.target - centres.background, features.ndim)
    middle = _over_pixels((centres.target + centres.background) / 2, features.ndim)
    return upsample(2 * (features.astype(jnp.float32) - middle) * difference, sizes, interpolation=interpolation)


def _over_unit_chunks(
    step: Callable[[_T, jax.Array, jax.Array], _T],
    start: _T,
    features: jax.Array,
    centres: Prototypes,
    sizes: Sequence[int],
    interpolation: Interpolation,
) -> _T:
    """Folds `step(carry, first unit, logits [B,*H,chunk])` over the units, a chunk at a time."""
    units = features.shape[-1]
    chunk = min(_CHUNK, units)

    def body(i: jax.Array, carry: _T) -> _T:
        first = jnp.minimum(i.astype(jnp.int32) * chunk, units - chunk)  # the type of i follows jax_enable_x64
        part = lambda x: jax.lax.dynamic_slice_in_dim(x, first, chunk, x.ndim - 1)
        logits = _unit_logits(part(features), Prototypes(*map(part, centres)), sizes, interpolation)
        return step(carry, first, logits)

    return jax.lax.fori_loop(0, math.ceil(units / chunk), body, start)


def _scored(logits: jax.Array, truth: jax.Array, region: jax.Array, score: Score) -> jax.Array:
    """`[B,n]`: scores of the maps of `logits [B,*H,n]` against `truth [B,*H]` bool, NaN where the logits are."""
    if score not in get_args(Score):
        raise ValueError(f"score is {score!r}; choose one of {', '.join(get_args(Score))}")
    axes = tuple(range(1, truth.ndim))
    inside = region[..., None]
    predicted = _is_object(logits).astype(jnp.float32) * inside
    wanted = truth[..., None].astype(jnp.float32) * inside
    both, marked = jnp.sum(predicted * wanted, axes), jnp.sum(predicted, axes)
    there, all_pixels = jnp.sum(wanted, axes), jnp.sum(inside, axes)
    right = all_pixels - marked - there + 2 * both
    numerator, denominator = {
        "dice": (2 * both, marked + there),
        "jaccard": (both, marked + there - both),
        "accuracy": (right, all_pixels),
        "sensitivity": (both, there),
        "specificity": (right - both, all_pixels - there),
    }[score]
    undefined = (denominator == 0) | jnp.any(jnp.isnan(logits), axes)
    return jnp.where(undefined, jnp.nan, numerator / jnp.where(undefined, 1.0, denominator))


def _is_object(logits: jax.Array) -> jax.Array:
    """p > 1/2 (Eq. 7), of the rounded probability: what rounding leaves of a logit of 0 is not object."""
    return jax.nn.sigmoid(logits) > 0.5


def _flat(x: jax.Array) -> jax.Array:
    """`[B,*h,C]` -> `[B,n,C]` float32."""
    return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)


def _over_pixels(x: jax.Array, rank: int) -> jax.Array:
    """`[B,C]` -> `[B,1,...,C]` of that rank; `[B]` -> `[B,1,...]`."""
    tail = x.shape[1:]
    return x.reshape(x.shape[0], *(1,) * (rank - 1 - len(tail)), *tail)


def _float(mask: Any) -> Any:
    """The mask, or none, in float32; a hard one as 0 and 1."""
    if mask is None:
        return None
    plain = mask.dtype == jnp.bool_ or jnp.issubdtype(mask.dtype, jnp.floating)  # bool is not compared with numbers
    return (mask if plain else mask > 0).astype(jnp.float32)


def _region(mask: jax.Array, region: jax.Array | None) -> jax.Array:
    return jnp.ones(mask.shape, jnp.float32) if region is None else region


def _check(
    features: jax.Array, mask: jax.Array, *, labels: jax.Array | None = None, region: jax.Array | None = None
) -> None:
    if features.ndim not in (4, 5) or mask.ndim != features.ndim - 1 or mask.shape[0] != features.shape[0]:
        raise ValueError(
            f"features {features.shape} must be [B,h,w,C] or [B,d,h,w,C] and the mask {mask.shape} the same batch and "
            "rank without channels"
        )
    if 0 in features.shape or 0 in mask.shape:
        raise ValueError(f"features {features.shape} and mask {mask.shape} must not be empty")
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise TypeError(f"features must be floating-point numbers, got {features.dtype}; convert them")
    for name, array in (("labels", labels), ("region", region)):
        if array is not None and array.shape != mask.shape:
            raise ValueError(f"{name} {array.shape} and mask {mask.shape} differ in shape; resize one of them first")
    if labels is not None:
        arrays.check_integers(labels=labels)
    check_channels_last("features", features.shape, mask.shape[1:], "the mask")


def _check_values(mask: jax.Array, *, labels: jax.Array | None = None, region: jax.Array | None = None) -> None:
    arrays.check_shares(mask=mask, region=region)
    if labels is not None:
        arrays.check_class_numbers(None, labels=labels)


def _check_classes(features: jax.Array, masks: jax.Array, **others: jax.Array | None) -> None:
    if masks.ndim != features.ndim or masks.shape[-1] < 2:
        raise ValueError(
            f"masks {masks.shape} must have the rank of features {features.shape}, with one channel per class, the "
            "background first, and so at least two"
        )
    _check(features, masks[..., 0], **others)


def _layers(
    layers: Sequence[jax.Array], mask: jax.Array, labels: jax.Array | None, region: jax.Array | None
) -> list[jax.Array]:
    """The layers' features, all checked."""
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError("layers must be a sequence with the features of at least one layer, such as [features]")
    converted = [arrays.converted("features", features) for features in layers]
    for features in converted:
        _check(features, mask, labels=labels, region=region)
    _check_values(mask, labels=labels, region=region)
    return converted
