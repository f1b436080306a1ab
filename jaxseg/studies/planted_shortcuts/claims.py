"""The answer of the planted-shortcuts study."""

from jaxseg.results.claims import Verdict
from jaxseg.results.table import Table
from jaxseg.results.text import interval_text
from jaxseg.studies.planted_shortcuts.settings import PLANTED, TWIN


def verdict(counts: Table) -> Verdict:
    """yes: for every kind the interval of the detection rate lies above that of false alarms; partly: for some."""
    apart, parts = [], []
    interval = lambda row: interval_text(row.estimate.low, row.estimate.high)
    for kind in counts.values("kind"):
        planted, twin = (counts.one(kind=kind, arm=arm) for arm in (PLANTED, TWIN))
        apart.append(planted.estimate.low > twin.estimate.high)
        parts.append(
            f"{kind}: found in {planted['found']} of {planted.estimate.n} networks with the planted cue "
            f"{interval(planted)}, any shortcut in {twin['found']} of {twin.estimate.n} twins {interval(twin)}"
        )
    answer = "yes" if all(apart) else "partly" if any(apart) else "no"
    return Verdict(answer, f"{'; '.join(parts)} (rates with exact 95 % intervals over seeds).")
