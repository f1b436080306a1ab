"""Folders of images in, masks and a table out, with a network whose answer is known: bright pixels are the object."""

import csv
import json
import pathlib
import re

import flax.linen as nn
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from PIL import Image

from configs import train
from jaxseg.data import formats, windows
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError
from jaxseg.models.skeleton import Roles
from jaxseg.networks import of_linen
from jaxseg.prediction import page as predictions
from jaxseg.prediction import predictor
from jaxseg.prediction.inputs import TrainedOn
from jaxseg.training import trained


class Identity(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x


class Threshold(nn.Module):
    roles = Roles(None, (), (), ("conv_0", "conv_1"))

    @nn.compact
    def __call__(self, images, train=False):
        x = Identity(name="conv_1")(Identity(name="conv_0")(images))
        return jnp.concatenate([jnp.zeros_like(x), 20 * x], -1)


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """`call(...)`, which predicts the folder of inputs; its validation cases score 0.1, 0.2, ... 1 by mean SA."""
    config = train.get_config("tiny").unlock()
    config.data.update(source_size=16, image_size=16)
    known = TrainedOn(("background", "bright part"), 1, 2, Preparation(None, None, False))
    member = of_linen(Threshold(), {}, image_size=16, channels=1)
    run = trained.of_config(config.lock(), (member,), known, name="a run", steps=(7,))
    scores = {"mean_sa": np.arange(1, 11) / 10, "entropy": np.arange(10.0)}
    monkeypatch.setattr(trained, "of_run", lambda *_, **__: run)
    monkeypatch.setattr(predictions, "reference", lambda *_: predictor.Reference(scores, scores))
    folder = tmp_path / "inputs"
    folder.mkdir()

    def call(*paths, output=tmp_path / "out", **options):
        return predictions.run(
            source=trained.Source(run=tmp_path),
            paths=paths or (folder,),
            output=output,
            options=predictions.Options(**options),
            prepare=lambda name: tmp_path,
            command="python -m launch.predict",
        )

    return folder, call


def stripes(*size):
    return np.broadcast_to(np.where(np.arange(size[-1]) * 4 // size[-1] % 2, 230, 25), size).astype(np.uint8)


def rows(outcome):
    with outcome.table.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("tiling", [None, windows.Tiling(0), windows.Tiling(24, 0.3, "linear")])
def test_every_input_has_a_mask_over_it_and_a_row(setting, tiling):
    folder, call = setting
    (folder / "sub").mkdir()
    Image.fromarray(stripes(48, 80)).save(folder / "a.png")
    Image.fromarray(stripes(32, 32)).save(folder / "sub" / "b.tif")
    affine = np.array([[0, -2.0, 0, 5], [3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]])
    volume = np.moveaxis(stripes(5, 48, 32), (0, 1, 2), (2, 1, 0))  # x, y, z
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / "v.nii.gz")
    outcome = call(tiling=tiling)
    assert (outcome.predicted, outcome.failed) == (3, 0)
    found = rows(outcome)
    assert [row["mask"] for row in found] == ["masks/a.png", "masks/v.nii.gz", "masks/sub/b.tif"]
    assert [row["size"] for row in found] == ["80x48", "32x48x5", "32x32"]
    for row, image in zip(found, (stripes(48, 80), stripes(5, 48, 32), stripes(32, 32)), strict=True):
        mask = formats.read_mask(outcome.table.parent / row["mask"]).array[..., 0]
        np.testing.assert_array_equal(mask, image > 127)
        assert int(row["pixels_bright part"]) == (image > 127).sum() and row["error"] == ""
    assert float(found[1]["mm3_bright part"]) == 24 * (volume > 127).sum() and found[0]["mm3_bright part"] == ""
    np.testing.assert_array_equal(nibabel.load(outcome.table.parent / "masks/v.nii.gz").affine, affine)
    marker = json.loads((outcome.table.parent / "prediction.json").read_text())
    assert marker["command"] == "python -m launch.predict" and marker["steps"] == [7]


def test_the_others_go_on_where_one_cannot_be_read(setting, capsys):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    Image.fromarray(np.stack([stripes(32, 32), 255 - stripes(32, 32), stripes(32, 32)], -1)).save(folder / "colour.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "empty.nii.gz").write_bytes(b"")
    Image.fromarray(stripes(16, 16)).save(folder / "z.jpg")
    outcome = call(coverage=0.0)
    assert (outcome.predicted, outcome.failed, outcome.flagged) == (2, 3, 2)
    errors = {pathlib.Path(row["file"]).name: row["error"] for row in rows(outcome)}
    assert list(errors) == ["a.png", "broken.png", "colour.png", "empty.nii.gz", "z.jpg"]
    assert not errors["a.png"] and not errors["z.jpg"]
    lines = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.startswith(str(folder))]
    assert lines == [f"{folder / name}: {errors[name]}" for name in ("broken.png", "colour.png", "empty.nii.gz")]
    assert "has 3 channels or frames, and the network takes 1" in errors["colour.png"]
    assert sorted(path.name for path in (outcome.table.parent / "masks").iterdir()) == ["a.png", "z.png"]


def test_masks_beside_their_images_are_left_out_which_is_said(setting, capsys):
    folder, call = setting
    for name in ("a", "a_mask", "b", "b_mask"):
        Image.fromarray(stripes(32, 32)).save(folder / f"{name}.png")
    assert [pathlib.Path(row["file"]).name for row in rows(call())] == ["a.png", "b.png"]
    said = (
        f"{folder}/a_mask.png and 1 more: left out as masks of the images beside them; to predict them too, give their"
    )
    assert capsys.readouterr().err.startswith(said)
    assert call(pattern="*_mask.png").predicted == 2


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError("Unable to allocate 8 GiB"), "cannot be predicted (MemoryError: Unable to allocate 8 GiB)"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), "(RuntimeError: RESOURCE_EXHAUSTED: Out of memory)"),
        (PermissionError(13, "Permission denied"), "cannot be predicted (PermissionError: Permission denied)"),
        (KeyError(), "cannot be predicted (KeyError)"),
        (InputError("is too small"), "is too small"),
    ],
)
def test_whatever_happens_to_one_input_is_its_row_alone(setting, monkeypatch, capsys, error, wanted):
    folder, call = setting
    for name in "abc":
        Image.fromarray(stripes(32, 32)).save(folder / f"{name}.png")
    assert call(probabilities=True).predicted == 3
    encode = predictions.outputs.encode_probabilities

    def fail(probabilities, path, spacing):
        if path.name == "b.png":
            raise error
        return encode(probabilities, path, spacing)

    monkeypatch.setattr(predictions.outputs, "encode_probabilities", fail)
    outcome = call(probabilities=True)
    assert (outcome.predicted, outcome.failed) == (2, 1)
    assert [row["error"] != "" for row in rows(outcome)] == [False, True, False]
    assert wanted in rows(outcome)[1]["error"] and capsys.readouterr().err.count(f"{folder}/b.png: ") == 1
    assert sorted(path.name for path in (outcome.table.parent / "masks").iterdir()) == ["a.png", "c.png"]


