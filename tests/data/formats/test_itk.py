"""NRRD and MetaImage: what their specifications say of numbers and places, and files that are not whole."""

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from jaxseg.data import formats

VOLUME = np.random.default_rng(0).integers(-999, 999, (4, 5, 6)).astype(np.int16)  # z, y, x


def write(path, array=VOLUME, *, vector=False, compressed=False):
    image = SimpleITK.GetImageFromArray(array, isVector=vector)
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("seed", range(4))
def test_places_are_those_of_the_same_nifti(tmp_path, ending, seed):
    rng = np.random.default_rng(seed)
    image = SimpleITK.GetImageFromArray(VOLUME)
    image.SetSpacing(rng.uniform(0.3, 4, 3).tolist())
    image.SetOrigin(rng.uniform(-99, 99, 3).tolist())
    image.SetDirection(Rotation.random(rng=rng).as_matrix().ravel().tolist())
    for name in (f"a.{ending}", "a.nii"):
        SimpleITK.WriteImage(image, str(tmp_path / name), useCompression=bool(seed % 2))
    picture = formats.read(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(picture.array[..., 0], VOLUME)
    affine = nibabel.load(tmp_path / "a.nii").affine[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(picture.affine, affine, atol=1e-4)
    np.testing.assert_allclose(picture.spacing, image.GetSpacing()[::-1])
    assert picture.orientation == formats.read(tmp_path / "a.nii").orientation


def nrrd(path, *lines: str, kind: str = "short") -> np.ndarray | None:
    header = ["NRRD0004", f"type: {kind}", "dimension: 3", "sizes: 6 5 4", "encoding: raw", "endian: big", *lines]
    path.write_bytes("\n".join([*header, "", ""]).encode() + VOLUME.astype(">i2").tobytes())
    return formats.read(path)


def test_spaces_of_nrrd(tmp_path):
    directions = "space directions: (0.5,0,0) (0,0.7,0) (0,0,2)"
    for space, signs in (("right-anterior-superior", (1, 1)), ("LPS", (-1, -1)), ("left-anterior-superior", (-1, 1))):
        picture = nrrd(tmp_path / "a.nrrd", f"space: {space}", directions, "space origin: (1,2,3)")
        x, y = signs
        affine = [[0, 0, 0.5 * x, x], [0, 0.7 * y, 0, 2 * y], [2, 0, 0, 3], [0, 0, 0, 1]]
        np.testing.assert_allclose(picture.affine, affine)
        np.testing.assert_array_equal(picture.array[..., 0], VOLUME)
        assert picture.array.dtype == np.int16 and picture.array.dtype.isnative
    picture = nrrd(tmp_path / "b.nrrd", "spacings: 0.5 0.7 2")
    assert picture.affine is None and picture.spacing == (2, 0.7, 0.5) and picture.orientation == ""
    picture = nrrd(tmp_path / "c.nrrd")
    assert picture.affine is None and np.isnan(picture.spacing).all()


@pytest.mark.parametrize(("unit", "length"), [("mm", 1), ("um", 1e-3), ("m", 1000), ("microns", 1e-3), ("???", 1)])
def test_units_of_nrrd_become_mm(tmp_path, unit, length):
    space = ["space: left-posterior-superior", "space directions: (0.5,0,0) (0,0.7,0) (0,0,2)", "space origin: (1,2,3)"]
    units = " ".join([f'"{unit}"'] * 3)
    picture = nrrd(tmp_path / "a.nrrd", *space, f"space units: {units}")
    np.testing.assert_allclose(picture.spacing, np.array([2, 0.7, 0.5]) * length)
    affine = np.array([[0, 0, -0.5, -1], [0, -0.7, 0, -2], [2, 0, 0, 3]]) * length
    np.testing.assert_allclose(picture.affine[:3], affine)
    picture = nrrd(tmp_path / "b.nrrd", "spacings: 0.5 0.7 2", f"units: {units}")
    np.testing.assert_allclose(picture.spacing, np.array([2, 0.7, 0.5]) * length)


def test_channels_pictures_and_layers(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    for name in ("a.mha", "a.nrrd"):
        np.testing.assert_array_equal(formats.read(write(tmp_path / name, colours, vector=True)).array, colours)
    frames = formats.read(write(tmp_path / "4.mha", np.moveaxis(colours, -1, 0)))
    np.testing.assert_array_equal(frames.array, colours)
    assert len(frames.spacing) == 3
    picture = formats.read(write(tmp_path / "2.mha", VOLUME[0]))
    np.testing.assert_array_equal(picture.array[..., 0], VOLUME[0])
    assert picture.spacing == (1, 1) and picture.orientation == "PL"
    mask = (VOLUME > 0).astype(np.uint8)
    np.testing.assert_array_equal(formats.read_mask(write(tmp_path / "m.seg.nrrd", mask)).array[..., 0], mask)
    write(tmp_path / "two.seg.nrrd", np.stack([mask, mask], -1), vector=True)
    with pytest.raises(formats.Unusable, match="has 2 layers, as overlapping segments have; export them as one"):
        formats.read_mask(tmp_path / "two.seg.nrrd")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.6, 0.95])
def test_a_part_of_a_file_is_one_line(tmp_path, capfd, ending, compressed, share):
    content = write(tmp_path / f"a.{ending}", compressed=compressed).read_bytes()
    path = tmp_path / f"b.{ending}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(formats.Unusable, match=r"^cannot be read as an image \([^/]*\); fetch it again$"):
        formats.read(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_a_changed_byte_of_compressed_numbers_is_found(tmp_path, ending):
    content = bytearray(write(tmp_path / f"a.{ending}", compressed=True).read_bytes())
    for place in (-100, -60, -9):
        changed = content.copy()
        changed[place] ^= 255
        (tmp_path / f"b.{ending}").write_bytes(changed)
        with pytest.raises(formats.Unusable, match=r"cannot be read as an image \(.*\); fetch it again"):
            formats.read(tmp_path / f"b.{ending}")


def test_numbers_in_another_file_that_are_missing_or_cut(tmp_path):
    write(tmp_path / "a.mhd")
    numbers = (tmp_path / "a.raw").read_bytes()
    (tmp_path / "a.raw").write_bytes(numbers[:100])
    with pytest.raises(formats.Unusable, match="holds 100 bytes of data, and its header says 240"):
        formats.read(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(formats.Unusable, match=r"has its data in a\.raw, which is not there; put it next to"):
        formats.read(tmp_path / "a.mhd")


def test_endings_in_capitals_and_folders_of_any_name(tmp_path):
    folder = tmp_path / "run[lr=0.001] ü 名 %d *? {a} ~"
    folder.mkdir()
    for ending in ("mha", "nrrd"):
        content = write(tmp_path / f"a.{ending}").read_bytes()
        for name in (f"a.{ending}", f"B.{ending.upper()}"):
            (folder / name).write_bytes(content)
            assert formats.is_image(folder / name)
            np.testing.assert_array_equal(formats.read(folder / name).array[..., 0], VOLUME)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
def test_a_web_page_is_to_be_fetched_again(tmp_path, capfd, ending):
    (tmp_path / f"a.{ending}").write_bytes(b"<!DOCTYPE html><html><head>" * 20)
    with pytest.raises(formats.Unusable, match=r"^cannot be read as an image \(no \w+ file\); fetch it again$"):
        formats.read(tmp_path / f"a.{ending}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("ending", "name"), [("mha", "A.MHA"), ("nrrd", "a.Nrrd"), ("mha", "a.mha")])
def test_an_image_is_opened_for_its_geometry_under_any_capitals(tmp_path, ending, name):
    image = SimpleITK.GetImageFromArray(VOLUME)
    image.SetSpacing((0.5, 0.7, 2))
    image.SetOrigin((1, -2, 3))
    SimpleITK.WriteImage(image, str(tmp_path / f"b.{ending}"))
    found = formats.itk.opened((tmp_path / f"b.{ending}").rename(tmp_path / name))
    assert (found.GetSpacing(), found.GetOrigin(), found.GetSize()) == ((0.5, 0.7, 2), (1, -2, 3), (6, 5, 4))
    (tmp_path / name).write_bytes(b"words")
    with pytest.raises(ValueError, match=r"\w"):
        formats.itk.opened(tmp_path / name)
