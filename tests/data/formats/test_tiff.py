"""TIFF against Pillow's view of it, and what masks and the tags that Pillow does not read come to."""

import io
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from jaxseg.data import formats

ORIENTATION = 274


def noise(rng: np.random.Generator, *shape: int, bits: int = 8) -> np.ndarray:
    return rng.integers(0, 2**bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)


def turned_tag(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    return [(ORIENTATION, "H", 1, int(rng.integers(1, 9)), True)]


def by_tifffile(path: pathlib.Path, rng: np.random.Generator) -> None:
    """Grays of 1 to 16 bits and colours of 8, in every compression, byte order and place of the planes."""
    size = tuple(rng.integers(17, 40, 2).tolist())
    kind = rng.choice(["gray", "bits", "12", "16", "float", "rgb", "rgba"])
    options: dict[str, Any] = {"extratags": turned_tag(rng), "byteorder": rng.choice(["<", ">"])}
    compression = rng.choice(["none", "deflate", "lzw", "packbits"])
    if kind == "bits":
        bits = int(rng.choice([1, 2, 4]))
        array = noise(rng, *size, bits=bits)
        options["photometric"] = rng.choice(["minisblack", "miniswhite"])
        if bits == 1:
            array = array > 0
        else:
            options["bitspersample"] = bits
        tifffile.imwrite(path, array, **options)
        return
    if kind == "12":
        options["byteorder"] = "<"  # in the other, Pillow does not read them
        tifffile.imwrite(path, noise(rng, *size, bits=12), bitspersample=12, photometric="minisblack", **options)
        return
    options["compression"] = None if compression == "none" else compression
    options["rowsperstrip"] = int(rng.integers(3, 40))
    if kind in ("16", "float"):
        array = noise(rng, *size, bits=16)
        if kind == "float":  # Pillow takes numbers that are compressed for little-endian
            array, options["byteorder"] = rng.normal(0, 9, size).astype(np.float32), "<"
        tifffile.imwrite(path, array, photometric="minisblack", **options)
        return
    if compression in ("deflate", "lzw"):
        options["predictor"] = bool(rng.random() < 0.5)
    if kind == "gray":
        options["photometric"] = rng.choice(["minisblack", "miniswhite"])
        tifffile.imwrite(path, noise(rng, *size), **options)
        return
    channels = 3 + (kind == "rgba")
    array = noise(rng, *size, channels)
    if kind == "rgba":
        options["extrasamples"] = [rng.choice(["unassalpha", "assocalpha", "unspecified"])]
    elif compression != "packbits" and rng.random() < 0.4:
        array, options["planarconfig"] = np.moveaxis(array, -1, 0), "separate"
    tifffile.imwrite(path, array, photometric="rgb", **options)


def by_pillow(path: pathlib.Path, rng: np.random.Generator) -> None:
    """What Pillow and libtiff write: bilevel by fax codes, palettes, CMYK, YCbCr, Lab, JPEG."""
    size = tuple(rng.integers(17, 40, 2).tolist())
    mode = rng.choice(["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "LA", "RGBA"])
    codes = {"1": [None, "group3", "group4", "packbits"], "RGB": [None, "jpeg", "tiff_lzw"], "L": [None, "jpeg"]}
    channels = {"1": 1, "L": 1, "P": 1, "LA": 2, "CMYK": 4, "RGBA": 4}.get(mode, 3)
    smooth = np.linspace(0, 255, size[0])[:, None, None] * np.linspace(0.3, 1, size[1])[:, None]
    array = (smooth * np.linspace(0.5, 1, channels)).astype(np.uint8)
    array = array.squeeze(-1) if channels == 1 else array
    image = Image.fromarray(array > 99) if mode == "1" else Image.frombytes(mode, size[::-1], array.tobytes())
    if mode == "P":
        image.putpalette(noise(rng, 256, 3).tobytes())
    exif = Image.Exif()
    exif[ORIENTATION] = int(rng.integers(1, 9))
    image.save(path, compression=rng.choice(codes.get(mode, [None, "tiff_deflate", "packbits"])), exif=exif)


def seen(path: pathlib.Path) -> np.ndarray:
    """Pillow's view, `[H,W,C]` without opacity."""
    with Image.open(io.BytesIO(path.read_bytes())) as stored:  # which turns no file that it maps into memory
        image = ImageOps.exif_transpose(stored)
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode not in ("L", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    return np.atleast_3d(np.asarray(image))


@pytest.mark.parametrize("write", [by_tifffile, by_pillow])
def test_random_files_are_read_as_pillow_shows_them(tmp_path, write):
    for seed in range(100):
        path = tmp_path / f"{seed}.tif"
        write(path, np.random.default_rng(seed))
        found, wanted = formats.read(path).array, seen(path)
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            text, jpeg = f"{path.name} {page}", page.compression == tifffile.COMPRESSION.JPEG
            if 0 in page.extrasamples:  # a fourth channel that is not opacity, which Pillow leaves out
                found = found[..., :3]
        assert found.shape == wanted.shape, text
        assert found.dtype.isnative and found.flags.writeable
        np.testing.assert_allclose(found, wanted, atol=2 * jpeg, err_msg=text)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colour", ["rgb", "minisblack"])
def test_colours_that_were_multiplied_with_their_opacity_are_divided_by_it(tmp_path, kind, colour):
    rng = np.random.default_rng(0)
    top = 1.0 if kind == np.float32 else np.iinfo(kind).max
    opacity = rng.uniform(0.4, 1, (9, 12, 1))
    colours = rng.uniform(0, 1, (9, 12, 3 if colour == "rgb" else 1))
    stored = np.concatenate([colours * opacity, opacity], -1) * top
    stored[0, 0] = 0
    stored = (stored if kind == np.float32 else np.rint(stored)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=colour, extrasamples=["assocalpha"], planarconfig="contig")
    found = formats.read(tmp_path / "a.tif").array
    assert found.dtype == kind and not found[0, 0].any()
    colours[0, 0] = 0
    np.testing.assert_allclose(found, colours * top, atol=3 if top > 1 else 1e-5)


MICROSCOPES: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[float, ...]]] = {
    "ImageJ, um": (
        {"imagej": True, "resolution": (5, 4), "metadata": {"axes": "ZYX", "spacing": 2.5, "unit": "um"}},
        (3, 9, 12),
        (0.0025, 0.00025, 0.0002),
    ),
    "ImageJ, micro sign": (
        {"imagej": True, "resolution": (5, 4), "metadata": {"axes": "ZYX", "spacing": 2, "unit": r"\u00B5m"}},
        (3, 9, 12),
        (0.002, 0.00025, 0.0002),
    ),
    "ImageJ, a picture in mm": (
        {"imagej": True, "resolution": (5, 4), "metadata": {"unit": "mm"}},
        (9, 12),
        (0.25, 0.2),
    ),
    "ImageJ, pixels": (
        {"imagej": True, "resolution": (5, 4), "metadata": {"axes": "ZYX", "spacing": 2.5, "unit": "pixel"}},
        (3, 9, 12),
        (np.nan, np.nan, np.nan),
    ),
    "ImageJ, in time": (
        {"imagej": True, "resolution": (5, 4), "metadata": {"axes": "TYX", "spacing": 2.5, "unit": "mm"}},
        (3, 9, 12),
        (np.nan, 0.25, 0.2),
    ),
    "OME": (
        {
            "ome": True,
            "metadata": {
                "axes": "CZYX", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 400,
                "PhysicalSizeZ": 2, "PhysicalSizeZUnit": "µm",
            },
        },
        (2, 3, 9, 12),
        (0.002, 0.4, 0.3),
    ),
    "OME without sizes": ({"ome": True, "metadata": {"axes": "YX"}}, (9, 12), (np.nan, np.nan)),
    "a photograph": ({"resolution": (72, 72), "resolutionunit": "INCH", "metadata": None}, (9, 12), (np.nan, np.nan)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MICROSCOPES)
def test_microscopes_say_how_large_pixels_are(tmp_path, kind):
    options, shape, wanted = MICROSCOPES[kind]
    stored = noise(np.random.default_rng(0), *shape, bits=16)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", **options)
    picture = formats.read(tmp_path / "a.tif")
    np.testing.assert_allclose(picture.spacing, wanted)
    assert picture.affine is None and picture.array.shape[:-1] == shape[-len(wanted) :]


def test_the_size_of_pixels_turns_with_them(tmp_path):
    stored = noise(np.random.default_rng(0), 9, 12)
    options = {"metadata": {"unit": "mm"}, "extratags": [(ORIENTATION, "H", 1, 6, True)]}
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, resolution=(5, 4), **options)
    picture = formats.read(tmp_path / "a.tif")
    assert picture.size == (12, 9) and picture.spacing == pytest.approx((0.2, 0.25))


def disc() -> np.ndarray:
    rows, columns = np.ogrid[:40, :50]
    return (rows - 20) ** 2 + (columns - 30) ** 2 < 52


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_white_is_zero_is_read_as_a_viewer_shows_it(tmp_path, bits):
    top = 2**bits - 1
    stored = np.where(disc(), 0, top).astype(np.uint16 if bits == 16 else np.uint8)  # a white disc
    stored = stored > 0 if bits == 1 else stored
    options = {"bitspersample": bits} if bits in (2, 4) else {}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", **options)
    mask = formats.read_mask(tmp_path / "a.tif").array
    np.testing.assert_array_equal(mask[..., 0], np.where(disc(), top, 0))
    assert round(float((mask > 0).mean()), 2) == 0.08
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array[..., 0], disc() * max(255, top))


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_white_is_zero_of_other_numbers_is_turned_over(tmp_path, kind):
    stored = np.arange(-6, 6).reshape(3, 4).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    found = formats.read(tmp_path / "a.tif").array[..., 0]
    assert found.dtype == kind
    np.testing.assert_array_equal(found, -1 - stored)


def test_a_mask_of_one_bit_is_read_without_a_warning(tmp_path):
    Image.fromarray(disc()).save(tmp_path / "a.tif", compression="group4")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = formats.read_mask(tmp_path / "a.tif").array
    assert not caught
    np.testing.assert_array_equal(mask[..., 0], disc())


def test_a_mask_keeps_the_numbers_of_its_bits_and_its_palette(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 4, (9, 12), np.uint8)
    tifffile.imwrite(tmp_path / "2.tif", numbers, bitspersample=2, photometric="minisblack")
    colours = np.random.default_rng(1).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", numbers, photometric="palette", colormap=colours)
    for name in ("2.tif", "p.tif"):
        np.testing.assert_array_equal(formats.read_mask(tmp_path / name).array[..., 0], numbers)
    np.testing.assert_array_equal(formats.read(tmp_path / "2.tif").array[..., 0], numbers * 85)
    np.testing.assert_array_equal(formats.read(tmp_path / "p.tif").array, (colours >> 8).T[numbers])


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_a_jpeg_inside_is_read_in_its_colours(tmp_path, subsampling):
    rows, columns = np.mgrid[:64, :48]
    image = np.stack([3 * rows, 5 * columns, 255 - 2 * rows - columns], -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression="jpeg", subsampling=subsampling)
    found = formats.read(tmp_path / "a.tif").array
    np.testing.assert_allclose(found, seen(tmp_path / "a.tif"), atol=12)  # two ways to double the colours
    assert abs(found.astype(float) - image).mean() < 3


def test_bits_that_are_filled_from_below_are_turned_over(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(disc()).save(path, compression="group4", tiffinfo={266: 1})
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        order, start, end = page.tags["FillOrder"].valueoffset, page.dataoffsets[0], sum(page.databytecounts)
    content = bytearray(path.read_bytes())
    content[order] = 2
    content[start : start + end] = bytes(int(f"{byte:08b}"[::-1], 2) for byte in content[start : start + end])
    path.write_bytes(content)
    np.testing.assert_array_equal(formats.read_mask(path).array[..., 0], disc())


def test_cmyk_in_many_pages_is_a_stack_of_colours(tmp_path):
    pages = [Image.new("CMYK", (12, 9), ink) for ink in ((255, 0, 0, 0), (0, 255, 0, 99))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = formats.read(tmp_path / "a.tif").array
    assert found.shape == (2, 9, 12, 3)
    np.testing.assert_array_equal(found[:, 0, 0], [[0, 255, 255], [156, 0, 156]])


def test_opacity_before_another_channel_is_left_out_and_the_channel_stays(tmp_path):
    image = noise(np.random.default_rng(0), 9, 12, 5)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array, image[..., [0, 1, 2, 4]])


def test_of_a_pyramid_the_whole_resolution_is_read_and_of_several_images_the_first(tmp_path):
    image = noise(np.random.default_rng(0), 64, 64, 3)
    with tifffile.TiffWriter(tmp_path / "ome.tif", ome=True) as file:
        file.write(image, subifds=1, photometric="rgb")
        file.write(image[::2, ::2], subfiletype=1, photometric="rgb")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(image[::4, ::4], subfiletype=1, photometric="rgb", metadata=None)
        file.write(image, photometric="rgb", metadata=None)
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(image, photometric="rgb", metadata=None)
        file.write(image[:9], photometric="rgb", metadata=None)
    for name in ("ome", "preview", "two"):
        picture = formats.read(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(picture.array, image)
        assert picture.notes == (("holds 1 more image of another size or kind; the first was taken",) * (name == "two"))


@pytest.mark.parametrize(
    ("axes", "shape"), [("ZYX", (3, 9, 12)), ("ZCYX", (3, 2, 9, 12)), ("CYX", (2, 9, 12)), ("TYX", (4, 9, 12))]
)
@pytest.mark.parametrize("flavour", ["imagej", "ome"])
def test_stacks_of_microscopes_have_channels_last(tmp_path, flavour, axes, shape):
    stored = noise(np.random.default_rng(0), *shape, bits=16)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", metadata={"axes": axes}, **{flavour: True})
    wanted = np.moveaxis(stored, axes.index("C"), -1) if "C" in axes else stored[..., None]
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array, wanted)


def test_colours_that_pillow_does_not_read_are_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(np.random.default_rng(0), 9, 12, 3, bits=16), photometric="cielab")
    with pytest.raises(formats.Unusable, match=r"holds CIELAB colours of 16 bits, which cannot be read .* as RGB"):
        formats.read(tmp_path / "a.tif")
