"""Calipers and text on images: drawn, detected and removed.

Lin, Weng et al. 2024, *Shortcut Learning in Medical Image Segmentation*, section 3: the measurement calipers and text
that sonographers leave on images are a shortcut for segmentation, which shows when they are removed. The strategies of
removal are those that Mikolaj et al. 2023, *Removing confounding information from fetal ultrasound images*
(arXiv:2303.13918), compare, except for their GAN: black box, noise, bilinear interpolation, fast marching, a network.

Images are uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`, RGB; what is returned has the same rank. Places are `(y, x)`, in
pixels, with 0 at the centre of the first one. Masks are bool `[H,W]`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from jaxseg.data.shifts import GRAY_WEIGHTS

CALIPER_STYLES = ("cross", "plus", "dotted")
REMOVALS = ("black", "noise", "bilinear", "fast_marching", "network")

Batch = Mapping[str, jax.Array]
Colour = Sequence[int]
Inpaint = Callable[[np.ndarray, np.ndarray], np.ndarray]

_DOT_SPACING = 4  # pixels from dot to dot
_LINE_PITCH = 1.3  # from line to line of a text, in heights
_NEIGHBOURS = np.ones((3, 3), np.uint8)  # of a pixel, itself included: strokes may be joined at corners alone
HIDDEN = 0.0  # what an inpainting network sees of a hole
_THRESHOLD_STEP = 40  # gray levels
_GRAY_CHROMA = 16  # levels between the channels of a pixel that still counts as gray
_COMPANY = 0.8  # share of the sharpness required of a stroke near another
_RIM = 0.4  # share of the contrast required of a soft edge
_LETTERS = 16  # different ones in a text-like hole
_INK = 0.6  # share of a letter's blocks that is filled
_CHANCES = 8 + 5 * 3 * _LETTERS  # uniform draws for a hole


# Drawing.


def draw_calipers(
    image: np.ndarray,
    points: np.ndarray,
    *,
    style: str = "cross",
    colour: Colour = (255, 255, 0),
    size: int = 9,
    thickness: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Marks at `points`, without soft edges; what is beyond the border is clipped.

    Args:
      image: uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`.
      points: `[P,2]`, (y, x), rounded to the nearest pixel.
      style: `cross` (diagonal), `plus`, or `dotted`: plus marks, and points 0 and 1, 2 and 3, ... joined by dots.
      colour: RGB, 0 to 255; on an image with one channel its gray level (ITU-R BT.601).
      size: of a mark, in pixels from end to end; an even size is taken as the next odd one.
      thickness: of its strokes, in pixels.

    Returns:
      A new image, and the pixels that are covered, bool `[H,W]`.

    Raises:
      ValueError: an unknown style, points that are not finite `[P,2]` or not in pairs where `dotted` needs them, a
        size or thickness below 1, or another type or shape of image.
    """
    _check_image(image)
    if style not in CALIPER_STYLES:
        raise ValueError(f"style is {style!r}; choose one of {', '.join(CALIPER_STYLES)}")
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite (y, x) pairs [P,2], got shape {points.shape}")
    if style == "dotted" and len(points) % 2:
        raise ValueError(f"dotted joins pairs of points, got {len(points)} points; give an even number")
    if size < 1 or thickness < 1:
        raise ValueError(f"size is {size} and thickness {thickness}; both must be at least 1")
    canvas = np.zeros(image.shape[:2], np.uint8)
    arm = size // 2
    for point in points:
        for direction in ((arm, arm), (arm, -arm)) if style == "cross" else ((arm, 0), (0, arm)):
            _line(canvas, point + direction, point - direction, thickness)
    if style == "dotted":
        for start, end in points.reshape(-1, 2, 2):
            gaps = max(int(np.hypot(*(end - start)) / _DOT_SPACING), 1)
            for dot in start + np.linspace(0, 1, gaps + 1)[:, None] * (end - start):
                _line(canvas, dot, dot, thickness)
    return _paint(image, canvas, colour)


