"""Synthetic short-axis cardiac MRI of invented vendors, for the study of domain shift with a known cause.

It stands in for the multi-vendor data of Wilm et al. 2024, *Rethinking U-net Skip Connections for Biomedical Image
Segmentation*, section III.D (M&Ms), and of Lennartz & Schultz 2023, *Segmentation Distortion* (ACDC and M&Ms). There
other vendors mean other patients too. Here the same patient can be put into every scanner, so that the scanner is the
only thing that differs: the labels are the same bits. A network is trained on vendor A; B, C and D differ from it in
the signal of the tissues, gamma, noise, the fields of the coils, resolution and dark bands, and `strength` leads from
A to each of them. The scanners are invented for this purpose and imitate no manufacturer's.

Hearts follow ACDC in size, in how areas fall from base to apex, and in health and disease: dilated, hypertrophic,
infarcted, or with a large right ventricle; in diastole or in systole. Truth follows its convention: papillary muscles
and trabeculae belong to the blood pool around them, and the wall of the right ventricle to the background.

Lengths are in mm from the middle of the field of view, x to the right and y downwards in the image; a *depth* is the
distance to an outline, positive inside. Position runs along the heart's long axis, 0 at the base and 1 at the apex.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft

from jaxseg.errors import InputError

CLASS_NAMES = ("background", "right ventricle", "myocardium", "left ventricle")  # in the order of ACDC's numbers
FIELD_OF_VIEW = 224.0  # mm, both sides of every image
_SLICE_THICKNESS = 8.0  # mm; walls oblique to it are blurred


class Tissues(NamedTuple):
    """Signal of each tissue in the middle of the field, in gray levels before gamma; air has none."""

    lung: float
    muscle: float  # of the skeleton
    myocardium: float
    liver: float
    bone: float
    blood: float
    fat: float
    fluid: float


class Scanner(NamedTuple):
    """How a vendor's scanner shows the same heart.

    Attributes:
      tissues: the signals.
      gamma: exponent of the gray levels as shares of white, after everything else.
      noise: standard deviation of each of the two channels of which the image is the magnitude, in gray levels before
        gamma.
      resolution: mm, (rows, columns): the acquired pixel; finer detail is truncated in k-space, which leaves ringing.
      smoothing: mm, standard deviation of the Gaussian filter of k-space.
      coil: how much the signal rises towards the chest, as the logarithm of the ratio of near to far from the coil.
      shading: standard deviation of the logarithm of a smooth field that differs between patients.
      banding: share of the signal that is lost in the dark bands of balanced sequences.
    """

    tissues: Tissues
    gamma: float
    noise: float
    resolution: tuple[float, float]
    smoothing: float
    coil: float
    shading: float
    banding: float


SCANNERS: Mapping[str, Scanner] = {
    "A": Scanner(
        Tissues(lung=26, muscle=44, myocardium=60, liver=68, bone=95, blood=176, fat=195, fluid=205),
        gamma=1.0,
        noise=4.0,
        resolution=(1.9, 1.6),
        smoothing=0.5,
        coil=0.35,
        shading=0.05,
        banding=0.0,
    ),
    # less contrast between blood and muscle, less fat
    "B": Scanner(
        Tissues(lung=29, muscle=58, myocardium=76, liver=84, bone=95, blood=179, fat=168, fluid=165),
        gamma=0.95,
        noise=5.0,
        resolution=(2.3, 1.9),
        smoothing=0.7,
        coil=0.25,
        shading=0.08,
        banding=0.0,
    ),
    # windowed to the fat under a strong coil, so that the heart is dark
    "C": Scanner(
        Tissues(lung=18, muscle=34, myocardium=46, liver=53, bone=85, blood=128, fat=220, fluid=160),
        gamma=1.06,
        noise=6.0,
        resolution=(1.8, 1.5),
        smoothing=0.4,
        coil=1.0,
        shading=0.15,
        banding=0.0,
    ),
    # fast and coarse: blurred, noisy, with dark bands
    "D": Scanner(
        Tissues(lung=31, muscle=54, myocardium=76, liver=83, bone=95, blood=154, fat=176, fluid=195),
        gamma=0.87,
        noise=8.5,
        resolution=(5.2, 3.8),
        smoothing=1.4,
        coil=0.55,
        shading=0.15,
        banding=0.55,
    ),
}
VENDORS = tuple(SCANNERS)


def render(
    seed: int, patient: int, position: float, size: int, *, vendor: str = "A", strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one short-axis slice, and the truth about it.

    The same `(seed, patient, position)` is the same anatomy at any size, vendor and strength, and slices of a patient
    belong to one heart. What the noise draws depends on the size, not on vendor and strength.

    Args:
      seed: of the data set.
      patient: number of the patient in it; patients are independent and can be drawn in any order.
      position: along the long axis, 0 at the base to 1 at the apex.
      size: side of the square image in pixels of `FIELD_OF_VIEW / size` mm.
      vendor: one of `VENDORS`.
      strength: from the scanner of vendor A, at 0, to the vendor's own, at 1.

    Returns:
      image: uint8 `[size, size]`.
      labels: uint8 `[size, size]`, numbers of `CLASS_NAMES`. Myocardium is in every slice; the right ventricle ends
        before the apex, and the left one may. In some hearts the wall is open at the base, towards the aorta.

    Raises:
      InputError: an unknown vendor, or a strength outside of 0 to 1.
      ValueError: `size` is not positive, `position` is not in 0 to 1, or `seed` or `patient` is negative.

    Source: Wilm et al. 2024, section III.D; Lennartz & Schultz 2023, section 4.1; ACDC as the model for the hearts.
    """
    if size < 1:
        raise ValueError(f"size is {size}, but an image needs at least one pixel a side")
    if not 0 <= position <= 1:
        raise ValueError(f"position is {position}, but a heart has slices from 0 (base) to 1 (apex)")
    machine = scanner(vendor, strength=strength)
    position = float(position)
    heart_rng, outline_rng, body_rng, texture_rng, field_rng = _generators(seed, patient)
    heart = _draw_heart(heart_rng)
    shape, z = _chambers(outline_rng, heart, position, size), position * heart.length
    signal = _paint_body(body_rng, machine.tissues, shape, position, z)
    _paint_heart(texture_rng, signal, heart, shape, machine.tissues, position)
    signal *= _fields(field_rng, machine, z, size)
    # not zeros alone after the patient, which would give the generator of the anatomy
    noise_rng = np.random.default_rng([seed, patient, 1, int(position * 2**32)])
    return acquire(noise_rng, signal, machine), _labels(shape)


