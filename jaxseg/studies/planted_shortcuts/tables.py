"""The planted-shortcuts study's outcomes as tables."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxseg.audit.probe import SHORTCUTS
from jaxseg.metrics.intervals import Estimate, exact_interval
from jaxseg.results.table import Row, Table, table
from jaxseg.results.text import text_of
from jaxseg.studies.base import Report
from jaxseg.studies.planted_shortcuts.experiment import Outcome
from jaxseg.studies.planted_shortcuts.settings import KINDS, PLANTED, Settings

_OVER_SEEDS = "Clopper-Pearson over seeds, 95 %"


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    # per kind, in how many planted networks it was found, and in how many others any shortcut; `silent` ones are
    # `unclear` where an interval reaches beyond its margin
    counts: Table
    networks: list[dict[str, Any]]  # every network, with its Dice and what was found
    misses: list[dict[str, Any]]  # those that are not as they should be, with the number that decided it
    deciding: Table  # of every network, the number of the kind that came closest to a finding
    numbers: Table  # the numbers of every network that decide on findings


StudyReport = Report[Settings, None, Sequence[Outcome], Tables]


def tabulate(settings: Settings, _: None, outcomes: Sequence[Outcome]) -> Tables:
    """All numbers of the study."""
    own = lambda kind, arm: [one for one in outcomes if (one.network.kind, one.network.arm) == (kind, arm)]
    return Tables(
        counts=table(_count(kind, arm, own(kind, arm), settings.learned) for kind, arm in settings.arms),
        networks=[_network_record(outcome, settings.learned) for outcome in outcomes],
        misses=[_miss_record(outcome) for outcome in outcomes if _is_missed(outcome)],
        deciding=table(row for outcome in outcomes for row in outcome.deciding(_wanted(outcome))),
        numbers=table(row for outcome in outcomes for row in outcome.candidates),
    )


def _wanted(outcome: Outcome) -> str:
    """The kind of finding to which its cue should lead, were it planted."""
    return KINDS[outcome.network.kind].name


def _is_hit(outcome: Outcome) -> bool:
    """The planted kind is found; where nothing is planted, any shortcut is."""
    return _wanted(outcome) in outcome.findings if outcome.network.arm == PLANTED else bool(outcome.shortcuts)


def _is_missed(outcome: Outcome) -> bool:
    return _is_hit(outcome) != (outcome.network.arm == PLANTED)


def _miss_record(outcome: Outcome) -> dict[str, Any]:
    what = "not found" if outcome.network.arm == PLANTED else f"false alarm: {', '.join(sorted(outcome.shortcuts))}"
    kinds = [_wanted(outcome)] if outcome.network.arm == PLANTED else sorted(outcome.shortcuts)
    numbers = [row for kind in kinds for row in outcome.deciding(kind)]
    told = "; ".join(f"{row['quantity']} {text_of(row.estimate)}, margin {row['margin']:g}" for row in numbers)
    return {**outcome.network._asdict(), "dice": outcome.dice, "miss": what, "number": told}


def _network_record(outcome: Outcome, learned: float) -> dict[str, Any]:
    wanted = _wanted(outcome)
    return {
        **outcome.network._asdict(),
        "dice": outcome.dice,
        "learned": outcome.dice > learned,
        "planted_kind_found": wanted in outcome.findings,
        "unclear": outcome.unclear,
        "other_findings": ", ".join(other for other in outcome.findings if other != wanted),
    }


def _count(kind: str, arm: str, outcomes: Sequence[Outcome], learned: float) -> Row:
    n, hits = len(outcomes), sum(map(_is_hit, outcomes))
    wanted = {KINDS[kind].name} if arm == PLANTED else {kind.name for kind in SHORTCUTS}
    more = {
        "found": hits,
        "silent": n - hits,
        "unclear": sum(one.unclear for one in outcomes),
        "learned": sum(one.dice > learned for one in outcomes),
        "least_dice": min(one.dice for one in outcomes),
        "other_findings": sum(bool(set(one.findings) - wanted) for one in outcomes),
    }
    estimate = Estimate(hits / n, *exact_interval(hits, n), n=n, undefined=0, patients=n)
    convention = f"share of networks with a finding of the kind {' or '.join(sorted(wanted))}"
    return Row({"kind": kind, "arm": arm}, estimate, convention, _OVER_SEEDS, more)
