"""HC18: the head in fetal ultrasound (van den Heuvel et al. 2018, doi:10.1371/journal.pone.0200412)."""

import math
import pathlib
import re
from typing import ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds
from scipy import ndimage

from jaxseg.data import raw_cases
from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, FileProblems, Found, Loaded, RawCase

_IMAGE = re.compile(r"(\d+)_\d?HC")  # 010_HC and 010_2HC are of one fetus
_MASK = "_Annotation"
_TABLE = "training_set_pixel_size_and_HC.csv"
_NAME, _SPACING = "filename", "pixel size(mm)"
_CONTENTS = Contents(("background", "head"), {0: 0, 255: 1}, channels=1)
_SOLID = 0.5  # share of its convex hull that a closed outline covers, once it is filled; an open one is a thin arc
_OFF = 3.0  # pixels, or per cent of the ellipse's shorter half-axis, that an open outline may lie off its ellipse


class Hc18(records.Builder):
    """999 ultrasound images of fetal heads with the ellipses of sonographers; the official test set has none.

    The folder holds `training_set` (`NNN_HC.png` and `NNN_HC_Annotation.png`, a second image of one fetus is
    `NNN_2HC.png`) and the official table of pixel sizes, next to or in it. Copies at another size lack the table;
    pixel sizes are unknown then. Annotations are outlines, which are filled here, or filled ellipses.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = (
        records.Config(name="full", description="800 x 540 as the files are"),
        records.Config(name="256", description="squashed to 256 x 256", size=256),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"unpack HC18 (https://zenodo.org/records/1327317) so that the folder holds training_set and {_TABLE}"
    )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        del config
        folder = files.descend(folder, "training_set")
        images = folder / "training_set"
        if not images.is_dir():
            return Found((), [f"{images}: no such folder; {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}"], _CONTENTS)
        cases, problems = _pairs(images)
        table = next((path for path in (folder / _TABLE, images / _TABLE) if path.exists()), None)
        if table is not None:
            spacings, wrong = _spacings(table)
            problems += wrong
            if spacings:  # else every image would be reported as unknown
                problems += [
                    f"{case.images[0]}: {table.name} does not name it; add its pixel size or move the image away"
                    for case in cases
                    if case.images[0].name not in spacings
                ]
            cases = [case._replace(part=spacings.get(case.images[0].name, math.nan)) for case in cases]
        return Found(cases, problems, _CONTENTS)

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        loaded = raw_cases.load(case, at_least=at_least)
        if raw_cases.unknown_values(loaded.labels, _CONTENTS.values):
            return loaded  # the doctor reports them
        head = filled(loaded.labels > 0)
        if head is None:
            raise FileProblems(
                f"{case.mask}: is neither filled nor a closed outline, nor part of an ellipse that the border crops; "
                "close the outline"
            )
        return loaded._replace(labels=np.where(head, 255, 0), spacing=(case.part, case.part))


def filled(drawn: np.ndarray) -> np.ndarray | None:
    """The region of a drawing, bool `[H,W]`: itself if it is filled, what it encloses if it is an outline.

    The border of the image can crop an outline, which then encloses nothing. It is taken as part of an ellipse, as all
    are in HC18, and the result is what the image has of that ellipse.

    Args:
      drawn: bool `[H,W]`.

    Returns:
      The region, or None where an open outline is not part of an ellipse.
    """
    region = ndimage.binary_fill_holes(drawn)
    points = np.argwhere(drawn)[:, ::-1].astype(np.float32)  # x, y
    if len(points) < 5 or region.sum() >= _SOLID * cv2.contourArea(cv2.convexHull(points)):
        return region
    (x, y), axes, degrees = cv2.fitEllipse(points)
    if not 0 < min(axes) <= max(axes) < 1e5:
        return None
    turn = math.radians(degrees)
    rows, columns = np.ogrid[: drawn.shape[0], : drawn.shape[1]]
    along = ((columns - x) * math.cos(turn) + (rows - y) * math.sin(turn)) / (axes[0] / 2)
    across = ((rows - y) * math.cos(turn) - (columns - x) * math.sin(turn)) / (axes[1] / 2)
    radius, half = np.hypot(along, across), min(axes) / 2
    if (abs(radius[drawn] - 1) * half).max() > max(_OFF, _OFF / 100 * half):
        return None
    return drawn | (radius <= 1)


def _pairs(folder: pathlib.Path) -> tuple[list[RawCase], list[str]]:
    cases, problems = [], []
    names = {path.stem for path in files.search(folder, "*.png", levels=1)}
    for name in sorted(names):
        path = folder / f"{name}.png"
        base = name.removesuffix(_MASK)
        match = _IMAGE.fullmatch(base)
        if match is None:
            problems.append(f"{path}: wrong name; images are named NNN_HC.png, masks NNN_HC{_MASK}.png: rename it")
        elif base != name:
            if base not in names:
                problems.append(f"{path}: has no image {base}.png; add it or move the mask away")
        elif name + _MASK not in names:
            problems.append(f"{path}: has no mask {name}{_MASK}.png; add it or move the image away")
        else:
            mask = folder / f"{name}{_MASK}.png"
            cases.append(RawCase(name, (path,), mask, patient=match[1], part=math.nan))
    if not names:
        problems.append(f"{folder}: holds no file named NNN_HC.png; unpack the official archive again")
    return cases, problems


def _spacings(table: pathlib.Path) -> tuple[dict[str, float], list[str]]:
    """File name -> mm."""
    rows, problems = files.read_table(table, (_NAME, _SPACING), (_NAME, _SPACING))
    spacings = {}
    for number, row in rows:
        try:
            spacing = float(row[_SPACING])
        except ValueError:
            spacing = math.nan
        if not 0 < spacing < math.inf:
            problems.append(f"{table}: line {number} has the pixel size {row[_SPACING]!r}; give a number of mm")
        spacings[row[_NAME]] = spacing
    return spacings, problems