def volume(
    seed: int, patient: int, size: int, *, slices: int = 8, vendor: str = "A", strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Draws a patient's stack: `render` in the middles of `slices` equal parts of the long axis, the base first.

    Args:
      seed: of the data set.
      patient: number of the patient in it.
      size: side of the slices in pixels.
      slices: D, at least 1.
      vendor: one of `VENDORS`.
      strength: from the scanner of vendor A, at 0, to the vendor's own, at 1.

    Returns:
      images: uint8 `[slices, size, size]`.
      labels: uint8 `[slices, size, size]`, numbers of `CLASS_NAMES`.
      spacing: mm, (slices, rows, columns). Hearts differ in length, and so do the distances of their slices.

    Raises:
      InputError: an unknown vendor, or a strength outside of 0 to 1.
      ValueError: `size` or `slices` is not positive, or `seed` or `patient` is negative.
    """
    if slices < 1:
        raise ValueError(f"slices is {slices}, but a stack has at least one")
    drawn = [render(seed, patient, (i + 0.5) / slices, size, vendor=vendor, strength=strength) for i in range(slices)]
    images, labels = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    heart = _draw_heart(_generators(seed, patient)[0])
    return images, labels, (heart.length / slices, FIELD_OF_VIEW / size, FIELD_OF_VIEW / size)


def scanner(vendor: str, *, strength: float = 1.0) -> Scanner:
    """The scanner at `strength` between vendor A's and the vendor's own, every attribute linearly.

    Raises:
      InputError: an unknown vendor, or a strength outside of 0 to 1.
    """
    if vendor not in SCANNERS:
        raise InputError(f"vendor is {vendor!r}; choose one of {', '.join(VENDORS)}")
    if not 0 <= strength <= 1:
        raise InputError(f"strength is {strength}; it must be a number in 0 (vendor A) to 1 (vendor {vendor})")

    def between(start, end):
        if isinstance(start, tuple):
            values = [between(*pair) for pair in zip(start, end, strict=True)]
            return start._make(values) if hasattr(start, "_make") else tuple(values)
        # exact at both ends, and where both ends are equal
        return start if start == end else (1 - strength) * start + strength * end

    return between(SCANNERS["A"], SCANNERS[vendor])


def acquire(rng: np.random.Generator, signal: np.ndarray, machine: Scanner) -> np.ndarray:
    """What a scanner stores of a signal: k-space truncated and filtered, Rician noise, gamma, eight bits.

    The coil's field and dark bands are not applied here. The image is mirrored at its borders, so that nothing wraps.

    Args:
      rng: draws `[2, size, size]` standard normal numbers, whatever the scanner.
      signal: `[size, size]` gray levels over a field of `FIELD_OF_VIEW`.
      machine: the scanner.

    Returns:
      image: uint8 `[size, size]`.

    Raises:
      ValueError: the signal is not square.
    """
    if signal.ndim != 2 or signal.shape[0] != signal.shape[1]:
        raise ValueError(f"signal has the shape {signal.shape}, but slices are [size, size]")
    size = len(signal)
    rows, columns = (_kept(size, pixel, machine.smoothing) for pixel in machine.resolution)
    # Acquired noise is white; divided by what the filter leaves of it, it has the scanner's standard deviation.
    noise = rng.standard_normal((2, size, size), dtype=np.float32)
    noise *= machine.noise / np.sqrt(np.mean(rows**2) * np.mean(columns**2))
    noise[0] += signal
    spectra = scipy.fft.dctn(noise, axes=(1, 2)) * (rows[:, None] * columns)
    real, imaginary = scipy.fft.idctn(spectra, axes=(1, 2))
    shares = np.clip(np.hypot(real, imaginary) / 255, 0, 1)
    return (255 * shares**machine.gamma + 0.5).astype(np.uint8)


# Hearts. Angles are counted from the middle of the septum, positive towards the anterior wall.


class _Condition(NamedTuple):
    """Millimetres in diastole: radius of the left ventricle and its wall, reach of the right one beyond the septum."""

    radius: float
    wall: float
    reach: float
    systole: float  # the radius in systole as a share of that in diastole


_CONDITIONS = (
    _Condition(radius=27, wall=9.5, reach=34, systole=0.66),  # healthy
    _Condition(radius=35, wall=9.0, reach=30, systole=0.88),  # dilated
    _Condition(radius=24, wall=15.0, reach=30, systole=0.58),  # hypertrophic
    _Condition(radius=31, wall=9.5, reach=30, systole=0.82),  # infarcted
    _Condition(radius=24, wall=10.0, reach=46, systole=0.70),  # large right ventricle
)
_ATRIUM = -0.9  # the angle at which the right atrium lies
_THINNEST_WALL = 4.5  # mm, more than a pixel at 64 pixels a side, so that no cavity touches the background


class _Heart(NamedTuple):
    """One patient's heart in the phase in which it was scanned; mm and radians."""

    length: float
    centre: tuple[float, float]  # of the left ventricle at half length
    drift: tuple[float, float]  # of the centre from base to apex
    turn: float  # direction of the septum in the image
    radius: float
    closing: float  # how far the cavity has closed at the apex: above 1 it ends before
    wall: float
    ripples: np.ndarray  # [2, 4, 2] of the outline: cosines and sines of the orders 2 to 5, at two ends of a path
    septum: float  # share by which the septum is thicker
    scar: tuple[float, float, float]  # angle, half width, share by which the wall is thinner
    reach: float
    span: float
    sink: float  # of the right ventricle towards the inferior wall
    end: float  # position at which the right ventricle ends
    papillary: tuple[tuple[float, float, float], ...]  # angle; distance from the centre and radius as shares of radius
    aorta: tuple[float, float, float]  # angle, radius, position at which it ends
    opening: float  # half the angle by which the wall is open at the base, 0 in closed hearts
    atrium: float  # position at which the right atrium ends


def _draw_heart(rng):
    condition = _CONDITIONS[rng.integers(len(_CONDITIONS))]
    stature = math.exp(rng.normal(0, 0.08))
    radius, reach, length = condition.radius * stature, condition.reach * stature, rng.uniform(78, 104) * stature
    wall = condition.wall * math.exp(rng.normal(0, 0.10))
    if rng.random() < 0.5:  # in systole; the shorter wall keeps nine tenths of its volume
        area = 0.9 / 0.85 * ((radius + wall) ** 2 - radius**2)
        radius *= min(max(rng.normal(condition.systole, 0.05), 0.4), 0.95)
        wall = math.sqrt(radius**2 + area) - radius
        reach, length = 0.72 * reach, 0.85 * length
    hypertrophic, infarcted = condition is _CONDITIONS[2], condition is _CONDITIONS[3]
    return _Heart(
        length=length,
        centre=(rng.normal(8, 7), rng.normal(0, 7)),
        drift=(rng.normal(6, 5), rng.normal(4, 5)),
        turn=math.radians(rng.normal(184, 17)),
        radius=radius,
        closing=rng.uniform(0.93, 1.06),
        wall=wall,
        ripples=rng.standard_normal((2, 4, 2)) * 0.05 / np.arange(1, 5)[:, None] ** 1.3,
        septum=rng.uniform(0.1, 0.6) if hypertrophic else rng.uniform(0, 0.12),
        scar=(rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.1), rng.uniform(0.25, 0.5) if infarcted else 0.0),
        reach=reach * math.exp(rng.normal(0, 0.12)),
        span=rng.uniform(0.9, 1.12),
        sink=rng.uniform(0, 12),
        end=rng.uniform(0.72, 1.05),
        papillary=tuple(
            (side * rng.uniform(2.0, 2.5), rng.uniform(0.62, 0.85), rng.uniform(0.16, 0.27)) for side in (1, -1)
        ),
        aorta=(rng.uniform(0.6, 1.0), rng.uniform(11, 14), rng.uniform(0.06, 0.22)),
        opening=rng.uniform(0.35, 0.65) if rng.random() < 0.5 else 0.0,
        atrium=rng.uniform(0.02, 0.22),
    )


