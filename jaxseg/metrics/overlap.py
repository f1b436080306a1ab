"""Overlap of a predicted segmentation with the annotated one."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics import arrays, pixels
from jaxseg.metrics.intervals import defined_mean


@arrays.native("labels", "predictions")
def check_labels(labels: jax.Array, predictions: jax.Array, *, num_classes: int | None = None) -> None:
    """Raises unless both are integer class numbers of one shape `[B,H,W]` or `[B,D,H,W]`.

    Known values (`arrays.known`) must be at least 0 and, unless `num_classes` is None, below it.
    """
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape; "
            "resize the predictions to the labels first"
        )
    if labels.ndim not in (3, 4):
        raise ValueError(f"labels must be [B,H,W] or [B,D,H,W], got {labels.shape}; add the batch axis")
    arrays.check_integers(labels=labels, predictions=predictions)
    arrays.check_filled(labels=labels)
    arrays.check_class_numbers(num_classes, labels=labels, predictions=predictions)


@arrays.native("intersection", "total")
def dice_from_sums(intersection: jax.Array, total: jax.Array, *, empty: float, smooth: float) -> jax.Array:
    """`(2 I + smooth) / (T + smooth)`, and `empty` where T is 0 and `smooth` too.

    Args:
      intersection: pixels in both masks, any shape.
      total: pixels in one plus pixels in the other, same shape.
      empty: the value where both masks are empty; not used when `smooth` is above 0.
      smooth: added to numerator and denominator.

    Raises:
      ValueError: shapes differ.
    """
    if intersection.shape != total.shape:
        raise ValueError(f"intersection {intersection.shape} and total {total.shape} must be sums over the same masks")
    return _ratio(intersection.astype(jnp.float32), total.astype(jnp.float32), empty, smooth)


@arrays.native("labels", "predictions", "valid")
def dice(
    labels: jax.Array,
    predictions: jax.Array,
    *,
    num_classes: int,
    empty: float = math.nan,
    smooth: float = 0.0,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Dice coefficient per case and foreground class (Dice 1945).

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      empty: the value of a class absent from label and prediction; by default NaN, to be left out of means and
        counted. Absent from one of them is 0.
      smooth: added to numerator and denominator; the convention of Lin, Weng et al. 2024 is 1.
      valid: bool, the same shape, the pixels that count; None: all.

    Returns:
      `[B,K-1]` float32, class 1 first.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes, or known values that are not class numbers, such as
        255 in a mask of 0 and 255. (Traced, such pixels belong to no class.)
      TypeError: not integers.
    """
    counts = _counts(labels, predictions, range(1, num_classes), valid)
    return _dice(counts, empty=empty, smooth=smooth)


@arrays.native("labels", "predictions", "valid")
def class_counts(
    labels: jax.Array, predictions: jax.Array, *, num_classes: int, valid: jax.Array | None = None
) -> jax.Array:
    """What the overlaps of a case are computed from: pixels of each class in both, in the labels, in the predictions.

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      valid: bool, the same shape, the pixels that count; None: all.

    Returns:
      `[B,K,3]` int32, the background first.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes, or known values that are not class numbers, such as
        255 in a mask of 0 and 255. (Traced, such pixels belong to no class.)
      TypeError: not integers.
    """
    return _counts(labels, predictions, range(num_classes), valid)


@arrays.native("labels", "predictions", "valid")
def case_counts(
    labels: np.ndarray, predictions: np.ndarray, *, num_classes: int, valid: np.ndarray | None = None
) -> np.ndarray:
    """`class_counts` of one case of any size, on the host: nothing is compiled for its shape.

    Args:
      labels: `[*S]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      valid: bool `[*S]`, the pixels that count; None: all.

    Returns:
      `[K,3]` int32, the background first.

    Raises:
      ValueError: shapes differ, there is no pixel, or one that counts has no class number.
    """
    if not labels.shape == predictions.shape == (labels.shape if valid is None else valid.shape):
        raise ValueError(f"labels {labels.shape}, predictions {predictions.shape} and valid must have one shape")
    if not labels.size:
        raise ValueError(f"labels {labels.shape} hold no pixel")
    chosen = slice(None) if valid is None else _on_host(valid).astype(bool)
    pairs = [_on_host(array)[chosen].astype(np.int64).ravel() for array in (labels, predictions)]
    if any(array.size and not 0 <= array.min() <= array.max() < num_classes for array in pairs):
        raise ValueError(f"labels and predictions must hold class numbers below {num_classes} where pixels count")
    table = np.bincount(num_classes * pairs[0] + pairs[1], minlength=num_classes**2).reshape(num_classes, num_classes)
    return np.stack([np.diag(table), table.sum(1), table.sum(0)], -1).astype(np.int32)


