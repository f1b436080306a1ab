"""Objects at the border: two windows of one image that show the same part of an object, inside and at the border.

A line through the object, its centre if there is room, is the border of one window, *at the border*; the other,
*inside*, lies about the line. Both are half as wide and as high as the image, cut from it as it is, and enlarged to its
size, so that they are of one scale. The pixels that both show are compared: those near the line, and those further from
it. What one window alone shows, the other half of the object or other objects, may cost a network something too: so
both are shown once more with it painted over in the colour of the background. They are then one picture at two places,
and what knows of no place finds the same in both. The line runs along each of the image's sides in turn: four, or six
of a volume, where it is a plane. Along an axis that is too short for this, as that of a stack of few slices, nothing is
cut, and windows have all of it.

A network may not know objects that are twice as large, and what it never finds it cannot lose at the border. Of such a
network larger windows are asked, three quarters of the image's sides: objects are enlarged by a third, and the line,
at most a quarter of the image from its border, runs through their rim rather than their centre.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit import pictures
from jaxseg.audit.probe import NotAskedError
from jaxseg.audit.subject import Seen, Subject, strip_width
from jaxseg.data.raw_cases import size_text
from jaxseg.networks import Network
from jaxseg.settings import count, number, share

SIDES = ("left", "right", "top", "bottom", "first slice", "last slice")  # of the last axis, and so on to the first
WINDOWS = ("inside", "at the border")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What probes of objects at the border read of an audit's config; see configs/audit.py."""

    border_share: float = number(above=0, below=0.25)  # beyond, nothing would be inside
    least_recall: float = share()
    margin: float = share()
    examples: int = count()
    resamples: int = count()


