"""One file -> its pixels: PNG, JPEG, TIFF, NIfTI and DICOM, each read by its library.

A file that cannot be used raises `Unusable`, whose text is what is wrong with it and the remedy; the caller knows the
file's name and puts it in front. Libraries raise nearly anything for a damaged file, so everything is caught here.
"""

import gzip
import io
import logging
import math
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from jaxseg.data import geometry

# What libraries say of a damaged file while they read it stands in the error too, and what they say of others is that
# a header strays from the standard, or that an image is large.
for _library in ("tifffile", "nibabel.global"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_UNKNOWN = math.nan
_GZIP = b"\x1f\x8b"


class Unusable(Exception):
    """What is wrong with a file, and the remedy, in one line, whatever a damaged file made a library say."""

    def __init__(self, text: str):
        super().__init__("".join(letter if letter.isprintable() else " " for letter in text))


class Picture(NamedTuple):
    """What a file holds.

    Attributes:
      array: `[H,W,C]` or `[D,H,W,C]`, in the type and on the scale of the file; intensities of NIfTI and DICOM after
        their own slope and intercept. Rows and columns as a viewer shows them; slices of NIfTI along its third axis.
      spacing: of the spatial axes in mm, as many as there are; NaN where the format does not tell.
      orientation: of NIfTI and DICOM, to which side of the patient each spatial axis runs, such as `SPL`; else empty.
      full_size: (H, W) of a JPEG that was decoded at a smaller scale; else None.
      palette: uint8 `[256,3]`, the colours behind the numbers of a picture with a palette of colours; else None.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    full_size: tuple[int, int] | None = None
    palette: np.ndarray | None = None
    part: bool = False
    notes: tuple[str, ...] = ()

    @property
    def orientation(self) -> str:
        """To which side of the patient each spatial axis runs, such as `SPL`; empty where the file does not tell."""
        return "" if self.affine is None else geometry.orientation(self.affine, self.array.ndim - 1)

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial sizes of what the file holds."""
        return self.full_size or self.array.shape[:-1]


def read(path: pathlib.Path, *, frame: int | None = None, at_least: int | None = None) -> Picture:
    """Reads a file, or a folder with the DICOM files of one series, which is a volume.

    Args:
      path: its suffix says the format.
      frame: the only one that is wanted of a four-dimensional NIfTI file; otherwise its frames are channels.
      at_least: a JPEG may be decoded at a smaller scale, of at least so many pixels a side.

    Raises:
      Unusable: the file is missing, damaged, of no known format, or has no such frame.
    """
    picture = _read(path, frame, at_least)
    if picture.palette is not None:
        return picture._replace(array=picture.palette[picture.array[..., 0]], palette=None)
    if path.suffix.lower() in _PILLOW and picture.array.shape[-1] in (2, 4):  # the last channel is the opacity
        return picture._replace(array=picture.array[..., :-1])
    return picture


def read_mask(path: pathlib.Path, *, frame: int | None = None) -> Picture:
    """Reads a mask: whole numbers `[H,W,1]` or `[D,H,W,1]`, as in the file.

    A palette of grays is read as it looks, one of colours as the numbers behind them, which are the classes then.

    Raises:
      Unusable: as `read`; or the mask is coloured, partly transparent, or not of whole numbers.
    """
    picture = _read(path, frame, None)
    array = picture.array
    if path.suffix.lower() in _PILLOW and array.shape[-1] in (2, 4):
        if (array[..., -1] < 255).any():
            raise Unusable("is partly transparent; save the mask as 8-bit grey")
        array = array[..., :-1]
    if array.shape[-1] > 1:
        if (array != array[..., :1]).any():
            if array.ndim == 4:
                raise Unusable(f"has {array.shape[-1]} frames or channels; a mask has one number for every voxel")
            raise Unusable("is coloured; save the mask as 8-bit grey")
        array = array[..., :1]
    if not np.issubdtype(array.dtype, np.integer):
        array = _whole(array)
    return picture._replace(array=array, palette=None)


def _whole(array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise Unusable("holds values that are not finite; a mask is whole numbers: replace them")
    whole = np.rint(array)
    wrong = array[(array != whole) | (abs(whole) > np.iinfo(np.int32).max)]
    if wrong.size:
        raise Unusable(f"holds the value {wrong[0]:g}; a mask is whole numbers: resample it by nearest neighbours")
    return whole.astype(np.int32)


def _read(path: pathlib.Path, frame: int | None, at_least: int | None) -> Picture:
    try:
        picture = _read_series(path) if path.is_dir() else _reader(path)(path, at_least)
        if picture.array.dtype.kind not in "biuf":
            kind = picture.array.dtype.names or (picture.array.dtype.name,)
            raise Unusable(f"holds {''.join(kind)} numbers; save real ones, with colours as channels")
        if not picture.array.size:
            raise Unusable(f"has no pixels {picture.array.shape}; fetch it again")
        if frame is None:
            return picture
        if frame >= picture.array.shape[-1]:
            raise Unusable(f"has {picture.array.shape[-1]} frames and no number {frame}; see which file is meant")
        return picture._replace(array=picture.array[..., frame : frame + 1])
    except Unusable:
        raise
    except Image.DecompressionBombError as error:
        raise Unusable(f"is too large ({_first_line(error)}); cut it into parts") from error
    except Exception as error:  # struct.error and zlib.error too
        raise Unusable(f"cannot be read as an image ({_first_line(error)}); fetch it again") from error


def is_image(path: pathlib.Path) -> bool:
    """Whether the name ends like a format that `read` knows."""
    return _suffix(path) in _READERS


def known_formats() -> str:
    """The endings that `read` knows, for a message."""
    return ", ".join(sorted(_READERS))


def colour_channels(path: pathlib.Path) -> int | None:
    """1 or 3, from the header of a PNG, JPEG or BMP without decoding it; None of other or damaged files."""
    if _suffix(path) not in _PILLOW:
        return None
    try:
        with Image.open(path) as image:
            gray = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
            return 1 if gray or (image.mode == "P" and _colours(image) is None) else 3
    except Exception:  # named by whoever reads it
        return None


def unchanged_bytes(path: pathlib.Path) -> bytes | None:
    """The file's own bytes where it is a PNG or JPEG as data sets store them, 8 bits of gray or RGB; else None."""
    if path.suffix.lower() not in _FORMATS:
        return None
    with Image.open(path) as image:
        plain = image.mode in ("L", "RGB") and "transparency" not in image.info and image.format != "MPO"
        plain = plain and _exif_orientation(image) == 1
    return path.read_bytes() if plain else None


def _suffix(path: pathlib.Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _reader(path: pathlib.Path) -> Callable[[pathlib.Path, int | None], Picture]:
    try:
        return _READERS[_suffix(path)]
    except KeyError:
        raise Unusable(f"is of no known format; use one of {known_formats()}") from None


# Libraries repeat the path, which the line already starts with, and advise on their own functions.
_UNRECOGNISED = {
    "cannot identify image file": "no known image format",
    "File is missing DICOM File Meta Information": "no DICOM file",
    "Cannot work out file type": "no NIfTI file",
}


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    for theirs, ours in _UNRECOGNISED.items():
        if theirs in text:
            return ours
    return text or type(error).__name__


# PNG, JPEG, BMP.

_FORMATS = {".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".png": ("PNG",)}  # MPO: a JPEG with more behind it


def _read_pillow(path: pathlib.Path, at_least: int | None) -> Picture:
    suffix = path.suffix.lower()
    with Image.open(path) as image:
        image.verify()  # finds a PNG that lacks its end, which decoding overlooks; the image is used up then
    with Image.open(path) as image:
        if suffix in _FORMATS and image.format not in _FORMATS[suffix]:
            raise Unusable(f"holds {image.format} data; convert it to {_FORMATS[suffix][0]}")
        if _is_deep_colour(path):  # Pillow would cut it to 8 bits
            return Picture(_read_deep_colour(path), (_UNKNOWN, _UNKNOWN))
        full = image.size[::-1]
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        palette = _colours(image) if image.mode == "P" else None
        if _exif_orientation(image) in _ON_ITS_SIDE:
            full = full[::-1]
        array = _pixels(ImageOps.exif_transpose(image))
    if image.format in ("JPEG", "MPO") and not _ends_as_jpeg(path.read_bytes()):
        raise Unusable("lacks the end of a JPEG, as after a broken download; fetch it again")
    return Picture(
        array if array.ndim == 3 else array[..., None], (_UNKNOWN, _UNKNOWN), full_size=full, palette=palette
    )


_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations in which a viewer shows columns as rows


def _exif_orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _colours(image: Image.Image) -> np.ndarray | None:
    """Uint8 `[256,3]` of a palette that is not of grays alone."""
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if (colours == colours[:, :1]).all():
        return None
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


def _is_deep_colour(path: pathlib.Path) -> bool:
    """Whether a file is a PNG with 16 bits of each colour, or of gray and opacity."""
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(b"\x89PNG") and start[24] == 16 and start[25] in (2, 4, 6)


def _read_deep_colour(path: pathlib.Path) -> np.ndarray:
    import cv2

    array: Any = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if path.read_bytes()[25] == 4:  # gray and opacity, which come as four
        return array[..., [0, -1]]
    return array[..., [2, 1, 0, 3][: array.shape[-1]]]


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "P":
        return np.asarray(image.convert("L") if _colours(image) is None else image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)  # L, LA, RGB, RGBA, I;16, I, F


def _ends_as_jpeg(content: bytes) -> bool:
    """Whether the last scan is ended; decoders fill up what is missing, also where it is a run of zeros."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


# TIFF.

_OPACITY = (1, 2)  # kinds of extra samples, associated and not
_MOST_CHANNELS = 16  # a last axis of at most that many, behind a longer first one, is channels


def _read_tiff(path: pathlib.Path, at_least: int | None) -> Picture:
    del at_least
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes, array = series.axes, series.asarray()
        opacity = sum(int(kind) in _OPACITY for kind in series.keyframe.extrasamples)
    if axes == "QYX" and array.shape[-1] <= _MOST_CHANNELS < array.shape[0]:
        axes = "YXS"  # tifffile takes the first axis of an array for pages where nothing says that the last is colour
    letters = "".join("D" if letter in "ZQIT" else "C" if letter in "SC" else letter for letter in axes)
    keep = [i for i, letter in enumerate(letters) if letter in "DYXC"]
    if len(keep) != len(letters) or sorted(set(letters)) != sorted(letters):
        raise Unusable(f"has the axes {axes} {array.shape}; save one picture or one stack, with or without channels")
    array = np.transpose(array, [letters.index(letter) for letter in "DYXC" if letter in letters])
    array = array if "C" in letters else array[..., None]
    if opacity and axes.endswith("S"):
        array = array[..., :-opacity]
    return Picture(array, (_UNKNOWN,) * (array.ndim - 1))


# NIfTI.


def _read_nifti(path: pathlib.Path, at_least: int | None) -> Picture:
    del at_least
    import nibabel

    with path.open("rb") as file:
        if path.suffix.lower() == ".nii" and file.read(2) == _GZIP:
            raise Unusable("is compressed; call it .nii.gz")
    image: Any = _of_bytes(path) if path.name.lower().endswith(".gz") else nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    if not 2 <= array.ndim <= 4:
        raise Unusable(f"has {array.ndim} axes {array.shape}; a NIfTI file has two to four: a picture or a volume")
    spacing = tuple(float(size) for size in image.header.get_zooms()[: min(array.ndim, 3)])
    backwards = np.eye(4)[[2, 1, 0, 3]]
    affine = image.affine @ backwards if geometry.is_usable(image.affine) else None
    spatial = tuple(reversed(range(len(spacing))))  # x, y, z -> z, y, x
    array = np.transpose(array, (*spatial, *range(3, array.ndim)))
    return Picture(array if array.ndim > len(spatial) else array[..., None], spacing[::-1], affine)


_NIFTI_START = 544  # bytes, as long as the header of either version and its mark of extensions


def _of_bytes(path: pathlib.Path) -> Any:
    """As `nibabel.load`, which reads what it needs and no checksum behind it: most changed bytes would go unnoticed."""
    import nibabel

    content = path.read_bytes()
    kinds = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    if any(kind.header_class.may_contain_header(content) for kind in kinds):
        raise Unusable("is not compressed; call it .nii, or compress it")
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        start = file.read(_NIFTI_START)
        for kind in kinds:
            if not kind.header_class.may_contain_header(start):
                continue
            header = kind.header_class.from_fileobj(io.BytesIO(start), check=False)
            shape, offset = header.get_data_shape(), int(header["vox_offset"])
            size = max(offset, 0) + math.prod(shape) * header.get_data_dtype().itemsize
            # what the header claims, and a byte more; reading on to the end would follow a decompression bomb
            whole = start + file.read(max(size - len(start), 0) + 1)
            if len(whole) > max(size, len(start)):
                raise Unusable("holds more behind its image than a NIfTI file has; write it anew, or do not use it")
            return kind.from_bytes(whole)
    raise Unusable("is no NIfTI file; fetch it again")


# DICOM.


def _read_dicom(path: pathlib.Path, at_least: int | None) -> Picture:
    del at_least
    import pydicom

    return _dicom_picture(pydicom.dcmread(path))


def _dicom_picture(file: Any) -> Picture:
    import pydicom.pixels

    if "PixelData" not in file:
        raise Unusable("is a DICOM file without pixels; fetch it again, or leave it out if it is a report or DICOMDIR")
    syntax = file.file_meta.TransferSyntaxUID
    plain = syntax.is_transfer_syntax and not syntax.is_compressed
    try:
        stored = file.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        if plain:
            raise
        raise Unusable(f"is compressed as {syntax.name}; decompress it, for example with gdcmconv --raw") from error
    array = pydicom.pixels.apply_rescale(stored, file)
    if file.get("PhotometricInterpretation") == "MONOCHROME1":  # white is low
        array = array.max() - (array - array.min())  # the sum of two may not fit into the type
    colour = file.get("SamplesPerPixel", 1) > 1
    array = array if colour else array[..., None]
    inside = [float(size) for size in file.get("PixelSpacing", None) or (_UNKNOWN, _UNKNOWN)]
    spacing = tuple(inside) if array.ndim == 3 else (_between(file), *inside)
    return Picture(array, spacing, None)


def _between(file: Any) -> float:
    """mm from slice to slice, as far as one file tells."""
    return float(file.get("SpacingBetweenSlices", None) or file.get("SliceThickness", None) or _UNKNOWN)


def _orientation(file: Any) -> str:
    """To which side of the patient slices, rows and columns run; empty where the file does not tell."""
    if not file.get("ImageOrientationPatient", None):
        return ""
    row, column = np.reshape(np.asarray(file.ImageOrientationPatient, float), (2, 3))
    directions = np.cross(row, column), column, row  # a column's pixels lie in rows that follow each other
    axes = [int(np.argmax(abs(direction))) for direction in directions]
    return "".join(
        ("RL", "AP", "IS")[axis][int(direction[axis] > 0)] for axis, direction in zip(axes, directions, strict=True)
    )


def _read_series(folder: pathlib.Path) -> Picture:
    import pydicom

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".dcm", ".ima"))
    if not paths:
        raise Unusable("is a folder without DICOM files (.dcm); name a file, or the folder of one series")
    files = []
    for path in paths:
        try:
            files.append(pydicom.dcmread(path))
        except Exception as error:
            raise Unusable(f"cannot be read as a series: {path.name} ({_first_line(error)}); fetch it again") from error
    series = {file.get("SeriesInstanceUID") for file in files}
    if len(series) > 1:
        raise Unusable(f"holds {len(series)} DICOM series; give each a folder of its own")
    places = _places(files)
    numbers = [float(file.get("InstanceNumber", None) or 0) for file in files]
    order = np.argsort(numbers if places is None else places, kind="stable")
    slices = [_slice(paths[i].name, files[i]) for i in order]
    shapes = {picture.array.shape for picture in slices}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape[1]}x{shape[0]}" for shape in sorted(shapes))
        raise Unusable(f"holds DICOM slices of the sizes {sizes}; leave out what is no slice of the volume")
    array, inside = np.stack([picture.array for picture in slices]), slices[0].spacing
    if places is None:
        return Picture(array, (_between(files[0]), *inside))
    steps = np.diff(places[order])
    between = float(np.median(steps)) if len(steps) else _between(files[0])
    if len(steps) and steps.min() < 1e-3:
        one, other = (paths[order[steps.argmin() + i]].name for i in (0, 1))
        raise Unusable(f"holds DICOM slices of the same place, such as {one} and {other}; leave one of them out")
    if len(steps) and np.ptp(steps) > 0.1 * max(abs(between), 1e-6):
        raise Unusable(
            f"lacks DICOM slices: they lie {steps.min():g} to {steps.max():g} mm apart; fetch the series again"
        )
    return Picture(array, (between, *inside), None)


def _slice(name: str, file: Any) -> Picture:
    try:
        return _dicom_picture(file)
    except Unusable as problem:
        raise Unusable(f"holds {name}, which {problem}") from problem
    except Exception as error:
        raise Unusable(f"cannot be read as a series: {name} ({_first_line(error)}); fetch it again") from error


def _places(files: Sequence[Any]) -> np.ndarray | None:
    """Where each slice lies along the normal of the slices in mm; None where the files do not tell."""
    if all("ImagePositionPatient" in file and "ImageOrientationPatient" in file for file in files):
        row, column = np.reshape(np.asarray(files[0].ImageOrientationPatient, float), (2, 3))
        return np.array([np.dot(np.cross(row, column), np.asarray(f.ImagePositionPatient, float)) for f in files])
    return None


_PILLOW = (".png", ".jpg", ".jpeg", ".bmp")
_READERS: dict[str, Callable[[pathlib.Path, int | None], Picture]] = {
    **dict.fromkeys(_PILLOW, _read_pillow),
    **dict.fromkeys((".tif", ".tiff"), _read_tiff),
    **dict.fromkeys((".nii", ".nii.gz"), _read_nifti),
    **dict.fromkeys((".dcm", ".ima"), _read_dicom),
}


def encode_png(array: np.ndarray) -> bytes:
    """PNG bytes of a uint8 array `[H,W]`, `[H,W,1]`, `[H,W,3]` or `[H,W,4]`."""
    buffer = io.BytesIO()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 and array.ndim == 3 else array)
    image.save(buffer, "PNG", compress_level=3)  # 8 % larger than the default, in a third of its time
    return buffer.getvalue()
