"""Where the slices of DICOM lie: of each file or frame its spacing and place, and of all of them one volume."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data import geometry
from jaxseg.data.formats.picture import UNKNOWN, Unusable

_TURNED = 0.5  # degrees between the slices of one volume
_TILTED = 2.5  # degrees between the line along which slices lie and their normal


class Place(NamedTuple):
    """Where a slice lies in the patient, in mm to the left, back and head: vectors `[3]`, directions of length 1."""

    position: np.ndarray  # of the first pixel
    row: np.ndarray  # from column to column
    column: np.ndarray  # from row to row

    @property
    def normal(self) -> np.ndarray:
        """Direction across the slice, `[3]`."""
        return np.cross(self.row, self.column)


class Plane(NamedTuple):
    """A slice as messages name it; its place is None where the file does not tell."""

    name: str
    spacing: tuple[float, float]  # mm between rows, between columns
    place: Place | None


def groups(file: Any, index: int, group: str) -> Any:
    """Items of a functional group of a frame, its own before those shared by all frames."""
    own = list(file.get("PerFrameFunctionalGroupsSequence", None) or ())[index : index + 1]
    for item in (*own, *(file.get("SharedFunctionalGroupsSequence", None) or ())):
        if item.get(group, None):
            return item[group].value
    return ()


def of_frame(file: Any, index: int, group: str, name: str) -> Any:
    """A value of a frame, from its functional group or, where there is none, from the file; None without either."""
    values = [item[name].value for item in groups(file, index, group) if item.get(name, None) is not None]
    return values[0] if values else file.get(name, None)


def plane_of(name: str, file: Any, index: int) -> Plane:
    """The plane of a frame, which messages call `name`."""
    spacing = _pixel_spacing(file, index)
    place = None if math.isnan(spacing[0]) else place_of(file, index)
    return Plane(name, spacing, place)


def _pixel_spacing(file: Any, index: int) -> tuple[float, float]:
    """Mm between rows and columns in the patient; else on the detector or film; else as ultrasound is calibrated."""
    told = (
        of_frame(file, index, "PixelMeasuresSequence", "PixelSpacing")
        or file.get("ImagerPixelSpacing", None)
        or file.get("NominalScannedPixelSpacing", None)
        or _of_ultrasound(file)
        or (UNKNOWN, UNKNOWN)
    )
    return float(told[0]), float(told[1])


_CENTIMETRES = 3  # code of a unit


def _of_ultrasound(file: Any) -> tuple[float, float] | None:
    """Of the region that covers the image, or of all regions where they agree."""
    regions = list(file.get("SequenceOfUltrasoundRegions", None) or ())
    whole = (0, 0, int(file.get("Columns", None) or 0) - 1, int(file.get("Rows", None) or 0) - 1)
    ends = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    covering = [region for region in regions if tuple(region.get(name, None) for name in ends) == whole]
    spacings = [_of_region(region) for region in (covering if len(covering) == 1 else regions)]
    return spacings[0] if spacings and all(spacing == spacings[0] for spacing in spacings) else None


def _of_region(region: Any) -> tuple[float, float] | None:
    units = {region.get(f"PhysicalUnits{axis}Direction", None) for axis in "XY"}
    rows, columns = (10 * abs(float(region.get(f"PhysicalDelta{axis}", None) or 0)) for axis in "YX")
    return (rows, columns) if units == {_CENTIMETRES} and rows and columns else None


def place_of(file: Any, index: int) -> Place | None:
    """Where a frame lies; None where the file does not tell."""
    position = of_frame(file, index, "PlanePositionSequence", "ImagePositionPatient")
    directions = of_frame(file, index, "PlaneOrientationSequence", "ImageOrientationPatient")
    if not position or not directions:
        return None
    row, column = np.reshape(np.asarray(directions, float), (2, 3))
    if not np.allclose((row @ row, column @ column, row @ column), (1, 1, 0), atol=0.02):
        return None
    place = Place(np.asarray(position, float), row / np.linalg.norm(row), column / np.linalg.norm(column))
    if int(file.get("NumberOfFrames", None) or 1) == 1 or groups(file, index, "PlanePositionSequence"):
        return place
    if file.get("GridFrameOffsetVector", None):  # of frames without places of their own
        return place._replace(position=place.position + _offset(file.GridFrameOffsetVector, index, place.normal))
    if file.get("SpacingBetweenSlices", None):
        return place._replace(position=place.position + place.normal * float(file.SpacingBetweenSlices) * index)
    return None


def _offset(offsets: Sequence[float], index: int, normal: np.ndarray) -> np.ndarray:
    """From the first frame of a dose grid: along the normal, or between two heights if the first is not 0."""
    first = float(offsets[0])
    return normal * (float(offsets[index]) - first) * (math.copysign(1.0, normal[2]) if first else 1.0)


def arranged(
    planes: Sequence[Plane], numbers: Sequence[float], between: float, what: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Order of slices, and the affine of their volume where they tell it.

    Args:
      planes: of the slices.
      numbers: of their instances, for slices without places.
      between: mm from slice to slice as far as one file tells, for one slice.
      what: what messages call them.

    Raises:
      Unusable: they are no one volume of equal steps.
    """
    places = [plane.place for plane in planes if plane.place is not None]
    if len(places) < len(planes):
        return np.argsort(numbers, kind="stable"), None
    first, spacing = places[0], planes[0].spacing
    for plane, place in zip(planes, places, strict=True):
        _check_plane(planes[0], first, plane, place, what)
    positions = np.stack([place.position for place in places])
    heights = positions @ first.normal
    order = np.argsort(heights, kind="stable")
    step = first.normal * (1.0 if math.isnan(between) else between)
    if len(places) > 1:
        _check_steps([planes[i].name for i in order], heights[order], what)
        step = (positions[order[-1]] - positions[order[0]]) / (len(places) - 1)
        _check_line(positions[order], step, first.normal, min(spacing), what)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, first.column * spacing[0], first.row * spacing[1]], 1)
    affine[:3, 3] = positions[order[0]]
    return order, geometry.LPS_TO_RAS @ affine


