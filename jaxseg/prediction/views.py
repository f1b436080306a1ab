"""Images of any size through a network of one size: squashed as in training, or tile by tile at their own scale.

A network is a function `images uint8 [B,*n,C] -> (probabilities float32 [B,*n,K], {name: scores [B]})`. What is said of
pictures holds for volumes. Everything here is on the host; results have the size that is asked for.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from jaxseg.data import resizing

Scores = dict[str, np.ndarray]
Network = Callable[[np.ndarray], tuple[np.ndarray, Scores]]
BLENDS = ("gaussian", "linear")
_T = TypeVar("_T")
_GAUSSIAN_WIDTH = 1 / 8  # standard deviation of the Gaussian, as a share of the tile


class Tiling(NamedTuple):
    """How a window slides.

    Attributes:
      size: side of a tile in pixels of the image.
      overlap: share of a tile, along each axis, that the next one repeats; at least 0 and below 1.
      blend: how much a tile's pixels count where tiles overlap, falling from its middle: gaussian or linear.
      batch: tiles that go through the network at once.
    """

    size: int
    overlap: float = 0.5
    blend: str = "gaussian"
    batch: int = 8


def squashed(
    network: Network, images: np.ndarray, *, source_size: int, size: Sequence[int]
) -> tuple[np.ndarray, Scores]:
    """Whole images squashed to `source_size` a side; the probabilities are brought back by linear interpolation.

    Args:
      network: takes images of `source_size`.
      images: uint8 `[B,*S,C]`.
      source_size: side of what it takes.
      size: spatial sizes of the result.

    Returns:
      Probabilities float32 `[B,*size,K]`, and scores `[B]`.
    """
    sides = (source_size,) * (images.ndim - 2)
    probabilities, scores = network(np.stack([resizing.resize(image, sides) for image in images]))
    return resize_linear(probabilities, size), scores


def sliding(network: Network, image: np.ndarray, tiling: Tiling) -> tuple[np.ndarray, Scores]:
    """A window slides over the image; where tiles overlap, their probabilities are averaged.

    Beyond the border the image is mirrored at the centres of its outermost pixels. An axis longer than a tile begins
    and ends with tiles that reach half an overlap beyond it, so that no pixel of the image lies at the border of all
    its tiles; along a shorter one the image stands in the middle of one tile.

    Memory: the result, 4 K bytes per pixel, and one batch of tiles with what the network needs for it; the weights by
    which the sums are divided are a product over the axes and take a vector each.

    Args:
      network: takes tiles of `tiling.size`.
      image: uint8 `[*S,C]`.
      tiling: how the window slides.

    Returns:
      Probabilities float32 `[*S,K]`, and scores `[T]` of the T tiles.

    Raises:
      ValueError: a tiling that cannot be.
    """
    check(tiling)
    axes = [_starts(length, tiling) for length in image.shape[:-1]]
    window = _window(tiling)
    total: np.ndarray | None = None
    of_batches: list[Scores] = []
    for corners in batched(itertools.product(*axes), tiling.batch):
        probabilities, scores = network(np.stack([_tile(image, corner, tiling.size) for corner in corners]))
        of_batches.append(scores)
        if total is None:
            total = np.zeros((*image.shape[:-1], probabilities.shape[-1]), np.float32)
        for corner, one in zip(corners, probabilities, strict=True):
            _add(total, one, corner, window)
    assert total is not None  # no axis is empty
    for axis, (length, starts) in enumerate(zip(image.shape[:-1], axes, strict=True)):
        total /= _along(_weights(length, starts, window), axis, total.ndim)
    return total, {name: np.concatenate([scores[name] for scores in of_batches]) for name in of_batches[0]}


def check(tiling: Tiling) -> None:
    """Raises ValueError when a window cannot slide like that; the message names the field."""
    if tiling.size < 1 or tiling.batch < 1:
        raise ValueError(f"size is {tiling.size} and batch {tiling.batch}; both must be at least 1")
    if not 0 <= tiling.overlap < 1:
        raise ValueError(f"overlap is {tiling.overlap}; give a share of at least 0 and below 1")
    if tiling.blend not in BLENDS:
        raise ValueError(f"blend is {tiling.blend!r}; choose one of {', '.join(BLENDS)}")


def resize_linear(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Linear interpolation at the centres of the new pixels, half-pixel centres, edge pixels continued.

    Args:
      array: float32 `[B,*S,K]`.
      size: the new spatial sizes.

    Returns:
      float32 `[B,*size,K]`; what sums to one over K still does.
    """
    for axis, (old, new) in enumerate(zip(array.shape[1:-1], size, strict=True), 1):
        if old == new:
            continue
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        below = place.astype(int)
        weight = _along((place - below).astype(np.float32), axis, array.ndim)
        low, high = np.take(array, below, axis), np.take(array, np.minimum(below + 1, old - 1), axis)
        high -= low
        high *= weight
        array = np.add(low, high, out=high)
    return array


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of `size`, the last of which may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _starts(length: int, tiling: Tiling) -> list[int]:
    """Where the tiles begin along an axis of the image; negative before it."""
    if length <= tiling.size:
        return [-((tiling.size - length) // 2)]
    overlap = min(round(tiling.overlap * tiling.size), tiling.size - 1)
    first, step = -(overlap // 2), tiling.size - overlap
    count = 1 + math.ceil((length + overlap // 2 - tiling.size - first) / step)
    return [first + i * step for i in range(count)]


def _window(tiling: Tiling) -> np.ndarray:
    """`[size]` float32, above 0, the same from both ends."""
    offset = np.arange(tiling.size) - (tiling.size - 1) / 2
    if tiling.blend == "linear":
        return (tiling.size / 2 + 0.5 - abs(offset)).astype(np.float32)
    return np.exp(-0.5 * (offset / (_GAUSSIAN_WIDTH * tiling.size)) ** 2).astype(np.float32)


def _tile(image: np.ndarray, corner: Sequence[int], size: int) -> np.ndarray:
    places = [_mirrored(start + np.arange(size), length) for start, length in zip(corner, image.shape, strict=False)]
    return image[np.ix_(*places)]


def _mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Places beyond an axis of so many pixels -> the pixels that are seen there."""
    if length == 1:
        return np.zeros_like(places)
    period = 2 * (length - 1)
    places = places % period
    return np.where(places < length, places, period - places)


def _add(total: np.ndarray, tile: np.ndarray, corner: Sequence[int], window: np.ndarray) -> None:
    """Adds what of a tile lies in the image, weighed by the window along every axis."""
    size = len(window)
    bounds = [(max(-start, 0), min(size, length - start)) for start, length in zip(corner, total.shape, strict=False)]
    part = tile[tuple(slice(low, high) for low, high in bounds)]
    for axis, (low, high) in enumerate(bounds):
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