def draw_text(
    image: np.ndarray,
    text: str,
    position: tuple[float, float],
    *,
    colour: Colour = (255, 255, 255),
    height: int = 12,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Text with soft edges, in Pillow's built-in font; what is beyond the border is clipped.

    Args:
      image: uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`.
      text: lines are separated by `\n`.
      position: (y, x) of the upper left corner of the first line.
      colour: RGB, 0 to 255; on an image with one channel its gray level (ITU-R BT.601).
      height: of the font in pixels; capital letters have about 0.7 of it, lines are 1.3 of it apart.

    Returns:
      A new image, and the pixels that are covered, if only in part, bool `[H,W]`.

    Raises:
      ValueError: a height below 1, or another type or shape of image.
    """
    _check_image(image)
    # OpenCV changes its font in version 5, and fonts differ between machines
    font = ImageFont.load_default(height)
    canvas = Image.new("L", image.shape[1::-1])
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(text.split("\n")):
        place = round(position[1]), round(position[0] + number * _LINE_PITCH * height)
        pen.text(place, line, fill=255, font=font)
    return _paint(image, np.asarray(canvas), colour)


def draw_head_calipers(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    style: str = "plus",
    colour: Colour = (255, 255, 0),
    size: int = 9,
    thickness: int = 1,
    text: str = "",
    height: int = 12,
) -> tuple[np.ndarray, np.ndarray]:
    """Annotations of a measured fetal head: calipers at the ends of its two axes, and text in the lower right corner.

    The axes are those along which the biparietal and the occipitofrontal diameter are taken; HC18 (van den Heuvel et
    al. 2018) annotates heads as ellipses.

    Args:
      image: uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`.
      mask: of the head, `[H,W]`.
      style: as in `draw_calipers`, like the next three.
      colour: of the text too.
      size: see there.
      thickness: see there.
      text: what the machine prints, such as `head_measurements` gives; by default nothing.
      height: of its font in pixels.

    Returns:
      A new image, and the pixels that are covered, bool `[H,W]`.

    Raises:
      ValueError: the mask is empty or of another size than the image; or as in `draw_calipers`.
    """
    _check_mask(image, mask)
    points = np.concatenate(ellipse_axes(mask))
    image, covered = draw_calipers(image, points, style=style, colour=colour, size=size, thickness=thickness)
    if not text:
        return image, covered
    lines, font = text.split("\n"), ImageFont.load_default(height)
    width = max(font.getlength(line) for line in lines)
    corner = np.subtract(image.shape[:2], (_LINE_PITCH * height * len(lines), width)) - height / 2
    image, written = draw_text(image, text, tuple(corner), colour=colour, height=height)
    return image, covered | written


def head_measurements(mask: np.ndarray, mm_per_pixel: float) -> str:
    """Three lines as a machine prints them: biparietal and occipitofrontal diameter and head circumference, in cm.

    The circumference is that of the ellipse by Ramanujan's second approximation (error below 1e-5 for heads).

    Args:
      mask: of the head, `[H,W]`.
      mm_per_pixel: its scale.

    Raises:
      ValueError: the mask is empty.
    """
    major, minor = (float(np.hypot(*(ends[1] - ends[0]))) * mm_per_pixel / 10 for ends in ellipse_axes(mask))
    h = 3 * ((major - minor) / (major + minor)) ** 2 if major else 0.0
    circumference = math.pi * (major + minor) / 2 * (1 + h / (10 + math.sqrt(4 - h)))
    return f"BPD {minor:.2f} cm\nOFD {major:.2f} cm\nHC {circumference:.2f} cm"


def ellipse_axes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the major and of the minor axis of the ellipse that has the mask's first and second moments.

    A filled ellipse with semi-axis a has the variance a^2 / 4 along it, so an axis is 4 sqrt(eigenvalue) of the
    covariance of the pixels' places.

    Args:
      mask: `[H,W]`, bool or 0 for what is not part of it.

    Returns:
      Major and minor axis, float `[2,2]` each: (y, x) of the end with the smaller y + x, so the left or upper one, and
      of the other. The axes of a circle can have any direction.

    Raises:
      ValueError: the mask is empty.
    """
    places = np.argwhere(mask)
    if not len(places):
        raise ValueError("the mask is empty, so it has no axes; leave this image out")
    centre = places.mean(0)
    variances, directions = np.linalg.eigh(np.cov(places.T, bias=True))
    axes = []
    for variance, direction in zip(variances, directions.T, strict=True):
        away = direction if direction.sum() > 0 else -direction
        reach = 2 * math.sqrt(max(variance, 0)) * away
        axes.append(np.stack([centre - reach, centre + reach]))
    return axes[1], axes[0]


# Detecting.


def is_gray(image: np.ndarray, *, gray_share: float = 0.95) -> bool:
    """Whether at least that share of the pixels of `[H,W,3]` has almost no colour: gray except for overlays."""
    return bool(np.mean(image.max(-1) - image.min(-1) <= _GRAY_CHROMA) >= gray_share)


def detect(
    image: np.ndarray,
    *,
    contrast: float = 50,
    sharpness: float = 0.5,
    max_stroke: int = 4,
    reach: int = 12,
    chroma: float = 40,
    gray_share: float = 0.95,
    dilation: int = 0,
) -> np.ndarray:
    """Calipers and text on an otherwise gray image: coloured strokes, and bright ones with sharp edges.

    A bright stroke differs from an echo in that it was drawn after the scan. An echo is as blurred as the beam is
    wide: where it is thin and bright in depth, it fades out sideways. A drawn stroke ends within a pixel or two on all
    sides. So at several thresholds of the white top-hat, each connected component is judged by its edges: the largest
    step between two neighbours there, as a share of the component's height, on average over its left and right ends
    and over its upper and lower ends. The smaller average has to reach `sharpness`. Near a detected stroke, 0.8
    of that is enough, as letters and marks come in groups.

    Args:
      image: uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`.
      contrast: gray levels; a bright stroke exceeds what is around it by more, its soft edges by more than 0.4 of it.
      sharpness: 0 to 1. The step at the edge of a hard stroke is 1; that of a soft one or of a compressed image is
        0.5 or more; that of an echo is mostly below 0.4.
      max_stroke: pixels of the thickest stroke; what is thicker, such as bone or a Doppler box, is left alone.
      reach: pixels around a stroke in which others need less sharpness.
      chroma: levels between the largest and the smallest of red, green and blue from which on a pixel is coloured.
      gray_share: the share of pixels with a chroma of at most 16 from which on an image counts as gray. In others
        colour says nothing and nothing is detected: photographs, stains, false-colour MRI. In gray images whose anatomy
        is as sharp as a pixel, such as small MRI slices, thin bright rims are mistaken for strokes.
      dilation: pixels by which the result is dilated, for the faint rim of soft edges.

    Returns:
      bool `[H,W]`.

    Raises:
      ValueError: another type or shape of image.
    """
    _check_image(image)
    strokes = np.zeros(image.shape[:2], bool)
    gray = image.reshape(strokes.shape) if image.shape[2:] != (3,) else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if image.shape[2:] == (3,):
        if not is_gray(image, gray_share=gray_share):
            return strokes
        difference = image.max(-1) - image.min(-1)
        coloured = (difference >= chroma).astype(np.uint8)
        # opening leaves only what is thick; edges are soft and colours compressed, so strokes look twice as thick
        strokes = coloured > cv2.morphologyEx(coloured, cv2.MORPH_OPEN, _square(2 * max_stroke + 1))
        # bright strokes are detected without the coloured ones, which would make echoes next to them look sharp
        region = removed_region(strokes, method="bilinear")
        gray = np.where(region, np.rint(_bilinear(gray[..., None], region)[..., 0]), gray).astype(np.uint8)
    strokes |= _bright_strokes(gray, contrast, sharpness, max_stroke, reach)
    return _dilated(strokes, dilation)


def _bright_strokes(gray, contrast, sharpness, max_stroke, reach):
    # mirrored at the border, so that what is clipped there does not look thin
    beyond = 2 * max_stroke
    tophat = cv2.morphologyEx(np.pad(gray, beyond, "symmetric"), cv2.MORPH_TOPHAT, _square(max_stroke + 1))
    tophat, steps = tophat[beyond:-beyond, beyond:-beyond], _steps(gray)
    certain, likely = np.zeros(gray.shape, bool), np.zeros(gray.shape, bool)
    # a mark on a bright echo is joined to it at low thresholds and separate at a higher one
    for threshold in np.arange(contrast, 256, _THRESHOLD_STEP):
        components, sharp = _edge_sharpness(tophat, threshold, steps)
        certain |= (sharp >= sharpness)[components]
        likely |= (sharp >= _COMPANY * sharpness)[components]
    components, _ = ndimage.label(likely, _NEIGHBOURS)
    near = np.unique(components[_dilated(certain, reach)])
    strokes = likely & np.isin(components, near)
    return strokes | (_dilated(strokes, 1) & (tophat > _RIM * contrast))


def _edge_sharpness(tophat, threshold, steps):
    """Components above a threshold, 0 elsewhere, and the sharpness of each component's edges; -1 for component 0."""
    components, count = ndimage.label(tophat > threshold, _NEIGHBOURS)
    heights = np.maximum(ndimage.maximum(tophat, components, np.arange(count + 1)), 1)
    sharp = np.full(count + 1, np.inf)
    for axis in (0, 1):
        total, ends = np.zeros(count + 1), np.zeros(count + 1)
        for side in (-1, 1):
            # what the image's border clips has no end there
            end = (components > 0) & (_neighbour(components, axis, side) == 0)
            total += np.bincount(components[end], steps[axis, side][end], minlength=count + 1)
            ends += np.bincount(components[end], minlength=count + 1)
        sharp = np.minimum(sharp, total / np.maximum(ends, 1) / heights)
    sharp[0] = -1
    return components, sharp


def _steps(gray):
    """By axis and side: how far it goes down from a pixel to the next on that side, or to it from the one before."""
    level, steps = gray.astype(np.int32), {}
    for axis in (0, 1):
        for side in (-1, 1):
            step = level - _neighbour(level, axis, side)
            steps[axis, side] = np.maximum(step, _neighbour(step, axis, -side))
    return steps


def _neighbour(array, axis, side):
    """What the next pixel has, at the border the pixel itself."""
    places = np.clip(np.arange(array.shape[axis]) + side, 0, array.shape[axis] - 1)
    return np.take(array, places, axis)


# Removing.


def remove(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    method: str,
    margin: int = 1,
    seed: int = 0,
    inpaint: Inpaint | None = None,
) -> np.ndarray:
    """The image with what the mask covers removed by one of `REMOVALS`; outside `removed_region` every bit stays.

    - `black`: boxes of 0.
    - `noise`: every pixel is that of another place of the image, drawn independently among those outside the region.
      So the noise has the gray levels, or colours, of the image.
    - `bilinear`: linear along the row between the two nearest pixels outside the region, the same along the column,
      and the mean of both, each weighed by one over its gap. Exact where the image is a plane. An axis along which the
      region reaches the border does not count; where neither does, the nearest pixel outside the region.
    - `fast_marching`: Telea 2004, with a radius of 3 pixels.
    - `network`: what `inpaint` says.

    Mikolaj et al. 2023 name the first four and networks; what their names leave open is as above.

    Args:
      image: uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`.
      mask: of the overlay, bool `[H,W]`; it may be empty.
      method: one of `REMOVALS`.
      margin: pixels by which the mask is dilated first, as strokes have soft edges.
      seed: of `noise`.
      inpaint: of `network`: images `[B,H,W,C]` float32 in [-1, 1], 0 in the region, and regions bool `[B,H,W]`, to
        images of that shape; `training.inpainting.train_inpainter` makes one.

    Returns:
      A new image.

    Raises:
      ValueError: an unknown method, a mask of another size than the image, `inpaint` not given to `network` alone or
        of a wrong result, or a region that leaves nothing to fill it from.
    """
    region = removed_region(mask, method=method, margin=margin)
    _check_image(image)
    _check_mask(image, mask)
    if (inpaint is not None) != (method == "network"):
        raise ValueError(f"method is {method!r}; inpaint belongs to 'network', and must be given there")
    if method not in ("black", "network") and region.all():
        raise ValueError(f"the region is the whole image, so {method} has nothing to fill it from; use a smaller mask")
    if not region.any():
        return image.copy()
    pixels = image.reshape(*image.shape[:2], -1)
    match method:
        case "black":
            filled = np.zeros_like(pixels)
        case "noise":
            filled = _noise(pixels, region, seed)
        case "bilinear":
            filled = _bilinear(pixels, region)
        case "fast_marching":
            filled = cv2.inpaint(pixels, region.astype(np.uint8), 3, cv2.INPAINT_TELEA).reshape(pixels.shape)
        case _:
            filled = _ask(inpaint, pixels, region)
    levels = np.where(region[..., None], np.clip(np.rint(filled), 0, 255), pixels)
    return levels.astype(np.uint8).reshape(image.shape)


def removed_region(mask: np.ndarray, *, method: str, margin: int = 1) -> np.ndarray:
    """The pixels that `remove` may change, bool `[H,W]`.

    The mask dilated by `margin`; for `black` the bounding boxes of its connected components (8 neighbours).

    Args:
      mask: bool `[H,W]`.
      method: one of `REMOVALS`.
      margin: pixels.

    Raises:
      ValueError: an unknown method.
    """
    if method not in REMOVALS:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(REMOVALS)}")
    region = _dilated(np.asarray(mask, bool), margin)
    if method == "black":
        for box in ndimage.find_objects(ndimage.label(region, _NEIGHBOURS)[0]):
            region[box] = True
    return region


