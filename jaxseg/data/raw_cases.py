"""What a builder finds in a folder: which files belong to a case, what is in them, and in which split it is."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data import folds, formats, geometry
from jaxseg.errors import InputError

IGNORED = 255  # the stored label of pixels without annotation, and of padding
SPLITS = ("train", "validation", "test")
_TAKEN = "is compared with its image by its size alone, as one of them does not say where it lies"
_SEED = 0  # of splits that do not come with the data set
_OUTLIERS = 1e-4  # of an image's pixels; this share may be hot or dead
# Distances of the two percentiles. In MR and ultrasound inliers mostly stay within the first; between the
# two an end moves gradually, so that similar images do not differ by half their contrast.
_FAR = (1.0, 1.1)
_FOLDS = 10  # of which one is for validation and two for testing, where there are enough patients


class RawCase(NamedTuple):
    """The files of one case.

    Attributes:
      case: its name, unique in the data set.
      images: files whose channels are concatenated, one for most data sets, one per modality for others.
      mask: None where the data set draws it, from boxes, or outlines, or because it is synthetic.
      patient: whom it shows; all cases of a patient are in one split.
      domain: scanner, vendor, hospital, laboratory; empty where the data set has only one.
      split: where the data set says so; None where it is to be assigned, by patient.
      part: which part of the files it is, such as a time frame; its meaning is up to the builder.
    """

    case: str
    images: tuple[pathlib.Path, ...]
    mask: pathlib.Path | None
    patient: str
    domain: str = ""
    split: str | None = None
    part: Any = None

    @property
    def place(self) -> pathlib.Path | str:
        """Named by messages about the whole case."""
        return self.images[0] if self.images else self.case


class Contents(NamedTuple):
    """What all cases of a data set have in common.

    Attributes:
      class_names: the background first.
      values: number in the mask files -> class, or `IGNORED` without annotation. A number that is missing here is an
        error.
      channels: C.
      scaling: how intensities become 0 to 255; None: they are that already. See `as_uint8`.
      volumes: whether the files hold volumes `[D,H,W,C]` rather than pictures `[H,W,C]`.
      remedy: what else can be done about a mask value that is not in `values`, appended to the message.
      orientation: to which side of the patient the axes of volumes run; other files are turned to match; empty
        where it is not known.
      dtype: in which images are stored: uint8, or, where they are scaled when they are read, what holds all of them.
      one_depth: whether `scaling` was chosen for the depth of the files, volumes too; no other may be among them then.
    """

    class_names: tuple[str, ...]
    values: Mapping[int, int]
    channels: int
    scaling: tuple[str, float, float] | None = None
    volumes: bool = False
    remedy: str = ""
    orientation: str = ""
    dtype: str = "uint8"
    one_depth: bool = False

    @property
    def measured(self) -> bool:
        """Whether a record says how the intensities of its file are spread, for `normalisation`."""
        return self.volumes or self.scaling is not None

    @property
    def ignores(self) -> bool:
        """Whether masks may have pixels without annotation."""
        return IGNORED in self.values.values()


class Found(NamedTuple):
    """All that a builder finds in a folder.

    Attributes:
      cases: in their order.
      problems: one line each: the file, what is wrong, the remedy.
      contents: of the cases.
    """

    cases: Sequence[RawCase]
    problems: Sequence[str]
    contents: Contents


class Loaded(NamedTuple):
    """A case as its files have it, the labels on the grid of the image.

    Attributes:
      image: `[H,W,C]` or `[D,H,W,C]`, any type.
      labels: `[H,W]` or `[D,H,W]`, whole numbers as in the files.
      spacing: mm along each spatial axis, NaN where unknown.
      affine: where the image lies, see `jaxseg.data.geometry`; None where its file does not tell.
      mask_spacing: of the mask.
      notes: one line each, starting with a file's name: what a person should know about usable files.
    """

    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    mask_spacing: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def orientation(self) -> str:
        """To which side of the patient each spatial axis runs, such as `SPL`; empty where the file does not tell."""
        return "" if self.affine is None else geometry.orientation(self.affine, rank=self.labels.ndim)

    def oriented(self, codes: str) -> "Loaded":
        """The volume with axes that run to the sides `codes`; as it is where either orientation is not known."""
        if self.affine is None or self.labels.ndim < 3 or codes in ("", self.orientation):
            return self
        image, affine = geometry.oriented(self.image, self.affine, codes)
        labels, _ = geometry.oriented(self.labels, self.affine, codes)
        return self._replace(image=image, labels=labels, spacing=geometry.spacing(affine), affine=affine)


class FileProblems(Exception):
    """Files that cannot be used; `lines` has a line for each, starting with its name."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = lines


