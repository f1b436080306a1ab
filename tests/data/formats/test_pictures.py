"""Intact pictures that were called broken downloads, and broken ones, which still are."""

import io
import pathlib
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxseg.data import formats
from jaxseg.data.formats import pictures


def scene() -> np.ndarray:
    rows, columns = np.mgrid[:48, :64]
    return np.stack([5 * rows, 4 * columns, 255 - 2 * rows - columns], -1).astype(np.uint8)


def jpeg(**options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "JPEG", quality=95, subsampling=0, **options)
    return buffer.getvalue()


def png(array: np.ndarray | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene() if array is None else array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def film() -> bytes:
    """The start of an MP4, and bytes among which are the marks of scans and ends of a JPEG."""
    return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + np.random.default_rng(0).bytes(9000) + b"\xff\xda\0\x0c" + bytes(999)


def multi_picture() -> bytes:
    buffer = io.BytesIO()
    first = Image.fromarray(scene())
    first.save(buffer, "MPO", save_all=True, append_images=[first.rotate(180)], quality=95, subsampling=0)
    return buffer.getvalue()


def thumbnail() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "x"
    small = jpeg()[:3000]
    return jpeg(exif=exif.tobytes() + small)


def without_end(content: bytes) -> bytes:
    assert content.endswith(b"\xff\xd9")
    return content[:-2]


JPEGS = {
    "a film behind it": jpeg() + film(),
    "zeros behind it": jpeg() + bytes(5000),
    "another JPEG that is cut behind it": jpeg() + jpeg()[:2000],
    "many pictures": multi_picture(),
    "many pictures, the last cut": multi_picture()[:-500],
    "many scans": jpeg(progressive=True),
    "marks to begin anew": jpeg(restart_marker_blocks=1),
    "a thumbnail": thumbnail(),
    "a comment with marks": jpeg(comment=b"\xff\xd9 \xff\xda"),
    "filled up before a mark": without_end(jpeg()) + b"\xff\xff\xff\xd9",
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_is_read_whatever_else_is_in_it(tmp_path, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEGS[kind])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = formats.read(path).array
    assert not caught
    assert abs(found.astype(float) - scene()).mean() < 3
    assert formats.colour_channels(path) == 3
    content = formats.unchanged_bytes(path)
    if content is not None:
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_array_equal(np.asarray(image), found)


@pytest.mark.parametrize("cut", [900, 300, 2])
@pytest.mark.parametrize("kind", [{}, {"progressive": True}])
def test_a_jpeg_that_is_cut_is_refused(tmp_path, kind, cut):
    whole = jpeg(**kind)
    for content in (whole[:-cut], whole[:-cut] + bytes(cut)):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(
            formats.Unusable, match=r"^(lacks the end of a JPEG|cannot be read as an image \(.*\)).*; fetch it again$"
        ):
            formats.read(tmp_path / "a.jpg")


def texts(*, length: int, compressed: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("history", "a" * length, zip=compressed)
    return info


PNGS = {
    "2 MB of compressed text": png(pnginfo=texts(length=2_000_000, compressed=True)),
    "90 MB of compressed text": png(pnginfo=texts(length=90_000_000, compressed=True)),
    "2 MB of text": png(pnginfo=texts(length=2_000_000, compressed=False)),
    "2 MB of a profile": png(icc_profile=bytes(2_000_000)),
    "bytes behind it": png() + film(),
    "more pictures behind it": png(save_all=True, append_images=[Image.new("RGB", (64, 48))]),
}


@pytest.mark.parametrize("kind", PNGS)
def test_a_whole_png_is_read_whatever_else_is_in_it(tmp_path, kind):
    path = tmp_path / "a.png"
    path.write_bytes(PNGS[kind])
    np.testing.assert_array_equal(formats.read(path).array, scene())
    assert formats.colour_channels(path) == 3
    content = formats.unchanged_bytes(path)
    if content is not None:
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_array_equal(np.asarray(image), scene())


def test_deep_and_turned_pngs_with_long_texts_are_read(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "a.png").write_bytes(png(exif=exif, pnginfo=texts(length=2_000_000, compressed=True)))
    np.testing.assert_array_equal(formats.read(tmp_path / "a.png").array, np.rot90(scene(), -1))
    gray = np.random.default_rng(0).integers(0, 2**16, (9, 12)).astype(np.uint16)
    (tmp_path / "b.png").write_bytes(png(gray, pnginfo=texts(length=2_000_000, compressed=True)))
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "b.png").array[..., 0], gray)


@pytest.mark.parametrize("turn", range(1, 9))
def test_deep_colour_is_turned_as_a_viewer_turns_it(tmp_path, turn):
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 9, 3)).astype(np.uint16)
    exif = Image.Exif()
    exif[274] = turn
    small = png(deep.astype(np.uint8), exif=exif)  # Pillow writes no deep colour
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0)), (b"eXIf", exif.tobytes()[6:]),
             (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]  # fmt: skip
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (tmp_path / "small.png").write_bytes(small)
    found = formats.read(tmp_path / "deep.png").array
    np.testing.assert_array_equal(found.astype(np.uint8), formats.read(tmp_path / "small.png").array)
    assert found.dtype == np.uint16


def test_a_png_that_is_cut_or_changed_is_refused(tmp_path):
    whole = png()
    path = tmp_path / "a.png"
    for count in (30, len(whole) // 2, len(whole) - 12, len(whole) - 1):
        path.write_bytes(whole[:count])
        with pytest.raises(formats.Unusable, match=r"\(it lacks the end of a PNG\); fetch it again"):
            formats.read(path)
    changed = bytearray(whole)
    changed[-30] ^= 1
    path.write_bytes(changed)
    with pytest.raises(formats.Unusable, match=r"\(wrong checksum of its part IDAT\); fetch it again"):
        formats.read(path)


def test_a_bitmap_from_the_top_down_is_read(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    start = int.from_bytes(content[10:14], "little")
    rows = [content[start + i * 192 : start + (i + 1) * 192] for i in range(48)]
    content[22:26] = struct.pack("<i", -48)
    content[start:] = b"".join(reversed(rows))
    path = pathlib.Path(tmp_path / "a.bmp")
    path.write_bytes(content)
    np.testing.assert_array_equal(formats.read(path).array, scene())
    path.write_bytes(content[:-500])
    with pytest.raises(formats.Unusable, match="fetch it again"):
        formats.read(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_arrays_may_be_written_to(tmp_path, mode):
    Image.new(mode, (8, 6)).save(tmp_path / "a.png")
    array = formats.read(tmp_path / "a.png").array
    assert array.flags.writeable and array.dtype.isnative


def test_what_is_not_proven_broken_is_not_to_be_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())

    def fail(*_args, **_options):
        raise OSError("decoder zip not available")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(
        formats.Unusable, match=r"\(decoder zip not available\); save it again with a program that opens"
    ):
        formats.read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.nii", "a.nii.gz", "a.dcm", "a.mha", "a.nrrd"])
def test_what_is_not_there_is_said(tmp_path, name):
    with pytest.raises(
        formats.Unusable, match=r"^cannot be read as an image \(\[Errno 2\] No such file .*\); check that it is there"
    ):
        formats.read(tmp_path / name)


def test_deep_colours_that_opencv_cannot_decode_are_said():
    with pytest.raises(ValueError, match="OpenCV cannot decode it"):
        pictures._deep_colour(png()[:30] + bytes(40), 1)
