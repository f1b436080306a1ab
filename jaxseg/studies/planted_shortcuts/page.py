"""The page of the planted-shortcuts study."""

import functools
from typing import Any

from jaxseg.report import estimates, page
from jaxseg.studies.planted_shortcuts.tables import StudyReport


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    counts, kinds = report.tables.counts, report.settings.kinds
    lead = report.figure(
        "rates",
        "How often the audit finds a shortcut",
        "Dots with intervals: share of planted networks with that kind found, of twins with any shortcut found.",
        "Exact intervals over seeds (Clopper and Pearson).",
        table="counts",
    )
    question = "Does the audit find a planted shortcut, and is it silent on the twin without it?"
    shares = [f"{row['found']} of {row.estimate.n} found, {row['learned']} learned" for row in counts]
    facts = [(f"{row['kind']}, {row['arm']}", share) for row, share in zip(counts, shares, strict=True)]
    sections: list[Any] = [_counts, *(functools.partial(_kind, kind=kind) for kind in kinds)]
    return report.write_up("Planted shortcuts", question, lead, facts, sections)


def _counts(report: StudyReport) -> page.Section:
    text = (
        "Every seed renders its own scenes, once with the cue and once without, and a network is trained on each. A "
        "planted network counts when the planted kind is among the findings; a twin counts, as a false alarm, when any "
        "kind of shortcut is. A silent network is unclear where an interval reaches beyond its margin: with more test "
        "cases the audit would say no, or find something. Low Dice, calibration and domains are no shortcuts."
    )
    columns = {"kind": "kind", "arm": "images", "found": "found", "silent": "silent", "unclear": "of these unclear"}
    further = {"learned": "learned", "least_dice": "lowest Dice", "other_findings": "with other findings"}
    rate = "rate [95 % interval]"
    rows = report.tables.counts
    shown = estimates.table("Found and silent", rows, columns, further=further, estimate=rate, counts=())
    return page.Section("Counted", [text], [], [shown])


def _kind(report: StudyReport, kind: str) -> page.Section:
    own = report.tables.numbers.where(kind=kind, found_kind=kind)
    dots = []
    if own:
        title = f"The audit's numbers, {kind}"
        alt = f"Dots with intervals of the numbers that decide on {kind}, for every network."
        caption = f"A finding lies above {own[0]['margin']} with its whole interval."
        dots = [report.figure(kind, title, alt, caption, table="numbers")]
    columns = {
        **{"arm": "images", "seed": "seed", "dice": "Dice", "learned": "learned"},
        **{"planted_kind_found": f"{kind} found", "other_findings": "other findings"},
    }
    networks = [record for record in report.tables.networks if record["kind"] == kind]
    return page.Section(f"The kind {kind}", [], dots, [page.Table("Networks", networks, "", columns)])
