"""Tables of results as tables of a page."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxseg.report import page
from jaxseg.results.table import NONE, Table

MEAN = "mean [95 % interval]"
Columns = Mapping[str, str] | Sequence[str]  # with what the page calls them, or by their names
_COUNTS = ("n", "undefined")
_SENTENCES = re.compile(r"\. (?=\D)")  # not in `et al. 2022`


def table(
    title: str,
    rows: Table,
    columns: Columns,
    *,
    further: Mapping[str, str] | None = None,
    estimate: str = MEAN,
    counts: tuple[str, ...] = _COUNTS,
    digits: int = 2,
) -> page.Table:
    """Some columns, the estimate, further columns, and what it is of; the rows' conventions as the note.

    Args:
      title: of the table.
      rows: in their order.
      columns: of `keys` and `more` -> how the page calls them; a list of those that are called by their names.
      further: columns after the estimate.
      estimate: how the page calls it.
      counts: of the estimate: n, undefined, patients.
      digits: of the estimate.
    """
    columns = columns if isinstance(columns, Mapping) else {name: name.replace("_", " ") for name in columns}
    further = further or {}
    shown = [
        {name: _key(row[name]) for name in columns}
        | {"estimate": row.text(digits=digits)}
        | {name: row[name] for name in further}
        | {name: getattr(row.estimate, name) for name in counts}
        for row in rows
    ]
    headers = {**columns, "estimate": estimate, **further, **{name: name for name in counts}}
    return page.Table(title, shown, note(row.record() for row in rows), headers)


def note(records: Iterable[Mapping[str, Any]]) -> str:
    """The sentences of all conventions and how intervals were taken; what several of them say stands once."""
    found = list(records)
    sentences = [sentence for record in found for sentence in _SENTENCES.split(record["convention"])]
    said: set[str] = set()
    conventions = []
    for sentence in sentences:
        if new := "; ".join(part for part in sentence.split("; ") if part not in said):
            conventions.append(new[0].upper() + new[1:])
        said.update(sentence.split("; "))
    intervals = dict.fromkeys(f"Interval: {record['interval']}" for record in found if record["interval"] != NONE)
    return " ".join(f"{sentence}." for sentence in (*conventions, *intervals))


def _key(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value
