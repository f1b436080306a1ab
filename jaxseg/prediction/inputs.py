"""Files and folders that a person names -> images as the data set of the network has them."""

import collections
import fnmatch
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxseg.data import formats, geometry, normalisation, raw_cases, resizing
from jaxseg.data.inputs import Inputs
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError
from jaxseg.paths import exists
from jaxseg.prediction import likely_masks
from jaxseg.training.contract import TrainedOn

MARKER = "prediction.json"  # a folder that holds this file holds results, and nothing that is to be predicted
ALL = "*"
_ENDS = {"R": "right", "L": "left", "A": "front", "P": "back", "I": "feet", "S": "head"}
_ACROSS = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "I": "axial", "S": "axial"}
_LONGEST = 248  # bytes of a name; most file systems take 255, and .nii.gz is appended


class Source(NamedTuple):
    """One thing to predict.

    Attributes:
      path: a file, or a folder with one DICOM series.
      name: of its results: its place below the folder that was named, without its suffix unless
        another input differs in that alone.
    """

    path: pathlib.Path
    name: str


class Found(NamedTuple):
    """What there is to predict, and what is left out of it.

    Attributes:
      sources: with names of their own.
      unknown: files in folders whose format is not known.
      masks: files in folders that look like masks of the images beside them; see `likely_masks`.
    """

    sources: list[Source]
    unknown: list[pathlib.Path]
    masks: list[pathlib.Path]


class Loaded(NamedTuple):
    """An input, with its axes as those of the data set run.

    Attributes:
      image: `[H,W,C]` or `[D,H,W,C]` as the data set has it: C channels, intensities as the network is given them.
      stored: the same at the size at which the data set stores its images.
      size: spatial sizes of the file; a JPEG may have been decoded at a smaller scale.
      spacing: mm along the axes of `stored`, NaN where unknown.
      picture: the file as it was read.
      orientation: to which sides the axes were turned; empty where they are the file's.
      notes: what a person should know of it, one line each.
    """

    image: np.ndarray
    stored: np.ndarray
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    picture: formats.Picture
    orientation: str = ""
    notes: tuple[str, ...] = ()

    def as_in_file(self, array: np.ndarray) -> np.ndarray:
        """What was predicted for the image, `[*size]` or `[*size,K]`, with its axes as those of the file run."""
        if not self.orientation:
            return array
        rank = len(self.size)
        affine = self.picture.affine
        assert affine is not None  # it was turned by it
        turned = geometry.restored(array if rank == 3 else array[None], affine, self.orientation)
        return np.ascontiguousarray(turned if rank == 3 else turned[0])


def find(paths: Sequence[pathlib.Path], *, pattern: str = ALL) -> Found:
    """What there is to predict, in the order of the paths; of a folder its files, sorted, and then its folders.

    Folders are searched with all folders below, but for hidden ones and those that hold results. DICOM files of one
    series that share a folder are one volume, whatever they are called; a DICOM file that is a series by itself is a
    picture, and one without pixels, such as a structure set, is of no format that is known. What looks like a mask of
    an image beside it is left out, unless a pattern asks for names. Files that cannot be read are returned too, and
    reported by whoever reads them.

    Args:
      paths: files and folders.
      pattern: of the names of files that are wanted from folders, such as `*_HC.png`.

    Raises:
      InputError: a path is not there, nothing is found, or two inputs would have the same results.
    """
    missing = [path for path in paths if not exists(path)]
    if missing:
        raise InputError(f"--inputs={missing[0]}: no such file or folder")
    places: dict[pathlib.Path, pathlib.PurePath] = {}  # a file that is named twice is one input
    unknown: list[pathlib.Path] = []
    masks: list[pathlib.Path] = []
    for path in paths:
        if not path.is_dir():
            places.setdefault(path, pathlib.PurePath(path.name))
            continue
        files = list(_walk(path, pattern, unknown, set()))
        left_out = likely_masks.find(path, files) if pattern == ALL else set()
        masks += [file for file in files if file in left_out]
        for file in files:
            if file in left_out:
                continue
            place = file.relative_to(path) if file != path else pathlib.PurePath(path.resolve().name)
            places.setdefault(file, place if len(paths) == 1 or file == path else path.resolve().name / place)
    if not places:
        known = f"; {len(unknown)} files are of no known format" if unknown else ""
        raise InputError(f"--inputs: holds no image named {pattern}{known}; use {formats.known_formats()}")
    return Found(_named(places), unknown, [mask for mask in masks if mask not in places])


