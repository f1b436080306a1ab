"""What a report says stands in its tables: every estimate of its sentences is a row of results.json, rounded.

Of one that is made up, and of the reports in the folders of `JAXSEG_REPORTS`.
"""

import html
import json
import math
import re

import pytest

MINUS = "\N{MINUS SIGN}"
NUMBER = r"[-\u2212]?\d+\.\d+"
ESTIMATE = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]")


def rows(value):
    """Every row of results.json: a dictionary that has an interval."""
    if isinstance(value, dict):
        if {"mean", "low", "high"} <= set(value):
            yield value
        for part in value.values():
            yield from rows(part)
    elif isinstance(value, list):
        for part in value:
            yield from rows(part)


def sentences(value):
    """Every text that results.json has as an answer."""
    if isinstance(value, dict):
        for part in value.values():
            yield from sentences(part)
    elif isinstance(value, list):
        for part in value:
            yield from sentences(part)
    elif isinstance(value, str):
        yield value


def stands(estimate, found):
    """Whether an estimate is one of the rows, or its negative, to the digits that it is written with."""
    written = [part.replace(MINUS, "-") for part in estimate]
    half = [0.5 * 10.0 ** -len(part.partition(".")[2]) + 1e-9 for part in written]
    wanted = [float(part) for part in written]
    return any(
        all(abs(a - b) <= h for a, b, h in zip(values, wanted, half, strict=True))
        for row in found
        if all(isinstance(row[name], float | int) and math.isfinite(row[name]) for name in ("mean", "low", "high"))
        for values in (
            (row["mean"], row["low"], row["high"]),
            (-row["mean"], -row["high"], -row["low"]),
        )
    )


def disagreements(results, page):
    """What the page or an answer says that the tables do not, and answers that the page lacks."""
    found = list(rows(results))
    said = list(sentences([results.get(name, []) for name in ("verdicts", "claims", "findings")]))
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))
    wrong = [f"not on the page: {v['sentence']}" for v in results["verdicts"] if v["sentence"] not in text]
    wrong += [f"in no table: {e}" for s in said for e in ESTIMATE.findall(s) if not stands(e, found)]
    return wrong


def made_up(mean):
    row = {"mean": mean, "low": 0.8124, "high": 0.8351}
    return {"verdicts": [{"verdict": "yes", "sentence": "Dice is 0.82 [0.81, 0.84]."}], "dice": [row]}


def test_a_report_that_agrees():
    assert not disagreements(made_up(0.8249), "<p>Dice is 0.82 [0.81,\n 0.84].</p>")


@pytest.mark.parametrize(
    "results, page",
    [(made_up(0.8351), "<p>Dice is 0.82 [0.81, 0.84].</p>"), (made_up(0.8249), "<p>Dice is 0.83 [0.81, 0.84].</p>")],
)
def test_a_report_that_does_not(results, page):
    assert len(disagreements(results, page)) == 1


def test_the_other_way_round():
    assert stands(("\u22120.10", "-0.12", "-0.08"), [{"mean": 0.101, "low": 0.079, "high": 0.1221}])


def test_reports_agree_with_their_results(given_report):
    results = json.loads((given_report / "results.json").read_text())
    assert any(re.search(rf"\[{NUMBER}, {NUMBER}\]", text) for text in sentences(results)), "nothing has an interval"
    assert not disagreements(results, (given_report / "report.html").read_text())
