"""Image files and mask files: which belong together; and work on many of them.

All problems of all files are found before anything is prepared, so a folder is fixed once, not file by file.
A problem is one line: the file, what is wrong, and the remedy.
"""

import csv
import io
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # that would garble a message or a terminal

T = TypeVar("T")
R = TypeVar("R")

_SEPARATORS = ",;\t"
_SEPARATOR_TOLD = re.compile("sep=([,;\t])\r?\n", re.IGNORECASE)

_MOST_FOLDERS = 50  # of one level that are searched for an inner one


class Pair(NamedTuple):
    """The files of one case."""

    case: str
    image: pathlib.Path
    mask: pathlib.Path


class Names(NamedTuple):
    """How the files of a data set are named: `<case><suffix>`.

    Attributes:
      prefix: of every case; files that do not start with it are ignored (a licence, a thumbnail cache).
      image: suffix of the images, with the extension.
      mask: suffix of the masks, with the extension.
      ignored: suffixes of official files that are neither.
    """

    prefix: str
    image: str
    mask: str
    ignored: tuple[str, ...] = ()


def find_pairs(images: pathlib.Path, masks: pathlib.Path, names: Names) -> tuple[list[Pair], list[str]]:
    """Pairs images with masks by their names.

    Args:
      images: folder of the images.
      masks: folder of the masks; it may be the same one.
      names: how the files are named.

    Returns:
      pairs: sorted by case.
      problems: one line for every missing or empty folder, misnamed file, and image or mask without its counterpart.
    """
    kinds, problems = {}, []
    for folder, kind in ((images, "image"), (masks, "mask")):
        suffix, other = (names.image, names.mask) if kind == "image" else (names.mask, names.image)
        ignored = (*names.ignored, other) if images == masks else names.ignored
        if not folder.is_dir():
            problems.append(f"{folder}: no such folder; unpack the official archive so that this folder is there")
            continue
        cases, misnamed = _cases(folder, names.prefix, suffix, ignored)
        if not cases and not misnamed:
            problems.append(
                f"{folder}: holds no file named {names.prefix}*{suffix}; unpack the official archive so that the files "
                "lie directly in this folder"
            )
            continue
        for path in misnamed:
            problems.append(f"{path}: wrong name; {kind}s are named {names.prefix}*{suffix}: convert or rename it")
        kinds[kind] = (cases, {path.name.partition(".")[0].removesuffix(suffix.partition(".")[0]) for path in misnamed})
    if len(kinds) < 2:  # else every file of the other folder would be reported as unpaired
        return [], problems
    (image_cases, image_misnamed), (mask_cases, mask_misnamed) = kinds["image"], kinds["mask"]
    for case in sorted(image_cases.keys() - mask_cases.keys() - mask_misnamed):
        problems.append(
            f"{image_cases[case]}: has no mask {masks / (case + names.mask)}; add it or move the image away"
        )
    for case in sorted(mask_cases.keys() - image_cases.keys() - image_misnamed):
        problems.append(
            f"{mask_cases[case]}: has no image {images / (case + names.image)}; add it or move the mask away"
        )
    both = sorted(image_cases.keys() & mask_cases.keys())
    return [Pair(case, image_cases[case], mask_cases[case]) for case in both], problems


def _cases(
    folder: pathlib.Path, prefix: str, suffix: str, ignored: tuple[str, ...]
) -> tuple[dict[str, pathlib.Path], list[pathlib.Path]]:
    cases, misnamed = {}, []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(prefix) or path.name.endswith(ignored):
            continue
        if path.name.endswith(suffix):
            cases[path.name.removesuffix(suffix)] = path
        else:
            misnamed.append(path)
    return cases, misnamed


def descend(folder: pathlib.Path, pattern: str, *, levels: int = 3) -> pathlib.Path:
    """The folder, or the one below it that alone has what is looked for: archives often have folders around everything.

    Args:
      folder: as the user named it.
      pattern: of what must lie in it, for `glob`.
      levels: how deep to look.
    """
    at = [folder]
    for _ in range(levels + 1):
        matches = [path for path in at if next(path.glob(pattern), None) is not None]
        if matches:
            return matches[0] if len(matches) == 1 else folder
        at = [inner for path in at for inner in path.iterdir() if inner.is_dir() and inner.name != "__MACOSX"]
        if len(at) > _MOST_FOLDERS:  # patients
            break
    return folder


