"""MS-CCT: canine skin tumours, each slide scanned five times (Wilm et al. 2023, doi:10.1007/978-3-658-41657-7_46)."""

import functools
import math
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
import tifffile

from jaxseg.data import raw_cases, threads
from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, FileProblems, Found, Loaded, RawCase

_TABLE = "scc.json"
# A to E in the paper's table I: Aperio CS2, NanoZoomer S210 and 2.0-HT, Pannoramic 1000, Aperio GT450
SCANNERS = ("cs2", "nz210", "nz20", "p1000", "gt450")
_SLIDE = re.compile(rf"scc_(\d+)_({'|'.join(SCANNERS)})\.tif")
# The authors' own (scc_dataset.csv of github.com/DeepMicroscopy/MultiScanner_SCC); all others are for training.
_HELD_OUT = {
    **dict.fromkeys((3, 9, 25, 26, 37), "validation"),
    **dict.fromkeys((7, 8, 10, 11, 16, 32, 33, 34, 44), "test"),
}
_BACKGROUND, _TISSUE, _TUMOR, _NOTHING = 0, 1, 2, 255  # the last where nothing is annotated
_CLASSES = {
    **dict.fromkeys(("bone", "cartilage", "dermis", "epidermis", "subcutis", "inflamm/necrosis"), _TISSUE),
    **dict.fromkeys(("scc", "tumor"), _TUMOR),
}
_CONTENTS = Contents(("background", "tissue", "tumor"), {k: k for k in range(3)}, channels=3)

_PATCHES = 32  # of a slide that is trained on
_SHARES = np.array((0.1, 0.45, 0.45))  # of them by class
_LEAST_TISSUE = 0.5  # of a patch that is tested on
_STEP = 8  # pixels: the lattice on which slides are sampled to find patches
_COARSEST = 0.1  # mm; larger pixels are written by programs that do not know the size, such as 72 to the inch
_FARTHEST = 2**20  # pixels; an outline that reaches beyond is not one of a slide
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


class Polygon(NamedTuple):
    """One annotation.

    Attributes:
      value: its class.
      rings: int32 `[N,2]` each, (x, y) in pixels of the slide; what lies within an even number of them is a hole.
    """

    value: int
    rings: tuple[np.ndarray, ...]


class Slide(NamedTuple):
    """What is known about a slide.

    Attributes:
      path: of its file.
      size: (H, W).
      polygons: in the order of the table, in which those inside of others come after them.
      white: gray values above it are slide background.
      spacing: mm, (y, x); NaN where the file does not tell.
    """

    path: pathlib.Path
    size: tuple[int, int]
    polygons: tuple[Polygon, ...]
    white: float
    spacing: tuple[float, float]


class Patch(NamedTuple):
    """`RawCase.part`: a square of a slide, from its upper left pixel."""

    slide: Slide
    top: int
    left: int
    side: int


