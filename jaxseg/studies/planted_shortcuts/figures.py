"""The figures of the planted-shortcuts study, from its tables."""

from jaxseg.report import figures
from jaxseg.studies.planted_shortcuts.settings import PLANTED, TWIN
from jaxseg.studies.planted_shortcuts.tables import StudyReport

_ARM_NAMES = {PLANTED: "planted", TWIN: "twin without the cue"}


def draw(report: StudyReport) -> None:
    """Writes all figures of the study: `rates.png`, and one for every kind that the audit has numbers of."""
    named = [(row, _ARM_NAMES[row["arm"]]) for row in report.tables.counts]
    rates = [(f"{row['kind']}, {arm}", arm, *row.numbers) for row, arm in named]
    figures.dots(report.figures / "rates.png", rates, xlabel="share of networks with a shortcut found")
    for kind in report.settings.kinds:
        if own := report.tables.numbers.where(kind=kind, found_kind=kind):
            ordered = sorted(own, key=lambda row: (row["quantity"], row["arm"], row["seed"]))
            dots = [(f"{row['quantity']}, seed {row['seed']}", _ARM_NAMES[row["arm"]], *row.numbers) for row in ordered]
            figures.dots(report.figures / f"{kind}.png", dots, xlabel="number of the audit, 95 % interval")