def test_a_request_to_stop_is_no_input_that_failed(setting, monkeypatch):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    monkeypatch.setattr(predictions, "_predict_one", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        call()


def test_the_table_is_there_when_the_disk_is_full(setting, monkeypatch, tmp_path):
    folder, call = setting
    for name in "abcd":
        Image.fromarray(stripes(32, 32)).save(folder / f"{name}.png")
    call()
    replace = predictions.atomic.replace

    def full(path, content):
        if pathlib.Path(path).name == "b.png":
            raise OSError(28, "No space left on device", str(path))
        replace(path, content)

    monkeypatch.setattr(predictions.atomic, "replace", full)
    with pytest.raises(
        InputError, match=r"out: cannot be written \(No space left on device\); choose another --output"
    ):
        call()
    with (tmp_path / "out" / "predictions.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["mask"] for row in found] == ["masks/a.png", "", "", ""]
    assert "No space left" in found[1]["error"] and {row["error"] for row in found[2:]} == {
        "was not predicted, as the results of those before could not be written"
    }
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["a.png"]


def test_names_as_long_as_the_disk_takes_them_are_predicted(setting):
    folder, call = setting
    for length in (200, 247, 250, 251):
        Image.fromarray(stripes(32, 32)).save(folder / f"{'x' * length}.png")
    for _ in range(2):  # the second call writes them again
        outcome = call(probabilities=True)
        assert (outcome.predicted, outcome.failed) == (4, 0)
        for row in rows(outcome):
            assert (outcome.table.parent / row["mask"]).is_file()
        assert len(list((outcome.table.parent / "masks").iterdir())) == 4


def test_what_is_beyond_the_coverage_is_flagged_and_on_the_sheet(setting):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "clear.png")  # every unit finds it: mean SA is 1
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "nothing.png")  # undefined
    outcome = call()
    clear, nothing = rows(outcome)
    assert (clear["mean_sa"], clear["mean_sa_percentile"], clear["flagged"]) == ("1", "0", "false")
    assert (nothing["mean_sa"], nothing["mean_sa_percentile"], nothing["flagged"]) == ("", "100", "true")
    assert outcome.flagged == 1 and outcome.sheet is not None
    with Image.open(outcome.sheet) as sheet:
        assert sheet.width == 12 + 312  # one picture
    outcome = call(score="entropy")
    assert {row["entropy_percentile"] for row in rows(outcome)} == {"10"}
    assert outcome.flagged == 0 and outcome.sheet is None
    assert not (outcome.table.parent / "flagged.png").exists()  # that of the call before


