"""Failure detection in an audit: every score of every network, or the reason why not; and audits that are resumed."""

import dataclasses

import numpy as np
import pytest

from configs import audit as audit_config
from jaxseg import models
from jaxseg.audit import profiles
from jaxseg.audit import run as audits
from jaxseg.audit.probes import failures
from jaxseg.audit.subject import Subject
from jaxseg.networks import from_function

SMALL = {"autoencoder_steps": 1, "latent": 2, "autoencoder_width": 2}
NETWORKS = {
    "unet": {"features": (2, 4), "skips": (True,)},
    "residual_unet": {"features": (2, 4), "skips": (True,)},
    "resnet_unet": {},
    "dtu_net": {"features": (2, 4, 4), "skips": (True, True), "topology_features": (2, 4)},
    "nnunet": {"features": (2, 4), "skips": (True,)},
}
ONE = "not asked: the network is no ensemble's"
TRAINED = "not asked: it is of the checkpoints of a training, and one network is audited"


@pytest.fixture
def audited(subject_of, squares, drawn_variables):
    """`(network, options) -> subject` with training cases."""

    def make(name, **options):
        cases = squares(6)
        model = models.build(name, 2, **options)
        variables = drawn_variables(model, np.zeros((1, 32, 32, 3), np.float32))
        return subject_of(model, cases, variables, batch_size=6, familiar=squares(6, seed=1))

    return make


def functions(kind, squares):
    """A threshold as a function of NumPy, which says nothing of itself, or its layers, or those and its bottleneck."""

    def threshold(images):
        light = images.astype(np.float32).mean(-1, keepdims=True) / 255
        logits = np.concatenate([0.5 - light, light - 0.5], -1) * 8
        return logits if kind == "nothing" else (logits, {"a": light, "b": 1 - light})

    cases = squares(6)
    made = from_function(threshold, num_classes=2, image_size=32)
    return Subject(network=made, view="original", batch_size=6, test=cases, familiar=squares(6, seed=1))


@pytest.mark.parametrize("kind", ["nothing", "layers"])
def test_a_network_without_a_bottleneck_has_the_scores_that_need_none(squares, answer, kind):
    found, arrays = answer(failures.PROBE, functions(kind, squares), **SMALL)
    league = [row["where"] for row in found.rows if row["quantity"] == "rank correlation"]
    assert league == (["entropy"] if kind == "nothing" else ["mean SA", "entropy"])
    reasons = {row["where"]: row.convention for row in found.not_asked}
    unknown = dict.fromkeys(("SD", "PM", "LM"), "not asked: the network does not say which layer is its bottleneck")
    layers = {"mean SA": f"not asked: {profiles.NO_LAYERS}"} if kind == "nothing" else {}
    assert reasons == unknown | layers | dict.fromkeys(("ensemble Dice", "ensemble entropy"), ONE) | {"VoG": TRAINED}
    light = squares(6).images.astype(float).mean(-1) / 255
    p = 1 / (1 + np.exp(-16 * (light - 0.5)))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean((1, 2))
    np.testing.assert_allclose(arrays["entropy"], entropy, rtol=1e-4)


def test_an_ensemble_predicts_the_failures_of_the_audited_network(squares, answer, subject_of, networks):
    """Two thresholds: their Dice with each other is a count by hand, and the Dice that of the first."""
    cases = squares(6)
    first, second = (subject_of(networks.Threshold(blind=n), cases).network for n in (0, 14))
    whole = subject_of(networks.Threshold(), cases, ensemble=(first, second))
    found, arrays = answer(failures.PROBE, whole, **SMALL)
    league = [row["where"] for row in found.rows if row["quantity"] == "rank correlation"]
    assert league == ["entropy", "ensemble Dice", "ensemble entropy"]
    inside = cases.labels[:, 14:-14, 14:-14].sum((1, 2))
    np.testing.assert_allclose(arrays["ensemble_dice"], 2 * inside / (inside + cases.labels.sum((1, 2))), rtol=1e-5)
    np.testing.assert_allclose(arrays["dice"], 1.0)
    assert list(whole.fingerprint) == ["network", "member_1", "test"]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("residual_unet", "resnet_unet", "nnunet")]


@pytest.mark.parametrize("name", ["unet", "dtu_net", *SLOW])
def test_every_score_is_asked_of_every_network(audited, answer, name):
    found, arrays = answer(failures.PROBE, audited(name, **NETWORKS[name]), **SMALL)
    league = [row["where"] for row in found.rows if row["quantity"] == "rank correlation"]
    assert league == ["mean SA", "entropy", "SD", "PM", "LM"]
    reasons = {row["where"]: row.convention for row in found.not_asked}
    assert reasons == dict.fromkeys(("ensemble Dice", "ensemble entropy"), ONE) | {"VoG": TRAINED}
    caption = found.figures[0].caption
    assert "PM: squared Mahalanobis distance of the bottleneck's" in caption and "VoG" not in caption
    for key in ("distortion", "mahalanobis", "latent_mahalanobis"):
        assert arrays[key].shape == (6,) and (np.isfinite(arrays[key]).all() or name == "resnet_unet")  # drawn weights


def test_what_an_autoencoder_cannot_do_leaves_the_other_scores(audited, answer, monkeypatch):
    found, arrays = answer(failures.PROBE, audited("unet", **NETWORKS["unet"], padding="valid"), **SMALL)
    assert set(arrays) == {"dice", "mean_sa", "entropy", "mahalanobis", "lacking", "why"}
    reasons = {row["where"]: row.convention for row in found.not_asked}
    assert (
        reasons.keys() == {"SD", "LM", "ensemble Dice", "ensemble entropy", "VoG"}
        and "larger than the image" in reasons["SD"]
    )

    def diverges(*_, **__):
        raise FloatingPointError("the autoencoder's loss is not finite; take fewer steps")

    monkeypatch.setattr(failures, "fit_autoencoder", diverges)
    found, arrays = answer(failures.PROBE, audited("unet", **NETWORKS["unet"]), **SMALL)
    assert "mahalanobis" in arrays and "distortion" not in arrays
    reasons = {row["where"]: row.convention for row in found.not_asked}
    assert "not finite; take fewer steps (config.autoencoder_steps)" in reasons["SD"]


def test_a_resumed_audit_asks_what_it_could_not_before_and_keeps_what_it_has(audited, tmp_path):
    config = audit_config.get_config().unlock()
    config.update(probes=("failures",), resamples=20, **SMALL)
    whole, settings = audited("unet", **NETWORKS["unet"]), audits.settings(config)

    def league(subject):
        audit = audits.run(subject, settings, tmp_path)
        rows = audit.numbers.where(quantity="rank correlation")
        return [row["where"] for row in rows], [row["where"] for row in audit.not_asked]

    without = dataclasses.replace(whole, familiar=None)
    never = ["ensemble Dice", "ensemble entropy", "VoG"]
    found, missing = league(without)
    assert found == ["mean SA", "entropy"] and sorted(missing) == sorted(["SD", "PM", "LM", *never])
    every = (["mean SA", "entropy", "SD", "PM", "LM"], league(whole)[1])
    assert sorted(every[1]) == sorted(never)
    assert league(whole) == every
    assert league(without) == every  # as they were measured
