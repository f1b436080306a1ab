"""M&Ms: short-axis cardiac MRI of four vendors and six centres (Campello et al. 2021), the shifted domains of ACDC."""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.builders.acdc import HEART
from jaxseg.data.raw_cases import Contents, Found, RawCase

FOLDERS = {"train": "Training/Labeled", "validation": "Validation", "test": "Testing"}
_TABLE = "*M&Ms*nformation*.csv"  # its name starts with a date and differs between releases, its columns do not
_SUBJECT, _VENDOR, _CENTRE = "External code", "VendorName", "Centre"
_FRAMES = ("ED", "ES")
_COLUMNS = (_SUBJECT, _VENDOR, _CENTRE, *_FRAMES)
_NUMBER = re.compile(r"\d{1,4}", re.ASCII)
# The files have 1 left ventricle, 2 myocardium, 3 right ventricle.
_CONTENTS = Contents(HEART, {0: 0, 1: 3, 2: 2, 3: 1}, 1, ("percentiles", 0.5, 99.5), volumes=True)


class Mnms(records.Builder):
    """End-diastolic and end-systolic volumes of the labelled subjects, in the official splits and ACDC's class order.

    A subject's folder has one film (`A0S9V9_sa.nii.gz`, frames along the fourth axis) and its masks, of which only two
    frames are drawn; the table says which, counted from 0. The domain is vendor and centre, such as `Siemens 1`.
    `Training/Unlabeled` is not read. Intensities are scaled by frame, from the 0.5th percentile to the 99.5th.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = records.SLICES_AND_VOLUMES
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the M&Ms OpenDataset (https://www.ub.edu/mnms) so that the folder holds "
        f"{', '.join(FOLDERS.values())} and the table 211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        folder = files.descend(folder, FOLDERS["train"])
        table, problems = _table(folder)
        cases: list[RawCase] = []
        for split, name in FOLDERS.items():
            if not (folder / name).is_dir():
                problems.append(f"{folder / name}: no such folder; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
                continue
            for subject in sorted(path for path in (folder / name).iterdir() if path.is_dir()):
                cases += _frames(subject, split, table, problems)
        return Found(cases, problems, _CONTENTS)


def _table(folder: pathlib.Path) -> tuple[Mapping[str, Mapping[str, str]] | None, list[str]]:
    """The lines of the table by subject; None if there is no usable table."""
    tables = sorted(folder.glob(_TABLE))
    if len(tables) != 1:
        held = f"holds {len(tables)} tables" if tables else "holds no table"
        return None, [f"{folder}: {held} named {_TABLE}; it needs the official one alone, which names the frames"]
    rows, problems = files.read_table(tables[0], _COLUMNS, _COLUMNS)
    subjects = {}
    for number, row in rows:
        wrong = [name for name in _FRAMES if not _NUMBER.fullmatch(row[name])]
        if wrong:
            values = " and ".join(f"{name} {row[name]!r}" for name in wrong)
            problems.append(f"{tables[0]}: line {number} has {values}; give the numbers of the frames, from 0")
        subjects[row[_SUBJECT]] = row
    return (subjects if rows else None), problems


def _frames(
    folder: pathlib.Path, split: str, table: Mapping[str, Mapping[str, str]] | None, problems: list[str]
) -> Iterator[RawCase]:
    subject = folder.name
    image, mask = folder / f"{subject}_sa.nii.gz", folder / f"{subject}_sa_gt.nii.gz"
    missing = [path.name for path in (image, mask) if not path.exists()]
    if missing:
        problems.append(f"{folder}: lacks {' and '.join(missing)}; fetch it again or move the folder away")
    if table is None:  # reported once
        return
    if subject not in table:
        problems.append(f"{folder}: the table has no subject {subject}; add its line or move the folder away")
    elif not missing:
        row = table[subject]
        domain = f"{row[_VENDOR]} {row[_CENTRE]}"
        for frame in sorted({int(row[name]) for name in _FRAMES if _NUMBER.fullmatch(row[name])}):
            yield RawCase(f"{subject}_frame{frame:02d}", (image,), mask, subject, domain, split, part=frame)
