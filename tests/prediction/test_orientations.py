"""One heart, stored in several ways: predicted alike, and each mask over its own input in a viewer's coordinates."""

import pathlib

import flax.linen as nn
import jax.numpy as jnp
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from configs import train
from jaxseg.data import formats, geometry, windows
from jaxseg.data.pipeline import Preparation
from jaxseg.models.skeleton import Roles
from jaxseg.networks import of_linen
from jaxseg.prediction import page as predictions
from jaxseg.prediction import predictor
from jaxseg.prediction.inputs import TrainedOn
from jaxseg.training import trained

SIDE = 48
LEVEL = 500  # of the outline, the middle of the window
CENTRE = np.array([3.0, -5.0, 8.0])  # mm
BACKWARDS = np.eye(4)[[2, 1, 0, 3]]


def intensity(places):
    """Of places `[...,3]` in mm: an egg, bright inside, with edges 8 mm wide, and a dent that no mirror image has."""
    x, y, z = np.moveaxis(places - CENTRE, -1, 0)
    distance = np.sqrt((x / 18) ** 2 + (y / 24) ** 2 + (z / 30) ** 2)
    dent = np.exp(-((x - 12) ** 2 + (y + 14) ** 2 + (z - 14) ** 2) / 150)
    return np.clip(LEVEL + 1500 * (1 - distance - 0.6 * dent), 0, 2 * LEVEL)


def stored(codes="SPL", turn=0.0):
    """The volume int16 `[D,H,W]`, with axes to the sides `codes` turned by so many degrees, and its affine."""
    sides = {"L": (-1, 0, 0), "R": (1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    angle = np.radians(turn)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.array([sides[code] for code in codes], float).T * 2.0
    affine[:3, 3] = CENTRE - affine[:3, :3] @ np.full(3, (SIDE - 1) / 2)
    index = np.moveaxis(np.indices((SIDE,) * 3), 0, -1)
    return np.rint(intensity(index @ affine[:3, :3].T + affine[:3, 3])).astype(np.int16), affine


def save_nifti(path, array, affine):
    nibabel.save(nibabel.Nifti1Image(array.transpose(), affine @ BACKWARDS), path)
    return path


class Threshold(nn.Module):
    """The bright part, and of each slice its upper left corner: what is seen from another side is another mask."""

    roles = Roles(None, (), (), ("conv",))
    corner: bool = True

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.ones, name="conv")(images)
        if self.corner:
            rows, columns = jnp.linspace(0, 1, x.shape[1]), jnp.linspace(0, 1, x.shape[2])
            x = jnp.where((rows[:, None] + columns[None] < 0.3)[None, ..., None], 1.0, x)
        return jnp.concatenate([jnp.zeros_like(x), 10 * x], -1)


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """`(inputs, ...) -> folder of results`, of a network that saw slices of volumes that run to SPL."""

    def call(paths, *, corner=True, known="SPL", **options):
        config = train.get_config("tiny").unlock()
        config.data.update(source_size=SIDE, image_size=SIDE)
        preparation = Preparation(("window", 0.0, 2.0 * LEVEL), None, True, known)
        taken = TrainedOn(("background", "egg"), 1, 2, preparation)
        variables = {"params": {"conv": {"kernel": np.ones((1, 1), np.float32)}}}
        member = of_linen(Threshold(corner=corner), variables, image_size=SIDE, channels=1)
        run = trained.of_config(config.lock(), (member,), taken, name="a run")
        monkeypatch.setattr(trained, "of_run", lambda *_, **__: run)
        scores = {"mean_sa": np.ones(3), "entropy": np.ones(3)}
        monkeypatch.setattr(predictions, "reference", lambda *_: predictor.Reference(scores, scores))
        outcome = predictions.run(
            source=trained.Source(run=tmp_path),
            paths=paths,
            output=tmp_path / "out",
            options=predictions.Options(**options),
            prepare=lambda name: tmp_path,
            command="python -m launch.predict",
        )
        assert outcome.failed == 0
        return outcome.table.parent

    return call


def image_of(path: pathlib.Path) -> SimpleITK.Image:
    return SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)


def dice(a, b):
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


ORIENTATIONS = ("SPL", "SAR", "SPR", "RSA", "IAR", "PIR")


@pytest.mark.parametrize("tiling", [None, windows.Tiling(32)])
def test_a_volume_in_any_orientation_has_the_same_mask_in_the_patient(predict, tmp_path, tiling):
    paths = [save_nifti(tmp_path / f"{codes}.nii.gz", *stored(codes)) for codes in ORIENTATIONS]
    folder = predict(paths, tiling=tiling)
    masks = []
    for codes, path in zip(ORIENTATIONS, paths, strict=True):
        mask = nibabel.load(folder / "masks" / path.name)
        np.testing.assert_array_equal(mask.affine, nibabel.load(path).affine)
        array, _ = geometry.oriented(np.asarray(mask.dataobj).transpose(), mask.affine @ BACKWARDS, "SPL")
        masks.append(array)
        assert 0.05 < array.mean() < 0.3, codes
    for codes, mask in zip(ORIENTATIONS, masks, strict=True):
        np.testing.assert_array_equal(mask, masks[0], codes)


