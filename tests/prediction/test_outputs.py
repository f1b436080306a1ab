"""Masks lie over their inputs: what was thresholded in the file is what the mask holds, voxel by voxel, in place."""

import io
import itertools

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from PIL import Image
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from jaxseg.data import formats
from jaxseg.prediction import outputs

SPACING = (0.7, 1.3, 4.5)
SIZE = (7, 9, 5)


def values(*shape, dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


def affines():
    """Axes in every order and direction, one turned by an odd angle, each anisotropic and off the origin."""
    for order in itertools.permutations(range(3)):
        for signs in ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)):
            yield np.eye(3)[list(order)].T * signs
    a, b = 0.4, -0.7
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    yield turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])


def save(path, array, directions=None, kind=nibabel.Nifti1Image, **header):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * SPACING
    affine[:3, 3] = 11, -22, 33
    image = kind(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 2)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)


def thresholded(path, threshold=500):
    picture = formats.read(path)
    return (picture.array[..., 0] > threshold).astype(np.uint8), picture


def written(path, suffix, content):
    target = path.parent / f"mask{suffix}"
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("directions", list(affines()))
def test_a_nifti_mask_is_where_its_image_is(tmp_path, directions):
    path = tmp_path / "a.nii.gz"
    save(path, values(*SIZE), directions)
    labels, picture = thresholded(path)
    mask = nibabel.load(written(path, *outputs.encode_mask(labels, path, picture)))
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), image.get_fdata() > 500)
    np.testing.assert_array_equal(mask.affine, image.affine)
    np.testing.assert_allclose(mask.header.get_zooms(), SPACING, rtol=1e-6)
    for name in (
        "qform_code",
        "sform_code",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "srow_y",
        "xyzt_units",
    ):
        np.testing.assert_array_equal(mask.header[name], image.header[name])
    assert mask.get_data_dtype() == np.uint8 and mask.shape == SIZE


@pytest.mark.parametrize(
    ("name", "array", "options"),
    [
        ("a.nii", values(*SIZE), {}),
        ("a.NII.GZ", values(*SIZE), {}),
        ("a.nii.gz", values(*SIZE, dtype=np.float32), {}),
        ("a.nii", values(*SIZE), {"scl_slope": 0.5, "scl_inter": 20, "cal_max": 800}),
        ("a.nii.gz", values(*SIZE), {"kind": nibabel.Nifti2Image}),
        ("a.nii", values(*SIZE, 3), {}),  # channels
        ("a.nii", values(*SIZE[:2]), {}),  # a picture
        ("a.nii.gz", values(*SIZE[:2], 1), {}),
    ],
)
def test_kinds_of_nifti(tmp_path, name, array, options):
    path = tmp_path / name
    save(path, array, **options)
    labels, picture = thresholded(path, 300)
    suffix, content = outputs.encode_mask(labels, path, picture)
    assert suffix == (".nii" if name.endswith(".nii") else ".nii.gz")
    mask, image = nibabel.load(written(path, suffix, content)), nibabel.load(path)
    first = image.get_fdata() if image.ndim < 4 else image.get_fdata()[..., 0]
    np.testing.assert_array_equal(mask.get_fdata(), first > 300)
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert type(mask) is type(image) and mask.header["cal_max"] == 0
    again = formats.read_mask(written(path, suffix, content))
    np.testing.assert_array_equal(again.array[..., 0], labels)
    assert again.spacing == picture.spacing and again.orientation == picture.orientation


def test_big_endian_nifti(tmp_path):
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(values(*SIZE), np.diag([2, 3, 4, 1]))
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine, image.header.as_byteswapped(">")), path)
    labels, picture = thresholded(path)
    mask = nibabel.load(written(path, *outputs.encode_mask(labels, path, picture)))
    np.testing.assert_array_equal(mask.get_fdata(), nibabel.load(path).get_fdata() > 500)


@pytest.mark.parametrize("size", [SIZE, SIZE[:2]])
def test_probabilities_of_nifti_have_classes_along_the_fourth_axis(tmp_path, size):
    path = tmp_path / "a.nii.gz"
    save(path, values(*size))
    _, picture = thresholded(path)
    first = picture.array[..., 0].astype(np.float32) / 1000
    encoded = outputs.encode_probabilities(np.stack([1 - first, first], -1), path, picture)
    found, image = nibabel.load(written(path, *encoded)), nibabel.load(path)
    assert found.shape == ((*size, 1)[:3] if len(size) == 2 else size) + (2,)
    np.testing.assert_allclose(found.get_fdata()[..., 1].reshape(size), image.get_fdata() / 1000, rtol=1e-6)
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.get_data_dtype() == np.float32