class MsCct(records.Builder):
    """Patches of 44 squamous cell carcinomas on five scanners, at the low resolution that is published.

    The folder holds the slides `scc_NN_SCANNER.tif`, at any of its first levels, and `scc.json` with the outlines (MS
    COCO, in pixels of the slides). A scanner may be left out entirely. Domain is the scanner, patient the sample;
    its five scans are in one split, which is the authors' (nine samples for testing, five for validation).

    Labels are tumour, other tissue, and slide background. Outlines are drawn in the order of the table, later ones over
    earlier ones. Outside of them, what is brighter than Otsu's threshold of the slide is background; the rest is called
    tissue, which the authors leave out of their loss. Black, where nothing was scanned, is background.

    Slides for training and validation give 32 patches each, with centres on tumour and on other outlined tissue in
    equal parts, and a tenth on background (Wilm et al. 2024, section III.C); they are drawn once, by the name of the
    slide. Where a slide lacks a class, the others get its patches. Slides for testing give every patch of the grid of
    which more than half is tissue.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = (
        records.Config(name="512", description="patches of 512 x 512 as in the paper", size=512),
        records.Config(name="256", description="patches of 256 x 256", size=256),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"put the slides (scc_01_cs2.tif and so on) and {_TABLE} of https://doi.org/10.5281/zenodo.7418554 into one "
        "folder"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        assert config.size
        slides, problems = _slides(folder)
        open_slide = functools.partial(_cases, side=config.size)
        cases: list[RawCase] = []
        for result in threads.in_threads(open_slide, slides, "reading slides"):
            if isinstance(result, str):
                problems.append(result)
            else:
                cases += result
        return Found(cases, problems, _CONTENTS)

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        del at_least
        patch: Patch = case.part
        slide, corner, size = patch.slide, (patch.top, patch.left), (patch.side, patch.side)
        try:
            image = _region(slide.path, corner, size)
        except Exception as error:  # tifffile and its codecs raise their own
            raise FileProblems(_unreadable(slide.path, error)) from error
        return Loaded(image, _labels(_gray(image), slide.white, _drawn(slide.polygons, corner, size)), slide.spacing)


# The table.


class _ListedSlide(NamedTuple):
    path: pathlib.Path
    size: tuple[int, int]
    polygons: tuple[Polygon, ...]


def _slides(folder: pathlib.Path) -> tuple[list[_ListedSlide], list[str]]:
    """The slides that are there and in the table, sorted by name."""
    tables = files.search(folder, _TABLE)
    table, problems = files.read_json(tables[0] if tables else folder / _TABLE)
    if problems:
        return [], problems
    try:
        named, polygons = _read_table(table)
    except _MALFORMED as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        return [], [f"{tables[0]}: is not as MS COCO tables are ({what}); fetch it again"]
    slides = []
    paths = {path.name: path for path in files.search(folder, "*.tif")}
    for name, path in paths.items():
        if not _SLIDE.fullmatch(name):
            known = ", ".join(SCANNERS)
            problems.append(f"{path}: wrong name; slides are named scc_NN_SCANNER.tif with one of {known}: rename it")
        elif name not in named:
            problems.append(f"{path}: {_TABLE} does not name it; use the table that belongs to the slides")
        elif not polygons[name]:
            problems.append(f"{path}: {_TABLE} has no outline in it; leave it out")
        else:
            problems += _outside(path, named[name], polygons[name])
            slides.append(_ListedSlide(path, named[name], tuple(polygons[name])))
    scanners = {match[2] for name in paths if (match := _SLIDE.fullmatch(name))}
    problems += [
        f"{tables[0].parent / name}: is not there, {_TABLE} names it; add it, or leave out all slides of its scanner"
        for name in sorted(named.keys() - paths.keys())
        if (match := _SLIDE.fullmatch(name)) and match[2] in scanners
    ]
    if not paths:
        problems.append(f"{folder}: holds no slide (scc_NN_SCANNER.tif); {MsCct.MANUAL_DOWNLOAD_INSTRUCTIONS}")
    return slides, problems


def _read_table(table: Any) -> tuple[dict[str, tuple[int, int]], dict[str, list[Polygon]]]:
    """Name of a slide -> its size, and its polygons; raises one of `_MALFORMED`."""
    values = {}
    for category in table["categories"]:
        if category["name"].lower() in _CLASSES:
            values[category["id"]] = _CLASSES[category["name"].lower()]
    names = {image["id"]: image["file_name"] for image in table["images"]}
    sizes = {image["file_name"]: (int(image["height"]), int(image["width"])) for image in table["images"]}
    polygons: dict[str, list[Polygon]] = {name: [] for name in sizes}
    for number, annotation in enumerate(table["annotations"], 1):
        if annotation["category_id"] not in values:  # the other tumours of CATCH do not occur here
            raise ValueError(f"annotation {number} has the unknown category {annotation['category_id']}")
        polygon = Polygon(values[annotation["category_id"]], tuple(_rings(annotation["segmentation"])))
        polygons[names[annotation["image_id"]]].append(polygon)
    return sizes, polygons


def _rings(segmentation: Any) -> Iterator[np.ndarray]:
    """MS COCO has a list of rings, x, y, x, y, ... each; tables of the authors have one ring without a list around."""
    for ring in segmentation if isinstance(segmentation[0], list) else [segmentation]:
        points = np.rint(np.asarray(ring, float)).reshape(-1, 2)
        if len(points) < 3:
            raise ValueError(f"an outline of {len(points)} points")
        if not (abs(points) < _FARTHEST).all():
            raise ValueError("an outline without an end")
        yield points.astype(np.int32)


def _outside(path: pathlib.Path, size: tuple[int, int], polygons: Sequence[Polygon]) -> Iterator[str]:
    """An outline may reach over the border of its slide, but must not lie outside it."""
    for polygon in polygons:
        points = np.concatenate(polygon.rings)
        if (points.max(0) < 0).any() or (points.min(0) >= size[::-1]).any():
            x, y = points[0]
            yield (
                f"{path}: an outline in {_TABLE} lies outside of its {size[1]}x{size[0]} pixels (at {x}, {y}); use the "
                "table that belongs to the slides"
            )
            return


# One slide.


def _cases(listed: _ListedSlide, side: int) -> list[RawCase] | str:
    """The patches of a slide; or what is wrong with it."""
    path, size, polygons = listed
    try:
        gray, slide = _open(path, polygons)
    except Exception as error:
        return _unreadable(path, error)
    if slide.size != size:
        is_now, was = raw_cases.size_text(slide.size), raw_cases.size_text(size)
        return f"{path}: is {is_now}, {_TABLE} says {was}; use the slides that belong to the table"
    if min(size) < side:
        return f"{path}: is {raw_cases.size_text(size)}, smaller than a patch of {side}x{side}; fetch it again"
    drawn = _drawn(polygons, (0, 0), size)[::_STEP, ::_STEP]
    labels = _labels(gray, slide.white, drawn)
    match: Any = _SLIDE.fullmatch(path.name)
    split = _HELD_OUT.get(int(match[1]), "train")
    if split == "test":
        corners: Iterable[tuple[int, int]] = _grid(labels, size, side)
    else:
        seen = np.where((labels == _TISSUE) & (drawn == _NOTHING), _NOTHING, labels)  # not outlined: not annotated
        corners = _sampled(seen, size, side, np.random.default_rng(zlib.crc32(path.stem.encode())))
    return [
        RawCase(
            f"{path.stem}_{number:03d}", (path,), None, f"scc_{match[1]}", match[2], split, Patch(slide, *corner, side)
        )
        for number, corner in enumerate(corners)
    ]


def _open(path: pathlib.Path, polygons: tuple[Polygon, ...]) -> tuple[np.ndarray, Slide]:
    """Gray values on the lattice, and the slide."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        _check_page(page)
        pixels = page.asarray(maxworkers=1)[::_STEP, ::_STEP]
        size, spacing = page.shape[:2], _spacing(page)
    gray = _gray(np.ascontiguousarray(pixels))
    white, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return gray, Slide(path, size, polygons, white, spacing)


