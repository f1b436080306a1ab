"""The paper's claims about skip connections (Wilm et al. 2024), each decided by one difference, and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR, Claim, Verdict
from jaxseg.studies.skip_pruning import tables as numbers
from jaxseg.studies.skip_pruning.conditions import IN_DOMAIN
from jaxseg.studies.skip_pruning.experiment import architecture

_MARGIN = 0.01  # of IoU: what the paper's numbers of two digits can tell; a loss within it is none
AS_GOOD = "L1-pruned is at least as good as the baseline in-domain"
BETTER = "L1-pruned is better than the baseline under shift"
MORE_HURTS = "removing all skips is worse than removing the top one"
EARLY_LARGEST = "the first layer moves more than those behind it"
SHRINKS_TOP = "the decoder moves less without the top skip"
SHRINKS_ALL = "the decoder moves less without all skips"


def claims(config: ml_collections.ConfigDict, tables: numbers.Tables, encoder: str) -> list[Claim]:
    """The paper's claims, each by one difference.

    If the whole interval over patients and every fold by itself lie on the claim's side of 0, it holds; if they lie on
    the other side, it does not; otherwise it is unclear. The interval takes the networks as they are, and what another
    training would change shows in the folds alone, so both have to agree. "At least as good" allows for a loss of 0.01
    IoU. Several domains are averaged.
    """
    last = config.pruned[-1]
    last_name = architecture(last)
    iou = lambda more, less, place: next(
        row
        for row in tables.differences
        if (row["encoder"], row["difference"], row["place"], row["measure"])
        == (encoder, numbers.difference(more, less), place, numbers.SET)
    )
    distances = [row for row in tables.distance_differences if row["encoder"] == encoder]
    found = [
        _claim(encoder, AS_GOOD, iou(1, 0, IN_DOMAIN), above=-_MARGIN, what="IoU, L1-pruned minus baseline, in-domain"),
        _claim(
            encoder,
            BETTER,
            iou(1, 0, numbers.SHIFTED),
            above=0.0,
            what="IoU, L1-pruned minus baseline, mean over shifts",
        ),
    ]
    if last > 1:
        what = f"IoU, L1-pruned minus {last_name}, mean over all conditions"
        found.append(_claim(encoder, MORE_HURTS, _negative(iou(last, 1, numbers.ALL)), above=0.0, what=what))
    for condition in dict.fromkeys(row["compared"] for row in distances):
        row = {r["quantity"]: r for r in distances if r["compared"] == condition}
        what = f"Hellinger distance ({condition}), baseline, first layer minus mean of the others"
        found.append(_claim(encoder, EARLY_LARGEST, row[f"baseline: {numbers.EARLY}"], above=0.0, what=what))
        for claim, more in ((SHRINKS_TOP, 1), (SHRINKS_ALL, last)):
            if more == 1 and claim == SHRINKS_ALL:
                continue
            change = row[numbers.DECODER.format(more=architecture(more), less=architecture(0))]
            what = f"Hellinger distance ({condition}), mean of the decoder, baseline minus {architecture(more)}"
            found.append(_claim(encoder, claim, _negative(change), above=0.0, what=what))
    return found


def _negative(row: Mapping[str, Any]) -> dict[str, Any]:
    """The difference the other way round."""
    flipped = {"mean": "mean", "low": "high", "high": "low", "lowest_fold": "highest_fold"}
    flipped |= {"highest_fold": "lowest_fold"}
    return dict(row) | {name: -row[other] for name, other in flipped.items()}


def _claim(encoder: str, claim: str, row: Mapping[str, Any], *, above: float, what: str) -> Claim:
    if row["low"] > above and row["lowest_fold"] > above:
        answer = HOLDS
    elif row["high"] <= above and row["highest_fold"] <= above:
        answer = FAILS
    else:
        answer = UNCLEAR  # of NaN too
    estimate = "{mean:z.3f} [{low:z.3f}, {high:z.3f}]; single folds from {lowest_fold:z.3f} to {highest_fold:z.3f}"
    sentence = f"{what}: {estimate.format(**row)}, {row['patients']} patients."
    return Claim({"encoder": encoder}, claim, answer, sentence, _paper_found(claim))


def _paper_found(claim: str) -> str:
    """What the paper's figures and text say of a claim."""
    rows = {AS_GOOD: (1, 0, slice(0, 1)), BETTER: (1, 0, slice(1, None)), MORE_HURTS: (1, 4, slice(None))}
    if claim in rows:
        more, less, domains = rows[claim]
        changes = [
            float(np.mean(np.subtract(iou[encoder, more][domains], iou[encoder, less][domains])))
            for iou in numbers.PAPER_DOMAINS.values()
            for encoder in numbers.PAPER_PARAMETERS
        ]
        return f"{min(changes):+.2f} to {max(changes):+.2f} IoU in six networks on clinical data (Fig. 9)"
    return {
        EARLY_LARGEST: "large at the first level, less towards the bottleneck (section V.A, Fig. 8)",
        SHRINKS_TOP: "a slight rise behind the bottleneck with and without it (section V.A, Fig. 8)",
        SHRINKS_ALL: "without two or more skips no rise behind the bottleneck (section V.A, Fig. 8)",
    }[claim]


def verdict(found: Sequence[Claim], encoder: str) -> Verdict:
    """yes: as good in-domain and better under shift; partly: one of them; no: one does not hold and none does."""
    two = [next(c for c in found if (c.of["encoder"], c.claim) == (encoder, claim)) for claim in (AS_GOOD, BETTER)]
    answers = [claim.answer for claim in two]
    word = {2: "yes", 1: "partly", 0: "no" if FAILS in answers else "unclear"}[answers.count(HOLDS)]
    told = " ".join(f"{claim.claim}: {claim.answer} ({claim.sentence.removesuffix('.')})." for claim in two)
    return Verdict(word, told, {"encoder": encoder})
