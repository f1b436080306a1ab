"""Figures and tables into one HTML file that needs nothing else: no server, no network.

Its one script sorts tables; without scripts the page has everything but that.
"""

import base64
import dataclasses
import hashlib
import importlib.resources
import math
import os
import pathlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2

from jaxseg import atomic
from jaxseg.atomic import PathLike

VERDICTS = ("yes", "partly", "no", "unclear")

_NUMBER = r"[-+\N{MINUS SIGN}]?\d[\d.,]*"
# numbers, and text that begins with one: `7 %`, `0.42 [0.37, 0.47]`, `0.37 ... 0.47`, `0.42 ± 0.05`
_ESTIMATE = re.compile(rf"{_NUMBER}( ?%)?( \[.*\]| (\.\.\.|±) {_NUMBER})?|undefined|")
_PRINTED_LINE = 110  # characters that fit a printed line of a table


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `columns` chooses, orders and names the keys of `rows` (None: all, under their own names)."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    columns: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A PNG; `alt` says in words what it shows, `data` is the CSV with its numbers, of pictures those of the cases."""

    path: PathLike
    title: str
    alt: str
    caption: str
    data: PathLike


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then figures, then tables."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclasses.dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
      title: name of the study, small above the question and in the browser's tab.
      question: the one question that the page answers.
      verdict: yes, partly, no or unclear.
      answer: one sentence with the deciding numbers.
      lead: the plot that shows the answer, where there is one.
      facts: (label, value) of the key numbers, beside the plot.
      sections: everything else, in order.
      opening: what a reader has to know before the answer.
      bad: which verdict is bad news, yes or no; its badge has the colour of findings in plots, that of the other the
        colour of none.
    """

    title: str
    question: str
    verdict: str
    answer: str
    lead: Figure | None
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    opening: str = ""
    bad: str = "no"


FigureOf = Callable[[str, str, str, str, str], Figure]  # name, title, alternative text, caption, table


def figures_in(workdir: pathlib.Path) -> FigureOf:
    """Figures of `workdir/figures` with the numbers of `workdir/tables`, by name."""

    def figure(name: str, title: str, alt: str, caption: str, table: str) -> Figure:
        return Figure(workdir / "figures" / f"{name}.png", title, alt, caption, workdir / "tables" / f"{table}.csv")

    return figure


def write(path: PathLike, page: Page, provenance: Mapping[str, Any]) -> None:
    """Writes a report page; images and CSV files are embedded, all text is escaped.

    Args:
      path: HTML file to write.
      page: what it says.
      provenance: command, date, versions, machine: text, lists, or mappings of these.

    Raises:
      ValueError: unknown verdict, a figure that is no PNG, or one without alternative text or numbers.
    """
    if page.verdict not in VERDICTS:
        raise ValueError(f"verdict is {page.verdict!r}; it must be one of {', '.join(VERDICTS)}")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    files = importlib.resources.files("jaxseg.report")
    script = files.joinpath("page.js").read_text("utf-8")
    text = environment.from_string(files.joinpath("page.html").read_text("utf-8")).render(
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=page.title,
        question=page.question,
        verdict=page.verdict,
        look=_look(page),
        answer=page.answer,
        opening=page.opening,
        lead=_figure(page.lead) if page.lead else None,
        facts=[_fact(label, value) for label, value in page.facts],
        sections=[_section(section) for section in page.sections],
        provenance=[(name.replace("_", " "), _words(value)) for name, value in _sections(provenance)],
    )
    atomic.replace(path, text.encode())


def _look(page: Page) -> str:
    """The class of the badge."""
    if page.verdict not in ("yes", "no"):
        return page.verdict
    return "bad" if page.verdict == page.bad else "good"


def _sections(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is to be said of how a page was made; a config, of which a part has parts, part by part."""
    nested = lambda value: isinstance(value, Mapping)
    for name, value in provenance.items():
        if not nested(value) or not any(nested(v) for part in value.values() if nested(part) for v in part.values()):
            yield name, value
            continue
        if plain := {key: v for key, v in value.items() if not nested(v)}:
            yield name, plain
        yield from ((f"{name}: {key}", v) for key, v in value.items() if nested(v))


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "none"
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{k} ({_words(v)})" if isinstance(v, Mapping) else f"{k} {_words(v)}" for k, v in value.items())


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "figures": [_figure(figure) for figure in section.figures],
        "tables": [_table(table) for table in section.tables],
    }


