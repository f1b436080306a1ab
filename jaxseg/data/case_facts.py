"""What is kept of an examined case: plain statistics of its image and its mask."""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.data import overlays, raw_cases
from jaxseg.data.diagnosis import count
from jaxseg.data.raw_cases import Contents, FileProblems, Loaded, RawCase

GRID = 32  # cells a side of the maps of where masks lie
AT_LEAST = 256  # pixels a side at which JPEGs are examined
_NEAR = 0.04  # of the image's side: an overlay this near to the outline of a mask marks it
_ONE_LEVEL = 0.6  # of an image's marks; text and calipers are drawn at one gray level, thin bright anatomy is not
_CHROMA = 40  # gray levels between red, green and blue from which on a stroke is coloured
_LEVELS = 6  # gray levels by which compression changes the brightest pixel of a stroke
_SOFT_VALUES = 10  # more wrong values than that in a mask are interpolated edges
_NAMED_CLASSES = 10  # that a message lists
_ALIKE = (5, 95)  # per cent; clipped pixels between which less than a gray level lies do not differ


class Facts(NamedTuple):
    """What is kept of an examined case.

    Attributes:
      size: spatial sizes of the labels.
      channels: C of the file.
      digest: of the image's pixels.
      labels_digest: of the labels.
      eight_bits: whether intensities are stored with 8 bits.
      gray_levels: whether they are whole numbers from 0 to 255, however they are stored.
      lowest: of the intensities in the file.
      highest: of them.
      whole: whether they are whole numbers.
      top: 99th percentile of the intensities in the file, or the level with only outliers beyond; see `cases.span`.
      blank: whether all pixels are equal.
      clipped: share of the foreground that differs in the file and will be stored as one value, 0 or 255; of the
        channel with most of it, and 0 where a window clips on purpose.
      spacing: mm.
      mask_spacing: mm, of the mask; empty where it has no file.
      orientation: of the image, see `formats.Picture`.
      notes: of its files, see `cases.Loaded`.
      present: the classes above 0 that the labels have.
      foreground: its share of the image.
      where: `[32,32]`, share of foreground of each cell of the image.
      touches: whether foreground touches the border, in the plane.
      mean: of the intensities as they will be stored, 0 to 255.
      spread: their standard deviation.
      gray: whether the image is gray except for what may be drawn on it.
      overlay: share of pixels that overlays cover; NaN where they were not searched.
      overlay_map: `[32,32]`, where they are: share of the image in each cell.
      overlay_near: share of them near the outline of the mask; NaN without overlay or mask.
      area_near: share of the image that is near the outline.
    """

    size: tuple[int, ...]
    channels: int
    digest: bytes
    labels_digest: bytes
    eight_bits: bool
    gray_levels: bool
    lowest: float
    highest: float
    whole: bool
    top: float
    blank: bool
    clipped: float
    spacing: tuple[float, ...]
    mask_spacing: tuple[float, ...]
    orientation: str
    notes: tuple[str, ...]
    present: frozenset[int]
    foreground: float
    where: np.ndarray
    touches: bool
    mean: float
    spread: float
    gray: bool
    overlay: float
    overlay_map: np.ndarray
    overlay_near: float
    area_near: float


def of_case(case: RawCase, loaded: Loaded, contents: Contents, *, search: bool) -> Facts:
    """Looks at one case.

    Args:
      case: which one.
      loaded: its image and labels as they are in the files.
      contents: of the data set.
      search: whether to search for overlays, which takes longer than all the rest.

    Raises:
      FileProblems: it cannot be used; one line for each reason.
    """
    place = case.mask or case.place
    problems = [f"{place}: {text}" for text in _wrong_values(loaded.labels, contents)]
    image = raw_cases.with_channels(loaded.image, contents.channels)
    if image is None:
        problems.append(
            f"{case.place}: has {count(loaded.image.shape[-1], 'channel')}, the data set has {contents.channels}; "
            "convert it or leave it out"
        )
    if (loaded.image.ndim == 4) != contents.volumes:
        kind, other = ("picture", "volumes") if contents.volumes else ("volume", "pictures")
        problems.append(f"{case.place}: holds a {kind}, the others hold {other}; prepare them as two data sets")
    if not _finite(loaded.image):
        problems.append(f"{case.place}: holds values that are not finite; replace them")
    if problems:
        raise FileProblems(*problems)
    assert image is not None
    pixels = raw_cases.as_uint8(image, contents.scaling)
    foreground = raw_cases.classes(loaded.labels, contents.values)
    foreground[foreground == raw_cases.IGNORED] = 0
    marks, near, area = (
        _overlays(pixels, foreground > 0) if search and not contents.volumes else (None, math.nan, math.nan)
    )
    plane = foreground.reshape(-1, *foreground.shape[-2:]) > 0
    thinned = lambda array: array[..., :: _step(array, -3), :: _step(array, -2), :].astype(np.float32)
    values = thinned(pixels)
    return Facts(
        size=loaded.labels.shape,
        channels=loaded.image.shape[-1],
        digest=_digest(loaded.image),
        labels_digest=_digest(loaded.labels),
        eight_bits=loaded.image.dtype == np.uint8,
        gray_levels=raw_cases.are_gray_levels(loaded.image),
        lowest=float(loaded.image.min()),
        highest=float(loaded.image.max()),
        whole=raw_cases.are_whole(loaded.image),
        top=float(raw_cases.span(thinned(loaded.image).reshape(-1, 1), 1, 99)[1][0]),
        blank=bool((loaded.image == loaded.image.flat[0]).all()),
        clipped=_clipped(image, foreground > 0, contents),
        spacing=loaded.spacing,
        mask_spacing=loaded.mask_spacing,
        orientation=loaded.orientation,
        notes=loaded.notes,
        present=frozenset(np.unique(foreground).tolist()) - {0},
        foreground=float(plane.mean()),
        where=cells(plane.mean(0)),
        touches=bool(plane[:, [0, -1]].any() or plane[:, :, [0, -1]].any()),
        mean=float(values.mean()),
        spread=float(values.std()),
        gray=pixels.shape[-1] == 1 or (pixels.shape[-1] == 3 and overlays.is_gray(pixels)),
        overlay=math.nan if marks is None else float(marks.sum()),
        overlay_map=np.zeros((GRID, GRID), np.float32) if marks is None else marks,
        overlay_near=near,
        area_near=area,
    )


