"""The paper's claims about skip connections (Wilm et al. 2024), each decided by one difference, and the verdict."""

import dataclasses
from collections.abc import Iterator, Sequence

from jaxseg.results.claims import FAILS, HOLDS, Claim, Verdict
from jaxseg.results.table import Row
from jaxseg.studies.base import answer
from jaxseg.studies.skip_pruning import distance_tables, paper, tables
from jaxseg.studies.skip_pruning.conditions import IN_DOMAIN
from jaxseg.studies.skip_pruning.iou import SET
from jaxseg.studies.skip_pruning.settings import architecture, difference

_MARGIN = 0.01  # of IoU: what the paper's numbers of two digits can tell; a loss within it is none
AS_GOOD = "L1-pruned is at least as good as the baseline in-domain"
BETTER = "L1-pruned is better than the baseline under shift"
MORE_HURTS = "removing all skips is worse than removing the top one"
EARLY_LARGEST = "the first layer moves more than those after it"
SHRINKS_TOP = "the decoder moves less without the top skip"
SHRINKS_ALL = "the decoder moves less without all skips"
_PAPER = {
    AS_GOOD: paper.range_of_changes(1, 0, domains=paper.TRAINED_ON),
    BETTER: paper.range_of_changes(1, 0, domains=paper.OTHERS),
    MORE_HURTS: paper.range_of_changes(1, 4),
    EARLY_LARGEST: "large at the first level, less towards the bottleneck (section V.A, Fig. 8)",
    SHRINKS_TOP: "a slight rise after the bottleneck with and without it (section V.A, Fig. 8)",
    SHRINKS_ALL: "without two or more skips no rise after the bottleneck (section V.A, Fig. 8)",
}


def claims(results: tables.Tables, encoder: str, last: int) -> list[Claim]:
    """The paper's claims, each by one difference.

    If the whole interval over patients and every fold by itself lie on the claim's side of 0, it holds; if they lie on
    the other side, it does not; otherwise it is unclear. The interval takes the networks as they are, and what another
    training would change shows in the folds alone, so both have to agree. "At least as good" allows for a loss of 0.01
    IoU. Several domains are averaged.

    `last` is how many skips the network with the fewest lacks.
    """
    return [*_iou_claims(results, encoder, last), *_distance_claims(results, encoder, last)]


def _iou_claims(results: tables.Tables, encoder: str, last: int) -> Iterator[Claim]:
    change = lambda more, less, place: results.differences.one(
        encoder=encoder, difference=difference(more, less), place=place, measure=SET
    )
    what = "IoU, L1-pruned minus baseline"
    yield _claim(encoder, AS_GOOD, change(1, 0, IN_DOMAIN), above=-_MARGIN, what=f"{what}, in-domain")
    yield _claim(encoder, BETTER, change(1, 0, tables.SHIFTED), what=f"{what}, mean over shifts")
    if last > 1:
        what = f"IoU, L1-pruned minus {architecture(last)}, mean over all conditions"
        yield _claim(encoder, MORE_HURTS, _reversed(change(last, 1, tables.ALL)), what=what)


def _distance_claims(results: tables.Tables, encoder: str, last: int) -> Iterator[Claim]:
    rows = results.distance_differences.where(encoder=encoder)
    decoder_claims = {SHRINKS_TOP: 1} | ({SHRINKS_ALL: last} if last > 1 else {})
    for condition in rows.values("compared"):
        own = rows.where(compared=condition)
        distance = f"Hellinger distance ({condition})"
        what = f"{distance}, baseline, first layer minus mean of the others"
        early = own.one(networks=architecture(0), quantity=distance_tables.EARLY)
        yield _claim(encoder, EARLY_LARGEST, early, what=what)
        for claim, pruned in decoder_claims.items():
            change = own.one(networks=difference(pruned, 0), quantity=distance_tables.DECODER)
            what = f"{distance}, mean of the decoder, baseline minus {architecture(pruned)}"
            yield _claim(encoder, claim, _reversed(change), what=what)


def _reversed(row: Row) -> Row:
    """The difference the other way round."""
    folds = {"lowest_fold": -row["highest_fold"], "highest_fold": -row["lowest_fold"]}
    return dataclasses.replace(row.negative(), more={**row.more, **folds})


def _claim(encoder: str, claim: str, row: Row, *, what: str, above: float = 0.0) -> Claim:
    _, low, high = row.numbers
    holds, fails = low > above and row["lowest_fold"] > above, high <= above and row["highest_fold"] <= above
    folds = f"single folds from {row['lowest_fold']:z.3f} to {row['highest_fold']:z.3f}"
    sentence = f"{what}: {row.text(digits=3)}; {folds}, {row.estimate.patients} patients"
    return Claim({"encoder": encoder}, claim, answer(holds, fails), f"{sentence}.", _PAPER[claim])


def verdict(claims: Sequence[Claim], encoder: str) -> Verdict:
    """yes: as good in-domain and better under shift; partly: one of them; no: one does not hold and none does."""
    of = {claim.claim: claim for claim in claims if claim.of["encoder"] == encoder}
    both = [of[AS_GOOD], of[BETTER]]
    answers = [claim.answer for claim in both]
    word = {2: "yes", 1: "partly", 0: "no" if FAILS in answers else "unclear"}[answers.count(HOLDS)]
    sentences = (f"{claim.claim}: {claim.answer}. {claim.sentence}" for claim in both)
    return Verdict(word, " ".join(sentences), {"encoder": encoder})
