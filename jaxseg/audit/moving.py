"""Objects at the border: the same pixels once with the border close by, and once with their mirror image there.

A line through the object's centre cuts the image. What lies beyond it is lost in both pictures: *mirrored*, it is
replaced by the mirror image of this side, and everything stays in its place; *moved*, the picture is shifted until the
line is the image's border, and what is bared at the opposite side is the picture mirrored there. The pixels on this
side are the same in both, at the same scale. What differs is what lies beyond the line: the border, or the mirror
image, which also completes the object. A network that uses no cue may lose a little by that too; the margin of a
finding is for it. The line runs along each of the image's four sides in turn.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.settings import count, number, share

SIDES = ("left", "right", "top", "bottom")
PICTURES = ("mirrored", "moved")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What probes of objects at the border read of an audit's config; see configs/audit.py."""

    border_share: float = number(above=0, below=0.25)  # beyond, nothing would be inside
    margin: float = share()
    examples: int = count()
    resamples: int = count()


class Cut(NamedTuple):
    """Pictures of a batch of images that are cut at a line, S of `SIDES`.

    Attributes:
      images: `[2,S,B,H,W,C]`, in the order of `PICTURES`.
      labels: `[2,S,B,H,W]` of both; those of the mirrored ones are in their place.
      back: class maps `[2,S,B,H,W]` of the pictures -> with every visible pixel in its place.
      strip: bool `[S,B,H,W]`, the visible pixels near the line.
      visible: bool `[S,B,H,W]`, those on this side of it. Both are empty where the line is near the border already.
    """

    images: jax.Array
    labels: jax.Array
    back: Callable[[jax.Array], jax.Array]
    strip: jax.Array
    visible: jax.Array

    def shown(self, array: jax.Array) -> jax.Array:
        """Of `[...,S,B,H,W,...]` with the sides at axis 1, `[B,P,...]` at the side where most of the object is cut."""
        side = jnp.argmax(jnp.sum((self.labels[0] > 0) & self.strip, (2, 3)), 0)
        return jnp.moveaxis(array[:, side, jnp.arange(len(side))], 1, 0)


def cut(images: jax.Array, labels: jax.Array, *, width: int) -> Cut:
    """Cuts every image through the centre of its foreground.

    Args:
      images: `[B,H,W,C]`.
      labels: int32 `[B,H,W]`; an image without foreground has nothing visible.
      width: of the strip near the line, in pixels; a line is drawn where it is at least as far from the border.
    """
    parts = [_at_side(images, labels, side, width) for side in SIDES]
    stacked = [jnp.stack(part) for part in zip(*parts, strict=True)]
    mirrored, moved, mirrored_labels, moved_labels, lines, strip, visible = stacked

    def returned(moved: jax.Array, side: str, line: jax.Array) -> jax.Array:
        turned = _turned(moved, side)
        column = jnp.arange(turned.shape[2])
        return _turned(_per_image(lambda one, line: _columns(one, column - line), turned, line), side)

    def back(classes: jax.Array) -> jax.Array:
        moved = [returned(classes[1, i], side, lines[i]) for i, side in enumerate(SIDES)]
        return jnp.stack([classes[0], jnp.stack(moved)])

    return Cut(jnp.stack([mirrored, moved]), jnp.stack([mirrored_labels, moved_labels]), back, strip, visible)


def _at_side(images: jax.Array, labels: jax.Array, side: str, width: int) -> tuple[jax.Array, ...]:
    """All is done at the left side of images that are turned so, and turned back."""
    image, label = _turned(images, side), _turned(labels, side)
    size = label.shape[2]  # of the turned image: from the line's side to the other
    column = jnp.arange(size, dtype=jnp.int32)[None]
    foreground = jnp.sum(label > 0, 1).astype(jnp.float32)  # [B,n], of every column
    area = jnp.sum(foreground, 1)
    middle = jnp.sum(foreground * column.astype(jnp.float32), 1) / jnp.maximum(area, 1.0)
    line = jnp.round(middle).astype(jnp.int32)
    room = (line >= width) & (line <= size - width) & (area > 0)
    mirror = lambda one, line: _columns(one, jnp.where(column[0] >= line, column[0], 2 * line - 1 - column[0]))
    move = lambda one, line: _columns(one, column[0] + line)
    visible = (column >= line[:, None]) & room[:, None]
    strip = visible & (column < line[:, None] + width)
    whole = lambda mask: _turned(jnp.broadcast_to(mask[:, None], label.shape), side)
    pictures = [_turned(_per_image(how, one, line), side) for one in (image, label) for how in (mirror, move)]
    return *pictures, line, whole(strip), whole(visible)


def _turned(array: jax.Array, side: str) -> jax.Array:
    """Arrays `[B,H,W,...]` so that the side becomes the left one; done twice, they are as they were."""
    if side == "right":
        return jnp.flip(array, 2)
    if side == "left":
        return array
    across = jnp.swapaxes(array, 1, 2)
    return jnp.flip(across, (1, 2)) if side == "bottom" else across


def _per_image(function: Callable[[jax.Array, jax.Array], jax.Array], arrays: jax.Array, lines: jax.Array) -> jax.Array:
    return jax.vmap(function)(arrays, lines)


def _columns(array: jax.Array, wanted: jax.Array) -> jax.Array:
    """Columns of `[H,W,...]`; beyond the borders the array is mirrored."""
    size = array.shape[1]
    wanted = jnp.mod(wanted, 2 * size)
    return jnp.take(array, jnp.where(wanted < size, wanted, 2 * size - 1 - wanted), axis=1)
