"""DICOM SEG: frames of segments -> one array of class numbers on the grid of its slices, as highdicom reads them."""

from typing import Any

import numpy as np

from jaxseg.data import geometry
from jaxseg.data.formats.dicom_places import place_of
from jaxseg.data.formats.picture import Picture, Unusable, placed, unplaced


def read(file: Any) -> Picture:
    """Numbers of segments, 0 outside.

    They are in the places of the frames that are stored, with empty slices between those, or one for each of the source
    images where these do not tell where they lie.
    """
    import highdicom

    _tell_step(file)
    segmentation = highdicom.seg.Segmentation.from_dataset(file, copy=False)
    try:
        return _without_places(segmentation) if place_of(file, 0) is None else _in_places(segmentation)
    except RuntimeError as error:
        if "overlap" not in str(error).lower():
            raise
        raise Unusable(
            "has overlapping segments; save each as a file of its own, or decide what lies on top"
        ) from error
    except ValueError as error:
        if "fractional" not in str(error).lower():
            raise
        raise Unusable("holds fractions of segments; save it as a binary segmentation, threshold it at 0.5") from error


def _tell_step(file: Any) -> None:
    """Puts the distance of slices where highdicom looks for it; otherwise it takes the narrowest gap between frames.

    Empty slices are not stored, so all stored ones may be separated by gaps. The distance is what the file says, or the
    thickness, if the gaps are multiples of it; else the largest length of which they are.
    """
    frames = list(file.get("PerFrameFunctionalGroupsSequence", None) or ())
    measures = [
        item.PixelMeasuresSequence[0]
        for item in (*(file.get("SharedFunctionalGroupsSequence", None) or ()), *frames)
        if item.get("PixelMeasuresSequence", None)
    ]
    places = [place for i in range(len(frames)) if (place := place_of(file, i)) is not None]
    if not measures or not places or len(places) < len(frames):
        return
    heights = np.unique([np.round(place.position @ places[0].normal, 4) for place in places])
    told = [abs(float(measures[0].get(name, None) or 0)) for name in ("SpacingBetweenSlices", "SliceThickness")]
    gaps = np.diff(heights)
    step = next((length for length in told if length and _are_multiples(gaps, length)), None) or _common_step(gaps)
    for item in measures:
        if step:
            item.SpacingBetweenSlices = f"{step:.10g}"
        if not item.get("SliceThickness", None):  # highdicom requires it, but nothing depends on it
            item.SliceThickness = f"{step or 1:.10g}"


_MOST_PARTS = 50  # of the narrowest gap


def _common_step(gaps: np.ndarray) -> float | None:
    """The largest length of which all gaps are multiples; None where there is none, as for one slice."""
    if not gaps.size:
        return None
    steps = (gaps.min() / parts for parts in range(1, _MOST_PARTS + 1))
    step = next((step for step in steps if _are_multiples(gaps, step)), None)
    return None if step is None else float(gaps.sum() / np.rint(gaps / step).sum())


def _are_multiples(gaps: np.ndarray, step: float) -> bool:
    """Within what a position may be rounded, a hundredth of the step."""
    counts = np.rint(gaps / step)
    return bool((counts >= 1).all() and (abs(gaps - counts * step) <= 0.01 * step).all())


def _without_places(segmentation: Any) -> Picture:
    sources = [source[-1] for source in segmentation.get_source_image_uids()]
    array = segmentation.get_pixels_by_source_instance(
        sources, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    return unplaced((array[0] if len(sources) == 1 else array)[..., None])


def _in_places(segmentation: Any) -> Picture:
    volume = segmentation.get_volume(combine_segments=True)
    array, affine = volume.array, geometry.LPS_TO_RAS @ volume.affine
    between, column, row = affine[:3, :3].T
    if np.cross(row, column) @ between < 0:
        array, affine = array[::-1], affine @ _reversed(len(array))
    return placed(array[..., None], affine)._replace(part=True)


def _reversed(count: int) -> np.ndarray:
    """From a slice's index to that from the other end."""
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    matrix[0, 3] = count - 1
    return matrix
