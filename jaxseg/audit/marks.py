"""The pictures of one case with its marks, without them, and with calipers where they measure nothing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxseg.audit import levels
from jaxseg.data import overlays, pipeline
from jaxseg.errors import InputError
from jaxseg.settings import number as bounded
from jaxseg.settings import one_of, share

AS_IS, BESIDE, REMOVED, GATHERED, AROUND = range(5)  # pictures of a case
_DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


@dataclasses.dataclass(frozen=True)
class Look:
    """How marks are recognised, removed and drawn; see configs/audit.py."""

    colours: Sequence[Sequence[int]]
    chroma: float = bounded(above=0, most=255)
    gray_share: float = share()
    removal: str = one_of("black", "noise", "bilinear", "fast_marching")
    beside_share: float = share()
    stroke_share: float = share()
    caliper_share: float = share()
    gathered_share: float = share()

    def __post_init__(self) -> None:
        colours = self.colours
        if not colours or not all(len(one) == 3 and all(0 <= v <= 255 for v in one) for one in colours):
            raise InputError(f"config.colours is {colours!r}; give (red, green, blue) from 0 to 255, once or more")


@dataclasses.dataclass(frozen=True, eq=False)
class Marked:
    """The pictures of one case.

    Attributes:
      images: `[5,*S,C]`, as the case's: as it is, with shapes beside the marks filled in, with the marks filled in, and
        of the last with calipers in the middle of the phantom and around it.
      marks: bool `[*S]`, as the next: the coloured marks.
      touched: what removal filled in, marks or shapes beside them.
      drawn: on or near inserted strokes.
      phantom: an outline of the object where it is not.
    """

    images: np.ndarray
    marks: np.ndarray
    touched: np.ndarray
    drawn: np.ndarray
    phantom: np.ndarray


def mark(case: pipeline.Case, number: int, settings: Look) -> Marked:
    """The pictures of a case.

    Marks are sought and drawn on its gray levels, and within the case: what is padded stays as it is, and so does, to
    the bit, every pixel of a channel that no change touches.

    Args:
      case: as a network is given it, with `scale` unless it is uint8, and `inside` unless it covers its grid.
      number: of the case; colours and styles take turns.
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
    return Marked(images, *map(on_grid, (found.marks, found.touched, found.drawn, found.phantom)))


def _marked(image: np.ndarray, labels: np.ndarray, valid: np.ndarray, number: int, settings: Look) -> Marked:
    """Of gray levels uint8 `[*S,C]` that fill their image."""
    side = min(labels.shape)
    marks = _coloured(image, settings)
    region = overlays.removed_region(marks, method=settings.removal) if marks.any() else marks
    fill = lambda mask: overlays.remove(image, mask, method=settings.removal, margin=0) if mask.any() else image
    beside = _beside(region, max(round(settings.beside_share * side), 2))
    clean = fill(region)
    phantom, points = _phantom(labels, valid, side)
    look = _look(number, side, settings)
    around, covered = overlays.draw_calipers(clean, points, **look)
    middle = points.mean(0) if len(points) else 0.0
    gathered, inside = overlays.draw_calipers(clean, middle + settings.gathered_share * (points - middle), **look)
    near = max(round(settings.stroke_share * side), 1)
    drawn = overlays.removed_region(covered | inside, method="bilinear", margin=near)
    return Marked(np.stack([image, fill(beside), clean, gathered, around]), marks, region | beside, drawn, phantom)


def _coloured(image: np.ndarray, settings: Look) -> np.ndarray:
    """The coloured marks of a gray image: bright anatomy can pass for white ones, and its loss is no shortcut."""
    if image.shape[-1] != 3:
        return np.zeros(image.shape[:2], bool)
    chroma = image.max(-1).astype(int) - image.min(-1) >= settings.chroma
    return overlays.detect(image, chroma=settings.chroma, gray_share=settings.gray_share) & chroma


def _look(number: int, size: int, settings: Look) -> dict[str, Any]:
    colours, styles = settings.colours, overlays.CALIPER_STYLES
    return {
        "colour": colours[number % len(colours)],
        "style": styles[number % len(styles)],
        "size": max(round(settings.caliper_share * size), 5),
        "thickness": max(round(size / 200), 1),
    }


def _moved(mask: np.ndarray, by: Sequence[int]) -> np.ndarray:
    """The mask moved by so many pixels; what leaves the image is lost."""
    moved = np.zeros_like(mask)
    ends = [(max(d, 0), min(n, n + d)) for d, n in zip(by, mask.shape, strict=True)]
    target = tuple(slice(low, high) for low, high in ends)
    source = tuple(slice(low - d, high - d) for (low, high), d in zip(ends, by, strict=True))
    moved[target] = mask[source]
    return moved


def _beside(region: np.ndarray, step: int) -> np.ndarray:
    """The shapes of the marks a step aside, in the direction in which most of them lies clear of the marks."""
    candidates = [_moved(region, (step * y, step * x)) & ~region for y, x in _DIRECTIONS]
    return max(candidates, key=np.count_nonzero)


def _phantom(labels: np.ndarray, valid: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An outline of the object where the least of the object is, and most counts, and the ends of its axes `[4,2]`."""
    mask = labels > 0
    if not mask.any():
        return np.zeros_like(mask), np.zeros((0, 2))
    moves = [(y * step, x * step) for y, x in _DIRECTIONS for step in (size // 4, 3 * size // 8)]
    best = max(moves, key=lambda by: np.count_nonzero(_moved(mask, by) & ~mask & valid))
    points = np.concatenate(overlays.ellipse_axes(mask)) + best
    return _moved(mask, best), points
