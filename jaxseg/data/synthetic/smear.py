"""Synthetic blood smears: the malaria data set of the study of skip connections.

Wilm et al. 2024, *Rethinking U-net Skip Connections for Biomedical Image Segmentation*, section III.A and figures 2
and 3. One background, three cells and three artifacts are cut from one image; an image of the data set is the
background, turned by a multiple of 90 degrees and stretched to 1500 x 1500, with 1 to 100 cells and three artifacts at
random places. The labels are the thresholded cells at the same places. The templates come from a smear image
(`cut_templates`) or from nothing (`drawn_templates`).

What the paper leaves open:

- Matter is pasted as absorbance. A template counts as `log(glass / rgb)`, glass being the median colour of the
  background template, and absorbances add up: the image is `background * exp(-sum)` (Beer-Lambert). Cells that lie on
  each other darken, as they do under the microscope; an artifact hides no cell whose label stays; the order does not
  matter; and no patch has a border, because glass absorbs nothing. What else is around a mask fades within a few
  pixels.
- The centres of cells and artifacts are uniform in the image: every cell shows, and the border cuts some of them. A
  pixel at the very border is therefore covered half as often as others; the strip is half a cell wide.
- Templates are drawn with replacement. Cells are not turned, as in the paper.
- Low density is 1 to 50 cells, high density 51 to 100. Cases with an even number are of low density, the others of
  high density, so that a data set has the same share of both, and its counts are uniform in 1 to 100.

The shifts of the paper act on finished images and are in `jaxseg.data.shifts`. What can only be changed in the making
is what stain takes: in Giemsa's, red cells are pink and everything else is violet, so a network can tell cells by
colour alone. The option `stain` of `render` takes that shortcut away.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from jaxseg.errors import InputError

Density = Literal["low", "high"]
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two excluded

CANVAS = 1500  # side of the scene in pixels of the templates
COUNTS: Mapping[Density, tuple[int, int]] = MappingProxyType({"low": (1, 50), "high": (51, 100)})  # both ends included
HELD_OUT: Mapping[str, float] = MappingProxyType({"train": 0.8, "test": 0.2})
# class names of BBBC041 and of BCCD
CELL_NAMES = ("red blood cell", "ring", "trophozoite", "schizont", "gametocyte", "RBC")
ARTIFACT_NAMES = ("leukocyte", "difficult", "WBC", "Platelets")

_TEMPLATES = 3  # of cells, and of artifacts
_ARTIFACTS = 3  # in an image
_FADE = 3  # pixels around a mask in which what else is in the patch fades
_LOOSE = 0.2  # how little an artifact may fill its box: those around platelets are wide
_NOISE = 1.2  # pixels: the Gaussian that takes noise away before a threshold
_TURNS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
# third words of seeds: a seed of two words is that of a scene
_DRAWING, _SPLITTING = 1, 2


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
    """What stands where.

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
      ValueError: a size, seed or index that cannot be, an unknown density, or templates that do not fit together.
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
    glass = _glass(templates.background)
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
    # half of a pixel may come out a rounding error below a half
    labels = (_reduce(covered.astype(np.float32), size) >= 0.5 - 1e-6).astype(np.uint8)
    return image, labels, scene


def density_of(index: int) -> Density:
    """The density of a case, unless `render` is told another: low for even numbers, high for odd ones."""
    return "high" if index % 2 else "low"


