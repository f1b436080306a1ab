"""The claims of the distortion paper (Lennartz and Schultz 2023), each decided by one difference, and the answer."""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxseg.metrics.domain_ranking import MEAN, TOGETHER
from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR, Claim, Verdict
from jaxseg.results.table import Row
from jaxseg.studies.base import answer
from jaxseg.studies.distortion.settings import UNITS
from jaxseg.studies.distortion.tables import CORRELATION, FLAGGED, LOST, OURS, SHARE, Tables

# An advantage in correlation, or in the share that is flagged, whose whole interval lies below this is called none.
NEGLIGIBLE = 0.05
FLAGS_MORE = "PM flags more shifted cases as out-of-distribution than SD does"
LOWERED = "reconstructing the bottleneck lowers the Dice"
_PAPER = {  # what it says of SD and another score
    "PM": "much more so",
    "LM": "LM mostly between PM and SD",
    "entropy": "almost always",
    "ensemble entropy": "almost always",
}


def predicts_better(score: str) -> str:
    """The claim that SD predicts errors better than another score."""
    return f"SD predicts errors within a domain better than {score}"


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims, each decided by an interval.

    holds: the whole interval of the difference lies above 0. does not hold: it lies below 0.05, or, of the Dice lost,
    below 0. unclear: anything else. Correlations and shares are means over the shifted domains; of these domains
    together is the Dice.
    """
    decided = []
    for unit in UNITS:
        differences = tables.differences.where(unit=unit, domain=MEAN)
        for row in differences.where(quantity=CORRELATION):
            if (score := row["score"]) in _PAPER:
                decided.append(_decided(predicts_better(score), unit, row, _PAPER[score], NEGLIGIBLE))
        ours = differences.one(quantity=FLAGGED, score="PM")
        theirs = dataclasses.replace(ours.negative(), convention=f"PM minus SD: {SHARE}")
        decided.append(_decided(FLAGS_MORE, unit, theirs, "PM excels, SD does not", NEGLIGIBLE))
    lost = tables.dice.one(domain=TOGETHER, quantity=LOST)
    return [*decided, _decided(LOWERED, "slice", lost, "slightly, always", 0.0)]


def _decided(claim: str, unit: str, row: Row, paper: str, negligible: float) -> Claim:
    decided = answer(holds=row.estimate.low > 0, fails=row.estimate.high < negligible)
    return Claim({"unit": unit}, claim, decided, f"difference {row.text()}", paper, row)


def verdict(unit: str, tables: Tables, claims: Sequence[Claim]) -> Verdict:
    """The answer, from the claims of a unit, slice or subject.

    yes: SD is above pooled Mahalanobis distance and both entropies. partly: above the former, but not above all. no:
    not above the former. unclear: the interval against the former decides nothing.
    """
    of_unit = {claim.claim: claim for claim in claims if claim.of["unit"] == unit}
    against = {score: of_unit[claim] for score in _PAPER if (claim := predicts_better(score)) in of_unit}
    word, start = _answer({score: claim.answer for score, claim in against.items()})
    correlation = lambda score: tables.correlation.one(unit=unit, domain=MEAN, score=score).text()
    flagged = lambda score: tables.detection.one(unit=unit, domain=MEAN, quantity=FLAGGED, score=score).text()
    row = against["PM"].row
    assert row is not None  # as of all claims here
    sentence = (
        f"{start} (it is {_sides(against)}): rank correlation with 1 - Dice of SD {correlation(OURS)}, "
        f"{', '.join(f'{score} {correlation(score)}' for score in against)}; SD flags {flagged(OURS)} of the shifted "
        f"cases as out-of-distribution, PM {flagged('PM')} (mean of the shifted domains and networks, by {unit}, "
        f"{row.estimate.patients} patients, 95 % intervals)."
    )
    return Verdict(word, sentence, {"unit": unit})


def _answer(against: Mapping[str, str]) -> tuple[str, str]:
    """The verdict, and how its sentence begins, by what became of the claim against each score."""
    order = "Distortion predicts the errors within a domain"
    if all(decided == HOLDS for score, decided in against.items() if score != "LM"):
        return "yes", f"{order} better than the paper's other scores"
    if against["PM"] == HOLDS:
        return "partly", f"{order} better than the Mahalanobis distance, but not clearly better than everything else"
    if against["PM"] == FAILS:
        return "no", f"{order} no better than the Mahalanobis distance"
    than = "better than the Mahalanobis distance"
    return "unclear", f"The intervals do not show whether distortion predicts the errors within a domain {than}"


def _sides(against: Mapping[str, Claim]) -> str:
    """Above which scores it is, above which not, and where that is undecided."""
    sides = []
    for decided, words in ((HOLDS, "above"), (FAILS, "not above"), (UNCLEAR, "undecided against")):
        if scores := [score for score, claim in against.items() if claim.answer == decided]:
            sides.append(f"{words} {' and '.join(scores)}")
    return ", ".join(sides)
