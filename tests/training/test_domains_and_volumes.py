"""Runs on some scanners alone, and on volumes."""

import jax
import numpy as np
import pytest

from configs import autoencoder, train
from jaxseg import inference
from jaxseg.data import builders, pipeline
from jaxseg.errors import InputError
from jaxseg.metrics.intervals import bootstrap_mean
from jaxseg.training import checks, runs, trained


@pytest.fixture(scope="module")
def prepared(drawn_data):
    """`(name) -> folder` of the drawn data set of that name."""
    return lambda name: builders.prepared(name, data_dir=drawn_data(name))


def config_of(dataset, **data):
    config = train.get_config("tiny").unlock()
    config.data.update(dataset=dataset, source_size=16, image_size=8, **data)
    config.model.update(features=(2, 4), skips=(True,))
    config.training.update(epochs=1, batch_size=4)
    return config.lock()


def test_a_run_sees_its_domains_alone_and_is_evaluated_on_all(shallow_runs, prepared, tmp_path):
    config = config_of("cardiac/tiny", domains=("A", "C"))
    directory = prepared(config.data.dataset)
    splits = runs.Splits(directory, 16, config.data.domains)
    assert set(splits["train"].domains) == {"A", "C"} and len(splits["train"]) == 6 * 2 * 8
    assert splits["train"].name == "cardiac/tiny/train (A, C)"
    assert (
        len(splits["train"].fingerprint)
        and splits["train"].fingerprint != runs.Splits(directory, 16)["train"].fingerprint
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
        runs.train(config, splits, tmp_path / "run")
    asked = trained.of_run(tmp_path / "run", lambda name: directory)
    rows, means = inference.evaluate(asked, directory, split="test", view="original")
    assert len(rows) == 4 * 4 * 8 and {row["domain"] for row in rows} == {"A", "B", "C", "D"}
    names = ("right ventricle", "myocardium", "left ventricle")
    assert list(means) == [
        f"{name}{part}" for part in ("", *(f" in {d}" for d in "ABCD"), " on the grid of the file") for name in names
    ]
    patients = np.array([row["patient"] for row in rows])
    assert len(set(patients)) < len(rows)  # several slices of each
    in_b, defined = np.array([row["domain"] for row in rows]) == "B", 0
    for name in names:
        of_b = np.array([row[f"dice_{name}"] for row in rows])[in_b]
        assert means[f"{name} in B"] == bootstrap_mean(of_b, patients[in_b]) or np.isnan(of_b).all()
        defined += not np.isnan(of_b).all()
    assert defined


def test_an_unknown_domain_is_named(prepared):
    directory = prepared("cardiac/tiny")
    with pytest.raises(InputError, match="has no case of the domain 'Z'; choose from 'A', 'B', 'C', 'D'"):
        pipeline.Split(directory, "train", size=16, domains=("A", "Z"))


def test_volumes_are_squashed_to_cubes_and_trained_on(prepared, tmp_path):
    moved = {"rotate": 10.0, "tilt": 10.0, "elastic": 0.5, "gamma": 0.5, "low_resolution": 0.5}
    config = config_of("cardiac/tiny-volumes", augmentation=moved)
    directory = prepared(config.data.dataset)
    splits = runs.Splits(directory, 16)
    assert splits.rank == 3 and splits["train"].images.shape == (24, 16, 16, 16, 1)
    stored = pipeline.Split(directory, "train", size=None)[0]
    cube = splits["train"][0]
    np.testing.assert_allclose(cube["spacing"], stored["spacing"] * np.array(stored["labels"].shape) / 16, rtol=1e-6)
    # shares of the classes hardly change when the labels are squashed
    shares = [np.bincount(case["labels"].ravel(), minlength=4) / case["labels"].size for case in (stored, cube)]
    np.testing.assert_allclose(*shares, atol=0.01)
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
        runs.train(config, splits, tmp_path / "run")
    asked = trained.of_run(tmp_path / "run", lambda name: directory)
    rows, _ = inference.evaluate(asked, directory, split="test", view="original")
    assert len(rows) == 16


def test_what_is_made_for_pictures_is_refused_for_volumes():
    config = config_of("cardiac/tiny-volumes", view="quadrant")
    with pytest.raises(InputError, match="view is 'quadrant', cardiac/tiny-volumes has volumes; use 'original'"):
        checks.check_rank(config, 3)


@pytest.mark.parametrize("name", ["flip_depth", "tilt"])
def test_what_is_made_for_volumes_is_refused_for_pictures(name):
    config = config_of("cardiac/tiny", augmentation={name: 0.5})
    checks.check_rank(config, 3)
    with pytest.raises(InputError, match=f"augmentation.{name} is for volumes, cardiac/tiny has pictures; leave it"):
        checks.check_rank(config, 2)


def test_autoencoders_are_for_pictures():
    config = autoencoder.get_config("tiny").unlock()
    config.data.dataset = "cardiac/tiny-volumes"
    with pytest.raises(InputError, match="use its slices"):
        checks.check_rank(config, 3)
