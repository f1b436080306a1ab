"""The figures of the planted-shortcuts study, from its tables."""

from jaxseg.report import figures
from jaxseg.studies.planted_shortcuts.settings import PLANTED, TWIN
from jaxseg.studies.planted_shortcuts.tables import StudyReport


def arm_name(arm: str) -> str:
    """In words."""
    return {PLANTED: "planted", TWIN: "twin, harmless cue"}.get(arm, f"{arm}, of another make")


def draw(report: StudyReport) -> None:
    """Writes all figures of the study: `rates.png`, and one for every kind that the audit has numbers of."""
    rates = [
        (f"{row['kind'].replace('_', ' ')}, {arm_name(row['arm'])}", arm_name(row["arm"]), *row.numbers)
        for row in report.tables.counts
    ]
    figures.dots(report.figures / "rates.png", rates, xlabel="share of networks with a shortcut found")
    for kind in report.settings.kinds:
        if own := report.tables.deciding.where(kind=kind):
            arms = [arm for of, arm in report.settings.arms if of == kind]
            ordered = sorted(own, key=lambda row: (arms.index(row["arm"]), row["seed"]))
            dots = [(f"{row['arm']}, seed {row['seed']}", arm_name(row["arm"]), *row.numbers) for row in ordered]
            figures.dots(report.figures / f"{kind}.png", dots, xlabel="the audit's closest number, 95 % interval")
