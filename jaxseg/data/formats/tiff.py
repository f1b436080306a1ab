"""TIFF: tifffile decodes it, and what its tags say of colours, grays and turns is applied."""

import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxseg.data.formats.picture import Picture, Unusable, reason, unplaced
from jaxseg.data.formats.turns import turned

SUFFIXES = (".tif", ".tiff")

_OPACITY = (1, 2)  # kinds of extra samples, associated and not
_MOST_CHANNELS = 16  # a last axis of at most that many, behind a longer first one, is channels


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture or a stack of them: the whole resolution of a pyramid, the first of several images."""
    del at_least
    import tifffile

    with tifffile.TiffFile(path) as file:
        whole = [series for series in file.series if not series.keyframe.is_reduced] or file.series
        series, others = whole[0], len(whole) - 1
        page: Any = series.keyframe
        array = _rgb(path, series) if _has_foreign_colours(page) else _as_shown(series)
        palette = _palette(page)
    more = "1 more image of another size or kind" if others == 1 else f"{others} more images of other sizes or kinds"
    notes = (f"holds {more}; the first was taken",) if others else ()
    return unplaced(array)._replace(palette=palette, notes=notes)


def _has_foreign_colours(page: Any) -> bool:
    """Whether tifffile leaves the colours alone; those of a JPEG it turns into RGB."""
    import tifffile

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
    import tifffile

    page, axes, array = series.keyframe, series.axes, series.asarray()
    if axes == "QYX" and array.shape[-1] <= _MOST_CHANNELS < array.shape[0]:
        axes = "YXS"  # tifffile takes the first axis of an array for pages where nothing says that the last is colour
    array = _channels_last(array, axes)
    array = array.astype(np.uint8) if array.dtype == bool else array
    if "S" in axes:
        first = array.shape[-1] - len(page.extrasamples)
        opacity = [first + i for i, kind in enumerate(page.extrasamples) if int(kind) in _OPACITY]
        array = np.delete(array, opacity, axis=-1) if opacity else array
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        array = _white_is_zero(array, page.bitspersample)
    return turned(array, page.tags.valueof("Orientation", 1))


def _channels_last(array: np.ndarray, axes: str) -> np.ndarray:
    letters = "".join("D" if letter in "ZQIT" else "C" if letter in "SC" else letter for letter in axes)
    keep = [i for i, letter in enumerate(letters) if letter in "DYXC"]
    if len(keep) != len(letters) or sorted(set(letters)) != sorted(letters):
        raise Unusable(f"has the axes {axes} {array.shape}; save one picture or one stack, with or without channels")
    array = np.transpose(array, [letters.index(letter) for letter in "DYXC" if letter in letters])
    return array if "C" in letters else array[..., None]


def _palette(page: Any) -> np.ndarray | None:
    """Uint8 `[N,3]` or `[N,1]`, what a viewer makes of numbers with a map of colours, or of fewer than 8 bits."""
    import tifffile

    kind = tifffile.PHOTOMETRIC
    if page.photometric == kind.PALETTE and page.colormap is not None:
        colours = (page.colormap.T >> 8).astype(np.uint8)
        return colours[:, :1] if (colours == colours[:, :1]).all() else colours
    if page.photometric in (kind.MINISWHITE, kind.MINISBLACK) and page.samplesperpixel == 1 and page.bitspersample < 8:
        return np.linspace(0, 255, 2**page.bitspersample).astype(np.uint8)[:, None]
    return None


def _white_is_zero(array: np.ndarray, bits: int) -> np.ndarray:
    """Bright where the file has small numbers; real numbers are turned within their own range."""
    if array.dtype.kind == "u":
        return (2**bits - 1) - array
    if array.dtype.kind == "i":
        return ~array  # -1 - x: from one end of the type to the other
    return array.max() - (array - array.min())