def _named(places: dict[pathlib.Path, pathlib.PurePath]) -> list[Source]:
    bare = {path: _without_suffix(path, place) for path, place in places.items()}
    counts = collections.Counter(bare.values())
    names = {path: bare[path] if counts[bare[path]] == 1 else places[path].as_posix() for path in places}
    sources = [Source(path, _storable(name)) for path, name in names.items()]
    first: dict[str, pathlib.Path] = {}
    for source in sources:
        if source.name in first:
            raise InputError(
                f"--inputs: {first[source.name]} and {source.path} would have the same results; predict them one after "
                "the other, each with an --output of its own"
            )
        first[source.name] = source.path
    return sources


def _storable(name: str) -> str:
    """The name, truncated where it is too long for a file with a suffix; a checksum then keeps it unique."""
    folder, slash, last = name.rpartition("/")
    stored = os.fsencode(last)
    if len(stored) <= _LONGEST:
        return name
    checksum = f"~{hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()}"
    return folder + slash + stored[: _LONGEST - len(checksum)].decode(errors="ignore") + checksum


def _without_suffix(path: pathlib.Path, place: pathlib.PurePath) -> str:
    if path.is_dir():
        return place.as_posix()
    name = place.name[: -len(".nii.gz")] if place.name.lower().endswith(".nii.gz") else place.stem
    return place.with_name(name).as_posix()


def _walk(
    folder: pathlib.Path, pattern: str, unknown: list[pathlib.Path], seen: set[pathlib.Path]
) -> Iterator[pathlib.Path]:
    place = pathlib.Path(os.path.realpath(folder))
    if place in seen or os.path.exists(folder / MARKER):  # a link may lead back
        return
    seen.add(place)
    try:
        entries = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.name != "__MACOSX")
    except OSError as error:
        if len(seen) > 1:  # the folders around it are read all the same
            yield folder
            return
        raise InputError(f"{folder}: cannot be read ({error.strerror}); see to its rights") from error
    # with broken links and unreadable files, at which pathlib's functions fail
    there = [path for path in entries if os.path.isfile(path) or not os.path.exists(path)]
    files = [path for path in there if fnmatch.fnmatch(path.name, pattern)]
    dicom = {path: formats.dicom_object(path) for path in files if os.path.isfile(path) and formats.is_dicom(path)}
    series = _series(dicom)
    if series:
        yield folder  # where they are several series, whoever reads it says so
    for path in [path for path in files if path not in series]:
        held = dicom.get(path)
        if formats.is_image(path) and (held is None or held.kind != "other"):
            yield path
        else:
            unknown.append(path)
    for path in entries:
        if os.path.isdir(path):
            yield from _walk(path, pattern, unknown, seen)


def _series(dicom: Mapping[pathlib.Path, formats.DicomObject | None]) -> list[pathlib.Path]:
    """Those that are slices of one volume, damaged ones with them; none where every image is a series of its own."""
    slices = collections.Counter(held.series for held in dicom.values() if held and held.kind == "image")
    if not slices or max(slices.values()) == 1:
        return []
    return [path for path, held in dicom.items() if held is None or held.kind == "image"]


