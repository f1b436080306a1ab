"""The page of the planted-shortcuts study."""

from collections.abc import Sequence

from jaxseg.report import estimates, page
from jaxseg.results.table import Table
from jaxseg.studies.base import Report
from jaxseg.studies.planted_shortcuts.experiment import Outcome
from jaxseg.studies.planted_shortcuts.settings import Settings
from jaxseg.studies.planted_shortcuts.tables import Tables

StudyReport = Report[Settings, None, Sequence[Outcome], Tables]


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    answer, counts = report.judgement.verdicts[0], report.tables.counts
    lead = report.figure(
        "rates",
        "How often the audit finds a shortcut",
        "Dots with intervals: share of planted networks with that kind found, of twins with any shortcut found.",
        "Exact intervals over seeds (Clopper and Pearson).",
        "counts",
    )
    return page.Page(
        title=f"Planted shortcuts ({report.size})",
        question="Does the audit find a planted shortcut, and is it silent on the twin without it?",
        verdict=answer.verdict,
        answer=answer.sentence,
        lead=lead,
        facts=[
            (f"{row['kind']}, {row['arm']}", f"{row['found']} of {row.estimate.n} found, {row['learned']} learned")
            for row in counts
        ],
        sections=[_counts(counts), *(_kind(report, kind) for kind in report.settings.kinds)],
    )


def _counts(counts: Table) -> page.Section:
    text = (
        "Every seed draws its own scenes, once with the cue and once without, and a network is trained on each. A "
        "planted network counts when the planted kind is among the findings; a twin counts, as a false alarm, when any "
        "kind of shortcut is. Of a silent network the audit says 'unclear' where an interval reaches beyond its "
        "margin: with more test cases it would say no, or find something. Findings of low Dice, calibration or domains "
        "are no shortcuts."
    )
    columns = {"kind": "kind", "arm": "images", "found": "found", "silent": "silent", "unclear": "of these unclear"}
    further = {"learned": "learned", "least_dice": "lowest Dice", "other_findings": "with other findings"}
    rate = "rate [95 % interval]"
    shown = estimates.table("Found and silent", counts, columns, further=further, estimate=rate, counts=())
    return page.Section("Counted", [text], [], [shown])


def _kind(report: StudyReport, kind: str) -> page.Section:
    own = report.tables.numbers.where(kind=kind, found_kind=kind)
    dots = []
    if own:
        title = f"The audit's numbers, {kind}"
        alt = f"Dots with intervals of the numbers that decide on {kind}, for every network."
        caption = f"A finding lies above {own[0]['margin']} with its whole interval."
        dots = [report.figure(kind, title, alt, caption, "numbers")]
    columns = {
        **{"arm": "images", "seed": "seed", "dice": "Dice", "learned": "learned"},
        **{"planted_kind_found": f"{kind} found", "other_findings": "other findings"},
    }
    networks = [record for record in report.tables.networks if record["kind"] == kind]
    return page.Section(f"The kind {kind}", [], dots, [page.Table("Networks", networks, "", columns)])