def splits(seed: int, cases: int, *, fractions: Mapping[str, float] = HELD_OUT) -> dict[str, np.ndarray]:
    """Deals out the cases 0 to `cases - 1` by chance, with the same share of low and high densities in every split.

    By default 20 % are held out as in Wilm et al. 2024, section III.A. The split named last keeps its cases when those
    before it are divided otherwise: `{"train": 0.7, "validation": 0.1, "test": 0.2}` has the test cases of the default.

    Args:
      seed: of the chance.
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
    _check_rgb("the background", templates.background)
    for name, patches in (("cell", templates.cells), ("artifact", templates.artifacts)):
        for i, (rgb, mask) in enumerate(patches):
            _check_rgb(f"{name} {i}", rgb)
            if mask.shape != rgb.shape[:2] or mask.dtype != bool or not mask.any():
                raise ValueError(
                    f"the mask of {name} {i} must be bool {rgb.shape[:2]} and not empty, got {mask.dtype}{mask.shape}"
                )


def _check_rgb(name: str, image: np.ndarray) -> None:
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


def _glass(background: np.ndarray) -> np.ndarray:
    """The median colour, `[3]` float32."""
    counts = [cv2.calcHist([background], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    medians = [np.searchsorted(np.cumsum(count), count.sum() / 2) for count in counts]
    return np.maximum(medians, 1).astype(np.float32)


def _absorbance(patch: Patch, glass: np.ndarray) -> np.ndarray:
    """Absorbance above that of glass, `[h,w,3]` float32, fading to zero around the mask.

    It may be negative: in a microscope a cell has a bright seam.
    """
    levels = np.log(np.maximum(np.arange(256, dtype=np.float32), 1))
    grown = cv2.dilate(patch.mask.astype(np.float32), _disc(_FADE))
    share = cv2.GaussianBlur(grown, (0, 0), _FADE / 2)
    return (np.log(glass) - levels[patch.rgb]) * share[..., None]


def _hue(absorbances: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """The usual absorbance of things by channel, `[3]`, relative to its mean over the channels.

    It is the median over the pixels, so that parasites, which are violet as artifacts are, do not count.
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


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


# Drawing templates. Everything but noise is absorbance: a field [h,w] times what a stain absorbs of each channel.

_GLASS = ((212, 214, 203), (226, 218, 222), (214, 206, 216), (232, 226, 214))  # RGB, by lamp and white balance
_EOSIN = np.array((0.12, 0.36, 0.27))  # red cells
_AZURE = np.array((0.60, 0.50, 0.10))  # cytoplasm of parasites
_VIOLET = np.array((0.72, 1.15, 0.22))  # nuclei, platelets
_DEPOSIT = np.array((1.0, 1.3, 0.75))  # precipitated stain
_PIGMENT = np.array((0.55, 0.75, 0.95))  # haemozoin, the brown that parasites make of haemoglobin
_Drawn = tuple[np.ndarray, np.ndarray]  # absorbance [side,side,3] and mask [side,side]
_Layers = Iterator[tuple[np.ndarray, np.ndarray]]  # amount [side,side] and what it absorbs [3]
_SIDE = 180  # of a drawn patch
_RADIUS = 52.0  # of a red cell, as large as in BBBC041


def drawn_templates(seed: int) -> Templates:
    """Templates for those who have no smear at hand, drawn after Giemsa-stained thin films.

    The cells are three of these: an uninfected red cell, one with a ring, one with a trophozoite, one with a schizont.
    The artifacts are a clump of platelets, a deposit of stain and the remains of a white cell. Background and
    patches have `CANVAS` and 180 pixels a side; a red cell is about 104 pixels wide, 7 % of the canvas.

    Args:
      seed: of light, stain and shapes.

    Raises:
      ValueError: a negative seed.
    """
    rng = np.random.default_rng([seed, 0, _DRAWING])
    background = _draw_background(rng)
    glass = _glass(background)
    eosin = _EOSIN * rng.uniform(0.75, 1.1) * rng.uniform(0.9, 1.1, 3)
    parasites = [_no_parasite, _draw_ring, _draw_trophozoite, _draw_schizont]
    cells = [_draw_cell(rng, eosin, parasites[i]) for i in sorted(rng.choice(4, _TEMPLATES, replace=False))]
    artifacts = [_draw_platelets(rng), _draw_deposit(rng), _draw_remains(rng)]
    on_glass = lambda drawn: Patch(np.rint(glass * np.exp(-drawn[0])).astype(np.uint8), drawn[1])
    return Templates(background, tuple(map(on_glass, cells)), tuple(map(on_glass, artifacts)))


def _draw_background(rng: np.random.Generator) -> np.ndarray:
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, CANVAS, dtype=np.float32)], indexing="ij")
    middle, slope = rng.uniform(-0.3, 0.3, 2), rng.normal(0, 0.02, 2)
    absorbance = rng.uniform(0.02, 0.06) * ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) + slope[0] * x + slope[1] * y
    absorbance += 0.008 * _mottle(rng, 6, CANVAS) + 0.006 * _mottle(rng, 40, CANVAS)  # plasma dries unevenly
    glass = rng.choice(_GLASS) * rng.uniform(0.97, 1.03)
    noise = 2.5 * rng.standard_normal((CANVAS, CANVAS, 3), dtype=np.float32)
    return np.clip(np.rint(glass * np.exp(-absorbance)[..., None] + noise), 0, 255).astype(np.uint8)