_QUARTERS = (2, 3)  # of the image's sides that windows are long: the next where the network finds nothing in these
_IN_WORDS = {2: "half", 3: "three quarters of"}
_NEAR, _FOUND = "object near the line", "found inside"
EFFECT = "effect"  # of the counts: pixels by which a probe finds something; the side with most of them is shown
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
      painted: `[2,B,*n,C]`, both with what the other lacks painted over.
    """

    images: jax.Array
    labels: jax.Array
    moves: jax.Array
    near: jax.Array
    rest: jax.Array
    first: jax.Array
    painted: jax.Array

    def matched(self, classes: jax.Array) -> jax.Array:
        """Class maps `[2,B,*n]` of a pair of windows -> with every pixel where the second has it."""
        inside, at_border = classes
        return jnp.stack([jax.vmap(_moved)(inside, self.moves), at_border])

    def recalled(self, inside: jax.Array) -> dict[str, jax.Array]:
        """Of class maps `[B,*n]` of the first window: pixels of the object near the line, and those found, `[B]`."""
        object_near, axes = (self.labels[1] > 0) & self.near, range(1, self.near.ndim)
        found = object_near & (jax.vmap(_moved)(inside, self.moves) > 0)
        return {_NEAR: jnp.sum(object_near, axes), _FOUND: jnp.sum(found, axes)}


@dataclasses.dataclass(frozen=True)
class Windows:
    """How windows are cut from images.

    Attributes:
      sizes: of the images, `*n`.
      width: pixels that are near the line.
      quarters: of the image's sides that windows are long, 2 or 3.
    """

    sizes: tuple[int, ...]
    width: int
    quarters: int = _QUARTERS[0]

    @property
    def axes(self) -> tuple[bool, ...]:
        """Along which axes there is room for a line inside a window, at least twice as far from its border as near."""
        lengths = [n * self.quarters // 4 for n in self.sizes]
        return tuple(
            n > 1 and n // 4 * n // length >= 2 * self.width for n, length in zip(self.sizes, lengths, strict=True)
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of a window along the axes."""
        return tuple(n * self.quarters // 4 if there else n for n, there in zip(self.sizes, self.axes, strict=True))

    @property
    def sides(self) -> tuple[int, ...]:
        """The numbers in `SIDES` of those at which images are cut."""
        there = self.axes[::-1]
        return tuple(side for side in range(2 * len(self.sizes)) if there[side // 2])

    def uncut(self, cut: np.ndarray) -> str:
        """The sides at which no object was cut, of `Asked.cut`, in words; empty where there is none."""
        names = [SIDES[side] for side, one in zip(self.sides, cut, strict=True) if not one.any()]
        return f"No object could be cut at: {', '.join(names)}. Of these sides nothing is said." if names else ""

    @property
    def length(self) -> str:
        """Of a window, in words."""
        return f"{_IN_WORDS[self.quarters]} the side"

    def __str__(self) -> str:
        part = _IN_WORDS[self.quarters].removesuffix(" of")
        if len(self.sizes) == 2:
            what, line, sides = f"an image, {part} as wide and high", "line", "four"
        else:
            whole = all(self.axes)
            what = f"a volume, {part} as long along {'every axis' if whole else 'its two longest axes'}"
            line, sides = "plane", "six" if whole else "four"
        return (
            f"two windows of {what}, enlarged to its size; a {line} through the object lies inside the one and is the "
            f"border of the other, along each of {sides} sides in turn"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What was answered of all windows.

    Attributes:
      counts: of all sides together, `{name: [N,...]}`.
      show: `cases [E] -> pairs`: of some of the cases pictures, cut where the effect is largest.
      windows: that were cut.
      cut: bool `[S,N]`, where an object was near the line at each of `windows.sides`.
    """

    counts: dict[str, np.ndarray]
    show: Callable[[np.ndarray], pictures.Pairs]
    windows: Windows
    cut: np.ndarray

    @property
    def recall(self) -> float:
        """Of the object near the line, with the border far away: mean over cases; NaN where no object was cut."""
        there = self.counts[_NEAR]
        found = self.counts[_FOUND][there > 0] / there[there > 0]
        return float(found.mean()) if len(found) else math.nan


def near_border(windows: Windows) -> np.ndarray:
    """The pixels of an image that are so near its border, bool `[*n]`; only along axes that are cut."""
    apart = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in windows.sizes]
    ends = [(one < windows.width) & there for one, there in zip(apart, windows.axes, strict=True)]
    return np.logical_or.reduce(np.meshgrid(*ends, indexing="ij"))


def ask(
    subject: Subject, question: Callable[[Network, Seen, Cut], Told], settings: Settings, *, with_lines: bool = False
) -> Asked:
    """Asks of the windows of all test cases at every side, one side after the other.

    Windows are as small as the network can do with: of the first in which it finds `least_recall` of the object, or of
    those in which it finds most.

    Args:
      subject: the network and its cases.
      question: `(network, cases, their windows) -> counts, what is shown`; among the counts those of `Cut.recalled`,
        and `EFFECT`.
      settings: what is near, and what is found.
      with_lines: what is shown are the two windows, whose line is drawn.

    Raises:
      NotAskedError: the cases are too small for windows, or no object lies where they can cut it.
    """
    width, asked = strip_width(subject, settings.border_share), []
    for quarters in _QUARTERS:
        windows = Windows(subject.sides, width, quarters)
        if windows.sides:
            asked.append(_ask(subject, question, windows, with_lines=with_lines))
            if asked[-1].recall >= settings.least_recall:
                break
    if not asked:
        raise NotAskedError(f"cases of {size_text(subject.sides)} px are too small for windows of half their side")
    with_object = [one for one in asked if not math.isnan(one.recall)]
    if not with_object:
        raise NotAskedError("no object lies where a window's border could cut it")
    return max(with_object, key=lambda one: one.recall)


def _ask(
    subject: Subject, question: Callable[[Network, Seen, Cut], Told], windows: Windows, *, with_lines: bool
) -> Asked:
    def of_side(network: Network, seen: Seen) -> dict[str, Any]:
        made = cut(seen["images"], seen["labels"], seen["side"], windows=windows, valid=seen.get("valid"))
        counts, shown = question(network, seen, made)
        told = pictures.told(seen, *(jnp.moveaxis(array, 0, 1) for array in shown))
        if "slices" in told:  # those of the window -> of the volume
            depth, length = subject.sides[0], windows.lengths[0]
            told["slices"] = made.first + (2 * told["slices"] + 1) * length // (2 * depth)
        if with_lines:
            told["moves"] = made.moves[:, -2:]
        return counts | {"pictures": told}

    cases = subject.test
    asked = subject.asks(of_side, batch_size=max(subject.batch_size // 4, 1))  # two windows, twice
    found = [asked(cases, side=np.full(len(cases), place, np.int32)) for place in range(len(windows.sides))]
    # of a volume slices are shown, in which a plane along them is not to be seen
    largest = np.argmax([one[EFFECT] for one in found][: 2 * sum(windows.axes[-2:])], 0)
    show = lambda chosen: pictures.of(asked, cases, chosen, side=largest.astype(np.int32))
    counts = {name: np.sum([one[name] for one in found], 0) for name in found[0]}
    return Asked(counts, show, windows, np.stack([one[_NEAR] > 0 for one in found]))


def cut(
    images: jax.Array, labels: jax.Array, side: jax.Array, *, windows: Windows, valid: jax.Array | None = None
) -> Cut:
    """Cuts windows of every image at the centre of its foreground, or as near it as there is room.

    Args:
      images: `[B,*n,C]`.
      labels: int32 `[B,*n]`; an image without foreground has no windows.
      side: int32 `[B]`, which of `windows.sides`.
      windows: how; `windows.width` pixels of one are near the line, and inside the line lies at least twice as far from
        the border.
      valid: bool `[B,*n]`, the pixels that count; None: all.
    """
    counted = jnp.ones(labels.shape, bool) if valid is None else valid
    at = [functools.partial(_at_side, number, windows) for number in windows.sides]
    of_case = lambda case: jax.lax.switch(case[0], at, *(array[None] for array in case[1:]))
    made = jax.lax.map(of_case, (side, images, labels, counted))  # a branch of its own for every case
    pairs = {name: jnp.moveaxis(getattr(made, name)[:, :, 0], 1, 0) for name in ("images", "labels", "painted")}
    return Cut(*(array[:, 0] for array in made))._replace(**pairs)


def _at_side(side: int, cut_as: Windows, images: jax.Array, labels: jax.Array, valid: jax.Array) -> Cut:
    """All is done at the end of the last axis at which it begins, of images that are turned so, and turned back."""
    rank = labels.ndim - 1
    turn = functools.partial(_turned, side=side, rank=rank)
    image, label, counted = turn(images), turn(labels), turn(valid)
    sizes = label.shape[1:]
    width, lengths = cut_as.width, dataclasses.replace(cut_as, sizes=sizes).lengths
    unit = cut_as.quarters // math.gcd(cut_as.quarters, 4)  # pixels apart, windows are enlarged alike
    ends = [n - length for n, length in zip(sizes, lengths, strict=True)]
    *across, middle = _centre(label > 0)
    line = jnp.minimum(middle, ends[-1])
    about = lambda place, axis: jnp.clip(place - lengths[axis] // 2, 0, ends[axis])
    start, inside = [about(place, axis) for axis, place in enumerate(across)], about(line, rank - 1)
    line = inside + (line - inside) // unit * unit
    shift = (line - inside) * sizes[-1] // lengths[-1]
    shown = [
        [_window(array, (*start, place), lengths) for place in (inside, line)] for array in (image, label, counted)
    ]
    place = jnp.arange(sizes[-1], dtype=jnp.int32).reshape(1, *(1,) * (rank - 1), -1)
    each = lambda values: jnp.expand_dims(values, range(1, rank + 1))
    both = shown[2][1] & each(jnp.any(label > 0, range(1, rank + 1)) & (shift >= 2 * width))
    both &= place < each(sizes[-1] - shift)
    both &= jax.vmap(functools.partial(jnp.roll, axis=-1))(shown[2][0], -shift)
    cut_images, cut_labels = (jnp.stack([turn(one) for one in pair]) for pair in shown[:2])
    moves = jnp.zeros((len(shift), rank), jnp.int32).at[:, rank - 1 - side // 2].set(shift if side % 2 else -shift)
    near, rest = turn(both & (place < width)), turn(both & (place >= width))
    colour = _mean(shown[0][0], shown[2][0] & (shown[1][0] == 0))
    alone = (place < each(shift), place >= each(sizes[-1] - shift))
    painted = [turn(jnp.where(where[..., None], colour, image)) for where, image in zip(alone, shown[0], strict=True)]
    return Cut(cut_images, cut_labels, moves, near, rest, start[0], jnp.stack(painted))


def _mean(images: jax.Array, where: jax.Array) -> jax.Array:
    """Colour of images `[B,*n,C]` over a part of them, bool `[B,*n]`: `[B,*1,C]`."""
    axes, counted = tuple(range(1, where.ndim)), where[..., None]
    total = jnp.sum(jnp.where(counted, images, jnp.zeros_like(images)), axes, keepdims=True)
    return total / jnp.maximum(jnp.sum(counted, axes, keepdims=True), 1).astype(images.dtype)


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
