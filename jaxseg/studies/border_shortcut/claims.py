"""The answer of the border-shortcut study, and what it says of transformers."""

import math

from jaxseg.results.claims import Claim, Verdict
from jaxseg.results.table import Table
from jaxseg.studies.base import answer
from jaxseg.studies.border_shortcut.settings import WITHOUT, Arm, Evaluation, Settings
from jaxseg.studies.border_shortcut.tables import EXCESS, GAP, found_by, minus_that_of

NEGLIGIBLE = 0.05  # a gap, or a difference of two, whose whole interval lies below this is called none
CARRIED = "a transformer carries the border shortcut through its positional encoding"


def verdict(evaluation: Evaluation, border: Table, arm: Arm) -> Verdict:
    """Is there a shortcut, how large, with what interval: the answer for one arm, from the border table.

    yes: on quadrants M_ori is below M_crop at the border, and by more than inside; the intervals of both exclude 0.
    partly: below at the border, but not by more than inside. no: the gap's whole interval lies below 0.05. unclear:
    anything else. The answer is about where M_ori fails; the role of padding and positions shows only with other arms.
    """
    of = lambda quantity: border.one(network=arm.label, tested_on="quadrant", quantity=quantity)
    gap, excess = of(GAP), of(EXCESS)
    recall = lambda model: f"{of(found_by(model)).estimate.mean:.0%}"
    share = f"{evaluation.border_width} of {evaluation.grid} px"
    facts = (
        f"within {share} of the border of quadrants, M_ori (trained on whole images) reaches a Dice of "
        f"{of('M_ori at the border').text()} and finds {recall('M_ori')} of the lesion, M_crop (trained on quadrants) "
        f"{of('M_crop at the border').text()} and {recall('M_crop')}: a gap of {gap.text()}, against "
        f"{of('gap inside').text()} further inside ({arm.label}, {gap.estimate.patients} patients, 95 % "
        "intervals)."
    )
    word, why = _answer(gap.estimate.low, gap.estimate.high, excess.estimate.low)
    return Verdict(word, f"{why}: {facts}", {"network": arm.label})


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


def claims(settings: Settings, border: Table) -> list[Claim]:
    """Whether positions carry the shortcut: of every arm with positions that has one without them beside it.

    The gap at the border with positions minus that without decides. Where its whole interval lies below 0.05 the claim
    does not hold, else where it lies above 0 it does.
    """
    pairs = [(arm, settings.reference(arm)) for arm in settings.arms if arm.position not in ("", WITHOUT)]
    return [_claim(border, arm, bare) for arm, bare in pairs if bare and bare.position == WITHOUT]


def _claim(border: Table, arm: Arm, bare: Arm) -> Claim:
    of = lambda one, quantity: border.one(network=one.label, tested_on="quadrant", quantity=quantity)
    row = of(arm, minus_that_of(bare))
    _, low, high = row.numbers
    sentence = (
        f"gap at the border of quadrants {of(arm, GAP).text()} with {arm.position} positions and "
        f"{of(bare, GAP).text()} without, difference {row.text()}, {row.estimate.patients} patients."
    )
    word = answer(low > 0 and high >= NEGLIGIBLE, high < NEGLIGIBLE)
    return Claim({"positions": arm.position, "padding": arm.padding}, CARRIED, word, sentence, "an open question", row)
