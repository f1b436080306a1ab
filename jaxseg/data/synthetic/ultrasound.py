"""Synthetic fetal ultrasound with known organs, for the study of the caliper shortcut.

Lin, Weng et al. 2024, *Shortcut Learning in Medical Image Segmentation*, section 3: sonographers freeze an image, write
the plane's name on it and measure the organ with calipers, so a network that is trained on such images can rely on the
marks and fails on images without. Here every image exists with and without marks: `render` draws the same scene to the
bit, whatever is written on it, and `clip` is the frozen frame on which the marks appear one by one.

`difficulty` sets how much a network needs the marks: it fades the organ's outline and inner anatomy, casts shadows on
it and puts look-alikes next to it. The geometry of the scan is the same for all planes, so the plane can be told by the
anatomy or by the marks, and by nothing else.

The image is made as a curved array makes it. Matter has a level of backscatter, reflections and a loss, in decibels, on
a grid of beams and depths; complex Gaussian noise under a point spread function of constant angular width turns it into
fully developed speckle (Rayleigh amplitudes that widen with depth); the summed loss makes shadows behind bone and
brightness behind fluid; a logarithm compresses what is then mapped from the fan to pixels. The scene lives in units of
the scan's depth, with the arcs' common centre as the origin, x to the right and y away from the probe, so that any size
shows the same scene.
"""

import copy
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.data import overlays

PLANES = ("head", "abdomen", "femur", "cervix")
CLASS_NAMES = ("background", *PLANES)

_DEPTHS, _BEAMS = 256, 160  # of the polar grid
_FINE = 256  # pixels a side, at least, at which the fan is sampled before it is averaged down
_SCENE, _MARKS = 0, 1  # streams of random numbers, so that marks do not change the scene

# Backscatter in decibels below white.
_FLUID, _BRAIN, _SOFT, _LIVER, _PLACENTA, _WALL, _BONE = -68.0, -41.0, -37.0, -32.0, -29.0, -27.0, -12.0


class Frame(NamedTuple):
    """An image and its ground truth.

    Attributes:
      image: uint8 `[S,S,3]`, with marks if there are any.
      clean: uint8 `[S,S,3]`, without. The machine's own legend, gray in the upper left corner, is on both: it was there
        before the image was frozen, and is not a mark.
      labels: uint8 `[S,S]`: the organ has the class number of its plane in `CLASS_NAMES`, all else is 0.
      overlay: bool `[S,S]`, where a mark covers the image, if only in part.
      plane: one of `PLANES`.
      points: `[P,2]`, (y, x) in pixels with 0 at the centre of the first one: where the organ is measured. The ends of
        the long axis, and of head and abdomen also those of the short axis.
      spacing: centimetres from pixel to pixel.
      source: the seed and the index.
    """

    image: np.ndarray
    clean: np.ndarray
    labels: np.ndarray
    overlay: np.ndarray
    plane: str
    points: np.ndarray
    spacing: float
    source: tuple[int, int]


def render(
    seed: int,
    index: int,
    size: int,
    *,
    plane: str | None = None,
    calipers: bool = True,
    text: bool = True,
    text_of: str | None = None,
    difficulty: float = 0.2,
) -> Frame:
    """Draws one scan of a standard plane, and the truth about it.

    The same `(seed, index)` at another size is the same scene. Other marks leave `clean`, `labels` and `points` as they
    are to the bit, another difficulty leaves `labels` and `points`.

    Args:
      seed: of the data set.
      index: of the image in it; images are independent and can be drawn in any order.
      size: side of the square image in pixels.
      plane: one of `PLANES`; by default it is drawn.
      calipers: whether the measured ends are marked.
      text: whether the plane's name and the measured values are written.
      text_of: the plane whose name and measures are written; by default the image's own, as in clinics.
      difficulty: 0 to 1. At 0 the organ stands out and is alone; at 1 its outline and inner anatomy are almost gone,
        partly in shadow, and look-alikes are brighter than the organ, so that little but the marks shows where it is.

    Raises:
      ValueError: `size` is not positive, `seed` or `index` is negative, `difficulty` is not in 0 to 1, or there is no
        such plane.

    Source: Lin, Weng et al. 2024, section 3.
    """
    if size < 1:
        raise ValueError(f"size is {size}, but an image needs at least one pixel a side")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty is {difficulty}, but it must be in 0 to 1")
    rng = np.random.default_rng([seed, index, _SCENE])
    drawn = PLANES[rng.integers(len(PLANES))]
    plane = drawn if plane is None else _known(plane)
    fan = _draw_fan(rng)
    depth_in_cm = rng.uniform(*_DEPTH_IN_CM[plane])
    organ = _draw_organ(rng, plane, fan)
    gray = _scan(rng, plane, organ, fan, difficulty)
    clean = _draw_legend(_to_pixels(gray, fan, size), seed, index)
    x, y = fan.pixels(size)
    inside = fan.holds(x, y) & (organ.depth(*organ.local(x, y)) > 0)
    frame = Frame(
        image=clean,
        clean=clean,
        labels=(CLASS_NAMES.index(plane) * inside).astype(np.uint8),
        overlay=np.zeros((size, size), bool),
        plane=plane,
        points=fan.to_image(*organ.ends(), size),
        spacing=float(depth_in_cm * fan.side / size),
        source=(seed, index),
    )
    return annotate(frame, calipers=None if calipers else 0, name=text, values=text, text_of=text_of)


