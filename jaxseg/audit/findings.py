"""What of the answers a person has to know: at most a few findings, the most harmful first.

A candidate is a finding if the whole 95 % interval of its number, over five patients or more, lies beyond the margin.
Margins stand, with what they mean, in `audit/defaults.py`. Shortcuts are found by interventions alone, which change a
cue and nothing else; that a layer knows of a cue is evidence, no finding.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from jaxseg.audit.probe import Candidate, Kind
from jaxseg.metrics.intervals import Estimate
from jaxseg.results.claims import Verdict
from jaxseg.results.text import text_of


@dataclasses.dataclass(frozen=True)
class Finding:
    """Candidates of one kind that lie above their margins.

    Attributes:
      main: the most harmful, whose number and picture stand for the finding.
      others: further evidence of the same kind.
    """

    main: Candidate
    others: tuple[Candidate, ...] = ()

    @property
    def kind(self) -> str:
        """What it is about, a word or two."""
        return self.main.kind.name

    @property
    def estimate(self) -> Estimate:
        """Its number, with an interval over patients."""
        return self.main.estimate

    @property
    def sentence(self) -> str:
        """What was found, with the number."""
        return self.main.sentence

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
    harm = lambda one: -math.inf if math.isnan(one.damage) else one.damage
    above = [one for one in candidates if one.found]
    groups = [sorted((c for c in above if c.kind == kind), key=harm, reverse=True) for kind in _kinds(above)]
    made = [Finding(main, tuple(others)) for main, *others in groups]
    return tuple(sorted(made, key=lambda finding: harm(finding.main), reverse=True)[:most])


def _kinds(candidates: Sequence[Candidate]) -> Sequence[Kind]:
    """Each once, shortcuts first."""
    return sorted(dict.fromkeys(one.kind for one in candidates), key=lambda kind: not kind.is_shortcut)


def verdict(candidates: Sequence[Candidate]) -> Verdict:
    """Whether the network uses a shortcut (yes, no, unclear), and the answer in words; of all that lie above."""
    above = choose(candidates, most=len(candidates))
    shortcuts = [finding for finding in above if finding.main.kind.is_shortcut]
    others = [finding for finding in above if not finding.main.kind.is_shortcut]
    asked = [one for one in candidates if one.kind.is_shortcut]
    also = f" Also found: {_titles(others)}." if others else ""
    if shortcuts:
        return Verdict("yes", f"{_titles(shortcuts)}.{also}")
    if undecided := [one for one in asked if one.open]:
        return Verdict("unclear", " ".join(why[0].upper() + why[1:] for why in _why_open(undecided)) + also)
    if not asked:
        return Verdict("unclear", f"No shortcut could be asked for with this network and these cases.{also}")
    numbers = "; ".join(_number(one) for one in asked)
    nothing = "no shortcut" if others else "nothing"
    return Verdict("no", f"What was asked for, found {nothing}: {numbers}.{also}")


def _titles(found: Sequence[Finding]) -> str:
    titles = [finding.main.title for finding in found]
    return "; ".join([titles[0], *(title[0].lower() + title[1:] for title in titles[1:])])


def _why_open(undecided: Sequence[Candidate]) -> Iterator[str]:
    """Why numbers are open, a sentence per reason."""
    yield from (f"{one.quantity} cannot be told: {one.hidden}." for one in undecided if one.hidden)
    told = [one for one in undecided if not one.hidden]
    if wide := [one for one in told if math.isfinite(one.needed)]:
        numbers = "; ".join(f"{_number(one)}: {_needed(one)}" for one in wide)
        yield f"The intervals are too wide to exclude a shortcut ({numbers})."
    for one in told:
        if math.isinf(one.needed):
            yield (
                f"{_number(one)} lies so close to its margin of {one.margin:g} that even a hundred times as many "
                "patients like these would not tell on which side."
            )
        if math.isnan(one.needed):
            yield f"{_number(one)}: no case here has what it is asked of."


def _needed(one: Candidate) -> str:
    """How many patients would decide a number, in words."""
    more = one.needed
    return f"about {more:.0f} more {'patient' if more == 1 else 'patients'} like these would decide it"


def _number(one: Candidate) -> str:
    estimate = one.estimate
    if math.isnan(estimate.mean):
        return f"{one.quantity} undefined"
    few = f" of {estimate.patients} patients" if one.thin else ""
    return f"{one.quantity} {text_of(estimate)}{few}"
