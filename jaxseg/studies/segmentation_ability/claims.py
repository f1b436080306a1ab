"""What He et al. 2022 claim, each judged by one number of the tables; the rules were fixed before any measurement."""

import dataclasses
from collections.abc import Sequence

from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR, Claim, Verdict
from jaxseg.results.table import Row
from jaxseg.studies.base import answer
from jaxseg.studies.segmentation_ability import quality, tables
from jaxseg.studies.segmentation_ability.settings import NETWORKS

COST_MARGIN = 0.02  # of Dice: the paper's trainings differ by 0.002 on ISIC and by up to 0.03 elsewhere
PRUNE_MARGIN = 0.01  # of Dice: one network with and without units, so nothing but the units differs

LATE = "late layers separate better than early ones"
RISE = "the ability rises along the decoder"
RAISED = "online training raises the ability of the layers"
RAISED_LAST = "online training raises the ability of the last layer"
NO_COST = "online training costs no Dice"
OVER_OUTPUT = "trained online, the last layer's map is better than the output"
ORDERS = "the mean SA score orders the cases by Dice"
BEATS_VOG = "it orders them better than VoG"
COVERAGE = "rejecting the half with the lowest mean SA score raises the Dice"
GAIN = "the network is better than a map of the colours"
EARLY_NOISE = "noise costs early layers more than abstract ones"
LATE_NOISE = "noise costs late layers more than abstract ones"
FEW_ACTIVE = "at most half of the last layer's units score near the output"
PRUNE = "without the inert units the Dice stays"

_PAPER = {
    LATE: "rises from early to late, but for some abstract layers (Fig. 5)",
    RISE: "highest at the last layer (Fig. 5)",
    RAISED: "higher with the SA score in the loss (Fig. 5)",
    RAISED_LAST: "+0.0185: 0.8260 to 0.8445 (Table 1, ISIC)",
    NO_COST: "+0.0023: 0.8330 to 0.8353 (Table 1, ISIC)",
    OVER_OUTPUT: "+0.0092: 0.8445 against 0.8353 (Table 1, ISIC)",
    ORDERS: "correlated in all five data sets (Fig. 10, without a number)",
    BEATS_VOG: "VoG's correlation is smaller (Fig. 10, without a number)",
    COVERAGE: "+0.0198: 0.8353 to 0.8551 (Table 2, ISIC)",
    GAIN: "+0.168: 0.667 to 0.835 (Table 3, ISIC)",
    EARLY_NOISE: "abstract layers are less sensitive (section 4.8, Fig. 16)",
    LATE_NOISE: "abstract layers are less sensitive (section 4.8, Fig. 16)",
    FEW_ACTIVE: "20 to 50 %; on ISIC more than 20 of 64 (section 4.5)",
    PRUNE: "suggested, not measured (section 4.5)",
}
CORE = (LATE, RAISED, NO_COST, ORDERS, BEATS_VOG)  # what the verdict is made of