def load(case: RawCase, *, at_least: int | None = None) -> Loaded:
    """Reads the files of a case; `case.part`, if it is a number, is the frame of four-dimensional files.

    Further images and the mask are brought onto the grid of the first image: the same grid in another orientation is
    turned, another grid is a problem.

    Args:
      case: with a mask file.
      at_least: a JPEG may be decoded at a smaller scale, of at least this many pixels a side; its mask is not.

    Raises:
      FileProblems: files cannot be used, or do not lie on one grid.
    """
    assert case.mask is not None
    frame = case.part if isinstance(case.part, int) else None
    problems: list[str] = []
    notes: list[str] = []
    first, *others = (
        _read(path, formats.read, problems, notes, frame=frame, at_least=at_least) for path in case.images
    )
    mask = _read(case.mask, formats.read_mask, problems, notes, frame=frame)

    def onto_first(path: pathlib.Path, picture: formats.Picture | None, other: str, remedy: str) -> Any:
        if first is None or picture is None:  # a problem already
            return None
        try:
            matched = _onto(picture, first)
        except geometry.OtherGrid as error:
            why = "".join(f" ({note})" for note in notes)  # a header that contradicts itself
            problems.append(f"{path}: is {error.ours}, {other} is {error.theirs}; {remedy}{why}")
            return None
        notes.extend([f"{path}: {matched.note}"] if matched.note else [])
        return matched.array

    remedy = "use files that are registered to each other"
    further = [
        onto_first(path, picture, case.images[0].name, remedy)
        for path, picture in zip(case.images[1:], others, strict=True)
    ]
    labels = onto_first(case.mask, mask, "its image", "use the mask that was made for this image")
    if problems:
        raise FileProblems(*problems)
    image = np.concatenate([first.array, *further], -1) if further else first.array
    return Loaded(image, labels[..., 0], first.spacing, first.affine, mask.spacing, tuple(notes))


def _read(
    path: pathlib.Path, read: Callable[..., formats.Picture], problems: list[str], notes: list[str], **options: Any
) -> Any:
    try:
        picture = read(path, **options)
    except formats.Unusable as problem:
        problems.append(f"{path}: {problem}")
        return None
    notes.extend(f"{path}: {note}" for note in picture.notes)
    return picture


def _onto(picture: formats.Picture, like: formats.Picture) -> geometry.Matched:
    """A picture on the grid of another; raises `geometry.OtherGrid` where it does not lie on it."""
    rank = len(like.size)
    array = _of_rank(picture.array, rank)
    if picture.affine is not None and like.affine is not None and array.ndim == rank + 1:
        return geometry.matched(array, picture.affine, like.size, like.affine, fill=picture.part)
    size = picture.size if array is picture.array else array.shape[:-1]
    if size != like.size:
        raise geometry.OtherGrid(size_text(picture.size), size_text(like.size))
    one_tells = (picture.affine is None) != (like.affine is None)
    return geometry.Matched(array, _TAKEN if one_tells and rank == 3 and size[0] > 1 else "")


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    """A volume of one slice as a picture, and a picture as such a volume, where that gives the wanted rank."""
    if array.ndim == rank + 2 and array.shape[0] == 1:
        return array[0]
    return array[None] if array.ndim == rank else array


def size_text(size: Sequence[int]) -> str:
    """Width first: `640x480` of (480, 640), `640x480x30` of (30, 480, 640)."""
    return "x".join(str(n) for n in (*size[-2:][::-1], *size[:-2]))


def with_channels(image: np.ndarray, channels: int) -> np.ndarray | None:
    """The image with C channels: gray becomes colour, and colour that is gray becomes gray; None where it cannot be."""
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] == 1 and channels == 3:
        return np.repeat(image, 3, -1)
    if image.shape[-1] == 3 and channels == 1 and (image == image[..., :1]).all():
        return image[..., :1]
    return None


