"""Tables of results as tables of a page."""

from collections.abc import Mapping

from jaxseg.report import page
from jaxseg.results.table import Table

MEAN = "mean [95 % interval]"
_COUNTS = ("n", "undefined")


def table(
    title: str,
    rows: Table,
    columns: Mapping[str, str],
    *,
    further: Mapping[str, str] | None = None,
    estimate: str = MEAN,
    counts: tuple[str, ...] = _COUNTS,
    digits: int = 2,
) -> page.Table:
    """Some columns, the estimate, what stands behind it, and further columns; the rows' conventions as the note.

    Args:
      title: of the table.
      rows: in their order.
      columns: of `keys` and `more` -> how the page calls them.
      further: the same, behind the estimate.
      estimate: how the page calls it.
      counts: of the estimate: n, undefined, patients.
      digits: of the estimate.
    """
    further = further or {}
    shown = [
        {name: row[name] for name in columns}
        | {"estimate": row.text(digits)}
        | {name: getattr(row.estimate, name) for name in counts}
        | {name: row[name] for name in further}
        for row in rows
    ]
    headers = {**columns, "estimate": estimate, **{name: name for name in counts}, **further}
    return page.Table(title, shown, note(rows), headers)


def note(rows: Table) -> str:
    """The conventions of all rows, each once."""
    found = dict.fromkeys(row.convention for row in rows)
    return ". ".join(found) + "." if found else ""
