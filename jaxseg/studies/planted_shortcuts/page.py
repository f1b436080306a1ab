"""The page of the planted-shortcuts study."""

import functools
from typing import Any

from jaxseg.report import estimates, page
from jaxseg.studies.planted_shortcuts.settings import KINDS
from jaxseg.studies.planted_shortcuts.tables import StudyReport


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    counts, kinds = report.tables.counts, report.settings.kinds
    lead = report.figure(
        "rates",
        "How often the audit finds a shortcut",
        "Dots with intervals: share of planted networks with that kind found, of all others with any shortcut found.",
        "Exact intervals over seeds (Clopper and Pearson).",
        table="counts",
    )
    question = "Does the audit find a planted shortcut, and is it silent where the cue is harmless or unknown?"
    shares = [f"{row['found']} of {row.estimate.n} found, {row['learned']} learned" for row in counts]
    facts = [(f"{row['kind']}, {row['arm']}", share) for row, share in zip(counts, shares, strict=True)]
    sections: list[Any] = [_counts, _misses, *(functools.partial(_kind, kind=kind) for kind in kinds)]
    return report.write_up("Planted shortcuts", question, lead, facts, sections)


def _counts(report: StudyReport) -> page.Section:
    text = (
        "Every seed renders its own scenes, once with a cue that tells of the object and, as a twin, once with the "
        "same cue where it tells nothing, and a network is trained on each. Networks of other makes cannot have the "
        "shortcut: their padding marks no border, or they never saw a cue. A planted network counts when the planted "
        "kind is among the findings; any other counts, as a false alarm, when any kind of shortcut is. A silent "
        "network is unclear where an interval reaches beyond its margin: with more test cases the audit would say no, "
        "or find something. Low Dice, calibration and domains are no shortcuts."
    )
    columns = {"kind": "kind", "arm": "images", "found": "found", "silent": "silent", "unclear": "of these unclear"}
    further = {"learned": "learned", "least_dice": "lowest Dice", "other_findings": "with other findings"}
    rate = "rate [95 % interval]"
    rows = report.tables.counts
    shown = estimates.table("Found and silent", rows, columns, further=further, estimate=rate, counts=())
    return page.Section("Counted", [text], [], [shown])


def _misses(report: StudyReport) -> page.Section:
    misses = report.tables.misses
    if not misses:
        return page.Section("Missed", ["Every planted cue was found, and no other network raised an alarm."])
    text = "Every network that is not as it should be, with the number of the audit that decided it."
    columns = {"kind": "kind", "arm": "images", "seed": "seed", "dice": "Dice", "miss": "what", "number": "number"}
    return page.Section("Missed", [text], [], [page.Table("Misses", misses, "", columns)])


def _kind(report: StudyReport, kind: str) -> page.Section:
    own = report.tables.deciding.where(kind=kind)
    name, dots = kind.replace("_", " "), []
    if own:
        title = f"The audit's closest number, {name}"
        alt = f"Dots with intervals of the number that came closest to a finding of {name}, for every network."
        margins = " or ".join(f"{margin:g}" for margin in sorted(set(own.values("margin"))))
        caption = f"A finding lies above its margin, {margins}, with its whole interval."
        dots = [report.figure(kind, title, alt, caption, table="deciding")]
    columns = {
        **{"arm": "images", "seed": "seed", "dice": "Dice", "learned": "learned"},
        **{"planted_kind_found": f"{KINDS[kind].name} found", "unclear": "unclear", "other_findings": "other findings"},
    }
    networks = [record for record in report.tables.networks if record["kind"] == kind]
    return page.Section(f"The cue {name}", [], dots, [page.Table("Networks", networks, "", columns)])
