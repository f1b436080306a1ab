"""Cases that are decoded whenever they are asked for: however many there are, in the memory of a few."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np

from jaxseg.data import threads
from jaxseg.data.grids import Placement
from jaxseg.data.pipeline.memory import InMemory, stacked
from jaxseg.data.pipeline.split import Case, Split


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """Some cases of a split, with what it takes to show and to change their pictures; the same access as `InMemory`.

    Attributes:
      split: whose cases they are.
      places: of the cases in it, int `[N]`.
      cases: their names, `[N]`.
      patients: whom they show, `[N]`.
      domains: where they are from, `[N]`.
      checksums: of how they are stored, `[N]`.
      placements: of cases of several sizes, where each lies on a grid of its own, `[N]`; empty where all have one.
      grid: spatial sizes on which all stand; of cases of several sizes, in the middle.
      fill: of images around a case.
    """

    split: Split
    places: np.ndarray
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    domains: tuple[str, ...]
    checksums: tuple[str, ...]
    placements: tuple[Placement, ...]
    grid: tuple[int, ...]
    fill: float = 0.0

    @property
    def name(self) -> str:
        """Of the split."""
        return self.split.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The background first."""
        return self.split.class_names

    @property
    def num_classes(self) -> int:
        """K."""
        return self.split.num_classes

    @property
    def num_channels(self) -> int:
        """C."""
        return self.split.num_channels

    @property
    def sides(self) -> tuple[int, ...]:
        """Spatial sizes of all cases."""
        return self.grid

    @property
    def num_bytes(self) -> int:
        """Of all images and labels, once decoded."""
        return len(self) * self.split.bytes_of(math.prod(self.grid))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A checksum of names, stored images and labels, and of what becomes of them."""
        known = (self.cases, self.checksums, self.grid, str(self.split.inputs))
        return hashlib.blake2b(repr(known).encode(), digest_size=8).hexdigest()

    @property
    def smaller(self) -> int:
        """How many cases do not fill the grid."""
        covered = lambda part: tuple(one.stop - one.start for one in part)
        return sum(covered(one.inside) != self.grid for one in self.placements)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Case:
        case = self.split.read(int(self.places[index]), pictured=True)
        size = case["labels"].shape
        if size == self.grid:
            return case
        start = tuple((side - n) // 2 for side, n in zip(self.grid, size, strict=True))
        at = Placement(size, size, start, self.grid)
        placed = {"image": self.fill, "labels": 0, "valid": False}
        around = {name: at.onto(case[name], value) for name, value in placed.items()}
        return case | around | {"inside": case["inside"] + np.array(start, np.int32)}

    def take(self, chosen: np.ndarray) -> "Streamed":
        """Some of the cases, by their places `[M]`, in that order."""
        pick = lambda values: tuple(values[i] for i in chosen) if values else ()
        return dataclasses.replace(
            self,
            places=self.places[chosen],
            cases=pick(self.cases),
            patients=pick(self.patients),
            domains=pick(self.domains),
            checksums=pick(self.checksums),
            placements=pick(self.placements),
        )

    def held(self) -> InMemory:
        """The same in memory."""
        return stacked(self.name, self.class_names, self.__getitem__, range(len(self)))


def streamed(split: Split, chosen: Sequence[int]) -> Streamed:
    """The cases at the chosen places of a split; of cases of several sizes, on a grid that holds all of them."""
    facts = [split.facts(place) for place in chosen]
    cases, patients, domains, checksums = zip(*facts, strict=True)
    placements: tuple[Placement, ...] = ()
    if split.sides is None:
        placements = tuple(threads.in_threads(split.placement, list(chosen), f"sizes of {split.name}"))
    grid = split.sides or _over(placements, 1)
    return Streamed(split, np.array(chosen), cases, patients, domains, checksums, placements, grid)


def on_one_grid(parts: Sequence[Streamed], *, unit: int, fill: float) -> list[Streamed]:
    """Cases of several sizes, each in the middle of one grid that holds all of them.

    Args:
      parts: cases that have `valid`.
      unit: the grid's sides are multiples of it.
      fill: of images around a case.
    """
    grid = _over([one for part in parts for one in part.placements], unit)
    return [dataclasses.replace(part, grid=grid, fill=fill) for part in parts]


def _over(placements: Sequence[Placement], unit: int) -> tuple[int, ...]:
    """A grid that holds those of all cases."""
    return tuple(int(-(-side // unit) * unit) for side in np.max([one.grid for one in placements], 0))
