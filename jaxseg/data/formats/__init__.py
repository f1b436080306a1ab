"""One file -> its pixels and where they lie: pictures, TIFF, NIfTI, DICOM, NRRD and MetaImage, each by its library.

A file that cannot be used raises `Unusable`, whose text is what is wrong with it and the remedy; the caller knows the
file's name and puts it first. Libraries raise almost any error for a damaged file, so everything is caught here.
"""

import logging
import pathlib
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxseg.data.formats import dicom, itk, masks, nifti, pictures, tiff
from jaxseg.data.formats.dicom_kinds import DicomObject, dicom_object, is_dicom
from jaxseg.data.formats.picture import Picture, Unusable, quietly, reason, remedy
from jaxseg.data.formats.pictures import colour_channels, encode_png, has_eight_bits, unchanged_bytes

__all__ = [
    "DicomObject",
    "Picture",
    "Unusable",
    "colour_channels",
    "dicom_object",
    "encode_png",
    "has_eight_bits",
    "is_dicom",
    "is_image",
    "itk",
    "known_formats",
    "read",
    "read_mask",
    "unchanged_bytes",
]

# What libraries say of a damaged file while they read it is in the error too, and what they say of others is that
# a header strays from the standard, or that an image is large.
for _library in ("tifffile", "nibabel.global", "pydicom", "highdicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_READERS: dict[str, Callable[[pathlib.Path, int | None], Picture]] = {
    suffix: family.read for family in (pictures, tiff, nifti, dicom, itk) for suffix in family.SUFFIXES
}


def read(path: pathlib.Path, *, frame: int | None = None, at_least: int | None = None) -> Picture:
    """Reads a file, or a folder with the DICOM files of one series of images, which is a volume.

    Segmentations, structure sets, presentation states and reports next to the images are not part of it.

    Args:
      path: its suffix tells the format; DICOM files may have any.
      frame: the only one that is wanted of a four-dimensional file; otherwise its frames are channels.
      at_least: a JPEG may be decoded at a smaller scale, of at least so many pixels a side.

    Raises:
      Unusable: the file is missing, damaged, of no known format, or has no such frame.
    """
    picture = _read(path, frame, at_least)
    if picture.palette is not None:
        return picture._replace(array=picture.palette[picture.array[..., 0]], palette=None)
    if path.suffix.lower() in pictures.SUFFIXES and picture.array.shape[-1] in (2, 4):  # the last is the opacity
        return picture._replace(array=picture.array[..., :-1])
    return picture


def read_mask(path: pathlib.Path, *, frame: int | None = None) -> Picture:
    """Reads a mask: whole numbers `[H,W,1]` or `[D,H,W,1]`, as in the file.

    A palette is read as the indices of its colours, which are then the classes; a gray palette of a PNG or BMP as it
    looks. Numbers that only the file's own scaling or the rounding of float32 keeps from being whole are rounded.

    Raises:
      Unusable: as `read`; or the mask is coloured, partly transparent, or not of whole numbers.
    """
    picture = _read(path, frame, None)
    array = picture.array
    if path.suffix.lower() in pictures.SUFFIXES and array.shape[-1] in (2, 4):
        if (array[..., -1] < np.iinfo(array.dtype).max).any():
            raise Unusable("is partly transparent; save the mask as 8-bit grey")
        array = array[..., :-1]
    if array.shape[-1] > 1:
        if (array != array[..., :1]).any():
            if array.ndim == 4:
                raise Unusable(f"has {array.shape[-1]} frames or channels; a mask has one number for every voxel")
            raise Unusable("is coloured; save the mask as 8-bit grey")
        array = array[..., :1]
    return picture._replace(array=masks.whole(picture._replace(array=array)), palette=None, step=0.0)


def is_image(path: pathlib.Path) -> bool:
    """Whether the suffix is one that `read` knows, or the file is DICOM by its content."""
    return _suffix(path) in _READERS or (path.is_file() and is_dicom(path))


def known_formats() -> str:
    """The suffixes that `read` knows, for a message."""
    return ", ".join(sorted(_READERS))


def _read(path: pathlib.Path, frame: int | None, at_least: int | None) -> Picture:
    try:
        with quietly():
            picture = _reader(path)(path, at_least)
        if picture.array.dtype.kind not in "biuf":
            kind = picture.array.dtype.names or (picture.array.dtype.name,)
            raise Unusable(f"holds {''.join(kind)} numbers; save real ones, with colours as channels")
        if not picture.array.size:
            raise Unusable(f"has no pixels {picture.array.shape}; fetch it again")
        if frame is not None:
            if frame >= picture.array.shape[-1]:
                raise Unusable(f"has {picture.array.shape[-1]} frames and no number {frame}; check which file is meant")
            picture = picture._replace(array=picture.array[..., frame : frame + 1])
        return picture._replace(array=_own(picture.array))
    except Unusable:
        raise
    except Image.DecompressionBombError as error:
        raise Unusable(f"is too large ({reason(error)}); split it into parts") from error
    except Exception as error:  # struct.error and zlib.error too
        if isinstance(error, OSError) and error.errno:  # of the system, not of a library
            raise Unusable(
                f"cannot be read as an image ({reason(error)}); check that it is there, and its permissions"
            ) from error
        broken = _looks_broken(path)
        raise Unusable(
            f"cannot be read as an image ({reason(error)}); {'fetch it again' if broken else remedy(error)}"
        ) from error


def _own(array: np.ndarray) -> np.ndarray:
    """In the byte order of the machine, and writable."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array if array.flags.writeable else array.copy()


def _looks_broken(path: pathlib.Path) -> bool:
    """Whether the bytes of a file prove that it is not what its name says: nothing, a web page, or half a picture."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return not content.strip(b"\0") or content.lstrip()[:1] == b"<" or pictures.is_broken(content)


def _suffix(path: pathlib.Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _reader(path: pathlib.Path) -> Callable[[pathlib.Path, int | None], Picture]:
    if path.is_dir():
        return dicom.read
    if _suffix(path) in _READERS:
        return _READERS[_suffix(path)]
    if path.is_file() and dicom_object(path) is not None:
        return dicom.read
    raise Unusable(f"is of no known format; use one of {known_formats()}")
