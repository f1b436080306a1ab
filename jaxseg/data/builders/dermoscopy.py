"""Synthetic dermoscopy: lesions in the middle, as in ISIC 2017."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import drawn
from jaxseg.data.raw_cases import Contents, Loaded
from jaxseg.data.synthetic import dermoscopy

_SEED = 2017


class Dermoscopy(drawn.SyntheticBuilder):
    """Images of `jaxseg.data.synthetic.dermoscopy`; no two splits share one, and each shows its own patient."""

    VERSION = tfds.core.Version("2.0.0")  # raise it when `render` draws other images, or old ones stay in use
    BUILDER_CONFIGS: ClassVar = [
        drawn.DrawnConfig(
            name="demo",
            description="128 x 128, for studies that run in minutes",
            size=128,
            scenes={"train": 320, "validation": 48, "test": 160},
        ),
        drawn.DrawnConfig(
            name="tiny",
            description="64 x 64, for tests",
            size=64,
            scenes={"train": 48, "validation": 16, "test": 16},
        ),
    ]
    CONTENTS = Contents(("background", "lesion"), {0: 0, 1: 1}, channels=3)

    @classmethod
    def draw(cls, scene: int, size: int, options: Mapping[str, Any]) -> Loaded:
        return Loaded(*dermoscopy.render(_SEED, scene, size, **options), (math.nan, math.nan))