def load(path: pathlib.Path, trained_on: TrainedOn, given: Inputs) -> Loaded:
    """Reads an input as the data set's builder would have, with intensities as the network is given them.

    Args:
      path: a file, or a folder with one DICOM series.
      trained_on: what the network takes.
      given: what becomes of an image on its way to the network; a JPEG may be decoded at a smaller scale where the
        data set did so, and its geometry allows it.

    Raises:
      formats.Unusable: the file cannot be read, or is nothing that the network takes.
    """
    preparation = trained_on.preparation
    picture = formats.read(path, at_least=_draft(preparation, given.grid.draft))
    if picture.array.dtype.kind == "f" and not np.isfinite(picture.array).all():
        raise formats.Unusable("holds values that are not finite; replace them")
    if trained_on.rank == 3 and picture.array.ndim == 3:
        raise formats.Unusable("is a picture, and the network takes volumes; give the whole volume")
    image = raw_cases.with_channels(picture.array, trained_on.num_channels)
    if image is None:
        raise formats.Unusable(
            f"has {picture.array.shape[-1]} channels or frames, and the network takes {trained_on.num_channels}; save "
            "what the network was trained on as one file"
        )
    if preparation.scaling is None:  # gray levels, whatever the normalisation: those of 16 bits would be other numbers
        image = raw_cases.as_uint8(image, None)
    elif preparation.dtype == "float16":
        image = image.astype(np.float16)
    known = None
    if preparation.volumes or preparation.scaling is not None:  # else a record says nothing of its file
        known = normalisation.Statistics(*normalisation.statistics(image, preparation.scaling))
    image, orientation = _oriented(image, picture, preparation.orientation)
    slices = trained_on.rank == 2 and image.ndim == 4
    of_grid = given.normalisation.of_slices if slices else given.normalisation
    normalised = functools.partial(of_grid, scaling=preparation.scaling, known=known)
    squashed = None if preparation.size is None else (*image.shape[:-3], preparation.size, preparation.size)
    stored = normalised(image if squashed is None else resizing.resize(image, squashed))
    image = stored if squashed is None else normalised(image)
    size = picture.full_size or image.shape[:-1]
    notes = (*picture.notes, *_about_orientation(picture, preparation))
    spacing = _spacing(picture, orientation, stored.ndim - 1)
    steps = tuple(step * old / new for step, old, new in zip(spacing, size, stored.shape, strict=False))
    return Loaded(image, stored, size, steps, picture, orientation, notes)


def _spacing(picture: formats.Picture, codes: str, rank: int) -> tuple[float, ...]:
    """Mm along the axes as they were turned."""
    if not codes or picture.affine is None:
        return picture.spacing
    _, affine = geometry.oriented(np.zeros((1,) * 3), picture.affine, codes)
    return geometry.spacing(affine, rank=rank)


def _about_orientation(picture: formats.Picture, preparation: Preparation) -> Iterator[str]:
    """What is not known of how a volume lies, or of how those lay that the network saw."""
    if picture.array.ndim == 3 or picture.array.shape[0] == 1:
        return
    if preparation.orientation and picture.affine is None:
        known = ", ".join(_ENDS[side] for side in preparation.orientation)
        yield f"does not say how it lies in the patient; slices, rows and columns are taken to run to the {known}"
    elif not preparation.orientation:
        kind = f"into {_ACROSS[picture.orientation[0]]} slices" if picture.orientation else "along its first axis"
        yield f"is cut {kind}, as it is stored; whether the network saw such is not known"


def _oriented(image: np.ndarray, picture: formats.Picture, codes: str) -> tuple[np.ndarray, str]:
    """An image with its axes as the network saw them, and what they were turned to; as it is where that is unknown."""
    rank = image.ndim - 1
    if picture.affine is None or codes in ("", geometry.orientation(picture.affine)):
        return image, ""
    volume = image if rank == 3 else image[None]
    turned, _ = geometry.oriented(volume, picture.affine, codes)
    if volume.shape[0] == 1 != turned.shape[0]:
        own, wanted = (_ACROSS[sides[0]] for sides in (geometry.orientation(picture.affine), codes))
        raise formats.Unusable(f"is a {own} slice, the network saw {wanted} ones; give such a slice, or the volume")
    return np.ascontiguousarray(turned if rank == 3 else turned[0]), codes


def _draft(preparation: Preparation, of_grid: int | None) -> int | None:
    """The least size at which the data set, or the pipeline from its untouched files, decodes a JPEG."""
    if of_grid is None:
        return None
    if preparation.size is not None:
        return resizing.DRAFT * preparation.size
    return of_grid if preparation.scaling is None else None


def inside(path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a path lies in a folder, links resolved."""
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