def annotate(
    frame: Frame,
    *,
    calipers: int | None = None,
    name: bool = True,
    values: bool = True,
    text_of: str | None = None,
    points: np.ndarray | None = None,
) -> Frame:
    """The frame with these marks on its clean image, and no others.

    The places of the texts, their colours and the calipers' style belong to the machine, which is a function of the
    frame's source and knows nothing of the plane. Sizes of marks follow the image's.

    Args:
      frame: as `render` gives it.
      calipers: how many of the measured ends are marked, in the order of `points`; by default all.
      name: whether the plane's name is written.
      values: whether the measured values are written.
      text_of: see `render`.
      points: `[P,2]`, (y, x): where the calipers are put and what the values measure; by default the organ's own. The
        ground truth in the frame does not change.

    Raises:
      ValueError: there is no such plane, or there are fewer points than calipers or values ask for.
    """
    written = _known(frame.plane if text_of is None else text_of)
    points = frame.points if points is None else np.asarray(points, float)
    calipers = len(points) if calipers is None else calipers
    if not 0 <= calipers <= len(points) or len(points) not in (2, 4):
        raise ValueError(f"{calipers} calipers cannot be put at {len(points)} points; there must be 2 or 4 points")
    machine = _draw_machine(*frame.source)
    image, overlay = frame.clean, np.zeros_like(frame.overlay)
    if name:
        image, covered = _write(image, _NAMES[written], machine.corners[0], machine.text_colour)
        overlay = overlay | covered
    if calipers:
        image, covered = _put_calipers(image, points[:calipers], machine.caliper_style, machine.caliper_colour)
        overlay = overlay | covered
    if values:
        measured = _values(written, points * frame.spacing)
        image, covered = _write(image, measured, machine.corners[1], machine.text_colour)
        overlay = overlay | covered
    return frame._replace(image=image, overlay=overlay)


def clip(
    seed: int, index: int, size: int, *, plane: str | None = None, frames: int | None = None, difficulty: float = 0.2
) -> tuple[Frame, ...]:
    """A frozen frame while it is annotated: the scan alone, the plane's name, the calipers one by one, the values.

    Args:
      seed: of the data set.
      index: of the image in it.
      size: side of the square image in pixels.
      plane: see `render`.
      frames: how many; by default one for every step, which are 7 of head and abdomen and 5 of femur and cervix.
      difficulty: see `render`.

    Returns:
      Frames of the same scan, the first without marks, the last with all; marks stay once they are written.

    Raises:
      ValueError: fewer than two frames, or as `render`.

    Source: Lin, Weng et al. 2024, section 3.1 and figure 2.
    """
    scan = render(seed, index, size, plane=plane, calipers=False, text=False, difficulty=difficulty)
    last = len(scan.points) + 2
    count = last + 1 if frames is None else frames
    if count < 2:
        raise ValueError(f"frames is {frames}, but a clip needs a first and a last one")
    steps = (round(i * last / (count - 1)) for i in range(count))
    return tuple(
        annotate(scan, calipers=min(max(step - 1, 0), last - 2), name=step > 0, values=step == last) for step in steps
    )