def _fact(label: str, value: str) -> tuple[str, str, str]:
    """With its class: an estimate is not broken between its number and the interval."""
    return (label, _minus(value), "whole") if _ESTIMATE.fullmatch(value) else (label, value, "")


def _figure(figure: Figure) -> dict[str, Any]:
    if not figure.alt.strip():
        raise ValueError(f"figure {figure.title!r} has no alternative text; say in `alt` what it shows")
    image = pathlib.Path(figure.path).read_bytes()
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"figure {figure.title!r}: {os.fspath(figure.path)} is not a PNG file")
    data = pathlib.Path(figure.data)
    numbers = data.read_bytes()
    if len(numbers.splitlines()) < 2:
        raise ValueError(f"figure {figure.title!r}: {data} has no row; give the CSV file with the figure's numbers")
    width, height = struct.unpack(">II", image[16:24])  # from the header, so that the page does not jump on loading
    return {
        "title": figure.title,
        "alt": figure.alt,
        "caption": figure.caption,
        "width": width,
        "height": height,
        "source": _data_address("image/png", image),
        "data": {"name": data.name, "address": _data_address("text/csv;charset=utf-8", numbers)},
    }


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _table(table: Table) -> dict[str, Any]:
    headers = dict(table.columns) if table.columns is not None else {key: key for key in atomic.columns(table.rows)}
    columns = {key: [atomic.scalar(row.get(key)) for row in table.rows] for key in headers}
    cells = {key: _column(values) for key, values in columns.items()}
    kinds = {key: _kind(columns[key], cells[key]) for key in headers}
    width = sum(_unbreakable(header, cells[key], kinds[key]) + 2 for key, header in headers.items())  # and a gap
    cells |= {key: [_minus(cell) for cell in cells[key]] for key, kind in kinds.items() if kind == "number"}
    first = next((key for key in list(headers)[1:] if kinds[key] == "number"), None)  # beside the name on phones
    return {
        "title": table.title,
        "note": table.note,
        "long": len(table.rows) > 25,
        "wide": width > _PRINTED_LINE,
        "headers": [
            {"text": header, "kind": f"{kinds[key]} first" if key == first else kinds[key]}
            for key, header in headers.items()
        ],
        "rows": list(zip(*cells.values(), strict=True)),
        "undefined": any("–" in column for column in cells.values()),
    }


def _unbreakable(header: str, cells: Sequence[str], kind: str) -> int:
    """How many characters of a column must stand in one line: its numbers and its words."""
    words = [word for text in (header, *(() if kind == "number" else cells)) for word in text.split()]
    return max(map(len, [*words, *(cells if kind == "number" else ())]), default=0)


def _column(values: Sequence[Any]) -> list[str]:
    """The cells of a column; its floats share a number of decimals: three significant digits of the largest."""
    floats = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(floats, default=0.0)
    decimals = min(max(3 - math.ceil(math.log10(largest)), 0), 6) if largest > 0 else 3
    return [_cell(value, decimals) for value in values]


def _cell(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:z.{decimals}f}"
    return str(value)


def _minus(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")


def _kind(values: Sequence[Any], cells: Sequence[str]) -> str:
    """The class of a column: numbers stand right, sentences need room lest narrow screens make towers of them."""
    if _is_numeric(values):
        return "number"
    return "sentence" if any(len(cell) > 30 for cell in cells) else ""


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether a column is set like numbers: numbers, or text that begins with one, such as `0.42 [0.37, 0.47]`."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        bool(_ESTIMATE.fullmatch(value)) if isinstance(value, str) else isinstance(value, int | float)
        for value in known
    )