class _Chambers(NamedTuple):
    """Depths of one slice, `[size, size]` in mm."""

    cavity: np.ndarray  # in the left ventricle's endocardium
    outer: np.ndarray  # in its epicardium
    right: np.ndarray  # in the right ventricle
    gap: np.ndarray  # in the opening of the wall
    aorta: np.ndarray
    atrium: np.ndarray
    papillary: np.ndarray  # in the papillary muscles
    whole: np.ndarray  # in the heart, with the thin walls of its right side
    slant: float  # mm over which walls are blurred, because they are oblique to the slice


def _chambers(rng, heart, position, size):
    u, v = _heart_axes(rng, heart, position, size)
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    inner, outer = _outlines(heart, position)
    cavity = np.interp(angle, _ANGLES, inner).astype(np.float32) - distance
    outside = np.interp(angle, _ANGLES, outer).astype(np.float32) - distance
    reach = float(outer.mean())
    gone_aorta, gone_atrium = position / heart.aorta[2], position / heart.atrium
    aorta = _vessel(u, v, heart.aorta[0], reach + 0.5 * heart.aorta[1], heart.aorta[1], gone_aorta)
    atrium = _vessel(u, v, _ATRIUM, reach + 0.6 * heart.reach, 24, gone_atrium)
    right = np.minimum(_right_depth(heart, position, u, v, reach), np.minimum(-outside, -2 - np.maximum(aorta, atrium)))
    # The right ventricle lies between the two; what they leave of it beyond comes back as they end.
    right = np.minimum(right, (heart.aorta[0] - angle) * distance + 60 * gone_aorta)
    right = np.minimum(right, (angle - _ATRIUM) * distance + 60 * gone_atrium)
    half_width = heart.opening * math.sqrt(1 - gone_aorta) if heart.opening and gone_aorta < 1 else -math.pi
    gap = (half_width - abs(angle - heart.aorta[0])) * distance
    return _Chambers(
        cavity=cavity,
        outer=outside,
        right=right,
        gap=np.minimum(gap, np.minimum(-cavity, outside)),
        aorta=aorta,
        atrium=atrium,
        papillary=_papillary_depth(heart, position, u, v, float(inner.mean())),
        whole=np.maximum.reduce([outside, right + 2.5, atrium + 2, aorta + 2]),
        slant=_slant(heart, position),
    )


