"""Prepared data set in, batches out. A case is never lost, and a training batch is a function of its step alone."""

import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from PIL import Image

from jaxseg.data.builders import files
from jaxseg.errors import InputError

Case = dict[str, Any]
Batch = dict[str, np.ndarray]

_MODES = {1: "L", 3: "RGB"}


class Source(Protocol):
    """Cases that can be read in any order: `Split` and `InMemory`."""

    @property
    def name(self) -> str:
        """Named by errors."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Case: ...


class Split:
    """One split of a prepared data set, read from disk case by case.

    `split[i]` is `{"case": str, "patient": str, "image": uint8 [S,S,C], "labels": uint8 [S,S]}`. Cases stored at
    another size are squashed to S x S: images by antialiased bilinear interpolation, labels by nearest neighbours.

    Attributes:
      name: data set, config and split, as in `isic2017/256/train`.
      class_names: the background first.
      num_classes: K.
      num_cases: N.
      num_channels: C.
    """

    def __init__(self, directory: str | os.PathLike[str], split: str, *, size: int):
        """Opens the split.

        Args:
          directory: of the prepared data set, as `jaxseg.data.builders.prepare` returns it.
          split: its name, as `train`.
          size: S, in pixels.

        Raises:
          InputError: the folder is no prepared data set, or it has no such split (the message names those it has).
        """
        if size < 1:
            raise InputError(f"size is {size}; cases need at least one pixel a side")
        builder = _open(directory)
        sizes = _split_sizes(builder)
        if split not in sizes:
            raise InputError(f"{directory}: has no split {split!r}; choose one of {', '.join(sizes)}")
        features = builder.info.features
        self.name = "/".join(part for part in (builder.name, builder.builder_config_name, split) if part)
        self.class_names = tuple(features["labels"].names)
        self.num_classes = len(self.class_names)
        self.num_cases = sizes[split]
        self.num_channels = features["image"].shape[-1]
        try:
            self._records = builder.as_data_source(split, decoders=_no_decoding())
        except Exception as error:  # a shard is missing or cut
            raise _damaged(directory, error) from error
        self._size = size
        self._directory = directory

    def __len__(self) -> int:
        return self.num_cases

    def __getitem__(self, index: int) -> Case:
        record = self._records[range(self.num_cases)[index]]  # a range knows what -1 and N are
        return {
            "case": record["case"].decode(),
            "patient": record["patient"].decode(),
            "image": self._read(record["image"], files.resize_image, _MODES[self.num_channels]).reshape(
                self._size, self._size, self.num_channels
            ),
            "labels": self._read(record["labels"], files.resize_labels, "L"),
        }

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))

    def read(self, index: int) -> Case:
        """`self[index]`; raises InputError where the stored case is damaged."""
        try:
            return self[index]
        except Exception as error:  # array_record, protobuf and Pillow each raise their own
            raise _damaged(self._directory, error) from error

    def _read(self, encoded: bytes, resize: Callable[[Image.Image, int], Image.Image], mode: str) -> np.ndarray:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(resize(image.convert(mode), self._size))


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Decoded cases; the same access as `Split`, and the arrays.

    Attributes:
      name: of the split.
      class_names: the background first.
      images: uint8 `[N,S,S,C]`.
      labels: uint8 `[N,S,S]`.
      cases: their names, `[N]`.
      patients: whom they show, `[N]`.
    """

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    cases: tuple[str, ...]
    patients: tuple[str, ...]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A checksum of names, images and labels, to tell that a run goes on with the cases that it began with."""
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
            "image": self.images[index],
            "labels": self.labels[index],
        }

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))


def split_sizes(directory: str | os.PathLike[str]) -> dict[str, int]:
    """How many cases each split of a prepared data set has.

    Raises:
      InputError: the folder is no prepared data set.
    """
    return _split_sizes(_open(directory))


def in_memory(split: Split) -> InMemory:
    """Decodes every case of a split once, with two threads."""
    cases, patients, images, labels = [], [], None, None
    for i, case in enumerate(files.in_threads(split.read, range(len(split)), f"reading {split.name}")):
        if images is None or labels is None:
            images = np.empty((len(split), *case["image"].shape), np.uint8)
            labels = np.empty((len(split), *case["labels"].shape), np.uint8)
        images[i], labels[i] = case["image"], case["labels"]
        cases.append(case["case"])
        patients.append(case["patient"])
    assert images is not None and labels is not None  # TFDS prepares no empty splits
    return InMemory(split.name, split.class_names, images, labels, tuple(cases), tuple(patients))


def batches(source: Source, *, batch_size: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
    """Endless training batches, shuffled anew in every epoch.

    Batches run on over the end of an epoch, so that every epoch has every case once and no case is dropped; a batch is
    a function of `source`, `batch_size`, `seed` and its step, so that a checkpoint needs to hold the step alone.

    Args:
      source: the cases.
      batch_size: B, at most the number of cases.
      seed: of the order.
      start_step: the first batch is the one of this step.

    Yields:
      `{"image": uint8 [B,S,S,C], "labels": uint8 [B,S,S], "index": int32 [B]}`; index is the case's place in `source`.

    Raises:
      InputError: there are fewer cases than the batch size, or it is not positive. Raised here, not by the iterator.
    """
    import grain

    _check_batch_size(batch_size)
    if len(source) < batch_size:
        raise InputError(
            f"{source.name}: has {len(source)} cases, fewer than the batch size {batch_size}; choose a batch size of "
            f"at most {len(source)}"
        )
    cases = grain.MapDataset.source(_Numbered(source)).seed(seed).shuffle().repeat()
    # An endless stream has no remainder; but a length rounded up would, for single cases, not fit into an integer.
    return _read(cases.batch(batch_size, drop_remainder=True)[start_step:])


def epoch(source: Source, *, batch_size: int) -> Iterator[Batch]:
    """Every case once, in order. All batches have one size: the last is filled up with its last case, marked invalid.

    Args:
      source: the cases.
      batch_size: B.

    Yields:
      as `batches`, and `"valid"`: bool `[B]`, False where a case is a repetition.

    Raises:
      InputError: the batch size is not positive. Raised here, not by the iterator.
    """
    import grain

    _check_batch_size(batch_size)
    return _read(grain.MapDataset.source(_Padded(source, batch_size)).batch(batch_size))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")


def _read(dataset: Any) -> Iterator[Batch]:
    import grain

    # An element is a whole batch here, so the buffer is short: two being read, two waiting.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


class _Numbered:
    """A source whose cases are arrays alone: strings are replaced by the index."""

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Case:
        case = self._source[index]
        return {"image": case["image"], "labels": case["labels"], "index": np.int32(index)}


class _Padded(_Numbered):
    """A source filled up to whole batches."""

    def __init__(self, source: Source, batch_size: int):
        super().__init__(source)
        self._last = len(source) - 1
        self._length = -(-len(source) // batch_size) * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Case:
        return {**super().__getitem__(min(index, self._last)), "valid": np.bool_(index <= self._last)}


def _open(directory: str | os.PathLike[str]) -> Any:
    import tensorflow_datasets as tfds

    if not (pathlib.Path(directory) / "dataset_info.json").is_file():
        raise InputError(f"{directory}: holds no prepared data set; prepare one with python -m launch.prepare")
    try:
        return tfds.builder_from_directory(os.fspath(directory))
    except Exception as error:  # whatever JSON, protobuf and TFDS raise
        raise _damaged(directory, error) from error


def _damaged(directory: str | os.PathLike[str], error: Exception) -> InputError:
    what = type(error).__name__
    return InputError(f"{directory}: is damaged ({what}); remove it and prepare it again with python -m launch.prepare")


def _split_sizes(builder: Any) -> dict[str, int]:
    return {name: split.num_examples for name, split in builder.info.splits.items()}


@functools.cache
def _no_decoding() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    # Images are decoded here: TFDS does not convert between colour modes, and asks for OpenCV.
    return {name: tfds.decode.SkipDecoding() for name in ("image", "labels")}