def _known(plane):
    if plane not in PLANES:
        raise ValueError(f"plane is {plane!r}; choose one of {', '.join(PLANES)}")
    return plane


# Marks. What differs between machines never differs between planes.

_NAMES = {"head": "HEAD", "abdomen": "ABDOMEN", "femur": "FEMUR", "cervix": "CERVIX"}
_COLOURS = (255, 255, 0), (255, 210, 70), (130, 255, 130), (255, 255, 255)
_LEGENDS = "C5-1\nMI 1.1", "C1-6\nTIs 0.2", "C9-2\nFR 31", "RAB6\nTIb 0.3"
_LEGEND_COLOUR = (120, 120, 120)


class _Machine(NamedTuple):
    legend: str
    text_colour: tuple[int, int, int]
    caliper_colour: tuple[int, int, int]
    caliper_style: str
    corners: np.ndarray  # of the name and of the values: 1 upper right, 2 lower left, 3 lower right


def _draw_machine(seed, index):
    rng = np.random.default_rng([seed, index, _MARKS])
    text, mark = rng.choice(len(_COLOURS), 2, p=(0.5, 0.2, 0.1, 0.2))
    style = overlays.CALIPER_STYLES[rng.integers(3)]
    return _Machine(
        _LEGENDS[rng.integers(len(_LEGENDS))], _COLOURS[text], _COLOURS[mark], style, 1 + rng.permutation(3)[:2]
    )


def _write(image, text, corner, colour):
    size = len(image)
    height, margin = max(round(0.06 * size), 5), 0.02 * size
    tall, wide = 1.3 * height * (1 + text.count("\n")), _width(text, height)
    place = (margin, size - margin - tall)[corner // 2], (margin, size - margin - wide)[corner % 2]
    return overlays.draw_text(image, text, place, colour=colour, height=height)


@lru_cache(maxsize=256)
def _width(text, height):
    canvas = np.zeros((2 * height * (1 + text.count("\n")), 2 * height * len(text)), np.uint8)
    _, covered = overlays.draw_text(canvas, text, (0, 0), height=height)
    return 1 + int(np.flatnonzero(covered.any(axis=0))[-1])


def _put_calipers(image, points, style, colour):
    size = len(image)
    if style == "dotted" and len(points) % 2:  # the line appears with the second of two
        image, single = _put_calipers(image, points[-1:], "plus", colour)
        image, pairs = _put_calipers(image, points[:-1], style, colour)
        return image, single | pairs
    mark, thickness = max(round(0.06 * size), 5), max(round(size / 200), 1)
    return overlays.draw_calipers(image, points, style=style, colour=colour, size=mark, thickness=thickness)


def _values(plane, points):
    """What a machine prints for calipers at these places, in centimetres."""
    pairs = points.reshape(-1, 2, 2)
    long, *rest = np.hypot(*(pairs[:, 0] - pairs[:, 1]).T)
    short = rest[0] if rest else 0.8 * long  # a name that does not fit two points
    h = ((long - short) / (long + short)) ** 2
    around = math.pi / 2 * (long + short) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))  # Ramanujan's perimeter
    return {
        "head": f"BPD {short:.2f} cm\nOFD {long:.2f} cm\nHC {around:.2f} cm",
        "abdomen": f"APD {short:.2f} cm\nTAD {long:.2f} cm\nAC {around:.2f} cm",
        "femur": f"FL {long:.2f} cm",
        "cervix": f"Cx Length {long:.2f} cm",
    }[plane]


def _draw_legend(image, seed, index):
    """What the machine itself writes, the same on every plane: it is part of the clean image, as on a frozen frame."""
    legend = _draw_machine(seed, index).legend
    return _write(image, legend, 0, _LEGEND_COLOUR)[0]


# Geometry.


