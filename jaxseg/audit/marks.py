"""The pictures of one case: without its marks, and with calipers where they measure nothing.

Marks are strokes that were drawn after the scan. Coloured ones on a gray image are marks wherever they are. White and
gray ones are sought away from the object alone, as bright anatomy can pass for them: what is lost with the object's own
rim is no shortcut.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from jaxseg.audit import levels
from jaxseg.data import overlays, pipeline
from jaxseg.settings import number as bounded
from jaxseg.settings import one_of, share, some_of

BESIDE, REMOVED, SPECKS, OWN = range(4)  # pictures of a case; of every ink, two more
INKS = {
    "yellow": (255, 255, 0),
    "green": (130, 255, 130),
    "white": (255, 255, 255),
    "light gray": (200, 200, 200),
    "gray": (150, 150, 150),
}
MASKS = ("touched", "phantom", "specks", "drawn", "strokes")  # of a case
_DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
_NEARLY = 0.95  # of the largest clear place


@dataclasses.dataclass(frozen=True)
class Look:
    """How marks are recognised, removed and drawn; see configs/audit.py."""

    inks: Sequence[str] = some_of(*INKS)
    chroma: float = bounded(above=0, most=255)
    gray_share: float = share()
    away_share: float = share()
    removal: str = one_of("black", "noise", "bilinear", "fast_marching")
    beside_share: float = share()
    stroke_share: float = share()
    caliper_share: float = share()
    gathered_share: float = share()

    def inks_of(self, channels: int) -> Sequence[str]:
        """Those that can be drawn on images with so many channels."""
        return [ink for ink in self.inks if channels == 3 or len(set(INKS[ink])) == 1]


def gathered(ink: int) -> int:
    """The picture with calipers of an ink, by its place among those drawn, in the middle of an empty place."""
    return OWN + 1 + 2 * ink


def around(ink: int) -> int:
    """The picture with them at the ends of that place."""
    return gathered(ink) + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Marked:
    """The pictures of one case, and where in them is what.

    Attributes:
      images: `[4+2I,*S,C]`, as the case's: with shapes beside the marks filled in, with the marks filled in, and of
        the last with specks of the object at the ends of an empty place, with calipers there in the object's own
        colour, and, for every ink, with calipers in its middle and at its ends.
      marks: bool `[*S]`, as the next: marks.
      touched: what removal filled in, marks or shapes beside them.
      phantom: an outline of the object where it is not.
      specks: where they are.
      drawn: on or near what was inserted, whichever ink.
      strokes: of calipers at the ends.
    """

    images: np.ndarray
    marks: np.ndarray
    touched: np.ndarray
    phantom: np.ndarray
    specks: np.ndarray
    drawn: np.ndarray
    strokes: np.ndarray

    @property
    def masks(self) -> Mapping[str, np.ndarray]:
        """Those that the network's answers are counted by."""
        return {name: getattr(self, name) for name in MASKS}


def mark(case: pipeline.Case, number: int, settings: Look) -> Marked:
    """The pictures of a case.

    Marks are sought and drawn on its gray levels, and within the case: what is padded stays as it is, and so does, to
    the bit, every pixel of a channel that no change touches.

    Args:
      case: as a network is given it, with `scale` unless it is uint8, and `inside` unless it covers its grid.
      number: of the case; styles take turns.
      settings: of marks.
    """
    place, scale, shape = levels.place(case), levels.scale(case), case["labels"].shape
    before = levels.of_case(case)[place]
    valid = case.get("valid", np.ones(shape, bool))
    found = _marked(before, case["labels"][place], valid[place], number, settings)

    def on_grid(array: np.ndarray) -> np.ndarray:
        whole = np.zeros(shape, bool)
        whole[place] = array
        return whole

    images = np.repeat(case["image"][None], len(found.images), 0)
    for whole, after in zip(images, found.images, strict=True):
        new = after if scale is None else scale.values(after).astype(images.dtype)
        whole[place] = np.where(after != before, new, whole[place])
    return Marked(images, on_grid(found.marks), **{name: on_grid(mask) for name, mask in found.masks.items()})