def test_the_same_mask_is_the_same_bytes(tmp_path):
    path = tmp_path / "a.nii.gz"
    save(path, values(*SIZE))
    labels, picture = thresholded(path)
    assert len({outputs.encode_mask(labels, path, picture) for _ in range(2)}) == 1


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.png", ".png"), ("a.jpg", ".png"), ("a.bmp", ".png"), ("a.tif", ".tif")]
)
def test_masks_of_pictures(tmp_path, name, suffix):
    path = tmp_path / name
    Image.fromarray(np.kron(values(4, 6, dtype=np.int32) // 4, np.ones((8, 8), int)).astype(np.uint8)).save(path)
    labels, picture = thresholded(path, 127)
    found, content = outputs.encode_mask(labels * 3, path, picture)
    assert found == suffix
    again = formats.read_mask(written(path, found, content))
    np.testing.assert_array_equal(again.array[..., 0], labels * 3)
    found, content = outputs.encode_probabilities(np.ones((*labels.shape, 2), np.float32) / 2, path, picture)
    assert found == ".npy" and np.load(io.BytesIO(content)).shape == (*labels.shape, 2)


@pytest.mark.parametrize("depth", [1, 3, 4, 6])
def test_masks_of_tiff_stacks(tmp_path, depth):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, values(depth, 9, 7, dtype=np.uint16), photometric="minisblack", metadata={"axes": "ZYX"})
    labels, picture = thresholded(path)
    suffix, content = outputs.encode_mask(labels, path, picture)
    again = formats.read_mask(written(path, suffix, content))
    assert suffix == ".tiff" and again.array.shape[:-1] == labels.shape
    with tifffile.TiffFile(path.parent / "mask.tiff") as file:
        assert file.series[0].axes == ("YX" if labels.ndim == 2 else "ZYX")
    np.testing.assert_array_equal(again.array[..., 0], labels)


def test_a_tiff_keeps_the_size_of_its_pixels(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(9, 7, dtype=np.uint16), resolution=(20000, 10000), resolutionunit="CENTIMETER")
    labels, picture = thresholded(path)
    suffix, content = outputs.encode_mask(labels, path, picture)
    with tifffile.TiffFile(written(path, suffix, content)) as file:
        assert file.series[0].axes == "YX" and file.shaped_metadata[0]["axes"] == "YX"
        assert file.pages[0].get_resolution("CENTIMETER") == (20000, 10000)


def write_slice(path, array, position, row, column, *, number=1):
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    file.SeriesInstanceUID, file.InstanceNumber = UID("1.2.3"), number
    file.Rows, file.Columns = array.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.PixelSpacing = [1.25, 0.5]  # between rows, between columns
    if position is not None:
        file.ImagePositionPatient, file.ImageOrientationPatient = list(position), [*row, *column]
    file.PixelData = array.astype(np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("row", "column"),
    [((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1)), ((0.8, 0.6, 0), (0, 0, -1)), ((-1, 0, 0), (0, 0, 1))],
)
def test_the_mask_of_a_dicom_series_is_where_its_slices_are(tmp_path, row, column):
    folder = tmp_path / "series"
    folder.mkdir()
    row, column = np.array(row, float), np.array(column, float)
    normal, volume = np.cross(row, column), values(4, 6, 5)
    places = [np.array([10.0, -20, 30]) + 2.5 * z * normal for z in range(4)]
    for z in (2, 0, 3, 1):  # names do not follow the places
        write_slice(folder / f"{(z * 7) % 5}.dcm", volume[z], places[z], row, column, number=9 - z)
    labels, picture = thresholded(folder)
    np.testing.assert_array_equal(labels, volume > 500)
    mask = nibabel.load(written(folder, *outputs.encode_mask(labels, folder, picture)))
    np.testing.assert_allclose(mask.header.get_zooms(), (0.5, 1.25, 2.5), rtol=1e-6)
    for z, i, j in itertools.product(range(4), range(6), range(5)):  # slice, row, column
        assert mask.dataobj[j, i, z] == (volume[z, i, j] > 500)
        in_patient = places[z] + j * 0.5 * row + i * 1.25 * column
        np.testing.assert_allclose((mask.affine @ [j, i, z, 1])[:3], in_patient * (-1, -1, 1), atol=1e-5)


def test_a_series_that_does_not_tell_its_place_has_its_spacing(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for z in range(3):
        write_slice(folder / f"{z}.dcm", values(6, 5, seed=z), None, None, None, number=z)
    labels, picture = thresholded(folder)
    mask = nibabel.load(written(folder, *outputs.encode_mask(labels, folder, picture)))
    np.testing.assert_array_equal(mask.affine, np.diag([0.5, 1.25, 1, 1]))  # between slices: unknown


def test_a_single_dicom_file_has_a_png(tmp_path):
    write_slice(tmp_path / "a.dcm", values(6, 5), (0, 0, 0), (1, 0, 0), (0, 1, 0))
    labels, picture = thresholded(tmp_path / "a.dcm")
    suffix, content = outputs.encode_mask(labels, tmp_path / "a.dcm", picture)
    assert suffix == ".png"
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(np.asarray(image), values(6, 5) > 500)


def test_an_input_that_has_vanished_is_named(tmp_path):
    path = tmp_path / "a.nii"
    with pytest.raises(formats.Unusable, match="cannot be read any more"):
        outputs.encode_mask(np.zeros(SIZE, np.uint8), path, formats.Picture(np.zeros((*SIZE, 1)), SPACING))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_where_a_fourth_axis_holds_channels_masks_and_probabilities_have_three(tmp_path, name):
    """As diffusion MR is stored: the image's own geometry without the axis of the channels."""
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(values(4, 5, 6, seed=seed)) for seed in (0, 1)])
    image.SetSpacing((0.5, 1.5, 2.5, 1.0))
    image.SetOrigin((1.0, 2.0, 3.0, 0.0))
    SimpleITK.WriteImage(image, str(tmp_path / name))
    labels, picture = thresholded(tmp_path / name)
    np.testing.assert_array_equal(labels, values(4, 5, 6) > 500)
    probabilities = np.stack([1 - labels, labels], -1).astype(np.float32)
    for suffix, content in (
        outputs.encode_mask(labels, tmp_path / name, picture),
        outputs.encode_probabilities(probabilities, tmp_path / name, picture),
    ):
        found = SimpleITK.ReadImage(str(written(tmp_path / name, suffix, content)))
        assert (found.GetSpacing(), found.GetOrigin()) == ((0.5, 1.5, 2.5), (1.0, 2.0, 3.0))
        assert found.GetDirection() == tuple(np.eye(3).ravel())
        array = SimpleITK.GetArrayFromImage(found)
        np.testing.assert_array_equal(array if array.ndim == 3 else array[..., 1], labels)
