"""What a probe is, and what it answers: rows of numbers, figures, and what of it may be a finding."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.audit.subject import Subject
from jaxseg.metrics.intervals import Estimate
from jaxseg.results.table import NONE, OVER_PATIENTS, Row, exact

Arrays = Mapping[str, np.ndarray]
ALL = "all cases"
LEAST_PATIENTS = 5  # resamples of fewer are too alike: of one patient, the interval is a point
GROUPS = ("accuracy", "shortcuts", "layers", "trust")  # of probes, in the order of the page


class NotAskedError(Exception):
    """A probe cannot be asked of this network or of these cases; the message says why."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a finding is about.

    Attributes:
      name: one word.
      is_shortcut: whether it is a cue that the network uses; others concern its quality.
    """

    name: str
    is_shortcut: bool = False


SHORTCUTS = BORDER, OVERLAY, SCANNER = tuple(Kind(name, is_shortcut=True) for name in ("border", "overlay", "scanner"))


@dataclasses.dataclass(frozen=True, eq=False)
class Figure:
    """A picture of the audit.

    Attributes:
      name: of its file, and of the table with its numbers.
      title, alt, caption: as of `report.page.Figure`.
      draw: writes it to a path.
      table: with its numbers, where that has another name.
    """

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[pathlib.Path], None]
    table: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """What is a finding if the number is large enough, or small enough where it should be large.

    Attributes:
      kind: what the finding is about.
      name: of what was asked, as in the table of candidates.
      title: of the finding, a few words.
      sentence: in plain words, with what the number is.
      quantity: of the number.
      estimate: the number with its interval.
      margin: what the interval of a finding lies above, or below where `high_is_good`.
      damage: Dice that is lost by it, mean over cases; NaN where it is no loss of Dice.
      remedy: what to do.
      figure: what shows it.
      hidden: why the number can decide nothing; empty where it can.
      high_is_good: of the number, such as a Dice.
    """

    kind: Kind
    name: str
    title: str
    sentence: str
    quantity: str
    estimate: Estimate
    margin: float
    damage: float
    remedy: str
    figure: Figure | None = None
    hidden: str = ""
    high_is_good: bool = False

    @property
    def wanted(self) -> str:
        """Which numbers are no finding, in words."""
        return f"at {'least' if self.high_is_good else 'most'} {self.margin:g}"

    @property
    def thin(self) -> bool:
        """It is of too few patients for an interval over them to decide anything, or undefined."""
        return self.estimate.patients < LEAST_PATIENTS or math.isnan(self.estimate.mean)

    @property
    def found(self) -> bool:
        """The whole interval lies beyond the margin."""
        beyond = self.estimate.high < self.margin if self.high_is_good else self.estimate.low > self.margin
        return not (self.thin or self.hidden) and beyond

    @property
    def open(self) -> bool:
        """The interval lies on both sides of the margin, or there is none to speak of, or it decides nothing."""
        reaches = self.estimate.low < self.margin if self.high_is_good else self.estimate.high > self.margin
        return self.thin or bool(self.hidden) or (not self.found and reaches)

    @property
    def needed(self) -> float:
        """Patients beyond these, in two digits, whose interval would lie on one side of the margin.

        An interval narrows with the square root of their number. Infinite where that takes a hundred times as many; NaN
        where the number is undefined.
        """
        one = self.estimate
        if math.isnan(one.mean):
            return math.nan
        reach = one.mean - one.low if one.mean > self.margin else one.high - one.mean
        away = abs(one.mean - self.margin)
        if reach > 10 * away:
            return math.inf
        wanted = one.patients * (reach / away) ** 2 if away else one.patients
        more = max(wanted, LEAST_PATIENTS, one.patients) - one.patients
        unit = 10 ** max(math.floor(math.log10(max(more, 1))) - 1, 0)
        return math.ceil(more / unit) * unit

    def record(self) -> dict[str, Any]:
        """As `results.json` and the table of candidates have it."""
        texts = {name: getattr(self, name) for name in ("title", "sentence", "quantity")}
        numbers = {**dataclasses.asdict(self.estimate), "margin": self.margin, "wanted": self.wanted}
        of = {"kind": self.kind.name, "probe": self.name}
        ends = {"damage": self.damage, "remedy": self.remedy, "found": self.found, "open": self.open}
        return {**of, **texts, **numbers, **ends}


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a probe says.

    Attributes:
      rows: of numbers, as of `number`, in the order in which they are to be read.
      not_asked: rows that say which part was not asked, and why.
      candidates: what of it may be a finding.
      figures: evidence.
      text: what a reader of rows and figures has to know.
      facts: (label, value) of key numbers.
      advice: what to do, whatever was found; empty if nothing.
    """

    rows: Sequence[Row]
    candidates: Sequence[Candidate] = ()
    figures: Sequence[Figure] = ()
    text: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    advice: str = ""
    not_asked: Sequence[Row] = ()


@dataclasses.dataclass(frozen=True)
class Probe:
    """A question to a network: one file of `audit/probes` with a `PROBE`.

    Attributes:
      name: a word or two.
      question: in words.
      group: one of `GROUPS`: where it stands on the page.
      settings: dataclass of what it reads of the audit's config (`jaxseg.settings`).
      measure: computes what is expensive; raises NotAskedError.
      tabulate: makes the answer of it.
      wanted: of the measures' names, those that depend on what is at hand, such as training cases; where a work folder
        lacks one, all are measured anew.
    """

    name: str
    question: str
    group: str
    settings: type
    measure: Callable[[Subject, Any], Arrays]
    tabulate: Callable[[Subject, Any, Arrays], Answer]
    wanted: Callable[[Subject], Collection[str]] = lambda subject: ()

    @property
    def slug(self) -> str:
        """The name as part of file names."""
        return self.name.replace(" ", "_")


def number(
    quantity: str, estimate: Estimate, convention: str, *, where: str = ALL, interval: str = OVER_PATIENTS
) -> Row:
    """A number with its interval and its convention."""
    return Row({"quantity": quantity, "where": where}, estimate, convention, interval)


def plain(quantity: str, value: float, convention: str, *, where: str, n: int, undefined: int = 0) -> Row:
    """A number without an interval."""
    return number(quantity, exact(float(value), n, undefined=undefined), convention, where=where, interval=NONE)


def weakest(estimates: Sequence[Estimate], margin: float) -> Estimate:
    """Of numbers that all have to lie above a margin, the one that decides; those that are undefined do not count.

    One that lies below with its whole interval decides by itself. Otherwise it is the one whose interval begins lowest.
    """
    defined = [one for one in estimates if not math.isnan(one.mean)] or list(estimates[:1])
    below = [one for one in defined if one.high <= margin]
    return min(below, key=lambda one: one.high) if below else min(defined, key=lambda one: one.low)


def not_asked(why: str, *, quantity: str = "not asked", where: str = "", undefined: int = 0) -> Row:
    """The row that says why a probe, or a quantity of it, was not asked."""
    return plain(quantity, math.nan, f"not asked: {why}", where=where or why, n=0, undefined=undefined)