def _heart_axes(rng, heart, position, size):
    """Coordinates of the pixels from the left ventricle's centre: u towards the septum, v towards the anterior wall."""
    z = position * heart.length
    centre = [at + drift * (position - 0.5) for at, drift in zip(heart.centre, heart.drift, strict=True)]
    # Bending the plane a little frays the outlines where a polar curve could only ripple.
    x = _axis(size) - centre[0] + 1.0 * _noise(rng, 14, z, size)
    y = _axis(size)[:, None] - centre[1] + 1.0 * _noise(rng, 14, z, size)
    return _turned(x, y, heart.turn)


def _outlines(heart, position):
    """Distances of endocardium and epicardium from the centre at `_ANGLES`; of a closed cavity, negative ones."""
    along = position * np.pi / 2
    cosines, sines = (np.cos(along) * heart.ripples[0] + np.sin(along) * heart.ripples[1]).T
    waves = np.arange(2, 6)[:, None] * _ANGLES
    ripple = np.exp(cosines @ np.cos(waves) + sines @ np.sin(waves))
    thickness = heart.wall * (1 - 0.35 * position**2) * (1 + heart.septum * np.cos(_ANGLES))
    place, half_width, loss = heart.scar
    away = np.angle(np.exp(1j * (_ANGLES - place)))
    thickness *= 1 - loss * np.exp(-0.5 * (away / half_width) ** 2)
    radius = _cavity_radius(heart, position)
    return radius * ripple, max(radius, 0) * ripple + np.maximum(thickness, _THINNEST_WALL)


