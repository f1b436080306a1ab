"""What all builders share: how a folder's cases become the records of a prepared data set."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from jaxseg.data import formats, normalisation, raw_cases, resizing, threads
from jaxseg.data.raw_cases import Found, Loaded, RawCase
from jaxseg.errors import InputError

Example = dict[str, Any]

_Example: Any = tf_example_pb2.Example

# The cases of one shard are held in memory while it is written.
CASES_PER_SHARD = 100
VOLUMES_PER_SHARD = 8

EIGHT_BITS = ("1.0.0",)  # versions that stored volumes with 8 bits, already scaled
_PNG_CHANNELS = (1, 3, 4)  # other counts are stored as compressed arrays


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """`size`: images are squashed to this many pixels a side, None keeps theirs; `volumes`: not cut into slices."""

    size: int | None = None
    volumes: bool = False


# For data sets of volumes.
SLICES_AND_VOLUMES = (
    Config(name="slices", description="every slice along the third axis is a case"),
    Config(name="volumes", description="every volume is a case", volumes=True),
)


class Builder(tfds.core.ShardBasedBuilder):
    """Base of all our builders. A data set says which files belong together (`find`), and this writes them.

    Its cases are encoded bytes, so nothing here needs TensorFlow. `GeneratorBasedBuilder` would gather a whole split in
    memory and, above 1000 MiB and whatever the number of shards, spill it through TensorFlow. Shard by shard, a split
    may have any size and keeps its order.

    Attributes:
      VERSION: raise it when the same files give other records, or old ones stay in use.
      STILL_READ: earlier versions whose records a run reads alike, as far as they go.
      BUILDER_CONFIGS: the first is the default.
      MANUAL_DOWNLOAD_INSTRUCTIONS: what the folder of raw files has to hold; None where there are no raw files.
    """

    STILL_READ: ClassVar[Sequence[str]] = ()
    BUILDER_CONFIGS: ClassVar[Sequence[Config]] = (Config(name="full", description="as the files are"),)
    # Pillow and zlib release the interpreter's lock; drawing with NumPy does not, so threads only slow it down.
    THREADS: ClassVar[bool] = True

    # We download nothing. TFDS would look for checksums, for which it imports importlib_resources without requiring it.
    url_infos = None

    def __init__(self, *, found: Found, **options: Any):
        self.found = found
        super().__init__(**options)

    @classmethod
    def config(cls, name: str) -> Config:
        """The config of a name, the first for an empty one; raises InputError if it is unknown."""
        for config in cls.BUILDER_CONFIGS:
            if name in ("", config.name):
                return config
        raise InputError(f"unknown data set '{cls.name}/{name}'; choose one of {', '.join(cls.config_names())}")

    @classmethod
    def config_names(cls) -> list[str]:
        """For messages: the available configs."""
        return [f"{cls.name}/{config.name}" for config in cls.BUILDER_CONFIGS]

    @classmethod
    def instructions(cls, config: Config) -> str | None:
        """What the folder of raw files has to hold; None where there are no raw files."""
        del config
        return cls.MANUAL_DOWNLOAD_INSTRUCTIONS

    @classmethod
    def find(cls, folder: pathlib.Path, config: Config) -> Found:
        """The cases in a folder, paired and named; only tables are opened here.

        Args:
          folder: of the raw files.
          config: of the data set.

        Returns:
          What is there. Whatever is wrong is among its problems.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        """One case as its files have it; raises `cases.FileProblems`. See `cases.load`."""
        return raw_cases.load(case, at_least=at_least)

    @property
    def _config(self) -> Config:
        assert isinstance(self.builder_config, Config)
        return self.builder_config

    @property
    def _stacked(self) -> bool:
        """Whether a record is a volume."""
        return self.found.contents.volumes and self._config.volumes

    @property
    def _pictures(self) -> bool:
        """Whether a PNG or JPEG can hold a record's image."""
        contents = self.found.contents
        return not self._stacked and contents.channels in _PNG_CHANNELS and contents.dtype == "uint8"

    def _info(self) -> tfds.core.DatasetInfo:
        contents = self.found.contents
        features = tfds.features
        axes = (None,) * (3 if self._stacked else 2)
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "case": features.Text(),
                    "patient": features.Text(),
                    "domain": features.Text(),
                    "spacing": features.Tensor(shape=(len(axes),), dtype=np.float32),  # mm, NaN where unknown
                    "image": features.Image(shape=(*axes, contents.channels))
                    if self._pictures
                    else features.Tensor(
                        shape=(*axes, contents.channels), dtype=np.dtype(contents.dtype), encoding="zlib"
                    ),
                    "labels": features.Tensor(shape=axes, dtype=np.uint8, encoding="zlib")
                    if self._stacked
                    else features.Image(shape=(*axes, 1), encoding_format="png"),
                }
                # how the intensities of the whole file are spread: see `normalisation.Statistics`
                | (_statistics(contents.channels) if contents.measured else {})
            ),
            metadata=tfds.core.MetadataDict(
                class_names=list(contents.class_names),
                channels=contents.channels,
                # what is needed to prepare new files alike: see `pipeline.Preparation`
                scaling=list(contents.scaling) if contents.scaling else None,
                size=self._config.size,
                volumes=contents.volumes,
                orientation=contents.orientation,
                ignores=contents.ignores,
            ),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, list[Callable[[], Iterator[tuple[str, Example]]]]]:
        del dl_manager
        cases = raw_cases.assigned(self.found.cases)
        splits = {split: [case for case in cases if case.split == split] for split in raw_cases.SPLITS}
        return {split: self._shards(part, split) for split, part in splits.items() if part}  # TFDS has no empty splits

    def _shards(self, cases: Sequence[RawCase], split: str) -> list[Callable[[], Iterator[tuple[str, Example]]]]:
        """One generator per shard; the cases keep their order."""
        description = f"writing {split}"
        size = VOLUMES_PER_SHARD if self.found.contents.volumes else CASES_PER_SHARD

        def write(first: int) -> Iterator[tuple[str, Example]]:
            part = cases[first : first + size]
            if self.THREADS:
                written = threads.in_threads(self.store, part, description, first=first, total=len(cases))
            else:
                written = threads.progress(map(self.store, part), description, first, len(cases))
            for examples in written:
                for example in examples:
                    yield example["case"], example

        return [functools.partial(write, first) for first in range(0, len(cases), size)]

    def store(self, case: RawCase) -> list[Example]:
        """The records of a case: one, or one for every slice of a volume."""
        contents, size = self.found.contents, self._config.size
        loaded = self.load(case, at_least=None if size is None else resizing.DRAFT * size)
        loaded = loaded.oriented(contents.orientation)
        image = raw_cases.with_channels(loaded.image, contents.channels)
        assert image is not None  # checked by the doctor
        labels = raw_cases.classes(loaded.labels, contents.values)
        # what is scaled is so when it is read: a run may want all the levels of the file
        image = raw_cases.as_uint8(image, None) if contents.scaling is None else image.astype(contents.dtype)
        statistics = normalisation.statistics(image, contents.scaling) if contents.measured else None
        record = functools.partial(self._record, case, statistics=statistics)
        spacing = loaded.spacing
        if size is not None:
            squashed = (*labels.shape[:-2], size, size)
            spacing = tuple(s * old / new for s, old, new in zip(spacing, labels.shape, squashed, strict=True))
            image, labels = resizing.resize(image, squashed), resizing.resize_labels(labels, squashed)
        if contents.volumes and not self._stacked:
            names = [f"{case.case}_{z:03d}" for z in range(len(image))]
            return [record(names[z], image[z], labels[z], spacing[1:]) for z in range(len(image))]
        return [record(case.case, image, labels, spacing)]

    def _record(
        self,
        case: RawCase,
        name: str,
        image: np.ndarray,
        labels: np.ndarray,
        spacing: Sequence[float],
        *,
        statistics: np.ndarray | None,
    ) -> Example:
        measured = {} if statistics is None else {"statistics": statistics}
        return measured | {
            "case": name,
            "patient": case.patient,
            "domain": case.domain,
            "spacing": np.asarray(spacing, np.float32),
            "image": self._encoded(case, image) if self._pictures else image,
            "labels": labels if self._stacked else formats.encode_png(labels),
        }

    def _encoded(self, case: RawCase, image: np.ndarray) -> bytes:
        # a file's own bytes where possible: a second compression would add artefacts of ours
        contents = self.found.contents
        untouched = not (self._config.size or contents.volumes or contents.scaling) and len(case.images) == 1
        return (untouched and formats.unchanged_bytes(case.images[0])) or formats.encode_png(image)

    def _example_writer(self) -> Any:
        return _SortedWriter(super()._example_writer())


def _statistics(channels: int) -> dict[str, Any]:
    return {"statistics": tfds.features.Tensor(shape=(4, channels), dtype=np.float32)}


class _SortedWriter:
    """Sorts the features of every record: otherwise every process would order them differently, and the bits differ."""

    def __init__(self, writer: Any):
        self._writer = writer

    def write(self, path: Any, examples: Iterable[tuple[str, bytes]]) -> Any:
        parsed = ((key, _Example.FromString(example)) for key, example in examples)
        return self._writer.write(
            path, ((key, example.SerializeToString(deterministic=True)) for key, example in parsed)
        )
