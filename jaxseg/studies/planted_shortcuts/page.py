"""The page of the planted-shortcuts study, and its figures."""

from collections.abc import Sequence
from typing import Any

from jaxseg.report import figures, page
from jaxseg.results.text import estimate_text
from jaxseg.studies.base import Report
from jaxseg.studies.planted_shortcuts import experiment as study
from jaxseg.studies.planted_shortcuts.experiment import Outcome

_ARM_NAMES = {"planted": "planted", "twin": "twin without the cue"}


def draw(report: Report[Any, None, Sequence[Outcome], study.Tables]) -> None:
    """Writes all figures of the study: `rates.png`, and a figure for every kind whose numbers were asked."""
    rates = [
        (f"{r['kind']}, {_ARM_NAMES[r['arm']]}", r["arm"], r["mean"], r["low"], r["high"]) for r in report.tables.counts
    ]
    figures.dots(report.figures / "rates.png", rates, xlabel="share of networks with a shortcut found")
    for kind in report.settings.kinds:
        if shown := _numbers(report.tables, kind):
            figures.dots(report.figures / f"{kind}.png", shown, xlabel="number of the audit, 95 % interval")


def make(report: Report[Any, None, Sequence[Outcome], study.Tables]) -> page.Page:
    """What the page says."""
    config, results, figure = report.settings, report.tables, report.figure
    answer = report.judgement.verdicts[0]
    sections = [_counts(results), *(_kind_section(figure, results, kind) for kind in config.kinds)]
    return page.Page(
        title=f"Planted shortcuts ({report.size})",
        question="Does the audit find a planted shortcut, and is it silent on the twin without it?",
        verdict=answer.verdict,
        answer=answer.sentence,
        lead=figure(
            "rates",
            "How often the audit finds a shortcut",
            "Dots with intervals: share of planted networks with that kind found, of twins with any shortcut found.",
            "Exact intervals over seeds (Clopper and Pearson).",
            "counts",
        ),
        facts=[
            (f"{r['kind']}, {r['arm']}", f"{r['found']} of {r['n']} found, {r['learned']} learned")
            for r in results.counts
        ],
        sections=sections,
    )


def _counts(results: study.Tables) -> page.Section:
    columns = {
        **{"kind": "kind", "arm": "images", "found": "found", "silent": "silent", "unclear": "of these unclear"},
        **{"rate": "rate [95 % interval]", "learned": "learned", "least_dice": "least Dice"},
        **{"other_findings": "with other findings"},
    }
    rows = [dict(r) | {"rate": estimate_text(r["mean"], r["low"], r["high"])} for r in results.counts]
    text = (
        "Every seed draws its own scenes, once with the cue and once without, and trains a network on each. A planted "
        "network counts when the planted kind is among the findings; a twin counts, as a false alarm, when any kind of "
        "shortcut is. Of a silent one the audit says 'unclear' where an interval reaches beyond its margin: with more "
        "test cases it would say no, or find something. Findings of low Dice, calibration or domains are no shortcuts."
    )
    return page.Section("Counted", [text], [], [page.Table("Found and silent", rows, "", columns)])


def _numbers(results: study.Tables, kind: str) -> list[tuple[str, str, float, float, float]]:
    """The audit's numbers that decide on a kind, as dots."""
    rows = [r for r in results.numbers if (r["kind"], r["found_kind"]) == (kind, kind)]
    number = lambda value: float("nan") if value is None else float(value)
    ordered = sorted(rows, key=lambda r: (r["quantity"], r["arm"], r["seed"]))
    return [
        (
            f"{r['quantity']}, seed {r['seed']}",
            _ARM_NAMES[r["arm"]],
            number(r["mean"]),
            number(r["low"]),
            number(r["high"]),
        )
        for r in ordered
    ]


def _kind_section(figure: page.FigureOf, results: study.Tables, kind: str) -> page.Section:
    drawn = []
    if _numbers(results, kind):
        margin = next(r["margin"] for r in results.numbers if (r["kind"], r["found_kind"]) == (kind, kind))
        title = f"The audit's numbers, {kind}"
        alt = f"Dots with intervals of the numbers that decide on {kind}, for every network."
        drawn = [figure(kind, title, alt, f"A finding lies above {margin} with its interval.", "numbers")]
    networks = [r for r in results.networks if r["kind"] == kind]
    columns = {
        **{"arm": "images", "seed": "seed", "dice": "Dice", "learned": "learned"},
        **{"planted_kind_found": f"{kind} found", "other_findings": "other findings"},
    }
    return page.Section(f"The kind {kind}", [], drawn, [page.Table("Networks", networks, "", columns)])
