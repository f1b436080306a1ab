"""What a DICOM file is, by its header, whatever it is called: an image, a segmentation, or an object without pixels."""

import pathlib
from typing import Any, NamedTuple

import pydicom
import pydicom.uid

from jaxseg.data.formats.picture import quietly

SUFFIXES = (".dcm", ".ima")
_DIRECTORY = "1.2.840.10008.1.3.10"  # class of a DICOMDIR, an index of other files
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_WITHOUT_PIXELS = ("1.2.840.10008.5.1.4.1.1.4.2",)  # spectra, which have rows and columns too
_HEADER = ["SOPClassUID", "MediaStorageSOPClassUID", "SeriesInstanceUID", "Rows"]


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
    """What a file with DICOM content is, whatever its name; None for any other."""
    header = _header(path)
    if header is None:
        return None
    kind = "image" if _is_image(header) else "other"
    return DicomObject(
        str(header.get("SeriesInstanceUID", None) or ""),
        "segmentation" if _class(header) in SEGMENTATIONS else kind,
    )


def is_dicom(path: pathlib.Path) -> bool:
    """Whether a file is DICOM by its suffix or, whatever it is called, by its content; an index of files is not."""
    if path.suffix.lower() in SUFFIXES:
        return True
    header = _header(path)
    return header is not None and _class(header) != _DIRECTORY


def _header(path: pathlib.Path) -> Any:
    """The header fields that tell the kind of a DICOM file; None for any other file."""
    try:
        with path.open("rb") as file, quietly():
            start = file.read(132)
            if start[128:] != b"DICM" and not _may_lack_preamble(start):
                return None
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=_HEADER)
    except Exception:  # pydicom raises almost any error
        return None
    return header if _class(header) else None


def _may_lack_preamble(start: bytes) -> bool:
    """Whether these bytes are an element of one of the two groups that a DICOM file begins with."""
    group, element = start[:2], int.from_bytes(start[2:4], "little")
    return group in (b"\x02\x00", b"\x08\x00") and element < 0x0100 and len(start) > 8


def _class(file: Any) -> str:
    return str(file.get("SOPClassUID", None) or file.file_meta.get("MediaStorageSOPClassUID", None) or "")


def _name(sop_class: str) -> str:
    return pydicom.uid.UID(sop_class).name


def _is_image(file: Any) -> bool:
    """Whether there should be pixels, also where a damaged header lacks their size."""
    sop_class = _class(file)
    return sop_class not in _WITHOUT_PIXELS and ("Rows" in file or "Image Storage" in _name(sop_class))


def load(path: pathlib.Path) -> Any:
    """A file as pydicom reads it, also without a preamble or the header of its transfer syntax."""
    try:
        return pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:  # without a preamble, or no DICOM at all
        if _header(path) is None:
            raise
    file = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in file.file_meta:
        implicit, little = file.original_encoding
        explicit = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        file.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else explicit
    return file


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


def without_pixels(file: Any) -> str:
    """What a file without pixels is, and the remedy, in words."""
    sop_class = _class(file)
    for start, (what, remedy_of_it) in _OBJECTS.items():
        if sop_class.startswith(start):
            return f"is {what} without pixels; {remedy_of_it}"
    if _is_image(file):
        return "is a DICOM file without pixels; fetch it again, or leave it out"
    name = _name(sop_class).removesuffix(" Storage") or "DICOM"
    return f"is a file of the kind {name} without pixels; {_LEAVE_OUT}"
