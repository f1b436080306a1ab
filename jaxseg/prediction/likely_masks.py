"""Which files of a folder are masks of its images: by a table of cases, by the name of their folder, or by their own.

Nothing is a mask by itself: a file counts as one where an image is beside it that it may belong to.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from jaxseg.data.builders import case_table

_MASK = {"mask", "masks", "label", "labels", "seg", "segmentation", "segmentations", "annotation", "annotations"}
_MASK |= {"gt", "groundtruth", "truth", "delineation", "delineations"}
_IMAGE = {"image", "images", "imaging", "img", "imgs", "scan", "scans", "volume", "vol", "ct", "mr", "mri"}
_PART = {"tr", "ts", "train", "training", "val", "validation", "test", "testing", "png", "nii"}  # of a data set
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+")  # labelsTr: labels, Tr


def find(root: pathlib.Path, files: Sequence[pathlib.Path]) -> set[pathlib.Path]:
    """Those of the files that are masks of others.

    Args:
      root: the folder that a person named; what it is called itself says nothing, as it was asked for.
      files: all images in it and in the folders below.
    """
    named = _by_table(root, files)
    rest = [file for file in files if file not in named]
    placed = {file for file in rest if any(map(_holds_masks, _folders(file.relative_to(root), file)))}
    if len(placed) == len(rest):
        placed = set()  # where there are masks alone, they are what is meant
    rest = [file for file in rest if file not in placed]
    return named | placed | _by_name(rest)


def _by_table(root: pathlib.Path, files: Iterable[pathlib.Path]) -> set[pathlib.Path]:
    folders = {folder for file in files for folder in (file, *file.parents) if folder.is_relative_to(root)}
    tables = [table for folder in sorted(folders) if os.path.isfile(table := folder / case_table.NAME)]
    masks = {os.path.realpath(mask) for table in tables for mask in case_table.masks(table)}
    return {file for file in files if masks and os.path.realpath(file) in masks}


def _folders(place: pathlib.Path, file: pathlib.Path) -> Sequence[str]:
    return place.parts if os.path.isdir(file) else place.parts[:-1]  # a folder is one DICOM series


def _holds_masks(folder: str) -> bool:
    words = [word for word in _words(folder) if word not in _PART and not word.isdigit()]
    return bool(words) and words[-1] in _MASK


def _by_name(files: Iterable[pathlib.Path]) -> set[pathlib.Path]:
    """`a_mask.png` and `mask_a.png` beside `a.png`, `image_a.png` or `a_0000.png`; `mask.png` beside anything."""
    masks: dict[pathlib.Path, tuple[pathlib.Path, Sequence[str]]] = {}
    images: set[tuple[pathlib.Path, Sequence[str]]] = set()
    for file in files:
        words = _words(file.name[: -len(".nii.gz")] if file.name.lower().endswith(".nii.gz") else file.stem)
        at = next((i for i, word in enumerate(words) if word in _MASK), None)
        if at is None:
            case = _without_kind(words)
            images |= {(file.parent, case[:end]) for end in range(len(case) + 1)}
        else:
            masks[file] = file.parent, _without_kind(words[:at] or words[at + 1 :])
    return {file for file, image in masks.items() if image in images}


def _without_kind(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _IMAGE)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
