"""NIfTI against SimpleITK, which shares no code with nibabel, and what headers that contradict themselves come to."""

import gzip
import pathlib

import nibabel
import numpy as np
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
    for seed in range(320):
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