class ReconstructionError(NamedTuple):
    """How far the filled-in pixels are from the truth.

    Attributes:
      mae: mean absolute error in gray levels, 0 to 255.
      psnr: peak signal-to-noise ratio in dB, of the peak 255; infinite without error.
    """

    mae: float
    psnr: float


def reconstruction_error(clean: np.ndarray, removed: np.ndarray, mask: np.ndarray) -> ReconstructionError:
    """Mean errors over the pixels of the mask and all channels; NaN where the mask is empty.

    Args:
      clean: uint8, the image before anything was drawn on it.
      removed: uint8 of the same shape.
      mask: bool `[H,W]`, such as that of what was drawn.

    Raises:
      ValueError: the shapes differ.
    """
    if clean.shape != removed.shape:
        raise ValueError(f"clean {clean.shape} and removed {removed.shape} must have the same shape")
    _check_mask(clean, mask)
    if not mask.any():
        return ReconstructionError(math.nan, math.nan)
    error = removed[mask].astype(float) - clean[mask]
    square = float(np.mean(error**2))
    return ReconstructionError(float(np.mean(abs(error))), 10 * math.log10(255**2 / square) if square else math.inf)


def _noise(pixels, region, seed):
    known = pixels[~region]
    filled = pixels.copy()
    filled[region] = known[np.random.default_rng(seed).integers(0, len(known), np.count_nonzero(region))]
    return filled


