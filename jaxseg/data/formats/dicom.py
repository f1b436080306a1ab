"""DICOM: pictures, volumes in one file or in one folder, and segmentations, as pydicom and highdicom read them."""

import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data.formats.picture import UNKNOWN, Picture, Unusable, placed, quietly, reason, remedy, unplaced

SUFFIXES = (".dcm", ".ima")

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # x and y of DICOM run to the left and to the back
_DIRECTORY = "1.2.840.10008.1.3.10"  # class of a DICOMDIR, an index of other files
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_WITHOUT_PIXELS = ("1.2.840.10008.5.1.4.1.1.4.2",)  # spectra, which have rows and columns too
_HEADER = ["SOPClassUID", "MediaStorageSOPClassUID", "SeriesInstanceUID", "Rows"]
_TURNED = 0.5  # degrees between the slices of one volume
_TILTED = 2.5  # degrees between the line along which slices lie and their normal
_GRAYS = ("MONOCHROME1", "MONOCHROME2")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


class DicomObject(NamedTuple):
    """What a DICOM file is, by its header.

    Attributes:
      series: SeriesInstanceUID, the same in all files of a series; empty where it is missing.
      kind: `image` has pixels, `segmentation` is DICOM SEG, `other` has no pixels: a structure set, a presentation
        state, a report, an index of files.
    """

    series: str
    kind: str


def dicom_object(path: pathlib.Path) -> DicomObject | None:
    """What a file is that is DICOM by its content, whatever it is called; None of any other."""
    header = _header(path)
    if header is None:
        return None
    kind = "image" if _is_image(header) else "other"
    return DicomObject(
        str(header.get("SeriesInstanceUID", None) or ""),
        "segmentation" if _class(header) in _SEGMENTATIONS else kind,
    )


def is_dicom(path: pathlib.Path) -> bool:
    """Whether a file is DICOM by its suffix or, whatever it is called, by its content; an index of files is not."""
    if path.suffix.lower() in SUFFIXES:
        return True
    header = _header(path)
    return header is not None and _class(header) != _DIRECTORY


def _header(path: pathlib.Path) -> Any:
    """What tells the kind of a DICOM file; None of a file that is none."""
    import pydicom

    try:
        with path.open("rb") as file, quietly():
            start = file.read(132)
            if start[128:] != b"DICM" and not _may_lack_preamble(start):
                return None
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=_HEADER)
    except Exception:  # pydicom raises nearly anything
        return None
    return header if _class(header) else None


def _may_lack_preamble(start: bytes) -> bool:
    """Whether these bytes are an element of one of the two groups that a DICOM file begins with."""
    group, element = start[:2], int.from_bytes(start[2:4], "little")
    return group in (b"\x02\x00", b"\x08\x00") and element < 0x0100 and len(start) > 8


def _class(file: Any) -> str:
    return str(file.get("SOPClassUID", None) or file.file_meta.get("MediaStorageSOPClassUID", None) or "")


def _name(sop_class: str) -> str:
    import pydicom.uid

    return pydicom.uid.UID(sop_class).name