def _draw_cell(rng: np.random.Generator, eosin: np.ndarray, parasite: Callable[..., _Layers]) -> _Drawn:
    radius, middle = _RADIUS * rng.uniform(0.9, 1.08), np.full(2, _SIDE / 2)
    depth = _blob(rng, middle, radius, roughness=0.05)
    pallor = rng.uniform(0.3, 0.75) * np.exp(-(((1 - depth) / rng.uniform(0.35, 0.5)) ** 4))
    rim = 0.12 * np.exp(-(((depth - 0.1) / 0.07) ** 2))
    inside = _edge(depth * radius, 1.6)
    absorbance = inside * (1 - pallor + rim + 0.03 * _mottle(rng, 14, _SIDE))
    absorbance -= 0.08 * np.exp(-(((depth * radius + 4) / 2.5) ** 2))  # light bends around the rim
    total = absorbance[..., None] * eosin
    for layer, absorbed in parasite(rng, middle, radius):
        total = total + (inside * layer)[..., None] * absorbed
    return total, depth > 0


def _no_parasite(rng: np.random.Generator, middle: np.ndarray, radius: float) -> _Layers:
    return iter(())


def _draw_ring(rng: np.random.Generator, middle: np.ndarray, radius: float) -> _Layers:
    place, size = _beside(rng, middle, 0.4 * radius), rng.uniform(0.2, 0.27) * radius
    depth = _blob(rng, place, size, roughness=0.06) * size
    turn = rng.uniform(0, 2 * np.pi)
    thick = 1 + 0.6 * np.cos(_angle(place) - turn)
    yield 0.5 * np.exp(-((depth / (0.055 * radius * thick + 1)) ** 2)), _AZURE
    for shift in (0.0, rng.uniform(0.5, 1.2))[: rng.integers(1, 3)]:
        dot = place + size * np.array([np.sin(turn + np.pi + shift), np.cos(turn + np.pi + shift)])
        yield 0.9 * _body(rng, dot, 0.08 * radius, roughness=0.1, softness=1.2), _VIOLET


def _draw_trophozoite(rng: np.random.Generator, middle: np.ndarray, radius: float) -> _Layers:
    place, size = _beside(rng, middle, 0.25 * radius), rng.uniform(0.4, 0.5) * radius
    body = _body(rng, place, size, roughness=0.22, softness=2)
    vacuole = _body(rng, _beside(rng, place, 0.3 * size), 0.3 * size, roughness=0.1, softness=2)
    yield body * (1 - 0.8 * vacuole) * (0.75 + 0.15 * _mottle(rng, 20, _SIDE)), _AZURE
    yield 0.8 * _body(rng, _beside(rng, place, 0.5 * size), 0.14 * radius, roughness=0.15, softness=1.5), _VIOLET
    yield 0.7 * _grains(rng, place, 0.5 * size, count=int(rng.integers(8, 16)), width=1.8), _PIGMENT


def _draw_schizont(rng: np.random.Generator, middle: np.ndarray, radius: float) -> _Layers:
    yield 0.35 * _body(rng, middle, 0.72 * radius, roughness=0.06, softness=3), _AZURE
    count = rng.integers(10, 17)
    turns = 2.4 * np.arange(count) + rng.uniform(0, 2 * np.pi)  # about the golden angle: evenly over the disc
    for turn, share in zip(turns, np.sqrt((np.arange(count) + 2.5) / (count + 2)), strict=True):
        place = middle + 0.6 * radius * share * np.array([np.sin(turn), np.cos(turn)]) + rng.normal(0, 1.2, 2)
        yield 0.8 * _body(rng, place, rng.uniform(0.085, 0.115) * radius, roughness=0.1, softness=1.3), _VIOLET
    yield 0.8 * _grains(rng, middle, 0.1 * radius, count=12, width=2.0), _PIGMENT


def _draw_platelets(rng: np.random.Generator) -> _Drawn:
    place, total = np.full(2, _SIDE / 2), np.zeros((_SIDE, _SIDE, 3))
    for _ in range(rng.integers(1, 4)):
        size = rng.uniform(0.2, 0.34) * _RADIUS
        body = _body(rng, place, size, roughness=0.12, softness=2)
        granules = _grains(rng, place, size / 2, count=9, width=3)
        amount = body * (0.33 + 0.12 * _mottle(rng, 60, _SIDE) + 0.5 * granules)
        total = np.maximum(total, amount[..., None] * _VIOLET)
        place = _beside(rng, place, 1.7 * size)
    return total, _thing(total)


