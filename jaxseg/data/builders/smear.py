"""Synthetic blood smears (Wilm et al. 2024, section III.A), from drawn templates or from those of a smear image."""

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxseg.data import formats
from jaxseg.data.builders import bbbc041, drawn, records
from jaxseg.data.raw_cases import Contents, Found, Loaded
from jaxseg.data.synthetic import smear, smear_cut, smear_drawn
from jaxseg.errors import InputError

_SEED = 2024
_FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}
_SIZES = {"demo": (128, 300), "tiny": (64, 40), "paper": (512, 1000)}
_CUT = "-cut"


class Smear(drawn.SyntheticBuilder):
    """Images of `jaxseg.data.synthetic.smear`; the domain is the density, and every split has both in equal shares.

    The configs with `-cut` cut the templates from the first suitable image of a folder: BBBC041, or
    images with VOC boxes next to them, such as BCCD.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        drawn.DrawnConfig(
            name=name + cut,
            description=f"{size} x {size}, {cases} images, templates {'cut from a smear image' if cut else 'drawn'}",
            size=size,
            scenes={"": cases},
        )
        for cut in ("", _CUT)
        for name, (size, cases) in _SIZES.items()
    ]
    CONTENTS = Contents(("background", "cell"), {0: 0, 1: 1}, channels=3)

    @classmethod
    def instructions(cls, config: records.Config) -> str | None:
        if not config.name.endswith(_CUT):
            return None
        return "give BBBC041 (malaria/images, training.json), or a folder of smear images with VOC boxes (.xml)"

    @classmethod
    def scenes(cls, config: drawn.DrawnConfig) -> Mapping[str, Iterable[int]]:
        return smear.splits(_SEED, config.scenes[""], fractions=_FRACTIONS)

    @classmethod
    def find(cls, folder: pathlib.Path | None, config: records.Config) -> Found:
        found = super().find(None, config)
        problems: list[str] = []
        # any config is given a folder, but only some need it
        templates = (
            _cut(folder, problems) if folder and cls.instructions(config) else smear_drawn.drawn_templates(_SEED)
        )
        if templates is None:
            return Found((), problems, cls.CONTENTS)
        cases = [
            case._replace(
                domain=smear.density_of(case.part.scene), part=case.part._replace(options={"templates": templates})
            )
            for case in found.cases
        ]
        return found._replace(cases=cases)

    @classmethod
    def draw(cls, scene: int, size: int, options: Mapping[str, Any]) -> Loaded:
        image, labels, _ = smear.render(_SEED, scene, size, **options)
        return Loaded(image, labels, (math.nan, math.nan))


def _cut(folder: pathlib.Path, problems: list[str]) -> smear.Templates | None:
    """The templates of the first image that has enough whole cells; without one, the reasons are among the problems."""
    annotated, wrong = bbbc041.boxes(folder)
    reasons = []
    for item in annotated:
        try:
            return smear_cut.cut_templates(formats.read(item.image).array, item.boxes, item.names)
        except (InputError, formats.Unusable) as error:
            reasons.append(f"{item.image}: {error}")
    problems += [*wrong, *reasons]
    return None
