"""BraTS 2017 to 2020: brain tumours in four MR sequences (Menze et al. 2014), as He et al. 2022 use them."""

import pathlib
import re
from collections.abc import Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, RawCase

_SEQUENCES = ("flair", "t1", "t1ce", "t2")  # the order of the channels, He et al. 2022, section 4.1
_ENDINGS = (".nii.gz", ".nii")
_NAMED = re.compile(r"BraTS(?:17|18|19)_((2013|[A-Z]+\d*)_.+)", re.IGNORECASE)  # the patient, and the institution
_NUMBERED = re.compile(r"BraTS20_Training_\d+", re.IGNORECASE)
_GRADES = ("HGG", "LGG")  # the folders of training subjects until 2019
_TABLE = "name_mapping.csv"
_IN_2018 = "BraTS_2018_subject_ID"
_NAMES = ("BraTS_2020_subject_ID", "BraTS_2019_subject_ID", _IN_2018, "BraTS_2017_subject_ID")
_UNKNOWN = ("", "NA")
# All tumour labels are the whole tumour.
_CONTENTS = Contents(("background", "tumour"), {0: 0, 1: 1, 2: 1, 4: 1}, 4, ("percentiles", 0.5, 99.5), volumes=True)


class Brats(records.Builder):
    """Volumes of the training subjects with FLAIR, T1, T1 with contrast and T2 as channels; the whole tumour is drawn.

    Subjects of 2017 to 2019 lie in the folders `HGG` and `LGG`, such as `HGG/Brats18_CBICA_AAB_1`, and tell their
    institution, which is the domain, such as `CBICA` or `TCIA01`. Those of 2020, such as `BraTS20_Training_001`, do
    not; the official table `name_mapping.csv` next to them gives their earlier names. Where it is there,
    subjects of 2018 are for training and the others for testing, as in He et al. 2022, section 4.1 (285 and 84 of
    BraTS 2020), and a tenth of the former is for validation; else patients are assigned to splits.

    Subjects for validation have no masks and are left out. The mask of subject 355 of 2020, which was published as
    `W39_1998.09.19_Segm.nii`, is found. Every sequence is scaled by volume on its own, from the 0.5th percentile to
    the 99.5th.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = records.SLICES_AND_VOLUMES
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the training data of one BraTS challenge, 2017 to 2020 (https://www.med.upenn.edu/cbica/brats2020), so "
        "that the folder holds HGG and LGG, or BraTS20_Training_001 and so on"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        cases: list[RawCase] = []
        problems: list[str] = []
        tables: dict[pathlib.Path, _Table | None] = {}
        for subject in _subjects(folder):
            above = subject.parent
            table = (above.parent if above.name in _GRADES else above) / _TABLE
            if table not in tables:
                tables[table] = _read(table, problems)
            case = _case(subject, table, tables[table], problems)
            if case is not None:
                cases.append(case)
        if not cases and not problems:
            problems.append(f"{folder}: holds no training subject; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return Found(cases, problems, _CONTENTS)


_Table = Mapping[str, Mapping[str, str]]  # every name of a subject -> its line


def _read(path: pathlib.Path, problems: list[str]) -> _Table | None:
    """The names of subjects in other years; None where there is no usable table."""
    if not path.exists():
        return None
    rows, wrong = files.read_table(path, _NAMES, (_IN_2018,))
    problems += wrong
    return {name: row for _, row in rows for name in row.values() if name not in _UNKNOWN} or None


def _subjects(folder: pathlib.Path) -> list[pathlib.Path]:
    folders = [path for path in files.search(folder, "[Bb]ra[Tt][Ss]*") if path.is_dir()]
    return [
        path
        for path in folders
        if _NUMBERED.fullmatch(path.name) or (_NAMED.fullmatch(path.name) and path.parent.name in _GRADES)
    ]


def _case(subject: pathlib.Path, place: pathlib.Path, table: _Table | None, problems: list[str]) -> RawCase | None:
    images, mask = [_file(subject, part) for part in _SEQUENCES], _file(subject, "seg")
    if mask is None:
        misnamed = files.search(subject, "*_Segm.nii*", levels=1)
        mask = misnamed[0] if len(misnamed) == 1 else None
    parts = zip((*_SEQUENCES, "seg"), (*images, mask), strict=True)
    missing = [f"{subject.name}_{part}{_ENDINGS[0]}" for part, path in parts if path is None]
    if missing:
        problems.append(f"{subject}: lacks {' and '.join(missing)}; fetch it again or move the folder away")
        return None
    names = {} if table is None else table.get(subject.name)
    if names is None:
        problems.append(f"{place}: has no subject {subject.name}; add its line or move the folder away")
        return None
    others = (names.get(column, "") for column in _NAMES)  # the newest first: names of 2017 tell fewer institutions
    known = [match for name in (subject.name, *others) if (match := _NAMED.fullmatch(name))]
    patient, domain = known[0].groups() if known else (subject.name, "")
    split = None if not names else "test" if names[_IN_2018] in _UNKNOWN else "train"
    return RawCase(subject.name, tuple(path for path in images if path), mask, patient, domain, split)


def _file(subject: pathlib.Path, part: str) -> pathlib.Path | None:
    paths = (subject / f"{subject.name}_{part}{ending}" for ending in _ENDINGS)
    return next((path for path in paths if path.is_file()), None)
