"""What ARCHITECTURE.md promises: a study is a folder, a probe or a score is a file, and nothing else changes."""

import json
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import audit as audit_config
from jaxseg import scores, studies
from jaxseg.audit import findings, probes
from jaxseg.audit import run as audits
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.models import build
from jaxseg.networks import from_function, of_linen
from jaxseg.prediction import network as prediction
from jaxseg.prediction import quality
from jaxseg.scores import registry
from jaxseg.studies import runner

HERE = pathlib.Path(__file__).parent


def lines(folder):
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


@pytest.fixture
def added(monkeypatch):
    """The files beside this one are where a person would put them."""
    for package, name in ((studies, "studies"), (probes, "probes"), (scores, "scores")):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(HERE / name)])
    monkeypatch.setattr(registry, "SCORES", registry.all_scores())


def test_they_are_short():
    assert lines(HERE / "studies") <= 150
    assert lines(HERE / "probes") <= 80
    assert lines(HERE / "scores") <= 30


def test_a_study_is_a_folder(added, drawn_data, tmp_path):
    config = ml_collections.ConfigDict(
        {"study": "brightness", "size": "tiny", "dataset": "dermoscopy/tiny", "splits": ("train", "test")}
        | {"resamples": 50}
    )
    places = {"data_dir": drawn_data("dermoscopy/tiny"), "manual_dir": None, "command": "python -m launch.study"}
    page = runner.run(config, workdir=tmp_path / "study", **places)
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    text = page.read_text()
    assert results["study"] == "brightness" and results["verdicts"][0]["sentence"] in text
    assert [row["split"] for row in results["correlation"]] == ["train", "test"]
    assert results["claims"][0]["answer"] in ("holds", "does not hold", "unclear")
    assert (tmp_path / "study" / "tables" / "correlation.csv").exists() and text.count("data:image/png") == 1
    with config.unlocked(), pytest.raises(InputError, match=r"config.splits is \(\); give some of train"):
        config.splits = ()
        runner.run(config, workdir=tmp_path / "other", **places)


@pytest.fixture
def squares():
    """Bright squares, one of them brighter than the others."""
    labels = np.zeros((12, 16, 16), np.uint8)
    labels[:, 5:11, 5:11] = 1
    images = np.where(labels[..., None] > 0, 200, 20).astype(np.uint8)
    images[0][labels[0] > 0] = 255
    names = tuple(f"case{i}" for i in range(12))
    return pipeline.InMemory(
        "squares/test", ("background", "square"), images, labels, names, names, *pipeline.nowhere(12)
    )


def bright(levels):
    """Foreground where the image is bright."""
    return 40.0 * (levels.astype(jnp.float32) / 127.5 - 1)


def test_a_probe_is_a_file(added, squares, tmp_path):
    network = from_function(bright, num_classes=2, image_size=16, channels=1)
    subject = audits.Subject(network=network, resized=16, view="original", batch_size=8, test=squares)
    config = audit_config.get_config().unlock()
    config.update(probes=("exposure",), resamples=50, darker=0.6)  # not in configs/audit.py, so it has a default
    audit = audits.run(subject, audits.settings(config), tmp_path)
    (finding,) = audit.findings
    assert finding.main.kind.name == "exposure" and finding.main.estimate.mean == pytest.approx(11 / 12)
    assert findings.verdict(audit.candidates).verdict == "yes"
    finding.main.figure.draw(tmp_path / "figure.png")
    assert audit.numbers.one(probe="exposure").estimate.n == 12
    config.darker = 1.5
    with pytest.raises(InputError, match=r"config.darker is 1.5; it must be above 0 and below 1"):
        audits.settings(config)


def test_a_score_is_a_file(added, drawn_variables):
    assert list(registry.SCORES)[:3] == ["confidence", "mean_sa", "entropy"]
    model = build("unet", 2, features=(2, 4), skips=(True,))
    variables = drawn_variables(model, np.zeros((1, 16, 16, 1), np.float32))
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), np.uint8)
    network = of_linen(model, variables, image_size=16, channels=1)
    probabilities, values = prediction.compiled([network], image_size=16, batch=2)(images)
    np.testing.assert_allclose(values["confidence"], probabilities.max(-1).mean((1, 2)), rtol=1e-6)
    score = registry.SCORES["confidence"]
    assert quality.percentile(np.array([0.6, 0.9]), 0.8, high_is_good=score.high_is_good) == 50
    np.testing.assert_array_equal(score.risk(np.array([0.75])), [0.25])
