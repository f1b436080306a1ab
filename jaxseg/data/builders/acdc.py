"""ACDC: short-axis cardiac MRI (Bernard et al. 2018), the training domain of Lennartz and Schultz 2023."""

import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, RawCase

_SPLITS = {"training": "train", "testing": "test"}
_IMAGE = re.compile(r"(patient\d+)_frame(\d+)\.nii(\.gz)?")
# All cardiac data sets use the class order of ACDC.
HEART = ("background", "right ventricle", "myocardium", "left ventricle")


class Acdc(records.Builder):
    """End-diastolic and end-systolic volumes of 150 patients; a tenth of the training patients is used for validation.

    Intensities are scaled by volume, from the 0.5th percentile to the 99.5th.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = records.SLICES_AND_VOLUMES
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack ACDC (https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html) so that the folder holds "
        "training/patient001/patient001_frame01.nii.gz and so on, and testing likewise if it is there"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        folder = files.descend(folder, "training")
        contents = Contents(HEART, {k: k for k in range(4)}, 1, ("percentiles", 0.5, 99.5), volumes=True)
        cases: list[RawCase] = []
        problems: list[str] = []
        if not (folder / "training").is_dir():
            problems.append(f"{folder / 'training'}: no such folder; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        for name, split in _SPLITS.items():
            for patient in sorted((folder / name).glob("patient*")):
                if patient.is_dir():
                    cases += _frames(patient, split, problems)
        return Found(cases, problems, contents)


def _frames(folder: pathlib.Path, split: str, problems: list[str]) -> Iterator[RawCase]:
    images = {path: match for path in sorted(folder.iterdir()) if (match := _IMAGE.fullmatch(path.name))}
    if not images:
        problems.append(f"{folder}: holds no frame ({folder.name}_frameNN.nii.gz); fetch it again")
    for path, match in images.items():
        patient, frame, end = match.groups()
        mask = folder / f"{patient}_frame{frame}_gt.nii{end or ''}"
        if mask.exists():
            yield RawCase(f"{patient}_frame{frame}", (path,), mask, patient=patient, split=split)
        else:
            problems.append(f"{path}: has no mask {mask.name}; add it or move the image away")
    for mask in sorted(folder.glob("patient*_frame*_gt.nii*")):
        image = folder / mask.name.replace("_gt.nii", ".nii")
        if image not in images:
            problems.append(f"{mask}: has no image {image.name}; add it or move the mask away")
