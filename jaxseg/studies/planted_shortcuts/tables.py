"""The planted-shortcuts study's outcomes as tables."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxseg.audit import probe
from jaxseg.metrics.intervals import Estimate, exact_interval
from jaxseg.results.table import Row, Table, table
from jaxseg.studies.base import Report
from jaxseg.studies.planted_shortcuts.experiment import Outcome
from jaxseg.studies.planted_shortcuts.settings import ARMS, PLANTED, Settings

SHORTCUTS = {kind.name for kind in probe.SHORTCUTS}
_OVER_SEEDS = "Clopper-Pearson over seeds, 95 %"


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    # per kind, in how many planted networks it was found, and in how many twins any shortcut; `silent` ones are
    # `unclear` where an interval reaches beyond its margin
    counts: Table
    networks: list[dict[str, Any]]  # every network, with its Dice and what was found
    numbers: Table  # the numbers of every network that decide on findings


StudyReport = Report[Settings, None, Sequence[Outcome], Tables]


def tabulate(settings: Settings, _: None, outcomes: Sequence[Outcome]) -> Tables:
    """All numbers of the study."""
    own = lambda kind, arm: [one for one in outcomes if (one.network.kind, one.network.arm) == (kind, arm)]
    return Tables(
        counts=table(_count(kind, arm, own(kind, arm), settings.learned) for kind in settings.kinds for arm in ARMS),
        networks=[_network_record(outcome, settings.learned) for outcome in outcomes],
        numbers=table(row for outcome in outcomes for row in outcome.candidates),
    )


def _network_record(outcome: Outcome, learned: float) -> dict[str, Any]:
    kind = outcome.network.kind
    return {
        **outcome.network._asdict(),
        "dice": outcome.dice,
        "learned": outcome.dice > learned,
        "planted_kind_found": kind in outcome.findings,
        "other_findings": ", ".join(other for other in outcome.findings if other != kind),
    }


def _count(kind: str, arm: str, outcomes: Sequence[Outcome], learned: float) -> Row:
    counted = {kind} if arm == PLANTED else SHORTCUTS  # in a twin, any shortcut is a false alarm
    n = len(outcomes)
    hits = sum(bool(counted & set(one.findings)) for one in outcomes)
    more = {
        "found": hits,
        "silent": n - hits,
        "unclear": sum(_is_unclear(one) for one in outcomes),
        "learned": sum(one.dice > learned for one in outcomes),
        "least_dice": min(one.dice for one in outcomes),
        "other_findings": sum(bool(set(one.findings) - counted) for one in outcomes),
    }
    estimate = Estimate(hits / n, *exact_interval(hits, n), n=n, undefined=0, patients=n)
    convention = f"share of networks with a finding of the kind {' or '.join(sorted(counted))}"
    return Row({"kind": kind, "arm": arm}, estimate, convention, _OVER_SEEDS, more)


def _is_unclear(outcome: Outcome) -> bool:
    """No shortcut is found, but the interval of some shortcut's number reaches beyond its margin."""
    rows = [row for row in outcome.candidates if row["found_kind"] in SHORTCUTS]
    return not SHORTCUTS & set(outcome.findings) and any(row.estimate.high > row["margin"] for row in rows)
