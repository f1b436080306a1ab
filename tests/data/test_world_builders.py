"""Worlds as data sets: what is stored is what is drawn, and what makes them experiments holds."""

import collections

import numpy as np
import pytest

from jaxseg.data import builders, pipeline
from jaxseg.data.builders import cardiac as cardiac_builder
from jaxseg.data.builders import dermoscopy
from jaxseg.data.builders import smear as smear_builder
from jaxseg.data.builders import ultrasound as ultrasound_builder
from jaxseg.data.synthetic import cardiac, smear, smear_drawn, ultrasound
from jaxseg.errors import InputError

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """For tiny worlds, which are made with fewer scenes here."""
    few = {
        ultrasound_builder.Ultrasound: {"train": 1, "validation": 1, "test": 4},
        cardiac_builder.Cardiac: {"train": 1, "validation": 1, "test": 2},
        smear_builder.Smear: {"": 20},
    }
    with pytest.MonkeyPatch.context() as patch:
        for builder, scenes in few.items():
            for config in builder.BUILDER_CONFIGS:
                if config.name.startswith("tiny"):
                    patch.setattr(config, "scenes", scenes)
        yield tmp_path_factory.mktemp("data")


def read(directory) -> dict[str, list]:
    return {name: list(pipeline.Split(directory, name, size=None)) for name in SPLITS}


@pytest.mark.parametrize(
    "builder", [ultrasound_builder.Ultrasound, cardiac_builder.Cardiac, smear_builder.Smear, dermoscopy.Dermoscopy]
)
def test_no_scene_is_in_two_splits(builder, monkeypatch):
    monkeypatch.setattr(smear_drawn, "drawn_templates", lambda seed: ())  # nothing is drawn
    for config in builder.BUILDER_CONFIGS:
        if builder.instructions(config):
            continue  # the same scenes, with templates from files
        patients = {split: set() for split in SPLITS}
        for case in builder.find(None, config).cases:
            patients[case.split].add(case.patient)
        assert sum(map(len, patients.values())) == len(set().union(*patients.values())), config.name
        assert all(patients.values()), config.name


def test_ultrasound_has_every_scan_annotated_and_clean(data_dir):
    splits = read(builders.prepare("ultrasound/tiny", data_dir=data_dir))
    for cases in splits.values():
        pairs = collections.defaultdict(dict)
        for case in cases:
            pairs[case["patient"]][case["domain"]] = case
        for patient, pair in pairs.items():
            scene = int(patient.removeprefix("synthetic"))
            frame = ultrasound.render(ultrasound_builder._SEED, scene, 64, plane=ultrasound.PLANES[scene % 4])
            np.testing.assert_array_equal(pair["annotated"]["image"], frame.image)
            np.testing.assert_array_equal(pair["clean"]["image"], frame.clean)
            for case in pair.values():
                np.testing.assert_array_equal(case["labels"], frame.labels)
    planes = [set(np.unique(case["labels"])) - {0} for case in splits["test"]]
    assert set().union(*planes) == {1, 2, 3, 4}


def test_cardiac_shows_the_same_hearts_by_all_vendors(data_dir):
    directory = builders.prepare("cardiac/tiny-volumes", data_dir=data_dir)
    hearts = collections.defaultdict(dict)
    for case in pipeline.Split(directory, "test", size=None):
        hearts[case["patient"]][case["domain"]] = case
    assert len(hearts) == 2
    for patient, vendors in hearts.items():
        assert set(vendors) == set(cardiac.VENDORS)
        scene = int(patient.removeprefix("synthetic"))
        for vendor, case in vendors.items():
            image, labels, spacing = cardiac.volume(cardiac_builder._SEED, scene, 64, vendor=vendor)
            np.testing.assert_array_equal(case["image"][..., 0], image)
            np.testing.assert_array_equal(case["labels"], labels)
            np.testing.assert_allclose(case["spacing"], spacing, rtol=1e-6)
        assert (vendors["A"]["image"] != vendors["D"]["image"]).any()


def test_cardiac_slices_are_those_of_the_volumes(data_dir):
    volumes = {
        c["case"]: c
        for c in pipeline.Split(builders.prepare("cardiac/tiny-volumes", data_dir=data_dir), "train", size=None)
    }
    slices = list(pipeline.Split(builders.prepare("cardiac/tiny", data_dir=data_dir), "train", size=None))
    assert len(slices) == 8 * len(volumes)
    for case in slices[::5]:
        volume, _, z = case["case"].rpartition("_")
        np.testing.assert_array_equal(case["image"], volumes[volume]["image"][int(z)])
        np.testing.assert_array_equal(case["labels"], volumes[volume]["labels"][int(z)])
        np.testing.assert_array_equal(case["spacing"], volumes[volume]["spacing"][1:])


def test_smear_has_both_densities_in_equal_shares(data_dir):
    splits = read(builders.prepare("smear/tiny", data_dir=data_dir))
    assert {name: len(cases) for name, cases in splits.items()} == {"train": 14, "validation": 2, "test": 4}
    for cases in splits.values():
        assert collections.Counter(case["domain"] for case in cases) == {
            "low": len(cases) // 2,
            "high": len(cases) // 2,
        }
    case = splits["train"][3]
    scene, templates = int(case["case"].removeprefix("synthetic")), smear_drawn.drawn_templates(smear_builder._SEED)
    image, labels, _ = smear.render(smear_builder._SEED, scene, 64, templates=templates)
    np.testing.assert_array_equal(case["image"], image)
    np.testing.assert_array_equal(case["labels"], labels)


def test_smear_templates_are_cut_from_real_images(real_data, data_dir):
    directory = builders.prepare("smear/tiny-cut", data_dir=data_dir, manual_dir=real_data / "bccd_smear")
    drawn = pipeline.Split(builders.prepare("smear/tiny", data_dir=data_dir), "train", size=None)
    cut = pipeline.Split(directory, "train", size=None)
    assert cut.cases == drawn.cases
    assert (cut[0]["image"] != drawn[0]["image"]).any()
    assert 0.02 < np.mean([case["labels"].mean() for case in cut]) < 0.4


def test_smear_says_why_nothing_could_be_cut(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no training.json and no VOC file; "):
        builders.prepare("smear/tiny-cut", data_dir=tmp_path / "data", manual_dir=tmp_path / "empty")
    with pytest.raises(InputError, match=r"smear/tiny-cut is not prepared in .*; give BBBC041"):
        builders.prepare("smear/tiny-cut", data_dir=tmp_path / "data")
