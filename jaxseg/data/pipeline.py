"""Prepared data set in, batches out. A case is never lost, and a training batch is a function of its step alone."""

import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from jaxseg import paths
from jaxseg.data import resizing, threads
from jaxseg.errors import InputError

Case = dict[str, Any]
Batch = dict[str, np.ndarray]

# what array_record and TFDS say of corrupted bytes and missing files
_DAMAGE = re.compile("Corrupted|hash mismatch|should be at least 64KB|No such file or directory|Failed to load JSON")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Source(Protocol):
    """Cases that can be read in any order: `Split` and `InMemory`."""

    @property
    def name(self) -> str:
        """Named by errors."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Case: ...


class Preparation(NamedTuple):
    """How the raw files of a data set were prepared, so that new files can be prepared alike.

    Attributes:
      scaling: how intensities became 0 to 255; see `jaxseg.data.raw_cases.as_uint8`.
      size: images were squashed to this many pixels a side; None: they kept theirs.
      volumes: the files held volumes; of a data set of pictures, every slice is a case then, named `<volume>_<number>`.
      orientation: to which sides of the patient the axes of all volumes run, such as `SPL`; empty where unknown.
    """

    scaling: tuple[str, float, float] | None
    size: int | None
    volumes: bool
    orientation: str = ""


class Split:
    """One split of a prepared data set, read from disk case by case.

    `split[i]` is `{"case": str, "patient": str, "domain": str, "spacing": float32 [2] (mm, NaN where unknown),
    "image": uint8 [S,S,C], "labels": uint8 [S,S]}`; of volumes `[3]`, `[S,S,S,C]` and `[S,S,S]`. Cases stored at
    another size are squashed to S a side: images by antialiased bilinear interpolation, labels by nearest neighbours.
    The spacing is that of what is returned.

    Attributes:
      name: data set, config and split, as in `isic2017/256/train`, followed by the domains if they are chosen.
      class_names: the background first.
      num_classes: K.
      num_cases: N.
      num_channels: C.
      rank: 2, or 3 for volumes.
      num_bytes: of all images and labels, once decoded.
      fingerprint: tells different cases apart without reading them.
    """

    def __init__(self, directory: str | os.PathLike[str], split: str, *, size: int | None, domains: Sequence[str] = ()):
        """Opens the split.

        Args:
          directory: of the prepared data set, as `jaxseg.data.builders.prepare` returns it.
          split: its name, as `train`.
          size: S, in pixels; None leaves every case as it is stored.
          domains: only cases of these, for training on one scanner and testing on another; none means all.

        Raises:
          InputError: the folder is not a prepared data set, or it has no such split, or no case of such a domain (the
            message names those it has).
        """
        if size is not None and size < 1:
            raise InputError(f"size is {size}; cases need at least one pixel a side")
        self._place, builder = _open(directory)  # for as long as its files are read
        sizes = _split_sizes(builder)
        if split not in sizes:
            held = ", ".join(sizes)
            evaluate = f"train on another data set, and evaluate on this one, which has cases for {held}"
            raise InputError(
                f"{directory}: has no split {split!r}; {evaluate if split == 'train' else f'choose one of {held}'}"
            )
        features, metadata = builder.info.features, builder.info.metadata
        self.class_names = tuple(metadata["class_names"])
        self.num_classes = len(self.class_names)
        self.num_channels = features["image"].shape[-1]
        self.rank = len(features["image"].shape) - 1
        self._directory = directory
        self._metadata = metadata
        try:
            self._records = builder.as_data_source(split, decoders=_no_decoding(features))
        except Exception as error:  # a shard is missing or truncated
            raise _unreadable(directory, error) from error
        self._mode = _MODES.get(self.num_channels, "")
        self._size = None if size is None else (size,) * self.rank
        self._numbers = range(sizes[split])
        self.name = "/".join(part for part in (builder.name, builder.builder_config_name, split) if part)
        if domains:
            self._numbers = self._of_domains(domains)
            self.name += f" ({', '.join(domains)})"
        self.num_cases = len(self._numbers)
        self.num_bytes = len(self) * (size or 0) ** self.rank * (self.num_channels + 1)
        self.fingerprint = f"{self.name} {self.num_cases} {builder.info.splits[split].num_bytes}"

    def _of_domains(self, domains: Sequence[str]) -> Any:
        case_domains = self._texts("domain")
        unknown = sorted(set(domains) - set(case_domains))
        if unknown:
            known = ", ".join(repr(domain) for domain in sorted(set(case_domains)))
            raise InputError(f"{self.name}: has no case of the domain {unknown[0]!r}; choose from {known}")
        return [number for number, domain in zip(self._numbers, case_domains, strict=True) if domain in domains]

    def __len__(self) -> int:
        return self.num_cases

    @property
    def preparation(self) -> Preparation:
        """How the raw files were prepared; raises InputError where the version that did so did not record it."""
        try:
            scaling, size, volumes = (self._metadata[name] for name in ("scaling", "size", "volumes"))
        except KeyError as error:
            raise InputError(
                f"{self._directory}: was prepared by a version that did not note the {error.args[0]} of its images; "
                "prepare the data set again with python -m launch.prepare and another --data_dir"
            ) from error
        orientation = self._metadata.get("orientation", "")  # not recorded by the first versions
        return Preparation(scaling and (scaling[0], scaling[1], scaling[2]), size, volumes, orientation)

    @functools.cached_property
    def cases(self) -> tuple[str, ...]:
        """The names of all cases; reads every record, but decodes no image."""
        return tuple(self._texts("case"))

    def _texts(self, field: str) -> list[str]:
        try:
            return [self._records[number][field].decode() for number in self._numbers]
        except Exception as error:
            raise _unreadable(self._directory, error) from error

    def __getitem__(self, index: int) -> Case:
        record = self._records[self._numbers[index]]
        image, labels = self._image(record["image"]), _labels(record["labels"])
        spacing = np.array(record["spacing"], np.float32)
        if self._size is not None:
            spacing = spacing * np.divide(labels.shape, self._size, dtype=np.float32)
            image, labels = resizing.resize(image, self._size), resizing.resize_labels(labels, self._size)
        texts = {name: record[name].decode() for name in ("case", "patient", "domain")}
        return {**texts, "spacing": spacing, "image": image, "labels": labels}

    def _image(self, stored: Any) -> np.ndarray:
        if isinstance(stored, np.ndarray):
            return stored
        with Image.open(io.BytesIO(stored)) as image:
            if self._size is not None:
                side = resizing.DRAFT * self._size[-1]
                image.draft(None, (side, side))
            array = np.asarray(image if image.mode == self._mode else image.convert(self._mode))
        return array.reshape(*array.shape[:2], self.num_channels)

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))

    def read(self, index: int) -> Case:
        """`self[index]`; raises InputError where the stored case cannot be read."""
        try:
            return self[index]
        except Exception as error:  # array_record, protobuf and Pillow each raise their own
            raise _unreadable(self._directory, error) from error


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Decoded cases; the same access as `Split`, and the arrays.

    Attributes:
      name: of the split.
      class_names: the background first.
      images: uint8 `[N,S,S,C]`, of volumes `[N,S,S,S,C]`.
      labels: uint8 `[N,S,S]` or `[N,S,S,S]`.
      cases: their names, `[N]`.
      patients: whom they show, `[N]`.
      domains: where they are from, `[N]`.
      spacings: mm, float32 `[N,2]` or `[N,3]`, NaN where unknown.
    """

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    domains: tuple[str, ...]
    spacings: np.ndarray

    @functools.cached_property
    def fingerprint(self) -> str:
        """A checksum of names, images and labels, to check that a run resumes with the cases it started with."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (repr((self.cases, self.images.shape)).encode(), self.images.data, self.labels.data):
            digest.update(part)
        return digest.hexdigest()

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
            "image": self.images[index],
            "labels": self.labels[index],
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
        )

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))


def nowhere(count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """`domains` and `spacings` of this many drawn pictures, for `InMemory`."""
    return ("",) * count, np.full((count, 2), np.nan, np.float32)


def split_sizes(directory: str | os.PathLike[str]) -> dict[str, int]:
    """How many cases each split of a prepared data set has.

    Raises:
      InputError: the folder is not a prepared data set.
    """
    _place, builder = _open(directory)  # its name is valid until the builder has been queried
    return _split_sizes(builder)


def in_memory(split: Split, *, chosen: Sequence[int] | None = None) -> InMemory:
    """Decodes every case of a split once, or those at the chosen places, with two threads."""
    places = range(len(split)) if chosen is None else chosen
    texts: list[tuple[str, str, str]] = []
    spacings, images, labels = [], None, None
    for i, case in enumerate(threads.in_threads(split.read, places, f"reading {split.name}")):
        if images is None or labels is None:
            images = np.empty((len(places), *case["image"].shape), np.uint8)
            labels = np.empty((len(places), *case["labels"].shape), np.uint8)
        images[i], labels[i] = case["image"], case["labels"]
        spacings.append(case["spacing"])
        texts.append((case["case"], case["patient"], case["domain"]))
    assert images is not None and labels is not None  # TFDS prepares no empty splits
    cases, patients, domains = zip(*texts, strict=True)
    return InMemory(split.name, split.class_names, images, labels, cases, patients, domains, np.stack(spacings))


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
    )


def order(num_cases: int, *, batch_size: int, seed: int, start_step: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of case indices, int32 `[B]`, reshuffled in every epoch.

    Batches continue across the end of an epoch, so every epoch has every case once and no case is dropped; a batch is
    a function of the arguments and its step alone, so that a checkpoint needs to hold the step alone.

    Args:
      num_cases: N.
      batch_size: B, at most N.
      seed: of the order.
      start_step: the first batch is the one of this step.
    """
    return _read(_order(num_cases, batch_size, seed)[start_step:])