def _clipped(image: np.ndarray, foreground: np.ndarray, contents: Contents) -> float:
    window = contents.scaling is not None and contents.scaling[0] == "window"  # chosen for what it should show
    plain = contents.scaling is None and image.dtype == np.uint8
    if window or plain or image.shape[:-1] != foreground.shape:  # a JPEG at a smaller scale is not scaled either
        return 0.0
    values = image[foreground].astype(np.float32)
    low, high = (np.broadcast_to(end, values.shape[1:]) for end in raw_cases.ends(image, contents.scaling))
    shares = [0.0]
    for inside, black, white in zip(values.T, low, high, strict=True):
        for beyond in (inside[inside < black], inside[inside > white]):
            if beyond.size and np.ptp(np.percentile(beyond, _ALIKE)) > (white - black) / 255:
                shares.append(beyond.size / inside.size)
    return max(shares)


def _finite(image: np.ndarray) -> bool:
    """Whether all intensities are finite in float32, in which they are scaled."""
    with np.errstate(over="ignore"):
        return image.dtype.kind != "f" or bool(np.isfinite(image.astype(np.float32, copy=False)).all())


def _wrong_values(labels: np.ndarray, contents: Contents) -> Iterator[str]:
    wrong = raw_cases.unknown_values(labels, contents.values)
    if not wrong:
        return
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    held = f"holds the value{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong[:3]))}{more}"
    if set(contents.values) == {0, 255}:
        remedy = "threshold it at 128" if len(wrong) > _SOFT_VALUES else "set every pixel to one of them"
        yield f"{held}; a mask is 0 outside of the object and 255 inside: {remedy}{contents.remedy}"
    else:
        names = dict(enumerate(contents.class_names)) | {raw_cases.IGNORED: "without annotation"}
        named = [f"{value} {names[k]}" for value, k in sorted(contents.values.items())]
        rest = len(named) - _NAMED_CLASSES
        known = ", ".join(named[:_NAMED_CLASSES]) + (f" and {rest} more" if rest > 0 else "")
        remedy = "resample it by nearest neighbours" if len(wrong) > _SOFT_VALUES else "set every pixel to one of them"
        yield f"{held}; the classes are {known}: {remedy}{contents.remedy}"


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(
        np.ascontiguousarray(image).data, digest_size=16, person=str(image.shape).encode()[:16]
    ).digest()


def _step(array: np.ndarray, axis: int) -> int:
    return max(1, array.shape[axis] // AT_LEAST)


def cells(plane: np.ndarray) -> np.ndarray:
    """Means of `[H,W]` over the cells of a grid; cells are shifted by at most a pixel to fall on whole ones."""
    for axis in (0, 1):
        edges = np.linspace(0, plane.shape[axis], GRID + 1).astype(int)
        low, high = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
        sums = np.insert(np.cumsum(plane, axis), 0, 0, axis)
        width = (high - low).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = (np.take(sums, high, axis) - np.take(sums, low, axis)) / width
    return plane.astype(np.float32)


def _overlays(pixels: np.ndarray, foreground: np.ndarray) -> tuple[np.ndarray | None, float, float]:
    """Where overlays are; of them, and of the whole image, the share that is near the mask's outline."""
    if pixels.shape[-1] not in (1, 3):
        return None, math.nan, math.nan
    marks = drawn_marks(pixels)
    where = cells(marks) / GRID**2
    if marks.shape != foreground.shape:  # the image was decoded at a smaller scale
        rows, columns = (np.arange(n) * m // n for n, m in zip(marks.shape, foreground.shape, strict=True))
        foreground = foreground[np.ix_(rows, columns)]
    if not foreground.any() or foreground.all() or not marks.any():
        return where, math.nan, math.nan
    outline = foreground ^ ndimage.binary_erosion(foreground, border_value=1)
    near = ndimage.distance_transform_edt(~outline) <= _NEAR * max(foreground.shape)
    return where, float(near[marks].mean()), float(near.mean())


def drawn_marks(pixels: np.ndarray) -> np.ndarray:
    """Of what looks like strokes, those that were certainly drawn: all of one level, else the coloured ones."""
    marks = overlays.detect(pixels)
    if _of_one_level(pixels.max(-1), marks):
        return marks
    coloured = pixels.max(-1).astype(int) - pixels.min(-1) >= _CHROMA
    return marks & coloured


def _of_one_level(gray: np.ndarray, marks: np.ndarray) -> bool:
    """Whether most of the marks are strokes with the same brightest level."""
    strokes, count = ndimage.label(marks, np.ones((3, 3)))
    if not count:
        return False
    ids = np.arange(1, count + 1)
    peaks, sizes = ndimage.maximum(gray.astype(int), strokes, ids), ndimage.sum_labels(marks, strokes, ids)
    alike = abs(peaks[:, None] - peaks) <= _LEVELS
    return bool((alike @ sizes).max() > _ONE_LEVEL * sizes.sum())
