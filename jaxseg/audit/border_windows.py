"""Objects at the border: two windows of one image that show the same part of an object, inside and at the border.

A line through the object, its centre if there is room, is the border of one window, *at the border*; the other,
*inside*, lies about the line. Both are half as wide and as high as the image, cut from it as it is, and enlarged to its
size, so that they are of one scale. The pixels that both show are compared: those near the line, and those further from
it. What the second window lacks, the other half of the object, may cost a network something too: so the first is shown
once more with all that lies beyond the line painted over in the colour of its background. The line runs along each of
the image's sides in turn: four, or six of a volume, where it is a plane. Along an
axis that is too short for this, as that of a stack of few slices, nothing is cut, and windows have all of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit import pictures
from jaxseg.audit.probe import NotAskedError
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data.raw_cases import size_text
from jaxseg.networks import Network
from jaxseg.settings import count, number, share

SIDES = ("left", "right", "top", "bottom", "first slice", "last slice")  # of the last axis, and so on to the first
WINDOWS = ("inside", "at the border")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What probes of objects at the border read of an audit's config; see configs/audit.py."""

    border_share: float = number(above=0, below=0.25)  # beyond, nothing would be inside
    margin: float = share()
    examples: int = count()
    resamples: int = count()


_CUT = "object at the line"
# counts `[B,...]` by their names; images, labels and class maps `[2,B,*n,...]` that a picture of a case shows
Told = tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


class Cut(NamedTuple):
    """Windows of a batch of images, each at the size of the image.

    Attributes:
      images: `[2,B,*n,C]`, in the order of `WINDOWS`.
      labels: int32 `[2,B,*n]`.
      moves: int32 `[B,rank]`: by how many pixels what the first window shows has to move to where the second has it.
      near: bool `[B,*n]`, of the second window: what the first shows too, near the line.
      rest: bool `[B,*n]`, further from it. Both are empty where an image has no room for the windows.
      first: int32 `[B]`, the slice of a volume with which windows cut in the plane begin.
      painted: `[B,*n,C]`, the first window with what the second lacks painted over: inside, and as little is seen.
    """

    images: jax.Array
    labels: jax.Array
    moves: jax.Array
    near: jax.Array
    rest: jax.Array
    first: jax.Array
    painted: jax.Array

    def matched(self, classes: jax.Array) -> jax.Array:
        """Class maps `[3,B,*n]`, the painted window's last -> with every pixel where the second window has it."""
        inside, at_border, painted = classes
        return jnp.stack([jax.vmap(_moved)(inside, self.moves), at_border, jax.vmap(_moved)(painted, self.moves)])


