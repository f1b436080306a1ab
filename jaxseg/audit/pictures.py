"""Cases in two pictures, once with a cue and once without: what shows a finding."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.audit.asking import Asked
from jaxseg.audit.probe import Arrays, Figure
from jaxseg.audit.subject import Subject
from jaxseg.data import pipeline
from jaxseg.report import figures

_PARTS = ("pictures", "picture_labels", "picture_classes", "chosen")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """A few cases, each in two pictures.

    Attributes:
      images: uint8 `[E,2,H,W,C]`, what the network saw.
      labels, classes: uint8 `[E,2,H,W]`, what it should say, and what it said.
      chosen: numbers of the cases, `[E]`.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    chosen: np.ndarray

    def arrays(self, *, prefix: str = "") -> dict[str, np.ndarray]:
        """As they are kept among a probe's measures."""
        values = (self.images, self.labels, self.classes, self.chosen)
        return {f"{prefix}{name}": value for name, value in zip(_PARTS, values, strict=True)}


def of_arrays(arrays: Arrays, *, prefix: str = "") -> Pairs:
    """What `Pairs.arrays` gave."""
    return Pairs(*(arrays[f"{prefix}{name}"] for name in _PARTS))


def of(asked: Asked, cases: pipeline.InMemory, chosen: np.ndarray, *, both: tuple[int, int] = (0, 1)) -> Pairs:
    """Pairs of a question's pictures.

    Args:
      asked: its pictures are `images`, `labels` and `classes` `[B,V,...]`, uint8.
      cases: of which it was asked.
      chosen: numbers of those that are shown, as of `largest`.
      both: which two of the V pictures of a case.
    """
    found = asked.pictures(cases, chosen)
    images, labels, classes = (found[what][:, list(both)] for what in ("images", "labels", "classes"))
    return Pairs(images, labels, classes, chosen)


def of_pairs(answer: Arrays, chosen: np.ndarray) -> Pairs:
    """Pairs of an answer with `images`, `labels` and `classes` `[N,2,...]` of all cases."""
    return Pairs(answer["images"][chosen], answer["labels"][chosen], answer["classes"][chosen], chosen)


def of_answers(answers: Sequence[Arrays], chosen: np.ndarray) -> Pairs:
    """Pairs of two answers with `images`, `labels` and `classes` `[N,...]` of all cases."""
    part = lambda what: np.stack([answer[what][chosen] for answer in answers], 1)
    return Pairs(part("images"), part("labels"), part("classes"), chosen)


def figure(name: str, pairs: Pairs, subject: Subject, first: str, second: str) -> Figure | None:
    """The figure of a finding, where there is a case to show.

    Args:
      name: of the probe, or of its part.
      pairs: the cases.
      subject: whose they are.
      first: what the first picture of a case is, in words.
      second: the same of the second.
    """
    if not len(pairs.chosen):
        return None
    return Figure(
        f"finding_{name.replace(' ', '_')}",
        f"{first.capitalize()}, and {second}",
        f"Cases twice, {first} and {second}, each with the annotation and the network's prediction.",
        "White: annotation; filled: prediction. The cases stand at the upper and lower quartile of the effect.",
        lambda path: _draw(path, pairs, subject, (first, second)),
        table="findings",
    )


def _draw(path: pathlib.Path, pairs: Pairs, subject: Subject, names: tuple[str, str]) -> None:
    rows: list[tuple[str, Any, Any, Mapping[str, Any]]] = []
    for i, case in enumerate(pairs.chosen):
        for k, name in enumerate(names):
            title = f"{subject.test.cases[int(case)]}, {name}"
            rows.append((title, _rgb(pairs.images[i, k]), pairs.labels[i, k], {"prediction": pairs.classes[i, k]}))
    figures.overlays(path, rows)


def _rgb(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)


def largest(effect: np.ndarray, count: int) -> np.ndarray:
    """Cases for pictures: those at the upper quartile and at the median of an effect, and so on downwards."""
    defined = np.flatnonzero(~np.isnan(effect))
    order = defined[np.argsort(effect[defined], kind="stable")]
    if not len(order) or not count:
        return order[:0]
    shares = np.linspace(0.75, 0.25, count) if count > 1 else np.array([0.5])
    return order[np.unique((shares * (len(order) - 1)).round().astype(int))[::-1]]
