"""Which files of a folder are masks of its images: by a table of cases, by what they are, by the name of their folder,
or by their own.

But for those of a table, a file counts as a mask only where there is an image that it may belong to.
"""

import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from jaxseg.data import formats
from jaxseg.data.builders import case_table

_MASK = {"mask", "masks", "label", "labels", "seg", "segs", "segmentation", "segmentations", "annotation"}
_MASK |= {"annotations", "gt", "gts", "groundtruth", "truth", "delineation", "delineations", "contour", "contours"}
_MASK |= {"manual", "roi", "rois"}
_IMAGE = {"image", "images", "imaging", "img", "imgs", "scan", "scans", "volume", "vol", "ct", "mr", "mri"}
_IMAGES = {"image", "images", "imaging", "img", "imgs", "scans", "volumes"}  # of a folder; those of masks are CT too
_MODALITY = {"t", "w", "ce", "gd", "pd", "flair", "dwi", "adc", "swi", "pet", "pre", "post"}  # t1ce: t, 1, ce
_PART = {"tr", "ts", "train", "training", "val", "validation", "test", "testing", "png", "nii", "tif"}  # of a data set
_SORT = {"class", "classes", "object", "objects", "instance", "instances", "semantic", "binary", "fine", "coarse"}
_SORT |= {"final", "corrected", "cleaned", "clean", "merged", "combined", "consensus", "all", "v", "st", "nd", "rd"}
_OTHERWISE = {"free"}  # what is label-free has no labels
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+")  # labelsTr: labels, Tr
_SLICER = (".seg.nrrd", ".seg.nhdr")
_SLICER_FIELD = re.compile(rb"^Segment(ation|\d+)_", re.MULTILINE)
_NRRD_HEADER = 1 << 16  # bytes, of which few headers have as many

Words = tuple[str, ...]


def find(root: pathlib.Path, files: Sequence[pathlib.Path]) -> set[pathlib.Path]:
    """Those of the files that are masks of others.

    Args:
      root: the folder that a person named; what it is called itself says nothing, as it was asked for.
      files: all images in it and in the folders below.
    """
    named = _by_table(root, files)
    masks = set(named)
    for rule in (_by_kind, _by_folder, _by_name):
        rest = [file for file in files if file not in masks]
        further = rule(root, rest)
        if len(further) < len(rest):  # where there are masks alone, they are what is meant
            masks |= further
    return masks


def _by_table(root: pathlib.Path, files: Iterable[pathlib.Path]) -> set[pathlib.Path]:
    folders = {folder for file in files for folder in (file, *file.parents) if folder.is_relative_to(root)}
    tables = [table for folder in sorted(folders) if os.path.isfile(table := folder / case_table.NAME)]
    masks = {os.path.realpath(mask) for table in tables for mask in case_table.masks(table)}
    return {file for file in files if masks and os.path.realpath(file) in masks}


def _by_kind(root: pathlib.Path, files: Iterable[pathlib.Path]) -> set[pathlib.Path]:
    """DICOM SEG, and what 3D Slicer stores as a segmentation, wherever they lie."""
    del root
    return {file for file in files if os.path.isfile(file) and (_is_of_slicer(file) or _is_dicom_seg(file))}


def _is_dicom_seg(file: pathlib.Path) -> bool:
    held = formats.dicom_object(file)
    return held is not None and held.kind == "segmentation"


def _is_of_slicer(file: pathlib.Path) -> bool:
    name = file.name.lower()
    if name.endswith(_SLICER):
        return True
    if not name.endswith((".nrrd", ".nhdr")):
        return False
    try:
        with file.open("rb") as stream:
            header = stream.read(_NRRD_HEADER).replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    except OSError:
        return False  # whoever reads it names it
    return _SLICER_FIELD.search(header) is not None


def _by_folder(root: pathlib.Path, files: Sequence[pathlib.Path]) -> set[pathlib.Path]:
    """The files whose nearest folder that tells is one of masks."""
    told = _told(root, files)
    unsure = defaultdict(list)
    for file, (kind, folder) in told.items():
        if kind == "unsure":
            unsure[folder].append(file)
    # of a folder with further words in its name, each file needs an image that is called like it
    images = {_case(file) for file, (kind, _) in told.items() if kind not in ("masks", "unsure")}
    sure = [group for group in unsure.values() if all(_case(file) and _case(file) in images for file in group)]
    return {file for file, (kind, _) in told.items() if kind == "masks"}.union(*sure)


