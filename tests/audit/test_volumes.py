"""Audits of volumes: stacks of equal slices are judged as these are, and most probes are asked."""

import dataclasses
import html
import json
import re

import flax.linen as nn
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from jaxseg import models
from jaxseg.audit import audit
from jaxseg.audit.probes import ability, distances, failures, gray_levels, padding, translation
from jaxseg.data import builders
from jaxseg.networks import from_function, of_linen, slice_by_slice
from tests.shallow import Pixelwise

DEPTH = 6  # too few slices to cut along this axis


def stacked(cases):
    """Volumes of whose slices each is the picture."""
    repeat = lambda array: np.repeat(array[:, None], DEPTH, 1)
    spacings = np.full((len(cases), 3), np.nan, np.float32)
    return dataclasses.replace(cases, images=repeat(cases.images), labels=repeat(cases.labels), spacings=spacings)


PROBES = {  # with a network, and what they measure of it
    translation.PROBE: ("PaddedSum", "found"),
    padding.PROBE: ("PaddedSum", "strip"),
    gray_levels.PROBE: ("Threshold", "own"),
    ability.PROBE: ("Pixelwise", "scores"),
    distances.PROBE: ("Pixelwise", "distance"),
}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_stack_of_equal_slices_is_judged_as_these_are(
    networks, subject_of, squares, settings, drawn_variables, probe
):
    """By a network that takes it slice by slice."""
    cases = squares(domains=("A",) * 6 + ("B",) * 6)
    cases.images[6:] //= 2
    network, name = PROBES[probe]
    if network == "Pixelwise":
        variables = drawn_variables(Pixelwise(2), np.zeros((1, 32, 32, 3), np.float32))
        variables["params"]["head"]["kernel"] *= -1  # so that what is bright is foreground
        picture = subject_of(Pixelwise(2), cases, variables)
    else:
        picture = subject_of(getattr(networks, network)(), cases)
    volume = dataclasses.replace(picture, network=slice_by_slice(picture.network), test=stacked(cases), batch_size=4)
    expected, found = (probe.measure(subject, settings(probe)) for subject in (picture, volume))
    assert np.nanmax(expected[name]) > 0.1
    for key, values in expected.items():
        if key.startswith("picture"):
            np.testing.assert_array_equal(found[key], values, err_msg=key)
        elif values.dtype.kind == "f":
            np.testing.assert_allclose(found[key], values, atol=1e-5, err_msg=key)
    if "chosen" in found:
        assert found["chosen"].tolist() == expected["chosen"].tolist()
        assert found["picture_slices"].tolist() == [0] * len(found["chosen"])


class Halved(nn.Module):
    """In place of an autoencoder."""

    def __call__(self, x):
        return 0.5 * x

    def encode(self, x):
        return jnp.mean(x, range(1, x.ndim - 1))


def test_a_stack_of_equal_slices_has_their_scores(subject_of, squares, settings, monkeypatch):
    """Segmentation distortion too."""
    monkeypatch.setattr(failures, "fit_autoencoder", lambda *_, **__: (Halved(), {}))

    def layered(levels):
        hidden = levels.astype(jnp.float32) - 100
        return 0.02 * jnp.stack([-hidden[..., 0], hidden[..., 1]], -1), {"hidden": hidden}

    network = from_function(layered, num_classes=2, image_size=32, output="logits", bottleneck="hidden")
    cases = squares()
    picture = dataclasses.replace(subject_of(Pixelwise(2), cases, {}), network=network, familiar=cases)
    deep = stacked(cases)
    volume = dataclasses.replace(picture, network=slice_by_slice(network), test=deep, familiar=deep, batch_size=4)
    expected, found = (failures.measure(subject, settings(failures.PROBE)) for subject in (picture, volume))
    for key in ("dice", "mean_sa", "entropy", "distortion"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, err_msg=key)
    assert set(found["lacking"]) == {"checkpoints", "ensemble"} and expected["distortion"].min() > 1e-3


def write(folder):
    """Bright cuboids in volumes of two scanners, a patient each."""
    random = np.random.default_rng(0)
    rows = ["case,image,mask,patient,domain,split"]
    for split, count in {"train": 4, "validation": 2, "test": 10}.items():
        for i in range(count):
            labels = np.zeros((8, 16, 16), np.uint8)
            y, x = random.integers(4, 7, 2)
            labels[2:6, y : y + 6, x : x + 6] = 1
            image = (60 + 120 * labels + random.integers(-9, 10, labels.shape) - 20 * (i % 2)).astype(np.uint8)
            for name, array in (("image", image), ("mask", labels)):
                nifti = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.eye(4))
                nibabel.save(nifti, folder / f"{split}{i}_{name}.nii.gz")
            files = f"{split}{i}_image.nii.gz,{split}{i}_mask.nii.gz"
            rows.append(f"{split}{i},{files},{split}{i},{'AB'[i % 2]},{split}")
    (folder / "cases.csv").write_text("\n".join(rows))
    (folder / "classes.csv").write_text("value,name\n0,background\n1,object\n")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    write(raw)
    return builders.prepare("folder/mine-volumes", data_dir=tmp_path_factory.mktemp("data"), manual_dir=raw)


QUICK = {"resamples": 50, "autoencoder_steps": 1, "autoencoder_width": 2, "latent": 2}


def audited(network, volumes, folder, **settings):
    """Rows of numbers, and the words of the page."""
    result = audit(network, volumes, folder, **QUICK, **settings)
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", result.page.read_text())))
    return json.loads((folder / "results.json").read_text())["numbers"], words


def test_an_audit_of_volumes_asks_every_probe_but_those_for_pictures(volumes, drawn_variables, tmp_path, plots):
    model = models.build("unet", 2, features=(2, 4), skips=(True,))
    given = drawn_variables(model, np.zeros((1, 8, 16, 16, 1), np.float32))
    network = of_linen(model, given, image_size=(8, 16, 16), channels=1)
    numbers, words = audited(network, volumes, tmp_path / "audit")
    told = {row["probe"]: row["convention"] for row in numbers if row["quantity"] == "not asked"}
    assert told.keys() == {"failures", "overlays", "position"}
    assert all("the cases are volumes" in told[name] for name in ("overlays", "position"))
    league = [row["where"] for row in numbers if row["quantity"] == "rank correlation"]
    assert {"SD", "PM", "LM"} <= set(league)
    for probe in ("translation", "padding"):
        assert any(row["probe"] == probe for row in numbers)
    assert any("sides in turn" in row["convention"] for row in numbers)
    assert "Numbers: gray levels" in words and "Numbers: distances" in words


def test_a_network_for_pictures_is_audited_on_volumes(volumes, tmp_path, plots):
    """Blind at the border of every slice; volumes are as deep as they are."""
    inside = np.zeros((16, 16), bool)
    inside[3:-3, 3:-3] = True
    function = lambda levels: np.where(inside[None, ..., None], levels.astype(np.float32) - 120, -120)
    network = from_function(function, num_classes=2, image_size=16, channels=1, output="logits")
    _, words = audited(slice_by_slice(network), volumes, tmp_path / "audit", probes=("translation",))
    assert "it is given volumes slice by slice" in words and "Objects at the image's border are given up" in words
    assert "the slice with most of the object is shown" in words
