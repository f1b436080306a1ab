"""Runs on cases that keep their pixels: several sizes, 16 bits, pixels without annotation; patches; the way back."""

import json
import shutil

import jax
import nibabel
import numpy as np
import pytest

from configs import train
from jaxseg import inference
from jaxseg.data import builders, inputs, pipeline
from jaxseg.data.normalisation import Scale
from jaxseg.data.windows import Tiling
from jaxseg.errors import InputError
from jaxseg.prediction import inputs as files
from jaxseg.prediction import page
from jaxseg.prediction.predictor import Predictor
from jaxseg.training import checks, runs
from jaxseg.training import trained as of_folder
from jaxseg.training.contract import TrainedOn

SIZES = ((10, 14), (10, 14), (18, 12), (18, 12), (10, 14), (18, 12), (10, 14), (18, 12))
SLICES, IGNORE = 3, 9


@pytest.fixture(autouse=True)
def optax_mixes_types():
    """Adam's bias correction raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def write(folder):
    """Volumes of two sizes in plane, beyond 8 bits and below 0, whose last row has no annotation."""
    rng = np.random.default_rng(0)
    rows = ["case,image,mask,patient,split"]
    for i, size in enumerate(SIZES):
        labels = np.zeros((SLICES, *size), np.uint8)
        labels[:, 3:7, 4:9] = 1
        image = np.rint(rng.normal(0, 40, labels.shape) + 900 * (labels == 1) - 200).astype(np.int16)
        labels[:, -1] = IGNORE
        for name, array in (("image", image), ("mask", labels)):
            nifti = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.5, 2.0, 8.0, 1.0]))
            nibabel.save(nifti, folder / f"{name}{i}.nii.gz")
        split = ["train", "train", "train", "train", "validation", "validation", "test", "test"][i]
        rows.append(f"c{i},image{i}.nii.gz,mask{i}.nii.gz,p{i},{split}")
    (folder / "cases.csv").write_text("\n".join(rows))
    (folder / "classes.csv").write_text(f"value,name\n0,background\n1,object\n{IGNORE},ignore\n")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def slices(raw, tmp_path_factory):
    return builders.prepare("folder/mine", data_dir=tmp_path_factory.mktemp("data"), manual_dir=raw)


@pytest.fixture(scope="module")
def volumes(raw, tmp_path_factory):
    return builders.prepare("folder/mine-volumes", data_dir=tmp_path_factory.mktemp("data"), manual_dir=raw)


@pytest.mark.parametrize("normalisation", ["z_score", "percentiles", "range"])
def test_cases_of_several_sizes_stand_in_the_middle_of_one_grid_with_their_gray_levels(slices, normalisation):
    """What was 0 to 255 with `range` can be read off every case, where it lies on the grid."""
    given = inputs.of_config(config_of("keep", multiple=(4,), normalisation=normalisation))
    split, chosen = pipeline.Split(slices, "train", inputs=given), [0, 4, 7]
    cases = pipeline.streamed(split, chosen)
    assert {one.grid for one in cases.placements} == {(12, 16), (20, 12)} and cases.sides == (20, 16)
    levels = pipeline.Split(slices, "train", inputs=inputs.gray_levels(None))
    for made in pipeline.on_one_grid([cases, cases], unit=8, fill=given.normalisation.fill):
        assert made.sides == (24, 16) and made.smaller == 3 and made.fingerprint != cases.fingerprint
        assert made.cases == tuple(split.cases[i] for i in chosen)
        assert made.patients == tuple(split.patients[i] for i in chosen)
        for number, place in enumerate(chosen):
            stored, case = levels[place], made[number]
            wanted = np.zeros((24, 16), bool)
            top, left = ((24 - 12) // 2 + 1, 1) if stored["labels"].shape == (10, 14) else ((24 - 20) // 2 + 1, 2)
            part = np.s_[top : top + stored["labels"].shape[0], left : left + stored["labels"].shape[1]]
            wanted[part] = True
            inside = np.zeros((24, 16), bool)
            inside[tuple(slice(*ends) for ends in case["inside"].T)] = True
            np.testing.assert_array_equal(inside, wanted)
            assert (case["image"][~inside] == given.normalisation.fill).all() and not case["valid"][~inside].any()
            np.testing.assert_array_equal(case["labels"][part], stored["labels"])
            np.testing.assert_array_equal(case["valid"][part], stored["valid"])
            if normalisation == "range":
                np.testing.assert_array_equal(case["image"][part], stored["image"])
                continue
            scale = Scale(*case["scale"])
            found, unclipped = scale.levels(case["image"][part]), (abs(case["image"][part]) < 1) | (scale.most > 1)
            within = unclipped & (stored["image"] > 0) & (stored["image"] < 255)
            assert within.mean() > 0.9 and abs(found - stored["image"])[within].max() < 0.7
    one = pipeline.in_memory(split, chosen=[0, 1], pictured=True)
    np.testing.assert_array_equal(one.scales[0], split.read(0, pictured=True)["scale"])
    np.testing.assert_array_equal(one.take(np.array([1])).insides, one.insides[1:])
    assert "scale" not in split[0] and pipeline.in_memory(split, chosen=[0]).scales is None


@pytest.mark.parametrize("several", [False, True])
def test_cases_that_are_streamed_are_those_in_memory(slices, several):
    """All of them, and some in an order of their own."""
    given = inputs.of_config(config_of("keep", multiple=(4,), normalisation="z_score"))
    split = pipeline.Split(slices, "train", inputs=given if several else inputs.gray_levels(8))
    cases, chosen = pipeline.streamed(split, range(6)), np.array([4, 1, 5])
    if several:
        cases = pipeline.on_one_grid([cases], unit=1, fill=0.5)[0]
    some, held = cases.take(chosen), cases.held()
    assert (held.num_bytes, held.sides) == (cases.num_bytes, cases.sides)
    assert some.fingerprint == cases.take(chosen).fingerprint != cases.fingerprint
    for place, case in zip(chosen, some, strict=True):
        assert case.keys() == held[place].keys()
        for name, value in case.items():
            np.testing.assert_array_equal(value, held[place][name])
    names = ("cases", "patients", "domains")
    assert [getattr(some, name) for name in names] == [getattr(held.take(chosen), name) for name in names]
    read = lambda source: list(pipeline.epoch(source, batch_size=4, first=1, names=("image", "inside")))
    (found,), (wanted,) = read(cases), read(held)
    assert list(found["index"]) == [4, 5, 5, 5] and set(found) == {"image", "inside", "index", "real"}
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


MEAN_STD = {
    "data.normalisation": "mean_std",
    "data.normalisation_options.mean": (1.0,),
    "data.normalisation_options.std": (2.0,),
}


def config_of(geometry, dataset="folder/mine", normalisation="z_score", **options):
    config = train.get_config("tiny").unlock()
    config.data.update(dataset=dataset, image_size=8, geometry=geometry, normalisation=normalisation)
    config.data.geometry_options.update(options)
    config.model.update(features=(2, 4), skips=(True,))
    config.training.update(epochs=1, batch_size=4)
    return config.lock()


def trained(config, directory, folder):
    config = runs.resolved(config, directory)
    runs.train(config, runs.Splits(directory, inputs.of_config(config)), folder)
    return config


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_files_are_stored_exactly_with_what_has_no_annotation(raw, slices):
    split = pipeline.Split(slices, "train", inputs=inputs.STORED)
    assert split.preparation.dtype == "int16" and split.masked and split.class_names == ("background", "object")
    for case in split:
        number, z = case["case"].split("_")
        image = np.asarray(nibabel.load(raw / f"image{number[1:]}.nii.gz").dataobj).transpose(2, 1, 0)[int(z)]
        np.testing.assert_array_equal(case["image"][..., 0], image)
        assert not case["valid"][-1].any() and case["valid"][:-1].all() and not case["labels"][-1].any()
    assert pipeline.Split(slices, "train", size=None)[0]["image"].dtype == np.uint8
    for index in (0, len(split) - 1):  # without decoding the image
        truth, case = split.truth(index), split[index]
        assert truth.keys() == {"labels", "valid", "spacing"}
        for name, array in truth.items():
            np.testing.assert_array_equal(array, case[name])


@pytest.mark.parametrize(
    ("geometry", "options", "sizes"),
    [("keep", {"multiple": (4,)}, 2), ("patches", {"size": (8, 8)}, 2), ("keep", {"size": (16, 12)}, 1)],
)
def test_a_run_trains_validates_resumes_and_is_evaluated_on_both_grids(
    shallow_runs, slices, tmp_path, geometry, options, sizes
):
    normalisation = "mean_std" if geometry == "patches" else "z_score"
    wanted = config_of(geometry, normalisation=normalisation, **options)
    config = trained(wanted, slices, tmp_path / "run")
    if geometry == "patches":  # the numbers of the foreground are kept with the run
        assert 650 < runs.read_config(tmp_path / "run").data.normalisation_options.mean[0] < 750
    assert rows(tmp_path / "run")[-1]["step"] == 3 and np.isfinite(rows(tmp_path / "run")[-1]["loss"])
    trained(wanted, slices, tmp_path / "run")  # resumes, and nothing is left to do
    asked = of_folder.of_run(tmp_path / "run", lambda name: slices)
    found, estimates = inference.evaluate(asked, slices, split="test", view="original")
    stored = pipeline.Split(slices, "test", size=None)
    assert [row["case"] for row in found] == [case["case"] for case in stored]
    assert set(estimates) == {"object", "object on the grid of the file"}
    source = pipeline.Split(slices, "test", inputs=inputs.of_config(config))
    assert len({case["labels"].shape for case in source}) == sizes
    if geometry != "keep" or sizes > 1:  # all of every case is seen at its own pixels: both are the same Dice
        for row in found:
            assert row["dice_object"] == pytest.approx(row["file_dice_object"])


THRESHOLDS = {"z_score": 1.0, "percentiles": 0.0, "mean_std": 2.5, "none": 250.0, "range": 128.0}


@pytest.mark.parametrize("normalisation", THRESHOLDS)
@pytest.mark.parametrize("geometry", ["keep", "patches"])
def test_predicted_masks_lie_over_their_files(raw, slices, tmp_path, geometry, normalisation):
    """Of a network that thresholds what it is given: the object, on the grid of the file."""
    options = {"multiple": (4,)} if geometry == "keep" else {}
    config = config_of(geometry, normalisation=normalisation, **options)
    if normalisation == "mean_std":
        with config.unlocked():
            config.data.normalisation_options.update(mean=(0,), std=(100,))
    split = pipeline.Split(slices, "train")
    known = TrainedOn(split.class_names, split.num_channels, split.rank, split.preparation)
    threshold = Predictor(of_folder.of_config(config, (), known, name="a threshold"))

    def bright(images, valid=None):
        assert (valid is None) == (images.shape[1:-1] == SIZES[i]) or geometry == "patches"
        object_ = (images > THRESHOLDS[normalisation]).astype(np.float32)
        return np.concatenate([1 - object_, object_], -1), {"mean_sa": np.zeros(len(images))}

    threshold.__dict__["_network"] = bright
    for i in (0, 2):
        loaded = files.load(raw / f"image{i}.nii.gz", known, threshold.inputs)
        found = threshold.predict(loaded.stored, loaded.size, spacing=loaded.spacing)
        mask = loaded.as_in_file(found.labels)
        truth = np.asarray(nibabel.load(raw / f"mask{i}.nii.gz").dataobj).transpose(2, 1, 0)
        np.testing.assert_array_equal(mask[truth != IGNORE], truth[truth != IGNORE])


def test_volumes_train_on_patches_that_are_mapped_from_files(shallow_runs, volumes, tmp_path, monkeypatch):
    config = config_of("patches", "folder/mine-volumes", size=(2, 8, 8)).unlock()
    config.training.batch_size, config.model.features = 2, (2, 4)
    config.data.residence = "stream"
    config = trained(config.lock(), volumes, tmp_path / "mapped")
    places = sorted((tmp_path / "mapped" / "cases").iterdir())
    assert [place.name[:-9] for place in places] == ["folder_mine-volumes_train", "folder_mine-volumes_validation"]
    with config.unlocked():
        config.data.residence = "auto"
    trained(config, volumes, tmp_path / "memory")
    assert not (tmp_path / "memory" / "cases").exists()
    one, other = (rows(tmp_path / name) for name in ("mapped", "memory"))
    assert [row["loss"] for row in one] == [row["loss"] for row in other]
    monkeypatch.setattr(pipeline, "listed", None)  # nothing decodes a whole split
    asked = of_folder.of_run(tmp_path / "mapped", lambda name: volumes)
    found, _ = inference.evaluate(asked, volumes, split="test", view="original")
    assert [row["case"] for row in found] == ["c6", "c7"]


@pytest.mark.parametrize("short", [False, True])
def test_what_is_more_than_a_quarter_of_memory_is_mapped(volumes, tmp_path, monkeypatch, short):
    config = config_of("patches", "folder/mine-volumes", size=(2, 8, 8))
    splits = runs.Splits(volumes, inputs.of_config(config))
    opened = [splits.open(split) for split in ("train", "validation")]
    for split in opened:
        cases = list(split)
        assert split.sizes == tuple(case["labels"].shape for case in cases)
        assert split.num_bytes == sum(case[name].nbytes for case in cases for name in ("image", "labels", "valid"))
    needed = sum(split.num_bytes for split in opened)
    monkeypatch.setattr(runs.parallel, "host_memory", lambda: 4 * needed - short)
    runs.Data(config, splits, tmp_path)
    assert (tmp_path / "cases").exists() == short


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.view": "quadrant"}, "config.data.view is 'quadrant', which is for geometry 'squash'"),
        ({"data.folds": 2}, "config.data.folds needs cases of one size, and config.data.geometry 'keep' has several"),
        ({"replicas": 2}, "config.replicas needs cases of one size"),
        ({"data.residence": "device"}, "config.data.residence 'device' needs cases of one size"),
        ({"data.geometry": "stretch"}, "config.data.geometry is 'stretch'; choose one of squash, keep, patches"),
        (
            {"data.geometry_options.spacing": (float("nan"), 1.0)},
            "geometry_options.spacing is .*; give numbers above 0",
        ),
        ({"data.geometry_options.size": (8, 8)}, "has a size and a multiple; give one of them"),
        ({"data.geometry_options.whole": True}, "has whole and a multiple; give one of them"),
        ({"data.geometry_options.multiple": (3,)}, "image sizes divisible by 2, got 3 x 3"),
        (MEAN_STD | {"data.normalisation_options.std": (0.0,)}, "give finite numbers, std above 0"),
        (MEAN_STD | {"data.normalisation_options.std": (1.0, 1.0)}, "give as many numbers for mean as for std"),
        (MEAN_STD | {"data.normalisation_options.clip": (2.0, 1.0)}, r"clip is \(2.0, 1.0\); give two ends, the lower"),
        ({"data.geometry_options.spacing": (0.0, 1.0)}, "geometry_options.spacing is .*; give numbers above 0"),
        ({"data.geometry_options.overlap": 0.25}, "geometry_options.overlap is 0.25, but keep has no overlap"),
        ({"data.normalisation": "cdf"}, "config.data.normalisation is 'cdf'; choose one of range, percentiles"),
        ({"data.normalisation_options.scope": "volume"}, "scope is 'volume'; choose one of image, slice"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(changes, message):
    config = config_of("keep", multiple=(4,)).unlock()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        checks.check(config.lock())


def test_cases_mapped_for_other_inputs_are_not_taken(volumes, tmp_path):
    for normalisation, dtype in (("range", np.uint8), ("none", np.float32)):
        config = config_of("patches", "folder/mine-volumes", normalisation=normalisation, size=(2, 8, 8))
        splits = runs.Splits(volumes, inputs.of_config(config))
        assert splits.listed("train", folder=tmp_path)[0]["image"].dtype == dtype


def test_a_deviation_without_a_mean_is_refused_and_given_ends_are_kept(slices):
    config = config_of("keep", normalisation="mean_std").unlock()
    config.data.normalisation_options.clip = (10.0, 20.0)
    found = runs.resolved(config, slices).data.normalisation_options
    assert found.clip == (10.0, 20.0) and 10 <= found.mean[0] <= 20 and found.std[0] <= 5
    config.data.normalisation_options.std = (5.0,)
    with pytest.raises(InputError, match="give as many numbers for mean as for std, or none"):
        runs.resolved(config, slices)


def test_statistics_for_other_channels_are_refused(slices):
    config = config_of("keep", normalisation="mean_std").unlock()
    config.data.normalisation_options.update(mean=(1.0, 2.0), std=(1.0, 2.0))
    with pytest.raises(InputError, match=r"mean has 2 numbers, .* 1 channels; give one for each, or one for all"):
        pipeline.Split(slices, "train", inputs=inputs.of_config(config))


def test_what_is_for_squashed_runs_alone_is_refused(slices, tmp_path):
    config = config_of("keep", multiple=(4,))
    asked = of_folder.of_config(config, (), None, name="a run")
    with pytest.raises(InputError, match="--view=quadrant: is for runs that squash"):
        inference.evaluate(asked, slices, split="test", view="quadrant")
    with pytest.raises(InputError, match="--tile: is for runs that squash; this one has its own geometry, 'keep'"):
        page._predictor(asked, page.Options(tiling=Tiling(8)))


@pytest.mark.parametrize(("geometry", "options"), [("keep", {"multiple": (8,), "spacing": (1.0, 1.0)}), ("squash", {})])
@pytest.mark.parametrize("normalisation", ["z_score", "percentiles"])
def test_normalised_cases_are_resampled(slices, geometry, options, normalisation):
    config = config_of(geometry, normalisation=normalisation, **options)
    case = pipeline.Split(slices, "train", inputs=inputs.of_config(config))[0]
    assert case["image"].dtype == np.float16 and np.isfinite(case["image"]).all()
    np.testing.assert_allclose(case["spacing"], (1, 1) if geometry == "keep" else case["spacing"], rtol=0.05)


def test_sides_for_another_number_of_axes_are_refused(slices, tmp_path):
    config = config_of("keep", size=(8, 8, 8))
    with pytest.raises(InputError, match=r"has 2 axes, and 3 sizes are given; give 2, or one for all"):
        trained(config, slices, tmp_path / "run")


def test_studies_take_squares_and_some_gray_levels_alone():
    for geometry, options in (("keep", {"multiple": (4,)}), ("keep", {"size": (4, 8)}), ("patches", {})):
        with pytest.raises(InputError, match="studies take squares: use 'squash', or 'keep' with image_size alone"):
            inputs.check_study(config_of(geometry, **options), changes_levels=False)
    with pytest.raises(InputError, match="normalisation is 'z_score'; this study changes gray levels: use 'range'"):
        inputs.check_study(config_of("keep"), changes_levels=True)
    inputs.check_study(config_of("keep", normalisation="range"), changes_levels=True)
    inputs.check_study(config_of("keep"), changes_levels=False)


def test_a_set_that_an_earlier_version_stored_with_8_bits_has_no_other_intensities(slices, tmp_path):
    old = shutil.copytree(slices, tmp_path / "old")
    features = json.loads((old / "features.json").read_text())
    del features["featuresDict"]["features"]["statistics"]
    (old / "features.json").write_text(json.dumps(features))
    with pytest.raises(InputError, match=r"stored 8 bits of its intensities; use .* 'range', or prepare"):
        pipeline.Split(old, "train", inputs=inputs.of_config(config_of("keep")))
