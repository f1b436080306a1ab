"""Synthetic blood smears: the malaria data set of the study of skip connections.

Wilm et al. 2024, *Rethinking U-net Skip Connections for Biomedical Image Segmentation*, section III.A and figures 2
and 3. One background, three cells and three artifacts are cut from one image; an image of the data set is the
background, turned by a multiple of 90 degrees and stretched to 1500 x 1500, with 1 to 100 cells and three artifacts at
random places. The labels are the thresholded cells at the same places. The templates come from a smear image
(`smear_cut.cut_templates`) or from nothing (`smear_drawn.drawn_templates`).

What the paper leaves open:

- Matter is pasted as absorbance. A template counts as `log(glass / rgb)`, glass being the median colour of the
  background template, and absorbances add up: the image is `background * exp(-sum)` (Beer-Lambert). Cells that lie on
  each other darken, as they do under the microscope; an artifact hides no cell whose label stays; the order does not
  matter; and no patch has a border, because glass absorbs nothing. What surrounds a mask fades within a few
  pixels.
- The centres of cells and artifacts are uniform in the image: every cell is visible, and the border crops some. A
  pixel at the very border is therefore covered half as often as others; the strip is half a cell wide.
- Templates are drawn with replacement. Cells are not turned, as in the paper.
- Low density is 1 to 50 cells, high density 51 to 100. Cases with an even number are of low density, the others of
  high density, so that a data set has the same share of both, and its counts are uniform in 1 to 100.

The shifts of the paper act on finished images and are in `jaxseg.data.shifts`. Only composition can change what takes
up stain: in Giemsa's, red cells are pink and everything else is violet, so a network can tell cells by
colour alone. The option `stain` of `render` takes that shortcut away.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import cv2
import numpy as np

from jaxseg.errors import InputError

Density = Literal["low", "high"]
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two excluded

CANVAS = 1500  # side of the scene in pixels of the templates
COUNTS: Mapping[Density, tuple[int, int]] = MappingProxyType({"low": (1, 50), "high": (51, 100)})  # both ends included
HELD_OUT: Mapping[str, float] = MappingProxyType({"train": 0.8, "test": 0.2})
# class names of BBBC041 and of BCCD
CELL_NAMES = ("red blood cell", "ring", "trophozoite", "schizont", "gametocyte", "RBC")
ARTIFACT_NAMES = ("leukocyte", "difficult", "WBC", "Platelets")

TEMPLATES = 3  # of cells, and of artifacts
_ARTIFACTS = 3  # in an image
FADE = 3  # pixels around a mask over which the rest of the patch fades
_TURNS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
# third word of a seed: one of two words is that of a scene, and 1 that of drawn templates
_SPLITTING = 2


class Patch(NamedTuple):
    """A thing on glass.

    Attributes:
      rgb: uint8 `[h,w,3]`, in colours that fit the background of its `Templates`.
      mask: bool `[h,w]`, the thing; only it is pasted, with a soft edge.
    """

    rgb: np.ndarray
    mask: np.ndarray


class Templates(NamedTuple):
    """What images are composed of.

    Attributes:
      background: uint8 `[h,w,3]` of any size, without cells; it is stretched to `CANVAS` pixels a side.
      cells: patches, pasted pixel by pixel on the canvas, at least one.
      artifacts: patches, likewise.
    """

    background: np.ndarray
    cells: tuple[Patch, ...]
    artifacts: tuple[Patch, ...]


class Scene(NamedTuple):
    """What lies where.

    Attributes:
      turns: by how many times 90 degrees the background is turned, counterclockwise.
      cells: int `[n,3]`: template, row and column of the centre on the canvas.
      artifacts: int `[3,3]`, likewise.
    """

    turns: int
    cells: np.ndarray
    artifacts: np.ndarray


def render(
    seed: int, index: int, size: int, *, templates: Templates, density: Density | None = None, stain: float = 0.0
) -> tuple[np.ndarray, np.ndarray, Scene]:
    """Composes one image of a smear, and the truth about it.

    Every size is the same scene: it is composed at `CANVAS` pixels a side and reduced by averaging over areas.

    Args:
      seed: of the data set.
      index: of the image in it; images are independent and can be drawn in any order.
      size: side of the square image in pixels, up to `CANVAS`; 512 in the paper.
      templates: of the data set.
      density: how many cells, see `COUNTS`; by default `density_of(index)`.
      stain: how far artifacts have the stain of the cells, 0 to 1. At 0 they have the colours of their templates; at 1
        they have the cells' median hue and differ in size, shape, texture and darkness alone. Every pixel keeps its
        mean absorbance over the channels. The scene is the same for every stain.

    Returns:
      image: uint8 `[size,size,3]`, RGB.
      labels: uint8 `[size,size]`, 1 where cells cover at least half of the pixel, 0 elsewhere.
      scene: what was pasted; `len(scene.cells)` is the number of cells.

    Raises:
      ValueError: an impossible size, seed or index, an unknown density, or templates that do not fit together.
      InputError: the stain is not in 0 to 1.

    Source: Wilm et al. 2024, section III.A.
    """
    if not 1 <= size <= CANVAS:
        raise ValueError(f"size is {size}; a scene can be shown with 1 to {CANVAS} pixels a side")
    if not 0 <= stain <= 1:
        raise InputError(f"stain is {stain!r}; it must be a number in 0 to 1")
    _check(templates)
    scene = _draw_scene(
        np.random.default_rng([seed, index]),
        density_of(index) if density is None else density,
        cells=len(templates.cells),
        artifacts=len(templates.artifacts),
    )
    canvas = _stretch(templates.background, scene.turns).astype(np.float32)
    covered = np.zeros((CANVAS, CANVAS), bool)
    glass = glass_of(templates.background)
    cells = [_absorbance(patch, glass) for patch in templates.cells]
    artifacts = [_absorbance(patch, glass) for patch in templates.artifacts]
    if stain:
        hue = _hue(cells, [patch.mask for patch in templates.cells])
        artifacts = [_restained(absorbance, hue, stain) for absorbance in artifacts]
    for absorbances, placed in ((cells, scene.cells), (artifacts, scene.artifacts)):
        transmittances = [np.exp(-absorbance) for absorbance in absorbances]
        for template, row, column in placed:
            at, part = _overlap(transmittances[template].shape, row, column)
            canvas[at] *= transmittances[template][part]
    for template, row, column in scene.cells:
        mask = templates.cells[template].mask
        at, part = _overlap(mask.shape, row, column)
        covered[at] |= mask[part]
    image = np.clip(np.rint(_reduce(canvas, size)), 0, 255).astype(np.uint8)
    # rounding may leave half of a pixel just below a half
    labels = (_reduce(covered.astype(np.float32), size) >= 0.5 - 1e-6).astype(np.uint8)
    return image, labels, scene


def density_of(index: int) -> Density:
    """The density of a case, unless `render` is given another: low for even numbers, high for odd ones."""
    return "high" if index % 2 else "low"


def splits(seed: int, cases: int, *, fractions: Mapping[str, float] = HELD_OUT) -> dict[str, np.ndarray]:
    """Assigns the cases 0 to `cases - 1` at random, with the same share of low and high densities in every split.

    By default 20 % are held out as in Wilm et al. 2024, section III.A. The split named last keeps its cases when those
    before it are divided otherwise: `{"train": 0.7, "validation": 0.1, "test": 0.2}` has the test cases of the default.

    Args:
      seed: of the random draws.
      cases: how many there are; where they are odd, the two densities of a split may differ by one case.
      fractions: of the cases by split, positive, 1 together; rounded to whole cases within each density.

    Returns:
      Case numbers in rising order, int64, by split. Each case is in one split.

    Raises:
      ValueError: fractions that are not shares of one whole.
      InputError: too few cases for every split to have both densities.
    """
    shares = np.array(list(fractions.values()), float)
    if not (shares > 0).all() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions {dict(fractions)} must be positive and sum to 1, not to {shares.sum():g}")
    rng = np.random.default_rng([seed, 0, _SPLITTING])
    held: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for first in range(2):  # even and odd numbers, which are low and high densities
        order = rng.permutation(np.arange(first, cases, 2))
        ends = np.rint(np.cumsum(shares[::-1]) * len(order)).astype(int)
        for name, part in zip(reversed(list(fractions)), np.split(order, ends[:-1]), strict=True):
            if not len(part):
                raise InputError(f"{cases} cases are too few for {name} to have both densities; draw more")
            held[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in held.items()}


def _check(templates: Templates) -> None:
    if not templates.cells or not templates.artifacts:
        raise ValueError(
            f"templates have {len(templates.cells)} cells and {len(templates.artifacts)} artifacts; each needs one"
        )
    check_rgb("the background", templates.background)
    for name, patches in (("cell", templates.cells), ("artifact", templates.artifacts)):
        for i, (rgb, mask) in enumerate(patches):
            check_rgb(f"{name} {i}", rgb)
            if mask.shape != rgb.shape[:2] or mask.dtype != bool or not mask.any():
                raise ValueError(
                    f"the mask of {name} {i} must be bool {rgb.shape[:2]} and not empty, got {mask.dtype}{mask.shape}"
                )


def check_rgb(name: str, image: np.ndarray) -> None:
    """Raises ValueError unless it is uint8 `[h,w,3]`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"{name} must be uint8 [h,w,3], got {image.dtype}{image.shape}")


