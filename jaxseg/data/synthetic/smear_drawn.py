"""Templates of a smear for those without one: drawn after Giemsa-stained thin films.

Everything but noise is absorbance: a field `[h,w]` times a stain's absorbance in each channel.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy import ndimage

from jaxseg.data.synthetic.smear import CANVAS, TEMPLATES, Patch, Templates, glass_of, opened

_DRAWING = 1  # third word of the seed; 2 is that of `smear.splits`
_GLASS = ((212, 214, 203), (226, 218, 222), (214, 206, 216), (232, 226, 214))  # RGB, by lamp and white balance
_EOSIN = np.array((0.12, 0.36, 0.27))  # red cells
_AZURE = np.array((0.60, 0.50, 0.10))  # cytoplasm of parasites
_VIOLET = np.array((0.72, 1.15, 0.22))  # nuclei, platelets
_DEPOSIT = np.array((1.0, 1.3, 0.75))  # precipitated stain
_PIGMENT = np.array((0.55, 0.75, 0.95))  # haemozoin, the brown that parasites make of haemoglobin
_Template = tuple[np.ndarray, np.ndarray]  # absorbance [side,side,3] and mask [side,side]
_Layers = Iterator[tuple[np.ndarray, np.ndarray]]  # amount [side,side] and what it absorbs [3]
_SIDE = 180  # of a drawn patch
_RADIUS = 52.0  # of a red cell, as large as in BBBC041


def drawn_templates(seed: int) -> Templates:
    """Templates for those without a smear, drawn after Giemsa-stained thin films.

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
    glass = glass_of(background)
    eosin = _EOSIN * rng.uniform(0.75, 1.1) * rng.uniform(0.9, 1.1, 3)
    parasites = [_no_parasite, _draw_ring, _draw_trophozoite, _draw_schizont]
    cells = [_draw_cell(rng, eosin, parasites[i]) for i in sorted(rng.choice(4, TEMPLATES, replace=False))]
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


def _draw_cell(rng: np.random.Generator, eosin: np.ndarray, parasite: Callable[..., _Layers]) -> _Template:
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


def _draw_platelets(rng: np.random.Generator) -> _Template:
    place, total = np.full(2, _SIDE / 2), np.zeros((_SIDE, _SIDE, 3))
    for _ in range(rng.integers(1, 4)):
        size = rng.uniform(0.2, 0.34) * _RADIUS
        body = _body(rng, place, size, roughness=0.12, softness=2)
        granules = _grains(rng, place, size / 2, count=9, width=3)
        amount = body * (0.33 + 0.12 * _mottle(rng, 60, _SIDE) + 0.5 * granules)
        total = np.maximum(total, amount[..., None] * _VIOLET)
        place = _beside(rng, place, 1.7 * size)
    return total, _thing(total)


def _draw_deposit(rng: np.random.Generator) -> _Template:
    steps = rng.normal(0, 0.11 * _RADIUS, (rng.integers(25, 60), 2))
    places = np.cumsum(steps, 0)
    places -= (places.min(0) + places.max(0)) / 2
    places = _SIDE / 2 + places * min(1, 0.38 * _SIDE / np.abs(places).max())
    absorbance = _spots(places, np.exp(rng.normal(np.log(2.4), 0.35, len(places))))
    total = (1.2 * np.tanh(absorbance))[..., None] * _DEPOSIT
    return total, _thing(total)


def _draw_remains(rng: np.random.Generator) -> _Template:
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
    """Where four per cent of the light is absorbed, which is just visible."""
    return opened(ndimage.binary_fill_holes(absorbance.mean(-1) > 0.04), 3)


def _blob(rng: np.random.Generator, place: np.ndarray, radius: float, *, roughness: float) -> np.ndarray:
    """Depth inside of a rough circle, `[side,side]`: 1 in its middle, 0 on its outline, negative outside."""
    orders = np.arange(2, 8)
    heights = roughness * rng.standard_normal(orders.size) * (2 / orders) ** 1.4
    phases = rng.uniform(0, 2 * np.pi, orders.size)
    angle = _angle(place)
    ripple = sum(h * np.cos(k * angle + p) for k, h, p in zip(orders, heights, phases, strict=True))
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
