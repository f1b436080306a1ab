"""BBBC041: blood smears with malaria (Ljosa et al. 2012; Hung et al. 2017), and smears with VOC boxes such as BCCD."""

import math
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import tensorflow_datasets as tfds
from scipy import ndimage

from jaxseg.data import formats, raw_cases
from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, FileProblems, Found, Loaded, RawCase
from jaxseg.data.synthetic import smear

_TABLES = {"training.json": "train", "test.json": "test"}
_SUFFIXES = (".png", ".jpg", ".jpeg")
_CONTENTS = Contents(("background", "cell"), {0: 0, 1: 1}, channels=3)
_GREEN = 1  # haemoglobin and Giemsa's stain both absorb it
_NOISE = 1.2  # pixels: the Gaussian that removes noise before thresholding
_EDGE = 2  # pixels: a box that ends so near the image's border ends at it
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


class Annotated(NamedTuple):
    """One smear image with its boxes.

    Attributes:
      image: the file.
      size: (H, W) as the annotation has it.
      boxes: int `[N,4]`, (top, left, bottom, right) in pixels, the last two excluded, inside of the image.
      names: `[N]`, the class of each.
      split: the official one, or None.
    """

    image: pathlib.Path
    size: tuple[int, int]
    boxes: np.ndarray
    names: tuple[str, ...]
    split: str | None


class Bbbc041(records.Builder):
    """Smears of malaria patients whose cells have boxes, in which they are segmented here, as there are no masks.

    The folder holds `training.json`, `test.json` and `images` (BBBC041), or images with a VOC file (.xml) next to each,
    or `JPEGImages` and `Annotations` (BCCD), of which none has an official split. Images in no table are left out.

    The class is that of red cells, infected or not: `smear.CELL_NAMES`. White cells, platelets and what is difficult
    are background, as in the synthetic smears. It is not known who is in which image, nor which laboratory took it.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = (
        records.Config(name="512", description="squashed to 512 x 512", size=512),
        records.Config(name="full", description="1600 x 1200 as the files are"),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack malaria.zip of BBBC041 (https://bbbc.broadinstitute.org/BBBC041) so that the folder holds "
        "malaria/training.json, malaria/test.json and malaria/images"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        annotated, problems = boxes(folder)
        cases = [
            RawCase(item.image.stem, (item.image,), None, patient=item.image.stem, split=item.split, part=item)
            for item in annotated
        ]
        return Found(cases, problems, _CONTENTS)

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        del at_least  # boxes are in pixels of the whole image
        (path,) = case.images
        item: Annotated = case.part
        try:
            image = formats.read(path).array
        except formats.Unusable as problem:
            raise FileProblems(f"{path}: {problem}") from problem
        if image.shape[:2] != item.size:
            raise FileProblems(
                f"{path}: is {raw_cases.size_text(image.shape[:2])}, its boxes are for "
                f"{raw_cases.size_text(item.size)}; use the image that they were drawn for"
            )
        is_cell = [name in smear.CELL_NAMES for name in item.names]
        return Loaded(image, cells(image, item.boxes[is_cell]).astype(np.uint8), (math.nan, math.nan))


def cells(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which pixels are of cells: in every box, the largest thing that is darker than Otsu's threshold, without holes.

    All dark matter is made equally dark first, or the threshold of a box would split a parasite from its cell, or a
    cell from a paler one on which it lies. Where the image's border crops a cell, it closes its outline.

    Args:
      image: uint8 `[H,W,C]`, the green channel is taken of colour.
      boxes: int `[N,4]`, (top, left, bottom, right), the last two excluded, in the image.

    Returns:
      bool `[H,W]`.

    Source: Wilm et al. 2024, section III.A, thresholds the cells of its templates.
    """
    levels = cv2.GaussianBlur(np.ascontiguousarray(image[..., min(_GREEN, image.shape[-1] - 1)]), (0, 0), _NOISE)
    levels = np.maximum(levels, _dark(levels))
    height, width = levels.shape
    covered = np.zeros(levels.shape, bool)
    for top, left, bottom, right in boxes:
        part = np.s_[top:bottom, left:right]
        at_border = ((top <= _EDGE, bottom >= height - _EDGE), (left <= _EDGE, right >= width - _EDGE))
        covered[part] |= _largest(_without_holes(levels[part] <= _otsu(levels[part]), at_border))
    return covered


def _dark(levels: np.ndarray) -> np.uint8:
    """Halfway from the median of what is below Otsu's threshold of the whole image to this threshold."""
    threshold = _otsu(levels)
    return np.uint8((np.median(levels[levels <= threshold]) + threshold) / 2)


def _without_holes(mask: np.ndarray, closed: tuple[tuple[bool, bool], tuple[bool, bool]]) -> np.ndarray:
    """Holes filled, also those that are open to a side (top and bottom, left and right) that is closed."""
    (top, _), (left, _) = closed
    padded = ndimage.binary_fill_holes(np.pad(mask, np.array(closed, int), constant_values=True))
    return padded[int(top) :, int(left) :][: mask.shape[0], : mask.shape[1]]


def _otsu(levels: np.ndarray) -> float:
    return cv2.threshold(np.ascontiguousarray(levels), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]


