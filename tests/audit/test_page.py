"""Which cases an audit is of, and what its page says of what was found, of nothing, and of nothing that was asked."""

import csv
import html
import json
import pathlib
import re
import shutil
import types

import ml_collections
import numpy as np
import pytest

from configs import audit as audit_config
from jaxseg.audit import page, request, right_input
from jaxseg.audit import run as audits
from jaxseg.errors import InputError
from jaxseg.results.table import Table


def test_training_cases_may_be_missing_elsewhere_alone(monkeypatch, tmp_path):
    config = ml_collections.ConfigDict({"data": {"dataset": "own/set", "domains": ()}})
    run = types.SimpleNamespace(config=config, dataset="own/set", folder=tmp_path, given=None, trained_on=None, name="")
    monkeypatch.setattr(request.runs, "read_config", lambda folder: config)
    monkeypatch.setattr(request.trained, "of_run", lambda folder, prepare, instead: run)
    monkeypatch.setattr(request.contract, "check_split", lambda *_: None)
    monkeypatch.setattr(request.subject, "of_trained", lambda run, test, familiar: (test, familiar))
    monkeypatch.setattr(request, "_told", lambda made, why: (*made, why))
    there = {"test": 3}
    monkeypatch.setattr(request.pipeline, "split_sizes", lambda directory: there)

    def cases(directory, given, split, count, domains):
        if split == "train":
            raise InputError(f"{directory}: is damaged\nin many places")
        return split

    monkeypatch.setattr(request, "_cases", cases)
    settings = types.SimpleNamespace(cases=3, familiar_cases=3)
    ask = lambda dataset: request.load(request.Request(run=tmp_path, dataset=dataset), settings, pathlib.Path)
    assert ask("other/set") == (("test", None, "own/set: is damaged"), "other/set")
    for own in ("own/set", None):
        assert ask(own) == (("test", None, "own/set has none"), "own/set")
    there["train"] = 3
    with pytest.raises(InputError, match="own/set: is damaged"):
        ask(None)


def test_a_run_whose_training_set_is_not_at_hand_is_audited_without_it(tiny_run, tiny, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "trained_on.json").unlink()

    def prepare(name):
        if name == "other/set":
            return tiny
        raise InputError(f"{name} cannot be downloaded by a program\nand more")

    settings = types.SimpleNamespace(cases=3, familiar_cases=3)
    made, _ = request.load(request.Request(run=folder, dataset="other/set"), settings, prepare)
    assert made.familiar is None and len(made.test) == 3
    assert "(dermoscopy/tiny cannot be downloaded by a program), so what needs them is left out" in made.notes[-1]
    assert (
        "what it was trained on is not known" in capsys.readouterr().err and not (folder / "trained_on.json").exists()
    )
    told = made.made_with
    assert told["config"]["data"]["image_size"] == 8 and told["geometry"] == "Squash, side 64"
    with pytest.raises(InputError, match="cannot be downloaded"):
        request.load(request.Request(run=folder), settings, prepare)


@pytest.fixture
def audited(networks, subject_of, squares, monkeypatch, plots, tmp_path):
    """`(network, *probes) -> words of the page, results, plots, folder` of an audit of ten cases."""

    def audit(model, *probes, known_dice=None):
        subject = subject_of(model, squares(10))
        monkeypatch.setattr(page, "load", lambda *_: (subject, "own/set"))
        config = audit_config.get_config().unlock()
        config.update(resamples=200, probes=probes)
        asked = page.Request(run=tmp_path, known_dice=known_dice)
        path = page.run(
            asked, config.lock(), workdir=tmp_path, prepare=pathlib.Path, command="python -m launch.audit"
        ).page
        words = re.sub(
            r"\s+", " ", html.unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", path.read_text(), flags=re.S))
        )
        return words, json.loads((tmp_path / "results.json").read_text()), plots(tmp_path / "figures"), tmp_path

    return audit


