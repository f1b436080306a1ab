"""Calgary-Campinas-359: T1-weighted brain MRI of three vendors at two field strengths (Souza et al. 2018)."""

import pathlib
import re
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, RawCase

_IMAGE = re.compile(r"((CC\d{4})_(ge|philips|siemens)_(15|3)_\d+_[FM])\.nii\.gz", re.IGNORECASE)
_VENDORS = {"ge": "GE", "philips": "Philips", "siemens": "Siemens"}
_TESLA = {"15": "1.5 T", "3": "3 T"}
_MASKS = ("_staple.nii.gz", "_ss.nii.gz")  # in order of preference: the consensus first
# Folders of other masks, named like brain masks, or even like images.
_OTHERS = re.compile(r"hippocampus|manual|white.?matter|(?<![a-z])wm(?![a-z])", re.IGNORECASE)
_CONTENTS = Contents(("background", "brain"), {0: 0, 1: 1}, 1, ("percentiles", 0.5, 99.5), volumes=True)


class Cc359(records.Builder):
    """Brains of 359 healthy adults, one volume each, with the masks that the data set calls its silver standard.

    Masks are the consensus of eight programs (`CC0001_philips_15_55_M_staple.nii.gz`) or a network's
    (`..._ss.nii.gz`), wherever in the folder they are; where both kinds are there, the consensus is taken for all. The
    domain is vendor and field strength, such as `Philips 1.5 T`, as the names of the files have it. Slices are cut
    along the third axis of the files. Intensities are scaled by volume, from the 0.5th percentile to the 99.5th.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = records.SLICES_AND_VOLUMES
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "fetch Original.zip and Silver-standard-STAPLE.zip (or Silver-standard-machine-learning.zip) of the "
        "Calgary-Campinas data set (https://portal.conp.ca/dataset?id=projects/calgary-campinas) into one folder"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        cases: list[RawCase] = []
        problems: list[str] = []
        candidates = files.search(folder, "CC*.nii.gz")
        paths = [path for path in candidates if not _OTHERS.search(str(path.parent.relative_to(folder)))]
        kind = next((kind for kind in _MASKS if any(path.name.endswith(kind) for path in paths)), _MASKS[0])
        masks: dict[str, list[pathlib.Path]] = {}
        for path in paths:
            if path.name.endswith(kind):
                masks.setdefault(path.name.removesuffix(kind), []).append(path)
        images = {path: match for path in paths if (match := _IMAGE.fullmatch(path.name))}
        if not images:
            problems.append(
                f"{folder}: holds no image like CC0001_philips_15_55_M.nii.gz; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}"
            )
        for path, match in images.items():
            name, patient, vendor, field = match.groups()
            own = masks.pop(name, [])
            if len(own) == 1:
                domain = f"{_VENDORS[vendor.lower()]} {_TESLA[field]}"
                cases.append(RawCase(name, (path,), own[0], patient, domain))
            elif own:
                problems.append(f"{path}: has {len(own)} masks, {' and '.join(map(str, own))}; keep that of the brain")
            else:
                problems.append(f"{path}: has no mask {name}{kind}; add it or move the image away")
        for lonely in masks.values():
            problems += [f"{path}: has no image; add it or move the mask away" for path in lonely]
        return Found(cases, problems, _CONTENTS)
