"""What the doctor says of a data set as a page, with pictures of the marks that were found."""

import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxseg import atomic
from jaxseg.data.diagnosis import CONVENTIONS, MARKS, SHORTCUTS, Finding, Report
from jaxseg.prediction.thumbnails import thumbnail
from jaxseg.report import contact_sheet, page

_LINES = 20  # of a finding


def write(path: pathlib.Path, report: Report, provenance: Mapping[str, Any]) -> None:
    """Writes the page.

    Args:
      path: HTML to write.
      report: of `data.builders.check`, with `pictures`.
      provenance: how it was made.
    """
    with atomic.writing(path), tempfile.TemporaryDirectory() as folder:
        page.write(path, _page(report, pathlib.Path(folder)), provenance)


def _page(report: Report, folder: pathlib.Path) -> page.Page:
    shortcuts = any(finding.check in SHORTCUTS for finding in report.warnings)
    numbers = [
        {"what": name, "value": f"{value:.3f}" if isinstance(value, float) else _words(value), "which is": meaning}
        for name, value in report.numbers.items()
        for meaning in [CONVENTIONS.get(name, "")]
    ]
    return page.Page(
        title=f"The doctor on {report.name}",
        question="Can the data set be used, and what may a network take as a shortcut?",
        verdict="no" if report.errors else "partly" if shortcuts else "yes",
        answer=f"{report.verdict[0].upper()}{report.verdict[1:]}.",
        lead=None,
        facts=[(name, _words(report.numbers[name])) for name in ("cases", "patients", "splits")],
        sections=[*_findings(report, folder), page.Section("Numbers", [], [], [page.Table("Of all cases", numbers)])],
    )


def _findings(report: Report, folder: pathlib.Path) -> Iterator[page.Section]:
    """A section each; with pictures where one speaks of marks."""
    for finding in report.findings:
        more = [f"and {len(finding.lines) - _LINES} more"] if len(finding.lines) > _LINES else []
        rows = [{"file or case": line} for line in (*finding.lines[:_LINES], *more)]
        tables = [page.Table("Where", rows)] if rows else []
        drawn = [_marks(report, folder)] if finding.check in MARKS and report.pictured else []
        yield page.Section(f"{finding.level.capitalize()}: {finding.check}", [_sentence(finding)], drawn, tables)


def _marks(report: Report, folder: pathlib.Path) -> page.Figure:
    of_images = [(one.name, one.image, one.marks.astype(np.uint8)) for one in report.pictured]
    cells = [thumbnail(image, marks, (name,)) for name, image, marks in of_images]
    contact_sheet.write(folder / "marks.png", cells, ("", "found marks"))
    shares = [{"image": name, "share of its pixels": float(marks.mean())} for name, _, marks in of_images]
    atomic.write_csv(folder / "marks.csv", shares)
    return page.Figure(
        folder / "marks.png",
        "Marks that were found",
        "Images with the outlines of the marks that were found in them.",
        "A few of the images with marks. Outlined is what is taken for calipers or text: look whether it is.",
        folder / "marks.csv",
    )


def _sentence(finding: Finding) -> str:
    return f"{finding.summary[0].upper()}{finding.summary[1:]}."


def _words(value: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else str(value)