def read_table(
    table: pathlib.Path, known: Sequence[str], needed: Sequence[str]
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The lines of a table (CSV) and what is wrong with it.

    Fields are separated by commas, semicolons or tabs, whichever the first line has; lines without any entry, as
    spreadsheets leave them, are skipped.

    Args:
      table: the file.
      known: columns that are wanted, in capitals or not; others are left out.
      needed: those of them that must be there.

    Returns:
      rows: the number of each line, and its fields by column.
      problems: one line each; a table that cannot be used has no rows.
    """
    if not table.is_file():
        return [], [f"{table}: no such file; write a table with the columns {','.join(needed)}"]
    try:
        lines = _numbered_lines(_text(table))
    except UnicodeDecodeError:
        return [], [f"{table}: is not UTF-8 text; save it as such"]
    except csv.Error as error:
        return [], [f"{table}: cannot be read as a table ({error}); save it as CSV"]
    spelt = {name.casefold(): name for name in known}
    header = [spelt.get(name.strip().casefold(), name.strip()) for name in lines[0][1]] if lines else []
    missing = [name for name in needed if name not in header]
    if missing:
        columns = f"column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        wanted = f"its first line must be {','.join(needed)}, separated by commas"
        return [], [f"{table}: lacks the {columns}; {wanted}"]
    twice = [name for name in known if header.count(name) > 1]
    if twice:
        return [], [f"{table}: has the column {twice[0]} twice; remove or rename one"]
    rows, problems = [], []
    for number, line in lines[1:]:
        if not "".join(line).strip():
            continue
        if len(line) != len(header) and "\n" in "".join(line):
            problems.append(f"{table}: line {number} opens a quote that is not closed in it; close or remove it")
            continue
        if len(line) != len(header):
            problems.append(f"{table}: line {number} has {len(line)} fields, the first line {len(header)}; fix it")
            continue
        row = {name: value.strip() for name, value in zip(header, line, strict=True) if name in known}
        broken = [name for name, value in row.items() if _CONTROL.search(value)]
        if broken:
            problems.append(f"{table}: line {number} has a line break, or the like, in {broken[0]}; remove it")
            continue
        rows.append((number, row))
    if not rows and not problems:
        problems.append(f"{table}: has no line below the first; name a case in each")
    return rows, problems


def columns(table: pathlib.Path) -> list[str]:
    """The names in the first line of a table; of one that cannot be read, none."""
    try:
        lines = _numbered_lines(_text(table))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [name.strip() for name in lines[0][1]] if lines else []


def _text(table: pathlib.Path) -> str:
    text = table.read_text(encoding="utf-8-sig")
    if "\0" in text:  # UTF-16 without its mark is valid UTF-8
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "NUL")
    return text


def _numbered_lines(text: str) -> list[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line that it begins in; quoted fields may hold line breaks."""
    lines, number = [], 1
    told = _SEPARATOR_TOLD.match(text)  # by Excel, in a line of its own
    if told:
        text, number = text[told.end() :], 2
    start, separator = number - 1, told[1] if told else _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    for line in reader:
        lines.append((number, line))
        number = start + reader.line_num + 1
    return lines


def _separator(text: str) -> str:
    """What separates the names of the first line, outside of quotes: the most frequent one."""
    header = re.sub('"[^"]*"', "", re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0])
    return max(_SEPARATORS, key=header.count)  # the first, if there is none


def read_json(path: pathlib.Path) -> tuple[Any, list[str]]:
    """What a JSON file holds, None where it cannot be read; and what is wrong with it then, one line."""
    try:
        return json.loads(path.read_bytes()), []
    except FileNotFoundError:
        return None, [f"{path}: no such file; unpack the official archive so that it is there"]
    except (OSError, ValueError, RecursionError) as error:  # a wrong encoding is a ValueError too
        return None, [f"{path}: cannot be read as JSON ({error}); fetch it again"]


def search(folder: pathlib.Path, pattern: str, *, levels: int = 4) -> list[pathlib.Path]:
    """What `glob` finds in a folder and in the folders below it, sorted, without hidden files; links are followed.

    Args:
      folder: where to look.
      pattern: of the last part of a path.
      levels: how many folders deep, the first one included.
    """
    matches = [path for level in range(levels) for path in folder.glob("*/" * level + pattern)]
    # macOS leaves ._NAME next to every file
    return sorted(path for path in matches if not any(part[0] == "." for part in path.relative_to(folder).parts))
