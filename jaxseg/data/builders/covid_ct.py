"""COVID-19 in chest CT: the two public data sets that He et al. 2022, section 4.1, merge."""

import math
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, Loaded, RawCase

_SCANS, _MASKS = "COVID-19-CT-Seg_20cases", "Infection_Mask"
_SOURCES = ("coronacases", "radiopaedia")  # of the scans, whose names begin with it
_PICTURES, _PICTURE_MASKS = ("tr_im.nii.gz", "tr_im.nii"), ("tr_mask.nii.gz", "tr_mask.nii")
_MEDSEG = "medicalsegmentation"
_WINDOW = (-1250.0, 250.0)  # HU: the lung window in which half of the scans were published
# Of the pictures: 1 ground glass, 2 consolidation, 3 pleural effusion; of the scans: 1 infection.
_CONTENTS = Contents(("background", "infection"), {0: 0, 1: 1, 2: 1, 3: 1}, 1, ("window", *_WINDOW), volumes=True)


class CovidCt(records.Builder):
    """Infections of the lung in 20 scans (Ma et al. 2020) and 100 slices (medicalsegmentation.com), or of one of them.

    The domain is the source: `coronacases`, `radiopaedia` or `medicalsegmentation`. The 100 slices are one file
    (`tr_im.nii.gz`) of more than 40 patients, and which slices show the same one is not known; so all of them count
    as one patient, and no patient can be in two splits. They are published pictures resized to one size, so their
    pixel size is unknown. As they are not a volume, `volumes` has the 20 scans alone; each is a patient.

    The lung window of -1250 to 250 HU is kept. The scans of `radiopaedia` were published in that window, as 0 to 255
    (see zenodo.org/records/3757476): a file without values outside of that range is taken to be such a
    one and is stored as it is, as every chest in Hounsfield units contains air.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = records.SLICES_AND_VOLUMES
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"fetch {_SCANS}.zip and {_MASKS}.zip of https://zenodo.org/records/3757476, and tr_im.nii.gz and "
        "tr_mask.nii.gz of http://medicalsegmentation.com/covid19, into one folder (unpacked, if you like, each into a "
        "folder of its name)"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        scans, problems = _scans(files.descend(folder, _SCANS))
        pictures, more = ([], []) if config.volumes else _pictures(folder)
        problems += more
        if not scans and not pictures and not problems:
            wanted = f"no {_SCANS}" + ("" if config.volumes else f" and no {_PICTURES[0]}")
            problems.append(f"{folder}: holds {wanted}; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return Found([*scans, *pictures], problems, _CONTENTS)

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        loaded = super().load(case, at_least=at_least)
        if case.domain == _MEDSEG:
            unknown = (math.nan,) * 3
            loaded = loaded._replace(spacing=unknown, mask_spacing=unknown)
        return loaded._replace(image=_hounsfield(loaded.image))


def _hounsfield(image: np.ndarray) -> np.ndarray:
    if image.min() < 0 or image.max() > 255:
        return image
    low, high = _WINDOW
    return image.astype(np.float32) / 255 * (high - low) + low


def _scans(folder: pathlib.Path) -> tuple[list[RawCase], list[str]]:
    cases: list[RawCase] = []
    problems: list[str] = []
    images, masks = folder / _SCANS, folder / _MASKS
    if not images.is_dir():
        return [], []
    if not masks.is_dir():
        return [], [f"{masks}: no such folder; fetch {_MASKS}.zip from where the scans are"]
    for source in _SOURCES:
        names = files.Names(f"{source}_", image=".nii.gz", mask=".nii.gz")
        pairs, wrong = files.find_pairs(images, masks, names)
        problems += wrong
        cases += [RawCase(pair.case, (pair.image,), pair.mask, patient=pair.case, domain=source) for pair in pairs]
    return cases, problems


def _pictures(folder: pathlib.Path) -> tuple[list[RawCase], list[str]]:
    image, mask = (
        next((path for name in names for path in files.search(folder, name, levels=2)), None)
        for names in (_PICTURES, _PICTURE_MASKS)
    )
    if image is not None and mask is not None:
        return [RawCase(_MEDSEG, (image,), mask, patient=_MEDSEG, domain=_MEDSEG)], []
    if image is not None:
        return [], [f"{image}: has no mask {_PICTURE_MASKS[0]}; add it or move the image away"]
    if mask is not None:
        return [], [f"{mask}: has no image {_PICTURES[0]}; add it or move the mask away"]
    return [], []
