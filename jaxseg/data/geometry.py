"""Where the pixels of an array lie: one affine in mm, and what it can align without resampling.

An affine is float64 `[4,4]`, from (slice, row, column, 1), the indices of an array `[D,H,W,...]`, to millimetres to the
patient's right, front and top, as nibabel has them. A picture `[H,W,...]` is the slice 0 of such an array.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import nibabel
import nibabel.orientations as axes
import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK have x and y run to the left and to the back
BACKWARDS = np.eye(4)[[2, 1, 0, 3]]  # (slice, row, column, 1) <-> (x, y, z, 1), as NIfTI and ITK have indices

# As shares of a pixel, at the corner where two grids are furthest apart.
_ROUNDED = 0.05  # headers are rounded: the same grid
_NEAR = 0.5  # every pixel is still nearest to its own
_STRAIGHT = 0.1  # degrees
_STEP = 0.02  # of the distance of slices, within which one lies on another


class OtherGrid(Exception):
    """Two arrays cannot be aligned without resampling.

    Attributes:
      ours, theirs: how each of them lies, in words.
    """

    def __init__(self, ours: str, theirs: str):
        super().__init__(f"is {ours}, the other is {theirs}")
        self.ours, self.theirs = ours, theirs


class Matched(NamedTuple):
    """An array on the grid of another.

    Attributes:
      array: turned, flipped and padded as needed.
      note: how far the grids are apart, where it is more than rounding in headers; else empty.
    """

    array: np.ndarray
    note: str


def is_usable(affine: np.ndarray) -> bool:
    """Whether an affine of a file gives every index its own place."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(abs(np.linalg.det(affine[:3, :3])) > 1e-6 * np.prod(lengths))  # not in one plane


def spacing(affine: np.ndarray, *, rank: int = 3) -> tuple[float, ...]:
    """Mm along the axes (slice, row, column), or of a picture (rank 2) along its own two."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)[-rank:])


def orientation(affine: np.ndarray, *, rank: int = 3) -> str:
    """The orientation of the axes, such as `SPL`: up, to the back, to the left."""
    with np.errstate(all="ignore"):
        return "".join(code or "?" for code in nibabel.aff2axcodes(affine))[-rank:]


def text(affine: np.ndarray, size: Sequence[int]) -> str:
    """A grid in words, columns first: `64x64x10 of 1.5x1.5x8 mm to LPS from (3, -2, 7)`."""
    rank = len(size)
    steps = "x".join(f"{step:.4g}" for step in reversed(spacing(affine, rank=rank)))
    first = ", ".join(f"{place:.4g}" for place in affine[:3, 3])
    sides = orientation(affine, rank=rank)[::-1]
    return f"{'x'.join(str(n) for n in reversed(size))} of {steps} mm to {sides} from ({first})"


def oriented(array: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """A volume with its axes in another order and direction; nothing is resampled.

    Args:
      array: `[D,H,W,...]`.
      affine: of it.
      codes: to which side each axis is to run, such as `SPL`. Oblique axes count as what they are nearest to.

    Returns:
      The array, a view, and its affine.
    """
    change = axes.ornt_transform(axes.io_orientation(affine), axes.axcodes2ornt(codes))
    return _turned(array, change), affine @ axes.inv_ornt_aff(change, array.shape[:3])


def restored(array: np.ndarray, affine: np.ndarray, codes: str) -> np.ndarray:
    """Undoes `oriented`: `array` has the axes of `codes`, the result those of `affine`."""
    return _turned(array, axes.ornt_transform(axes.axcodes2ornt(codes), axes.io_orientation(affine)))


def _turned(array: np.ndarray, change: np.ndarray) -> np.ndarray:
    return np.asarray(axes.apply_orientation(array, change))


def matched(
    array: np.ndarray, affine: np.ndarray, size: Sequence[int], target: np.ndarray, *, fill: bool = False
) -> Matched:
    """An array on the grid of another: the same grid in another orientation is turned, any other is refused.

    Args:
      array: `[*S,C]`, of two or three spatial axes.
      affine: of it.
      size: of the other, as many spatial axes.
      target: affine of the other.
      fill: whether the array may be a part of the other, as formats store masks; the rest becomes 0. The distance of
        its slices counts as a guess where there is one, or where it is finer and all but 0 lies on slices of the other.

    Raises:
      OtherGrid: one would have to be resampled.
    """
    rank = len(size)
    volume, whole = (array, tuple(size)) if rank == 3 else (array[None], (1, *size))
    between = np.linalg.inv(target) @ affine  # indices of the one -> indices of the other
    if fill:
        volume, between = _respaced(volume, between)
    change = axes.io_orientation(between)
    turned = _turned(volume, change)
    between = between @ axes.inv_ornt_aff(change, volume.shape[:3])
    if fill:
        turned, between = _filled(turned, between, whole)
    apart = furthest(between, whole)
    if turned.shape[:3] != whole or apart > _NEAR:
        angle = _angle(affine @ axes.inv_ornt_aff(change, volume.shape[:3]), target)
        by = f", turned by {angle:.3g} degrees" if angle > _STRAIGHT else ""
        raise OtherGrid(text(affine, array.shape[:rank]) + by, text(target, size))
    note = f"lies up to {apart:.2f} of a pixel off its image" if apart > _ROUNDED else ""
    return Matched(turned if rank == 3 else turned[0], note)


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    """Degrees between the directions of two grids."""
    a, b = (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (one, other))
    return float(np.degrees(np.arccos(np.clip((np.sum(a * b) - 1) / 2, -1, 1))))


def furthest(between: np.ndarray, size: Sequence[int]) -> float:
    """How far a corner of a grid of `size` is moved by a matrix from indices to indices, in pixels along an axis."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in size))], float).T
    return float(abs(between @ corners - corners).max())


def _respaced(volume: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A part with slices as far apart as those of the other grid, where its own distance may be a mere guess.

    One slice has no distance; of slices that lie closer than those of the other grid, all that are not empty must lie
    on one of those.
    """
    column = between[:3, 0]
    axis = int(np.argmax(abs(column)))
    length = abs(column[axis])
    if abs(np.delete(column, axis)).max() > _STEP * length:
        return volume, between
    places = np.arange(len(volume)) * length
    full = np.flatnonzero(volume.reshape(len(volume), -1).any(1)) if len(volume) > 1 else np.zeros(1, int)
    coarser = len(volume) > 1 and length > 1 - _STEP
    if coarser or not full.size or abs(places[full] - np.rint(places[full])).max() > _STEP:
        return volume, between
    spread = np.zeros((round(places[full[-1]]) + 1, *volume.shape[1:]), volume.dtype)
    spread[np.rint(places[full]).astype(int)] = volume[full]
    return spread, between @ np.diag([1 / length, 1, 1, 1])


def _filled(array: np.ndarray, between: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """An array padded with zeros to another size, if it lies completely inside; else unchanged."""
    start = np.rint(between[:3, 3]).astype(int)
    if (start < 0).any() or (start + array.shape[:3] > size).any():
        return array, between
    whole = np.zeros((*size, *array.shape[3:]), array.dtype)
    whole[tuple(slice(s, s + n) for s, n in zip(start, array.shape, strict=False))] = array
    moved = np.eye(4)
    moved[:3, 3] = -start
    return whole, between @ moved
