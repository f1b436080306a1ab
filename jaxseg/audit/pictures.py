"""Cases in two pictures, once with a cue and once without: what shows a finding."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.audit.asking import Asked, Cases
from jaxseg.audit.probe import Arrays, Figure
from jaxseg.audit.subject import Subject
from jaxseg.prediction.thumbnails import thumbnail
from jaxseg.report import contact_sheet, figures

_PARTS = ("pictures", "picture_labels", "picture_classes", "chosen", "picture_moves")
_SHOWN = "White: annotation; filled: prediction. The cases stand at the upper and lower quartile of the effect."
_SIDES = (("top", "bottom"), ("left", "right"))


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """A few cases, each in two pictures.

    Attributes:
      images: uint8 `[E,2,H,W,C]`, what the network saw.
      labels, classes: uint8 `[E,2,H,W]`, what it should say, and what it said.
      chosen: numbers of the cases, `[E]`.
      moves: of windows, by how many pixels along each axis what the first picture shows has to move to where the second
        has it, to whose border a line of the first moves, `[E,2]`; None of others.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    chosen: np.ndarray
    moves: np.ndarray | None = None

    def arrays(self, *, prefix: str = "") -> dict[str, np.ndarray]:
        """As they are kept among a probe's measures."""
        values = (self.images, self.labels, self.classes, self.chosen, self.moves)
        return {f"{prefix}{name}": value for name, value in zip(_PARTS, values, strict=True) if value is not None}


def of_arrays(arrays: Arrays, *, prefix: str = "") -> Pairs:
    """What `Pairs.arrays` gave."""
    images, labels, classes, chosen = (arrays[f"{prefix}{name}"] for name in _PARTS[:-1])
    return Pairs(images, labels, classes, chosen, arrays.get(f"{prefix}{_PARTS[-1]}"))


def of(asked: Asked, cases: Cases, chosen: np.ndarray, *, both: tuple[int, int] = (0, 1)) -> Pairs:
    """Pairs of a question's pictures.

    Args:
      asked: its pictures are `images`, `labels` and `classes` `[B,V,...]`, uint8; of windows, with `moves` `[B,2]`.
      cases: of which it was asked.
      chosen: numbers of those that are shown, as of `largest`.
      both: which two of the V pictures of a case.
    """
    found = asked.pictures(cases, chosen)
    images, labels, classes = (found[what][:, list(both)] for what in ("images", "labels", "classes"))
    return Pairs(images, labels, classes, chosen, found.get("moves"))


def figure(name: str, pairs: Pairs, subject: Subject, first: str, second: str, *, parts: str = "") -> Figure | None:
    """The figure of a finding, where there is a case to show.

    Args:
      name: of the probe, or of its part.
      pairs: the cases.
      subject: whose they are.
      first: what the first picture of a case is, in words.
      second: the same of the second.
      parts: what is to be seen in them, in sentences.
    """
    if not len(pairs.chosen):
        return None
    return Figure(
        f"finding_{name.replace(' ', '_')}",
        f"{first.capitalize()}, and {second}",
        f"Cases twice, {first} and {second}, each with the annotation and the network's prediction.",
        f"{parts} {_SHOWN}".strip(),
        lambda path: _draw(path, pairs, subject, (first, second)),
        table="findings",
    )


def _draw(path: pathlib.Path, pairs: Pairs, subject: Subject, names: tuple[str, str]) -> None:
    rows: list[tuple[str, Any, Any, Mapping[str, Any]]] = []
    for i, case in enumerate(pairs.chosen):
        for k, name in enumerate(names):
            title, image = f"{subject.test.cases[int(case)]}, {name}", _rgb(pairs.images[i, k])
            if pairs.moves is not None:
                image, side = _with_line(image, pairs.moves[i], k)
                title += f" ({side})"
            rows.append((title, image, pairs.labels[i, k], {"prediction": pairs.classes[i, k]}))
    figures.overlays(path, rows)


def _with_line(image: np.ndarray, move: np.ndarray, window: int) -> tuple[np.ndarray, str]:
    """The picture of a window with the line that is the second's border, dashed; and the side at which that is."""
    axis = int(np.argmax(abs(move)))
    by, last = int(move[axis]), image.shape[axis] - 1
    inside, border = (-by, 0) if by <= 0 else (last - by, last)
    painted = image.copy()
    line = np.moveaxis(painted, axis, 0)[border if window else inside]
    line[:] = np.where(np.arange(len(line)) // 4 % 2, 255, 0)[:, None]
    return painted, _SIDES[axis][by > 0]


def marks_figure(name: str, images: np.ndarray, masks: np.ndarray, cases: Sequence[str], *, table: str = "") -> Figure:
    """The figure of marks that were found.

    Args:
      name: of the probe.
      images: uint8 `[E,H,W,C]`.
      masks: bool `[E,H,W]`, where marks are.
      cases: their names.
      table: with numbers of them, where that has another name than the figure.
    """
    of_cases = zip(images, masks.astype(np.uint8), cases, strict=True)
    cells = [thumbnail(image, mask, (case,)) for image, mask, case in of_cases]
    return Figure(
        f"{name.replace(' ', '_')}_marks",
        "Marks that were found",
        "Test images with the outlines of the marks that were found in them.",
        "Outlined is what is taken for calipers or text: look whether it is.",
        lambda path: contact_sheet.write(path, cells, ("", "found marks")),
        table=table,
    )


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
