"""NIfTI against SimpleITK, which shares no code with nibabel, and what headers that contradict themselves come to."""

import gzip
import pathlib

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from jaxseg.data import formats

DTYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64)
UNITS = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
FROM_ITK = np.diag([-1.0, -1.0, 1.0, 1.0])  # x to the left and y to the back -> x to the right and y to the front


def random_affine(rng: np.random.Generator) -> np.ndarray:
    """Axes in any order and direction, some turned by any angle, with positive zooms."""
    turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    if rng.random() < 0.5:
        turn = turn @ Rotation.random(rng=rng).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.3, 4, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def write_random(folder: pathlib.Path, seed: int, kind: type[nibabel.Nifti1Header]) -> pathlib.Path:
    rng = np.random.default_rng(seed)
    dtype = np.dtype(DTYPES[seed % len(DTYPES)])
    shape = tuple(rng.integers(1, 6, 4 if rng.random() < 0.3 else 3))
    array = (rng.normal(0, 99, shape) if dtype.kind == "f" else rng.integers(0, 120, shape)).astype(dtype)
    header = kind(endianness=rng.choice(["<", ">"]))
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_xyzt_units(rng.choice(list(UNITS)), "sec")
    affine = random_affine(rng)
    form = rng.choice(["sform", "qform", "both"])
    header.set_qform(affine, 0 if form == "sform" else 1)  # and its zooms
    header.set_sform(affine, 0 if form == "qform" else 2)
    if rng.random() < 0.5:
        header["scl_slope"], header["scl_inter"] = rng.choice([0.5, 2, 0.013]), rng.choice([0, -1024, 3.5])
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    content = header.binaryblock + bytes(4) + array.astype(dtype.newbyteorder(header.endianness)).tobytes("F")
    packed = rng.random() < 0.3
    path = folder / f"{kind.__name__}_{seed}.nii{'.gz' * packed}"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def test_random_headers_are_read_as_simpleitk_reads_them(tmp_path):
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    for seed in range(300):
        path = write_random(tmp_path, seed, nibabel.Nifti1Header)
        image = SimpleITK.ReadImage(str(path))
        if seed % 3 == 0:  # the same in the second version, which ITK does not read
            path = write_random(tmp_path, seed, nibabel.Nifti2Header)
        picture = formats.read(path)
        wanted = SimpleITK.GetArrayFromImage(image)
        wanted = np.moveaxis(wanted, 0, -1) if image.GetDimension() == 4 else wanted[..., None]
        np.testing.assert_allclose(picture.array, wanted, rtol=1e-6, err_msg=path.name)
        assert picture.array.dtype.isnative and picture.array.flags.writeable
        affine = np.eye(4)
        rank = image.GetDimension()
        affine[:3, :3] = np.reshape(image.GetDirection(), (rank, rank))[:3, :3] * image.GetSpacing()[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
        np.testing.assert_allclose(
            picture.affine, (FROM_ITK @ affine)[:, [2, 1, 0, 3]], rtol=1e-4, atol=1e-3, err_msg=path.name
        )
        np.testing.assert_allclose(picture.spacing, image.GetSpacing()[2::-1], rtol=1e-4)


def write(path: pathlib.Path, array: np.ndarray, affine: np.ndarray | None, **fields) -> formats.Picture:
    """A file whose header has these fields whatever nibabel thinks of them."""
    image = nibabel.Nifti1Image(array, affine)
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return formats.read(path)


CUBE = np.arange(24, dtype=np.int16).reshape(4, 3, 2)


def test_where_pixdim_contradicts_the_affine_mm_are_those_of_the_affine(tmp_path):
    pixdim = [1, 1, 1, 2, 1, 1, 1, 1]
    picture = write(tmp_path / "a.nii", CUBE, np.eye(4), qform_code=0, sform_code=2, pixdim=pixdim)
    assert picture.spacing == (1, 1, 1)
    assert picture.notes == ("its pixdim says 1 x 1 x 2 mm, its affine 1 x 1 x 1 mm; the affine was taken",)
    inside = np.ones((18, 18, 13), np.uint8)
    write(tmp_path / "mask.nii", inside, np.eye(4), qform_code=0, sform_code=2, pixdim=pixdim)
    mask = formats.read_mask(tmp_path / "mask.nii")
    assert mask.array.sum() * np.prod(mask.spacing) == 4212


@pytest.mark.parametrize(("code", "unit"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (10, 1.0)])
def test_lengths_are_mm_whatever_unit_the_file_has(tmp_path, code, unit):
    affine = np.array([[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
    picture = write(tmp_path / "a.nii", CUBE, affine, xyzt_units=code)
    np.testing.assert_allclose(picture.affine[:3], unit * affine[:3, [2, 1, 0, 3]], rtol=1e-6)
    np.testing.assert_allclose(picture.spacing, unit * np.array([4, 2, 3]), rtol=1e-6)
    assert picture.notes == () and picture.orientation == "SLA"


def test_without_either_form_a_file_tells_its_spacing_and_not_where_it_lies(tmp_path):
    picture = write(tmp_path / "a.nii", CUBE, np.diag([2, 3, 4, 1.0]), qform_code=0, sform_code=0)
    assert picture.affine is None and picture.orientation == ""
    assert picture.spacing == (4, 3, 2) and picture.notes == ()


def test_a_singular_affine_gives_way_to_pixdim(tmp_path):
    rows = {"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0], "srow_z": [0, 0, 4, 0]}
    picture = write(tmp_path / "a.nii", CUBE, np.diag([2, 3, 4, 1.0]), qform_code=0, sform_code=1, **rows)
    assert picture.spacing == (4, 3, 2) and picture.affine is None
    assert picture.notes == ("its affine is singular; its pixdim of 2 x 3 x 4 mm was taken",)


def test_forms_that_contradict_each_other_are_said(tmp_path):
    moved = {"qoffset_x": 10.0, "sform_code": 2, "qform_code": 1}
    picture = write(tmp_path / "a.nii", CUBE, np.diag([2, 3, 4, 1.0]), **moved)
    assert picture.notes == ("its qform and its sform lie up to 5.0 voxels apart; the sform was taken",)
    np.testing.assert_array_equal(picture.affine[:3, 3], [0, 0, 0])


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((4, 3), (3, 4, 1)),
        ((4, 3, 1), (1, 3, 4, 1)),
        ((4, 3, 2), (2, 3, 4, 1)),
        ((4, 3, 1, 5), (1, 3, 4, 5)),
        ((4, 3, 2, 1), (2, 3, 4, 1)),
        ((4, 3, 2, 5, 1), (2, 3, 4, 5)),
    ],
)
def test_axes_of_length_one(tmp_path, shape, found):
    array = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2, -3, 4, 1.0])), tmp_path / "a.nii")
    picture = formats.read(tmp_path / "a.nii")
    assert picture.array.shape == found
    assert picture.spacing == (4, 3, 2)[-len(picture.spacing) :] and len(picture.spacing) == len(found) - 1
    order = (1, 0) if len(shape) == 2 else (2, 1, 0, 3)[: min(len(shape), 4)]
    np.testing.assert_array_equal(picture.array, array.reshape(shape[:4]).transpose(order).reshape(found))
    assert picture.orientation == "SPR"[-len(picture.spacing) :]


