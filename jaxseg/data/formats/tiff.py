"""TIFF: tifffile decodes it, and what its tags say of colours, grays and turns is applied."""

import pathlib
from typing import Any

import numpy as np
from PIL import Image

from jaxseg.data.formats.picture import Picture, Unusable, unplaced
from jaxseg.data.formats.turns import turned

SUFFIXES = (".tif", ".tiff")

_OPACITY = (1, 2)  # kinds of extra samples, associated and not
_MOST_CHANNELS = 16  # a last axis of at most that many, behind a longer first one, is channels


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture or a stack of them: the whole resolution of a pyramid, the first of several images."""
    del at_least
    import tifffile

    with tifffile.TiffFile(path) as file:
        series, others = file.series[0], len(file.series) - 1
        page: Any = series.keyframe
        axes, array = _decoded(path, series)
        orientation = page.tags.valueof("Orientation", 1)
        opacity = sum(int(kind) in _OPACITY for kind in page.extrasamples)
        palette = _palette(page)
        levels = _grays(page)
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if axes == "QYX" and array.shape[-1] <= _MOST_CHANNELS < array.shape[0]:
        axes = "YXS"  # tifffile takes the first axis of an array for pages where nothing says that the last is colour
    array = _channels_last(array, axes)
    array = array.astype(np.uint8) if array.dtype == bool else array
    if opacity and "S" in axes:
        array = array[..., :-opacity]
    if inverted:
        array = _white_is_zero(array, page.bitspersample)
    array = turned(array, orientation)
    notes = (f"holds {others} more images of other sizes or kinds; the first was taken",) if others else ()
    return unplaced(array)._replace(palette=levels if palette is None else palette, notes=notes)


def _decoded(path: pathlib.Path, series: Any) -> tuple[str, np.ndarray]:
    """Axes and numbers of a series of pages; of colours that tifffile leaves alone, RGB as Pillow makes it."""
    import tifffile

    page, kind = series.keyframe, tifffile.PHOTOMETRIC
    jpeg = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)  # decoded to RGB
    if page.photometric in (kind.SEPARATED, kind.CIELAB) or (page.photometric == kind.YCBCR and not jpeg):
        if len(series.pages) > 1:
            raise Unusable(f"holds {page.photometric.name} colours in many pages; save it as RGB")
        with Image.open(path) as image:
            image.seek(page.index)
            return "YXS", np.array(image.convert("RGB"))
    return series.axes, series.asarray()


def _channels_last(array: np.ndarray, axes: str) -> np.ndarray:
    letters = "".join("D" if letter in "ZQIT" else "C" if letter in "SC" else letter for letter in axes)
    keep = [i for i, letter in enumerate(letters) if letter in "DYXC"]
    if len(keep) != len(letters) or sorted(set(letters)) != sorted(letters):
        raise Unusable(f"has the axes {axes} {array.shape}; save one picture or one stack, with or without channels")
    array = np.transpose(array, [letters.index(letter) for letter in "DYXC" if letter in letters])
    return array if "C" in letters else array[..., None]


def _palette(page: Any) -> np.ndarray | None:
    """The colours behind numbers, uint8 `[N,3]`, or `[N,1]` of grays alone; None of a page that has none."""
    import tifffile

    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colours = (page.colormap.T >> 8).astype(np.uint8)
    return colours[:, :1] if (colours == colours[:, :1]).all() else colours


def _grays(page: Any) -> np.ndarray | None:
    """Uint8 `[N,1]`, what a viewer makes of numbers of fewer than 8 bits; None of a page of others."""
    import tifffile

    gray = page.photometric in (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)
    if not gray or page.samplesperpixel > 1 or page.bitspersample not in (1, 2, 4):
        return None
    return np.linspace(0, 255, 2**page.bitspersample).astype(np.uint8)[:, None]


def _white_is_zero(array: np.ndarray, bits: int) -> np.ndarray:
    """Bright where the file has small numbers; real numbers are turned within their own range."""
    if array.dtype.kind == "u":
        return (2**bits - 1) - array
    if array.dtype.kind == "i":
        return ~array  # -1 - x: from one end of the type to the other
    return array.max() - (array - array.min())