def _cavity_radius(heart, position):
    rest = 1 - (heart.closing * position) ** 2.5
    return heart.radius * math.sqrt(rest) if rest > 0 else -1.0


def _slant(heart, position):
    step = 0.02
    higher, lower = (_cavity_radius(heart, p) for p in (max(position - step, 0), min(position + step, 1)))
    return min(abs(higher - lower) / (2 * step * heart.length) * _SLICE_THICKNESS, 7.0)


def _right_depth(heart, position, u, v, reach):
    """An ellipse behind the left ventricle; what the left ventricle leaves of it is the crescent."""
    rest = 1 - (position / heart.end) ** 1.4
    if rest <= 0:
        return np.full(u.shape, -FIELD_OF_VIEW, np.float32)
    share = rest**0.8
    centre = 0.6 * reach
    across = reach + heart.reach * share - centre
    along = reach * heart.span * (0.55 + 0.6 * share)
    rho = np.hypot((u - centre) / across, (v + heart.sink * position) / along)
    return (1 - rho) * min(across, along)


def _vessel(u, v, angle, distance, radius, gone):
    """Depth in a round vessel or atrium that ends; `gone` is the share of its visible range that is passed."""
    left = radius * math.sqrt(1 - gone**2) if gone < 1 else -FIELD_OF_VIEW
    return left - np.hypot(u - distance * math.cos(angle), v - distance * math.sin(angle))


