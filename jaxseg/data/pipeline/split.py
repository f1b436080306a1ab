"""One split of a prepared data set, read from disk case by case."""

import functools
import hashlib
import io
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg import paths
from jaxseg.data import threads
from jaxseg.data.grids import Misfit, Placement
from jaxseg.data.inputs import Inputs, gray_levels
from jaxseg.data.normalisation import MeanStd, Statistics
from jaxseg.data.raw_cases import IGNORED
from jaxseg.errors import InputError

Case = dict[str, Any]

# what array_record and TFDS say of corrupted bytes and missing files
_DAMAGE = re.compile("Corrupted|hash mismatch|should be at least 64KB|No such file or directory|Failed to load JSON")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Preparation(NamedTuple):
    """How the raw files of a data set were prepared, so that new files can be prepared alike.

    Attributes:
      scaling: how intensities became 0 to 255; see `jaxseg.data.raw_cases.as_uint8`.
      size: images were squashed to this many pixels a side; None: they kept theirs.
      volumes: the files held volumes; of a data set of pictures, every slice is a case then, named `<volume>_<number>`.
      orientation: to which sides of the patient the axes of all volumes run, such as `SPL`; empty where unknown.
      dtype: in which images are stored.
    """

    scaling: tuple[str, float, float] | None
    size: int | None
    volumes: bool
    orientation: str = ""
    dtype: str = "uint8"