def test_masks_of_oblique_volumes_agree_in_one_space(predict, tmp_path):
    turns = (0.0, 20.0, 40.0)
    paths = [save_nifti(tmp_path / f"{turn:g}.nii.gz", *stored("SPL", turn)) for turn in turns]
    folder = predict(paths, corner=False, probabilities=True)
    like = image_of(paths[0])
    masks, levels = [], []
    for path in paths:
        mask = image_of(folder / "masks" / path.name)
        inside = SimpleITK.GetArrayFromImage(mask) > 0
        image = SimpleITK.GetArrayFromImage(image_of(path))
        clear = abs(image - LEVEL) > 0.01 * LEVEL  # the network sees 8 bits
        np.testing.assert_array_equal(inside[clear], image[clear] > LEVEL)  # over its input
        assert mask.GetDirection() == image_of(path).GetDirection() and mask.GetOrigin() == image_of(path).GetOrigin()
        nearest = SimpleITK.Resample(mask, like, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        masks.append(SimpleITK.GetArrayFromImage(nearest) > 0)
        probabilities = nibabel.load(folder / "probabilities" / path.name)
        object_ = nibabel.Nifti1Image(np.asarray(probabilities.dataobj)[..., 1], probabilities.affine)
        nibabel.save(object_, tmp_path / "object.nii")
        linear = SimpleITK.Resample(
            image_of(tmp_path / "object.nii"), like, SimpleITK.Transform(), SimpleITK.sitkLinear
        )
        levels.append(SimpleITK.GetArrayFromImage(linear) > 0.5)
    assert min(dice(mask, masks[0]) for mask in masks) > 0.96  # of pixels of 2 mm, taken by nearest neighbours
    assert min(dice(level, levels[0]) for level in levels) > 0.99


@pytest.mark.parametrize(("codes", "fails"), [("SAR", False), ("IPL", False), ("RSA", True)])
def test_one_slice_is_turned_too_and_a_slice_of_another_kind_is_named(predict, tmp_path, codes, fails, capsys):
    array, affine = stored(codes)
    place = affine.copy()
    place[:3, 3] = (affine @ [20, 0, 0, 1])[:3]
    path = save_nifti(tmp_path / "slice.nii.gz", array[20:21], place)
    whole = save_nifti(tmp_path / "whole.nii.gz", array, affine)
    if fails:
        with pytest.raises(AssertionError):
            predict([path])
        assert "is a sagittal slice, the network saw axial ones" in capsys.readouterr().err
        return
    folder = predict([path, whole])
    found, wanted = (np.asarray(nibabel.load(folder / "masks" / p.name).dataobj) for p in (path, whole))
    np.testing.assert_array_equal(found[..., 0], wanted[..., 20])


def test_what_is_not_known_of_orientations_is_said(predict, tmp_path, capsys):
    path = save_nifti(tmp_path / "SAR.nii.gz", *stored("SAR"))
    predict([path], known="")
    assert f"{path}: is cut into axial slices, as it is stored; whether the network saw such" in capsys.readouterr().err


def save_itk(path, array, affine):
    """NRRD or MetaImage of a volume `[D,H,W]`."""
    image = SimpleITK.GetImageFromArray(array)
    in_lps = np.diag([-1.0, -1, 1, 1]) @ affine @ BACKWARDS
    image.SetSpacing(np.linalg.norm(in_lps[:3, :3], axis=0).tolist())
    image.SetDirection((in_lps[:3, :3] / np.linalg.norm(in_lps[:3, :3], axis=0)).ravel().tolist())
    image.SetOrigin(in_lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def save_multiframe(path, array, affine):
    """Enhanced MR, its frames in reverse order, as a scanner that runs from the head down stores them."""
    in_lps = np.diag([-1.0, -1, 1, 1]) @ affine
    steps = np.linalg.norm(in_lps[:3, :3], axis=0)
    directions = in_lps[:3, :3] / steps
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = pydicom.uid.EnhancedMRImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    file.Rows, file.Columns, file.NumberOfFrames = *array.shape[1:], len(array)
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    shared, orientation, measures = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient = np.round(np.concatenate([directions[:, 2], directions[:, 1]]), 9).tolist()
    measures.PixelSpacing, measures.SliceThickness = [float(steps[1]), float(steps[2])], float(steps[0])
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    file.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for z in reversed(range(len(array))):
        place, frame = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = np.round((in_lps @ [z, 0, 0, 1])[:3], 9).tolist()
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    file.PerFrameFunctionalGroupsSequence = frames
    file.PixelData = array[::-1].astype(np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("codes", ["SPL", "RSA"])
def test_every_format_of_volumes_has_its_mask_at_its_place(predict, tmp_path, codes):
    array, affine = stored(codes, 10.0)
    paths = [
        save_nifti(tmp_path / "a.nii.gz", array, affine),
        save_itk(tmp_path / "b.nrrd", array, affine),
        save_itk(tmp_path / "c.mha", array, affine).rename(tmp_path / "c.MHA"),
        save_multiframe(tmp_path / "d.dcm", array, affine),
    ]
    folder = predict(paths, probabilities=True)
    found = sorted((folder / "masks").iterdir())
    assert [path.name for path in found] == ["a.nii.gz", "b.nrrd", "c.mha", "d.nii.gz"]
    like = image_of(paths[0])
    masks = [SimpleITK.GetArrayFromImage(SimpleITK.Resample(image_of(path), like)) for path in found]
    assert 0.05 < (masks[0] > 0).mean() < 0.3
    for path, mask in zip(found, masks, strict=True):
        agreement = dice(mask > 0.5, masks[0] > 0.5)  # coordinates are text in DICOM, and float32 in NIfTI
        assert agreement > 0.9999, (path.name, agreement)
    for path in paths[1:3]:
        written = path.name.lower()
        one, other = formats.itk.opened(path), image_of(folder / "masks" / written)
        np.testing.assert_allclose(one.GetOrigin(), other.GetOrigin(), rtol=1e-12)
        np.testing.assert_allclose(one.GetDirection(), other.GetDirection(), atol=1e-12)
        assert SimpleITK.ReadImage(str(folder / "probabilities" / written)).GetNumberOfComponentsPerPixel() == 2
