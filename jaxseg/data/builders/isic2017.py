"""ISIC 2017 part 1: lesion segmentation in dermoscopy (Codella et al. 2018, arXiv:1710.05006)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records

FOLDERS = {
    "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    "validation": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
    "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
}
_NAMES = files.Names("ISIC_", image=".jpg", mask="_segmentation.png", ignored=("_superpixels.png", ".csv"))


@dataclasses.dataclass(eq=False)
class Isic2017Config(tfds.core.BuilderConfig):
    """`size`: side of the stored squares in pixels; None keeps the official files' sizes, and the JPEG bytes."""

    size: int | None = None


class Isic2017(records.Builder):
    """2000 training, 150 validation and 600 test images of skin lesions with the outlines that experts drew.

    Images of the sizes 256 and 512 are stored as PNG: a second JPEG compression would put artefacts of our own into
    data that are used to find shortcuts, and a gigabyte is little beside the six of the originals.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        Isic2017Config(name="256", description="squashed to 256 x 256", size=256),
        Isic2017Config(name="512", description="squashed to 512 x 512", size=512),
        Isic2017Config(name="full", description="the official files; sizes vary"),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the archives of ISIC 2017 part 1 (https://challenge.isic-archive.com/data/#2017) into one folder, so "
        f"that it holds {', '.join(folder for pair in FOLDERS.values() for folder in pair)}"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        encoding = "jpeg" if self._size is None else "png"
        return records.info(self, ["background", "lesion"], channels=3, encoding=encoding)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        pairs = find(pathlib.Path(dl_manager.manual_dir))
        store = functools.partial(_store, size=self._size)
        return {split: records.shards(store, cases, f"writing {split}") for split, cases in pairs.items()}

    @property
    def _size(self) -> int | None:
        assert isinstance(self.builder_config, Isic2017Config)
        return self.builder_config.size


def find(folder: pathlib.Path) -> dict[str, list[files.Pair]]:
    """The cases of every split, all of them checked.

    Args:
      folder: holds the official folders.

    Raises:
      InputError: lists everything that is wrong with the files.
    """
    found, problems = {}, []
    for split, (images, masks) in FOLDERS.items():
        found[split], lonely = files.find_pairs(folder / images, folder / masks, _NAMES)
        problems += lonely + files.check_pairs(found[split], f"checking {split}")
    problems += _repeated(found)
    files.raise_problems(problems, folder)
    return found


def _repeated(found: Mapping[str, Sequence[files.Pair]]) -> list[str]:
    """Cases that stand in two splits: what is trained on would be tested on."""
    seen: dict[str, files.Pair] = {}
    problems = []
    for pairs in found.values():
        for pair in pairs:
            if pair.case in seen:
                problems.append(f"{pair.image}: the same case is in {seen[pair.case].image}; keep it in one split")
            seen.setdefault(pair.case, pair)
    return problems


def _store(pair: files.Pair, size: int | None) -> dict[str, Any]:
    # a path is stored as the bytes it points at
    image = pair.image if size is None else files.encode_png(files.read_image(pair.image, size))
    labels = files.encode_png(files.read_mask(pair.mask, size))
    # the challenge does not say which images show the same patient
    return {"case": pair.case, "patient": pair.case, "image": image, "labels": labels}