def _told(root: pathlib.Path, files: Sequence[pathlib.Path]) -> dict[pathlib.Path, tuple[str, pathlib.Path]]:
    """What the nearest folder that tells says of each file.

    A folder around images and masks may be called `segmentation` too: where one of masks is below it and none of images
    beside it, it tells nothing.
    """
    around: set[pathlib.Path] = set()
    while True:
        told = {file: _nearest(root, file, around) for file in files}
        masks, images = ({folder for kind, folder in told.values() if kind == wanted} for wanted in ("masks", "images"))
        above = {parent for folder in masks for parent in folder.parents}
        more = {folder for folder in masks & above if not _any_beside(folder, images)} - around
        if not more:  # every round knows more folders than the one before, so there is a last one
            return told
        around |= more


def _any_beside(folder: pathlib.Path, others: Iterable[pathlib.Path]) -> bool:
    return any(other.is_relative_to(folder.parent) and not other.is_relative_to(folder) for other in others)


def _nearest(root: pathlib.Path, file: pathlib.Path, around: set[pathlib.Path]) -> tuple[str, pathlib.Path]:
    folder = file if os.path.isdir(file) else file.parent  # a folder is one DICOM series
    while folder != root:
        kind = "" if folder in around else _says(folder.name)
        if kind:
            return kind, folder
        folder = folder.parent
    return "", root


def _says(folder: str) -> str:
    """What the name of a folder says of the files in it: `masks`, `images`, `unsure` whether masks, or nothing."""
    words = _words(folder)
    telling = [word for word in words if not (word.isdigit() or word in _PART | _SORT)]
    if not telling:
        return ""
    if telling[-1] in _MASK:
        return "masks"
    if telling[-1] in _IMAGES:
        return "" if any(word.isdigit() for word in words) else "images"  # `scan_2` may be one of masks too
    return "" if _MASK.isdisjoint(telling) or not _OTHERWISE.isdisjoint(telling) else "unsure"


def _by_name(root: pathlib.Path, files: Iterable[pathlib.Path]) -> set[pathlib.Path]:
    """`a_mask.png`, `a_tumour_mask.png`, `mask_a.png` beside `a.png`, `image_a.png`, `a_0000.png`; `mask.png` anywhere.

    Where a folder holds one case, whose images are called just `imaging` or `t1`, `x_mask.png` and `mask_x.png` are its
    masks too.
    """
    del root
    masks: dict[pathlib.Path, Words] = {}
    images: dict[pathlib.Path, list[Words]] = defaultdict(list)
    for file in files:
        words = _words(_stem(file))
        if _MASK.isdisjoint(words):
            images[file.parent].append(words)
        else:
            masks[file] = words
    beside = {folder: _Beside(names) for folder, names in images.items()}
    return {file for file, words in masks.items() if file.parent in beside and beside[file.parent].has_image(words)}


class _Beside:
    """The images of one folder, by the words of their names."""

    def __init__(self, names: Sequence[Words]):
        cases = [_without_kind(words) for words in names]
        self._beginnings = {case[:end] for case in cases for end in range(len(case) + 1)}
        self._cases = {_without_modality(case) for case in cases} - {()}
        self._one_case = all(map(_is_kind_alone, names))

    def has_image(self, mask: Words) -> bool:
        """Whether there is one that a mask of that name may belong to."""
        at = next(i for i, word in enumerate(mask) if word in _MASK)
        before, after = mask[:at], mask[at + 1 :]
        if _without_kind(before or after) in self._beginnings:
            return True
        if any(before[: len(case)] == case and not before[len(case)].isdigit() for case in self._cases):
            return True
        last = next(word for word in reversed(mask) if not word.isdigit())
        plain = all(word not in _IMAGE | _MODALITY and not word.isdigit() for word in after)
        return self._one_case and (last in _MASK or (not before and plain))


def _is_kind_alone(words: Words) -> bool:
    named = [word for word in words if not word.isdigit()]
    return bool(named) and all(word in _IMAGE | _MODALITY for word in named)


def _without_kind(words: Words) -> Words:
    return tuple(word for word in words if word not in _IMAGE)


def _without_modality(words: Words) -> Words:
    """The words up to the first that says what was measured: `case_1` of `case_1_t1ce`."""
    return words[: next((i for i, word in enumerate(words) if word in _MODALITY), len(words))]


def _case(file: pathlib.Path) -> Words:
    """What a name says of the case, and not of what is seen of it."""
    return tuple(word for word in _words(_stem(file)) if word not in _MASK | _IMAGE | _PART | _SORT)


def _stem(file: pathlib.Path) -> str:
    return file.name[: -len(".nii.gz")] if file.name.lower().endswith(".nii.gz") else file.stem


def _words(name: str) -> Words:
    return tuple(word.lower() for word in _WORD.findall(name))
