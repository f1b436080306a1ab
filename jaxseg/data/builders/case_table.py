"""`cases.csv`: a line of text for every case -> which files it has, whom they show, and where they belong."""

import pathlib
import re
from collections.abc import Iterator, Sequence

from jaxseg.data import formats
from jaxseg.data.builders import files, spelling
from jaxseg.data.raw_cases import SPLITS, RawCase

NAME = "cases.csv"
NEEDED = ("case", "image", "mask")
OPTIONAL = ("domain", "patient", "split")
_SEPARATOR = ";"  # of several images of one case
_SPELT = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "validate"), "validation"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
# Columns that nobody would add for another reason, however they are punctuated; without a patient, splits may divide
# one.
_MEANT = {
    **dict.fromkeys(("patient", "patients", "patientid", "patientids", "patientname"), "patient"),
    **dict.fromkeys(("subject", "subjects", "subjectid", "subjectids"), "patient"),
    **dict.fromkeys(("domain", "domains"), "domain"),
    **dict.fromkeys(("split", "splits"), "split"),
}
_PUNCTUATION = re.compile(r"[\W_]+")


def read(table: pathlib.Path) -> tuple[list[RawCase], list[str]]:
    """The cases whose files are there, and a line for everything that is wrong.

    Columns are separated by commas, semicolons or tabs. Names of files are relative to the table; see
    `spelling.Speller` for how they may be written.
    """
    rows, problems = files.read_table(table, (*NEEDED, *OPTIONAL), NEEDED)
    problems += _misnamed_columns(table)
    stand_ins = _StandIns(rows)
    speller = spelling.Speller(table.parent)
    cases, splits = [], set()
    for number, row in rows:
        where = f"{table}: line {number}"
        empty = [name for name in NEEDED if not row[name]]
        if empty:
            problems.append(f"{where} has no {' and no '.join(empty)}; fill it in or remove the line")
            continue
        given = row.get("split", "")
        split = _SPELT.get(given.casefold())
        splits.add(split)
        if given and split is None:
            problems.append(f"{where} has the split {given!r}; use one of {', '.join(SPLITS)}, or leave all empty")
            continue
        names = _images(row)
        if not all(names):
            problems.append(f"{where} has an empty name among its images; remove the {_SEPARATOR} that is too many")
            continue
        meant = [speller.find(name) for name in (*names, row["mask"])]
        wrong = list(_wrong_files(meant, f"{table.name} names it in line {number}"))
        problems += wrong
        if not wrong:
            *images, mask = (one.path for one in meant)
            case, patient, domain = (spelling.composed(row.get(name, "")) for name in ("case", "patient", "domain"))
            cases.append(RawCase(case, tuple(images), mask, patient or stand_ins.of(case), domain, split))
    if None in splits and len(splits) > 1 and not any("has the split" in problem for problem in problems):
        problems.append(f"{table}: some lines have a split and some have none; fill in all, or none")
    return cases, problems


def _misnamed_columns(table: pathlib.Path) -> Iterator[str]:
    """A line for each column that means one of ours under another name, where ours is missing."""
    there = [name.casefold() for name in files.columns(table)]
    others = [name for name in there if name and name not in (*NEEDED, *OPTIONAL)]
    meant = {name: _MEANT.get(_PUNCTUATION.sub("", name)) for name in others}
    rows, _ = files.read_table(table, [name for name in others if not meant[name]], NEEDED)
    for name in rows[0][1] if rows else ():
        values = {row[name].casefold() for _, row in rows} - {""}
        if values and values <= _SPELT.keys():  # it can mean nothing else
            meant[name] = "split"
    for name, column in meant.items():
        if column and column not in there:
            yield f"{table}: has the column {name} but none called {column}; rename it, or leave it out"


class _StandIns:
    """Names for the patients that a table does not name: that of the case, unless another patient has it."""

    def __init__(self, rows: Sequence[tuple[int, dict[str, str]]]):
        self._given = {spelling.composed(row.get("patient", "")) for _, row in rows}
        self._taken = self._given | {spelling.composed(row["case"]) for _, row in rows}

    def of(self, case: str) -> str:
        if case not in self._given:
            return case
        name = f"{case}~"
        while name in self._taken:
            name += "~"
        self._taken.add(name)
        return name


def masks(table: pathlib.Path) -> set[pathlib.Path]:
    """The masks that a table names and that are there; none of a table that cannot be read."""
    try:
        rows, _ = files.read_table(table, NEEDED, NEEDED)
    except OSError:
        return set()
    speller = spelling.Speller(table.parent)
    return {speller.find(row["mask"]).path for _, row in rows if row["mask"]}


def _images(row: dict[str, str]) -> list[str]:
    return [name.strip() for name in row["image"].split(_SEPARATOR)]


def _wrong_files(meant: Sequence[spelling.Meant], named: str) -> Iterator[str]:
    for path, problem, remedy in meant:
        if problem:
            yield f"{path}: {problem}, {named}; {remedy}"
        elif path.is_dir():
            continue  # of a DICOM series
        elif not path.is_file():  # reading a pipe would wait forever
            yield f"{path}: is neither a file nor a folder, {named}; name a file"
        elif not formats.is_image(path):
            yield f"{path}: is of no known format; use one of {formats.known_formats()}"
