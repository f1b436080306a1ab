"""Images of any size through a network of one size: on the grid of its training, or tile by tile.

A network is a function `images [B,*n,C] -> (probabilities float32 [B,*n,K], {name: scores [B]})`; where images are
padded it is also given which pixels count, bool `[B,*n]`. What is said of pictures holds for volumes. Everything here
is on the host; results have the size that is asked for.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from jaxseg.data import resizing
from jaxseg.data.grids import Placement, per_axis

Scores = dict[str, np.ndarray]
Network = Callable[..., tuple[np.ndarray, Scores]]
BLENDS = ("gaussian", "linear")
_T = TypeVar("_T")
_GAUSSIAN_WIDTH = 1 / 8  # standard deviation of the Gaussian, as a share of the tile


class Tiling(NamedTuple):
    """How a window slides.

    Attributes:
      size: side of a tile in pixels of the image, or its sides along every axis.
      overlap: share of a tile, along each axis, that the next one repeats; at least 0 and below 1.
      blend: how much a tile's pixels count where tiles overlap, falling from its middle: gaussian or linear.
      batch: tiles that go through the network at once.
    """

    size: int | Sequence[int]
    overlap: float = 0.5
    blend: str = "gaussian"
    batch: int = 8

    def sides(self, rank: int) -> tuple[int, ...]:
        """Of a tile, along every axis."""
        return (self.size,) * rank if isinstance(self.size, int) else per_axis(self.size, rank)


def on_grid(
    network: Network, images: np.ndarray, placement: Placement, *, fill: float, size: Sequence[int]
) -> tuple[np.ndarray, Scores]:
    """Images through a network on its grid; the probabilities come back by linear interpolation.

    Args:
      network: takes images of the grid's size.
      images: `[B,*S,C]`.
      placement: where they lie on the grid.
      fill: of images where they are padded.
      size: spatial sizes of the result.

    Returns:
      Probabilities float32 `[B,*size,K]`, and scores `[B]`.
    """
    fitted = [placement.onto(resizing.resize(image, placement.resized), fill) for image in images]
    inside = [placement.onto(np.ones(placement.resized, bool), 0)] * len(images)
    probabilities, scores = network(np.stack(fitted), *([] if placement.covers else [np.stack(inside)]))
    return np.stack([placement.back(one, size=size) for one in probabilities]), scores


def sliding(
    network: Network, image: np.ndarray, tiling: Tiling, *, valid: np.ndarray | None = None
) -> tuple[np.ndarray, Scores]:
    """A window slides over the image; where tiles overlap, their probabilities are averaged.

    Beyond the border the image is mirrored at the centres of its outermost pixels. An axis longer than a tile begins
    and ends with tiles that reach half an overlap beyond it, so that no pixel of the image lies at the border of all
    its tiles; along a shorter one the image stands in the middle of one tile.

    Memory: the result, 4 K bytes per pixel, and one batch of tiles with what the network needs for it; the weights by
    which the sums are divided are a product over the axes and take a vector each.

    Args:
      network: takes tiles of `tiling.size`.
      image: `[*S,C]`.
      tiling: how the window slides.
      valid: bool `[*S]`, the pixels that count, which the network is given too; None: all.

    Returns:
      Probabilities float32 `[*S,K]`, and scores `[T]` of the T tiles.

    Raises:
      ValueError: a tiling that cannot be.
    """
    check(tiling)
    sides = tiling.sides(image.ndim - 1)
    axes = [_starts(length, side, tiling.overlap) for length, side in zip(image.shape[:-1], sides, strict=True)]
    windows = [_window(side, tiling.blend) for side in sides]
    arrays = [image] if valid is None else [image, valid]
    total: np.ndarray | None = None
    of_batches: list[Scores] = []
    for corners in batched(itertools.product(*axes), tiling.batch):
        shown = [np.stack([_tile(array, corner, sides) for corner in corners]) for array in arrays]
        probabilities, scores = network(*shown)
        of_batches.append(scores)
        if total is None:
            total = np.zeros((*image.shape[:-1], probabilities.shape[-1]), np.float32)
        for corner, one in zip(corners, probabilities, strict=True):
            _add(total, one, corner, windows)
    assert total is not None  # no axis is empty
    for axis, (length, starts, window) in enumerate(zip(image.shape[:-1], axes, windows, strict=True)):
        total /= _along(_weights(length, starts, window), axis, total.ndim)
    return total, {name: np.concatenate([scores[name] for scores in of_batches]) for name in of_batches[0]}


class Slides(NamedTuple):
    """How a window slides along an axis, T tiles of `side` pixels.

    Attributes:
      starts: where the tiles begin, negative before the axis.
      seen: `[T,side]` int32, the pixels of the axis that they show.
      window: `[side]` float32, by which they count.
      total: `[length]` float32, what the tiles over a pixel count together.
    """

    starts: list[int]
    seen: np.ndarray
    window: np.ndarray
    total: np.ndarray


def slides(length: int, side: int, tiling: Tiling) -> Slides:
    """The tiles of `sliding` along an axis of so many pixels, on which their side is `side`."""
    starts, window = _starts(length, side, tiling.overlap), _window(side, tiling.blend)
    seen = np.stack([_mirrored(start + np.arange(side), length) for start in starts]).astype(np.int32)
    return Slides(starts, seen, window, _weights(length, starts, window))


def check(tiling: Tiling) -> None:
    """Raises ValueError when a window cannot slide like that; the message names the field."""
    if min(tiling.sides(1) if isinstance(tiling.size, int) else tiling.size) < 1 or tiling.batch < 1:
        raise ValueError(f"size is {tiling.size} and batch {tiling.batch}; both must be at least 1")
    if not 0 <= tiling.overlap < 1:
        raise ValueError(f"overlap is {tiling.overlap}; give a share of at least 0 and below 1")
    if tiling.blend not in BLENDS:
        raise ValueError(f"blend is {tiling.blend!r}; choose one of {', '.join(BLENDS)}")


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of `size`, the last of which may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where the tiles begin along an axis of the image; negative before it."""
    if length <= side:
        return [-((side - length) // 2)]
    repeated = min(round(overlap * side), side - 1)
    first, step = -(repeated // 2), side - repeated
    count = 1 + math.ceil((length + repeated // 2 - side - first) / step)
    return [first + i * step for i in range(count)]


def _window(side: int, blend: str) -> np.ndarray:
    """`[side]` float32, above 0, the same from both ends."""
    offset = np.arange(side) - (side - 1) / 2
    if blend == "linear":
        return (side / 2 + 0.5 - abs(offset)).astype(np.float32)
    return np.exp(-0.5 * (offset / (_GAUSSIAN_WIDTH * side)) ** 2).astype(np.float32)


def _tile(image: np.ndarray, corner: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    axes = zip(corner, sides, image.shape, strict=False)
    places = [_mirrored(start + np.arange(side), length) for start, side, length in axes]
    return image[np.ix_(*places)]


def _mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Places beyond an axis of so many pixels -> the pixels that are seen there."""
    if length == 1:
        return np.zeros_like(places)
    period = 2 * (length - 1)
    places = places % period
    return np.where(places < length, places, period - places)


def _add(total: np.ndarray, tile: np.ndarray, corner: Sequence[int], windows: Sequence[np.ndarray]) -> None:
    """Adds what of a tile lies in the image, weighed by the window along every axis."""
    axes = zip(corner, windows, total.shape, strict=False)
    bounds = [(max(-start, 0), min(len(window), length - start)) for start, window, length in axes]
    part = tile[tuple(slice(low, high) for low, high in bounds)]
    for axis, (window, (low, high)) in enumerate(zip(windows, bounds, strict=True)):
        part = part * _along(window[low:high], axis, part.ndim)
    total[tuple(slice(start + low, start + high) for start, (low, high) in zip(corner, bounds, strict=True))] += part


def _weights(length: int, starts: Sequence[int], window: np.ndarray) -> np.ndarray:
    total = np.zeros(length, np.float32)
    for start in starts:
        low, high = max(-start, 0), min(len(window), length - start)
        total[start + low : start + high] += window[low:high]
    return total


def _along(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])