def _papillary_depth(heart, position, u, v, radius):
    gone = abs(position - 0.52) / 0.38
    depths = [
        _vessel(u, v, angle, distance * radius, share * radius, gone) for angle, distance, share in heart.papillary
    ]
    return np.maximum(*depths)


def _labels(shape):
    labels = np.zeros(shape.cavity.shape, np.uint8)
    labels[shape.right > 0] = 1
    labels[(shape.outer > 0) & (shape.gap <= 0)] = 2
    labels[shape.cavity > 0] = 3
    return labels


# The signal, painted back to front: what lies in front covers what is behind, with soft edges one pixel wide.


class _Body(NamedTuple):
    """Depths of one slice of the chest, `[size, size]` in mm, and its own axes."""

    x: np.ndarray
    y: np.ndarray
    skin: np.ndarray
    wall: np.ndarray  # in the muscles of the chest
    ribs: np.ndarray
    cavity: np.ndarray  # in the rib cage
    abdomen: np.ndarray  # below the diaphragm


def _paint_body(rng, tissues, shape, position, z):
    size = len(shape.whole)
    body = _draw_body(rng, shape, position, z, size)
    texture = _noise(rng, 6, z, size)
    signal = np.zeros((size, size), np.float32)
    _paint(signal, body.skin, tissues.fat * (1 + 0.04 * texture))
    _paint(signal, body.wall, tissues.muscle * (1 + 0.10 * texture))
    _paint(signal, body.ribs, tissues.bone)
    # the lung's vessels in cross-section
    branches = np.maximum(_noise(rng, 3.2, z, size) - 1.5, 0)
    _paint(signal, body.cavity, tissues.lung * (1 + 0.15 * texture) + 0.5 * tissues.blood * np.minimum(branches, 1))
    _paint_abdomen(rng, signal, body, tissues, z, size)
    _paint_great_vessels(rng, signal, body, tissues, position)
    return signal


def _draw_body(rng, shape, position, z, size):
    x, y = _turned(_axis(size), _axis(size)[:, None], math.radians(rng.normal(0, 18)))
    middle = rng.normal(28, 9), rng.normal(30, 9)
    half = [(1 - 0.10 * position) * length * math.exp(rng.normal(0, 0.09)) for length in (106, 102)]
    rho = (abs((x - middle[0]) / half[0]) ** 2.3 + abs((y - middle[1]) / half[1]) ** 2.3) ** (1 / 2.3)
    cavity = (1 - rho) * min(half) + 3 * _noise(rng, 40, z, size)
    cavity = 10 * np.logaddexp(cavity / 10, (shape.whole + 5) / 10)  # the chest bends around the heart
    wall = 9 + np.maximum(5 * _noise(rng, 35, z, size), -2)
    ribs = np.minimum(4 - abs(cavity + 5), 8 * (_noise(rng, 9, z, size) - 0.5))
    # Fat is thickest at the upper right, under the breast and the arm.
    fat, breast = math.exp(rng.normal(2.2, 0.6)), math.exp(rng.normal(2.5, 0.8))
    upper_right = np.exp(-(((x - 70) / 55) ** 2) - ((y + 75) / 50) ** 2)
    skin = cavity + wall + np.maximum(fat + breast * upper_right + 2.5 * _noise(rng, 30, z, size), 3)
    level = rng.normal(38, 7) - 26 * position
    abdomen = y - level - 0.5 * ((x - rng.normal(-20, 12)) / rng.uniform(12, 18)) ** 2 + 2 * _noise(rng, 30, z, size)
    return _Body(x, y, skin, cavity + wall, ribs, cavity, np.minimum(abdomen, cavity - 1))


