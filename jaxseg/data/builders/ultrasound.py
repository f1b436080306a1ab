"""Synthetic fetal ultrasound, annotated and clean."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import drawn
from jaxseg.data.raw_cases import Contents, Loaded, RawCase
from jaxseg.data.synthetic import ultrasound

_SEED = 2024


class Ultrasound(drawn.SyntheticBuilder):
    """Scans of `jaxseg.data.synthetic.ultrasound`, each as domain `annotated`, with calipers and text, and `clean`.

    Train on one domain and test on both: the scan below the marks is the same.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        drawn.DrawnConfig(
            name="demo",
            description="128 x 128",
            size=128,
            scenes={"train": 400, "validation": 60, "test": 160},
        ),
        drawn.DrawnConfig(
            name="tiny",
            description="64 x 64, for tests",
            size=64,
            scenes={"train": 32, "validation": 8, "test": 16},
        ),
    ]
    CONTENTS = Contents(ultrasound.CLASS_NAMES, {k: k for k in range(len(ultrasound.CLASS_NAMES))}, channels=3)

    @classmethod
    def cases(cls, scene: int, size: int) -> Iterator[RawCase]:
        for domain in ("annotated", "clean"):
            marked = domain == "annotated"
            yield drawn.drawn_case(scene, size, suffix=f"_{domain}", domain=domain, calipers=marked, text=marked)

    @classmethod
    def draw(cls, scene: int, size: int, options: Mapping[str, Any]) -> Loaded:
        # planes alternate, so that every split has its share of each
        plane = ultrasound.PLANES[scene % len(ultrasound.PLANES)]
        frame = ultrasound.render(_SEED, scene, size, plane=plane, **options)
        return Loaded(frame.image, frame.labels, (math.nan, math.nan))