def cut_axes(sizes: Sequence[int], width: int) -> tuple[bool, ...]:
    """Along which axes there is room for a line inside a window, at least twice as far from its border as `width`."""
    return tuple(n > 1 and n // 4 * n // (n // 2) >= 2 * width for n in sizes)


def sides_of(sizes: Sequence[int], width: int) -> tuple[int, ...]:
    """The numbers in `SIDES` of those at which images of these sizes are cut."""
    there = cut_axes(sizes, width)[::-1]
    return tuple(side for side in range(2 * len(sizes)) if there[side // 2])


def in_words(sizes: Sequence[int], width: int) -> str:
    """How windows are cut from images of these sizes."""
    if len(sizes) == 2:
        what, line, sides = "an image, half as wide and high", "line", "four"
    else:
        whole = sum(cut_axes(sizes, width)) == 3
        what = f"a volume, half as long along {'every axis' if whole else 'its two longest axes'}"
        line, sides = "plane", "six" if whole else "four"
    return (
        f"two windows of {what}, enlarged to its size; a {line} through the object's centre lies inside the one and is "
        f"the border of the other, along each of {sides} sides in turn"
    )


def near_border(sizes: Sequence[int], width: int) -> np.ndarray:
    """The pixels of an image that are so near its border, bool `[*n]`; only along axes that are cut."""
    apart = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in sizes]
    ends = [(one < width) & there for one, there in zip(apart, cut_axes(sizes, width), strict=True)]
    return np.logical_or.reduce(np.meshgrid(*ends, indexing="ij"))


def ask(
    subject: Subject, question: Callable[[Network, Seen, Cut], Told], *, width: int, with_lines: bool = False
) -> tuple[dict[str, np.ndarray], Callable[[np.ndarray], pictures.Pairs]]:
    """Asks of the windows of all test cases at every side, one side after the other.

    Args:
      subject: the network and its cases.
      question: `(network, cases, their windows) -> counts, what is shown`.
      width: pixels near the line.
      with_lines: what is shown are the two windows, whose line is drawn.

    Returns:
      The counts of all sides together, `[N,...]`, and `cases [E] -> pairs`: of some of the cases pictures, cut where
      most of the object is.

    Raises:
      NotAskedError: the cases are too small for windows.
    """
    sides = sides_of(subject.sides, width)
    if not sides:
        raise NotAskedError(f"cases of {size_text(subject.sides)} px are too small for windows of half their side")

    def of_side(network: Network, seen: Seen) -> dict[str, Any]:
        made = cut(seen["images"], seen["labels"], seen["side"], width=width, valid=seen.get("valid"))
        counts, shown = question(network, seen, made)
        here = jnp.sum((made.labels[1] > 0) & made.near, range(1, made.near.ndim))
        told = pictures.told(seen, *(jnp.moveaxis(array, 0, 1) for array in shown))
        if "slices" in told:  # those of the window -> of the volume
            depth = subject.sides[0]
            length = depth // 2 if cut_axes(subject.sides, width)[0] else depth
            told["slices"] = made.first + (2 * told["slices"] + 1) * length // (2 * depth)
        if with_lines:
            told["moves"] = made.moves[:, -2:]
        return counts | {_CUT: here, "pictures": told}

    cases = subject.test
    asked = subject.asks(of_side, batch_size=max(subject.batch_size // 3, 1))  # two windows, and one painted over
    found = [asked(cases, side=np.full(len(cases), place, np.int32)) for place in range(len(sides))]
    # of a volume slices are shown, in which a plane along them is not to be seen
    fullest = np.argmax([one.pop(_CUT) for one in found][: 2 * sum(cut_axes(subject.sides, width)[-2:])], 0)
    show = lambda chosen: pictures.of(asked, cases, chosen, side=fullest.astype(np.int32))
    return {name: np.sum([one[name] for one in found], 0) for name in found[0]}, show


def cut(images: jax.Array, labels: jax.Array, side: jax.Array, *, width: int, valid: jax.Array | None = None) -> Cut:
    """Cuts windows of every image at the centre of its foreground.

    Args:
      images: `[B,*n,C]`.
      labels: int32 `[B,*n]`; an image without foreground has no windows.
      side: int32 `[B]`, which of `sides_of`.
      width: pixels of a window that are near the line; inside, the line lies at least twice as far from the border.
      valid: bool `[B,*n]`, the pixels that count; None: all.
    """
    counted = jnp.ones(labels.shape, bool) if valid is None else valid
    at = [functools.partial(_at_side, number, width) for number in sides_of(labels.shape[1:], width)]
    of_case = lambda case: jax.lax.switch(case[0], at, *(array[None] for array in case[1:]))
    made = jax.lax.map(of_case, (side, images, labels, counted))  # a branch of its own for every case
    images, labels = (jnp.moveaxis(array[:, :, 0], 1, 0) for array in (made.images, made.labels))
    return Cut(images, labels, *(array[:, 0] for array in made[2:]))


def _at_side(side: int, width: int, images: jax.Array, labels: jax.Array, valid: jax.Array) -> Cut:
    """All is done at the end of the last axis at which it begins, of images that are turned so, and turned back."""
    rank = labels.ndim - 1
    turn = functools.partial(_turned, side=side, rank=rank)
    image, label, counted = turn(images), turn(labels), turn(valid)
    sizes = label.shape[1:]
    lengths = tuple(n // 2 if there else n for n, there in zip(sizes, cut_axes(sizes, width), strict=True))
    ends = [n - length for n, length in zip(sizes, lengths, strict=True)]
    *across, middle = _centre(label > 0)
    line = jnp.minimum(middle, ends[-1])
    about = lambda place, axis: jnp.clip(place - lengths[axis] // 2, 0, ends[axis])
    start, inside = [about(place, axis) for axis, place in enumerate(across)], about(line, rank - 1)
    shift = (line - inside) * sizes[-1] // lengths[-1]
    windows = [
        [_window(array, (*start, place), lengths) for place in (inside, line)] for array in (image, label, counted)
    ]
    place = jnp.arange(sizes[-1], dtype=jnp.int32).reshape(1, *(1,) * (rank - 1), -1)
    each = lambda values: jnp.expand_dims(values, range(1, rank + 1))
    both = windows[2][1] & each(jnp.any(label > 0, range(1, rank + 1)) & (shift >= 2 * width))
    both &= place < each(sizes[-1] - shift)
    both &= jax.vmap(functools.partial(jnp.roll, axis=-1))(windows[2][0], -shift)
    cut_images, cut_labels = (jnp.stack([turn(one) for one in pair]) for pair in windows[:2])
    moves = jnp.zeros((len(shift), rank), jnp.int32).at[:, rank - 1 - side // 2].set(shift if side % 2 else -shift)
    near, rest = turn(both & (place < width)), turn(both & (place >= width))
    painted = _painted(windows[0][0], windows[2][0] & (windows[1][0] == 0), place < each(shift))
    return Cut(cut_images, cut_labels, moves, near, rest, start[0], turn(painted))


def _painted(images: jax.Array, background: jax.Array, where: jax.Array) -> jax.Array:
    """Images with the mean colour of their background in a part of them."""
    axes, counted = tuple(range(1, background.ndim)), background[..., None]
    total = jnp.sum(jnp.where(counted, images, jnp.zeros_like(images)), axes, keepdims=True)
    pixels = jnp.maximum(jnp.sum(counted, axes, keepdims=True), 1).astype(images.dtype)
    return jnp.where(where[..., None], total / pixels, images)


def _centre(foreground: jax.Array) -> list[jax.Array]:
    """The middle of bool `[B,*n]`, int32 `[B]` along every axis."""
    axes = range(1, foreground.ndim)
    area = jnp.maximum(jnp.sum(foreground, axes), 1).astype(jnp.float32)
    middle = []
    for axis in axes:
        profile = jnp.sum(foreground, [other for other in axes if other != axis]).astype(jnp.float32)
        places = jnp.arange(foreground.shape[axis], dtype=jnp.float32)
        middle.append(jnp.round(jnp.matmul(profile, places, precision=jax.lax.Precision.HIGHEST) / area))
    return [place.astype(jnp.int32) for place in middle]


def _window(array: jax.Array, start: Sequence[jax.Array], lengths: tuple[int, ...]) -> jax.Array:
    """A part of every one of `[B,*n,...]`, enlarged to all of it: images linearly, others by nearest neighbours."""
    rest = array.shape[1 + len(lengths) :]
    crop = lambda one, *start: jax.lax.dynamic_slice(one, (*start, *(jnp.int32(0) for _ in rest)), (*lengths, *rest))
    return jax.image.resize(jax.vmap(crop)(array, *start), array.shape, "linear" if rest else "nearest")


def _moved(array: jax.Array, moves: jax.Array) -> jax.Array:
    """`[*n]` moved by so many pixels along every axis; what is bared is not looked at."""
    return jnp.roll(array, moves, range(array.ndim))


def _turned(array: jax.Array, side: int, rank: int) -> jax.Array:
    """Arrays `[B,*n,...]` so that the side is where their last axis begins; done twice, they are as they were."""
    axis = rank - side // 2
    across = jnp.swapaxes(array, axis, rank)
    return jnp.flip(across, range(axis, rank + 1)) if side % 2 else across
