"""Figures and tables into one HTML file that needs nothing else: no server, no network, no scripts."""

import base64
import dataclasses
import importlib.resources
import math
import os
import pathlib
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from jaxseg.report import tables
from jaxseg.report.tables import PathLike

VERDICTS = ("yes", "partly", "no", "unclear")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `columns` chooses, orders and names the keys of `rows` (None: all, under their own names)."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    columns: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A PNG; `alt` says in words what it shows, `data` is the CSV with its numbers."""

    path: PathLike
    title: str
    alt: str
    caption: str = ""
    data: PathLike | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then figures, then tables."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


def write(
    path: PathLike,
    *,
    title: str,
    question: str,
    verdict: str,
    answer: str,
    lead: Figure,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    provenance: Sequence[tuple[str, str]],
) -> None:
    """Writes a report page.

    Images and CSV files are embedded; all text is escaped.

    Args:
      path: HTML file to write.
      title: name of the study, small above the question and in the browser's tab.
      question: the one question that the page answers.
      verdict: yes, partly, no or unclear.
      answer: one sentence with the deciding numbers.
      lead: the plot that shows the answer.
      facts: (label, value) of the key numbers, beside the plot.
      sections: everything else, in order.
      provenance: (label, value): command, date, versions, machine.

    Raises:
      ValueError: unknown verdict, a figure that is no PNG, or one without alternative text.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is {verdict!r}; it must be one of {', '.join(VERDICTS)}")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = importlib.resources.files("jaxseg.report").joinpath("page.html").read_text("utf-8")
    text = environment.from_string(source).render(
        title=title,
        question=question,
        verdict=verdict,
        answer=answer,
        lead=_figure(lead),
        facts=facts,
        sections=[_section(section) for section in sections],
        provenance=provenance,
    )
    tables.replace(path, text.encode())


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "figures": [_figure(figure) for figure in section.figures],
        "tables": [_table(table) for table in section.tables],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    if not figure.alt.strip():
        raise ValueError(f"figure {figure.title!r} has no alternative text; say in `alt` what it shows")
    image = pathlib.Path(figure.path).read_bytes()
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"figure {figure.title!r}: {os.fspath(figure.path)} is not a PNG file")
    width, height = struct.unpack(">II", image[16:24])  # from the header, so that the page does not jump on loading
    shown = {
        "title": figure.title,
        "alt": figure.alt,
        "caption": figure.caption,
        "width": width,
        "height": height,
        "source": _data_address("image/png", image),
        "data": None,
    }
    if figure.data is not None:
        data = pathlib.Path(figure.data)
        shown["data"] = {"name": data.name, "address": _data_address("text/csv;charset=utf-8", data.read_bytes())}
    return shown


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _table(table: Table) -> dict[str, Any]:
    headers = dict(table.columns) if table.columns is not None else {key: key for key in tables.columns(table.rows)}
    columns = {key: [tables.scalar(row.get(key)) for row in table.rows] for key in headers}
    cells = {key: _column(values) for key, values in columns.items()}
    return {
        "title": table.title,
        "note": table.note,
        "long": len(table.rows) > 25,
        "headers": [{"text": header, "kind": _kind(columns[key], cells[key])} for key, header in headers.items()],
        "rows": list(zip(*cells.values(), strict=True)),
        "undefined": any("–" in column for column in cells.values()),
    }


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
        return f"{value:z.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return str(value).replace("-", "\N{MINUS SIGN}") if isinstance(value, int) else str(value)


def _kind(values: Sequence[Any], cells: Sequence[str]) -> str:
    """The class of a column: numbers stand right, sentences need room lest narrow screens make towers of them."""
    if _is_numeric(values):
        return "number"
    return "sentence" if any(len(cell) > 30 for cell in cells) else ""


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether a column is set like numbers: numbers, or text that begins with one, such as `0.42 [0.37, 0.47]`."""
    estimate = re.compile(r"[-+\N{MINUS SIGN}]?\d[\d.,]*( ?%)?( \[.*\])?|undefined|")
    known = [value for value in values if value is not None]
    return bool(known) and all(
        estimate.fullmatch(value) if isinstance(value, str) else isinstance(value, int | float) for value in known
    )
