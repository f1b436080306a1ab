"""What a probe answers: rows of numbers, candidates for findings, and pictures; or why it was not asked."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.audit.subject import Subject
from jaxseg.metrics.intervals import Estimate, bootstrap_contrast, bootstrap_mean

Arrays = Mapping[str, np.ndarray]
Row = dict[str, Any]
SHORTCUTS = ("border", "overlay", "scanner")
BOOTSTRAP = "bootstrap over patients, 95 %"
LEAST_PATIENTS = 5  # resamples of fewer are too alike: of one patient, the interval is a point


class NotAskedError(Exception):
    """A probe cannot be asked of this network or of these cases; the message says why."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What is a finding if the number is large enough.

    Attributes:
      kind: what is found; the shortcuts are `SHORTCUTS`, the others concern the network's quality.
      probe: that found it.
      title: of the finding, a few words.
      sentence: in plain words, with what the number is.
      quantity: of the number, as its row has it.
      estimate: the number with its interval.
      margin: what the interval has to lie above.
      damage: Dice that is lost by it, mean over cases; NaN where it is no loss of Dice.
      remedy: what to do.
    """

    kind: str
    probe: str
    title: str
    sentence: str
    quantity: str
    estimate: Estimate
    margin: float
    damage: float
    remedy: str

    @property
    def thin(self) -> bool:
        """It is of too few patients for an interval over them to decide anything, or undefined."""
        return self.estimate.patients < LEAST_PATIENTS or math.isnan(self.estimate.mean)

    @property
    def found(self) -> bool:
        """The whole interval lies above the margin."""
        return not self.thin and self.estimate.low > self.margin

    @property
    def open(self) -> bool:
        """The interval lies on both sides of the margin, or there is none to speak of: more cases are needed."""
        return self.thin or (not self.found and self.estimate.high > self.margin)

    @property
    def is_shortcut(self) -> bool:
        """Whether it is about a cue that the network uses."""
        return self.kind in SHORTCUTS


@dataclasses.dataclass(frozen=True)
class Answer:
    """Rows of numbers, in the order in which they are to be read, and what of it may be a finding."""

    rows: Sequence[Row]
    candidates: Sequence[Candidate] = ()


@dataclasses.dataclass(frozen=True)
class Probe:
    """A question to a network.

    Attributes:
      name: one word.
      title: the question in words.
      measure: computes what is expensive; raises NotAskedError.
      tabulate: makes the answer of it.
    """

    name: str
    title: str
    measure: Callable[[Subject, ml_collections.ConfigDict], Arrays]
    tabulate: Callable[[Subject, ml_collections.ConfigDict, Arrays], Answer]


def row(probe: str, quantity: str, estimate: Estimate, convention: str, *, where: str = "all cases") -> Row:
    """A number of a table, with its convention."""
    return {"probe": probe, "quantity": quantity, "where": where} | dataclasses.asdict(estimate) | {
        "interval": BOOTSTRAP,
        "convention": convention,
    }  # fmt: skip


def plain_row(probe: str, quantity: str, value: float, convention: str, *, where: str, n: int) -> Row:
    """A number without an interval."""
    estimate = Estimate(value, math.nan, math.nan, n, 0, 0)
    return row(probe, quantity, estimate, convention, where=where) | {"interval": "none"}


def not_asked(probe: str, why: str) -> Row:
    """The row of a probe that was not asked."""
    nothing = Estimate(math.nan, math.nan, math.nan, 0, 0, 0)
    return row(probe, "not asked", nothing, f"not asked: {why}", where=why) | {"interval": "none"}


def mean_of(values: np.ndarray, subject: Subject, settings: ml_collections.ConfigDict) -> Estimate:
    """Mean over the test cases with its interval."""
    return bootstrap_mean(values, subject.patients, resamples=settings.resamples)


def difference(
    first: np.ndarray, second: np.ndarray, subject: Subject, settings: ml_collections.ConfigDict
) -> Estimate:
    """First minus second of the cases that have both, paired."""
    return mean_of(np.asarray(first) - second, subject, settings)


def contrast(
    terms: Sequence[tuple[float, np.ndarray]],
    subject: Subject,
    settings: ml_collections.ConfigDict,
    *,
    level: float = 0.95,
) -> Estimate:
    """A weighted sum of means over the test cases, each over its own defined ones."""
    return bootstrap_contrast(terms, subject.patients, level=level, resamples=settings.resamples)


def amount(estimate: Estimate) -> str:
    """`0.42 [0.37, 0.47]`."""
    return f"{estimate.mean:z.2f} [{estimate.low:z.2f}, {estimate.high:z.2f}]"


def largest(effect: np.ndarray, count: int) -> np.ndarray:
    """Cases for pictures: those at the upper quartile and at the median of an effect, and so on downwards."""
    defined = np.flatnonzero(~np.isnan(effect))
    order = defined[np.argsort(effect[defined], kind="stable")]
    if not len(order):
        return order
    shares = np.linspace(0.75, 0.25, count) if count > 1 else np.array([0.5])
    return order[np.unique((shares * (len(order) - 1)).round().astype(int))[::-1]]
