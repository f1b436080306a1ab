"""What the doctor says of a data set: findings, numbers, and a verdict."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data.raw_cases import RawCase

SHORTCUTS = ("position", "border", "overlays", "intensity", "classes of domains")
MARKS = ("fixed marks", "overlays", "possible overlays")  # findings that speak of marks in images

# What everyone should be told, asked for or not: it decides what a network's scores mean.
SPOKEN = ("clipped foreground", "no training cases", "classes of train", "classes of validation", "classes of test")
_UNTRAINED = ("classes", "classes of train")  # a class that no training case has

FILE = "doctor.json"  # in the folder of a prepared data set

# What the numbers of a report are.
CONVENTIONS = {
    "foreground": "share of pixels, mean over all cases",
    "median offset": "of the masks' centres of mass from the middle, in half sides; empty masks left out",
    "touch the border": "share of masks that are not empty",
    "density at the border": "of foreground in the outermost eighth of the side, over that in the whole image",
    "blind Dice": "of the best fixed mask, mean over cases; empty masks left out",
    "searched for overlays": "images that are gray and no slices of volumes; at most 400, evenly spread",
}

_EXAMPLES = 5  # files that a table names for each finding


class Finding(NamedTuple):
    """One thing that is wrong, or worth knowing.

    Attributes:
      level: error or warning.
      check: what was looked at, in a word or two.
      summary: what was found, and the remedy or what it means, in one line.
      lines: one for each file or case concerned, starting with its name; may be empty.
    """

    level: str
    check: str
    summary: str
    lines: tuple[str, ...] = ()


class Pictured(NamedTuple):
    """An image with the marks that were found in it: uint8 `[H,W,C]`, bool `[H,W]`."""

    name: str
    image: np.ndarray
    marks: np.ndarray


class Report(NamedTuple):
    """What the doctor says.

    Attributes:
      name: of the data set.
      cases: all that can be used, each in its split; empty where errors are.
      findings: errors first.
      numbers: name -> value, of the whole data set, also where nothing is wrong.
      orientation: that of most volumes, to which the others are turned; empty where most do not tell, and of pictures.
      dtype: in which all images can be stored.
      pictured: a few images with marks, where they were asked for.
    """

    name: str
    cases: Sequence[RawCase]
    findings: Sequence[Finding]
    numbers: Mapping[str, Any]
    orientation: str = ""
    dtype: str = "uint8"
    pictured: Sequence[Pictured] = ()

    @property
    def errors(self) -> list[Finding]:
        """What keeps the data set from being prepared."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What a person should know."""
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def spoken(self) -> list[Finding]:
        """Warnings that are given without being asked for."""
        return [finding for finding in self.warnings if finding.check in SPOKEN]

    @property
    def verdict(self) -> str:
        """One line."""
        shortcuts = [finding.check for finding in self.warnings if finding.check in SHORTCUTS]
        known = f"{count(len(self.warnings), 'warning')}"
        if shortcuts:
            known += f", of which {len(shortcuts)} that a network may take as a shortcut ({', '.join(shortcuts)})"
        if self.errors:
            problems = sum(max(1, len(finding.lines)) for finding in self.errors)
            return f"not usable: {count(problems, 'problem')} to fix first; {known}"
        return f"usable; {known}" if self.warnings else "usable; nothing found"

    def text(self) -> str:
        """The numbers, a table with a line for every finding, examples below it, and the verdict."""
        notes = {name: f" ({text})" for name, text in CONVENTIONS.items()}
        rows = [(name, _shown(value) + notes.get(name, "")) for name, value in self.numbers.items()]
        width = max((len(name) for name, _ in rows), default=0)
        lines = [self.name, *(f"  {name:<{width}}  {value}" for name, value in rows), ""]
        width = max((len(finding.check) for finding in self.findings), default=0)
        for finding in self.findings:
            lines.append(f"{finding.level:<7}  {finding.check:<{width}}  {finding.summary}")
            lines += [f"{'':<9}- {line}" for line in finding.lines[:_EXAMPLES]]
            if len(finding.lines) > _EXAMPLES:
                lines.append(f"{'':<9}- and {len(finding.lines) - _EXAMPLES} more")
        return "\n".join([*lines, *([""] if self.findings else []), f"verdict: {self.verdict}"])

    def as_json(self) -> dict[str, Any]:
        """All of it, for `json.dumps`; NaN becomes None."""
        numbers = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in self.numbers.items()}
        findings = [finding._asdict() | {"lines": list(finding.lines)} for finding in self.findings]
        said = {name: text for name, text in CONVENTIONS.items() if name in numbers}
        return {"name": self.name, "verdict": self.verdict, "numbers": numbers} | {
            "conventions": said,
            "findings": findings,
        }


def untrained(directory: pathlib.Path) -> list[str]:
    """A line for every class that no training case of a prepared data set has, as far as that was recorded."""
    try:
        findings = json.loads((directory / FILE).read_text())["findings"]
        return [finding["summary"] for finding in findings if finding["check"] in _UNTRAINED]
    except (OSError, ValueError, KeyError, TypeError):  # of another version
        return []


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def count(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}{'s' * (number != 1)}"