def _marked(image: np.ndarray, labels: np.ndarray, valid: np.ndarray, number: int, settings: Look) -> Marked:
    """Of gray levels uint8 `[*S,C]` that fill their image."""
    side = min(labels.shape)
    marks = found(image, labels, settings)
    region = overlays.removed_region(marks, method=settings.removal) if marks.any() else marks
    fill = lambda mask: overlays.remove(image, mask, method=settings.removal, margin=0) if mask.any() else image
    beside = _beside(region, labels > 0, max(round(settings.beside_share * side), 2))
    clean = fill(region)
    phantom, points = _phantom(clean, labels, valid)
    size = max(round(settings.caliper_share * side), 5)
    speckled, specks = _with_specks(clean, labels > 0, points, size)
    style = overlays.CALIPER_STYLES[number % len(overlays.CALIPER_STYLES)]
    look: dict[str, Any] = {"style": style, "size": size, "thickness": max(round(side / 200), 1)}
    middle = points.mean(0) if len(points) else 0.0
    inner = _covered(clean, middle + settings.gathered_share * (points - middle), look)
    strokes = _covered(clean, points, look)
    own = np.median(image[labels > 0], 0) if len(points) else 0
    pictures = [fill(beside), clean, speckled, np.where(strokes[..., None], own, clean)]
    for ink in settings.inks_of(image.shape[-1]):
        colour = INKS[ink][: image.shape[-1]]
        pictures += [np.where(where[..., None], colour, clean) for where in (inner, strokes)]
    near = max(round(settings.stroke_share * side), 1)
    drawn = overlays.removed_region(specks | inner | strokes, method="bilinear", margin=near)
    images = np.stack(pictures).astype(np.uint8)
    return Marked(images, marks, region | beside, phantom, specks, drawn, strokes)


def _covered(image: np.ndarray, points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    """Where calipers cover an image."""
    return overlays.draw_calipers(image, points, **look)[1]


def found(image: np.ndarray, labels: np.ndarray, settings: Look) -> np.ndarray:
    """The marks of an image, bool `[*S]`.

    Args:
      image: uint8 `[*S,1]` or `[*S,3]`.
      labels: what is not 0 is the object, near which white and gray strokes are left alone.
      settings: of marks.
    """
    strokes = overlays.detect(image, chroma=settings.chroma, gray_share=settings.gray_share)
    near = max(round(settings.away_share * min(labels.shape)), 1)
    away = ~overlays.removed_region(labels > 0, method="bilinear", margin=near)
    if image.shape[-1] != 3:
        return strokes & away
    coloured = image.max(-1).astype(int) - image.min(-1) >= settings.chroma
    return strokes & (coloured | away)


def _moved(mask: np.ndarray, by: Sequence[int]) -> np.ndarray:
    """The mask moved by so many pixels; what leaves the image is lost."""
    moved = np.zeros_like(mask)
    ends = [(max(d, 0), min(n, n + d)) for d, n in zip(by, mask.shape, strict=True)]
    target = tuple(slice(low, high) for low, high in ends)
    source = tuple(slice(low - d, high - d) for (low, high), d in zip(ends, by, strict=True))
    moved[target] = mask[source]
    return moved


def _beside(region: np.ndarray, there: np.ndarray, step: int) -> np.ndarray:
    """The shapes of the marks a step aside, clear of the marks, and on as much of the object as they are."""
    covered = np.count_nonzero(region & there)
    candidates = [_moved(region, (step * y, step * x)) & ~region for y, x in _DIRECTIONS]
    alike = lambda one: np.count_nonzero(one) - abs(np.count_nonzero(one & there) - covered)
    return max(candidates, key=alike)


def _phantom(image: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An outline of the object where it is not, and the ends of its axes `[4,2]`.

    Of the places where nearly as much of it is clear of the object as can be, and counts, the one that looks most like
    it: a network that believes calipers believes them on tissue before it does on black.
    """
    mask, size = labels > 0, min(labels.shape)
    if not mask.any():
        return np.zeros_like(mask), np.zeros((0, 2))
    moves = [(y * step, x * step) for y, x in _DIRECTIONS for step in (size // 4, 3 * size // 8)]
    clear = [_moved(mask, by) & ~mask & valid for by in moves]
    enough = _NEARLY * max(map(np.count_nonzero, clear))
    level = image.astype(float).mean(-1)
    unlike = [
        abs(level[one].mean() - level[mask].mean()) if one.any() and np.count_nonzero(one) >= enough else np.inf
        for one in clear
    ]
    best = moves[int(np.argmin(unlike))]
    return _moved(mask, best), np.concatenate(overlays.ellipse_axes(mask)) + best


def _with_specks(image: np.ndarray, there: np.ndarray, points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of the object's inside at every point, as large as a mark, and where these are.

    What a network makes of a bit of the object at these places, it does not make of a mark.
    """
    specked, where = image.copy(), np.zeros(there.shape, bool)
    if not len(points):
        return specked, where
    depth = ndimage.distance_transform_cdt(np.pad(there, 1), "chessboard")[1:-1, 1:-1]
    middle = np.unravel_index(depth.argmax(), depth.shape)
    arm = size // 2
    reach = min(arm, int(depth.max()) - 1)
    aside = np.arange(-arm, arm + 1)
    for point in np.rint(points).astype(int):
        y, x = (at + aside for at in point)
        y, x = (np.array([v for v in of if 0 <= v < n], int) for of, n in zip((y, x), there.shape, strict=True))
        # a small object is repeated
        sy, sx = (
            m + (of - at + reach) % (2 * reach + 1) - reach for m, of, at in zip(middle, (y, x), point, strict=True)
        )
        specked[np.ix_(y, x)] = image[np.ix_(sy, sx)]
        where[np.ix_(y, x)] = True
    return specked, where
