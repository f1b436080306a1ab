"""TIFF: tifffile decodes it, and what its tags say of colours, grays and rotations is applied."""

import io
import math
import pathlib
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxseg.data.formats.lengths import in_mm
from jaxseg.data.formats.picture import UNKNOWN, Picture, Unusable, reason
from jaxseg.data.formats.turns import ON_ITS_SIDE, turned

SUFFIXES = (".tif", ".tiff")

_ASSOCIATED = 1  # opacity that the colours are multiplied with
_OPACITY = (_ASSOCIATED, 2)  # kinds of extra samples
_MOST_CHANNELS = 16  # a last axis of at most that many, after a longer first one, is channels


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture or a stack of them: the whole resolution of a pyramid, the first of several images."""
    del at_least
    with tifffile.TiffFile(path) as file:
        whole = [series for series in file.series if not series.keyframe.is_reduced] or file.series
        series, others = whole[0], len(whole) - 1
        page: Any = series.keyframe
        array = _rgb(path, series) if _has_foreign_colours(page) else _as_shown(series)
        palette = _palette(page)
        spacing = _spacing(file, series, array.ndim - 1)
    more = "1 more image of another size or kind" if others == 1 else f"{others} more images of other sizes or kinds"
    notes = (f"holds {more}; the first was taken",) if others else ()
    return Picture(array, spacing, palette=palette, notes=notes)


def _spacing(file: Any, series: Any, rank: int) -> tuple[float, ...]:
    """As microscopes store it, by ImageJ or OME; the dots per inch of photographs mean nothing."""
    told = _of_ome(file.ome_metadata) if file.is_ome else _of_imagej(file) if file.is_imagej else {}
    lengths = {axis: length if 0 < length < math.inf else UNKNOWN for axis, length in told.items()}
    depth, rows, columns = (lengths.get(axis, UNKNOWN) for axis in "ZYX")
    if series.keyframe.tags.valueof("Orientation", 1) in ON_ITS_SIDE:
        rows, columns = columns, rows
    return (depth if "Z" in series.axes else UNKNOWN, rows, columns)[3 - rank :]


def _of_imagej(file: Any) -> dict[str, float]:
    told = file.imagej_metadata or {}
    unit, tags = in_mm(str(told.get("unit", ""))), file.pages.first.tags
    if unit is None:
        return {}
    lengths = {"Z": _number(told.get("spacing")) * unit}
    for axis in "XY":
        pixels, units = tags.valueof(f"{axis}Resolution", (0, 1))
        lengths[axis] = unit * units / pixels if pixels else UNKNOWN
    return lengths


def _of_ome(text: str) -> dict[str, float]:
    """Of the first image."""
    try:
        elements = ElementTree.fromstring(text).iter()
    except ElementTree.ParseError:
        return {}
    pixels = next((element.attrib for element in elements if element.tag.endswith("}Pixels")), {})
    units = {axis: in_mm(pixels.get(f"PhysicalSize{axis}Unit", "um")) or UNKNOWN for axis in "ZYX"}
    return {axis: _number(pixels.get(f"PhysicalSize{axis}")) * unit for axis, unit in units.items()}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return UNKNOWN


def _has_foreign_colours(page: Any) -> bool:
    """Whether tifffile leaves the colours alone; those of a JPEG it turns into RGB."""
    kind, compression = tifffile.PHOTOMETRIC, tifffile.COMPRESSION
    jpeg = page.compression in (compression.JPEG, compression.OJPEG)
    return page.photometric in (kind.SEPARATED, kind.CIELAB) or (page.photometric == kind.YCBCR and not jpeg)


def _rgb(path: pathlib.Path, series: Any) -> np.ndarray:
    """Uint8 `[H,W,3]` or `[D,H,W,3]`, as Pillow shows the pages of a series."""
    shown = []
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:  # Pillow turns no file that it maps into memory
            for page in series.pages:
                image.seek(page.index)
                shown.append(np.array(ImageOps.exif_transpose(image).convert("RGB")))
    except (UnidentifiedImageError, ValueError) as error:
        colours = f"{series.keyframe.photometric.name} colours of {series.keyframe.bitspersample} bits"
        raise Unusable(f"holds {colours}, which cannot be read here ({reason(error)}); save it as RGB") from error
    return np.stack(shown) if len(shown) > 1 else shown[0]


def _as_shown(series: Any) -> np.ndarray:
    """`[H,W,C]` or `[D,H,W,C]` without opacity; small numbers are dark, and rows and columns as in a viewer."""
    page, axes, array = series.keyframe, series.axes, series.asarray()
    if axes == "QYX" and array.shape[-1] <= _MOST_CHANNELS < array.shape[0]:
        axes = "YXS"  # tifffile takes the first axis of an array for pages where nothing says that the last is colour
    array = _channels_last(array, axes)
    array = array.astype(np.uint8) if array.dtype == bool else array
    if "S" in axes:
        first = array.shape[-1] - len(page.extrasamples)
        opacity = [first + i for i, kind in enumerate(page.extrasamples) if int(kind) in _OPACITY]
        if _ASSOCIATED in page.extrasamples and array.shape[-1] == page.samplesperpixel:
            array = _divided(array, first + list(page.extrasamples).index(_ASSOCIATED))
        array = np.delete(array, opacity, axis=-1) if opacity else array
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        array = _white_is_zero(array, page.bitspersample)
    return turned(array, page.tags.valueof("Orientation", 1))


def _divided(array: np.ndarray, opacity: int) -> np.ndarray:
    """Colours as they were before they were multiplied with the opacity, rounded down as Pillow does; 0 without any."""
    top = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1.0
    share = array[..., opacity : opacity + 1]
    colours = np.where(share > 0, array * float(top) / np.where(share > 0, share, 1), 0)
    colours = np.minimum(np.floor(colours), top) if array.dtype.kind in "iu" else colours
    return colours.astype(array.dtype)


def _channels_last(array: np.ndarray, axes: str) -> np.ndarray:
    letters = "".join("D" if letter in "ZQIT" else "C" if letter in "SC" else letter for letter in axes)
    keep = [i for i, letter in enumerate(letters) if letter in "DYXC"]
    if len(keep) != len(letters) or sorted(set(letters)) != sorted(letters):
        raise Unusable(f"has the axes {axes} {array.shape}; save one picture or one stack, with or without channels")
    array = np.transpose(array, [letters.index(letter) for letter in "DYXC" if letter in letters])
    return array if "C" in letters else array[..., None]


def _palette(page: Any) -> np.ndarray | None:
    """Uint8 `[N,3]` or `[N,1]`, how a viewer shows values with a colour map, or of fewer than 8 bits."""
    kind = tifffile.PHOTOMETRIC
    if page.photometric == kind.PALETTE and page.colormap is not None:
        colours = (page.colormap.T >> 8).astype(np.uint8)
        return colours[:, :1] if (colours == colours[:, :1]).all() else colours
    if page.photometric in (kind.MINISWHITE, kind.MINISBLACK) and page.samplesperpixel == 1 and page.bitspersample < 8:
        return np.linspace(0, 255, 2**page.bitspersample).astype(np.uint8)[:, None]
    return None


def _white_is_zero(array: np.ndarray, bits: int) -> np.ndarray:
    """Inverted, bright where the file has small values; real values within their own range."""
    if array.dtype.kind == "u":
        return (2**bits - 1) - array
    if array.dtype.kind == "i":
        return ~array  # -1 - x: from one end of the type to the other
    return array.max() - (array - array.min())