class Split:
    """One split of a prepared data set, read from disk case by case.

    `split[i]` is `{"case": str, "patient": str, "domain": str, "spacing": float32 [2] (mm, NaN where unknown),
    "image": [H,W,C], "labels": uint8 [H,W]}`; of volumes `[3]`, `[D,H,W,C]` and `[D,H,W]`. Image, labels and spacing
    are what a network is given (`jaxseg.data.inputs`), images as uint8 or as floats. Where pixels may not count,
    because they are padding or have no annotation, `"valid"`, bool `[H,W]`, says which do; others have the label 0.

    Attributes:
      name: data set, config and split, as in `isic2017/256/train`, followed by the domains if they are chosen.
      class_names: the background first.
      num_classes: K.
      num_cases: N.
      num_channels: C.
      rank: 2, or 3 for volumes.
      inputs: what becomes of a stored case.
      sides: spatial sizes of all cases; None where they may differ, which `sizes` says.
      masked: whether cases have `valid`.
      fingerprint: tells different cases apart without reading them.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str,
        *,
        size: int | None = None,
        inputs: Inputs | None = None,
        domains: Sequence[str] = (),
    ):
        """Opens the split.

        Args:
          directory: of the prepared data set, as `jaxseg.data.builders.prepare` returns it.
          split: its name, as `train`.
          size: cases are squashed to this many pixels a side; None: they stay on the grid on which they are stored.
          inputs: what else becomes of a stored case; by default images are gray levels of `size`.
          domains: only cases of these, for training on one scanner and testing on another; none means all.

        Raises:
          InputError: the folder is not a prepared data set, or it has no such split, or no case of such a domain (the
            message names those it has), or it lacks the intensities that the normalisation needs.
        """
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
        self._dtype = np.dtype(features["image"].np_dtype).name
        self._directory = directory
        self._metadata = metadata
        try:
            self._records = builder.as_data_source(split, decoders=_no_decoding(features))
        except Exception as error:  # a shard is missing or truncated
            raise _unreadable(directory, error) from error
        self._mode = _MODES.get(self.num_channels, "")
        self.inputs = gray_levels(size) if inputs is None else inputs
        try:
            self.sides = self.inputs.grid.sides(self.rank)
        except Misfit as error:
            raise InputError(f"{directory}: {error}; see config.data.geometry_options") from error
        self._measured = "statistics" in features
        self._check_intensities()
        self.masked = self.inputs.grid.pads or bool(
            metadata.get("ignores", False)
        )  # not recorded by the first versions
        self._numbers = range(sizes[split])
        self.name = "/".join(part for part in (builder.name, builder.builder_config_name, split) if part)
        if domains:
            self._numbers = self._of_domains(domains)
            self.name += f" ({', '.join(domains)})"
        self.num_cases = len(self._numbers)
        self.fingerprint = f"{self.name} {self.num_cases} {builder.info.splits[split].num_bytes}"

    def _of_domains(self, domains: Sequence[str]) -> Any:
        case_domains = [domain for _, _, domain in self._texts()]
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
        return Preparation(scaling and (scaling[0], scaling[1], scaling[2]), size, volumes, orientation, self._dtype)

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of all cases; reads every record once, but decodes no image."""
        return self._columns[0]

    @property
    def patients(self) -> tuple[str, ...]:
        """Whom they show; read with `cases`."""
        return self._columns[1]

    @property
    def domains(self) -> tuple[str, ...]:
        """Where they are from; read with `cases`."""
        return self._columns[2]

    @functools.cached_property
    def _columns(self) -> tuple[tuple[str, ...], ...]:
        return tuple(zip(*self._texts(), strict=True))

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, ...], ...] | None:
        """The spatial sizes of every case, for which all labels are decoded; None where the geometry gives one."""
        if self.sides is not None:
            return None
        placed = threads.in_threads(self.placement, range(len(self)), f"sizes of {self.name}")
        return tuple(placement.grid for placement in placed)

    def placement(self, index: int) -> Placement:
        """Where a case lies on the grid that a network is given, for which its labels are decoded."""
        case = self.truth(index)
        return self.inputs.grid.placement(case["labels"].shape, case["spacing"])

    @property
    def num_bytes(self) -> int:
        """Of all images and labels, once decoded."""
        sizes = (self.sides,) * len(self) if self.sides else self.sizes or ()
        return self.bytes_of(sum(math.prod(size) for size in sizes))

    def bytes_of(self, pixels: int) -> int:
        """Of so many pixels of images and labels, once decoded."""
        width = self.inputs.normalisation.itemsize or np.dtype(self._dtype).itemsize
        return pixels * (self.num_channels * width + 1 + self.masked)

    def facts(self, index: int) -> tuple[str, str, str, str]:
        """Name, patient and domain of a case, and a checksum of how it is stored; nothing is decoded."""
        try:
            record = self._records[self._numbers[index]]
            digest = hashlib.blake2b(digest_size=8)
            for name in ("image", "labels"):
                stored = record[name]
                digest.update(np.ascontiguousarray(stored).data if isinstance(stored, np.ndarray) else stored)
            case, patient, domain = (record[name].decode() for name in ("case", "patient", "domain"))
            return case, patient, domain, digest.hexdigest()
        except Exception as error:
            raise _unreadable(self._directory, error) from error

    def _texts(self) -> list[tuple[str, ...]]:
        """Name, patient and domain of every case."""
        try:
            records = (self._records[number] for number in self._numbers)
            return [tuple(record[name].decode() for name in ("case", "patient", "domain")) for record in records]
        except Exception as error:
            raise _unreadable(self._directory, error) from error

    def __getitem__(self, index: int) -> Case:
        return self._case(index)

    def _case(self, index: int, *, pictured: bool = False) -> Case:
        record = self._records[self._numbers[index]]
        known = Statistics(*record["statistics"]) if self._measured else None
        image, intensities = self._image(record["image"]), {"scaling": self._metadata.get("scaling"), "known": known}
        name = record["case"].decode()
        try:
            spacing = np.array(record["spacing"], np.float32)
            fitted = self.inputs(image, _labels(record["labels"]), spacing, **intensities)
        except Misfit as error:
            raise InputError(f"{self.name}: {name} {error}") from error
        texts = {"case": name} | {field: record[field].decode() for field in ("patient", "domain")}
        case = {**texts, "spacing": fitted.spacing, "image": fitted.image, **self._annotated(fitted.labels)}
        if not pictured:
            return case
        scale = np.stack(self.inputs.normalisation.scale(image, **intensities))
        inside = [(part.start, part.stop) for part in fitted.placement.inside]
        return case | {"scale": scale, "inside": np.array(inside, np.int32).T}

    def truth(self, index: int) -> Case:
        """What a case has on the grid on which it is stored, without its image: `labels`, `spacing`, and `valid`."""
        try:
            record = self._records[self._numbers[index]]
            return self._annotated(_labels(record["labels"])) | {"spacing": np.array(record["spacing"], np.float32)}
        except Exception as error:
            raise _unreadable(self._directory, error) from error

    def _annotated(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Labels, and which of them count."""
        if not self.masked:
            return {"labels": labels}
        valid = labels != IGNORED
        return {"labels": np.where(valid, labels, 0).astype(np.uint8), "valid": valid}

    def _check_intensities(self) -> None:
        if isinstance(self.inputs.normalisation, MeanStd) and not self.inputs.normalisation.mean:
            raise InputError(
                "config.data.normalisation is 'mean_std' without numbers; give config.data.normalisation_options.mean "
                "and std, or take those of the training cases by jaxseg.training.runs.resolved"
            )
        if isinstance(self.inputs.normalisation, MeanStd):
            given = len(self.inputs.normalisation.mean)
            if given not in (1, self.num_channels):
                raise InputError(
                    f"config.data.normalisation_options.mean has {given} numbers, {self._directory} "
                    f"{self.num_channels} channels; give one for each, or one for all"
                )
        plain = self.inputs.normalisation.itemsize in (None, 1)
        if plain or self._measured or self._metadata.get("scaling") is None:
            return
        raise InputError(
            f"{self._directory}: was prepared by a version that stored 8 bits of its intensities; use "
            "config.data.normalisation 'range', or prepare it again with python -m launch.prepare and another "
            "--data_dir"
        )

    def _image(self, stored: Any) -> np.ndarray:
        if isinstance(stored, np.ndarray):
            return stored
        with Image.open(io.BytesIO(stored)) as image:
            if side := self.inputs.grid.draft:
                image.draft(None, (side, side))
            array = np.asarray(image if image.mode == self._mode else image.convert(self._mode))
        return array.reshape(*array.shape[:2], self.num_channels)

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))

    def read(self, index: int, *, pictured: bool = False) -> Case:
        """`self[index]`; raises InputError where the stored case cannot be read.

        Args:
          index: of the case.
          pictured: with what it takes to show and to change the picture of a case: `scale`, float32 `[4,C]`, a
            `normalisation.Scale`; and `inside`, int32 `[2,rank]`, from and to where the case lies on its grid.
        """
        try:
            return self._case(index, pictured=pictured)
        except InputError:
            raise
        except Exception as error:  # array_record, protobuf and Pillow each raise their own
            raise _unreadable(self._directory, error) from error


def split_sizes(directory: str | os.PathLike[str]) -> dict[str, int]:
    """How many cases each split of a prepared data set has.

    Raises:
      InputError: the folder is not a prepared data set.
    """
    _place, builder = _open(directory)  # its name is valid until the builder has been queried
    return _split_sizes(builder)


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
