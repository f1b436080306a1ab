"""How far the surface of a predicted segmentation lies from the annotated one, in mm; host side, numpy and scipy.

The surface of a mask is its pixels (voxels) with at least one face towards something that is not the mask; beyond the
image, and where pixels do not count, there is no mask. A surface pixel weighs the length (area) of its exposed faces,
in mm (mm^2), so that a stack of thick slices is not dominated by its many small caps. Distances are between centres of
pixels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.metrics import arrays, pixels
from jaxseg.metrics.overlap import check_labels


class _Surface(NamedTuple):
    """The surface pixels of one mask: distance to the other mask's surface and area, `[S]` each."""

    distances: np.ndarray
    areas: np.ndarray


@arrays.native("labels", "predictions", "spacing", "valid")
def hausdorff95(
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    num_classes: int,
    spacing: Sequence[float] | np.ndarray,
    missing: float = math.inf,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """95 % Hausdorff distance per case and foreground class, in mm (Huttenlocher et al. 1993).

    For either surface: the smallest distance from the other within which at least 95 % of its area lies, without
    interpolation. Of the two, the larger. (Others take one percentile of both sets of distances together, which
    a large surface dominates.)

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      spacing: mm from one pixel to the next along every axis, `(H,W)` or `(D,H,W)`, or one row of these per case.
      missing: the value of a class that only one of the two has. By default infinite, which a mean shows and
        `numpy.isinf` counts; NaN to leave it out of means, or the diagonal of the image.
      valid: bool, the same shape, the pixels that count; None: all.

    Returns:
      `[B,K-1]` float64, class 1 first; NaN for a class in neither of the two.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes, values that are not class numbers, a spacing that
        does not fit or is not positive.
      TypeError: not integers.
    """

    def score(first: _Surface, second: _Surface) -> float:
        if not len(first.areas) and not len(second.areas):
            return math.nan
        if not len(first.areas) or not len(second.areas):
            return missing
        return max(_reach95(first), _reach95(second))

    return _per_class(score, labels, predictions, num_classes, spacing, valid)


@arrays.native("labels", "predictions", "spacing", "valid")
def surface_dice(
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    num_classes: int,
    spacing: Sequence[float] | np.ndarray,
    tolerance: float,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Share of the two surfaces that lies within a tolerance of the other (Nikolov et al. 2018).

    Args:
      labels: `[B,H,W]` or `[B,D,H,W]` integer class numbers, 0 the background.
      predictions: the same shape.
      num_classes: K, background included.
      spacing: mm from one pixel to the next along every axis, `(H,W)` or `(D,H,W)`, or one row of these per case.
      tolerance: in mm; a distance of exactly that counts as within.
      valid: bool, the same shape, the pixels that count; None: all.

    Returns:
      `[B,K-1]` float64 in [0, 1], class 1 first; 0 for a class that only one of the two has, NaN for one in neither.

    Raises:
      ValueError: shapes differ, wrong rank, fewer than two classes, values that are not class numbers, a spacing that
        does not fit or is not positive, a tolerance that is negative or not finite.
      TypeError: not integers.
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance} mm; it must be 0 or more, and finite")
    reach = tolerance * (1 + 1e-9)  # three steps of 0.1 mm are a little more than 0.3

    def score(first: _Surface, second: _Surface) -> float:
        total = first.areas.sum() + second.areas.sum()
        within = sum(float(side.areas[side.distances <= reach].sum()) for side in (first, second))
        return within / total if total else math.nan

    return _per_class(score, labels, predictions, num_classes, spacing, valid)


def _reach95(surface: _Surface) -> float:
    order = np.argsort(surface.distances)
    reached = np.cumsum(surface.areas[order])
    # a share of exactly 95 % must not be lost to rounding
    return float(surface.distances[order][np.searchsorted(reached, (0.95 - 1e-9) * reached[-1])])


def _per_class(
    score: Callable[[_Surface, _Surface], float],
    labels: Any,
    predictions: Any,
    num_classes: int,
    spacing: Sequence[float] | np.ndarray,
    valid: Any,
) -> np.ndarray:
    """`score` of the two surfaces of every case and foreground class, `[B,K-1]`."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; the background counts, so it must be at least 2")
    check_labels(labels, predictions, num_classes=num_classes)
    pixels.check(valid, labels=labels.shape)
    if valid is not None:
        labels, predictions = (np.where(np.asarray(valid), array, 0) for array in (labels, predictions))
    spacing = np.asarray(spacing, np.float64)
    batch, dims = labels.shape[0], labels.ndim - 1
    if spacing.shape not in ((dims,), (batch, dims)):
        raise ValueError(
            f"spacing {spacing.shape} does not fit labels {labels.shape}; give {dims} numbers in mm, "
            "or as many for every case"
        )
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing is {spacing.tolist()}; every number of mm must be positive and finite")
    scores = np.empty((batch, num_classes - 1))
    for i, steps in enumerate(np.broadcast_to(spacing, (batch, dims))):
        for k in range(1, num_classes):
            scores[i, k - 1] = score(*_surfaces(labels[i] == k, predictions[i] == k, steps))
    return scores


def _surfaces(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> tuple[_Surface, _Surface]:
    """Both masks' surfaces, each measured from the other; infinitely far from an empty mask."""
    # nothing outside the box around both masks matters, and most of a volume lies outside
    box = ndimage.find_objects((first | second).astype(np.int8))
    if not box:
        nothing = _Surface(np.zeros(0), np.zeros(0))
        return nothing, nothing
    areas = [_exposed(mask[box[0]], spacing) for mask in (first, second)]
    surfaces = []
    for own, other in (areas, areas[::-1]):
        at = own > 0
        if other.any():
            distances = ndimage.distance_transform_edt(other == 0, sampling=spacing)[at]
        else:
            distances = np.full(int(at.sum()), np.inf)
        surfaces.append(_Surface(distances, own[at]))
    return surfaces[0], surfaces[1]


def _exposed(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Length or area of every pixel's faces towards what is not the mask; 0 inside and outside."""
    padded = np.pad(mask, 1)
    areas = np.zeros(mask.shape)
    inner = tuple(slice(1, -1) for _ in mask.shape)
    for axis in range(mask.ndim):
        face = np.prod(np.delete(spacing, axis))
        for step in (-1, 1):
            areas += face * (mask & ~np.roll(padded, step, axis)[inner])
    return areas
