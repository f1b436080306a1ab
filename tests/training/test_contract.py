"""What a network takes stands with its run, and a data set that is otherwise is refused, said, or prepared alike."""

import json

import nibabel
import numpy as np
import pytest

from jaxseg.data import builders, geometry, pipeline
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError
from jaxseg.training import contract, runs
from jaxseg.training.contract import TrainedOn

PERCENTILES = ("percentiles", 0.5, 99.5)
OWN = TrainedOn(("background", "a", "b"), 1, 2, Preparation(PERCENTILES, None, True, "SPL"))


def on(**preparation):
    return OWN._replace(preparation=OWN.preparation._replace(**preparation))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (OWN._replace(rank=3), "holds volumes, and the network takes pictures; prepare its pictures"),
        (OWN._replace(num_channels=3), "has 3 channels, the network takes 1; save its images as gray"),
        (OWN._replace(class_names=("background", "a")), "has the classes background, a, and the network tells back"),
        (OWN._replace(class_names=("background", "b", "a")), "in the classes.csv of its folder"),
        (on(orientation="RAS"), "run to RAS, those that the network saw to SPL; prepare it as those, with --like=run"),
    ],
)
def test_what_a_network_cannot_be_asked_of_is_refused(tmp_path, found, wanted):
    with pytest.raises(InputError, match=f"^elsewhere: .*{wanted}"):
        contract.check("elsewhere", found, OWN, "run")


def test_what_may_make_it_fail_is_said():
    assert contract.check("elsewhere", OWN._replace(class_names=("background", "x", "y")), OWN, "run") == []
    assert contract.check("elsewhere", on(volumes=False, orientation="PL"), OWN, "run") == []  # pictures
    (line,) = contract.check("elsewhere", on(orientation=""), OWN, "run")
    assert line == "whether its volumes run as those that the network saw, SPL, is not known"
    (line,) = contract.check("elsewhere", on(scaling=None), OWN, "run")
    assert line.startswith(
        "its intensities are as in the files, those of the network's data set scaled by percentiles 0.5 an"
    )


def test_it_is_noted_and_read_back(tmp_path):
    assert contract.noted(tmp_path) is None
    contract.note(tmp_path, OWN)
    assert contract.noted(tmp_path) == OWN
    values = json.loads((tmp_path / contract.FILE).read_text())
    del values["orientation"]  # as the first versions wrote it
    (tmp_path / contract.FILE).write_text(json.dumps(values))
    assert contract.noted(tmp_path) == on(orientation="")
    (tmp_path / contract.FILE).write_text("{")
    assert contract.noted(tmp_path) is None


def write(raw, codes, dtype=np.int16):
    """Twelve volumes whose axes run to `codes`."""
    raw.mkdir()
    lines = ["case,image,mask,patient"]
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]]) * [4, 2, 2]
    for number in range(12):
        image = np.random.default_rng(number).integers(0, 60, (3, 10, 12))
        for name, array in (("image", image.astype(dtype)), ("mask", (image > 40).astype(np.uint8))):
            turned, place = geometry.oriented(array, affine, codes)
            path = raw / f"{number}_{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(turned.transpose(), place @ np.eye(4)[[2, 1, 0, 3]]), path)
        lines.append(f"v{number},{number}_image.nii.gz,{number}_mask.nii.gz,p{number}")
    (raw / "cases.csv").write_text("\n".join(lines))
    return raw


def test_a_data_set_is_prepared_like_the_one_that_a_network_was_trained_on(tmp_path):
    """Stored otherwise and with 8 bits: by itself another data set, with `like` the same."""
    prepare = lambda name, raw, **options: builders.prepare(
        f"folder/{name}", data_dir=tmp_path, manual_dir=raw, **options
    )
    own = pipeline.Split(prepare("own", write(tmp_path / "a", "SPL")), "test", size=None)
    elsewhere = write(tmp_path / "b", "RAS", np.uint8)
    alone = pipeline.Split(prepare("alone", elsewhere), "test", size=None)
    assert (alone.preparation.orientation, alone.preparation.scaling) == ("RAS", None)
    directory = prepare("like", elsewhere, like=own.preparation)
    alike = pipeline.Split(directory, "test", size=None)
    assert alike.preparation == own.preparation._replace(dtype="uint8")
    for one, other in zip(own, alike, strict=True):
        assert one["case"] == other["case"]
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["labels"], other["labels"])
    assert prepare("like", None, like=own.preparation) == directory
    with pytest.raises(InputError, match="is already prepared, but differently; choose another data folder"):
        prepare("alone", None, like=own.preparation)


def test_a_run_notes_what_its_network_takes(tiny_run, tiny):
    known = contract.of_run(runs.read_config(tiny_run), tiny_run, lambda name: None)
    assert known == contract.of_split(pipeline.Split(tiny, "train", size=None))


def test_every_kind_of_difference_has_its_words():
    pictures, volumes = (OWN._replace(rank=rank) for rank in (2, 3))
    with pytest.raises(InputError, match="x: holds pictures, and the network takes volumes; prepare its volumes"):
        contract.check("x", pictures, volumes, "run")
    colour, gray, many = (OWN._replace(num_channels=count) for count in (3, 1, 4))
    for given, known, message in (
        (gray, colour, "has 1 channel, the network takes 3; save its images as RGB"),
        (colour, many, "has 3 channels, the network takes 4; give it all of them"),
    ):
        with pytest.raises(InputError, match=message):
            contract.check("x", given, known, "run")
    unknown = on(orientation="")
    assert contract.check("x", unknown, unknown, "run") == []
    assert contract.check("x", OWN, unknown, "run") == [
        "whether its volumes run as those that the network saw, SPL, is not known"
    ]
    assert contract.check("x", on(volumes=False, orientation=""), OWN, "run") == []
    (line,) = contract.check("x", OWN, on(scaling=None), "run")
    assert line == (
        "its intensities are scaled by percentiles 0.5 and 99.5, those of the network's data set as in the files; "
        "prepare it as those, with --like=run and another --data_dir"
    )


def test_where_neither_folder_nor_data_set_knows_there_is_nothing(tmp_path, tiny_run):
    config = runs.read_config(tiny_run)
    asked = []
    assert contract.of_run(config, tmp_path, lambda name: asked.append(name)) is None
    assert asked == [config.data.dataset]


def test_a_split_is_asked_and_what_may_fail_is_said(tmp_path, tiny, capsys):
    known = contract.of_split(pipeline.Split(tiny, "train", size=None))
    contract.check_split(tiny, "test", known, tmp_path)
    assert capsys.readouterr().err == ""
    other = known._replace(preparation=known.preparation._replace(scaling=PERCENTILES))
    contract.check_split(tiny, "test", other, tmp_path)
    assert capsys.readouterr().err.startswith(f"{tiny}: its intensities are as in the files")