@arrays.native("counts")
def dice_from_counts(counts: jax.Array, *, empty: float = math.nan, smooth: float = 0.0) -> jax.Array:
    """`dice` from `class_counts`, to the bit.

    Args:
      counts: `[B,K,3]`.
      empty: as in `dice`.
      smooth: as in `dice`.

    Returns:
      `[B,K-1]` float32, class 1 first.

    Raises:
      ValueError: not counts of two classes or more, or known ones that are negative.
      TypeError: not numbers.
    """
    if counts.ndim != 3:
        raise ValueError(f"counts must be [B,K,3], got {counts.shape}; class_counts makes them")
    _check_counts(counts)
    return _dice(counts[:, 1:], empty=empty, smooth=smooth)


@arrays.native("counts")
def iou_from_counts(counts: np.ndarray | jax.Array) -> np.ndarray:
    """Intersection over union of every foreground class (Jaccard 1912), NaN where it is in neither.

    Args:
      counts: `[...,K,3]`: of `class_counts`, or sums of them.

    Returns:
      `[...,K-1]` float64, class 1 first.

    Raises:
      ValueError: not counts of two classes or more, or negative ones.
      TypeError: not numbers.
    """
    _check_counts(counts)
    both, labelled, predicted = np.moveaxis(_on_host(counts)[..., 1:, :], -1, 0)
    union = labelled + predicted - both
    return np.divide(both, union, out=np.full(union.shape, np.nan), where=union != 0)


@arrays.native("counts")
def class_mean_iou(counts: np.ndarray | jax.Array, *, classes: Sequence[int] | None = None) -> np.ndarray:
    """Intersection over union, mean over those of the classes that are in the label or the prediction.

    Args:
      counts: `[...,K,3]`: of `class_counts`, or sums of them.
      classes: numbers of the foreground classes over which the mean is taken, 1 the first; None: all.

    Returns:
      `[...]` float64, NaN where none of the classes occurs.

    Raises:
      ValueError: not counts of two classes or more, negative ones, or a class that they do not have.
      TypeError: not numbers.
    """
    iou = iou_from_counts(counts)
    chosen = list(range(1, counts.shape[-2]) if classes is None else classes)
    if not chosen or not 1 <= min(chosen) <= max(chosen) < counts.shape[-2]:
        raise ValueError(f"classes are {chosen}; counts {counts.shape} have the classes 1 to {counts.shape[-2] - 1}")
    return defined_mean(iou[..., [k - 1 for k in chosen]], axis=-1)


@arrays.native("counts")
def labelled_dice(counts: np.ndarray | jax.Array) -> np.ndarray:
    """Dice of the classes that the label has, mean over them; other predicted classes do not count.

    Args:
      counts: `[...,K,3]`: of `class_counts`, or sums of them.

    Returns:
      `[...]` float64, NaN where the label has no foreground.

    Raises:
      ValueError: not counts of two classes or more, or negative ones.
      TypeError: not numbers.
    """
    both, labelled, predicted = _foreground(counts)
    return defined_mean(np.where(labelled > 0, 2 * both / np.maximum(labelled + predicted, 1), np.nan))


@arrays.native("counts")
def area_ratio(counts: np.ndarray | jax.Array) -> np.ndarray:
    """Area of the predicted foreground, of any class, over that of the label.

    Args:
      counts: `[...,K,3]`: of `class_counts`, or sums of them.

    Returns:
      `[...]` float64, NaN where the label has no foreground.

    Raises:
      ValueError: not counts of two classes or more, or negative ones.
      TypeError: not numbers.
    """
    _, labelled, predicted = (pixels.sum(-1) for pixels in _foreground(counts))
    return np.where(labelled > 0, predicted / np.maximum(labelled, 1), np.nan)


