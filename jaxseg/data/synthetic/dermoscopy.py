"""Synthetic dermoscopy with known lesions, for the study of the border shortcut.

Lin, Weng et al. 2024, *Shortcut Learning in Medical Image Segmentation*, section 4: lesions are photographed in the
middle of the image, so a zero-padded network can learn "border pixels are background". Nothing here builds in that
shortcut: the label is always the inside of the lesion's contour, and the lesion lies where a photographer would put
it. Its size and its distance from the centre follow the masks of the ISIC 2017 training set. What makes the shortcut
worth learning is natural too: dark vignettes, ink and stains lie at the border and can look like lesions.

Everything but the sensor's noise is optical density: layers of absorbing matter over skin, summed, and seen as
`colour * exp(-density)` (Beer-Lambert). The scene lives in unit coordinates, x and y in [-1, 1] with the image's
border at -1 and 1, so that lengths are in units of half the image's side and any size shows the same scene.
"""

from functools import lru_cache

import numpy as np

# Quantiles of 1600 masks of the ISIC 2017 training set, stretched to 256 x 256: area as a fraction of the image, offset
# as the distance of the mask's centroid from the image's centre in half sides. The last two of each exceed ISIC's
# (0.71 and 0.91; 0.40 and 0.68), because the border crops large lesions and far ones are moved back into the frame.
_LEVELS = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.98, 1.0)
_AREA = (0.009, 0.016, 0.026, 0.051, 0.129, 0.279, 0.461, 0.584, 0.72, 1.00)
_OFFSET = (0.0, 0.023, 0.036, 0.059, 0.103, 0.171, 0.260, 0.308, 0.43, 0.75)

# RGB, 0 to 255: light to dark skin under the white balance of different dermoscopes.
_LIGHT_SKIN = (244, 230, 214), (240, 214, 208), (238, 150, 150), (206, 170, 150), (160, 174, 206)
_DARK_SKIN = (172, 142, 138), (208, 152, 96), (164, 114, 86), (122, 84, 66)
_SKIN = np.array([*_LIGHT_SKIN, *_DARK_SKIN])
# Optical density per unit of pigment: light brown, dark brown, black, red (blood), blue-gray (deep melanin).
_PIGMENTS = np.array(
    [(0.30, 0.65, 0.95), (0.70, 1.15, 1.35), (1.15, 1.30, 1.35), (0.22, 0.70, 0.62), (0.85, 0.75, 0.55)]
)
_INKS = np.array([(0.9, 1.3, 0.3), (1.3, 1.2, 0.6), (0.5, 1.0, 1.4), (1.5, 1.5, 1.4)])  # violet, blue, iodine, black
_GRAY = np.ones(3)
_REDNESS = np.array((0.05, 1.0, 0.8))

_ANGLES = np.linspace(0, 2 * np.pi, 256, endpoint=False)  # of the points of a contour


