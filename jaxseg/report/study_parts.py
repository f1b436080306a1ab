"""What the reports of all studies share: where it all came from, the numbers on disk, figures beside their tables."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from jaxseg.errors import InputError
from jaxseg.report import page, tables
from jaxseg.training import provenance

Rows = Sequence[Mapping[str, Any]]
Figure = Callable[[str, str, str, str, str], page.Figure]  # name, title, alternative text, caption, table


def origin(
    config: ml_collections.ConfigDict, command: str, folders: Iterable[pathlib.Path], data: str
) -> dict[str, Any]:
    """Where each run was trained, and where this report was written, which may be elsewhere and later.

    Args:
      config: of the study.
      command: that a reader would type to get the same.
      folders: of the runs.
      data: in words, with how many cases there are.
    """
    sessions = [session for folder in folders for session in provenance.sessions(folder)]
    return {
        "command": command,
        "trained": list(dict.fromkeys(f"{session['date']}, {session['machine']}" for session in sessions)),
        "trained_with": {name: v for session in sessions for name, v in session["versions"].items()},
        "reported": provenance.here(),
        "data": data,
        "config": config.to_dict(),
    }


def write_results(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    named: Any,
    verdicts: Sequence[Any],
    where_from: Mapping[str, Any],
    claims: Sequence[Any] | None = None,
) -> None:
    """Writes `results.json` and a CSV file for each table.

    Args:
      workdir: of the study.
      config: of the study.
      named: a dataclass whose fields are the rows of the tables.
      verdicts: dataclasses.
      where_from: as `origin` gives it.
      claims: dataclasses, one for each claim of the paper; a table too.
    """
    of_tables: dict[str, Rows] = {field.name: getattr(named, field.name) for field in dataclasses.fields(named)}
    if claims is not None:
        of_tables = {"claims": [dataclasses.asdict(claim) for claim in claims]} | of_tables
    for name, rows in of_tables.items():
        tables.write_csv(workdir / "tables" / f"{name}.csv", rows)
    answers = [dataclasses.asdict(verdict) for verdict in verdicts]
    tables.write_json(
        workdir / "results.json",
        {"study": config.study, "size": config.size, "verdicts": answers, **of_tables, "provenance": where_from},
    )


def figure_in(workdir: pathlib.Path) -> Figure:
    """Figures of `workdir/figures` with the numbers of `workdir/tables`, by name."""

    def figure(name: str, title: str, alt: str, caption: str, table: str) -> page.Figure:
        return page.Figure(
            workdir / "figures" / f"{name}.png", title, alt, caption, workdir / "tables" / f"{table}.csv"
        )

    return figure


def in_words(where_from: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The `provenance` of a page."""
    return [
        (name.replace("_", " "), "; ".join(map(str, value)) if isinstance(value, list) else _flat(value))
        for name, value in where_from.items()
    ]


def _flat(value: Any) -> str:
    return ", ".join(f"{name} {_flat(v)}" for name, v in value.items()) if isinstance(value, dict) else str(value)


@contextlib.contextmanager
def writing(workdir: pathlib.Path) -> Iterator[None]:
    """Turns an error of writing there into an InputError that says what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or workdir}: cannot be written ({error.strerror}); free it, and repeat"
        ) from error