def _is_image(file: Any) -> bool:
    """Whether there should be pixels, also where a damaged header lacks their size."""
    sop_class = _class(file)
    return sop_class not in _WITHOUT_PIXELS and ("Rows" in file or "Image Storage" in _name(sop_class))


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a file: a picture, or a volume of its frames; of a folder, the volume of the one series in it."""
    del at_least
    if path.is_dir():
        return _series(path)
    return _of_file(_load(path))


def _load(path: pathlib.Path) -> Any:
    import pydicom.uid

    try:
        return pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:  # without a preamble, or no DICOM at all
        if _header(path) is None:
            raise
    file = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in file.file_meta:
        implicit, little = file.original_encoding
        file.file_meta.TransferSyntaxUID = pydicom.uid.UID(_PLAIN[bool(implicit), bool(little)])
    return file


_PLAIN = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
    (True, False): "1.2.840.10008.1.2",
}


class _Place(NamedTuple):
    """Where a slice lies in the patient, in mm to the left, back and head: vectors `[3]`, directions of length 1."""

    position: np.ndarray  # of the first pixel
    row: np.ndarray  # from column to column
    column: np.ndarray  # from row to row

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.row, self.column)


class _Plane(NamedTuple):
    """A slice as messages call it; its place is None where the file does not tell."""

    name: str
    spacing: tuple[float, float]  # mm between rows, between columns
    place: _Place | None


class _Slices(NamedTuple):
    """Slices of one or several files, in any order: pixels `[N,H,W,C]` on the scale of the file."""

    pixels: np.ndarray
    planes: Sequence[_Plane]
    numbers: Sequence[float]  # of instances, for slices without places
    between: float  # mm from slice to slice, as far as one file tells
    inverted: bool  # white is low in the file
    real: bool  # stored as real numbers, which have no range of bits
    palette: np.ndarray | None
    step: float


def _of_file(file: Any) -> Picture:
    if file.get("SOPClassUID") in _SEGMENTATIONS:
        return _segmentation(file)
    slices = _slices("", file)
    picture = _picture(slices)
    if len(slices.pixels) > 1:
        return picture
    return picture._replace(array=picture.array[0], spacing=picture.spacing[1:])


# Pixels.


def _slices(name: str, file: Any) -> _Slices:
    _check(file)
    stored = _stored(file)
    frames = int(file.get("NumberOfFrames", None) or 1)
    colour = file.get("SamplesPerPixel", 1) > 1
    stored = np.reshape(stored, (frames, *stored.shape[stored.ndim - 2 - colour : stored.ndim - colour], -1))
    if _inverted(file) and stored.dtype.kind in "iu":
        stored = _white_is_high(stored, file)
    pixels, steps = zip(*(_rescaled(frame, file, i) for i, frame in enumerate(stored)), strict=True)
    between = _of_frame(file, 0, "PixelMeasuresSequence", "SpacingBetweenSlices")
    thickness = _of_frame(file, 0, "PixelMeasuresSequence", "SliceThickness")
    return _Slices(
        np.stack(pixels),
        [_plane(name if frames == 1 else f"frame {i + 1}", file, i) for i in range(frames)],
        [float(file.get("InstanceNumber", None) or 0)] * frames,
        abs(float(between or thickness or UNKNOWN)),
        _inverted(file),
        stored.dtype.kind == "f",
        _palette(file),
        max(steps) if stored.dtype.kind in "iu" else 0.0,
    )


def _check(file: Any) -> None:
    if not any(name in file for name in _PIXELS):
        raise Unusable(_without_pixels(file))
    if "MOSAIC" in (file.get("ImageType", None) or ()):
        raise Unusable("is a mosaic of slices in one picture; convert it to NIfTI, for example with dcm2niix")
    if "TotalPixelMatrixColumns" in file and int(file.get("NumberOfFrames", None) or 1) > 1:
        raise Unusable("is a slide of many tiles; save the region that is meant as one picture")


_CONVERT = "convert it to DICOM SEG or NIfTI"
_LEAVE_OUT = "leave it out, and name the images that it is about"
_OBJECTS = {  # by the start of their class
    "1.2.840.10008.5.1.4.1.1.481.3": ("a structure set (RTSTRUCT)", _CONVERT),
    "1.2.840.10008.5.1.4.1.1.66.5": ("a segmentation by surfaces", _CONVERT),
    "1.2.840.10008.5.1.4.1.1.11.": ("a presentation state", _LEAVE_OUT),
    "1.2.840.10008.5.1.4.1.1.88.59": ("a selection of key objects", _LEAVE_OUT),
    "1.2.840.10008.5.1.4.1.1.88.": ("a structured report (SR)", _LEAVE_OUT),
    "1.2.840.10008.5.1.4.1.1.104.": ("an encapsulated document", _LEAVE_OUT),
    _DIRECTORY: ("an index of other files (DICOMDIR)", "name a file or the folder of one series"),
}


def _without_pixels(file: Any) -> str:
    sop_class = _class(file)
    for start, (what, remedy_of_it) in _OBJECTS.items():
        if sop_class.startswith(start):
            return f"is {what} without pixels; {remedy_of_it}"
    if _is_image(file):
        return "is a DICOM file without pixels; fetch it again, or leave it out"
    name = _name(sop_class).removesuffix(" Storage") or "DICOM"
    return f"is a file of the kind {name} without pixels; {_LEAVE_OUT}"


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
    import pydicom.pixels

    if file.get("PhotometricInterpretation", None) not in (*_GRAYS, None):
        return frame, 0.0
    if file.get("DoseGridScaling", None):
        return frame * float(file.DoseGridScaling), float(file.DoseGridScaling)
    items = _groups(file, index, "PixelValueTransformationSequence")
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
    """Whole numbers turned over within the range of their bits; what is padding becomes the darkest."""
    bits, signed = int(file.BitsStored), stored.dtype.kind == "i"
    turned = ~stored if signed else (2**bits - 1) - stored  # -1 - x: from one end of the range to the other
    padding = file.get("PixelPaddingValue", None)
    if padding is None:
        return turned
    ends = sorted((padding, file.get("PixelPaddingRangeLimit", padding)))
    turned[(stored >= ends[0]) & (stored <= ends[1])] = -(2 ** (bits - 1)) if signed else 0
    return turned


def _palette(file: Any) -> np.ndarray | None:
    import pydicom.pixels

    if file.get("PhotometricInterpretation", None) != "PALETTE COLOR":
        return None
    numbers = np.arange(2 ** int(file.BitsStored)).astype(f"uint{file.BitsAllocated}")
    colours = pydicom.pixels.apply_color_lut(numbers[None], file)[0]
    return (colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours


# Places.


def _groups(file: Any, index: int, group: str) -> Any:
    """Items of a functional group of a frame, its own before those that all frames share."""
    own = list(file.get("PerFrameFunctionalGroupsSequence", None) or ())[index : index + 1]
    for item in (*own, *(file.get("SharedFunctionalGroupsSequence", None) or ())):
        if item.get(group, None):
            return item[group].value
    return ()


def _of_frame(file: Any, index: int, group: str, name: str) -> Any:
    found = [item[name].value for item in _groups(file, index, group) if item.get(name, None) is not None]
    return found[0] if found else file.get(name, None)


def _plane(name: str, file: Any, index: int) -> _Plane:
    spacing = _pixel_spacing(file, index)
    place = None if math.isnan(spacing[0]) else _place(file, index)
    return _Plane(name, spacing, place)


def _pixel_spacing(file: Any, index: int) -> tuple[float, float]:
    """Mm between rows and columns in the patient; else on the detector or film; else as ultrasound is calibrated."""
    told = (
        _of_frame(file, index, "PixelMeasuresSequence", "PixelSpacing")
        or file.get("ImagerPixelSpacing", None)
        or file.get("NominalScannedPixelSpacing", None)
        or _of_ultrasound(file)
        or (UNKNOWN, UNKNOWN)
    )
    return float(told[0]), float(told[1])


_CENTIMETRES = 3  # code of a unit


def _of_ultrasound(file: Any) -> tuple[float, float] | None:
    """Of the region that covers the image, or of all regions where they agree."""
    regions = list(file.get("SequenceOfUltrasoundRegions", None) or ())
    whole = (0, 0, int(file.get("Columns", None) or 0) - 1, int(file.get("Rows", None) or 0) - 1)
    ends = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    covering = [region for region in regions if tuple(region.get(name, None) for name in ends) == whole]
    found = [_of_region(region) for region in (covering if len(covering) == 1 else regions)]
    return found[0] if found and all(spacing == found[0] for spacing in found) else None


def _of_region(region: Any) -> tuple[float, float] | None:
    units = {region.get(f"PhysicalUnits{axis}Direction", None) for axis in "XY"}
    rows, columns = (10 * abs(float(region.get(f"PhysicalDelta{axis}", None) or 0)) for axis in "YX")
    return (rows, columns) if units == {_CENTIMETRES} and rows and columns else None


def _place(file: Any, index: int) -> _Place | None:
    position = _of_frame(file, index, "PlanePositionSequence", "ImagePositionPatient")
    directions = _of_frame(file, index, "PlaneOrientationSequence", "ImageOrientationPatient")
    if not position or not directions:
        return None
    row, column = np.reshape(np.asarray(directions, float), (2, 3))
    if not np.allclose((row @ row, column @ column, row @ column), (1, 1, 0), atol=0.02):
        return None
    place = _Place(np.asarray(position, float), row / np.linalg.norm(row), column / np.linalg.norm(column))
    if int(file.get("NumberOfFrames", None) or 1) == 1 or _groups(file, index, "PlanePositionSequence"):
        return place
    if file.get("GridFrameOffsetVector", None):  # of frames without places of their own
        return place._replace(position=place.position + _offset(file.GridFrameOffsetVector, index, place.normal))
    if file.get("SpacingBetweenSlices", None):
        return place._replace(position=place.position + place.normal * float(file.SpacingBetweenSlices) * index)
    return None


def _offset(offsets: Sequence[float], index: int, normal: np.ndarray) -> np.ndarray:
    """From the first frame of a dose grid: along the normal, or between two heights if the first is not 0."""
    first = float(offsets[0])
    return normal * (float(offsets[index]) - first) * (math.copysign(1.0, normal[2]) if first else 1.0)


def _picture(slices: _Slices, what: str = "frames") -> Picture:
    """Slices as a volume, in the order in which they lie.

    Raises:
      Unusable: they are no one volume of equal steps.
    """
    order, affine = _arranged(slices, what)
    array = slices.pixels[order]
    notes: tuple[str, ...] = ()
    if slices.inverted and slices.real:
        array = array.max() - (array - array.min())
        notes = ("is white where its real numbers are low; they were turned over within their own range",)
    spacing = (slices.between, *slices.planes[0].spacing)
    picture = Picture(array, spacing) if affine is None else placed(array, affine)
    return picture._replace(palette=slices.palette, step=slices.step, notes=notes)


def _arranged(slices: _Slices, what: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Order of the slices, and the affine of their volume where they tell it."""
    places = [plane.place for plane in slices.planes if plane.place is not None]
    if len(places) < len(slices.planes):
        return np.argsort(slices.numbers, kind="stable"), None
    first, spacing = places[0], slices.planes[0].spacing
    for plane, place in zip(slices.planes, places, strict=True):
        _check_plane(slices.planes[0], first, plane, place, what)
    positions = np.stack([place.position for place in places])
    heights = positions @ first.normal
    order = np.argsort(heights, kind="stable")
    between = first.normal * (1.0 if math.isnan(slices.between) else slices.between)
    if len(places) > 1:
        _check_steps([slices.planes[i].name for i in order], heights[order], what)
        between = (positions[order[-1]] - positions[order[0]]) / (len(places) - 1)
        _check_line(positions[order], between, first.normal, min(spacing), what)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([between, first.column * spacing[0], first.row * spacing[1]], 1)
    affine[:3, 3] = positions[order[0]]
    return order, _TO_RAS @ affine


