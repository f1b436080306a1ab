"""The answer of the planted-shortcuts study."""

from jaxseg.metrics.intervals import Estimate, exact_interval
from jaxseg.results.claims import Verdict
from jaxseg.results.table import Table
from jaxseg.results.text import interval_text
from jaxseg.studies.planted_shortcuts.settings import ARMS, PLANTED


def verdict(counts: Table) -> Verdict:
    """yes: for every kind the interval of the detection rate lies above that of false alarms; partly: for some."""
    apart, parts = [], []
    for kind in counts.values("kind"):
        planted, twin = (counts.one(kind=kind, arm=arm) for arm in ARMS)
        apart.append(planted.estimate.low > twin.estimate.high)
        parts.append(
            f"{kind.replace('_', ' ')}: found in {planted['found']} of {planted.estimate.n} networks with the planted "
            f"cue {_interval(planted.estimate)}, any shortcut in {twin['found']} of {twin.estimate.n} twins "
            f"{_interval(twin.estimate)}"
        )
    silent = [row for row in counts if row["arm"] != PLANTED]
    alarms, n = sum(row["found"] for row in silent), sum(row.estimate.n for row in silent)
    all_of_them = interval_text(*exact_interval(alarms, n))
    answer = "yes" if all(apart) else "partly" if any(apart) else "no"
    return Verdict(
        answer,
        f"{'; '.join(parts)}; in all {n} networks without a shortcut, {alarms} false alarms {all_of_them} (rates with "
        "exact 95 % intervals over seeds).",
    )


def _interval(rate: Estimate) -> str:
    return interval_text(rate.low, rate.high)