def _bilinear(pixels, region):
    total, weights = np.zeros(pixels.shape), np.zeros((*region.shape, 1))
    for axis, size in enumerate(region.shape):
        line = np.expand_dims(np.arange(size), 1 - axis)
        before = np.maximum.accumulate(np.where(region, -1, line), axis)
        after = np.flip(np.minimum.accumulate(np.flip(np.where(region, size, line), axis), axis), axis)
        ends = [
            np.take_along_axis(pixels, np.clip(i, 0, size - 1)[..., None], axis).astype(float) for i in (before, after)
        ]
        gap = np.maximum(after - before, 1)
        share = ((line - before) / gap)[..., None]
        weight = (((before >= 0) & (after < size)) / gap)[..., None]
        total += weight * ((1 - share) * ends[0] + share * ends[1])
        weights += weight
    nearest = ndimage.distance_transform_edt(region, return_distances=False, return_indices=True)
    return np.where(weights > 0, total / np.where(weights > 0, weights, 1), pixels[tuple(nearest)])


def _ask(inpaint, pixels, region):
    seen = np.where(region[..., None], HIDDEN, pixels / 127.5 - 1).astype(np.float32)[None]
    answer = np.asarray(inpaint(seen, region[None]))
    if answer.shape != seen.shape or not np.isfinite(answer[0][region]).all():
        raise ValueError(f"inpaint gave {answer.shape}; it must give finite values of the shape {seen.shape}")
    return (answer[0] + 1) * 127.5


