"""Which cases an audit is of, and what its page says of what was found, of nothing, and of nothing that was asked."""

import csv
import html
import json
import pathlib
import re
import types

import ml_collections
import pytest

from configs import audit as audit_config
from jaxseg.audit import page
from jaxseg.errors import InputError


def test_training_cases_may_be_missing_elsewhere_alone(monkeypatch, tmp_path):
    config = ml_collections.ConfigDict({"data": {"dataset": "own/set", "domains": ()}})
    monkeypatch.setattr(page, "load_run", lambda folder, prepare: types.SimpleNamespace(config=config, trained_on=None))
    monkeypatch.setattr(page.contract, "check_split", lambda *_: None)
    monkeypatch.setattr(page.subject, "of_run", lambda loaded, test, familiar: (test, familiar))

    def cases(directory, config, split, count, domains):
        if split == "train":
            raise InputError(f"{directory}: holds no prepared data set")
        return split

    monkeypatch.setattr(page, "_cases", cases)
    settings = types.SimpleNamespace(cases=3, familiar_cases=3)
    request = lambda dataset: page.Request(tmp_path, None, None, dataset, "test")
    prepare = lambda name: pathlib.Path(name)
    assert page._load(request("other/set"), settings, prepare) == (("test", None), "other/set")
    for own in ("own/set", None):
        with pytest.raises(InputError, match="own/set: holds no prepared data set"):
            page._load(request(own), settings, prepare)


@pytest.fixture
def audited(networks, subject_of, squares, monkeypatch, plots, tmp_path):
    """`(network, *probes) -> words of the page, results, plots, folder` of an audit of ten cases."""

    def audit(model, *probes):
        subject = subject_of(model, squares(10))
        monkeypatch.setattr(page, "_load", lambda *_: (subject, "own/set"))
        config = audit_config.get_config().unlock()
        config.update(resamples=200, probes=probes)
        request = page.Request(tmp_path, None, None, None, "test")
        path = page.run(
            request, config.lock(), workdir=tmp_path, prepare=pathlib.Path, command="python -m launch.audit"
        )
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
        pytest.approx(0.701, abs=0.001),
    )
    assert "Finding 1: Objects at the image's border are given up" in words and "Finding 2" not in words
    assert "(95 % interval, bootstrap over patients; 10 cases of 10 patients, 0 undefined; a finding from 0.05" in words
    assert "findings 1 test cases 10 mean Dice 1.00 [1.00, 1.00] recall lost near the border 0.70 [0" in words
    assert "A finding's whole interval lies above its margin (0, 0.05)" in words
    assert "padding: not asked: the network does not say how it pads; there are no zeros to take away." in words
    assert "Numbers: accuracy" in words and "Numbers: translation" in words and "Numbers: padding" not in words
    assert set(drawn) == {"candidates", "accuracy", "finding_translation"}
    low, lost, made_up = drawn["candidates"]["axes"][0]["lines"][2::2]
    assert [*low["x"], *lost["x"], *made_up["x"]] == pytest.approx([-0.3, 0.701, 0.0], abs=0.001)
    assert drawn["candidates"]["legends"][0]["words"] == ["no finding", "finding"]
    for name in ("findings", "candidates", "numbers"):
        with (folder / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(results[name])
    assert [advice.partition(":")[0] for advice in results["what_to_do"]] == [finding["title"]]


def test_a_page_of_nothing_found(audited, networks):
    words, results, drawn, _ = audited(networks.Threshold(), "translation")
    assert results["verdicts"][0]["verdict"] == "no" and not results["findings"]
    assert "Nothing was found that needs doing" in words and "Every probe could be asked." in words
    assert "findings 0 test cases 10" in words and "lies above its margin (0.05)" in words
    assert set(drawn) == {"candidates"} and drawn["candidates"]["legends"] == []


def test_a_page_of_nothing_that_could_be_asked(audited, networks):
    words, results, drawn, _ = audited(networks.Threshold(), "padding")
    assert results["verdicts"][0]["verdict"] == "unclear" and not results["candidates"]
    assert "Nothing that was asked could be a finding; see the tables of numbers." in words
    assert drawn["candidates"]["axes"][0]["ticks"][1]["words"] == ["nothing could be asked"]
