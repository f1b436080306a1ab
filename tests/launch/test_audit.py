"""An audit from a trained run to its page, in this process; and what a person can get wrong, on the command line."""

import itertools
import json
import shutil

import numpy as np
import pytest

from configs import audit as audit_config
from configs import train
from jaxseg.audit import page as audit
from jaxseg.audit import run as audits
from jaxseg.data import builders
from jaxseg.errors import InputError


def settings(**fields):
    config = audit_config.get_config().unlock()
    config.update(resamples=100, profile_cases=8, autoencoder_steps=4, latent=4, autoencoder_width=4, **fields)
    return config.lock()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, launched_run, drawn_data):
    """A run of the smallest size, its data set, and its audit."""
    place = tmp_path_factory.mktemp("audit")
    shutil.copytree(launched_run, place / "run")
    (place / "data").symlink_to(drawn_data("dermoscopy/tiny"))
    audited(place, "audit")
    return place


def audited(place, name, *, options=None, **request):
    return audit.run(
        audit.Request(**{"run": place / "run"} | request),
        options or settings(),
        workdir=place / name,
        prepare=lambda dataset: builders.prepare(dataset, data_dir=place / "data"),
        command="python -m launch.audit",
    )


def test_the_page_says_what_the_results_say(folder):
    results = json.loads((folder / "audit" / "results.json").read_text())
    page = (folder / "audit" / "report.html").read_text()
    assert results["verdicts"][0]["verdict"] in ("yes", "no", "unclear")
    assert f">{results['verdicts'][0]['verdict']}</strong>" in page
    assert len(results["findings"]) <= 5
    for number, finding in enumerate(results["findings"], 1):
        assert f"Finding {number}: {finding['title']}" in page and finding["what_to_do"] in page
        assert finding["low"] > finding["margin"] or finding["high"] < finding["margin"]  # of a Dice
        assert finding["interval"].startswith("bootstrap over patients")
        assert f"{finding['mean']:.2f} [{finding['low']:.2f}, {finding['high']:.2f}]" in page
    damages = [-np.inf if one["damage"] is None else one["damage"] for one in results["findings"]]
    assert damages == sorted(damages, reverse=True)
    for line in results["what_to_do"]:
        assert line in page
    for row in results["numbers"]:
        assert {"convention", "n", "undefined", "interval"} <= row.keys()
    kinds = {r["probe"] for r in results["numbers"]}
    assert kinds == {probe.name for probe in audits.all_probes()}
    league = [r["where"] for r in results["numbers"] if r["quantity"] == "rank correlation"]
    assert league == ["mean SA", "entropy", "SD", "PM", "LM"]
    told = [r for r in results["numbers"] if r["quantity"] == "not asked"]
    alone = {"gray levels", "distances"}
    assert {r["probe"] for r in told} == {*alone, "failures"} and "all cases are of one domain" in page
    tables = {path.name for path in (folder / "audit" / "tables").iterdir()}
    assert {"findings.csv", "candidates.csv", "numbers.csv", "translation.csv"} <= tables


def test_an_audit_goes_on_where_it_was(folder):
    probes = folder / "audit" / "probes"
    before = {path.name: path.stat().st_mtime_ns for path in probes.iterdir()}
    first = json.loads((folder / "audit" / "results.json").read_text())
    (probes / "calibration.npz").unlink()
    audited(folder, "audit")
    after = {path.name: path.stat().st_mtime_ns for path in probes.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"calibration.npz"}
    assert json.loads((folder / "audit" / "results.json").read_text())["numbers"] == first["numbers"]


def test_another_audit_has_another_folder(folder):
    with pytest.raises(InputError, match=r"belongs to another config: config.audit.cases is 400 there and 4 here"):
        audited(folder, "audit", options=settings(cases=4))
    with pytest.raises(InputError, match=r"config.split is 'test' there and 'validation' here"):
        audited(folder, "audit", split="validation")


def test_probes_that_find_nothing_by_themselves_have_a_page(folder):
    audited(folder, "evidence", options=settings(probes=("ability", "gray levels"), cases=8))
    results = json.loads((folder / "evidence" / "results.json").read_text())
    assert results["verdicts"][0]["verdict"] == "unclear" and not results["candidates"]
    assert "Nothing that was asked could be a finding" in (folder / "evidence" / "report.html").read_text()


def test_weights_are_audited_with_the_network_of_a_config(folder, drawn_state_dict):
    config = train.get_config("tiny").unlock()
    config.model.update(features=(2, 4), skips=(True,), upsample="transpose")
    config.data.image_size = 16
    path = folder / "weights.npz"
    np.savez(path, **drawn_state_dict(shapes_of(config.model.features), 0))
    options = settings(probes=("accuracy",), cases=8)
    request = {"run": None, "weights": path, "config": config, "dataset": config.data.dataset}
    audited(folder, "of_weights", options=options, **request)
    results = json.loads((folder / "of_weights" / "results.json").read_text())
    assert results["provenance"]["network"] == str(path) and results["verdicts"][0]["verdict"] == "unclear"
    other = config.copy_and_resolve_references()
    other.model.features = (2, 8)
    with pytest.raises(InputError, match=r"weights.npz: "):
        audited(folder, "of_others", options=options, **(request | {"config": other.lock()}))
    assert not (folder / "of_others").exists()


def shapes_of(features):
    """Tensors of a PyTorch U-Net with transposed up-sampling, two classes and RGB images."""
    shapes = {}

    def block(name, read, width):
        for i, source in enumerate((read, width)):
            shapes[f"{name}.double_conv.{3 * i}.weight"] = (width, source, 3, 3)
            shapes[f"{name}.double_conv.{3 * i}.bias"] = (width,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.double_conv.{3 * i + 1}.{part}"] = (width,)

    block("inc", 3, features[0])
    for i, (above, width) in enumerate(itertools.pairwise(features), 1):
        up = f"up{len(features) - i}"
        block(f"down{i}.maxpool_conv.1", above, width)
        block(f"{up}.conv", 2 * above, above)
        shapes[f"{up}.up.weight"], shapes[f"{up}.up.bias"] = (width, above, 2, 2), (above,)
    shapes["outc.conv.weight"], shapes["outc.conv.bias"] = (2, features[0], 1, 1), (2,)
    return shapes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run={run}/run"], "--workdir is missing"),
        (["--workdir={run}/x", "--weights={run}/w.npz"], "--dataset is missing; --weights does not say"),
        (["--workdir={run}/x", "--run={run}/run", "--nnunet=y"], "give one of --run, --weights, --network, --nnunet"),
        (["--workdir={run}/x", "--run={run}/run", "--fold=1"], "--fold belongs to --nnunet, not to --run"),
        (
            ["--workdir={run}/x", "--network={run}/no.py:f", "--dataset=dermoscopy/tiny"],
            "{run}/no.py:f: there is no such file",
        ),
        (
            ["--workdir={run}/x", "--run={run}/run", "--known_dice=0.99"],
            "is known for 0.99, so nothing was written",
        ),
        (["--workdir={run}/x", "--run={run}/nothing"], "{run}/nothing holds no training run"),
        (["--workdir={run}/x", "--run={run}/run", "--split=tests"], "has no split 'tests'"),
        (["--workdir={run}/x", "--run={run}/run", "--audit.margin=2"], "config.margin is 2.0"),
    ],
)
def test_misuse_is_answered_with_one_line(folder, launch, one_line, arguments, message):
    given = [argument.format(run=folder) for argument in arguments]
    one_line(launch("audit", *given, f"--data_dir={folder / 'data'}"), message.format(run=folder))
    assert not (folder / "x").exists()