# Training an inpainting network.


def holes(
    key: jax.Array, batch: Batch, *, count: int = 8, size: tuple[float, float] = (7.0, 40.0)
) -> dict[str, jax.Array]:
    """`(key, batch) -> batch` of examples for inpainting: holes in the shapes of calipers and text are cut into images.

    Every image gets 1 to `count` holes, anywhere: crosses, plus marks, dotted lines in any direction, and rows of
    letter-like blocks. They are dilated by a pixel, as `remove` does. What a hole of sample i looks like is a function
    of `fold_in(key, position[i])`, where `batch["position"]` is the sample's place in the whole batch (without it the
    batch is whole), so it does not matter how a batch is split.

    Args:
      key: typed random key.
      batch: `"images"` float32 `[B,H,W,C]` in [-1, 1]; where known, `"overlays"` bool `[B,H,W]`: real overlays, under
        which the truth is unknown. They are hidden like holes and never scored.
      count: the most holes in an image.
      size: the least and the greatest length in pixels; marks and the height of letters have up to half of the latter.

    Returns:
      The batch with `"images"` 0 where they are hidden, `"masks"` bool `[B,H,W]`, what is hidden, `"scored"` bool
      `[B,H,W]`, the part of it whose truth is known, and `"targets"`, the images as they were.

    Raises:
      ValueError: images of another type or rank, a count below 1, or a size that is no range above 0.
    """
    images = batch["images"]
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"holes are cut into float images [B,H,W,C] in [-1, 1], got {images.dtype}{images.shape}")
    if count < 1 or not 0 < size[0] <= size[1]:
        raise ValueError(f"count is {count} and size {size}; give at least 1 hole and 0 < least <= greatest")
    position = batch.get("position", jnp.arange(len(images), dtype=jnp.int32))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, position)
    cut = jax.vmap(lambda key: draw_holes(key, images.shape[1:3], count=count, size=size))(keys)
    unknown = batch.get("overlays", jnp.zeros_like(cut))
    hidden = cut | unknown
    seen = jnp.where(hidden[..., None], jnp.asarray(HIDDEN, images.dtype), images)
    return {**batch, "images": seen, "masks": hidden, "scored": cut & ~unknown, "targets": images}