def _largest(mask: np.ndarray) -> np.ndarray:
    components, count = ndimage.label(mask)
    return components == 1 + np.argmax(np.bincount(components.ravel(), minlength=count + 1)[1:]) if count else mask


def boxes(folder: pathlib.Path) -> tuple[list[Annotated], list[str]]:
    """The annotated smear images of a folder, in the order of the tables or by name; no image is opened.

    Args:
      folder: holds, at any of its first levels, `training.json` of BBBC041 or VOC files; see `Bbbc041`.

    Returns:
      annotated: images that are there, each with the boxes that can be used.
      problems: one line for every missing or damaged table and image, unknown class, and box outside of its image.
    """
    problems: list[str] = []
    tables = files.search(folder, "training.json") or files.search(folder, "test.json")
    if tables:
        inner = tables[0].parent
        return [item for name, split in _TABLES.items() for item in _of_json(inner / name, split, problems)], problems
    tables = files.search(folder, "*.xml")
    if not tables:
        problems.append(f"{folder}: holds no training.json and no VOC file; {Bbbc041.MANUAL_DOWNLOAD_INSTRUCTIONS}")
    return [item for table in tables for item in _of_voc(table, problems)], problems


class _Entry(NamedTuple):
    """An image of a table, as it is written there."""

    image: pathlib.Path
    size: tuple[int, int]
    objects: list[tuple[str, tuple[int, int, int, int]]]


def _of_json(table: pathlib.Path, split: str, problems: list[str]) -> Iterator[Annotated]:
    entries, wrong = files.read_json(table)
    problems += wrong
    if not wrong and not isinstance(entries, list):
        problems.append(f"{table}: is not a list of images; fetch it again")
    for number, entry in enumerate(entries if isinstance(entries, list) else (), 1):
        try:
            read = _entry_of_json(table.parent / "images", entry)
        except _MALFORMED as error:
            problems.append(f"{table}: image {number} is not as in BBBC041 ({_what(error)}); fetch it again")
            continue
        yield from _checked(read, table, split, problems)


def _entry_of_json(images: pathlib.Path, entry: Any) -> _Entry:
    size = tuple(int(entry["image"]["shape"][axis]) for axis in ("r", "c"))
    objects = []
    for thing in entry["objects"]:
        low, high = (thing["bounding_box"][end] for end in ("minimum", "maximum"))
        objects.append((str(thing["category"]), (int(low["r"]), int(low["c"]), int(high["r"]), int(high["c"]))))
    # "/images/NAME": folders that a file names are not trusted
    return _Entry(images / pathlib.PurePosixPath(entry["image"]["pathname"]).name, (size[0], size[1]), objects)


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise FileProblems("declares a DOCTYPE, with which a few lines can fill all memory; remove it")


def _of_voc(table: pathlib.Path, problems: list[str]) -> Iterator[Annotated]:
    try:
        root = ElementTree.fromstring(table.read_bytes(), ElementTree.XMLParser(target=_NoDoctype()))
        read = _entry_of_voc(table, root)
    except FileProblems as problem:
        problems.append(f"{table}: {problem}")
    except (OSError, ElementTree.ParseError, *_MALFORMED) as error:
        problems.append(f"{table}: is not a VOC file ({_what(error)}); fetch it again")
    else:
        yield from _checked(read, table, None, problems)


def _entry_of_voc(table: pathlib.Path, root: ElementTree.Element) -> _Entry:
    number = lambda element, path: int(float(_text(element, path)))
    objects = []
    for thing in root.iter("object"):
        top, left, bottom, right = (number(thing, f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax"))
        objects.append((_text(thing, "name"), (top, left, bottom, right)))
    folders = (table.parent, table.parent.parent / "JPEGImages")
    images = [folder / f"{table.stem}{suffix}" for folder in folders for suffix in _SUFFIXES]
    image = next((path for path in images if path.exists()), table.with_suffix(".jpg"))
    return _Entry(image, (number(root, "size/height"), number(root, "size/width")), objects)


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text.strip()


def _checked(entry: _Entry, table: pathlib.Path, split: str | None, problems: list[str]) -> Iterator[Annotated]:
    """The image with the parts of its boxes that are in it, unless it is missing."""
    if not entry.image.is_file():
        problems.append(f"{entry.image}: is not there, {table.name} names it; add it")
        return
    names, kept = [], []
    for name, box in entry.objects:
        clipped = np.clip(box, 0, (*entry.size, *entry.size))
        if name not in (*smear.CELL_NAMES, *smear.ARTIFACT_NAMES):
            known = ", ".join((*smear.CELL_NAMES, *smear.ARTIFACT_NAMES))
            problems.append(f"{entry.image}: {table.name} names a {name!r}; known are {known}")
        elif (clipped[2:] <= clipped[:2]).any():
            problems.append(
                f"{entry.image}: the box {box} of a {name} in {table.name} is empty or outside of the "
                f"{entry.size[0]} x {entry.size[1]} image; remove or correct it"
            )
        else:
            names.append(name)
            kept.append(clipped)
    yield Annotated(entry.image, entry.size, np.reshape(np.array(kept, int), (-1, 4)), tuple(names), split)


def _what(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
