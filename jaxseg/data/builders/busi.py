"""BUSI: lesions in breast ultrasound (Al-Dhabyani et al. 2020, doi:10.1016/j.dib.2019.104863)."""

import pathlib
import re
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import raw_cases
from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, Loaded, RawCase

_NEEDED, _OPTIONAL = ("benign", "malignant"), ("normal",)
_FILE = re.compile(r"(?P<kind>\w+) \((?P<number>\d+)\)(?P<mask>_mask(_\d+)?)?")
_CONTENTS = Contents(("background", "lesion"), {0: 0, 255: 1}, channels=3)  # some have a coloured mark or text


class Busi(records.Builder):
    """780 images of 600 women; which images show the same woman is not known, so every image counts as its own patient.

    Folders `benign`, `malignant` and `normal`, which may be left out, hold `benign (1).png` and `benign (1)_mask.png`;
    further masks of an image, `benign (1)_mask_1.png`, are further lesions, and the labels are their union. The domain
    is the folder: all images come from one hospital, and this way the analyses of shortcuts say whether the text and
    calipers in the images go with the kind of lesion. It also gives each split its share of each kind.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = (
        records.Config(name="full", description="as the files are; sizes vary"),
        records.Config(name="256", description="squashed to 256 x 256", size=256),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack BUSI (https://scholar.cu.edu.eg/?q=afahmy/pages/dataset) so that the folder holds "
        "Dataset_BUSI_with_GT/benign/benign (1).png and so on"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        folder = files.descend(folder, "benign")
        cases: list[RawCase] = []
        problems: list[str] = []
        for kind in (*_NEEDED, *_OPTIONAL):
            if (folder / kind).is_dir():
                cases_of_kind, wrong = _cases(folder / kind)
                cases += cases_of_kind
                problems += wrong
            elif kind in _NEEDED:
                problems.append(f"{folder / kind}: no such folder; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return Found(cases, problems, _CONTENTS)

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        loaded = raw_cases.load(case, at_least=at_least)
        others = [raw_cases.load(case._replace(mask=mask), at_least=at_least).labels for mask in case.part]
        # a value that is not a label stays, so that the doctor reports it
        return loaded._replace(labels=np.max([loaded.labels, *others], axis=0)) if others else loaded


def _cases(folder: pathlib.Path) -> tuple[list[RawCase], list[str]]:
    cases: list[RawCase] = []
    problems: list[str] = []
    images: dict[int, pathlib.Path] = {}
    masks: dict[int, list[pathlib.Path]] = {}
    for path in files.search(folder, "*.png", levels=1):
        match: Any = _FILE.fullmatch(path.stem)
        if match is None or match["kind"] != folder.name:
            problems.append(
                f"{path}: wrong name; files are named {folder.name} (N).png and {folder.name} (N)_mask.png: rename it"
            )
        elif match["mask"]:
            masks.setdefault(int(match["number"]), []).append(path)
        else:
            images[int(match["number"])] = path
    for number in sorted(images.keys() | masks.keys()):
        if number not in masks:
            problems.append(
                f"{images[number]}: has no mask {images[number].stem}_mask.png; add it or move the image away"
            )
        elif number not in images:
            problems += [f"{mask}: has no image {folder.name} ({number}).png; add it" for mask in masks[number]]
        else:
            name, (mask, *others) = f"{folder.name}_{number}", masks[number]
            cases.append(RawCase(name, (images[number],), mask, patient=name, domain=folder.name, part=tuple(others)))
    if not images and not problems:
        problems.append(f"{folder}: holds no file named {folder.name} (N).png; unpack the official archive again")
    return cases, problems