def draw_holes(key: jax.Array, shape: tuple[int, ...], *, count: int, size: tuple[float, float]) -> jax.Array:
    """The holes of one image, bool `shape`; see `holes`."""
    # one draw for everything: each takes XLA seconds to compile
    chances = jax.random.uniform(key, (count, _CHANCES))
    number = 1 + jnp.floor(count * chances[0, 0])
    drawn = jax.vmap(lambda chances: _draw_hole(chances, shape, size))(chances[:, 1:])
    cut = jnp.any(drawn & (jnp.arange(count, dtype=jnp.float32) < number)[:, None, None], 0)
    return jax.lax.reduce_window(cut, False, jax.lax.bitwise_or, (3, 3), (1, 1), "SAME")


def _draw_hole(chances, shape, size):
    y, x = (jnp.arange(n, dtype=jnp.float32) - chances[i] * (n - 1) for i, n in enumerate(shape))
    y, x = y[:, None], x[None]
    between = lambda i, low, high: low + chances[i] * (high - low)
    least, most = size
    length, small = between(2, least, most), between(3, min(least, most / 2), most / 2)
    half_stroke, angle = between(4, 0.5, 1.5), between(5, 0, math.pi)
    # along and across: a cross is a plus mark turned by 45 degrees, a line has any direction
    turned = lambda angle: (x * jnp.cos(angle) + y * jnp.sin(angle), y * jnp.cos(angle) - x * jnp.sin(angle))
    plus = lambda u, v: (jnp.minimum(abs(u), abs(v)) < half_stroke) & (jnp.maximum(abs(u), abs(v)) < small / 2)
    u, v = turned(angle)
    line = (abs(u) < length / 2) & (abs(v) < half_stroke) & (jnp.mod(u, _DOT_SPACING) < 2 * half_stroke)
    letters = _letters(chances[7:].reshape(5, 3, _LETTERS) < _INK, y, x, small, length)
    kinds = jnp.stack([plus(*turned(0.0)), plus(*turned(math.pi / 4)), line, letters])
    return kinds[jnp.floor(len(kinds) * chances[6]).astype(jnp.int32)]


def _letters(filled, y, x, height, length):
    """A row of letters of 5 x 3 blocks."""
    block = height / 5
    row, column = (jnp.floor(at).astype(jnp.int32) for at in (y / block + 2.5, (x + length / 2) / block))
    letter, part = column // 4, column % 4  # the fourth part is the space between two letters
    inside = (row >= 0) & (row < 5) & (abs(x) < length / 2) & (part < 3)
    return inside & filled[jnp.clip(row, 0, 4), jnp.clip(part, 0, 2), letter % _LETTERS]


# Small tools.


def _line(canvas, start, end, thickness):
    (y0, x0), (y1, x1) = (np.rint(place).astype(int).tolist() for place in (start, end))
    cv2.line(canvas, (x0, y0), (x1, y1), 255, thickness)


def _paint(image, coverage, colour):
    """The image under a colour that covers it by `coverage` / 255."""
    mask = coverage > 0
    ink = np.asarray(colour, float) if image.shape[2:] == (3,) else np.dot(GRAY_WEIGHTS, colour)
    under = image[mask].astype(float)
    share = (coverage[mask] / 255).reshape(-1, *(1,) * (under.ndim - 1))
    painted = image.copy()
    painted[mask] = np.rint(under + share * (ink - under)).astype(np.uint8)
    return painted, mask


def _square(size):
    return np.ones((size, size), np.uint8)


def _dilated(mask, pixels):
    return cv2.dilate(mask.astype(np.uint8), _square(2 * pixels + 1)) > 0


def _check_image(image):
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        raise ValueError(f"an image is uint8 [H,W], [H,W,1] or [H,W,3], got {image.dtype}{image.shape}")


def _check_mask(image, mask):
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the mask is {mask.shape}, the image {image.shape}; they must have the same height and width")
