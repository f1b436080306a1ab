"""DICOM: pictures, and volumes in one file or in one folder, as pydicom reads them."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pydicom.pixels

from jaxseg.data.formats import dicom_kinds, dicom_segmentation
from jaxseg.data.formats.dicom_kinds import SUFFIXES, dicom_object, is_dicom
from jaxseg.data.formats.dicom_places import Plane, arranged, groups, of_frame, plane_of
from jaxseg.data.formats.picture import UNKNOWN, Picture, Unusable, placed, reason, remedy

__all__ = ["SUFFIXES", "read"]

_GRAYS = ("MONOCHROME1", "MONOCHROME2")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a file: a picture, or a volume of its frames; of a folder, the volume of the one series in it."""
    del at_least
    if path.is_dir():
        return _series(path)
    return _of_file(dicom_kinds.load(path))


class _Slices(NamedTuple):
    """Slices of one or several files, in any order: pixels `[N,H,W,C]` on the scale of the file."""

    pixels: np.ndarray
    planes: Sequence[Plane]
    numbers: Sequence[float]  # of instances, for slices without places
    between: float  # mm from slice to slice, as far as one file tells
    inverted: bool  # white is low in the file
    real: bool  # stored as real numbers, which have no range of bits
    palette: np.ndarray | None
    step: float


def _of_file(file: Any) -> Picture:
    if file.get("SOPClassUID") in dicom_kinds.SEGMENTATIONS:
        return dicom_segmentation.read(file)
    slices = _slices("", file)
    picture = _picture(slices)
    if len(slices.pixels) > 1:
        return picture
    return picture._replace(array=picture.array[0], spacing=picture.spacing[1:])


def _slices(name: str, file: Any) -> _Slices:
    _check(file)
    stored = _stored(file)
    frames = int(file.get("NumberOfFrames", None) or 1)
    colour = file.get("SamplesPerPixel", 1) > 1
    stored = np.reshape(stored, (frames, *stored.shape[stored.ndim - 2 - colour : stored.ndim - colour], -1))
    if _inverted(file) and stored.dtype.kind in "iu":
        stored = _white_is_high(stored, file)
    pixels, steps = zip(*(_rescaled(frame, file, i) for i, frame in enumerate(stored)), strict=True)
    between = of_frame(file, 0, "PixelMeasuresSequence", "SpacingBetweenSlices")
    thickness = of_frame(file, 0, "PixelMeasuresSequence", "SliceThickness")
    return _Slices(
        np.stack(pixels),
        [plane_of(name if frames == 1 else f"frame {i + 1}", file, i) for i in range(frames)],
        [float(file.get("InstanceNumber", None) or 0)] * frames,
        abs(float(between or thickness or UNKNOWN)),
        _inverted(file),
        stored.dtype.kind == "f",
        _palette(file),
        max(steps) if stored.dtype.kind in "iu" else 0.0,
    )


def _check(file: Any) -> None:
    if not any(name in file for name in _PIXELS):
        raise Unusable(dicom_kinds.without_pixels(file))
    if "MOSAIC" in (file.get("ImageType", None) or ()):
        raise Unusable("is a mosaic of slices in one picture; convert it to NIfTI, for example with dcm2niix")
    if "TotalPixelMatrixColumns" in file and int(file.get("NumberOfFrames", None) or 1) > 1:
        raise Unusable("is a slide of many tiles; save the region that is meant as one picture")


def _stored(file: Any) -> np.ndarray:
    syntax = file.file_meta.TransferSyntaxUID
    plain = syntax.is_transfer_syntax and not syntax.is_compressed
    try:
        return file.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        if plain:
            raise
        raise Unusable(f"is compressed as {syntax.name}; decompress it, for example with gdcmconv --raw") from error


def _rescaled(frame: np.ndarray, file: Any, index: int) -> tuple[np.ndarray, float]:
    """A frame on the scale of the file, and its step."""
    if file.get("PhotometricInterpretation", None) not in (*_GRAYS, None):
        return frame, 0.0
    if file.get("DoseGridScaling", None):
        return frame * float(file.DoseGridScaling), float(file.DoseGridScaling)
    items = groups(file, index, "PixelValueTransformationSequence")
    told = items[0] if items else file
    values = pydicom.pixels.apply_modality_lut(frame, told)
    if told.get("ModalityLUTSequence", None):
        return values, 0.0
    slope = float(told.get("RescaleSlope", None) or 0)
    return values, 0.0 if slope == 1 else abs(slope)


