"""What is said of numbers: whether a claim of a paper holds, and the answer to a study's question."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxseg.results.table import Row

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "unclear"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
      of: what it is claimed of: a network, an encoder, a unit.
      claim: in words.
      answer: holds, does not hold, or unclear.
      sentence: by which number.
      paper: what the paper says.
      row: the number that decides, where it is one of a table.
    """

    of: Mapping[str, Any]
    claim: str
    answer: str
    sentence: str
    paper: str
    row: Row | None = None

    def record(self) -> dict[str, Any]:
        """As `results.json` and the table of claims have it, with the number that decides."""
        said = {"claim": self.claim, "answer": self.answer, "sentence": self.sentence, "paper": self.paper}
        numbers = dataclasses.replace(self.row, keys={}, more={}).record() if self.row else {}
        return {**self.of, **said, **numbers}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to a study's question.

    Attributes:
      verdict: yes, partly, no or unclear.
      sentence: with the numbers that decide.
      of: what it is of, where there are several.
    """

    verdict: str
    sentence: str
    of: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As `results.json` has it."""
        return {**self.of, "verdict": self.verdict, "sentence": self.sentence}