class _Fan(NamedTuple):
    near: float  # radius of the probe; the far arc's is 1 more
    half_angle: float

    @property
    def side(self):
        """Of the square image."""
        return 1.04 * max(2 * (self.near + 1) * math.sin(self.half_angle), self.top_to_bottom)

    @property
    def top_to_bottom(self):
        return self.near + 1 - self.near * math.cos(self.half_angle)

    @property
    def middle(self):
        """Of the image, down from the origin."""
        return self.near + 1 - self.top_to_bottom / 2

    def pixels(self, size):
        """x `[1, size]` and y `[size, 1]` of the pixels' centres."""
        axis = (((2 * np.arange(size) + 1) / size - 1) * self.side / 2).astype(np.float32)
        return axis[None], axis[:, None] + np.float32(self.middle)

    def to_image(self, x, y, size):
        places = np.stack([y - self.middle, x], axis=-1)
        return (places / self.side + 0.5) * size - 0.5

    def holds(self, x, y, margin=0.0):
        """Whether places are in the fan, at least the margin from its border."""
        r = np.hypot(x, y)
        between_arcs = (r > self.near + margin) & (r < self.near + 1 - margin)
        return between_arcs & (y * math.tan(self.half_angle) - abs(x) > margin / math.cos(self.half_angle))


def _draw_fan(rng):
    return _Fan(rng.uniform(0.2, 0.6), rng.uniform(0.42, 0.68))


class _Shape(NamedTuple):
    """A superellipse whose long axis may be bent, placed in the scene; `(u, v)` are its own coordinates."""

    x: float
    y: float
    turn: float  # of the long axis, from the right towards the depth
    half_length: float
    half_width: float
    bend: float = 0.0  # of the middle, towards v
    doublings: int = 1  # of the exponent: 1 is an ellipse, 2 and 3 are ever more like a bar

    def local(self, x, y):
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        u, v = (x - self.x) * cos + (y - self.y) * sin, (y - self.y) * cos - (x - self.x) * sin
        return u, v - self.bend * (1 - (u / self.half_length) ** 2)

    def world(self, u, v):
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        v = v + self.bend * (1 - (u / self.half_length) ** 2)
        return self.x + u * cos - v * sin, self.y + u * sin + v * cos

    def depth(self, u, v):
        """Distance to the outline, positive inside; first order, so exact at the outline alone."""
        level, slope_u, slope_v = self._level(u, v)
        return (1 - level) / np.hypot(slope_u, slope_v)

    def depth_and_facing(self, u, v, beam_x, beam_y):
        """The depth, and how squarely the beam meets the outline, 0 to 1."""
        level, slope_u, slope_v = self._level(u, v)
        steepness = np.hypot(slope_u, slope_v)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        along = slope_u * (beam_x * cos + beam_y * sin) + slope_v * (beam_y * cos - beam_x * sin)
        return (1 - level) / steepness, abs(along) / steepness

    def _level(self, u, v):
        """The function that is 1 at the outline, and its slopes."""
        p, q = abs(u) / self.half_length + 1e-6, abs(v) / self.half_width + 1e-6  # never 0: it is a divisor
        level = _root(_power(p, self.doublings) + _power(q, self.doublings), self.doublings)
        slope_u = np.copysign(_power(p / level, self.doublings) * level / p / self.half_length, u)
        slope_v = np.copysign(_power(q / level, self.doublings) * level / q / self.half_width, v)
        return level, slope_u, slope_v

    def ends(self):
        """x and y of the ends of the long axis, and of the short one where the organ is measured in both."""
        u, v = np.array([-1, 1, 0, 0]) * self.half_length, np.array([0, 0, -1, 1]) * self.half_width
        count = 4 if self.doublings == 1 else 2
        return self.world(u[:count], v[:count])

    def outline(self, count=48):
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        p, q = np.cos(angle), np.sin(angle)
        level = _root(_power(p, self.doublings) + _power(q, self.doublings), self.doublings)
        return self.world(p / level * self.half_length, q / level * self.half_width)


def _power(value, doublings):
    for _ in range(doublings):
        value = value * value
    return value


def _root(value, doublings):
    for _ in range(doublings):
        value = np.sqrt(value)
    return value


# Anatomy. Sizes are half lengths of the long axis in units of the scan's depth, and the short axis as a share of it.

_DEPTH_IN_CM = {"head": (11, 15), "abdomen": (11, 15), "femur": (9, 13), "cervix": (5, 9)}
_HALF_LENGTH = {"head": (0.27, 0.42), "abdomen": (0.25, 0.38), "femur": (0.17, 0.31), "cervix": (0.18, 0.32)}
_ASPECT = {"head": (0.72, 0.85), "abdomen": (0.84, 1.0), "femur": (0.07, 0.10), "cervix": (0.40, 0.58)}
_DOUBLINGS = {"head": 1, "abdomen": 1, "femur": 3, "cervix": 2}
_CUT_SHARE = 0.3  # of organs that are placed at the fan's border; about half of them fit anyway, bones always
_MOST_FADING = 0.7  # of the organ, at difficulty 1