def _check_plane(first: _Plane, place: _Place, other: _Plane, other_place: _Place, what: str) -> None:
    cosine = min(float(place.row @ other_place.row), float(place.column @ other_place.column))
    angle = math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
    such = f"such as {first.name} and {other.name}; leave out what is no slice of the volume, as a localizer is none"
    if angle > _TURNED:
        raise Unusable(f"holds {what} that are turned against each other by {angle:.1f} degrees, {such}")
    if not np.allclose(first.spacing, other.spacing, rtol=1e-3):
        spacings = " and ".join("x".join(f"{length:g}" for length in plane.spacing) for plane in (first, other))
        raise Unusable(f"holds {what} of the pixel spacings {spacings} mm, {such}")


def _check_steps(names: Sequence[str], heights: np.ndarray, what: str) -> None:
    steps = np.diff(heights)
    if steps.min() < 1e-3:
        one, other = (names[int(steps.argmin()) + i] for i in (0, 1))
        raise Unusable(
            f"holds {what} of the same place, such as {one} and {other}; leave one of them out, or give each volume "
            "of a series in time a file or folder of its own"
        )
    if np.ptp(steps) > 0.1 * np.median(steps):
        raise Unusable(
            f"lacks {what}: they lie {steps.min():g} to {steps.max():g} mm apart; fetch those that are missing, "
            "resample the volume to equal steps, or save each stack by itself"
        )


