"""Synthetic short-axis cardiac MRI of four vendors."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxseg.data.builders import drawn, records
from jaxseg.data.raw_cases import Contents, Loaded, RawCase
from jaxseg.data.synthetic import cardiac

_SEED = 2018
_CONTENTS = Contents(cardiac.CLASS_NAMES, {k: k for k in range(len(cardiac.CLASS_NAMES))}, channels=1, volumes=True)
_SIZES = {
    "demo": (128, {"train": 40, "validation": 8, "test": 16}),
    "tiny": (64, {"train": 6, "validation": 2, "test": 4}),
}


class Cardiac(drawn.SyntheticBuilder):
    """Hearts of `jaxseg.data.synthetic.cardiac`, each as all four vendors show it: the domain is the vendor.

    Train on one vendor and test on all: the hearts are the same.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = [
        drawn.DrawnConfig(
            name=name + ("-volumes" if volumes else ""),
            description=f"{size} x {size}, {'stacks of 8 slices' if volumes else 'slice by slice'}",
            size=size,
            scenes=scenes,
            volumes=volumes,
        )
        for volumes in (False, True)
        for name, (size, scenes) in _SIZES.items()
    ]
    CONTENTS = _CONTENTS

    @classmethod
    def cases(cls, scene: int, size: int) -> Iterator[RawCase]:
        for vendor in cardiac.VENDORS:
            yield drawn.drawn_case(scene, size, suffix=f"_{vendor}", domain=vendor, vendor=vendor)

    @classmethod
    def draw(cls, scene: int, size: int, options: Mapping[str, Any]) -> Loaded:
        image, labels, spacing = cardiac.volume(_SEED, scene, size, **options)
        return Loaded(image[..., None], labels, spacing)