def _check_plane(first: Plane, place: Place, other: Plane, other_place: Place, what: str) -> None:
    cosine = min(float(place.row @ other_place.row), float(place.column @ other_place.column))
    angle = math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
    such = f"such as {first.name} and {other.name}; leave out what is not a slice of the volume, such as a localizer"
    if angle > _TURNED:
        raise Unusable(f"holds {what} that are rotated against each other by {angle:.1f} degrees, {such}")
    if not np.allclose(first.spacing, other.spacing, rtol=1e-3):
        spacings = " and ".join("x".join(f"{length:g}" for length in plane.spacing) for plane in (first, other))
        raise Unusable(f"holds {what} of the pixel spacings {spacings} mm, {such}")


def _check_steps(names: Sequence[str], heights: np.ndarray, what: str) -> None:
    steps = np.diff(heights)
    if steps.min() < 1e-3:
        one, other = (names[int(steps.argmin()) + i] for i in (0, 1))
        raise Unusable(
            f"holds {what} of the same place, such as {one} and {other}; leave one of them out, or give each volume "
            "of a series in time a file or folder of its own"
        )
    if np.ptp(steps) > 0.1 * np.median(steps):
        raise Unusable(
            f"lacks {what}: they lie {steps.min():g} to {steps.max():g} mm apart; fetch those that are missing, "
            "resample the volume to equal steps, or save each stack on its own"
        )


def _check_line(positions: np.ndarray, between: np.ndarray, normal: np.ndarray, pixel: float, what: str) -> None:
    """Slices lie above each other."""
    cosine = float(between @ normal / np.linalg.norm(between))
    angle = math.degrees(math.acos(min(cosine, 1.0)))
    if angle > _TILTED:
        raise Unusable(
            f"holds {what} that lie {angle:.1f} degrees off their normal, as a tilted gantry leaves them; resample "
            "them to a straight volume, for example with dcm2niix"
        )
    off = positions - positions[0] - np.arange(len(positions))[:, None] * between
    aside = np.linalg.norm(off - (off @ normal)[:, None] * normal, axis=1).max()
    if aside > 0.5 * pixel:
        raise Unusable(f"holds {what} shifted sideways by up to {aside:.3g} mm; resample them to a volume")