def _check_page(page: Any) -> None:
    if page.dtype != np.uint8 or len(page.shape) != 3 or page.shape[-1] != 3:
        raise ValueError(f"{page.dtype} {page.shape}, slides are RGB of 8 bits")


def _spacing(page: Any) -> tuple[float, float]:
    unit = {2: 25.4, 3: 10.0}.get(page.tags.valueof("ResolutionUnit", 2), math.nan)  # mm of an inch, of a centimetre
    vertical, horizontal = (page.tags.valueof(name, (0, 1)) for name in ("YResolution", "XResolution"))
    sizes = [unit * below / max(above, 1e-9) for above, below in (vertical, horizontal)]
    if not all(0 < size < _COARSEST for size in sizes):
        return math.nan, math.nan
    return sizes[0], sizes[1]


def _gray(image: np.ndarray) -> np.ndarray:
    """`[H,W,3]` -> `[H,W]`, uint8; black is white, as nothing was scanned there."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray[gray == 0] = 255
    return gray


def _drawn(polygons: Iterable[Polygon], corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """What is annotated in a part of a slide, uint8 `[H,W]`, `_NOTHING` where nothing is."""
    drawn = np.full(size, _NOTHING, np.uint8)
    offset = np.array(corner[::-1], np.int32)
    for polygon in polygons:
        cv2.fillPoly(drawn, [ring - offset for ring in polygon.rings], polygon.value)
    return drawn


def _labels(gray: np.ndarray, white: float, drawn: np.ndarray) -> np.ndarray:
    return np.where(drawn != _NOTHING, drawn, np.where(gray > white, _BACKGROUND, _TISSUE)).astype(np.uint8)


# Where patches are.


def _sampled(seen: np.ndarray, size: tuple[int, int], side: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Corners of patches whose centres have the classes in the shares of `_SHARES`; at the border they are moved in.

    Args:
      seen: classes on the lattice.
      size: of the slide.
      side: of a patch.
      rng: the random generator.
    """
    shares = _SHARES * [(seen == k).any() for k in range(len(_SHARES))]
    if not shares.any():
        return
    # one from every 32nd part of the unit interval: no class is off its share by more than one patch
    places = (np.arange(_PATCHES) + rng.random()) / _PATCHES
    chosen = np.searchsorted(np.cumsum(shares / shares.sum())[:-1], places, side="right")
    for value, count in enumerate(np.bincount(chosen, minlength=len(_SHARES)).tolist()):
        if count:
            centres = np.argwhere(seen == value) * _STEP
            picked = rng.choice(len(centres), count, len(centres) < count)
            yield from map(tuple, np.clip(centres[picked] - side // 2, 0, np.subtract(size, side)).tolist())


def _grid(labels: np.ndarray, size: tuple[int, int], side: int) -> Iterator[tuple[int, int]]:
    """Corners of the patches of a grid with enough tissue, those that would reach over the border left out."""
    cells = side // _STEP
    for top in range(0, size[0] - side + 1, side):
        for left in range(0, size[1] - side + 1, side):
            row, column = top // _STEP, left // _STEP
            if (labels[row : row + cells, column : column + cells] != _BACKGROUND).mean() > _LEAST_TISSUE:
                yield top, left


def _region(path: pathlib.Path, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A part of a slide, uint8 `[H,W,3]`, white where its tiles are empty; no other tiles are decoded."""
    image = np.full((*size, 3), 255, np.uint8)
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        _check_page(page)
        tables: Mapping[str, Any] = (
            {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.jpegtables or page.jpegheader else {}
        )
        for index in _tiles(page, corner, size):
            if not page.databytecounts[index]:
                continue
            file.filehandle.seek(page.dataoffsets[index])
            data = file.filehandle.read(page.databytecounts[index])
            tile, (_, _, y, x, _), (_, height, width, _) = page.decode(data, index, **tables)
            top, left = y - corner[0], x - corner[1]
            rows, columns = (slice(max(0, low), low + n) for low, n in ((top, height), (left, width)))
            at = image[rows, columns]
            at[...] = tile[0, max(0, -top) :, max(0, -left) :][: at.shape[0], : at.shape[1]]
    return image


def _tiles(page: Any, corner: tuple[int, int], size: tuple[int, int]) -> Iterator[int]:
    """The numbers of the tiles, or strips, that a part of a page has pixels of."""
    length, width = page.chunks[:2]
    across = -(-page.shape[1] // width)
    for row in range(corner[0] // length, (corner[0] + size[0] - 1) // length + 1):
        for column in range(corner[1] // width, (corner[1] + size[1] - 1) // width + 1):
            yield row * across + column


def _unreadable(path: pathlib.Path, error: Exception) -> str:
    text = str(error).partition("\n")[0] or type(error).__name__
    return f"{path}: cannot be read as a slide ({text}); fetch it again"
