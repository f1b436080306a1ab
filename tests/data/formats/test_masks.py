"""Masks whose numbers are whole but for what a file's scaling, or an interpolation in float32, made of them."""

import nibabel
import numpy as np
import pytest

from jaxseg.data import formats


def labels(highest: int) -> np.ndarray:
    return np.random.default_rng(highest).integers(0, highest + 1, (9, 8, 7))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("highest", [1, 2, 4, 6, 50, 104, 200])
def test_whole_numbers_that_nibabel_scaled_are_rounded(tmp_path, dtype, highest):
    image = nibabel.Nifti1Image(labels(highest).astype(np.float64), np.eye(4))
    image.set_data_dtype(dtype)  # nibabel finds a slope that uses the whole range of the type
    nibabel.save(image, tmp_path / "a.nii.gz")
    stored = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)
    assert abs(stored - labels(highest)).max() > 0 or highest == 1
    mask = formats.read_mask(tmp_path / "a.nii.gz").array
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask[..., 0], labels(highest).T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_an_interpolation_in_float32_leaves_is_rounded(tmp_path, dtype):
    noisy = labels(4) + np.random.default_rng(0).normal(0, 1e-6, (9, 8, 7))
    nibabel.save(nibabel.Nifti1Image(noisy.astype(dtype), np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "a.nii").array[..., 0], labels(4).T)


@pytest.mark.parametrize(("value", "text"), [(1.3, "0.3"), (0.5, "0.5"), (2.001, "0.001"), (0.9999, "0.0001")])
def test_how_far_a_number_is_from_a_whole_one_is_said(tmp_path, value, text):
    array = np.zeros((4, 3, 2), np.float32)
    array[1, 2, 0] = value
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(
        formats.Unusable, match=rf"holds the value {value:g}; .* \({value:g} is {text} from a whole num"
    ):
        formats.read_mask(tmp_path / "a.nii")


def test_probabilities_in_coarse_steps_are_no_mask(tmp_path):
    image = nibabel.Nifti1Image(np.linspace(0, 1, 60).reshape(5, 4, 3), np.eye(4))
    image.set_data_dtype(np.uint8)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(formats.Unusable, match="a mask is whole numbers"):
        formats.read_mask(tmp_path / "a.nii")


def test_a_step_of_one_explains_no_halves(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(4, 3, 2), np.eye(4))
    image.header.set_slope_inter(1, 0.5)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(formats.Unusable, match=r"0\.5 from a whole number"):
        formats.read_mask(tmp_path / "a.nii")


def test_what_is_too_large_for_a_class_is_said(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((4, 3, 2), 1e12), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(formats.Unusable, match=r"holds the value 1e\+12"):
        formats.read_mask(tmp_path / "a.nii")