def _draw_organ(rng, plane, fan):
    """The organ's shape, placed so that its measured ends are visible."""
    half_length = rng.uniform(*_HALF_LENGTH[plane])
    half_width = half_length * rng.uniform(*_ASPECT[plane])
    turn = 0.35 * rng.standard_normal() + (math.pi if rng.random() < 0.5 else 0.0)
    bend = 0.0 if _DOUBLINGS[plane] == 1 else half_length * rng.uniform(-0.12, 0.12)
    wanted = rng.uniform(0.75, 0.95) if rng.random() < _CUT_SHARE else 1.0
    places = _draw_places(rng, fan, 64)
    best, chosen = math.inf, None
    for number, (x, y) in enumerate(places):
        shrunk = min(1.0, 1.15 - number / 140)  # what fits nowhere is shrunk
        shape = _Shape(x, y, turn, shrunk * half_length, shrunk * half_width, shrunk * bend, _DOUBLINGS[plane])
        hidden = np.count_nonzero(~fan.holds(*shape.ends(), margin=0.02))
        miss = 10 * hidden + abs(fan.holds(*shape.outline(), margin=0.02).mean() - wanted)
        if miss < best:
            best, chosen = miss, shape
        if miss == 0:
            break
    return chosen


def _draw_places(rng, fan, count):
    r, angle = fan.near + rng.uniform(0.15, 0.9, count), fan.half_angle * rng.uniform(-0.85, 0.85, count)
    return list(zip((r * np.sin(angle)).tolist(), (r * np.cos(angle)).tolist(), strict=True))


class _Matter:
    """What the beams meet: arrays `[depths, beams]` on the fan's grid."""

    def __init__(self, fan, rng):
        self.fan = fan
        self.below = (np.arange(_DEPTHS, dtype=np.float32)[:, None] + 0.5) / _DEPTHS  # the probe
        self.across = (np.arange(_BEAMS, dtype=np.float32) + 0.5) / _BEAMS * 2 - 1  # -1 to 1
        angle, radius = self.across * np.float32(fan.half_angle), self.below + np.float32(fan.near)
        self.beam = np.sin(angle), np.cos(angle)
        self.x, self.y = radius * self.beam[0], radius * self.beam[1]
        self.rough = _noise(rng, 9, 8)  # irregularity of everything seen here
        self.level = _PLACENTA + 3 * self.rough + 3 * _noise(rng, 45, 30)  # dB, of backscatter
        self.echo = np.zeros_like(self.x)  # amplitude of reflections, 1 is white
        self.loss = np.zeros_like(self.x)  # dB per unit of depth, beyond what time-gain compensation corrects

    def of(self, shape):
        """The shape's coordinates as shares of the half axes, the depth inside of it, how it faces the beams."""
        u, v = shape.local(self.x, self.y)
        depth, facing = shape.depth_and_facing(u, v, *self.beam)
        return u / shape.half_length, v / shape.half_width, depth + 0.003 * self.rough, facing

    def fill(self, weight, level, loss=0.0, texture=0.0):
        """Replaces what was there by matter."""
        self.level += weight * (level + texture * self.rough - self.level)
        self.loss += weight * (loss - self.loss)
        self.echo -= weight * self.echo

    def reflect(self, amplitude):
        self.echo += amplitude * np.maximum(1 + 0.4 * self.rough, 0)

    def fade(self, before, share):
        """Fades back towards what was there `before` until a share of the change is left, as in a thick slice."""
        self.level = before.level + share * (self.level - before.level)
        self.loss = before.loss + share * (self.loss - before.loss)
        self.echo = before.echo + share * share * (self.echo - before.echo)  # lines fade faster than areas

    def snapshot(self):
        kept = copy.copy(self)
        kept.level, kept.loss, kept.echo = self.level.copy(), self.loss.copy(), self.echo.copy()
        return kept