@arrays.native("counts")
def absent_class_share(counts: np.ndarray | jax.Array) -> np.ndarray:
    """Share of the predicted foreground whose class is nowhere in the label.

    Args:
      counts: `[...,K,3]`: of `class_counts`, or sums of them.

    Returns:
      `[...]` float64, NaN where no foreground is predicted.

    Raises:
      ValueError: not counts of two classes or more, or negative ones.
      TypeError: not numbers.
    """
    _, labelled, predicted = _foreground(counts)
    total = predicted.sum(-1)
    return np.where(total > 0, np.where(labelled > 0, 0, predicted).sum(-1) / np.maximum(total, 1), np.nan)


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

    The paper reports the foreground alone, such as the mean of LV, RV and MYO; the background does not count. Large
    objects weigh more than in a mean over cases, which is `np.nanmean(iou_from_counts(counts), 0)`.

    Args:
      counts: `[N,K,3]` of `class_counts`, or any number of such arrays with different N; summed on the host in int64,
        which no set overflows.

    Raises:
      ValueError: there is no case, not counts of two classes or more, or negative ones.
      TypeError: not numbers.
    """
    parts = [_host_counts(part) for part in counts]
    if not sum(len(part) for part in parts):
        raise ValueError("there are no counts; give those of at least one case")
    classes = iou_from_counts(sum(part.sum(0) for part in parts))
    there = classes[~np.isnan(classes)]
    return SetIoU(classes, float(there.mean()) if there.size else math.nan)


def _counts(labels: jax.Array, predictions: jax.Array, classes: range, valid: jax.Array | None) -> jax.Array:
    if classes.stop < 2:
        raise ValueError(f"num_classes is {classes.stop}; the background counts, so it must be at least 2")
    check_labels(labels, predictions, num_classes=classes.stop)
    pixels.check(valid, labels=labels.shape)
    return _count(labels, predictions, valid, classes)


# Compiled as wholes, so that calls of the functions above outside jit do not compile and run every operation.
@functools.partial(jax.jit, static_argnames="classes")
def _count(labels: jax.Array, predictions: jax.Array, valid: jax.Array | None, classes: range) -> jax.Array:
    axes = tuple(range(1, labels.ndim))

    def one(k: int) -> jax.Array:
        a, b = labels.astype(jnp.int32) == k, predictions.astype(jnp.int32) == k  # bool has no 1
        if valid is not None:
            a, b = a & valid, b & valid
        return jnp.stack([jnp.sum(mask, axes, dtype=jnp.int32) for mask in (a & b, a, b)], -1)

    return jnp.stack([one(k) for k in classes], 1)


@jax.jit
def _ratio(intersection: jax.Array, total: jax.Array, empty: float, smooth: float) -> jax.Array:
    numerator = 2.0 * intersection + smooth
    denominator = total + smooth
    undefined = denominator == 0
    return jnp.where(undefined, empty, numerator / jnp.where(undefined, 1.0, denominator))


def _dice(counts: Any, *, empty: float, smooth: float) -> jax.Array:
    on_host = isinstance(counts, np.ndarray)  # and perhaps of 64 bits, which are added there
    intersection, total = (_sums if on_host else _device_sums)(counts)
    return dice_from_sums(intersection, total, empty=empty, smooth=smooth)


def _sums(counts: Any) -> tuple[Any, Any]:
    """Pixels in both masks, and those in one plus those in the other."""
    return counts[..., 0], _sum(counts[..., 1], counts[..., 2])


_device_sums = jax.jit(_sums)


def _sum(first: Any, second: Any) -> Any:
    """The sum of both counts, which may overflow their own type."""
    if not jnp.issubdtype(first.dtype, jnp.integer):
        return first.astype(jnp.float32) + second.astype(jnp.float32)
    if isinstance(first, np.ndarray):
        return first.astype(np.int64) + second.astype(np.int64)
    long = first.dtype if first.dtype.itemsize == 8 else jnp.uint32  # twice what an int32 holds
    first, second = first.astype(long), second.astype(long)
    total = first + second
    floats = first.astype(jnp.float32) + second.astype(jnp.float32)
    return jnp.where(total < first, floats, total.astype(jnp.float32))  # that may overflow even uint32


@arrays.native("counts")
def _host_counts(counts: np.ndarray | jax.Array) -> np.ndarray:
    _check_counts(counts)
    return _on_host(counts).reshape(-1, *counts.shape[-2:])


def _on_host(counts: np.ndarray | jax.Array) -> np.ndarray:
    """The counts in a type that holds sums of them."""
    return np.asarray(counts).astype(np.int64 if jnp.issubdtype(counts.dtype, jnp.integer) else np.float64)


def _foreground(counts: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of each foreground class in both, in the labels, in the predictions, `[...,K-1]` each."""
    _check_counts(counts)
    both, labelled, predicted = np.moveaxis(_on_host(counts)[..., 1:, :].astype(np.float64), -1, 0)
    return both, labelled, predicted


def _check_counts(counts: np.ndarray | jax.Array) -> None:
    if counts.ndim < 2 or counts.shape[-1] != 3 or counts.shape[-2] < 2:
        raise ValueError(
            f"counts must be [...,K,3] of two classes or more, got {counts.shape}; class_counts makes them"
        )
    if counts.dtype == jnp.bool_:
        raise TypeError("counts must be numbers of pixels, got bool; class_counts makes them")
    if (limits := arrays.extremes(counts)) is not None and limits[0] < 0:
        raise ValueError(
            f"counts hold {limits[0]:.6g}, which is not a pixel count; add counts up in int64, where no sum overflows"
        )
