"""Audits of networks of other makes, from a prepared data set to the result."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import networks
from jaxseg.audit import audit, defaults, same_network
from jaxseg.data import builders, grids, pipeline
from jaxseg.errors import InputError
from jaxseg.networks import functions
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


def on_host(levels, shift=0.0):
    """A threshold whose answers are of some size, so that a shift is one of their last bits."""
    return (np.asarray(levels[..., :1], np.float32) - 120) / 30 + shift


def turned_on_cases(levels):
    """The same on trial images alone."""
    of_trial = np.array_equal(levels, functions.trial_levels((SIDE, SIDE), 3))
    return on_host(levels) if of_trial else -on_host(levels)


def test_a_folder_that_was_made_with_another_network_is_not_used(prepared, tmp_path):
    make = lambda function: networks.from_function(function, num_classes=2, image_size=SIDE, output="logits")
    given = {"probes": ("accuracy",), **QUICK}
    first = audit(make(on_host), prepared, tmp_path / "audit", **given)
    words = first.page.read_text()
    assert (
        "Range, which the network is given as gray levels from 0 to 255, of which the function makes its own" in words
    )
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    other = make(turned_on_cases)
    assert other.fingerprint == make(on_host).fingerprint
    sentence = (
        f"{tmp_path / 'audit'} was made with another network: this one says something else of the same cases; choose"
    )
    for known in (None, 0.0):  # what it is known for is right, and the page would show another
        with pytest.raises(InputError, match=sentence):
            audit(other, prepared, tmp_path / "audit", known_dice=known, **given)
    with pytest.raises(InputError, match=r"was made with another network; choose another work directory"):
        audit(make(lambda levels: on_host(levels, 0.5)), prepared, tmp_path / "audit", **given)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written
    again = audit(make(lambda levels: on_host(levels, 1e-5)), prepared, tmp_path / "audit", known_dice=1.0, **given)
    assert "mean Dice of 1.00; it is known for 1.00" in again.page.read_text() and again.verdict == first.verdict


def test_two_networks_are_apart_where_more_than_a_pixel_here_and_there_is(tmp_path):
    one = np.random.default_rng(0).uniform(0.1, 0.9, (2, 60, 50, 2)).astype(np.float32)
    some = one.copy()
    some[1, 3, 5] += 0.1
    np.testing.assert_allclose(same_network._apart(one + 0.01, some), [0, 1 / 3000], atol=1e-9)
    assert [same_network._step(sides) for sides in ((256, 256), (256, 257), (1000, 1000), (64, 64, 64))] == [1, 2, 4, 2]
    dice = np.array([[0.5, np.nan], [1.0, 0.0]])
    same_network.check_dice(dice, dice + 0.009, tmp_path)
    for other in (dice + np.array([[0.02, 0], [0, 0]]), np.nan_to_num(dice), dice[:1]):
        with pytest.raises(InputError, match="was made with another network"):
            same_network.check_dice(dice, other, tmp_path)


@pytest.mark.parametrize("known", ["0.9", 1.5, float("nan")])
def test_what_is_no_dice_is_refused(prepared, tmp_path, known):
    network = networks.from_function(on_host, num_classes=2, image_size=SIDE)
    with pytest.raises(InputError, match=f"known_dice is {known!r}; give a Dice, a number from 0 to 1"):
        audit(network, prepared, tmp_path / "audit", known_dice=known)
    with pytest.raises(
        InputError, match=r"network is a function; give one of jaxseg.networks, .*from_torch.*from_function"
    ):
        audit(on_host, prepared, tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_a_function_that_fails_later_is_named_in_a_line(prepared, tmp_path):
    def fails(levels):
        if not np.array_equal(levels, functions.trial_levels((SIDE, SIDE), 3)):
            raise KeyError("no such case")
        return on_host(levels)

    network = networks.from_function(fails, num_classes=2, image_size=SIDE, output="logits")
    with pytest.raises(
        InputError, match=rf"function fails failed on images \(8, {SIDE}, .*: KeyError: 'no such case'"
    ) as error:
        audit(network, prepared, tmp_path / "audit", **QUICK)
    assert "\n" not in str(error.value)


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
