"""What all studies have in common: tables, figures and a page, of measures that are made up."""

import json
import pathlib
import re

import pytest

from jaxseg.studies import runner
from jaxseg.studies.base import Report
from tests.drawings import assert_as_stored, kept, plots  # noqa: F401

_STORED = pathlib.Path(__file__).parent / "drawn"
_NUMBER = re.compile(r"[-\u2212]?\d+(?:\.\d+)?")
_DATA = ("limits", "ticks", "lines", "patches", "collections", "images", "texts", "words", "at", "x", "y", "look")
_DATA = (*_DATA, "corners", "paths", "offsets", "faces", "means", "shape", "colours")


@pytest.fixture
def written(tmp_path, plots):  # noqa: F811
    """`(study, settings, cases, measured, config) -> what its report says`; figures are described and not painted."""

    def write(study, settings, cases, measured, config):
        tables = study.tabulate(settings, cases, measured)
        judgement = study.judge(settings, tables)
        origin = {"command": "study", "data": study.describe(settings, cases), "config": {"study": config.study}}
        report = Report(tmp_path, config.size, settings, cases, measured, tables, judgement, origin)
        runner.write(study, report)
        results = json.loads((tmp_path / "results.json").read_text())
        del results["provenance"]
        tables = {name: kept(rows) for name, rows in results.items() if isinstance(rows, list)}
        pictures = {f"figure {name}": _data(drawing) for name, drawing in plots(report.figures).items()}
        return {**tables, **pictures, "page": _page(study.page(report))}

    return write


@pytest.fixture
def assert_stays(written):
    """`(name, study, settings, cases, measured, config)`: what the report says is what is stored under the name."""
    return lambda name, *of: assert_as_stored(_STORED / f"{name}.json", written(*of))


def _data(drawing):
    """What depends on the study: not where words lie on the sheet."""
    of_axes = lambda ax: {name: _plain(value) for name, value in ax.items() if name in _DATA}
    legends = [legend["words"] for legend in drawing["legends"]]
    return {
        "size": drawing["size"],
        "axes": [of_axes(ax) for ax in drawing["axes"]],
        "texts": [t[0] for t in drawing["texts"]],
        "legends": legends,
    }


def _plain(value):
    if isinstance(value, list) and value and all(isinstance(part, list) and len(part) == 6 for part in value):
        return [[words, anchor] for words, anchor, *_ in value]
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if name in _DATA}
    return value


def _page(page):
    """The numbers of its sentences, the titles of its sections and figures, the columns of its tables."""
    numbers = lambda text: _NUMBER.findall(text)
    sections = [
        {
            "title": section.title,
            "text": [numbers(text) for text in section.text],
            "figures": [[figure.title, *numbers(figure.caption)] for figure in section.figures],
            "tables": [[table.title, [*(table.columns or {}).values()], kept(table.rows)] for table in section.tables],
        }
        for section in page.sections
    ]
    return {
        "verdict": page.verdict,
        "answer": [page.answer[:12], *numbers(page.answer)],
        "facts": page.facts,
        "sections": sections,
    }