def _paint_abdomen(rng, signal, body, tissues, z, size):
    texture, vessels = _noise(rng, 12, z, size), _noise(rng, 5, z, size)
    _paint(signal, body.abdomen + 2.5, tissues.muscle)  # the diaphragm
    _paint(signal, body.abdomen, tissues.fat * (0.85 + 0.08 * texture))
    edge = rng.normal(18, 12) + 0.3 * z - body.x + 5 * texture
    liver = np.minimum(body.abdomen, edge)
    _paint(signal, liver, tissues.liver * (1 + 0.06 * texture))
    _paint(signal, np.minimum(4 * (vessels - 1.6), liver - 4), 0.8 * tissues.blood)
    # stomach, spleen and bowel: two thirds with a wall around their contents
    contents = (tissues.fluid, tissues.lung, tissues.liver, tissues.muscle, tissues.myocardium)
    for _ in range(5):
        x, y, width, height = rng.uniform(15, 105), rng.uniform(40, 110), rng.uniform(9, 24), rng.uniform(9, 24)
        depth = (1 - np.hypot((body.x - x) / width, (body.y - y + 0.2 * z) / height)) * min(width, height)
        depth = np.minimum(depth + texture, body.abdomen - 2)
        _paint(signal, depth, tissues.muscle)
        _paint(signal, depth - (2.5 if rng.random() < 0.67 else 0), contents[rng.integers(len(contents))])


def _paint_great_vessels(rng, signal, body, tissues, position):
    """Descending aorta and vena cava: round and as bright as the ventricles."""
    for x, y, radius in ((52, 52, 11), (-8, 66, 9)):
        x, y, radius = rng.normal(x, 6), rng.normal(y, 6), radius + rng.uniform(-2, 2)
        depth = radius - np.hypot(body.x - x - 8 * position, body.y - y)
        _paint(signal, depth + 2, tissues.muscle)
        _paint(signal, depth, 0.95 * tissues.blood)


def _paint_heart(rng, signal, heart, shape, tissues, position):
    size, z = len(signal), position * heart.length
    fine, coarse, fat = (_noise(rng, length, z, size) for length in (3.5, 16, 18))
    slow = 1 - 0.22 * position  # fresh blood flows in at the base and is brightest there
    left = tissues.blood * slow * rng.uniform(0.93, 1.07) * (1 + 0.05 * coarse)
    right = 0.81 * left * rng.uniform(0.9, 1.08)
    muscle = tissues.myocardium * rng.uniform(0.9, 1.1) * (1 + 0.05 * fine)

    padding = np.maximum(rng.uniform(-3, 3) + 4 * fat, 0)
    _paint(signal, shape.whole + padding + 1.5, tissues.muscle)  # the pericardium
    _paint(signal, shape.whole + padding, tissues.fat)
    _paint(signal, shape.whole, muscle)
    _paint(signal, shape.atrium, right)
    _paint(signal, shape.aorta, left)
    _paint(signal, shape.right, right, shape.slant)
    _paint(signal, _trabeculae(shape.right, fine, rng.uniform(0.9, 1.6), rng.uniform(4, 9)), muscle)
    _paint(signal, shape.outer, muscle, shape.slant)
    _paint(signal, np.minimum(shape.gap, shape.outer) + 1, left)
    _paint(signal, shape.cavity, left, shape.slant)
    _paint(signal, np.minimum(shape.papillary, shape.cavity), muscle)
    rough = rng.uniform(1.5, 4.5) * min(2 * position, 1)
    _paint(signal, _trabeculae(shape.cavity, fine, rng.uniform(0.5, 1.2), rough), muscle)