def render(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image of a skin lesion, and the truth about it.

    The same `(seed, index)` at another size is the same scene with other sensor noise.

    Args:
      seed: of the data set.
      index: of the image in it; images are independent and can be drawn in any order.
      size: side of the square image in pixels.

    Returns:
      image: uint8 `[size, size, 3]`, RGB.
      labels: uint8 `[size, size]`, 1 inside of the lesion's contour, 0 elsewhere; never empty from 32 pixels up.

    Raises:
      ValueError: `size` is not positive, or `seed` or `index` is negative.

    Source: Lin, Weng et al. 2024, section 4, with ISIC 2017 as the model for size, place and contrast of the lesions.
    """
    if size < 1:
        raise ValueError(f"size is {size}, but an image needs at least one pixel a side")
    rng = np.random.default_rng([seed, index])
    centre, radii = _draw_contour(rng)
    depth, mean_radius = _depth_inside(rng, centre, radii, size)
    layers = [*_skin_layers(rng, size), *_freckle_layers(rng, size), *_lesion_layers(rng, depth, mean_radius, size)]
    layers += [*_artefact_layers(rng, size), *_hair_layers(rng, size), *_light_layers(rng, centre, radii, size)]
    densities = np.stack([density for density, _ in layers], axis=-1)
    absorptions = np.array([absorption for _, absorption in layers], np.float32)
    image = _draw_skin_colour(rng) * np.exp(-(densities @ absorptions))
    # Last, because the number of draws depends on the size.
    image += rng.uniform(1.0, 4.5) * rng.standard_normal((size, size, 3), dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), (depth > 0).astype(np.uint8)


# The lesion's contour: a closed polar curve, `radii` at equal angles about `centre`.


def _draw_contour(rng):
    area = 4 * _quantile(rng, _AREA)  # the image's own area is 4 in these units
    offset, direction = _quantile(rng, _OFFSET), rng.uniform(0, 2 * np.pi)
    # A lesion that fills the image is nearly as square as the image: photographers step back until it fits.
    fullness = np.clip((area / 4 - 0.25) / 0.30, 0, 1)
    elongation = np.exp((0.12 + 0.34 * abs(rng.standard_normal())) * (1 - 0.85 * fullness))
    turn = rng.uniform(0, np.pi)
    along, across = np.cos(_ANGLES - turn), np.sin(_ANGLES - turn)
    squareness = 2 + 2.2 * fullness
    radii = 1 / np.sqrt(along**2 / elongation + across**2 * elongation)
    radii /= (abs(np.cos(_ANGLES)) ** squareness + abs(np.sin(_ANGLES)) ** squareness) ** (1 / squareness)
    orders = np.arange(2, 13)
    amplitudes = rng.uniform(0.04, 0.22) * (1 - 0.4 * fullness) * rng.standard_normal(orders.size) / orders**0.8
    phases = rng.uniform(0, 2 * np.pi, orders.size)
    radii *= np.exp(amplitudes @ np.cos(orders[:, None] * _ANGLES + phases[:, None]))
    radii *= np.sqrt(area / (np.pi * np.mean(radii**2)))
    x, y = radii * np.cos(_ANGLES), radii * np.sin(_ANGLES)
    # Offsets are measured at the centroid, so the centroid must lie at the drawn offset, not the curve's origin.
    centroid = 2 / 3 * np.pi / area * np.array([np.mean(radii**2 * x), np.mean(radii**2 * y)])
    centre = offset * np.array([np.cos(direction), np.sin(direction)]) - centroid
    if rng.random() < 0.75:  # most, not all: some lesions leave the image
        centre = np.array([_keep_in_frame(centre[0], x), _keep_in_frame(centre[1], y)])
    return centre, radii


def _keep_in_frame(position, outline, margin=0.01):
    lowest, highest = margin - 1 - outline.min(), 1 - margin - outline.max()
    return (lowest + highest) / 2 if lowest > highest else np.clip(position, lowest, highest)


def _depth_inside(rng, centre, radii, size):
    """Distance to the contour along the ray from the centre, positive inside, and the contour's mean radius."""
    mean_radius = float(np.mean(radii))
    # Warping the plane frays the contour where a polar curve could only ripple.
    coarse, fine = rng.uniform(0.02, 0.07) * mean_radius, rng.uniform(0.01, 0.04) * mean_radius**0.5
    x, y = (
        _axis(size)[None] - centre[0] + coarse * _noise(rng, 12, size) + fine * _noise(rng, 36, size),
        _axis(size)[:, None] - centre[1] + coarse * _noise(rng, 12, size) + fine * _noise(rng, 36, size),
    )
    turn = np.arctan2(y, x) / (2 * np.pi)
    reach = np.interp(turn.ravel(), _ANGLES / (2 * np.pi), radii, period=1).reshape(size, size)
    return (reach - np.hypot(x, y)).astype(np.float32), mean_radius


# Layers: pairs of a density [size, size] and its absorption [3]. Each function draws the same numbers at any size.


def _skin_layers(rng, size):
    yield rng.uniform(0.02, 0.09) * _noise(rng, 3, size), _GRAY
    yield rng.uniform(0.01, 0.08) * _noise(rng, 5, size), _REDNESS
    yield rng.uniform(0.01, 0.08) * _noise(rng, 7, size), _PIGMENTS[0]
    yield rng.uniform(0.01, 0.07) * _noise(rng, 16, size), _REDNESS
    yield rng.uniform(0.005, 0.04) * _noise(rng, 30, size), _PIGMENTS[0]
    yield rng.uniform(0.005, 0.035) * _noise(rng, 90, size), _GRAY


def _freckle_layers(rng, size):
    count = rng.integers(0, 30) if rng.random() < 0.6 else 0
    places, widths = rng.uniform(-1.1, 1.1, (2, count)), rng.uniform(0.012, 0.055, count)
    yield _spots(places, widths, rng.uniform(0.05, 0.5, count), size), rng.choice(_PIGMENTS[:2])


def _lesion_layers(rng, depth, mean_radius, size):
    softness = mean_radius * np.exp(rng.uniform(np.log(0.02), np.log(0.22)))
    strength = max(np.exp(rng.normal(-0.70, 0.70)), 0.18)  # spread as contrasts are in ISIC: many weak, none invisible
    mottling, patchiness = _noise(rng, 9 / max(mean_radius, 0.25), size), _noise(rng, 28, size)
    density = 1 + rng.uniform(0.05, 0.35) * mottling + rng.uniform(0.05, 0.35) * patchiness
    density += rng.uniform(-0.2, 0.5) * np.minimum(
        depth / mean_radius, 1
    )  # many are darkest in the middle, some hollow
    if rng.random() < 0.4:
        density += rng.uniform(0.15, 0.5) * _pigment_network(rng, patchiness, size)
    if rng.random() < 0.4:
        density += rng.uniform(0.4, 1.2) * np.maximum(_noise(rng, 44, size) - 1, 0)  # dots and globules
    density = strength * np.maximum(density, 0.12) * _sigmoid(depth / softness)
    first, second, third = rng.choice(len(_PIGMENTS), 3, replace=False, p=(0.34, 0.36, 0.11, 0.14, 0.05))
    share = _sigmoid(2 * mottling + rng.normal(0.5, 1.5))
    accent = _sigmoid(4 * (_noise(rng, 7, size) - rng.uniform(0.6, 2.4)))
    yield density * share, _PIGMENTS[first]
    yield density * (1 - share), _PIGMENTS[second]
    yield 0.6 * density * accent, _PIGMENTS[third]


def _pigment_network(rng, distortion, size):
    """A honeycomb of dark lines in [-1, 0.5]: three plane waves 60 degrees apart, bent by the skin's irregularity."""
    frequency, turn = 2 * np.pi / rng.uniform(0.07, 0.14), rng.uniform(0, np.pi)
    waves = 0
    for angle in turn + np.pi / 3 * np.arange(3):
        phase = frequency * (np.cos(angle) * _axis(size)[None] + np.sin(angle) * _axis(size)[:, None])
        waves = waves + np.cos(phase.astype(np.float32) + 0.7 * distortion)
    return -waves / 3


def _artefact_layers(rng, size):
    if rng.random() < 0.30:
        yield rng.uniform(1, 3) * _ruler(rng, size), _GRAY
    if rng.random() < 0.30:
        yield rng.uniform(0.3, 1.1) * _blotch(rng, size), rng.choice(_INKS)


def _ruler(rng, size):
    """Ticks, mostly on a base line, in the outer third of the image."""
    start, turn, spacing = rng.uniform(-0.7, -0.2), rng.uniform(-0.25, 0.25), rng.uniform(0.06, 0.12)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    origin = np.array([start, rng.uniform(0.62, 0.95)])
    feet = origin + spacing * np.arange(10)[:, None] * along
    tips = feet - rng.uniform(0.04, 0.08) * across
    if rng.random() < 0.7:
        feet, tips = np.vstack([feet, feet[:1]]), np.vstack([tips, feet[-1:]])
    if rng.random() < 0.4:  # on the left side rather than at the bottom
        feet, tips = feet[:, ::-1] * (-1, 1), tips[:, ::-1] * (-1, 1)
    return _strokes(feet, (feet + tips) / 2, tips, np.full(len(feet), 0.012), size)


def _blotch(rng, size):
    """Ink or dried disinfectant at the border: overlapping drops with a frayed rim."""
    anchor, count = _near_border(rng, 1, 0.12), rng.integers(4, 12)
    drops = anchor + rng.uniform(0.05, 0.2) * rng.standard_normal((2, count))
    wet = _spots(drops, rng.uniform(0.05, 0.13, count), np.ones(count), size)
    grain = _noise(rng, 40, size)
    return _sigmoid(rng.uniform(6, 14) * (wet - 0.5) + rng.uniform(0.5, 3) * np.minimum(2 * wet, 1) * grain)


def _hair_layers(rng, size):
    if rng.random() < 0.5:
        return
    count = int(np.exp(rng.uniform(0, np.log(41))))
    roots = rng.uniform(-1.1, 1.1, (count, 2))
    headings = rng.uniform(0, 2 * np.pi) + rng.uniform(0.1, 0.9) * rng.standard_normal(count)
    reach = rng.uniform(0.25, 1.0, count)[:, None]
    bends = headings + 0.5 * rng.standard_normal(count)
    middles = roots + reach * np.stack([np.cos(headings), np.sin(headings)], axis=-1)
    tips = middles + reach * np.stack([np.cos(bends), np.sin(bends)], axis=-1)
    widths = rng.uniform(0.006, 0.016) * rng.uniform(0.7, 1.3, count)
    yield rng.uniform(0.4, 2.2) * _strokes(roots, middles, tips, widths, size), rng.choice(_PIGMENTS[:3])


def _light_layers(rng, centre, radii, size):
    x, y = _axis(size)[None], _axis(size)[:, None]
    slope_x, slope_y = 0.07 * rng.standard_normal(2)
    yield slope_x * x + slope_y * y + rng.uniform(0, 0.16) * (x * x + y * y), _GRAY
    if rng.random() < 0.38:
        middle, squeeze = 0.06 * rng.standard_normal(2), rng.uniform(1.0, 1.25)
        outline = centre[:, None] + radii * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
        # The dermoscope was placed over the lesion, so the field of view contains it.
        needed = np.hypot(squeeze * (outline[0] - middle[0]), outline[1] - middle[1]).max()
        radius, softness = max(rng.uniform(1.02, 1.45), needed), np.exp(rng.uniform(np.log(0.008), np.log(0.12)))
        outside = np.hypot(squeeze * (x - middle[0]), y - middle[1]) - radius
        yield rng.uniform(0.5, 3.5) * _sigmoid(outside / softness), _GRAY


def _draw_skin_colour(rng):
    one, other = rng.choice(_SKIN, 2)
    mixed = one + rng.random() * (other - one)
    return (mixed * rng.uniform(0.92, 1.10) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)


# Drawing tools.


def _quantile(rng, values):
    return float(np.interp(rng.random(), _LEVELS, values))


def _near_border(rng, count, depth):
    """`count` places [2, count], evenly along the border and up to `depth` inside."""
    along, level = rng.uniform(-1, 1, count), rng.uniform(1 - depth, 1, count) * rng.choice((-1, 1), count)
    return np.where(rng.random(count) < 0.5, (along, level), (level, along))


def _sigmoid(value):
    return 0.5 + 0.5 * np.tanh(0.5 * value)


@lru_cache(maxsize=16)
def _axis(size):
    """Pixel centres [size] in unit coordinates."""
    return ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)