def test_probabilities_are_written_where_they_are_asked_for(setting):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    assert not (call().table.parent / "probabilities").exists()
    found = np.load(call(probabilities=True).table.parent / "probabilities" / "a.npy")
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found.argmax(-1), stripes(32, 32) > 127)


def test_results_within_the_inputs_are_no_inputs_of_the_next_call_and_inputs_stay(setting):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for output in (folder / "results", folder / "others", folder / "results"):
        assert call(output=output).predicted == 1
    for path, (content, time) in before.items():
        assert path.read_bytes() == content and path.stat().st_mtime_ns == time
    with pytest.raises(InputError, match=r"--output=.*: holds the input .*masks/a.png; choose another folder"):
        call(folder / "results" / "masks" / "a.png", output=folder / "results")


def test_a_mask_of_an_earlier_call_goes_when_its_image_can_no_longer_be_read(setting):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    outcome = call(probabilities=True)
    (folder / "a.png").write_bytes(b"damaged")
    outcome = call()
    assert outcome.failed == 1 and not [p for p in outcome.table.parent.rglob("a.*") if p.is_file()]


def test_what_an_earlier_call_said_of_other_inputs_goes_and_other_files_stay(setting):
    folder, call = setting
    (folder / "sub").mkdir()
    for name in ("a.png", "sub/b.tif", "c.v2.png"):
        Image.fromarray(stripes(32, 32)).save(folder / name)
    output = call(probabilities=True).table.parent
    (output / "masks" / "mine.png").write_bytes(b"")
    there = lambda: sorted(str(p.relative_to(output)) for p in output.glob("*/**/*") if p.is_file())
    masks = ["masks/a.png", "masks/c.v2.png", "masks/mine.png", "masks/sub/b.tif"]
    assert there() == [*masks, *(f"probabilities/{name}.npy" for name in ("a", "c.v2", "sub/b"))]
    (folder / "c.v2.png").unlink()
    call()
    assert there() == ["masks/a.png", "masks/mine.png", "masks/sub/b.tif"]


def test_folders_of_other_things_are_not_written_into(setting, tmp_path):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    for output, message in (
        (folder, "holds files that are no predictions; choose a new folder"),
        (folder / "a.png", "is a file; name a folder"),
        (pathlib.Path("/proc/nowhere"), "cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            call(output=output)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "dice"}, "--score=dice: choose one of mean_sa, entropy"),
        ({"score": "distortion"}, "--score=distortion: give --autoencoder for distortion, or choose one of mean_sa"),
        ({"coverage": 1.2}, "--coverage=1.2: give a share from 0 to 1"),
        ({"coverage": float("nan")}, "--coverage=nan"),
        ({"tiling": windows.Tiling(0, 1.0)}, "--tile: overlap is 1.0"),
        ({"pattern": "*.dcm"}, r"holds no image named \*.dcm"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(setting, tmp_path, options, message):
    folder, call = setting
    Image.fromarray(stripes(32, 32)).save(folder / "a.png")
    with pytest.raises(InputError, match=message):
        call(**options)
    assert not (tmp_path / "out").exists()
