"""The answers of the overlay-shortcut study."""

import math

from jaxseg.results.claims import Verdict
from jaxseg.results.table import Row
from jaxseg.studies.overlay_shortcut.images import in_words
from jaxseg.studies.overlay_shortcut.tables import AGAINST_NETWORK, ALL, LOSS, Tables

NEGLIGIBLE = 0.02  # of Dice; the smallest drop that the paper calls one (femur, Table 1)


def verdict(results: Tables) -> Verdict:
    """Does the network segment by the marks?

    The baseline's drop from annotated to cleaned test images, over all planes, decides. yes: its whole interval lies
    above 0.02, and on images that never had marks, where they are known, there is a drop too (its interval lies above
    0), so that it is not what removal left behind. partly: above 0, but not all of that. no: the whole interval lies
    below 0.02. unclear: anything else.
    """
    drops = results.drops.where(network="baseline", plane=ALL)
    drop, truly = drops.one(drop_to="cleaned"), next(iter(drops.where(drop_to="clean")), None)
    dice = lambda kind: results.dice.one(network="baseline", plane=ALL, tested_on=kind).text()
    stability = lambda network: results.stability.one(network=network, plane=ALL).text()
    facts = (
        f"with calipers and text the baseline reaches a Dice of {dice('annotated')}, on the same images with the marks "
        f"removed {dice('cleaned')}: a drop of {drop.text()}"
        + (f", and of {truly.text()} to images that never had marks" if truly else "")
        + f"; while a frozen frame is annotated, its predictions before and after agree to {stability('baseline')}, "
        f"those of the mitigated network to {stability('mitigation')} ({drop.estimate.patients} patients, 95 % "
        "intervals)."
    )
    answer, words = _answer(drop, truly)
    return Verdict(answer, f"{words}: {facts}", {"removal": removal_sentence(results)})


def _answer(drop: Row, truly: Row | None) -> tuple[str, str]:
    mean, low, high = drop.numbers
    if math.isnan(mean) or math.isnan(low):
        return "unclear", "No test case decides"
    if high < NEGLIGIBLE:
        return "no", "The baseline segments as well without the marks"
    if low <= 0:
        return "unclear", "The intervals are too wide to tell"
    if low > NEGLIGIBLE and (truly is None or truly.estimate.low > 0):
        return "yes", "The baseline relies on the marks"
    return "partly", "The baseline loses a little without the marks, or loses it to the removal alone"


def removal_sentence(results: Tables) -> str:
    """Which way of removing found marks costs the reference least, and which cannot be distinguished from it."""
    if not results.downstream:
        return "What is below the marks is not known, so removals cannot be compared."
    of_reference = results.downstream.where(network="reference", mask="found")
    lost = sorted(of_reference.where(quantity=LOSS), key=lambda row: -row.estimate.mean)
    words = lambda row: in_words(row["method"])
    costs = "; ".join(f"{words(row)} {row.text(digits=3)}" for row in lost)
    errors = results.reconstruction.where(mask="found", region="marks", metric="mae")
    nearest = min(errors, key=lambda row: row.estimate.mean)
    against = [
        of_reference.one(method=row["method"], quantity=AGAINST_NETWORK) for row in lost if row["method"] != "network"
    ]
    groups = {
        "better than the network's filling": [row for row in against if row.estimate.low > 0],
        "not distinguishable from it": [row for row in against if row.estimate.low <= 0 <= row.estimate.high],
        "worse than it": [row for row in against if row.estimate.high < 0],
    }
    compared = [f"{', '.join(map(words, rows))} {what}" for what, rows in groups.items() if rows]
    return (
        f"For the network trained on clean images, restoring found marks instead changes the Dice by {costs}. Paired: "
        f"{'; '.join(compared)}. Nearest to the clean pixels under the marks is {words(nearest)} (mean absolute "
        f"error {nearest.text(digits=1)} gray levels)."
    )