def test_a_pair_of_files_is_read(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(CUBE, np.diag([2, -3, 4, 1.0])), tmp_path / "a.hdr")
    picture = formats.read(tmp_path / "a.hdr")
    np.testing.assert_array_equal(picture.array[..., 0], CUBE.T)
    assert picture.orientation == "SPR" and picture.spacing == (4, 3, 2)
    nibabel.save(nibabel.AnalyzeImage(CUBE, np.eye(4)), tmp_path / "b.hdr")
    with pytest.raises(formats.Unusable, match="is Spm2Analyze, not NIfTI of a picture or volume; convert it"):
        formats.read(tmp_path / "b.hdr")


def test_a_qform_that_cannot_be_computed_does_not_matter_beside_an_sform(tmp_path):
    broken = {"quatern_b": 2, "quatern_c": 2, "qform_code": 1, "sform_code": 2}
    picture = write(tmp_path / "a.nii", CUBE, np.diag([2, 3, 4, 1.0]), **broken)
    assert picture.spacing == (4, 3, 2) and picture.notes == ()


def test_small_voxels_are_not_singular(tmp_path):
    picture = write(tmp_path / "a.nii", CUBE, np.diag([0.1, 0.1, 0.1, 1]), xyzt_units=3)
    np.testing.assert_allclose(picture.spacing, 1e-4, rtol=1e-6)
    assert picture.notes == ()
