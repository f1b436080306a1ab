"""Templates of a smear, cut out of an annotated image."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from jaxseg.data.synthetic.smear import (
    ARTIFACT_NAMES,
    CELL_NAMES,
    FADE,
    TEMPLATES,
    Box,
    Patch,
    Templates,
    check_rgb,
    disc,
    glass_of,
    opened,
)
from jaxseg.errors import InputError

_LOOSE = 0.2  # least share of its box that an artifact fills: boxes around platelets are wide
_NOISE = 1.2  # pixels: the Gaussian that removes noise before thresholding


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
    separate the nucleus from the rest of a white cell, it is six times the spread of the glass (5 % at least).

    Cells are whole and convex, and at most a quarter of their outline touches other objects: in crowded smears nearly
    all do. The three that touch least are taken. Artifacts are, in this order until there are three: annotated ones
    that are whole; nuclei or lobes of annotated white cells (Otsu's threshold of the red channel, which red cells
    hardly absorb); objects in no box that are smaller than a quarter of a cell, such as platelets, which BBBC041 does
    not annotate.

    The background is the largest empty square, if its side is a quarter of the image's shorter side or
    more. Otherwise it is the light alone: a quadratic surface fitted to the glass. Had the boxes of the image been
    filled with it, their outlines would show as cells that no label mentions. Either is smoother than the cells, the
    square because it is enlarged, which the paper does as well; networks may see that.

    Args:
      image: uint8 `[H,W,3]`, RGB.
      boxes: `[N,4]` integer pixels, (top, left, bottom, right), the last two excluded; parts outside are ignored.
      names: `[N]`, the classes.
      cell_names: classes that are cells.
      artifact_names: classes that are artifacts; other classes are neither, and are avoided.

    Raises:
      ValueError: arrays of another type or shape.
      InputError: too few cells or artifacts can be cut out, a box is not in the image, or the image shows no glass.
    """
    check_rgb("the image", image)
    corners = _clipped(np.asarray(boxes), names, *image.shape[:2])
    things = _absorbing(image[..., 1])
    taken = cv2.dilate(things.astype(np.uint8), disc(2 * FADE)) > 0
    for top, left, bottom, right in corners:
        taken[top:bottom, left:right] = True
    light = _fit_light(image, ~taken)
    background = _cut_background(image, light, taken)
    even = np.clip(np.rint(image / light * glass_of(background)), 0, 255).astype(np.uint8)
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
    templates = tuple(itertools.islice(patches, TEMPLATES))
    if len(templates) < TEMPLATES:
        raise InputError(f"the image has {len(templates)} {what}, and {TEMPLATES} are needed; choose another image")
    return templates


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
    """Where the green channel is darker than glass, `[H,W]`."""
    spread = 1.4826 * np.median(np.abs(transmittance[free] - 1))  # the standard deviation, if it were Gaussian
    return cv2.GaussianBlur(transmittance, (0, 0), _NOISE) < 1 - max(6 * spread, 0.05)


def _cut_background(image: np.ndarray, light: np.ndarray, taken: np.ndarray) -> np.ndarray:
    # in the chessboard metric a pixel's distance from objects and the border is half the side of its free square
    distance = cv2.distanceTransform(np.pad(~taken, 1).astype(np.uint8), cv2.DIST_C, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(np.argmax(distance), distance.shape)
    reach = int(distance[row, column]) - 1
    if 2 * reach + 1 < min(taken.shape) / 4:
        return np.rint(light).astype(np.uint8)
    return image[row - reach : row + reach + 1, column - reach : column + reach + 1].copy()


def _cut_cells(image: np.ndarray, boxes: np.ndarray) -> Iterator[Patch]:
    """Cells that are good templates, those that touch least first; none twice, even if boxes repeat."""
    candidates = []
    for box in boxes:
        rgb, within = _crop(image, box)
        things = _absorbing(rgb[..., 1], _near(within))
        cut = _cut_whole(rgb, things, within, fill=0.6)
        if cut and cut.convexity > 0.93:
            candidates.append((cut, box))
    taken: list[np.ndarray] = []
    for cut, box in sorted(candidates, key=lambda pair: pair[0].contact):
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
    contact: float  # share of the outline that touches other objects
    convexity: float  # area by that of the convex hull


def _cut_whole(rgb: np.ndarray, things: np.ndarray, within: Box, *, fill: float) -> _Cut | None:
    """The object in a box.

    None where more than a quarter of its outline touches others, where the image's border crops it, or where its own
    box and the given one share too little.

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
    components, count = ndimage.label(opened(boxed, max(1, round(0.08 * min(height, width)))))
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
        parts = opened(nucleus, max(1, round(share * min(nucleus.shape))))
        limits = {"least": 0.02 * nucleus.size, "most": 0.5 * nucleus.size}
        cuts.append([patch for patch, _ in _cut_parts(image, parts, (top, left), **limits)])
    yield from next((lobes for lobes in cuts if len(lobes) > 1), cuts[0])


def _cut_unnamed(
    image: np.ndarray, dark: np.ndarray, artifacts: np.ndarray, others: np.ndarray, most: float
) -> Iterator[Patch]:
    """Objects of at most `most` pixels that touch only artifacts' boxes and have no own box, largest first."""
    components, _ = ndimage.label(ndimage.binary_fill_holes(dark))
    boxed = [components[top:bottom, left:right].ravel() for top, left, bottom, right in others]
    touching = np.unique(np.concatenate([[0], *boxed]))
    small = opened(np.isin(components, touching, invert=True), 1)
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
    margin = max(2 * FADE, round(0.12 * max(bottom - top, right - left)))
    first_row, first_column = max(top - margin, 0), max(left - margin, 0)
    crop = image[first_row : bottom + margin, first_column : right + margin].copy()
    return crop, (top - first_row, left - first_column, bottom - first_row, right - first_column)


def _near(box: Box) -> tuple[slice, slice]:
    top, left, bottom, right = box
    return slice(max(top - FADE, 0), bottom + FADE), slice(max(left - FADE, 0), right + FADE)


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