def claims(results: tables.Tables) -> list[Claim]:
    """The paper's claims, each by one number: its interval on the claim's side of a bound, or on the other.

    The bound is 0, but that "no cost" allows for a loss of 0.02 Dice and "the Dice stays" for 0.01. A share of active
    units is held against 1/2. Where the paper's tables are of the online network, so is the claim.
    """
    difference = lambda network, quantity: results.differences.one(network=network, quantity=quantity)
    noise = lambda quantity: results.noise_groups.one(network="online", noise=tables.ALL_LEVELS, quantity=quantity)
    orders = lambda score: results.quality.one(network="online", score=score)
    both, online = tables.BOTH, "online"
    over_vog = f"{quality.MEAN_SA} minus {quality.VOG}"
    judged = [
        *(_above(n, LATE, difference(n, tables.LATE), "SA, late minus early layers") for n in NETWORKS),
        *(_above(n, RISE, difference(n, tables.RISE), "SA, last layer minus first of the decoder") for n in NETWORKS),
        _above(both, RAISED, difference(both, tables.ALL), "SA, mean over all layers, online minus offline"),
        _above(both, RAISED_LAST, difference(both, tables.LAST), "SA of the last layer, online minus offline"),
        _above(both, NO_COST, difference(both, tables.OUTPUT), "Dice, online minus offline", bound=-COST_MARGIN),
        _above(online, OVER_OUTPUT, difference(online, tables.OVER_OUTPUT), "SA of the last layer minus Dice"),
        _above(online, ORDERS, orders(quality.MEAN_SA), "Spearman of a low mean SA score with 1 - Dice"),
        _above(online, BEATS_VOG, orders(over_vog), "Spearman, mean SA score minus VoG"),
    ]
    for row in results.coverage_gains.where(network=online, score=quality.MEAN_SA, coverage=0.5):
        judged.append(_above(online, COVERAGE, row, "Dice of the half that is kept minus that of all"))
    separable = results.separableness.one(network=online, quantity="gain")
    judged.append(_above(online, GAIN, separable, "Dice minus SA score of the colours"))
    for claim, quantity in ((EARLY_NOISE, tables.EARLY_ABSTRACT), (LATE_NOISE, tables.LATE_ABSTRACT)):
        what = f"loss of SA by noise, {quantity}, mean over levels"
        judged.append(_above(online, claim, noise(quantity).negative(), what))
    few_active = (_few_active(network, results.active.one(network=network)) for network in NETWORKS)
    return [*judged, *few_active, *(_prune(network, results) for network in NETWORKS)]


def _above(network: str, claim: str, row: Row, what: str, *, bound: float = 0.0) -> Claim:
    """Whether a number is above a bound: its whole interval is, or its whole interval is not."""
    judged = answer(holds=row.estimate.low > bound, fails=row.estimate.high <= bound)
    return _claim(network, claim, judged, f"{what}: {row.text(digits=3)}, {row.estimate.patients} patients.", row)


def _few_active(network: str, row: Row) -> Claim:
    judged = answer(holds=row.estimate.high <= 0.5, fails=row.estimate.low > 0.5)
    patients = f"{row.estimate.patients} patients of validation"
    return _claim(
        network, FEW_ACTIVE, judged, f"share of the {row['units']} units: {row.text(digits=3)}, {patients}.", row
    )


def _claim(network: str, claim: str, judged: str, sentence: str, row: Row) -> Claim:
    return Claim({"network": network}, claim, judged, sentence, _PAPER[claim], row)


def _prune(network: str, results: tables.Tables) -> Claim:
    row = results.pruning.one(network=network, inert_units=tables.TAKEN_OUT)
    whole, pruned = (row for row in results.cost if row["network"] == network)
    out = row["units"] - row["active"]
    what = (
        f"{out} of {row['units']} units taken out ({pruned['parameters']} instead of {whole['parameters']} parameters, "
        f"{pruned['megaflops'] / whole['megaflops']:.0%} of the operations); Dice minus that with all"
    )
    claim = _above(network, PRUNE, row, what, bound=-PRUNE_MARGIN)
    # nothing was taken out, so nothing was tried
    return claim if out else dataclasses.replace(claim, answer=UNCLEAR)


def verdict(judged: Sequence[Claim]) -> Verdict:
    """yes: all core claims hold; no: none does and one or more do not; unclear: none does, none does not; or partly."""
    core = [claim for claim in judged if claim.claim in CORE]
    answers = [claim.answer for claim in core]
    if HOLDS in answers:
        word = "yes" if set(answers) == {HOLDS} else "partly"
    else:
        word = "no" if FAILS in answers else "unclear"
    told = []
    for claim in core:
        assert claim.row is not None
        of = f" ({claim.of['network']})" if claim.claim == LATE else ""
        told.append(f"{claim.claim[0].upper()}{claim.claim[1:]}{of}: {claim.answer}, {claim.row.text(digits=3)}.")
        patients = claim.row.estimate.patients
    return Verdict(word, f"{' '.join(told)} 95 % intervals over {patients} patients.")
