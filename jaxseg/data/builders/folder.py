"""A folder of one's own: `cases.csv` and the files that it names, in any format that `formats` reads."""

import collections
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import formats
from jaxseg.data.builders import files, records
from jaxseg.data.builders.cases import SPLITS, Contents, Found, RawCase
from jaxseg.errors import InputError

_TABLE, _CLASSES = "cases.csv", "classes.csv"
_COLUMNS = ("case", "image", "mask", "domain", "patient")
_OPTIONAL = ("split",)
_VOLUMES = "-volumes"
_MOST_CLASSES = 64  # a mask with greater numbers and no 255 has no classes but something else in it
_MANY_MASKS = 10  # from here on, a class is what at least two of them hold
_BINARY = {0: 0, 255: 1}
_NAME_THEM = f"; or name it in {_CLASSES}, if it is a class"
_CLASS = re.compile("[0-9]{1,5}")  # as a mask of 16 bits holds it


class Folder(records.Builder):
    """`cases.csv` has the columns case, image, mask, domain and patient; paths are relative to it, others ignored.

    A column `split` (train, validation, test) is obeyed; without it patients are dealt out. Several images of one
    case, such as modalities, are separated by `;` and become channels. Masks hold 0 and 255, or class numbers, which
    `classes.csv` (columns value, name; the first is the background) may name. Volumes (NIfTI, stacks of TIFF, folders
    of DICOM files) are cut into slices, or stay whole as `folder/NAME-volumes`. Intensities of 8 bits stay as they
    are; others are scaled, by image or volume, from the 0.5th percentile to the 99.5th.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = ()
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"write a table {_TABLE} ({','.join(_COLUMNS)}) into the folder of your images"

    @classmethod
    def config(cls, name: str) -> records.Config:
        base = name.removesuffix(_VOLUMES)
        if not base or not base.replace("_", "").replace("-", "").replace(".", "").isalnum() or base[0] == ".":
            raise InputError(
                f"unknown data set 'folder/{name}'; give your folder a name of letters, digits, - and _, as in "
                "folder/wbc, or folder/heart-volumes to keep volumes whole"
            )
        return records.Config(name=name, description="a folder of one's own", volumes=name != base)

    @classmethod
    def config_names(cls) -> list[str]:
        return ["folder/NAME", f"folder/NAME{_VOLUMES}"]

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        folder = files.descend(folder, _TABLE)
        cases, problems = _read_table(folder / _TABLE)
        first = _first_readable(cases)
        named, more = _read_classes(folder / _CLASSES)
        names, values = named or _classes_of(cases)
        contents = Contents(
            names,
            values,
            channels=_channels_of(cases, first),
            scaling=None if all(picture.array.dtype == np.uint8 for picture in first) else ("percentiles", 0.5, 99.5),
            volumes=any(picture.array.ndim == 4 for picture in first),
            remedy="" if named else _NAME_THEM,
        )
        return Found(cases, [*problems, *more], contents)


class _Classes(NamedTuple):
    names: tuple[str, ...]
    values: Mapping[int, int]


def _read_table(table: pathlib.Path) -> tuple[list[RawCase], list[str]]:
    rows, problems = files.read_table(table, (*_COLUMNS, *_OPTIONAL), _COLUMNS)
    cases = []
    for number, row in rows:
        where = f"{table}: line {number}"
        split = row.get("split") or None
        empty = [name for name in ("case", "image", "mask") if not row[name]]
        if empty:
            problems.append(f"{where} has no {' and no '.join(empty)}; fill it in or remove the line")
            continue
        if split is not None and split not in SPLITS:
            problems.append(f"{where} has the split {split!r}; use one of {', '.join(SPLITS)}, or leave all empty")
        names = [name.strip() for name in row["image"].split(";")]
        if not all(names):
            problems.append(f"{where} has an empty name among its images; remove the ; that is too many")
            continue
        images = tuple(table.parent / name for name in names)
        mask = table.parent / row["mask"]
        wrong = list(_wrong_files((*images, mask), f"{table.name} names it in line {number}"))
        problems += wrong
        if not wrong:
            cases.append(RawCase(row["case"], images, mask, row["patient"] or row["case"], row["domain"], split))
    given = {case.split for case in cases}
    if None in given and len(given) > 1:
        problems.append(f"{table}: some lines have a split and some have none; fill in all, or none")
    elif given and None not in given and "train" not in given:
        problems.append(f"{table}: no line has the split train; a network needs cases to learn from")
    return cases, problems


def _wrong_files(paths: Sequence[pathlib.Path], named: str) -> Iterator[str]:
    for path in paths:
        if not os.path.exists(path):  # pathlib's fails for long names
            yield f"{path}: is not there, {named}; add it"
        elif path.is_dir():
            continue  # of a DICOM series
        elif not path.is_file():  # reading a pipe would wait for ever
            yield f"{path}: is neither a file nor a folder, {named}; name a file"
        elif not formats.is_image(path):
            yield f"{path}: is of no known format; use one of {formats.known_formats()}"


def _read_classes(table: pathlib.Path) -> tuple[_Classes | None, list[str]]:
    if not table.exists():
        return None, []
    rows, problems = files.read_table(table, ("value", "name"), ("value", "name"))
    names: list[str] = []
    values: dict[int, int] = {}
    for number, row in rows:
        if not _CLASS.fullmatch(row["value"]) or not row["name"] or int(row["value"]) in values:
            problems.append(f"{table}: line {number} is no class; give a whole number of its own and a name")
            continue
        values[int(row["value"])] = len(names)
        names.append(row["name"])
    if len(names) < 2 and not problems:
        problems.append(f"{table}: names one class; give the background and at least one more")
    return (None if problems else _Classes(tuple(names), values)), problems


def _first_readable(cases: Sequence[RawCase]) -> list[formats.Picture]:
    """The images of the first case that can be read; none where there is none."""
    for case in cases:
        try:
            return [formats.read(path) for path in case.images]
        except formats.Unusable:
            continue  # the doctor names it
    return []


def _channels_of(cases: Sequence[RawCase], first: Sequence[formats.Picture]) -> int:
    """C: what the first case has; of one picture a case, colour where any has colour, as gray can become that."""
    if len(first) == 1:
        plain = max(formats.colour_channels(case.images[0]) or 0 for case in cases)
        return plain or first[0].array.shape[-1]
    return sum(picture.array.shape[-1] for picture in first) or 1


def _classes_of(cases: Sequence[RawCase]) -> _Classes:
    """What the numbers in the masks mean: object or not where most masks hold 0 and 255, else every number a class."""
    values: collections.Counter[int] = collections.Counter()
    binary = 0
    for found in files.in_threads(_values, cases, "reading masks"):
        values.update(found)
        binary += 255 in found and found <= _BINARY.keys()
    # what a single mask of many holds is a slip, or a soft edge, and is named as such
    least = 2 if len(cases) >= _MANY_MASKS else 1
    classes = [value for value, count in values.items() if 0 < value < _MOST_CLASSES and count >= least]
    if binary >= max(1, len(cases) // 2) or not classes:
        return _Classes(("background", "object"), _BINARY)
    count = max(classes) + 1
    return _Classes(("background", *(f"class {k}" for k in range(1, count))), {k: k for k in range(count)})


def _values(case: RawCase) -> set[int]:
    try:
        assert case.mask is not None
        return set(np.unique(formats.read_mask(case.mask).array).tolist())
    except formats.Unusable:
        return set()