def _paint_surroundings(matter, rng):
    """Abdominal wall, uterus, placenta, amniotic fluid and whatever lies behind."""
    wall = rng.uniform(0.08, 0.2)
    pockets = _step(_noise(rng, 40, 26) + 0.1 * matter.rough - rng.uniform(0.0, 1.2), 0.1)
    matter.fill(pockets * _step(matter.below - wall - 0.04, 0.01), _FLUID, loss=-9)
    depth = matter.below + 0.012 * _noise(rng, 60, 50)
    matter.fill(_step(wall - depth, 0.006), _WALL, texture=3)
    for share in (*rng.uniform(0.15, 0.9, 4).tolist(), 1.0):
        matter.reflect(rng.uniform(0.03, 0.2) * _line(depth - share * wall, 0.004))
    back = rng.uniform(0.8, 1.15) + 0.05 * _noise(rng, 60, 40)
    matter.fill(_step(depth - back, 0.006), _WALL, texture=3)
    matter.reflect(rng.uniform(0.03, 0.2) * _line(depth - back, 0.006))


def _paint_head(matter, rng, shape):
    p, q, depth, facing = matter.of(shape)
    inside = _step(depth, 0.005)
    matter.fill(inside, _BRAIN, texture=3)
    p, q = _sign(rng) * p, _sign(rng) * q
    matter.fill(inside * _disc(p + 0.38, q - 0.42, 0.42, 0.27), _FLUID)  # ventricle
    matter.fill(_disc(p + 0.45, q - 0.45, 0.25, 0.14), _PLACENTA + 4)  # choroid plexus in it
    for half in (-0.2, 0.2):
        matter.fill(_disc(p - 0.05, q - half, 0.22, 0.17), _BRAIN - 7)  # thalamus
    cavum, between = _box(p - 0.45, 0.13), _disc(p - 0.05, q, 0.25, 0.4)
    matter.fill(cavum * _box(q, 0.09), _FLUID)
    falx = _box(p, 0.85) * (1 - cavum) * (1 - 0.7 * between) * _line(q, 0.022)
    island = _box(p - 0.1, 0.25) * _line(abs(q) - 0.62 - 0.1 * np.cos(6 * p), 0.025)
    matter.reflect(0.22 * falx + 0.18 * cavum * _line(abs(q) - 0.09, 0.02) + 0.06 * island)
    thickness = 0.075 * shape.half_length
    skull = _box(depth - thickness / 2, thickness / 2, 0.003)
    matter.fill(skull, _LIVER, loss=40)
    matter.reflect(rng.uniform(0.4, 0.9) * skull * facing**2.5)


def _paint_abdomen(matter, rng, shape):
    p, q, depth, facing = matter.of(shape)
    matter.fill(_step(depth, 0.006), _LIVER, texture=2)
    matter.fill(_box(depth - 0.018, 0.012, 0.006), _SOFT - 4)  # muscle and fat under the skin
    spine = rng.uniform(0, 2 * np.pi)  # from here on p runs from the spine to the navel
    p, q = -p * math.cos(spine) - q * math.sin(spine), _sign(rng) * (p * math.sin(spine) - q * math.cos(spine))
    stretch = rng.uniform(0.8, 1.3)
    matter.fill(_disc(p + 0.05, q - 0.5, 0.2 * stretch, 0.26 * stretch), _FLUID, loss=-9)  # stomach
    bow, reach = abs(q + 0.25 - 0.5 * (p - 0.25) ** 2), _box(p - 0.35, 0.25, 0.03)
    matter.fill(reach * _box(bow, 0.06), _FLUID)  # umbilical vein
    matter.fill(_disc(p + 0.42, q + 0.12, 0.08, 0.08), _FLUID)  # aorta
    matter.reflect(0.05 * reach * _line(bow - 0.1, 0.025))
    for along, across in ((-0.62, 0.0), (-0.78, 0.13), (-0.78, -0.13)):  # the centres of a vertebra's ossification
        bone = np.exp(-0.5 * (((p - along) / 0.05) ** 2 + ((q - across) / 0.06) ** 2))
        matter.fill(bone, _BONE, loss=60)
        matter.reflect(0.4 * bone)
    angle = np.arctan2(q, p)
    for place in (rng.uniform(1.4, 2.7), -rng.uniform(1.4, 2.7)):
        rib = _box(depth - 0.05, 0.006, 0.003) * _box(angle - place, 0.22, 0.03)
        matter.fill(rib, _BONE, loss=120)
        matter.reflect(0.35 * rib)
    matter.reflect(rng.uniform(0.15, 0.4) * _box(depth - 0.004, 0.007, 0.003) * (0.15 + 0.85 * facing))  # skin


