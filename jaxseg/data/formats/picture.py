"""What a file of any format holds, and what is said of one that cannot be used."""

import contextlib
import gzip
import math
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxseg.data import geometry

UNKNOWN = math.nan


class Unusable(Exception):
    """What is wrong with a file, and the remedy, in one line, whatever a damaged file made a library say."""

    def __init__(self, text: str):
        super().__init__("".join(letter if letter.isprintable() else " " for letter in text))


class Picture(NamedTuple):
    """What a file holds.

    Attributes:
      array: `[H,W,C]` or `[D,H,W,C]`, in the type and on the scale of the file: after the slope and intercept of NIfTI
        and DICOM. Rows and columns as a viewer shows them; slices of NIfTI, NRRD and MetaImage along their third axis,
        of DICOM ascending along their normal.
      spacing: of the spatial axes in mm, as many as there are; NaN where the format does not tell.
      affine: float64 `[4,4]`, from indices (slice, row, column, 1) of the array to mm in RAS+ coordinates, x to the
        right of the patient, y to the front, z up; of a picture `[H,W,C]` the slice is 0. None where the file does not
        say where it lies; else the spacing is what it says.
      full_size: (H, W) of a JPEG that was decoded at a smaller scale; else None.
      palette: `[N,3]` or `[N,1]`, the colours or grays of a picture's indices; else None.
      notes: what a person should know about a usable file, a line each.
      part: whether a mask is stored as the part of its grid that holds the object; all around is background.
      step: between two neighbouring values of rescaled integers; 0 where nothing was rescaled.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    full_size: tuple[int, int] | None = None
    palette: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    part: bool = False
    step: float = 0.0

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial sizes of what the file holds."""
        return self.full_size or self.array.shape[:-1]

    @property
    def orientation(self) -> str:
        """The orientation of the array's spatial axes, such as `SPL`; empty without an affine."""
        return "" if self.affine is None else geometry.orientation(self.affine, rank=len(self.spacing))


def unplaced(array: np.ndarray) -> Picture:
    """Of a format that tells neither where its pixels lie nor how large they are."""
    return Picture(array, (UNKNOWN,) * (array.ndim - 1))


def placed(array: np.ndarray, affine: np.ndarray) -> Picture:
    """With the spacing that the affine says."""
    return Picture(array, geometry.spacing(affine, rank=array.ndim - 1), np.asarray(affine, np.float64))


class _Quiet:
    """Filters of warnings are the process's own: the first of several threads saves them, the last restores them."""

    def __init__(self) -> None:
        self._lock, self._inside, self._saved = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._saved.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._saved.close()


# What libraries warn of is that a header strays from the standard, or that an image is large.
quietly = _Quiet()


# Libraries repeat the path, which the line already starts with, and advise on their own functions.
_UNRECOGNISED = {
    "cannot identify image file": "no known image format",
    "File is missing DICOM File Meta Information": "no DICOM file",
    "Cannot work out file type": "no NIfTI file",
}


def reason(error: Exception) -> str:
    """What a library said, in one line."""
    text = str(error)
    for theirs, ours in _UNRECOGNISED.items():
        if theirs in text:
            return ours
    return text.partition("\n")[0] or type(error).__name__


_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
_CALLED_BROKEN = re.compile(
    r"truncat|broken|corrupt|crc|unexpected end|end of file|less than (?:\w+ )*expected|expected \d+ bytes|file size|"
    r"failed to read \d+ bytes|got only \d+|end after|hit end of|data read error|missing required element|"
    r"no known image format|no \w+ file|not a TIFF file",
    re.IGNORECASE,
)


def remedy(error: Exception) -> str:
    """To fetch a file again if its bytes are proven wrong: an early end, a checksum, or another format's start."""
    codec = type(error).__module__.startswith("imagecodecs")
    if codec or isinstance(error, _BROKEN) or _CALLED_BROKEN.search(reason(error)):
        return "fetch it again"
    if isinstance(error, MemoryError):
        return "split it into parts"
    return "save it again with a program that opens it"
