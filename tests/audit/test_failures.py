"""Failure detection in an audit: every score of every network, or the reason why not; and audits that are resumed."""

import dataclasses

import numpy as np
import pytest

from configs import audit as audit_config
from jaxseg import models
from jaxseg.audit import run as audits
from jaxseg.audit.probes import failures

SMALL = {"autoencoder_steps": 1, "latent": 2, "autoencoder_width": 2}
NETWORKS = {
    "unet": {"features": (2, 4), "skips": (True,)},
    "residual_unet": {"features": (2, 4), "skips": (True,)},
    "resnet_unet": {},
    "dtu_net": {"features": (2, 4, 4), "skips": (True, True), "topology_features": (2, 4)},
    "nnunet": {"features": (2, 4), "skips": (True,)},
}


@pytest.fixture
def audited(subject_of, squares, drawn_variables):
    """`(network, options) -> subject` with training cases."""

    def make(name, **options):
        cases = squares(6)
        model = models.build(name, 2, **options)
        variables = drawn_variables(model, np.zeros((1, 32, 32, 3), np.float32))
        return subject_of(model, cases, variables, batch_size=6, familiar=squares(6, seed=1))

    return make


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("residual_unet", "resnet_unet", "nnunet")]


@pytest.mark.parametrize("name", ["unet", "dtu_net", *SLOW])
def test_every_score_is_asked_of_every_network(audited, answer, name):
    found, arrays = answer(failures.PROBE, audited(name, **NETWORKS[name]), **SMALL)
    league = [row["where"] for row in found.rows if row["quantity"] == "rank correlation"]
    assert league == ["mean SA", "entropy", "SD", "PM", "LM"] and not found.not_asked
    for key in ("distortion", "mahalanobis", "latent_mahalanobis"):
        assert arrays[key].shape == (6,) and (np.isfinite(arrays[key]).all() or name == "resnet_unet")  # drawn weights


def test_what_an_autoencoder_cannot_do_leaves_the_other_scores(audited, answer, monkeypatch):
    found, arrays = answer(failures.PROBE, audited("unet", **NETWORKS["unet"], padding="valid"), **SMALL)
    assert set(arrays) == {"dice", "mean_sa", "entropy", "mahalanobis", "lacking", "why"}
    reasons = {row["where"]: row.convention for row in found.not_asked}
    assert reasons.keys() == {"SD", "LM"} and "larger than the image" in reasons["SD"]

    def diverges(*_, **__):
        raise FloatingPointError("the autoencoder's loss is not finite; take fewer steps")

    monkeypatch.setattr(failures, "fit_autoencoder", diverges)
    found, arrays = answer(failures.PROBE, audited("unet", **NETWORKS["unet"]), **SMALL)
    assert "mahalanobis" in arrays and "distortion" not in arrays
    assert "not finite; take fewer steps (config.autoencoder_steps)" in found.not_asked[0].convention


def test_a_resumed_audit_asks_what_it_could_not_before_and_keeps_what_it_has(audited, tmp_path):
    config = audit_config.get_config().unlock()
    config.update(probes=("failures",), resamples=20, **SMALL)
    whole, settings = audited("unet", **NETWORKS["unet"]), audits.settings(config)

    def league(subject):
        audit = audits.run(subject, settings, tmp_path)
        rows = audit.numbers.where(quantity="rank correlation")
        return [row["where"] for row in rows], [row["where"] for row in audit.not_asked]

    without = dataclasses.replace(whole, familiar=None)
    assert league(without) == (["mean SA", "entropy"], ["SD", "PM", "LM"])
    every = (["mean SA", "entropy", "SD", "PM", "LM"], [])
    assert league(whole) == every
    assert league(without) == every  # as they were measured
