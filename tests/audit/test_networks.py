"""Audits of networks of other makes, from a prepared data set to the result."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import networks
from jaxseg.audit import audit, defaults
from jaxseg.data import builders, grids, pipeline
from jaxseg.errors import InputError
from jaxseg.training import contract, trained
from tests import bright_squares, nnunet

SIDE = 24
QUICK = {"resamples": 100, "examples": 1, "autoencoder_steps": 1, "autoencoder_width": 2, "latent": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    bright_squares.write(raw, SIDE)
    return builders.prepare("folder/squares", data_dir=tmp_path_factory.mktemp("data"), manual_dir=raw)


def threshold(levels):
    """Foreground from a gray level on, with a layer."""
    z = levels[..., :1].astype(jnp.float32) - 120
    return z, {"above": z}


def blind(levels):
    """The same on the host, and without layers; nothing is found at the border."""
    z = np.asarray(levels[..., :1], np.float32) - 120
    inside = np.zeros(levels.shape[1:3], bool)
    inside[5:-5, 5:-5] = True
    return np.where(inside[..., None], z, -120)


def numbers(result):
    return json.loads((result.page.parent / "results.json").read_text())["numbers"]


def told(result):
    return {row["probe"]: row["convention"] for row in numbers(result) if row["quantity"] == "not asked"}


def test_a_threshold_is_no_shortcut_and_a_blind_border_is_one(prepared, tmp_path):
    make = lambda function: networks.from_function(function, num_classes=2, image_size=SIDE, output="logits")
    probes = ("padding", "translation", "failures")
    clear = audit(make(threshold), prepared, tmp_path / "clear", known_dice=1.0, probes=probes, **QUICK)
    assert clear.verdict == "no" and not clear.findings
    words = clear.page.read_text()
    assert "mean Dice of 1.00; it is known for 1.00" in words
    assert "Squash, side (24, 24)" in words and "Range" in words and "24x24 px" in words
    command = json.loads((tmp_path / "clear" / "results.json").read_text())["provenance"]["command"]
    given = f"known_dice=1.0, probes={probes!r}, resamples=100, examples=1, autoencoder_steps=1"
    assert command.startswith(f"jaxseg.audit.audit(network, {str(prepared)!r}, {str(tmp_path / 'clear')!r}, {given}")
    reasons = told(clear)
    assert "does not say how it pads" in reasons["padding"] and "its bottleneck" in reasons["failures"]
    probes = ("translation", "failures", "ability", "position")
    given_up = audit(make(blind), prepared, tmp_path / "blind", probes=probes, **QUICK)
    assert given_up.verdict == "yes" and [one.kind for one in given_up.findings] == ["border"]
    assert given_up.findings[0].estimate.mean > 0.5 and "lower at the border" in given_up.findings[0].sentence
    for probe in ("ability", "position"):
        assert "does not say what its layers are" in told(given_up)[probe]
    league = [row["where"] for row in numbers(given_up) if row["quantity"] == "rank correlation"]
    assert league == ["entropy"]


def test_settings_are_those_of_the_config_and_others_are_refused(prepared, tmp_path):
    with pytest.raises(InputError, match="an audit has no setting 'case'; choose from probes, findings"):
        audit(networks.from_function(threshold, num_classes=2, image_size=SIDE), prepared, tmp_path, case=3)
    assert defaults.config(cases=3).cases == 3 and defaults.config().cases == defaults.Defaults().cases


def test_a_network_of_other_classes_or_channels_is_refused(prepared):
    known = contract.of_split(pipeline.Split(prepared, "test"))
    check = lambda network: trained.of_network(network, known, name="mine", dataset="folder/squares")
    of = lambda function, **options: networks.from_function(function, image_size=SIDE, output="logits", **options)
    made = check(of(threshold, num_classes=2))
    assert (made.name, made.trained_on, made.given.grid) == ("mine", known, grids.Squash((SIDE, SIDE)))
    gray = of(threshold, num_classes=2, channels=1)
    with pytest.raises(InputError, match="folder/squares: has 3 channels, the network takes 1; save"):
        check(gray)
    three = of(lambda levels: jnp.repeat(levels[..., :1].astype(jnp.float32), 3, -1), num_classes=3)
    with pytest.raises(InputError, match="has 2 classes, background, square, and the network tells 3 apart"):
        check(three)


def test_an_nnunet_is_audited_by_its_folder(prepared, tmp_path):
    """Under the window and the normalisation of its plans; drawn weights find nothing in particular."""
    folder, _ = nnunet.write_for_pictures(tmp_path / "model", 16, ("background", "square"))
    network = networks.from_nnunet(folder)
    probes = ("accuracy", "padding", "failures", "ability")
    result = audit(network, prepared, tmp_path / "audit", probes=probes, **QUICK)
    words = re.sub(r"\s+", " ", result.page.read_text())
    assert "a window of 16x16 px slides over a case" in words and "not cropped away" in words
    assert "MeanStd, mean (0.0,), std (255.0,)" in words and network.fingerprint in words
    assert {row["probe"] for row in numbers(result)} == set(probes)
    case = pipeline.Split(prepared, "test", inputs=network.inputs)[0]
    assert case["image"].shape == (SIDE, SIDE, 3) and 0 < case["image"].min() < case["image"].max() < 1