def _order(num_cases: int, batch_size: int, seed: int) -> Any:
    import grain

    indices = grain.MapDataset.range(num_cases).seed(seed).shuffle().repeat().map(np.int32)
    # An endless stream has no remainder; a length rounded up would, for single cases, not fit into an integer.
    return indices.batch(batch_size, drop_remainder=True)


def batches(
    source: Source, *, batch_size: int, seed: int, start_step: int = 0, part: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Endless training batches in the order of `order`, read ahead by two threads.

    Args:
      source: the cases.
      batch_size: B, at most the number of cases.
      seed: of the order.
      start_step: the first batch is the one of this step.
      part: `(i, P)`: only the i-th of P equal parts of every batch is read and yielded, as for one of P hosts.

    Yields:
      `{"image": uint8 [B/P,S,S,C], "labels": uint8 [B/P,S,S], "index": int32 [B/P]}`; index is the case's place in
      `source`.

    Raises:
      InputError: there are fewer cases than the batch size, or it is not positive. Raised here, not by the iterator.
    """
    check_batch_size(source.name, len(source), batch_size)
    own = part_of_batch(batch_size, *part)
    return _read(_order(len(source), batch_size, seed)[start_step:].map(lambda index: _stack(source, index[own])))


def check_batch_size(name: str, num_cases: int, batch_size: int) -> None:
    """Raises InputError when a batch has no case, or more than the `num_cases` of the split `name`."""
    _check_positive(batch_size)
    if num_cases < batch_size:
        raise InputError(
            f"{name}: has {num_cases} cases, fewer than the batch size {batch_size}; choose a batch size of "
            f"at most {num_cases}"
        )


def whole_batches(num_cases: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All case indices in order as batches of one size, int32 `[M,B]`, and which are not repetitions, bool `[M,B]`.

    The last batch is filled up with the last case.
    """
    _check_positive(batch_size)
    place = np.arange(-(-num_cases // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    return np.minimum(place, num_cases - 1), place < num_cases


def epoch(source: Source, *, batch_size: int, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Every case once, in order, in the batches of `whole_batches`.

    Args:
      source: the cases.
      batch_size: B.
      part: as for `batches`.

    Yields:
      as `batches`, and `"real"`: bool `[B/P]`, False where a case is a repetition.

    Raises:
      InputError: the batch size is not positive. Raised here, not by the iterator.
    """
    import grain

    index, real = (array[:, part_of_batch(batch_size, *part)] for array in whole_batches(len(source), batch_size))
    indices = grain.MapDataset.range(len(index))
    return _read(indices.map(lambda i: _stack(source, index[i]) | {"real": real[i]}))


def _check_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")


def part_of_batch(batch_size: int, number: int, parts: int) -> slice:
    """Which cases of a batch the part `number` of `parts` has."""
    size = batch_size // parts
    return slice(number * size, (number + 1) * size)


def _stack(source: Source, index: np.ndarray) -> Batch:
    """The arrays alone, without the strings."""
    cases = [source[i] for i in index]
    return {name: np.stack([case[name] for case in cases]) for name in ("image", "labels")} | {"index": index}


def _read(dataset: Any) -> Iterator[Any]:
    import grain

    # an element is a batch, or its indices, so the buffer is short: two being read, two waiting (grain's default is
    # 16 threads and 500 elements: seconds of work, during compilation)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def _open(directory: str | os.PathLike[str]) -> tuple[paths.Literal, Any]:
    """The folder under a name that no library expands, and its builder."""
    import tensorflow_datasets as tfds  # like grain, not before launchers have checked their flags: it takes seconds

    if not paths.is_file(pathlib.Path(directory) / "dataset_info.json"):
        raise InputError(f"{directory}: holds no prepared data set; prepare one with python -m launch.prepare")
    try:
        place = paths.Literal(directory)
        return place, tfds.builder_from_directory(os.fspath(place.path))
    except InputError:
        raise
    except Exception as error:  # whatever JSON, protobuf and TFDS raise
        raise _unreadable(directory, error) from error


def _unreadable(directory: str | os.PathLike[str], error: Exception) -> InputError:
    """The message for a data set that raised `error`: damaged only where the library says so of its bytes."""
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {str(error)[:200]}"
    text = " ".join(re.sub(r"/proc/self/fd/\d+", os.fspath(directory), reason).split())
    again = "prepare the data set again with python -m launch.prepare and another --data_dir"
    if _DAMAGE.search(text):
        return InputError(f"{directory}: is damaged ({text}); {again}, or remove it first")
    return InputError(f"{directory}: cannot be read here: {text}; check its permissions and the disk, or {again}")


def _split_sizes(builder: Any) -> dict[str, int]:
    return {name: split.num_examples for name, split in builder.info.splits.items()}


def _labels(stored: Any) -> np.ndarray:
    if isinstance(stored, np.ndarray):
        return stored
    with Image.open(io.BytesIO(stored)) as image:
        return np.asarray(image)


def _no_decoding(features: Any) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    # Images are decoded here: TFDS does not convert between colour modes, and requires OpenCV.
    pictures = [name for name in ("image", "labels") if isinstance(features[name], tfds.features.Image)]
    return {name: tfds.decode.SkipDecoding() for name in pictures}