def classes(labels: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """Numbers of the files -> classes, uint8.

    Raises:
      ValueError: a number is not in `values`; `unknown_values` lists them.
    """
    if unknown_values(labels, values):
        raise ValueError(f"labels hold {unknown_values(labels, values)}, known are {sorted(values)}")
    table = np.zeros(max(values) + 1, np.uint8)
    table[list(values)] = list(values.values())
    return table[labels]


def unknown_values(labels: np.ndarray, values: Mapping[int, int]) -> list[int]:
    """The numbers in `labels` that are not in `values`, sorted."""
    return [int(value) for value in np.unique(labels) if value not in values]


def are_gray_levels(image: np.ndarray) -> bool:
    """Whether intensities are integers from 0 to 255, whatever their type, except for fewer than 1 in 10,000."""
    if image.dtype == np.uint8:
        return True
    if image.dtype.kind not in "iuf" or (image.dtype.kind == "f" and not np.isfinite(image).all()):
        return False
    within = (image >= 0) & (image <= 255)
    if image.dtype.kind == "f":
        within &= image == np.rint(image)
    return image.size - int(np.count_nonzero(within)) < max(_OUTLIERS * image.size, 1)


def are_whole(image: np.ndarray) -> bool:
    """Whether all intensities are whole numbers, whatever their type."""
    return image.dtype.kind in "iub" or bool((image == np.rint(image)).all())


def storage(low: float, high: float, *, whole: bool) -> str:
    """The dtype for intensities between two ends: of 16 bits where that is enough.

    Whole numbers are stored exactly; others as float16 where it tells a thousand of them apart between the ends.
    """
    for dtype in ("uint16", "int16", "int32") if whole else ():
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    largest = max(-low, high)
    fits = largest <= float(np.finfo(np.float16).max)
    return "float16" if fits and float(np.spacing(np.float16(largest))) * 1000 <= high - low else "float32"


def as_uint8(image: np.ndarray, scaling: tuple[str, float, float] | None) -> np.ndarray:
    """Intensities as 0 to 255, rounded: those of `ends` become these, what is beyond is clipped."""
    if image.dtype == np.uint8 and scaling is None:
        return image
    return between(image, *ends(image, scaling))


def between(image: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Intensities as 0 to 255, rounded: `low` and `high`, numbers or one for each channel, become these."""
    width = np.maximum(np.subtract(high, low), 1e-12)
    return np.rint(np.clip((image.astype(np.float32) - low) / width, 0, 1) * 255).astype(np.uint8)


def ends(image: np.ndarray, scaling: tuple[str, float, float] | None) -> tuple[Any, Any]:
    """Which intensities become 0 and 255.

    Args:
      image: `[*S,C]`.
      scaling: `("window", low, high)`: these two, as for Hounsfield units; `("percentiles", low, high)`: these
        percentiles of the whole image or volume, of every channel on its own, see `span`; None: 0 and 255, and
        percentiles 0.5 and 99.5 where intensities are no such levels.

    Returns:
      low, high: numbers, or float32 `[C]` each.
    """
    if scaling is None:
        if are_gray_levels(image):
            return 0, 255
        scaling = ("percentiles", 0.5, 99.5)
    kind, low, high = scaling
    return (low, high) if kind == "window" else span(image.astype(np.float32).reshape(-1, image.shape[-1]), low, high)


def span(values: np.ndarray, low: float, high: float) -> tuple[Any, Any]:
    """What becomes black and what becomes white: percentiles, unless more than outliers lies beyond them.

    A small object may lie entirely beyond the 99.5th percentile of its image. Where more than one pixel in 10,000 is
    farther beyond a percentile than `_FAR` times the distance of the two, the end is moved to where that share alone is
    beyond; hot and dead pixels stay clipped.

    Args:
      values: float32 `[N,C]`.
      low: per cent.
      high: per cent.

    Returns:
      low, high: float32 `[C]` each.
    """
    bottom, top = np.percentile(values, (low, high), axis=0).astype(np.float32)
    outliers = _outliers(len(values))
    ordered = np.partition(values, (outliers, len(values) - 1 - outliers), axis=0)
    lowest, highest = ordered[outliers].astype(np.float64), ordered[-1 - outliers].astype(np.float64)
    distance = top - bottom.astype(np.float64)
    black, white = bottom - _moved(bottom - lowest, distance), top + _moved(highest - top, distance)
    alike = top == bottom  # if the background has one value, everything else counts
    black, white = np.where(alike, values.min(0), black), np.where(alike, values.max(0), white)
    return black.astype(np.float32), white.astype(np.float32)


def _moved(tail: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """How far an end is moved outwards, for what is `tail` beyond it."""
    near, far = _FAR
    return tail * np.clip((tail - near * distance) / np.maximum((far - near) * distance, 1e-300), 0, 1)


def _outliers(count: int) -> int:
    """How many of an image's pixels may be hot or dead."""
    return min(max(1, int(_OUTLIERS * count)), (count - 1) // 2)


def assigned(cases: Sequence[RawCase]) -> list[RawCase]:
    """The cases, each in a split; those without one are assigned by patient: 70 % train, 10 % validation, 20 % test.

    So are all cases of a data set that has only training cases. Every domain has its share of every split as far as
    its patients allow. Where a data set has splits for training and testing but none for validation, a tenth of the
    patients of train becomes it. One without training cases, such as an external test set, stays as it is.

    Raises:
      InputError: there are too few patients.
    """
    given = {case.split for case in cases}
    if None in given or given == {"train"}:
        return _dealt(cases, testing=0.2)
    if "train" in given and "validation" not in given:
        train = [case for case in cases if case.split == "train"]
        return [*_dealt(train, testing=0.0), *(case for case in cases if case.split != "train")]
    return list(cases)


def _dealt(cases: Sequence[RawCase], *, testing: float) -> list[RawCase]:
    patients = np.array([case.patient for case in cases])
    count = min(_FOLDS, len(set(patients.tolist())))
    tests = max(1, round(testing * count)) if testing else 0
    if count < 2 + tests:
        raise InputError(
            f"there {'is 1 patient' if count == 1 else f'are {count} patients'}, and splits never divide one; "
            f"give at least {2 + tests}, or name the split of each case, {', '.join(SPLITS)} all among them"
        )
    fold = folds.stratified_folds(np.array([case.domain for case in cases]), patients, folds=count, seed=_SEED)
    names = ["validation", *["test"] * tests, *["train"] * (count - 1 - tests)]
    return [case._replace(split=names[i]) for case, i in zip(cases, fold, strict=True)]
