"""The user's own folder: `cases.csv` and the files that it names, in any format that `formats` reads."""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import formats, raw_cases, threads
from jaxseg.data.builders import case_table, files, looks, records, spelling
from jaxseg.data.raw_cases import Contents, Found, RawCase
from jaxseg.errors import InputError

_CLASSES = "classes.csv"
_VOLUMES = "-volumes"
_MOST_CLASSES = 64  # a mask with greater numbers and no 255 holds something other than classes
_STORED_CLASSES = 255  # labels are stored as 8 bits, of which one value means that there is no annotation
_WITHOUT = "ignore"  # the name of values without annotation
_MANY_MASKS = 10  # from this many on, a class must be in at least two of them
_BINARY = {0: 0, 255: 1}
_NAME_THEM = f"; or name it in {_CLASSES}, if it is a class"
_CLASS = re.compile("[0-9]{1,5}")  # as a mask of 16 bits holds it


class Folder(records.Builder):
    """`cases.csv` has the columns case, image and mask; paths are relative to it, unknown columns are ignored.

    The columns domain and patient say where a case is from and whom it shows; without a patient each case is its own. A
    column `split` (train, validation, test, or val and the like) is followed, also where all cases are for testing;
    without it patients are assigned to splits. Several images of one case, such as modalities, are separated by `;` and
    become channels. Masks hold 0 and 255, or class numbers, which `classes.csv` (columns value, name; the first is the
    background) may name. Volumes (NIfTI, stacks of TIFF, folders of DICOM files) are cut into slices, or stay whole as
    `folder/NAME-volumes`. Where all intensities are 0 to 255 they stay as they are; else all are scaled, by image or
    volume; see `looks.scaling`.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = ()
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"write a table {case_table.NAME} ({','.join(case_table.NEEDED)}, and {', '.join(case_table.OPTIONAL)} where "
        "they are known) into the folder of your images"
    )

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
        folder = files.descend(folder, case_table.NAME)
        cases, problems = case_table.read(folder / case_table.NAME)
        named, more = _read_classes(folder / _CLASSES)
        names, values = named or _classes_of(cases)
        case_looks = looks.of_cases(cases)
        contents = Contents(
            names,
            values,
            channels=looks.channels(case_looks),
            scaling=looks.scaling(case_looks),
            volumes=looks.are_volumes(case_looks),
            remedy="" if named else _NAME_THEM,
            one_depth=True,
        )
        return Found(cases, [*problems, *more], contents)


class _Classes(NamedTuple):
    names: tuple[str, ...]
    values: Mapping[int, int]


def _read_classes(table: pathlib.Path) -> tuple[_Classes | None, list[str]]:
    if not table.exists():
        return None, []
    rows, problems = files.read_table(table, ("value", "name"), ("value", "name"))
    names: list[str] = []
    values: dict[int, int] = {}
    for number, row in rows:
        if not _CLASS.fullmatch(row["value"]) or not row["name"] or int(row["value"]) in values:
            problems.append(f"{table}: line {number} is not a class; give a whole number of its own and a name")
            continue
        if row["name"].casefold() == _WITHOUT:
            values[int(row["value"])] = raw_cases.IGNORED
            continue
        values[int(row["value"])] = len(names)
        names.append(spelling.composed(row["name"]))
    if len(names) > _STORED_CLASSES:
        problems.append(
            f"{table}: names {len(names)} classes, of which {_STORED_CLASSES} can be stored; give classes that belong "
            "together one number in the masks"
        )
    if len(names) < 2 and not problems:
        problems.append(f"{table}: names one class; give the background and at least one more")
    return (None if problems else _Classes(tuple(names), values)), problems


def _classes_of(cases: Sequence[RawCase]) -> _Classes:
    """What the values in the masks mean: object or not where most masks hold 0 and 255, else a class each."""
    values: collections.Counter[int] = collections.Counter()
    binary = filled = 0  # empty masks say nothing
    for mask_values in threads.in_threads(_values, cases, "reading masks"):
        values.update(mask_values)
        binary += 255 in mask_values and mask_values <= _BINARY.keys()
        filled += bool(mask_values - {0})
    # a value in a single mask of many is a mistake or a soft edge, and is reported as such
    least = 2 if len(cases) >= _MANY_MASKS else 1
    classes = [value for value, count in values.items() if 0 < value < _MOST_CLASSES and count >= least]
    if binary >= max(1, filled // 2) or not classes:
        return _Classes(("background", "object"), _BINARY)
    count = max(classes) + 1
    return _Classes(("background", *(f"class {k}" for k in range(1, count))), {k: k for k in range(count)})


def _values(case: RawCase) -> set[int]:
    try:
        assert case.mask is not None
        return set(np.unique(formats.read_mask(case.mask).array).tolist())
    except formats.Unusable:
        return set()
