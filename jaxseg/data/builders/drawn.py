"""Synthetic data sets, drawn when they are prepared: nothing to download, the truth is known."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from jaxseg.data.builders import records
from jaxseg.data.raw_cases import Contents, Found, Loaded, RawCase


@dataclasses.dataclass(eq=False)
class DrawnConfig(records.Config):
    """`size`: side of the images in pixels; `scenes`: how many each split has."""

    scenes: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Drawing(NamedTuple):
    """`RawCase.part` of a case that is drawn: the scene's number, its size, and what else its generator needs."""

    scene: int
    size: int
    options: Mapping[str, Any]


class SyntheticBuilder(records.Builder):
    """Base of the synthetic worlds; no two splits share a scene.

    Attributes:
      CONTENTS: of the cases.
    """

    CONTENTS: ClassVar[Contents]
    THREADS = False

    @classmethod
    def find(cls, folder: pathlib.Path | None, config: records.Config) -> Found:
        del folder
        assert isinstance(config, DrawnConfig) and config.size
        cases = [
            case._replace(split=split)
            for split, scenes in cls.scenes(config).items()
            for scene in scenes
            for case in cls.cases(int(scene), config.size)
        ]
        return Found(cases, (), cls.CONTENTS)

    @classmethod
    def scenes(cls, config: DrawnConfig) -> Mapping[str, Iterable[int]]:
        """The numbers of the scenes of every split."""
        splits, first = {}, 0
        for split, count in config.scenes.items():
            splits[split] = range(first, first + count)
            first += count
        return splits

    @classmethod
    def cases(cls, scene: int, size: int) -> Iterator[RawCase]:
        """The cases of one scene, which are in one split."""
        yield drawn_case(scene, size)

    @classmethod
    def load(cls, case: RawCase, *, at_least: int | None = None) -> Loaded:
        del at_least
        return cls.draw(*case.part)

    @classmethod
    def draw(cls, scene: int, size: int, options: Mapping[str, Any]) -> Loaded:
        """Draws a case."""
        raise NotImplementedError


def drawn_case(scene: int, size: int, *, suffix: str = "", domain: str = "", **options: Any) -> RawCase:
    """A case of a scene; the scene is the patient."""
    name = f"synthetic{scene:05d}"
    return RawCase(name + suffix, (), None, patient=name, domain=domain, part=Drawing(scene, size, options))
