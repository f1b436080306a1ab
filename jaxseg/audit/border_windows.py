"""Objects at the border: two windows of one image that show the same part of an object, inside and at the border.

A line through the object, its centre if there is room, is the border of one window, *at the border*; the other,
*inside*, lies about the line. Both are half as wide and as high as the image, cut from it as it is, and enlarged to its
size, so that they are of one scale. The pixels that both show are compared: those near the line, and those further from
it. What the second window lacks, the other half of the object, may cost a network something too, but not near the line
alone. The line runs along each of the image's four sides in turn.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.settings import count, number, share

SIDES = ("left", "right", "top", "bottom")
WINDOWS = ("inside", "at the border")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What probes of objects at the border read of an audit's config; see configs/audit.py."""

    border_share: float = number(above=0, below=0.25)  # beyond, nothing would be inside
    margin: float = share()
    examples: int = count()
    resamples: int = count()


class Cut(NamedTuple):
    """Windows of a batch of images, S of `SIDES`, each at the size of the image.

    Attributes:
      images: `[2,S,B,H,W,C]`, in the order of `WINDOWS`.
      labels: int32 `[2,S,B,H,W]`.
      shifts: int32 `[S,B]`: by how many pixels the line is further from its side in the first window.
      near: bool `[S,B,H,W]`, of the second window: what the first shows too, near the line.
      rest: bool `[S,B,H,W]`, further from it. Both are empty where an image has no room for the windows.
    """

    images: jax.Array
    labels: jax.Array
    shifts: jax.Array
    near: jax.Array
    rest: jax.Array

    def matched(self, classes: jax.Array) -> jax.Array:
        """Class maps `[2,S,B,H,W]` of the windows -> those of the first with every pixel where the second has it."""
        moved = [_shifted(classes[0, i], side, self.shifts[i]) for i, side in enumerate(SIDES)]
        return jnp.stack([jnp.stack(moved), classes[1]])

    def shown(self, array: jax.Array) -> jax.Array:
        """Of `[2,S,B,H,W,...]` with the sides at axis 1, `[B,2,...]` at the side where most of the object is cut."""
        side = self._fullest
        return jnp.moveaxis(array[:, side, jnp.arange(len(side))], 1, 0)

    @property
    def shown_moves(self) -> jax.Array:
        """By how many pixels along each axis what the first window shows there moves, int32 `[B,2]`."""
        side = self._fullest
        by = self.shifts[side, jnp.arange(len(side))]
        signs = jnp.array([[0, -1], [0, 1], [-1, 0], [1, 0]], jnp.int32)
        return signs[side] * by[:, None]

    @property
    def _fullest(self) -> jax.Array:
        return jnp.argmax(jnp.sum((self.labels[1] > 0) & self.near, (2, 3)), 0)


def cut(images: jax.Array, labels: jax.Array, *, width: int, valid: jax.Array | None = None) -> Cut:
    """Cuts windows of every image at the centre of its foreground.

    Args:
      images: `[B,H,W,C]`.
      labels: int32 `[B,H,W]`; an image without foreground has no windows.
      width: pixels of a window that are near the line; inside, the line lies at least twice as far from the border.
      valid: bool `[B,H,W]`, the pixels that count; None: all.
    """
    counted = jnp.ones(labels.shape, bool) if valid is None else valid
    parts = [_at_side(images, labels, counted, side, width) for side in SIDES]
    return Cut(*(jnp.stack(part, int(axis)) for part, axis in zip(zip(*parts, strict=True), "11000", strict=True)))


def _at_side(images: jax.Array, labels: jax.Array, valid: jax.Array, side: str, width: int) -> tuple[jax.Array, ...]:
    """All is done at the left side of images that are turned so, and turned back."""
    image, label, counted = (_turned(array, side) for array in (images, labels, valid))
    height, size = label.shape[1:]
    high, wide = height // 2, size // 2
    row, column, there = _centre(label > 0)
    line = jnp.minimum(column, size - wide)
    top = jnp.clip(row - high // 2, 0, height - high)
    inside = jnp.clip(line - wide // 2, 0, size - wide)
    shift = (line - inside) * size // wide
    room = there & (shift >= 2 * width)
    windows = [
        [_window(array, top, left, (high, wide)) for left in (inside, line)] for array in (image, label, counted)
    ]
    place = jnp.arange(size, dtype=jnp.int32)[None, None]
    both = windows[2][1] & room[:, None, None] & (place < (size - shift)[:, None, None])
    both &= _shifted_left(windows[2][0], shift)
    back = lambda array: _turned(array, side)
    pictures = (jnp.stack([back(one) for one in pair]) for pair in windows[:2])
    return *pictures, shift, back(both & (place < width)), back(both & (place >= width))


def _centre(foreground: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Row and column of the centre of `[B,H,W]`, int32 `[B]`, and whether there is one."""
    area = jnp.maximum(jnp.sum(foreground, (1, 2)), 1).astype(jnp.float32)
    along = lambda axis: (
        jnp.sum(foreground, axis).astype(jnp.float32) @ jnp.arange(foreground.shape[3 - axis], dtype=jnp.float32)
    )
    row, column = (jnp.round(along(axis) / area).astype(jnp.int32) for axis in (2, 1))
    return row, column, jnp.any(foreground, (1, 2))


def _window(array: jax.Array, top: jax.Array, left: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A part of every one of `[B,H,W,...]`, enlarged to all of it: images linearly, others by nearest neighbours."""
    rest = array.shape[3:]
    start = lambda y, x: (y, x, *(jnp.int32(0) for _ in rest))
    crop = lambda one, y, x: jax.lax.dynamic_slice(one, start(y, x), (*size, *rest))
    method = "linear" if rest else "nearest"
    return jax.image.resize(jax.vmap(crop)(array, top, left), array.shape, method)


def _shifted(array: jax.Array, side: str, by: jax.Array) -> jax.Array:
    return _turned(_shifted_left(_turned(array, side), by), side)


def _shifted_left(array: jax.Array, by: jax.Array) -> jax.Array:
    """`[B,H,W]` with every image moved to the left by so many pixels; what is bared is not looked at."""
    return jax.vmap(lambda one, by: jnp.roll(one, -by, axis=1))(array, by)


def _turned(array: jax.Array, side: str) -> jax.Array:
    """Arrays `[B,H,W,...]` so that the side becomes the left one; done twice, they are as they were."""
    if side == "right":
        return jnp.flip(array, 2)
    if side == "left":
        return array
    across = jnp.swapaxes(array, 1, 2)
    return jnp.flip(across, (1, 2)) if side == "bottom" else across
