"""The answer of the border-shortcut study."""

import math

from jaxseg.results.claims import Verdict
from jaxseg.results.table import Table
from jaxseg.studies.border_shortcut.settings import Evaluation
from jaxseg.studies.border_shortcut.tables import EXCESS, GAP, found_by

NEGLIGIBLE = 0.05  # a gap whose whole interval lies below this is called none


def verdict(evaluation: Evaluation, border: Table, padding: str) -> Verdict:
    """Is there a shortcut, how large, with what interval: the answer for one padding mode, from the border table.

    yes: on quadrants M_ori is below M_crop at the border, and by more than inside; the intervals of both exclude 0.
    partly: below at the border, but not by more than inside. no: the gap's whole interval lies below 0.05. unclear:
    anything else. The answer is about where M_ori fails; the role of padding shows only with other padding modes.
    """
    of = lambda quantity: border.one(padding=padding, tested_on="quadrant", quantity=quantity)
    gap, excess = of(GAP), of(EXCESS)
    recall = lambda model: f"{of(found_by(model)).estimate.mean:.0%}"
    share = f"{evaluation.border_width} of {evaluation.grid} px"
    facts = (
        f"within {share} of the border of quadrants, M_ori (trained on whole images) reaches a Dice of "
        f"{of('M_ori at the border').text()} and finds {recall('M_ori')} of the lesion, M_crop (trained on quadrants) "
        f"{of('M_crop at the border').text()} and {recall('M_crop')}: a gap of {gap.text()}, against "
        f"{of('gap inside').text()} further inside ({padding} padding, {gap.estimate.patients} patients, 95 % "
        "intervals)."
    )
    answer, why = _answer(gap.estimate.low, gap.estimate.high, excess.estimate.low)
    return Verdict(answer, f"{why}: {facts}", {"padding": padding})


def _answer(low: float, high: float, excess_low: float) -> tuple[str, str]:
    if math.isnan(low):
        return "unclear", "No test case decides"
    if high < NEGLIGIBLE:
        return "no", "M_ori loses nothing at the border that M_crop keeps"
    if low <= 0:
        return "unclear", "The intervals are too wide to tell"
    if excess_low <= 0:
        return "partly", "The networks differ at the border, but not clearly more than inside"
    return "yes", "M_ori gives up lesions at the border"