def _paint_femur(matter, rng, shape):
    thigh = shape._replace(half_length=1.45 * shape.half_length, half_width=rng.uniform(0.1, 0.16), doublings=1)
    _, _, depth, facing = matter.of(thigh)
    matter.fill(_step(depth, 0.006), _SOFT, texture=2)
    matter.reflect(rng.uniform(0.03, 0.12) * _line(depth, 0.005) * facing)
    _paint_bone(matter, shape)


def _paint_bone(matter, shape):
    _, _, depth, facing = matter.of(shape)
    bone = _step(depth, 0.003)
    matter.fill(bone, _BONE - 8, loss=360)
    matter.reflect(0.6 * bone * (0.3 + 0.7 * facing))


def _paint_cervix(matter, rng, shape):
    p, q, depth, facing = matter.of(shape)
    # The womb's fluid, with the head in it, reaches the inner end; the vagina's bright walls leave the outer one.
    womb, skull = _disc(p + 2.1, q + 0.3, 1.15, 2.6), np.hypot((p + 2.7) / 1.35, (q + 0.2) / 2.2) - 1
    matter.fill(womb * _step(-depth, 0.006), _FLUID, loss=-6)
    matter.fill(womb * _step(-skull, 0.03), _BRAIN, loss=20)
    matter.reflect(0.25 * womb * _line(skull, 0.03) * facing)
    matter.reflect(0.1 * _step(p - 1.02, 0.03) * _step(2.2 - p, 0.1) * _line(abs(q) - 0.12, 0.05))
    inside, along = _step(depth, 0.01), _box(p, 1.0, 0.03)
    matter.fill(inside, _SOFT + 2, texture=3)
    matter.fill(inside * _line(q, 0.3), _SOFT - 9)  # mucosa
    matter.fill(along * _line(q, 0.06), _FLUID)  # canal
    matter.reflect(along * (0.12 * _line(abs(q) - 0.12, 0.04) + 0.02 * _line(abs(q) - 0.62, 0.05)))
    matter.reflect(rng.uniform(0.04, 0.12) * _line(depth, 0.006) * (0.2 + 0.8 * facing))


_PAINTERS = {"head": _paint_head, "abdomen": _paint_abdomen, "femur": _paint_femur, "cervix": _paint_cervix}


def _paint_lookalikes(matter, rng, organ):
    """A round section and bones that are not the organ: other parts of the fetus, whatever the plane."""
    for doublings, aspect in ((1, (0.7, 1.0)), (3, _ASPECT["femur"]), (3, _ASPECT["femur"])):
        half_length, turn = rng.uniform(0.12, 0.26), rng.uniform(0, np.pi)
        half_width, places = half_length * rng.uniform(*aspect), _draw_places(rng, matter.fan, 16)
        shapes = (_Shape(x, y, turn, half_length, half_width, doublings=doublings) for x, y in places)
        shape = next((shape for shape in shapes if _apart(shape, organ)), None)
        if shape is not None and doublings == 1:
            _paint_section(matter, shape)
        elif shape is not None:
            _paint_bone(matter, shape)


def _paint_section(matter, shape):
    _, _, depth, facing = matter.of(shape)
    matter.fill(_step(depth, 0.006), _SOFT, texture=3)
    matter.reflect(0.3 * _box(depth - 0.008, 0.009, 0.003) * (0.15 + 0.85 * facing))


def _apart(shape, organ, gap=0.03):
    return bool((organ.depth(*organ.local(*shape.outline(24))) < -gap).all())


# Physics.


def _scan(rng, plane, organ, fan, difficulty):
    """Gray levels `[depths, beams]` float32, 0 to 255."""
    matter = _Matter(fan, rng)
    _paint_surroundings(matter, rng)
    before = matter.snapshot()
    _paint_lookalikes(matter, rng, organ)
    matter.fade(before, difficulty)
    before = matter.snapshot()
    _PAINTERS[plane](matter, rng, organ)
    matter.fade(before, 1 - _MOST_FADING * difficulty)
    _cast_shadows(matter, rng, organ, difficulty)
    haze = rng.uniform(-66, -58) + 8 * difficulty
    real, imaginary = _speckle(rng, matter, haze)
    gain = rng.uniform(-3, 4) + 2 * _noise(rng, 60, 60) - rng.uniform(0, 6) * matter.across**2
    decibels = 10 * np.log10(real**2 + imaginary**2 + np.float32(1e-9)) + gain
    return 255 * np.clip(1 + decibels / rng.uniform(54, 66), 0, 1)


