"""Sizes of stored images and labels, `[H,W,C]` and `[H,W]`, or `[D,H,W,C]` and `[D,H,W]`, on the host.

An axis that becomes shorter is averaged by area, one that becomes longer is interpolated linearly; both with half-pixel
centres. OpenCV does that ten times as fast as Pillow's antialiased filters, and reading would otherwise spend most of
its time there.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

# A JPEG is decoded at a size of at least so many times the wanted one. libjpeg shrinks by halving, which at twice
# the wanted size changes the result by less than a gray level, and saves most of the time for large photographs.
DRAFT = 2
_MOST_CHANNELS = 4  # that OpenCV averages at once


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Averages by area along the axes that become shorter, interpolates linearly along the others.

    Args:
      image: `[*S,C]`, with two or three spatial axes; integers of 8 or 16 bits, or floats.
      size: the new spatial sizes.

    Returns:
      `[*size,C]` of the same type; integers are rounded at every step: shorter axes of the plane, longer, the depth.
    """
    if image.shape[:-1] == tuple(size):
        return image
    if image.dtype == np.float16:  # which OpenCV does not take
        return resize(image.astype(np.float32), size).astype(np.float16)
    if image.ndim == 3:
        return _resize_plane(image, *size)
    planes = np.stack([_resize_plane(one, *size[1:]) for one in image])
    flat = planes.reshape(len(planes), -1, 1)  # the depth becomes the height of a picture as wide as a plane has pixels
    return _resize_plane(flat, size[0], flat.shape[1]).reshape(*size, image.shape[-1])


def resize_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Nearest neighbours: every new pixel has the class at its centre.

    Args:
      labels: `[*S]` of any type.
      size: the new spatial sizes.
    """
    if labels.shape == tuple(size):
        return labels
    return labels[np.ix_(*(_nearest(old, new) for old, new in zip(labels.shape, size, strict=True)))]


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
        weight = (place - below).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        low, high = np.take(array, below, axis), np.take(array, np.minimum(below + 1, old - 1), axis)
        high -= low
        high *= weight
        array = np.add(low, high, out=high)
    return array


@functools.lru_cache(maxsize=256)
def _nearest(old: int, new: int) -> np.ndarray:
    """Which of `old` places the `new` ones show. Pillow decides where a centre lies exactly between two."""
    places = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(places.resize((new, 1), Image.Resampling.NEAREST))[0]


def _resize_plane(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[-1] > _MOST_CHANNELS:
        parts = range(0, image.shape[-1], _MOST_CHANNELS)
        return np.concatenate([_resize_plane(image[..., c : c + _MOST_CHANNELS], height, width) for c in parts], -1)
    shorter = (min(width, image.shape[1]), min(height, image.shape[0]))
    for sides, filter_ in ((shorter, cv2.INTER_AREA), ((width, height), cv2.INTER_LINEAR)):
        if image.shape[1::-1] != sides:
            image = cv2.resize(image, sides, interpolation=filter_).reshape(*sides[::-1], -1)
    return image
