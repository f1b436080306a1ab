"""ISIC 2017 part 1: lesion segmentation in dermoscopy (Codella et al. 2018, arXiv:1710.05006)."""

import pathlib
from collections.abc import Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, RawCase

FOLDERS = {
    "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    "validation": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
    "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
}
_NAMES = files.Names("ISIC_", image=".jpg", mask="_segmentation.png", ignored=("_superpixels.png", ".csv"))
_CONTENTS = Contents(("background", "lesion"), {0: 0, 255: 1}, channels=3)


class Isic2017(records.Builder):
    """2000 training, 150 validation and 600 test images of skin lesions with the outlines that experts drew.

    Images of the sizes 256 and 512 are stored as PNG: a second JPEG compression would add artefacts of our own to
    data that are used to find shortcuts, and a gigabyte is little next to the six of the originals.
    """

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS: ClassVar[Sequence[records.Config]] = (
        records.Config(name="256", description="squashed to 256 x 256", size=256),
        records.Config(name="512", description="squashed to 512 x 512", size=512),
        records.Config(name="full", description="the official files; sizes vary"),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the archives of ISIC 2017 part 1 (https://challenge.isic-archive.com/data/#2017) into one folder, so "
        f"that it holds {', '.join(folder for pair in FOLDERS.values() for folder in pair)}"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        cases, problems = [], []
        for split, (images, masks) in FOLDERS.items():
            pairs, wrong = files.find_pairs(folder / images, folder / masks, _NAMES)
            problems += wrong
            # the challenge does not say which images show the same patient
            cases += [RawCase(pair.case, (pair.image,), pair.mask, patient=pair.case, split=split) for pair in pairs]
        return Found(cases, problems, _CONTENTS)
