"""Decoded cases in memory: as arrays where all have one size, else as a list."""

import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxseg import paths
from jaxseg.data import raw_cases, threads
from jaxseg.data.pipeline.split import Case, Split
from jaxseg.errors import InputError

_ARRAYS = frozenset(("image", "labels", "valid"))
_STACKED = ("image", "labels", "valid", "scale", "inside")  # in a case; of `InMemory` in this order
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

    @property
    def sides(self) -> tuple[int, ...]:
        """Spatial sizes of all cases."""
        return self.labels.shape[1:]

    @property
    def num_bytes(self) -> int:
        """Of all images and labels."""
        return sum(array.nbytes for array in self.arrays.values())

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Case:
        known = zip(_STACKED, (self.images, self.labels, self.valid, self.scales, self.insides), strict=True)
        return {
            "case": self.cases[index],
            "patient": self.patients[index],
            "domain": self.domains[index],
            "spacing": self.spacings[index],
            **{name: array[index] for name, array in known if array is not None},
        }

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

    def held(self) -> "InMemory":
        """Itself."""
        return self

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
    return stacked(split.name, split.class_names, functools.partial(split.read, pictured=pictured), places)


def stacked(name: str, class_names: tuple[str, ...], read: Callable[[int], Case], places: Sequence[int]) -> InMemory:
    """Cases as arrays.

    Args:
      name: of the split.
      class_names: the background first.
      read: the case at a place; called by two threads.
      places: of the cases.

    Raises:
      InputError: they differ in size.
    """
    texts: list[tuple[str, str, str]] = []
    spacings: list[np.ndarray] = []
    arrays: dict[str, np.ndarray] = {}
    for i, case in enumerate(threads.in_threads(read, places, f"reading {name}")):
        if not arrays:  # TFDS prepares no empty splits
            of_case = (key for key in _STACKED if key in case)
            arrays = {key: np.empty((len(places), *case[key].shape), case[key].dtype) for key in of_case}
        for key, array in arrays.items():
            if case[key].shape != array.shape[1:]:
                raise InputError(_sizes_differ(name, array.shape[1:], case[key].shape))
            array[i] = case[key]
        spacings.append(case["spacing"])
        texts.append((case["case"], case["patient"], case["domain"]))
    cases, patients, domains = zip(*texts, strict=True)
    images, labels, *more = (arrays.get(key) for key in _STACKED)
    assert images is not None and labels is not None
    return InMemory(name, class_names, images, labels, cases, patients, domains, np.stack(spacings), *more)


def _sizes_differ(name: str, *shapes: tuple[int, ...]) -> str:
    one, other = (raw_cases.size_text(shape[:-1]) for shape in shapes)
    return (
        f"{name}: has cases of {one} and of {other} pixels, and all have to have one size here; give "
        "config.data.geometry 'keep' a size, and no multiple"
    )


def listed(split: Split) -> Listed:
    """`in_memory` of cases whatever their sizes."""
    cases = threads.in_threads(split.read, range(len(split)), f"reading {split.name}")
    return Listed(split.name, split.class_names, tuple(cases), split.fingerprint)


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