def test_a_page_of_findings(audited, networks):
    words, results, drawn, folder = audited(networks.Threshold(blind=8), "accuracy", "padding", "translation")
    assert [one["kind"] for one in results["findings"]] == ["border"] and results["verdicts"][0]["verdict"] == "yes"
    finding = results["findings"][0]
    assert (finding["number"], finding["n"], finding["patients"], finding["mean"]) == (
        1,
        10,
        10,
        pytest.approx(0.8, abs=0.001),
    )
    assert "Finding 1: Objects at the image's border are given up" in words and "Finding 2" not in words
    assert "wanted at most 0.1 (95 % interval, bootstrap over patients; 10 cases of 10 patients, 0 unde" in words
    assert "findings 1 test cases 10 mean Dice 1.00 [1.00, 1.00] recall lost near the border 0.80 [0" in words
    assert "Wanted: mean Dice at least 0.7; recall lost near the border at most 0.1; share of background" in words
    assert "at most 0.05. A finding's whole interval lies beyond." in words
    assert "padding: not asked: the network does not say how it pads; there are no zeros to take away." in words
    assert "Numbers: accuracy" in words and "Numbers: translation" in words and "Numbers: padding" not in words
    assert set(drawn) == {"candidates", "accuracy", "finding_translation"}
    low, lost, made_up = drawn["candidates"]["axes"][0]["lines"][2::2]
    assert [*low["x"], *lost["x"], *made_up["x"]] == pytest.approx([1.0, 0.8, 0.0], abs=0.001)
    assert [one["look"].split()[0] for one in (low, lost, made_up)] == ["#0072b2", "#d55e00", "#0072b2"]
    assert drawn["candidates"]["legends"][0]["words"] == ["no finding", "finding", "limit of what is wanted"]
    for name in ("findings", "candidates", "numbers"):
        with (folder / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(results[name])
    assert [advice.partition(":")[0] for advice in results["what_to_do"]] == [finding["title"]]


def test_a_page_of_nothing_found(audited, networks):
    words, results, drawn, _ = audited(networks.Threshold(), "translation")
    assert results["verdicts"][0]["verdict"] == "no" and not results["findings"]
    left_out = "accuracy, gray levels, overlays, padding, ability, distances, position, calibration, failures"
    assert f"What was not asked Left out by the settings (probes): {left_out}. How this" in words
    assert "Nothing was found that needs doing" in words and "Every probe" not in words
    assert words.count("half as wide and high") == 1  # the convention of windows
    assert "findings 0 test cases 10" in words and "Wanted: recall lost near the border at most 0.1; share of" in words
    assert set(drawn) == {"candidates"} and drawn["candidates"]["legends"][0]["words"] == ["limit of what is wanted"]
    order = [words.index(part) for part in ("Does the network use", "On these 10 cases", "What was asked for, found")]
    assert order == sorted(order) and "a mean Dice of 1.00. Is that what it is known for? If not," in words


def test_where_every_probe_was_asked_the_page_says_so():
    told = page._not_asked(audits.Audit({}, Table(()), ()), audits.left_out(audits.settings(audit_config.get_config())))
    assert told.text == ["Every probe could be asked."]


def test_another_dice_than_the_known_one_ends_the_audit(audited, networks):
    words, _, _, folder = audited(networks.Threshold(), "padding", known_dice=0.98)
    assert "mean Dice of 1.00; it is known for 0.98, so it is given what it was trained on" in words
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for wrong in (0.96, 0.2):
        message = rf"mean Dice of 1.00 on 10 cases of squares/test, and is known for {wrong:.2f}.*: another size"
        with pytest.raises(InputError, match=message):
            audited(networks.Threshold(), "padding", known_dice=wrong)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(InputError, match="known_dice is 88"):
        audited(networks.Threshold(), known_dice=88)


def test_the_mean_dice_is_of_the_cases_that_have_one():
    dice = np.array([[1.0, 0.5], [np.nan, 0.25], [np.nan, np.nan]])
    assert right_input.mean_dice(dice) == pytest.approx(0.5) and np.isnan(right_input.mean_dice(dice[2:]))


def test_a_page_of_nothing_that_could_be_asked(audited, networks):
    words, results, drawn, _ = audited(networks.Threshold(), "padding")
    assert results["verdicts"][0]["verdict"] == "unclear" and not results["candidates"]
    assert "Nothing that was asked could be a finding; see the tables of numbers." in words
    assert drawn["candidates"]["axes"][0]["ticks"][1]["words"] == ["nothing could be asked"]
