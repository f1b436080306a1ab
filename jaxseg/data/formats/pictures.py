"""PNG, JPEG and BMP, as Pillow reads them; deep colour as OpenCV does."""

import io
import pathlib
import re
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from jaxseg.data.formats.picture import Picture, Unusable, quietly, unplaced
from jaxseg.data.formats.turns import ON_ITS_SIDE, turned

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

_FORMATS = {".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".png": ("PNG",)}  # MPO: a JPEG with more after it


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture, turned as a viewer turns it; a JPEG at a smaller scale of `at_least` pixels a side."""
    suffix = path.suffix.lower()
    content = path.read_bytes()
    if content.startswith(_PNG):
        content = _shown_chunks(content)
    with Image.open(io.BytesIO(content)) as image:
        if suffix in _FORMATS and image.format not in _FORMATS[suffix]:
            raise Unusable(f"holds {image.format} data; convert it to {_FORMATS[suffix][0]}")
        if _is_deep_colour(content):  # Pillow would reduce it to 8 bits
            return unplaced(_deep_colour(content, _exif_orientation(image)))
        full = image.size[::-1]
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        palette = _colours(image) if image.mode == "P" else None
        if _exif_orientation(image) in ON_ITS_SIDE:
            full = full[::-1]
        array = _pixels(ImageOps.exif_transpose(image))
    if content.startswith(b"\xff\xd8") and not _ends_as_jpeg(content):
        raise Unusable("lacks the end of a JPEG, as after a broken download; fetch it again")
    return unplaced(array if array.ndim == 3 else array[..., None])._replace(full_size=full, palette=palette)


def colour_channels(path: pathlib.Path) -> int | None:
    """1 or 3, from the header of a PNG, JPEG or BMP without decoding it; None of other or damaged files."""
    if path.suffix.lower() not in SUFFIXES:
        return None
    try:
        with quietly(), _opened(path) as image:
            gray = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
            return 1 if gray or (image.mode == "P" and _colours(image) is None) else 3
    except Exception:  # reported by whoever reads it
        return None


def has_eight_bits(path: pathlib.Path) -> bool:
    """Whether a PNG, JPEG or BMP has no more than 8 bits for each channel, from its header."""
    with path.open("rb") as file:
        start = file.read(_PNG_BITS + 1)
    return not (start.startswith(_PNG) and start[_PNG_BITS:] == b"\x10")


def unchanged_bytes(path: pathlib.Path) -> bytes | None:
    """The file's own bytes where it is a PNG or JPEG as data sets store them, 8 bits of gray or RGB; else None."""
    if path.suffix.lower() not in _FORMATS:
        return None
    try:
        with quietly(), Image.open(path) as image:
            plain = image.mode in ("L", "RGB") and "transparency" not in image.info and image.format != "MPO"
            plain = plain and _exif_orientation(image) == 1
    except ValueError:  # more text than Pillow accepts
        return None
    return path.read_bytes() if plain else None


def encode_png(array: np.ndarray) -> bytes:
    """PNG bytes of a uint8 array `[H,W]`, `[H,W,1]`, `[H,W,3]` or `[H,W,4]`."""
    buffer = io.BytesIO()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 and array.ndim == 3 else array)
    image.save(buffer, "PNG", compress_level=3)  # 8 % larger than the default, in a third of its time
    return buffer.getvalue()


def is_broken(content: bytes) -> bool:
    """Whether the bytes of a picture end too early or contradict their checksums."""
    if content.startswith(_PNG):
        try:
            _shown_chunks(content)
        except Unusable:
            return True
    if content.startswith(b"BM"):
        return len(content) < 6 or int.from_bytes(content[2:6], "little") > len(content)
    return content.startswith(b"\xff\xd8") and not _ends_as_jpeg(content)


def _opened(path: pathlib.Path) -> Image.Image:
    try:
        return Image.open(path)
    except ValueError:  # more text than Pillow accepts
        return Image.open(io.BytesIO(_shown_chunks(path.read_bytes())))


def _exif_orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _colours(image: Image.Image) -> np.ndarray | None:
    """Uint8 `[256,3]` of a palette that is not of grays alone."""
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if (colours == colours[:, :1]).all():
        return None
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "1":
        return np.array(image.convert("L"))
    if image.mode == "P":
        return np.array(image.convert("L") if _colours(image) is None else image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.array(image.convert("RGB"))
    return np.array(image)  # L, LA, RGB, RGBA, I;16, I, F


# PNG.

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS = 24  # offset of the bit depth
_UNSEEN = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # Pillow refuses files in which they are long


def _shown_chunks(content: bytes) -> bytes:
    """A PNG without its texts and its profile of colours, and without what follows its end.

    Raises:
      Unusable: a checksum is wrong, or the end is missing, which decoders overlook.
    """
    kept, place = [_PNG], len(_PNG)
    while True:
        length, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        chunk = content[place : place + length + 12]
        if len(chunk) < length + 12:
            raise Unusable("cannot be read as an image (it lacks the end of a PNG); fetch it again")
        if zlib.crc32(memoryview(chunk)[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            part = name.decode("ascii", "replace")
            raise Unusable(f"cannot be read as an image (wrong checksum of its part {part}); fetch it again")
        if name not in _UNSEEN:
            kept.append(chunk)
        if name == b"IEND":
            return b"".join(kept)
        place += len(chunk)


def _is_deep_colour(content: bytes) -> bool:
    """Whether these are a PNG with 16 bits of each colour, or of gray and opacity."""
    return content.startswith(_PNG) and content[_PNG_BITS] == 16 and content[_PNG_BITS + 1] in (2, 4, 6)


def _deep_colour(content: bytes, orientation: int) -> np.ndarray:
    array: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("OpenCV cannot decode it")
    channels = [0, -1] if content[25] == 4 else [2, 1, 0, 3][: array.shape[-1]]  # gray and opacity come as four
    return turned(array[..., channels], orientation)


# JPEG.

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # of those in the data of a scan, none but the next part


def _ends_as_jpeg(content: bytes) -> bool:
    """Whether the picture has its end; decoders fill in what is missing. Anything may follow it, such as a film."""
    place = 2
    while marker := _MARKER.search(content, place):
        kind = marker[0][1]
        if kind == 0xD9:
            return True
        length = int.from_bytes(content[marker.end() : marker.end() + 2], "big")
        place = marker.end() + (0 if kind == 0x01 else length)
    return False