def _draw_deposit(rng: np.random.Generator) -> _Drawn:
    steps = rng.normal(0, 0.11 * _RADIUS, (rng.integers(25, 60), 2))
    places = np.cumsum(steps, 0)
    places -= (places.min(0) + places.max(0)) / 2
    places = _SIDE / 2 + places * min(1, 0.38 * _SIDE / np.abs(places).max())
    absorbance = _spots(places, np.exp(rng.normal(np.log(2.4), 0.35, len(places))))
    total = (1.2 * np.tanh(absorbance))[..., None] * _DEPOSIT
    return total, _thing(total)


def _draw_remains(rng: np.random.Generator) -> _Drawn:
    middle, total = np.full(2, _SIDE / 2), np.zeros((_SIDE, _SIDE, 3))
    size = rng.uniform(0.9, 1.1) * _RADIUS
    plasm = _body(rng, middle, size, roughness=0.1, softness=5) * (0.75 + 0.3 * _mottle(rng, 24, _SIDE))
    total += 0.5 * plasm[..., None] * (0.5 * _AZURE + 0.5 * _EOSIN)
    lobes, turn = np.zeros((_SIDE, _SIDE)), rng.uniform(0, 2 * np.pi)
    for i in range(rng.integers(2, 5)):
        place = middle + 0.42 * size * np.array([np.sin(turn + 1.3 * i), np.cos(turn + 1.3 * i)])
        lobe = _body(rng, place, rng.uniform(0.32, 0.42) * size, roughness=0.1, softness=2.5)
        lobes = np.maximum(lobes, lobe)
    chromatin = lobes * (0.85 + 0.13 * _mottle(rng, 26, _SIDE))
    total += chromatin[..., None] * _VIOLET
    return total, _thing(total)


def _thing(absorbance: np.ndarray) -> np.ndarray:
    """Where four per cent of the light are gone, which can just be seen."""
    return _opened(ndimage.binary_fill_holes(absorbance.mean(-1) > 0.04), 3)


def _blob(rng: np.random.Generator, place: np.ndarray, radius: float, *, roughness: float) -> np.ndarray:
    """Depth inside of a rough circle, `[side,side]`: 1 in its middle, 0 on its outline, negative outside."""
    orders = np.arange(2, 8)
    heights = roughness * rng.standard_normal(orders.size) * (2 / orders) ** 1.4
    phases = rng.uniform(0, 2 * np.pi, orders.size)
    ripple = sum(h * np.cos(k * _angle(place) + p) for k, h, p in zip(orders, heights, phases, strict=True))
    row, column = _offsets(place)
    return 1 - np.hypot(row, column) / (radius * np.exp(ripple))


def _body(
    rng: np.random.Generator, place: np.ndarray, radius: float, *, roughness: float, softness: float
) -> np.ndarray:
    """A rough disc, 1 inside and 0 outside, with a soft edge."""
    return _edge(_blob(rng, place, radius, roughness=roughness) * radius, softness)


def _edge(depth: np.ndarray, softness: float) -> np.ndarray:
    """From 0 outside to 1 inside; depth and softness in pixels."""
    return 0.5 + 0.5 * np.tanh(depth / softness)


def _grains(rng: np.random.Generator, place: np.ndarray, spread: float, *, count: int, width: float) -> np.ndarray:
    return np.minimum(_spots(place + rng.normal(0, spread, (count, 2)), np.full(count, width)), 1.5)


