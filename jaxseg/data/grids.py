"""From a case's own pixels to the grid of a network, and back: on the host, case by case.

| geometry | what becomes of a case |
| --- | --- |
| `squash` | all of it, resized to so many pixels a side, whatever its aspect |
| `keep` | its aspect, with its own pixels, those of a spacing, or as many as fit; cropped or padded about its centre |
| `patches` | the same, neither cropped nor padded, unless it is smaller than a patch |

Labels that are padded are `IGNORED`, so nothing that is padded counts anywhere.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxseg import settings
from jaxseg.data import resizing
from jaxseg.data.raw_cases import IGNORED


class Misfit(Exception):
    """What of a case does not go with a geometry, and the remedy."""


class Placement(NamedTuple):
    """Where a case lies on a network's grid: it was resized, and then cropped or padded.

    Attributes:
      size: spatial sizes as stored.
      resized: after resizing.
      start: the first pixel of the resized case on the grid, along every axis; negative where it was cropped.
      grid: spatial sizes of the grid.
    """

    size: tuple[int, ...]
    resized: tuple[int, ...]
    start: tuple[int, ...]
    grid: tuple[int, ...]

    @property
    def inside(self) -> tuple[slice, ...]:
        """Of the grid: what the case covers."""
        ends = zip(self.start, self.resized, self.grid, strict=True)
        return tuple(slice(max(first, 0), min(first + length, side)) for first, length, side in ends)

    @property
    def kept(self) -> tuple[slice, ...]:
        """Of the resized case: what lies on the grid."""
        return tuple(
            slice(part.start - first, part.stop - first) for part, first in zip(self.inside, self.start, strict=True)
        )

    @property
    def covers(self) -> bool:
        """Whether the case covers all of the grid."""
        return all(part == slice(0, side) for part, side in zip(self.inside, self.grid, strict=True))

    def onto(self, array: np.ndarray, fill: float) -> np.ndarray:
        """A resized array `[*resized,...]` on the grid, with `fill` around it."""
        if self.resized == self.grid:
            return array
        placed = np.full((*self.grid, *array.shape[len(self.grid) :]), fill, array.dtype)
        placed[self.inside] = array[self.kept]
        return placed

    def back(self, probabilities: np.ndarray, *, size: Sequence[int] | None = None) -> np.ndarray:
        """Probabilities on the grid as ones of the case: interpolated linearly; background where it was cropped.

        Args:
          probabilities: float32 `[*grid,K]`.
          size: spatial sizes of the result; as stored, if None.

        Returns:
          float32 `[*size,K]`.
        """
        whole = probabilities
        if self.resized != self.grid:
            whole = np.zeros((*self.resized, probabilities.shape[-1]), probabilities.dtype)
            whole[..., 0] = 1
            whole[self.kept] = probabilities[self.inside]
        return resizing.resize_linear(whole[None], self.size if size is None else size)[0]


class Fitted(NamedTuple):
    """A case on a network's grid.

    Attributes:
      image: `[*grid,C]`.
      labels: `[*grid]`, `IGNORED` around the case.
      spacing: mm, float32 `[rank]`, NaN where unknown.
      placement: the way back.
    """

    image: np.ndarray
    labels: np.ndarray
    spacing: np.ndarray
    placement: Placement


@dataclasses.dataclass(frozen=True)
class Grid:
    """Base of the geometries; by itself, cases stay as they are stored."""

    @property
    def draft(self) -> int | None:
        """Pixels a side with which a JPEG may be decoded; None: all that it has."""
        return None

    @property
    def pads(self) -> bool:
        """Whether something of what a network sees may be padding."""
        return False

    @property
    def one_size(self) -> bool:
        """Whether all cases come to have the same."""
        return False

    def sides(self, rank: int) -> tuple[int, ...] | None:
        """Spatial sizes of all cases; None where they may differ."""
        return self.example(rank) if self.one_size else None

    def example(self, rank: int) -> tuple[int, ...]:
        """Spatial sizes that a network is given, some of them where they differ."""
        raise NotImplementedError

    def placement(self, size: Sequence[int], spacing: Sequence[float] | np.ndarray) -> Placement:
        """Where a case with these spatial sizes and mm comes to lie; raises Misfit where that cannot be said."""
        resized = self._resized(tuple(size), spacing)
        grid = self._grid(resized)
        # an odd pixel is on the far side
        start = tuple((side - length) // 2 for side, length in zip(grid, resized, strict=True))
        return Placement(tuple(size), resized, start, grid)

    def fit(self, image: np.ndarray, labels: np.ndarray, spacing: np.ndarray, *, fill: float) -> Fitted:
        """A case on the grid.

        Args:
          image: `[*S,C]`; a JPEG may have been decoded at another size than that of its labels.
          labels: `[*S]`.
          spacing: mm along the axes of the labels, `[rank]`, NaN where unknown.
          fill: of the image where it is padded.

        Raises:
          Misfit: the case cannot be brought onto the grid.
        """
        placement = self.placement(labels.shape, spacing)
        steps = np.divide(labels.shape, placement.resized, dtype=np.float32)
        return Fitted(
            placement.onto(resizing.resize(image, placement.resized), fill),
            placement.onto(resizing.resize_labels(labels, placement.resized), IGNORED),
            np.asarray(spacing, np.float32) * steps,
            placement,
        )

    def _resized(self, size: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> tuple[int, ...]:
        del spacing
        return size

    def _grid(self, resized: tuple[int, ...]) -> tuple[int, ...]:
        return resized


@dataclasses.dataclass(frozen=True)
class Squash(Grid):
    """All of a case, resized: images by area or linearly, labels by nearest neighbours.

    Attributes:
      side: pixels a side, or the spatial sizes.
    """

    side: int | tuple[int, ...]

    @property
    def draft(self) -> int | None:
        """Twice the size that is wanted."""
        return resizing.DRAFT * (self.side if isinstance(self.side, int) else max(self.side))

    @property
    def one_size(self) -> bool:
        """All cases become squares, or cubes."""
        return True

    def example(self, rank: int) -> tuple[int, ...]:
        """The square's, or the cube's, unless they differ."""
        return per_axis((self.side,) if isinstance(self.side, int) else self.side, rank)

    def _resized(self, size: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> tuple[int, ...]:
        return self.example(len(size))


@dataclasses.dataclass(frozen=True)
class _Resampled(Grid):
    """Pixels as they are, or of a given spacing."""

    side: int
    _: dataclasses.KW_ONLY
    spacing: Sequence[float] = ()
    size: Sequence[int] = ()

    @property
    def pads(self) -> bool:
        """Where a case is smaller than the grid."""
        return True

    def _resized(self, size: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> tuple[int, ...]:
        if not self.spacing:
            return size
        wanted = tuple(self.spacing) * (2 if len(self.spacing) == 1 else 1)
        if len(wanted) > len(size):
            raise Misfit(f"has {len(size)} axes, and a spacing along {len(wanted)} is wanted")
        kept = len(size) - len(wanted)
        known = [float(step) for step in spacing[kept:]]
        if not all(math.isfinite(step) and step > 0 for step in known):
            raise Misfit("does not say how large its pixels are, so it cannot be resampled; leave the spacing empty")
        pairs = zip(size[kept:], known, wanted, strict=True)
        return (*size[:kept], *(max(round(length * old / new), 1) for length, old, new in pairs))

    def _wanted(self, rank: int) -> tuple[int, ...]:
        return per_axis(self.size or (self.side,), rank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep(_Resampled):
    """A case with its aspect and its pixels, cropped or padded about its centre.

    Attributes:
      side: pixels a side to which it is cropped or padded.
      spacing: mm that pixels are resampled to, along the last axes: two of a volume's are those in its plane, and the
        distance of its slices stays; one is for both axes of the plane; none: pixels stay as they are.
      size: spatial sizes instead of `side`, where they differ.
      multiple: instead, all of it is kept, and padded to the next multiple of so many pixels: a number for every axis,
        or one for all.
      whole: instead, its plane is resized until all of it just fits, for pictures whose pixels have no size in mm.
    """

    multiple: Sequence[int] = ()
    whole: bool = False

    @property
    def draft(self) -> int | None:
        """Where a case is made to fit, twice its longer side; else all that it has."""
        return resizing.DRAFT * max(self._wanted(2)) if self.whole and len(self.size) < 3 else None

    @property
    def one_size(self) -> bool:
        """Unless all of every case is kept."""
        return not self.multiple

    def example(self, rank: int) -> tuple[int, ...]:
        """The size, or the least multiple."""
        return per_axis(self.multiple, rank) if self.multiple else self._wanted(rank)

    def _resized(self, size: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> tuple[int, ...]:
        if not self.whole:
            return super()._resized(size, spacing)
        plane, room = size[-2:], self._wanted(len(size))[-2:]
        factor = min(side / length for side, length in zip(room, plane, strict=True))
        return (*size[:-2], *(max(round(factor * length), 1) for length in plane))

    def _grid(self, resized: tuple[int, ...]) -> tuple[int, ...]:
        rank = len(resized)
        if not self.multiple:
            return self._wanted(rank)
        return tuple(-(-n // unit) * unit for n, unit in zip(resized, per_axis(self.multiple, rank), strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches(_Resampled):
    """Whole cases, padded to a patch where they are smaller; training draws patches of them, see `jaxseg.data.patches`.

    Attributes:
      side: pixels a side of a patch.
      spacing: as of `Keep`.
      size: spatial sizes of a patch instead of `side`, where they differ.
      foreground: share of the patches that are sure to hold foreground, where a case has any.
      overlap: share of a patch that the next one repeats, where a window slides over a case.
    """

    foreground: float = settings.number(least=0, most=1, default=1 / 3)
    overlap: float = settings.number(least=0, below=1, default=0.5)

    def example(self, rank: int) -> tuple[int, ...]:
        """Spatial sizes of a patch."""
        return self._wanted(rank)

    def _grid(self, resized: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(pair) for pair in zip(resized, self._wanted(len(resized)), strict=True))


@dataclasses.dataclass(frozen=True)
class InPlane(Grid):
    """Of volumes: what another geometry makes of every slice; there are as many as before.

    Attributes:
      plane: geometry of the slices.
    """

    plane: Grid

    @property
    def pads(self) -> bool:
        """Where volumes of fewer slices are held beside others."""
        return True

    def example(self, rank: int) -> tuple[int, ...]:
        """Of one slice."""
        return (1, *self.plane.example(rank - 1))

    def _resized(self, size: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> tuple[int, ...]:
        return (size[0], *self.plane._resized(size[1:], spacing[1:]))

    def _grid(self, resized: tuple[int, ...]) -> tuple[int, ...]:
        return (resized[0], *self.plane._grid(resized[1:]))


def in_plane(grid: Grid) -> Grid:
    """The geometry for pictures, for the slices of volumes; a window slides over each by itself."""
    if isinstance(grid, Patches):
        return dataclasses.replace(grid, size=(1, *grid.example(2)))
    return InPlane(grid)


def per_axis(values: Sequence[int], rank: int) -> tuple[int, ...]:
    """One number for every axis, or the numbers of all axes.

    Raises:
      Misfit: there are others.
    """
    if len(values) not in (1, rank):
        raise Misfit(f"has {rank} axes, and {len(values)} sizes are given; give {rank}, or one for all")
    return tuple(values) * (rank if len(values) == 1 else 1)


# by the name in a config; their keyword-only fields are the options
GEOMETRIES: dict[str, Callable[..., Grid]] = {"squash": Squash, "keep": Keep, "patches": Patches}
