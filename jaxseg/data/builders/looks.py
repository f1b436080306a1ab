"""What the images of all cases of a folder have in common: their depth, their channels, and how many axes they have.

No single case decides: every case is examined, and the most common answer counts. Cases that differ from it
are reported by the doctor.
"""

import collections
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxseg.data import formats, raw_cases, threads
from jaxseg.data.raw_cases import RawCase

_SCALING = ("percentiles", 0.5, 99.5)


class Look(NamedTuple):
    """Of the images of a case.

    Attributes:
      eight_bits: whether they are stored with 8 bits.
      gray_levels: whether their intensities are whole numbers from 0 to 255, however they are stored.
      volume: whether one of them is a volume.
      channels: of all of them.
      images: how many they are.
    """

    eight_bits: bool
    gray_levels: bool
    volume: bool
    channels: int
    images: int


def of_cases(cases: Sequence[RawCase]) -> list[Look]:
    """Of every case that can be read; the doctor reports the others."""
    return [look for look in threads.in_threads(_of_case, cases, "looking at images") if look is not None]


def scaling(looks: Sequence[Look]) -> tuple[str, float, float] | None:
    """How intensities become 0 to 255, one rule for all cases; see `cases.as_uint8`.

    The data type does not set the scale: 0 to 255 are the same intensities with 8 bits and with 16. They stay as they
    are where all cases have them and at least one is stored with 8 bits. Everything else is scaled by percentiles.
    """
    as_they_are = any(look.eight_bits for look in looks) and all(look.gray_levels for look in looks)
    return None if as_they_are else _SCALING


def channels(looks: Sequence[Look]) -> int:
    """What most cases have; of pictures, colour where any has colour, as gray can become that."""
    counts = collections.Counter(look.channels for look in looks)
    usual = counts.most_common(1)[0][0] if counts else 1
    pictures = all(look.images == 1 and not look.volume for look in looks)
    return 3 if usual == 1 and pictures and counts[3] else usual


def are_volumes(looks: Sequence[Look]) -> bool:
    """Whether most cases are volumes."""
    return 2 * sum(look.volume for look in looks) > len(looks)


def _of_case(case: RawCase) -> Look | None:
    try:
        file_looks = [_of_file(path) for path in case.images]
    except formats.Unusable:
        return None
    return Look(
        all(look.eight_bits for look in file_looks),
        all(look.gray_levels for look in file_looks),
        any(look.volume for look in file_looks),
        sum(look.channels for look in file_looks),
        len(file_looks),
    )


def _of_file(path: pathlib.Path) -> Look:
    colours = formats.colour_channels(path)
    if colours is not None and formats.has_eight_bits(path):
        return Look(True, True, False, colours, 1)
    array = formats.read(path).array
    return Look(array.dtype == np.uint8, raw_cases.are_gray_levels(array), array.ndim == 4, array.shape[-1], 1)