def _inverted(file: Any) -> bool:
    shape = file.get("PresentationLUTShape", None)
    return shape == "INVERSE" or (not shape and file.get("PhotometricInterpretation", None) == "MONOCHROME1")


def _white_is_high(stored: np.ndarray, file: Any) -> np.ndarray:
    """Integers inverted within the range of their bits; padding becomes the darkest."""
    bits, signed = int(file.BitsStored), stored.dtype.kind == "i"
    turned = ~stored if signed else (2**bits - 1) - stored  # -1 - x: from one end of the range to the other
    padding = file.get("PixelPaddingValue", None)
    if padding is None:
        return turned
    ends = sorted((padding, file.get("PixelPaddingRangeLimit", padding)))
    turned[(stored >= ends[0]) & (stored <= ends[1])] = -(2 ** (bits - 1)) if signed else 0
    return turned


def _palette(file: Any) -> np.ndarray | None:
    if file.get("PhotometricInterpretation", None) != "PALETTE COLOR":
        return None
    levels = np.arange(2 ** int(file.BitsStored)).astype(f"uint{file.BitsAllocated}")
    colours = pydicom.pixels.apply_color_lut(levels[None], file)[0]
    return (colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours


def _picture(slices: _Slices, what: str = "frames") -> Picture:
    """Slices as a volume, in the order in which they lie.

    Raises:
      Unusable: they are not one volume of equal steps.
    """
    order, affine = arranged(slices.planes, slices.numbers, slices.between, what)
    array = slices.pixels[order]
    notes: tuple[str, ...] = ()
    if slices.inverted and slices.real:
        array = array.max() - (array - array.min())
        notes = ("is white where its real numbers are low; they were inverted within their own range",)
    spacing = (slices.between, *slices.planes[0].spacing)
    picture = Picture(array, spacing) if affine is None else placed(array, affine)
    return picture._replace(palette=slices.palette, step=slices.step, notes=notes)


def _series(folder: pathlib.Path) -> Picture:
    paths = _of_series(folder)
    files = [_in_series(path.name, functools.partial(dicom_kinds.load, path)) for path in paths]
    if files[0].get("SOPClassUID", None) in dicom_kinds.SEGMENTATIONS:
        return _in_series(paths[0].name, functools.partial(dicom_segmentation.read, files[0]))
    parts = [
        _in_series(path.name, functools.partial(_slices, path.name, file))
        for path, file in zip(paths, files, strict=True)
    ]
    shapes = {part.pixels.shape[1:] for part in parts}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape[1]}x{shape[0]}" for shape in sorted(shapes))
        raise Unusable(f"holds DICOM slices of the sizes {sizes}; leave out what is not a slice of the volume")
    first = parts[0]
    if len({part.inverted for part in parts}) > 1:
        raise Unusable("holds DICOM slices, some of them white where others are black; leave out what is not a slice")
    joined = first._replace(
        pixels=np.concatenate([part.pixels for part in parts]),
        planes=[plane for part in parts for plane in part.planes],
        numbers=[number for part in parts for number in part.numbers],
        step=max(part.step for part in parts),
    )
    return _picture(joined, "DICOM slices")


def _of_series(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of the one series of images in a folder, without other files, or the one segmentation in it."""
    objects = {path: dicom_object(path) for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)}
    if not objects:
        raise Unusable("is a folder without DICOM files; name a file, or the folder of one series")
    images = [path for path, object_ in objects.items() if object_ is None or object_.kind == "image"]  # None: damaged
    series = {object_.series for path in images if (object_ := objects[path]) is not None}
    if len(series) > 1:
        raise Unusable(f"holds {len(series)} DICOM series; give each a folder of its own")
    segmentations = [
        path for path, object_ in objects.items() if object_ is not None and object_.kind == "segmentation"
    ]
    if not images and len(segmentations) > 1:
        raise Unusable(f"holds {len(segmentations)} DICOM segmentations; name the file of the one that is meant")
    return images or segmentations or list(objects)


def _in_series(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Unusable as problem:
        raise Unusable(f"holds {name}, which {problem}") from problem
    except Exception as error:  # pydicom raises almost any error
        raise Unusable(f"cannot be read as a series: {name} ({reason(error)}); {remedy(error)}") from error
