"""Synthetic dermoscopy, drawn when it is prepared: nothing to download, the truth is known."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.synthetic import dermoscopy

_SEED = 2017


@dataclasses.dataclass(eq=False)
class DermoscopyConfig(tfds.core.BuilderConfig):
    """`size`: side of the images in pixels; `cases`: how many each split has."""

    size: int = 0
    cases: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Dermoscopy(records.Builder):
    """Images of `jaxseg.data.synthetic.dermoscopy`; no two splits share one, and no case has been seen by another."""

    VERSION = tfds.core.Version("1.0.0")  # to be raised when `render` draws other images, or old ones stay in use
    BUILDER_CONFIGS: ClassVar = [
        DermoscopyConfig(
            name="demo",
            description="128 x 128, for studies that run in minutes",
            size=128,
            cases={"train": 320, "validation": 48, "test": 160},
        ),
        DermoscopyConfig(
            name="tiny",
            description="64 x 64, for tests",
            size=64,
            cases={"train": 48, "validation": 16, "test": 16},
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return records.info(self, ["background", "lesion"], channels=3, encoding="png")

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        del dl_manager
        assert isinstance(self.builder_config, DermoscopyConfig)
        draw = functools.partial(_draw, size=self.builder_config.size)
        splits, first = {}, 0
        for split, count in self.builder_config.cases.items():
            # drawing is many small steps of NumPy, which threads only make slower
            splits[split] = records.shards(draw, range(first, first + count), f"drawing {split}", threads=False)
            first += count
        return splits


def _draw(index: int, size: int) -> dict[str, Any]:
    image, labels = dermoscopy.render(_SEED, index, size)
    case = f"synthetic{index:05d}"
    return {"case": case, "patient": case, "image": files.encode_png(image), "labels": files.encode_png(labels)}