def _trabeculae(chamber, texture, rarity, reach):
    """Depth in the strands of muscle that run along a chamber's wall, up to about `reach` mm inside."""
    return np.minimum(2.5 * (texture - rarity) - np.maximum(chamber - reach, 0), chamber)


def _fields(rng, machine, z, size):
    """What coils and sequence make of the signal `[size, size]`, about 1 in the middle."""
    x, y = _axis(size), _axis(size)[:, None]
    chest = math.radians(rng.normal(215, 20))
    near = lambda x, y: 1 / (1 + ((x - 125 * math.cos(chest)) ** 2 + (y - 125 * math.sin(chest)) ** 2) / 90**2)
    field = machine.coil * (near(x, y) - near(0, 0)) + machine.shading * _noise(rng, 60, z, size)
    across, _ = _turned(x, y, math.radians(rng.normal(70, 30)))
    phase = np.pi * (across / rng.uniform(75, 110) + 0.12 * _noise(rng, 45, z, size) + rng.random())
    return np.exp(field) * (1 - machine.banding * np.exp(-0.5 * (np.sin(phase) / 0.3) ** 2))


def _turned(x, y, angle):
    """Coordinates along axes that are turned by `angle`, from x towards y."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _paint(signal, depth, value, slant=0.0):
    cover = np.clip(depth / (FIELD_OF_VIEW / len(signal) + slant) + 0.5, 0, 1)
    signal += cover * (value - signal)


# Tools.

_ANGLES = np.linspace(-np.pi, np.pi, 257)


def _generators(seed, patient):
    """Heart, its outlines, body, textures, fields: the draws of one do not affect the others."""
    return np.random.default_rng([seed, patient]).spawn(5)


@lru_cache(maxsize=16)
def _axis(size):
    """Pixel centres [size] in mm."""
    return (((np.arange(size) + 0.5) / size - 0.5) * FIELD_OF_VIEW).astype(np.float32)


def _noise(rng, length, z, size):
    """Smooth Gaussian noise of unit variance that keeps its shape over `length` mm in the plane and along z.

    A sum of cosines. Frequencies above the pixels' resolution are left out.
    """
    weights = _cosine_weights(length)
    seen = min(size, len(weights))
    one, other = rng.standard_normal((2, len(weights), len(weights)), dtype=np.float32)[:, :seen, :seen]
    spectrum = np.zeros((size, size), np.float32)
    both = math.cos(z / length) * one + math.sin(z / length) * other
    np.multiply(np.outer(weights[:seen], weights[:seen]), both, out=spectrum[:seen, :seen])
    return scipy.fft.dctn(spectrum, type=3)  # one thread; multithreaded matrix products compete with other programs


@lru_cache(maxsize=64)
def _cosine_weights(length):
    """Square roots of the spectrum of a Gaussian covariance, as the cosine transform of type 3 counts its terms."""
    order = np.arange(math.ceil(4 * FIELD_OF_VIEW / (np.pi * length)))
    weights = np.exp(-((np.pi * order * length / FIELD_OF_VIEW) ** 2) / 4)
    weights /= np.sqrt(np.sum(weights**2 * np.where(order, 0.5, 1.0)))
    return (weights * np.where(order, 0.5, 1.0)).astype(np.float32)


def _kept(size, pixel, smoothing):
    """`[size]`: the share that is left of each frequency of a row and its mirror image, which is a sum of cosines."""
    order = np.arange(size, dtype=np.float32)  # in steps of 1 / (2 field of view)
    kept = np.clip(FIELD_OF_VIEW / pixel - order + 0.5, 0, 1)  # up to 1 / (2 pixel)
    return kept * np.exp(-0.5 * (np.pi * smoothing * order / FIELD_OF_VIEW) ** 2)
