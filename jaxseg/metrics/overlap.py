"""Overlap of a predicted segmentation with the annotated one."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def check_labels(labels: jax.Array, predictions: jax.Array) -> None:
    """Raises unless both are integer class numbers of one shape `[B,H,W]` or `[B,D,H,W]`."""
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape; "
            "resize the predictions to the labels first"
        )
    if labels.ndim not in (3, 4):
        raise ValueError(f"labels must be [B,H,W] or [B,D,H,W], got {labels.shape}; add the batch axis")
    for name, array in (("labels", labels), ("predictions", predictions)):
        if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_):
            raise TypeError(f"{name} must be integer class numbers, got {array.dtype}; take the argmax over classes")


def dice_from_sums(intersection: jax.Array, total: jax.Array, *, empty: float, smooth: float) -> jax.Array:
    """`(2 I + smooth) / (T + smooth)`, and `empty` where T is 0 and nothing smooths it.

    Args:
      intersection: pixels in both masks, any shape.
      total: pixels in the one plus pixels in the other, same shape.
      empty: the value where both masks are empty; not used when `smooth` is above 0.
      smooth: added to numerator and denominator.
    """
    total = total.astype(jnp.float32)
    numerator = 2.0 * intersection.astype(jnp.float32) + smooth
    denominator = total + smooth
    undefined = denominator == 0
    return jnp.where(undefined, empty, numerator / jnp.where(undefined, 1.0, denominator))


def dice(
    labels: jax.Array, predictions: jax.Array, *, num_classes: int, empty: float = math.nan, smooth: float = 0.0
) -> jax.Array:
    """Dice coefficient per case and foreground class (Dice 1945).

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      empty: the value of a class absent from label and prediction; by default NaN, to be left out of means and
        counted. Absent from one of them is 0.
      smooth: added to numerator and denominator; the convention of Lin, Weng et al. 2024 is 1.

    Returns:
      `[B,K-1]` float32, class 1 first.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes.
      TypeError: not integers.
    """
    counts = _counts(labels, predictions, range(1, _checked(num_classes)))
    return _dice(counts, empty=empty, smooth=smooth)


def class_counts(labels: jax.Array, predictions: jax.Array, *, num_classes: int) -> jax.Array:
    """What the overlaps of a case are computed from: pixels of each class in both, in the labels, in the predictions.

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.

    Returns:
      `[B,K,3]` int32, the background first.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes.
      TypeError: not integers.
    """
    return _counts(labels, predictions, range(_checked(num_classes)))


def dice_from_counts(counts: jax.Array, *, empty: float = math.nan, smooth: float = 0.0) -> jax.Array:
    """`dice` from `class_counts`, to the bit.

    Args:
      counts: `[B,K,3]`.
      empty: as in `dice`.
      smooth: as in `dice`.

    Returns:
      `[B,K-1]` float32, class 1 first.
    """
    return _dice(counts[:, 1:], empty=empty, smooth=smooth)


def iou_from_counts(counts: np.ndarray | jax.Array) -> np.ndarray:
    """Intersection over union of every foreground class (Jaccard 1912), NaN where it is in neither.

    Args:
      counts: `[...,K,3]`: of `class_counts`, or sums of them.

    Returns:
      `[...,K-1]` float64, class 1 first.
    """
    both, labelled, predicted = np.moveaxis(np.asarray(counts)[..., 1:, :].astype(np.int64), -1, 0)
    union = labelled + predicted - both
    return np.where(union == 0, np.nan, both / np.maximum(union, 1))


class SetIoU(NamedTuple):
    """The IoU of a whole set of cases.

    Attributes:
      classes: `[K-1]` float64, class 1 first; NaN for a class in no label and no prediction of the set.
      mean: over the classes that are not NaN; NaN if all are.
    """

    classes: np.ndarray
    mean: float


def mean_iou(counts: Iterable[np.ndarray | jax.Array]) -> SetIoU:
    """IoU from pixels accumulated over a whole set, and its mean over foreground classes (Wilm et al. 2024, section V).

    The paper reports the foreground alone, such as the mean of LV, RV and MYO; the background does not enter. Large
    objects weigh more than in a mean over cases, which is `np.nanmean(iou_from_counts(counts), 0)`.

    Args:
      counts: `[N,K,3]` of `class_counts`, or any number of such arrays with different N; summed on the host in int64,
        which no set overflows.

    Raises:
      ValueError: there is no case.
    """
    parts = [np.asarray(part, np.int64).reshape(-1, *np.shape(part)[-2:]) for part in counts]
    if not parts:
        raise ValueError("there are no counts; give those of at least one case")
    classes = iou_from_counts(sum(part.sum(0) for part in parts))
    there = classes[~np.isnan(classes)]
    return SetIoU(classes, float(there.mean()) if there.size else math.nan)


def _counts(labels: jax.Array, predictions: jax.Array, classes: Iterable[int]) -> jax.Array:
    check_labels(labels, predictions)
    axes = tuple(range(1, labels.ndim))

    def one(k: int) -> jax.Array:
        a, b = labels.astype(jnp.int32) == k, predictions.astype(jnp.int32) == k  # bool has no 1
        return jnp.stack([jnp.sum(mask, axes, dtype=jnp.int32) for mask in (a & b, a, b)], -1)

    return jnp.stack([one(k) for k in classes], 1)


def _dice(counts: jax.Array, *, empty: float, smooth: float) -> jax.Array:
    return dice_from_sums(counts[..., 0], counts[..., 1] + counts[..., 2], empty=empty, smooth=smooth)


def _checked(num_classes: int) -> int:
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; the background counts, so it must be at least 2")
    return num_classes