def _noise(rng, cells, size):
    """Smooth Gaussian noise of about unit variance: a random lattice of `cells` a side under cubic B-splines."""
    cells = int(np.ceil(cells))
    weights = _spline_weights(cells, size)
    return weights @ rng.standard_normal((cells + 3, cells + 3), dtype=np.float32) @ weights.T


@lru_cache(maxsize=128)
def _spline_weights(cells, size):
    distance = abs((_axis(size)[:, None] + 1) / 2 * cells + 1 - np.arange(cells + 3))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return (weights / np.sqrt(np.mean(np.sum(weights**2, axis=1)))).astype(np.float32)


def _spots(places, widths, heights, size):
    """Sum of round Gaussian spots: places [2, n], standard deviations [n] and heights [n]. Each spot is separable."""
    across, down = (
        np.exp(-0.5 * ((_axis(size)[:, None, None] - places) / widths) ** 2).astype(np.float32).swapaxes(0, 1)
    )
    return down @ (heights.astype(np.float32) * across).T


def _strokes(roots, middles, tips, widths, size):
    """Coverage in [0, 1) by thin quadratic Bezier strokes: control points [n, 2] and widths [n]."""
    t = np.linspace(0, 1, int(1.5 * size))[:, None, None]
    points = (1 - t) ** 2 * roots + 2 * t * (1 - t) * middles + t**2 * tips
    lengths = np.hypot(*(middles - roots).T) + np.hypot(*(tips - middles).T)
    # Every point carries its part of the stroke's area, in pixels, and shares it among the four nearest pixels. A
    # margin of one pixel collects what lies outside the image.
    areas = np.broadcast_to(lengths * widths * (size / 2) ** 2 / t.size, points.shape[:2])
    x, y = np.clip((points + 1) * (size / 2) + 0.5, 0, size + 0.999).transpose(2, 0, 1)
    column, row, width = x.astype(np.intp), y.astype(np.intp), size + 2
    right, below = areas * (x - column), y - row
    first = row * width + column
    indices = np.stack([first, first + 1, first + width, first + width + 1])
    shares = np.stack([(areas - right) * (1 - below), right * (1 - below), (areas - right) * below, right * below])
    canvas = np.bincount(indices.ravel(), shares.ravel(), minlength=width * width).reshape(width, width)
    return (1 - np.exp(-canvas[1:-1, 1:-1])).astype(np.float32)
