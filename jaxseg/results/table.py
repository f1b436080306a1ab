"""A number with what it takes to read it, and tables of such numbers that are asked by their keys."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxseg.metrics.intervals import Estimate
from jaxseg.results.text import estimate_text

OVER_PATIENTS = "bootstrap over patients, 95 %"
PAIRED = f"{OVER_PATIENTS}, paired"
NONE = "none"  # a number without an interval


@dataclasses.dataclass(frozen=True)
class Row:
    """A number.

    Attributes:
      keys: what it is of: a network, a test view, a quantity.
      estimate: the number, its interval, and how many values it is of.
      convention: of what it is the mean, and what became of undefined values.
      interval: how the interval was taken.
      more: further columns, such as the paper's number.
    """

    keys: Mapping[str, Any]
    estimate: Estimate
    convention: str
    interval: str = OVER_PATIENTS
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, column: str) -> Any:
        return self.keys[column] if column in self.keys else self.more[column]

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Mean, low and high end of the interval, as figures take them."""
        return self.estimate.mean, self.estimate.low, self.estimate.high

    def text(self, *, digits: int = 2) -> str:
        """The number with its interval: `0.42 [0.37, 0.47]`; alone where it has none."""
        mean, low, high = self.estimate.mean, self.estimate.low, self.estimate.high
        if self.interval == NONE and math.isfinite(mean):
            return f"{mean:z.{digits}f}"
        return estimate_text(mean, low, high, digits=digits)

    def negative(self) -> "Row":
        """The number with the other sign: of a difference, that the other way round."""
        e = self.estimate
        return dataclasses.replace(self, estimate=dataclasses.replace(e, mean=-e.mean, low=-e.high, high=-e.low))

    def record(self) -> dict[str, Any]:
        """As `results.json` and the tables' files have it."""
        estimate = dataclasses.asdict(self.estimate)
        return {**self.keys, **estimate, **self.more, "interval": self.interval, "convention": self.convention}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows, in the order in which they are read."""

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Row:
        return self.rows[place]

    def where(self, **keys: Any) -> "Table":
        """The rows with these keys."""
        return Table(tuple(row for row in self.rows if all(row[name] == value for name, value in keys.items())))

    def one(self, **keys: Any) -> Row:
        """The row with these keys; raises LookupError unless there is exactly one."""
        found = self.where(**keys)
        if len(found) != 1:
            raise LookupError(f"{len(found)} of {len(self)} rows have {keys}")
        return found[0]

    @property
    def numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means, low and high ends of the intervals, `[rows]` each."""
        mean, low, high = np.array([row.numbers for row in self.rows], float).reshape(-1, 3).T
        return mean, low, high

    def values(self, column: str) -> tuple[Any, ...]:
        """What stands in a column, each once, in the order of its first appearance."""
        return tuple(dict.fromkeys(row[column] for row in self.rows))


Records = Table | list[dict[str, Any]]  # a table of numbers, or a list of facts without an estimate


def table(rows: Iterable[Row]) -> Table:
    """A table of these rows."""
    return Table(tuple(rows))


def exact(value: float, n: int, *, undefined: int = 0) -> Estimate:
    """A number without an interval."""
    return Estimate(value, math.nan, math.nan, n, undefined, 0)


def records(rows: Records) -> list[dict[str, Any]]:
    """As `results.json` and the tables' files have them."""
    return [row.record() for row in rows] if isinstance(rows, Table) else rows
