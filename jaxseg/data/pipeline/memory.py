"""Decoded cases in memory: as arrays where all have one size, else as a list."""

import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np

from jaxseg import paths
from jaxseg.data import raw_cases, threads
from jaxseg.data.grids import Placement
from jaxseg.data.pipeline.split import Case, Split
from jaxseg.errors import InputError

_ARRAYS = frozenset(("image", "labels", "valid"))
_PICTURED = {"scales": "scale", "insides": "inside"}  # attribute of `InMemory` -> name in a case
_TEXTS = ("case", "patient", "domain", "spacing")


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Decoded cases; the same access as `Split`, and the arrays.

    Attributes:
      name: of the split.
      class_names: the background first.
      images: `[N,H,W,C]`, of volumes `[N,D,H,W,C]`; gray levels uint8, or floats.
      labels: uint8 `[N,H,W]` or `[N,D,H,W]`.
      cases: their names, `[N]`.
      patients: whom they show, `[N]`.
      domains: where they are from, `[N]`.
      spacings: mm, float32 `[N,2]` or `[N,3]`, NaN where unknown.
      valid: bool, as the labels: which pixels count; None: all.
      scales: float32 `[N,4,C]`, a `normalisation.Scale` of every case; None: images are uint8, or from -1 to 1.
      insides: int32 `[N,2,rank]`, from and to where every case lies on its grid; None: each covers it.
    """

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    domains: tuple[str, ...]
    spacings: np.ndarray
    valid: np.ndarray | None = None
    scales: np.ndarray | None = None
    insides: np.ndarray | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """A checksum of names, images and labels, to check that a run resumes with the cases it started with."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((self.cases, self.images.shape)).encode())
        for array in self.arrays.values():
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a stored batch has of every case: `image`, `labels` and, unless all pixels count, `valid`."""
        arrays = {"image": self.images, "labels": self.labels}
        return arrays if self.valid is None else arrays | {"valid": self.valid}

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def num_cases(self) -> int:
        """N."""
        return len(self.cases)

    @property
    def num_channels(self) -> int:
        """C."""
        return self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Case:
        return {
            "case": self.cases[index],
            "patient": self.patients[index],
            "domain": self.domains[index],
            "spacing": self.spacings[index],
            **{name: array[index] for name, array in self.arrays.items()},
            **{name: array[index] for name, array in self._pictured.items()},
        }

    @property
    def _pictured(self) -> dict[str, np.ndarray]:
        """What is known of the pictures of all cases, by the names in a case."""
        known = {name: getattr(self, attribute) for attribute, name in _PICTURED.items()}
        return {name: array for name, array in known.items() if array is not None}

    def read(self, index: int) -> Case:
        """`self[index]`, which cannot be damaged."""
        return self[index]

    def take(self, chosen: np.ndarray) -> "InMemory":
        """Some of the cases, by their places `[M]`, in that order."""
        pick = lambda values: tuple(values[i] for i in chosen)
        return dataclasses.replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            cases=pick(self.cases),
            patients=pick(self.patients),
            domains=pick(self.domains),
            spacings=self.spacings[chosen],
            valid=None if self.valid is None else self.valid[chosen],
            scales=None if self.scales is None else self.scales[chosen],
            insides=None if self.insides is None else self.insides[chosen],
        )

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))


def nowhere(count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """`domains` and `spacings` of this many drawn pictures, for `InMemory`."""
    return ("",) * count, np.full((count, 2), np.nan, np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Listed:
    """Decoded cases whose sizes differ; the same access as `Split`.

    Attributes:
      name: of the split.
      class_names: the background first.
      items: the cases.
      fingerprint: of the split on disk.
    """

    name: str
    class_names: tuple[str, ...]
    items: tuple[Case, ...]
    fingerprint: str

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The spatial sizes of every case."""
        return tuple(case["labels"].shape for case in self.items)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def num_channels(self) -> int:
        """C."""
        return self.items[0]["image"].shape[-1]

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of all cases."""
        return self._texts("case")

    @property
    def patients(self) -> tuple[str, ...]:
        """Whom they show."""
        return self._texts("patient")

    @property
    def domains(self) -> tuple[str, ...]:
        """Where they are from."""
        return self._texts("domain")

    def _texts(self, name: str) -> tuple[str, ...]:
        return tuple(case[name] for case in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Case:
        return self.items[index]

    def read(self, index: int) -> Case:
        """`self[index]`, which cannot be damaged."""
        return self.items[index]


def in_memory(split: Split, *, chosen: Sequence[int] | None = None, pictured: bool = False) -> InMemory:
    """Decodes every case of a split once, or those at the chosen places, with two threads; `pictured` as for `read`."""
    places = range(len(split)) if chosen is None else chosen
    texts: list[tuple[str, str, str]] = []
    spacings: list[np.ndarray] = []
    of_pictures: dict[str, list[np.ndarray]] = {name: [] for name in _PICTURED} if pictured else {}
    arrays: dict[str, np.ndarray] = {}
    read = functools.partial(split.read, pictured=pictured)
    for i, case in enumerate(threads.in_threads(read, places, f"reading {split.name}")):
        if not arrays:  # TFDS prepares no empty splits
            names = ("image", "labels", *(("valid",) if split.masked else ()))
            arrays = {name: np.empty((len(places), *case[name].shape), case[name].dtype) for name in names}
        for name, array in arrays.items():
            if case[name].shape != array.shape[1:]:
                raise InputError(_sizes_differ(split.name, array.shape[1:], case[name].shape))
            array[i] = case[name]
        spacings.append(case["spacing"])
        for name, found in of_pictures.items():
            found.append(case[_PICTURED[name]])
        texts.append((case["case"], case["patient"], case["domain"]))
    cases, patients, domains = zip(*texts, strict=True)
    arrays |= {name: np.stack(found) for name, found in of_pictures.items()}
    images, labels = arrays.pop("image"), arrays.pop("labels")
    return InMemory(
        split.name, split.class_names, images, labels, cases, patients, domains, np.stack(spacings), **arrays
    )


def _sizes_differ(name: str, *shapes: tuple[int, ...]) -> str:
    one, other = (raw_cases.size_text(shape[:-1]) for shape in shapes)
    return (
        f"{name}: has cases of {one} and of {other} pixels, and all have to have one size here; give "
        "config.data.geometry 'keep' a size, and no multiple"
    )


def listed(split: Split, *, chosen: Sequence[int] | None = None, pictured: bool = False) -> Listed:
    """`in_memory` of cases whatever their sizes."""
    places = range(len(split)) if chosen is None else chosen
    cases = threads.in_threads(functools.partial(split.read, pictured=pictured), places, f"reading {split.name}")
    return Listed(split.name, split.class_names, tuple(cases), split.fingerprint)


def on_one_grid(parts: Sequence[Listed], *, unit: int, fill: float) -> list[InMemory]:
    """Cases of several sizes as arrays: each in the middle of one grid that holds all of them.

    Args:
      parts: cases that have `valid` and were read `pictured`.
      unit: the grid's sides are multiples of it.
      fill: of images around a case.
    """
    sizes = np.array([size for part in parts for size in part.sizes])
    grid = tuple(int(-(-side // unit) * unit) for side in sizes.max(0))
    return [_on_grid(part, grid, fill) for part in parts]


def _on_grid(part: Listed, grid: tuple[int, ...], fill: float) -> InMemory:
    placements = [
        Placement(size, size, tuple((side - n) // 2 for side, n in zip(grid, size, strict=True)), grid)
        for size in part.sizes
    ]
    pairs = list(zip(placements, part.items, strict=True))
    fills = {"image": fill, "labels": 0, "valid": False}
    images, labels, valid = (
        np.stack([at.onto(case[name], value) for at, case in pairs]) for name, value in fills.items()
    )
    return InMemory(
        part.name,
        part.class_names,
        images,
        labels,
        part.cases,
        part.patients,
        part.domains,
        np.stack([case["spacing"] for case in part.items]),
        valid,
        np.stack([case["scale"] for case in part.items]),
        np.stack([case["inside"] + np.array(at.start, np.int32) for at, case in pairs]),
    )


def mapped(split: Split, folder: pathlib.Path) -> Listed:
    """`listed`, decoded once into files below a folder and mapped from there: a set may be larger than memory.

    Args:
      split: the cases.
      folder: created, or what earlier calls left, whose names say of which cases and inputs they are. A split whose
        decoding was interrupted is decoded again.

    Raises:
      InputError: the folder cannot be written to.
    """
    of_inputs = hashlib.blake2b(f"{split.fingerprint} {split.inputs}".encode(), digest_size=4).hexdigest()
    place = folder / f"{split.name.replace('/', '_')}-{of_inputs}"
    part = place.with_name(f"{place.name}.part")
    try:
        if not paths.exists(place):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for number, case in enumerate(threads.in_threads(split.read, range(len(split)), f"decoding {split.name}")):
                np.savez(part / f"{number}.npz", **{name: case[name] for name in _TEXTS})
                for name in _ARRAYS & case.keys():
                    np.save(part / f"{number}_{name}.npy", case[name])
            part.rename(place)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); make room there") from error
    return Listed(split.name, split.class_names, tuple(_opened(place, i) for i in range(len(split))), split.fingerprint)


def _opened(place: pathlib.Path, number: int) -> Case:
    with np.load(place / f"{number}.npz") as texts:
        case = {name: texts[name] if name == "spacing" else str(texts[name]) for name in _TEXTS}
    arrays = {name: place / f"{number}_{name}.npy" for name in sorted(_ARRAYS)}
    return case | {name: np.load(path, mmap_mode="r") for name, path in arrays.items() if path.exists()}


def joined(parts: Sequence[InMemory]) -> InMemory:
    """The cases of several splits of one data set, joined."""
    return InMemory(
        name="+".join(part.name for part in parts),
        class_names=parts[0].class_names,
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        cases=tuple(case for part in parts for case in part.cases),
        patients=tuple(patient for part in parts for patient in part.patients),
        domains=tuple(domain for part in parts for domain in part.domains),
        spacings=np.concatenate([part.spacings for part in parts]),
        valid=None if parts[0].valid is None else np.concatenate([part.valid for part in parts]),
        scales=None if parts[0].scales is None else np.concatenate([part.scales for part in parts]),
        insides=None if parts[0].insides is None else np.concatenate([part.insides for part in parts]),
    )