def _check_line(positions: np.ndarray, between: np.ndarray, normal: np.ndarray, pixel: float, what: str) -> None:
    """Slices lie above each other."""
    cosine = float(between @ normal / np.linalg.norm(between))
    angle = math.degrees(math.acos(min(cosine, 1.0)))
    if angle > _TILTED:
        raise Unusable(
            f"holds {what} that lie {angle:.1f} degrees off their normal, as a tilted gantry leaves them; resample "
            "them to a straight volume, for example with dcm2niix"
        )
    off = positions - positions[0] - np.arange(len(positions))[:, None] * between
    aside = np.linalg.norm(off - (off @ normal)[:, None] * normal, axis=1).max()
    if aside > 0.5 * pixel:
        raise Unusable(f"holds {what} that lie up to {aside:.3g} mm beside each other; resample them to a volume")


# Folders.


def _series(folder: pathlib.Path) -> Picture:
    paths = _of_series(folder)
    files = [_in_series(path.name, functools.partial(_load, path)) for path in paths]
    if files[0].get("SOPClassUID", None) in _SEGMENTATIONS:
        return _in_series(paths[0].name, functools.partial(_segmentation, files[0]))
    parts = [
        _in_series(path.name, functools.partial(_slices, path.name, file))
        for path, file in zip(paths, files, strict=True)
    ]
    shapes = {part.pixels.shape[1:] for part in parts}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape[1]}x{shape[0]}" for shape in sorted(shapes))
        raise Unusable(f"holds DICOM slices of the sizes {sizes}; leave out what is no slice of the volume")
    first = parts[0]
    if len({part.inverted for part in parts}) > 1:
        raise Unusable("holds DICOM slices of which some are white where others are black; leave out what is no slice")
    joined = first._replace(
        pixels=np.concatenate([part.pixels for part in parts]),
        planes=[plane for part in parts for plane in part.planes],
        numbers=[number for part in parts for number in part.numbers],
        step=max(part.step for part in parts),
    )
    return _picture(joined, "DICOM slices")