# Composing.


def _draw_scene(rng: np.random.Generator, density: Density, *, cells: int, artifacts: int) -> Scene:
    if density not in COUNTS:
        raise ValueError(f"density is {density!r}; choose one of {', '.join(COUNTS)}")
    lowest, highest = COUNTS[density]
    turns, count = int(rng.integers(4)), int(rng.integers(lowest, highest + 1))
    draw = lambda number, kinds: np.column_stack(
        [rng.integers(kinds, size=number), rng.integers(CANVAS, size=(number, 2))]
    )
    return Scene(turns, draw(count, cells), draw(_ARTIFACTS, artifacts))


def glass_of(background: np.ndarray) -> np.ndarray:
    """The median colour, `[3]` float32."""
    counts = [cv2.calcHist([background], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    medians = [np.searchsorted(np.cumsum(count), count.sum() / 2) for count in counts]
    return np.maximum(medians, 1).astype(np.float32)


def _absorbance(patch: Patch, glass: np.ndarray) -> np.ndarray:
    """Absorbance above that of glass, `[h,w,3]` float32, fading to zero around the mask.

    It may be negative: in a microscope a cell has a bright rim.
    """
    levels = np.log(np.maximum(np.arange(256, dtype=np.float32), 1))
    grown = cv2.dilate(patch.mask.astype(np.float32), disc(FADE))
    share = cv2.GaussianBlur(grown, (0, 0), FADE / 2)
    return (np.log(glass) - levels[patch.rgb]) * share[..., None]


def _hue(absorbances: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """The usual absorbance of things by channel, `[3]`, relative to its mean over the channels.

    It is the median over the pixels, so that parasites, which are violet like artifacts, do not count.
    """
    pixels = np.concatenate([absorbance[mask] for absorbance, mask in zip(absorbances, masks, strict=True)])
    means = pixels.mean(-1, keepdims=True)
    hue = np.median(pixels / np.maximum(means, 0.02), 0)  # where nothing is absorbed there is no hue
    return hue / hue.mean()


def _restained(absorbance: np.ndarray, hue: np.ndarray, stain: float) -> np.ndarray:
    return (1 - stain) * absorbance + stain * absorbance.mean(-1, keepdims=True) * hue


def _overlap(shape: tuple[int, ...], row: int, column: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where on the canvas a patch with this centre lies, and which part of the patch is on the canvas."""
    starts = row - shape[0] // 2, column - shape[1] // 2
    at = tuple(slice(max(start, 0), min(start + side, CANVAS)) for start, side in zip(starts, shape[:2], strict=True))
    part = tuple(slice(piece.start - start, piece.stop - start) for piece, start in zip(at, starts, strict=True))
    return (at[0], at[1]), (part[0], part[1])


def _stretch(background: np.ndarray, turns: int) -> np.ndarray:
    """Turned counterclockwise, and `CANVAS` pixels a side."""
    turned = background if not turns else cv2.rotate(background, _TURNS[turns - 1])  # np.rot90, four times as fast
    if turned.shape[:2] == (CANVAS, CANVAS):
        return turned
    smaller = min(turned.shape[:2]) < CANVAS
    return cv2.resize(turned, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC if smaller else cv2.INTER_AREA)


def _reduce(canvas: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def disc(radius: int) -> np.ndarray:
    """A structuring element, uint8 `[2r+1,2r+1]`."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def opened(mask: np.ndarray, radius: int) -> np.ndarray:
    """Without what is thinner than a disc, and with dents as round as bumps."""
    kept = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc(radius))
    return cv2.GaussianBlur(kept.astype(np.float32), (0, 0), radius / 2) > 0.5
