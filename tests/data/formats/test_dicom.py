"""DICOM against highdicom and SimpleITK, which the product leaves alone for these kinds, and what is no one volume."""


import highdicom
import numpy as np
import pydicom
import SimpleITK

from jaxseg.data import formats
from tests.data.formats import dicom_files as made

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def inverted(values: np.ndarray) -> np.ndarray:
    return values.min() + values.max() - values


def ascending(volume: highdicom.Volume) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine to RAS+ with slices that ascend along the cross product of rows and columns."""
    affine = TO_RAS @ volume.affine
    if np.linalg.det(volume.affine[:3, [2, 1, 0]]) < 0:
        return volume.array[::-1], affine @ np.array([[-1, 0, 0, len(volume.array) - 1], *np.eye(4)[1:]])
    return volume.array, affine


def test_random_series_are_read_as_highdicom_and_simpleitk_read_them(tmp_path):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        stack = made.random_stack(rng, each=seed % 3 == 0)
        photometric = rng.choice(["MONOCHROME1", "MONOCHROME2"])
        files = made.slices(stack, made.SYNTAXES[seed % 3], photometric)
        suffix = rng.choice([".dcm", ".IMA", ""])
        names = [f"{place}{suffix}" for place in rng.permutation(len(files))]
        for name, file in zip(names, files, strict=True):
            made.save(tmp_path / str(seed) / name, file)
        picture = formats.read(tmp_path / str(seed))
        oracle, affine = ascending(
            highdicom.get_volume_from_series(
                [pydicom.dcmread(tmp_path / str(seed) / name) for name in names], apply_presentation_lut=False
            )
        )
        np.testing.assert_allclose(oracle, stack.values, rtol=1e-6)
        wanted = inverted(stack.values) if photometric == "MONOCHROME1" else stack.values
        np.testing.assert_allclose(picture.array[..., 0], wanted, rtol=1e-6, err_msg=str(seed))
        np.testing.assert_allclose(picture.affine, affine, atol=1e-4, err_msg=str(seed))
        np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-4, err_msg=str(seed))
        np.testing.assert_allclose(picture.spacing, stack.spacing, rtol=1e-5)
        assert picture.array.dtype.isnative and picture.array.flags.writeable
        if photometric == "MONOCHROME2" and seed % 3:  # ITK rounds where slices have rescalings of their own
            image = SimpleITK.ReadImage([str(tmp_path / str(seed) / name) for name in names])
            np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image), stack.values, rtol=1e-5)


def test_random_frames_are_read_as_highdicom_reads_them(tmp_path):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        stack = made.random_stack(rng, each=seed % 2 == 0)
        count = len(stack.stored)
        order = (range(count - 1, -1, -1), range(count), rng.permutation(count))[seed % 3]
        photometric = rng.choice(["MONOCHROME1", "MONOCHROME2"])
        file = made.enhanced(stack, [int(i) for i in order], made.SYNTAXES[seed % 2], photometric)
        path = made.save(tmp_path / f"{seed}.dcm", file)
        picture = formats.read(path)
        oracle, affine = ascending(highdicom.imread(path).get_volume(apply_presentation_lut=False))
        wanted = inverted(oracle) if photometric == "MONOCHROME1" else oracle
        np.testing.assert_allclose(picture.array[..., 0], wanted, rtol=1e-6, err_msg=str(seed))
        np.testing.assert_allclose(oracle, stack.values, rtol=1e-6)
        for theirs in (affine, stack.affine):
            np.testing.assert_allclose(picture.affine, theirs, atol=1e-4, err_msg=str(seed))
        np.testing.assert_allclose(picture.spacing, stack.spacing, rtol=1e-5)