def _of_series(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of the one series of images in a folder, without what lies beside them, or the one segmentation in it."""
    found = {path: dicom_object(path) for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)}
    if not found:
        raise Unusable("is a folder without DICOM files; name a file, or the folder of one series")
    images = [path for path, object_ in found.items() if object_ is None or object_.kind == "image"]  # None: damaged
    series = {object_.series for path in images if (object_ := found[path]) is not None}
    if len(series) > 1:
        raise Unusable(f"holds {len(series)} DICOM series; give each a folder of its own")
    segmentations = [path for path, object_ in found.items() if object_ is not None and object_.kind == "segmentation"]
    if not images and len(segmentations) > 1:
        raise Unusable(f"holds {len(segmentations)} DICOM segmentations; name the file of the one that is meant")
    return images or segmentations or list(found)


def _in_series(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Unusable as problem:
        raise Unusable(f"holds {name}, which {problem}") from problem
    except Exception as error:  # pydicom raises nearly anything
        raise Unusable(f"cannot be read as a series: {name} ({reason(error)}); {remedy(error)}") from error


# Segmentations.


def _segmentation(file: Any) -> Picture:
    """Numbers of segments, 0 outside.

    They are in the places of the frames that are stored, with empty slices between those, or one for each of the source
    images where these do not tell where they lie.
    """
    import highdicom

    _tell_step(file)
    segmentation = highdicom.seg.Segmentation.from_dataset(file, copy=False)
    try:
        return _without_places(segmentation) if _place(file, 0) is None else _in_places(segmentation)
    except RuntimeError as error:
        if "overlap" not in str(error).lower():
            raise
        raise Unusable(
            "has overlapping segments; save each as a file of its own, or decide what lies on top"
        ) from error
    except ValueError as error:
        if "fractional" not in str(error).lower():
            raise
        raise Unusable("holds fractions of segments; save it as a binary segmentation, threshold it at 0.5") from error


def _tell_step(file: Any) -> None:
    """Puts the distance of slices where highdicom looks for it, which else takes the narrowest gap between frames.

    Empty slices are not stored, so that what is stored may have gaps alone. The distance is what the file says, or the
    thickness, if the gaps are multiples of it; else the largest of which they are.
    """
    frames = list(file.get("PerFrameFunctionalGroupsSequence", None) or ())
    measures = [
        item.PixelMeasuresSequence[0]
        for item in (*(file.get("SharedFunctionalGroupsSequence", None) or ()), *frames)
        if item.get("PixelMeasuresSequence", None)
    ]
    places = [place for i in range(len(frames)) if (place := _place(file, i)) is not None]
    if not measures or not places or len(places) < len(frames):
        return
    heights = np.unique([np.round(place.position @ places[0].normal, 4) for place in places])
    told = [abs(float(measures[0].get(name, None) or 0)) for name in ("SpacingBetweenSlices", "SliceThickness")]
    gaps = np.diff(heights)
    step = next((length for length in told if length and _are_multiples(gaps, length)), None) or _common_step(gaps)
    for item in measures:
        if step:
            item.SpacingBetweenSlices = f"{step:.10g}"
        if not item.get("SliceThickness", None):  # which highdicom asks for, and which decides nothing
            item.SliceThickness = f"{step or 1:.10g}"


_MOST_PARTS = 50  # of the narrowest gap


def _common_step(gaps: np.ndarray) -> float | None:
    """The largest length of which all gaps are multiples; None where there is none, as for one slice."""
    if not gaps.size:
        return None
    steps = (gaps.min() / parts for parts in range(1, _MOST_PARTS + 1))
    step = next((step for step in steps if _are_multiples(gaps, step)), None)
    return None if step is None else float(gaps.sum() / np.rint(gaps / step).sum())


def _are_multiples(gaps: np.ndarray, step: float) -> bool:
    """Within what a position may be rounded, a hundredth of the step."""
    counts = np.rint(gaps / step)
    return bool((counts >= 1).all() and (abs(gaps - counts * step) <= 0.01 * step).all())


def _without_places(segmentation: Any) -> Picture:
    sources = [source[-1] for source in segmentation.get_source_image_uids()]
    array = segmentation.get_pixels_by_source_instance(
        sources, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    return unplaced((array[0] if len(sources) == 1 else array)[..., None])


def _in_places(segmentation: Any) -> Picture:
    volume = segmentation.get_volume(combine_segments=True)
    array, affine = volume.array, _TO_RAS @ volume.affine
    between, column, row = affine[:3, :3].T
    if np.cross(row, column) @ between < 0:
        array, affine = array[::-1], affine @ _reversed(len(array))
    return placed(array[..., None], affine)._replace(part=True)


def _reversed(count: int) -> np.ndarray:
    """From a slice's index to that from the other end."""
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    matrix[0, 3] = count - 1
    return matrix