def _cast_shadows(matter, rng, organ, difficulty):
    """Lost contact, gas and bone in the near field: two shadows anywhere, one on the organ at higher difficulty."""
    onto = math.atan2(organ.x, organ.y) / matter.fan.half_angle + rng.uniform(-1, 1) * organ.half_length
    for centre, most in ((rng.uniform(-1.2, 1.2), 1), (rng.uniform(-1.2, 1.2), 1), (onto, difficulty)):
        decibels, width = most * rng.uniform(2, 22), rng.uniform(0.04, 0.14)
        matter.loss[:20] += decibels * _DEPTHS / 20 * _line(matter.across - centre, width)


def _speckle(rng, matter, haze):
    """Real and imaginary part of the echo, 1 is white; `haze` is the level of clutter, which nothing shadows."""
    noise = rng.standard_normal((2, _DEPTHS, _BEAMS), dtype=np.float32)
    axial, lateral = _smoothing(_DEPTHS, 1.3), _smoothing(_BEAMS, 1.5)
    lost = np.cumsum(matter.loss, axis=0) @ _smoothing(_BEAMS, 2.0).T  # a beam is wider than the line it stands for
    passed = 10 ** (-lost / (20 * _DEPTHS))
    amplitude = passed * (10 ** (matter.level / 20) + 0.4 * matter.echo) + 10 ** (haze / 20)
    field = noise * (amplitude * (math.sqrt(0.5) / (_spread(axial) * _spread(lateral))))
    field[0] += passed * matter.echo
    return axial @ field @ lateral.T


def _to_pixels(gray, fan, size):
    """Maps beams to pixels of a uint8 RGB image, black outside of the fan."""
    times = -(-_FINE // size)
    x, y = fan.pixels(times * size)
    inside = fan.holds(x, y)
    x, y = np.broadcast_to(x, inside.shape)[inside], np.broadcast_to(y, inside.shape)[inside]
    rows = (np.hypot(x, y) - fan.near) * _DEPTHS - 0.5
    columns = (np.arctan2(x, y) / fan.half_angle + 1) * (_BEAMS / 2) - 0.5
    fine = np.zeros(inside.shape, np.float32)
    fine[inside] = ndimage.map_coordinates(gray, (rows, columns), order=1, mode="nearest")
    image = fine.reshape(size, times, size, times).mean(axis=(1, 3))
    return np.repeat(np.rint(image).astype(np.uint8)[..., None], 3, axis=-1)


# Drawing tools: profiles in [0, 1] and smooth noise.


def _step(value, softness):
    return 0.5 + 0.5 * np.tanh(value * (1 / softness))


def _line(distance, width):
    return np.exp(-0.5 * (distance * (1 / width)) ** 2)


def _box(distance, half_width, softness=0.02):
    return _step(half_width - abs(distance), softness)


def _disc(p, q, half_length, half_width):
    return _step(1 - np.hypot(p * (1 / half_length), q * (1 / half_width)), 0.1)


def _sign(rng):
    return 1 if rng.random() < 0.5 else -1


@lru_cache(maxsize=64)
def _smoothing(count, sigma, step=1):
    """Gaussian smoothing `[count, count / step]` float32 of every `step`-th sample of a line; rows sum to one."""
    kernel = np.exp(-0.5 * ((np.arange(count)[:, None] - np.arange(step / 2, count, step)) / sigma) ** 2)
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)


def _noise(rng, axial, lateral):
    """Smooth Gaussian noise `[depths, beams]` of about unit variance; correlation lengths in samples, 6 or more."""
    step = 4
    down, along = _smoothing(_DEPTHS, axial, step), _smoothing(_BEAMS, lateral, step)
    noise = down @ rng.standard_normal((_DEPTHS // step, _BEAMS // step), dtype=np.float32) @ along.T
    return noise * (1 / (_spread(down) * _spread(along)))


def _spread(weights):
    """Standard deviation of white noise of unit variance after smoothing."""
    return float(np.linalg.norm(weights) / math.sqrt(len(weights)))