def _spots(places: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Sum of round Gaussian spots of height 1."""
    axis = np.arange(_SIDE)[:, None]
    down, across = (np.exp(-0.5 * ((axis - places[:, i]) / widths) ** 2) for i in range(2))
    return down @ across.T


def _mottle(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """Smooth noise from a lattice of `cells` a side."""
    return cv2.resize(
        rng.standard_normal((cells, cells)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )


def _beside(rng: np.random.Generator, place: np.ndarray, distance: float) -> np.ndarray:
    turn = rng.uniform(0, 2 * np.pi)
    return place + distance * np.array([np.sin(turn), np.cos(turn)])


def _offsets(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(_SIDE)
    return axis[:, None] - place[0], axis - place[1]


def _angle(place: np.ndarray) -> np.ndarray:
    return np.arctan2(*_offsets(place))


# Cutting templates out of an image.


def cut_templates(
    image: np.ndarray,
    boxes: ArrayLike,
    names: Sequence[str],
    *,
    cell_names: Collection[str] = CELL_NAMES,
    artifact_names: Collection[str] = ARTIFACT_NAMES,
) -> Templates:
    """Cuts three cells, three artifacts and the background out of one annotated image of a smear.

    The light is evened out first: patches have the colours that they would have on the glass of the background. Masks
    are thresholds of the green channel, which haemoglobin and Giemsa's stain both absorb, with holes filled: a red cell
    can be as pale as glass in its middle. For cells it is Otsu's threshold of the box. For artifacts, where it would
    part the nucleus from the rest of a white cell, it is six times the spread of the glass (5 % at least).

    Cells are whole and convex, and at most a quarter of their outline touches other things: in crowded smears nearly
    all do. The three that touch least are taken. Artifacts are, in this order until there are three: annotated ones
    that are whole; nuclei or lobes of annotated white cells (Otsu's threshold of the red channel, which red cells
    hardly absorb); things in no box that are smaller than a quarter of a cell, such as platelets, which BBBC041 does
    not annotate.

    The background is the largest square without any thing, if its side is a quarter of the image's shorter side or
    more. Otherwise it is the light alone: a quadratic surface fitted to the glass. Had the boxes of the image been
    filled with it, their outlines would show as cells that no label mentions. Either is smoother than the cells, the
    square because it is enlarged, which the paper does as well; networks may see that.

    Args:
      image: uint8 `[H,W,3]`, RGB.
      boxes: `[N,4]` integer pixels, (top, left, bottom, right), the last two excluded; parts outside are ignored.
      names: `[N]`, the classes.
      cell_names: classes that are cells.
      artifact_names: classes that are artifacts; other classes are neither, and keep distance.

    Raises:
      ValueError: arrays of another type or shape.
      InputError: too few cells or artifacts can be cut out, a box is not in the image, or the image shows no glass.
    """
    _check_rgb("the image", image)
    corners = _clipped(np.asarray(boxes), names, *image.shape[:2])
    things = _absorbing(image[..., 1])
    taken = cv2.dilate(things.astype(np.uint8), _disc(2 * _FADE)) > 0
    for top, left, bottom, right in corners:
        taken[top:bottom, left:right] = True
    light = _fit_light(image, ~taken)
    background = _cut_background(image, light, taken)
    even = np.clip(np.rint(image / light * _glass(background)), 0, 255).astype(np.uint8)
    dark = _darker_than_glass(image[..., 1] / light[..., 1], ~taken)
    is_cell = np.array([name in cell_names for name in names], bool)
    is_artifact = np.array([name in artifact_names for name in names], bool)
    cells = _first_three(_cut_cells(even, corners[is_cell]), "whole cells that touch no others")
    mean_area = float(np.mean([cell.mask.sum() for cell in cells]))
    artifacts = itertools.chain(
        _cut_artifacts(even, dark, corners[is_artifact]),
        itertools.chain.from_iterable(_cut_nuclei(even, box) for box in _largest_first(corners[is_artifact])),
        _cut_unnamed(even, dark, corners[is_artifact], corners[~is_artifact], mean_area / 4),
    )
    return Templates(background, cells, _first_three(artifacts, "artifacts that are whole and touch nothing"))


def _clipped(boxes: np.ndarray, names: Sequence[str], height: int, width: int) -> np.ndarray:
    """The parts of boxes that are in the image, `[N,4]` int."""
    if boxes.shape != (len(names), 4):
        raise ValueError(f"boxes {boxes.shape} and {len(names)} names must be [N,4] and N")
    clipped = np.clip(boxes, 0, (height, width, height, width)).astype(int)
    for name, box, (top, left, bottom, right) in zip(names, boxes.tolist(), clipped, strict=True):
        if top >= bottom or left >= right:
            raise InputError(f"the box {tuple(box)} of a {name} is empty or outside of the {height} x {width} image")
    return clipped


def _largest_first(boxes: np.ndarray) -> np.ndarray:
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return boxes[np.argsort(-areas, kind="stable")]


def _first_three(patches: Iterable[Patch], what: str) -> tuple[Patch, ...]:
    found = tuple(itertools.islice(patches, _TEMPLATES))
    if len(found) < _TEMPLATES:
        raise InputError(f"the image has {len(found)} {what}, and {_TEMPLATES} are needed; choose another image")
    return found


def _absorbing(levels: np.ndarray, part: tuple[slice, slice] = np.s_[:, :]) -> np.ndarray:
    """Where one channel, uint8 `[h,w]`, is below Otsu's threshold of a part of it.

    It is smoothed first, so that noise does not fray outlines.
    """
    smooth = cv2.GaussianBlur(levels, (0, 0), _NOISE)
    threshold, _ = cv2.threshold(np.ascontiguousarray(smooth[part]), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return smooth <= threshold


def _fit_light(image: np.ndarray, free: np.ndarray) -> np.ndarray:
    """A quadratic surface through the glass by channel, `[H,W,3]`."""
    if np.count_nonzero(free) < 0.02 * free.size:
        raise InputError("the image shows hardly any glass between its cells; choose another image")
    rows, columns = (np.linspace(-1, 1, side) for side in free.shape)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    coefficients = np.linalg.lstsq(terms[free], image[free].astype(float), rcond=None)[0]
    return np.clip(terms @ coefficients, 1, 255)


def _darker_than_glass(transmittance: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Where what the green channel lets through differs from glass, `[H,W]`."""
    spread = 1.4826 * np.median(np.abs(transmittance[free] - 1))  # the standard deviation, if it were Gaussian
    return cv2.GaussianBlur(transmittance, (0, 0), _NOISE) < 1 - max(6 * spread, 0.05)


def _cut_background(image: np.ndarray, light: np.ndarray, taken: np.ndarray) -> np.ndarray:
    # in the chessboard metric a pixel's distance from things and the border is half the side of its free square
    distance = cv2.distanceTransform(np.pad(~taken, 1).astype(np.uint8), cv2.DIST_C, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(np.argmax(distance), distance.shape)
    reach = int(distance[row, column]) - 1
    if 2 * reach + 1 < min(taken.shape) / 4:
        return np.rint(light).astype(np.uint8)
    return image[row - reach : row + reach + 1, column - reach : column + reach + 1].copy()


def _cut_cells(image: np.ndarray, boxes: np.ndarray) -> Iterator[Patch]:
    """Cells that are good templates, those that touch least first; none twice, as boxes may be."""
    found = []
    for box in boxes:
        rgb, within = _crop(image, box)
        things = _absorbing(rgb[..., 1], _near(within))
        cut = _cut_whole(rgb, things, within, fill=0.6)
        if cut and cut.convexity > 0.93:
            found.append((cut, box))
    taken: list[np.ndarray] = []
    for cut, box in sorted(found, key=lambda pair: pair[0].contact):
        if not any(_overlap_of_boxes(box, other) > 0.3 for other in taken):
            taken.append(box)
            yield cut.patch


def _cut_artifacts(image: np.ndarray, dark: np.ndarray, boxes: np.ndarray) -> Iterator[Patch]:
    for box in boxes:
        rgb, within = _crop(image, box)
        cut = _cut_whole(rgb, _crop(dark, box)[0], within, fill=_LOOSE)
        if cut:
            yield cut.patch


class _Cut(NamedTuple):
    patch: Patch
    contact: float  # share of the outline that touches other things
    convexity: float  # area by that of the convex hull


def _cut_whole(rgb: np.ndarray, things: np.ndarray, within: Box, *, fill: float) -> _Cut | None:
    """The thing in a box.

    None where more than a quarter of its outline touches others, where the image's border cuts it, or where its own box
    and the given one share too little.

    Args:
      rgb: `[h,w,3]`, the surroundings of the box.
      things: bool `[h,w]`.
      within: the box in these arrays.
      fill: intersection over union of the two boxes.
    """
    top, left, bottom, right = within
    things = ndimage.binary_fill_holes(things)
    height, width = bottom - top, right - left
    boxed = np.zeros_like(things)
    boxed[_near(within)] = things[_near(within)]
    # opening breaks the bridges to neighbours
    components, count = ndimage.label(_opened(boxed, max(1, round(0.08 * min(height, width)))))
    middle = components[top + height // 4 : bottom - height // 4, left + width // 4 : right - width // 4]
    areas = np.bincount(middle.ravel(), minlength=count + 1)[1:]
    if not areas.any():
        return None
    mask = components == 1 + np.argmax(areas)
    if _touches_border(mask) or _overlap_of_boxes(_bounds(mask), within) < fill:
        return None
    outline = mask & ~ndimage.binary_erosion(mask)
    others = things & ~ndimage.binary_dilation(mask, iterations=2)
    touched = ndimage.binary_dilation(others, iterations=3) & outline
    contact = np.count_nonzero(touched) / np.count_nonzero(outline)
    return _Cut(Patch(rgb, mask), contact, _convexity(mask)) if contact <= 0.25 else None


def _convexity(mask: np.ndarray) -> float:
    """Area by that of the convex hull."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    return cv2.contourArea(outline) / max(cv2.contourArea(cv2.convexHull(outline)), 1)


def _cut_nuclei(image: np.ndarray, box: np.ndarray) -> Iterator[Patch]:
    """The lobes of the nucleus of a white cell, or the whole where it has none, largest first."""
    top, left, bottom, right = box
    nucleus = _absorbing(image[top:bottom, left:right, 0])
    cuts = []
    for share in (0.02, 0.05, 0.08, 0.11):
        parts = _opened(nucleus, max(1, round(share * min(nucleus.shape))))
        limits = {"least": 0.02 * nucleus.size, "most": 0.5 * nucleus.size}
        cuts.append([patch for patch, _ in _cut_parts(image, parts, (top, left), **limits)])
    yield from next((lobes for lobes in cuts if len(lobes) > 1), cuts[0])


def _cut_unnamed(
    image: np.ndarray, dark: np.ndarray, artifacts: np.ndarray, others: np.ndarray, most: float
) -> Iterator[Patch]:
    """Things of at most `most` pixels that touch no box but artifacts' and have none of their own, largest first."""
    components, _ = ndimage.label(ndimage.binary_fill_holes(dark))
    boxed = [components[top:bottom, left:right].ravel() for top, left, bottom, right in others]
    touching = np.unique(np.concatenate([[0], *boxed]))
    small = _opened(np.isin(components, touching, invert=True), 1)
    for patch, box in _cut_parts(image, small, (0, 0), least=most / 16, most=most):
        if not any(_overlap_of_boxes(box, artifact) > _LOOSE for artifact in artifacts):
            yield patch


def _cut_parts(
    image: np.ndarray, parts: np.ndarray, corner: tuple[int, int], *, least: float, most: float
) -> Iterator[tuple[Patch, Box]]:
    """Connected parts with areas in `least` to `most` that do not touch the border, and their boxes, largest first.

    Args:
      image: `[H,W,3]`.
      parts: `[h,w]`.
      corner: of `parts` in the image.
      least: in pixels.
      most: in pixels.
    """
    components, count = ndimage.label(parts)
    areas = np.bincount(components.ravel(), minlength=count + 1)
    for number in 1 + np.argsort(-areas[1:], kind="stable"):
        if not least <= areas[number] <= most:
            continue
        part = components == number
        if _touches_border(part):
            continue
        whole = np.zeros(image.shape[:2], bool)
        whole[corner[0] : corner[0] + part.shape[0], corner[1] : corner[1] + part.shape[1]] = part
        box = _bounds(whole)
        yield Patch(_crop(image, box)[0], _crop(whole, box)[0]), box


def _crop(image: np.ndarray, box: Box | np.ndarray) -> tuple[np.ndarray, Box]:
    """A copy of the box and a margin around it, and the box within the copy."""
    top, left, bottom, right = (int(side) for side in box)
    margin = max(2 * _FADE, round(0.12 * max(bottom - top, right - left)))
    first_row, first_column = max(top - margin, 0), max(left - margin, 0)
    crop = image[first_row : bottom + margin, first_column : right + margin].copy()
    return crop, (top - first_row, left - first_column, bottom - first_row, right - first_column)


def _near(box: Box) -> tuple[slice, slice]:
    top, left, bottom, right = box
    return slice(max(top - _FADE, 0), bottom + _FADE), slice(max(left - _FADE, 0), right + _FADE)


def _opened(mask: np.ndarray, radius: int) -> np.ndarray:
    """Without what is thinner than a disc, and with dents as round as bumps."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disc(radius))
    return cv2.GaussianBlur(opened.astype(np.float32), (0, 0), radius / 2) > 0.5


def _touches_border(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _bounds(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _overlap_of_boxes(one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray) -> float:
    """Intersection over union."""
    top, left = max(one[0], other[0]), max(one[1], other[1])
    bottom, right = min(one[2], other[2]), min(one[3], other[3])
    shared = max(bottom - top, 0) * max(right - left, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)
