"""What of the answers a person has to know: at most a few findings, the most harmful first.

A candidate is a finding if the whole 95 % interval of its number, over five patients or more, lies above the margin.
Margins stand in the config and were set before anything was measured: 0.05 of Dice is what the studies of this project
call negligible. Shortcuts are found by interventions alone, which change a cue and nothing else; that a layer knows of
a cue is evidence, no finding.
"""

import dataclasses
import math
from collections.abc import Sequence

from jaxseg.audit.answers import SHORTCUTS, Candidate

KINDS = (*SHORTCUTS, "accuracy", "domain", "calibration")


@dataclasses.dataclass(frozen=True)
class Finding:
    """Candidates of one kind that are found.

    Attributes:
      main: the most harmful, whose number and picture stand for the finding.
      others: further evidence of the same kind.
    """

    main: Candidate
    others: tuple[Candidate, ...] = ()

    @property
    def text(self) -> str:
        """The sentences of all."""
        return " ".join(one.sentence for one in (self.main, *self.others))


def choose(candidates: Sequence[Candidate], *, most: int) -> tuple[Finding, ...]:
    """The findings, the most harmful first; those that cost no Dice come last.

    Args:
      candidates: of all probes.
      most: findings at most.
    """
    found = [one for one in candidates if one.found]
    harm = lambda one: -math.inf if math.isnan(one.damage) else one.damage
    groups = {kind: sorted((c for c in found if c.kind == kind), key=harm, reverse=True) for kind in KINDS}
    made = [Finding(group[0], tuple(group[1:])) for group in groups.values() if group]
    return tuple(sorted(made, key=lambda finding: harm(finding.main), reverse=True)[:most])


def verdict(candidates: Sequence[Candidate], found: Sequence[Finding]) -> tuple[str, str]:
    """Whether the network uses a shortcut (yes, no, unclear), and the answer in words."""
    shortcuts = [finding for finding in found if finding.main.is_shortcut]
    others = [finding for finding in found if not finding.main.is_shortcut]
    asked = [one for one in candidates if one.is_shortcut]
    also = f" Also found: {_titles(others)}." if others else ""
    if shortcuts:
        return "yes", f"{_titles(shortcuts)}.{also}"
    if undecided := [one for one in asked if one.open]:
        numbers = "; ".join(_number(one) for one in undecided)
        return "unclear", f"The intervals are too wide to exclude a shortcut ({numbers}); test on more cases.{also}"
    if not asked:
        return "unclear", f"No shortcut could be asked for with this network and these cases.{also}"
    numbers = "; ".join(_number(one) for one in asked)
    nothing = "no shortcut" if others else "nothing"
    return "no", f"What was asked for, found {nothing}: {numbers}.{also}"


def _titles(found: Sequence[Finding]) -> str:
    titles = [finding.main.title for finding in found]
    return "; ".join([titles[0], *(title[0].lower() + title[1:] for title in titles[1:])])


def _number(one: Candidate) -> str:
    estimate = one.estimate
    if math.isnan(estimate.mean):
        return f"{one.quantity} undefined"
    few = f" of {estimate.patients} patients" if one.thin else ""
    return f"{one.quantity} {estimate.mean:z.2f} [{estimate.low:z.2f}, {estimate.high:z.2f}]{few}"
