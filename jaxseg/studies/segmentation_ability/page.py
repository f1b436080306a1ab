"""The page of the segmentation-ability study."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxseg.report import estimates, page
from jaxseg.results.claims import Claim
from jaxseg.results.table import Table
from jaxseg.studies.base import Report
from jaxseg.studies.segmentation_ability import claims as claimed
from jaxseg.studies.segmentation_ability import quality, tables
from jaxseg.studies.segmentation_ability.experiment import Measured
from jaxseg.studies.segmentation_ability.settings import Settings
from jaxseg.training import runs


def make(report: Report[Settings, runs.Splits, Measured, tables.Tables]) -> page.Page:
    """What the page says."""
    settings, results, figure = report.settings, report.tables, report.figure
    claims, verdict, origin = report.judgement.claims, report.judgement.verdicts[0], report.origin
    examples = len(report.measured.shown["examples"])
    lead = figure(
        "layers",
        "Segmentation ability by layer",
        "Two lines of the SA score against the layer, for the offline and the online network.",
        "Mean over the test cases with 95 % bootstrap intervals over patients. Shaded: the abstract layers, whose "
        "resolution is low. After Fig. 5 of He et al. 2022.",
        "layers",
    )
    return page.Page(
        title=f"Segmentation ability ({report.size})",
        question="Does the segmentation ability of features tell how a U-Net segments, and which outputs fail?",
        verdict=verdict.verdict,
        answer=verdict.sentence,
        lead=lead,
        facts=_facts(results),
        sections=[
            _claims_section(settings, claims, origin),
            _layers_section(results, figure, examples),
            _units_section(settings, results, figure),
            _quality_section(results, figure),
            _separableness_section(results, figure),
            _noise_section(results, figure),
        ],
    )


def _facts(results: tables.Tables) -> list[tuple[str, str]]:
    facts = [(f"{row['network']}, {_WHAT[row['segmentation']]}", row.text(3)) for row in results.performance]
    online = results.quality.where(network="online")
    for score in (quality.MEAN_SA, quality.VOG):
        facts.append((f"rank correlation of {score} with 1 − Dice", online.one(score=score).text()))
    taken_out = results.pruning.where(inert_units=tables.TAKEN_OUT)
    for row in taken_out:
        facts.append((f"{row['network']}, active units of the last layer", f"{row['active']} of {row['units']}"))
    facts += [(f"{row['network']}, change of the Dice without the others", row.text(3)) for row in taken_out]
    return facts


_WHAT = {"output": "Dice of the output", "last layer": "SA score of the last layer"}
_NETWORK = {"network": "network"}
_WITH_PAPER = {"paper": "paper, ISIC"}


def _table(
    title: str,
    rows: Table,
    columns: Mapping[str, str],
    further: Mapping[str, str] | None = None,
    *,
    estimate: str = estimates.MEAN,
) -> page.Table:
    return estimates.table(title, rows, columns, further=further, estimate=estimate, digits=3)


def _claims_section(settings: Settings, claims: Sequence[Claim], origin: Mapping[str, Any]) -> page.Section:
    margins = f"{claimed.COST_MARGIN:g} for online training and {claimed.PRUNE_MARGIN:g} for units taken out"
    return page.Section(
        "The paper's claims",
        [
            "The offline network is trained with the recipe's loss, the online network with the same plus what its "
            f"layers lack in segmentation ability, times {settings.online_weight:g} ({origin['data']}). They differ in "
            "nothing else, the seed included.",
            "A claim holds if its whole interval lies on its side of a bound, does not hold if it lies on the other, "
            "and is unclear otherwise. The bound is 0; what is said not to change may lose a little Dice, "
            f"{margins}. The intervals are over patients and take the networks as they are: with one run of each, what "
            "another seed would change, as in online minus offline, is not in them. Each claim is judged by itself, "
            "without correction for their number.",
        ],
        [],
        [
            page.Table(
                "Claims",
                [claim.record() for claim in claims],
                "Intervals: 95 %, bootstrap over patients, differences paired.",
                {"claim": "claim", **_NETWORK}
                | {"answer": "answer", "sentence": "by these numbers", "paper": "the paper"},
            )
        ],
    )


def _layers_section(results: tables.Tables, figure: page.FigureOf, examples: int) -> page.Section:
    maps = [
        figure(
            f"maps_{i}",
            f"Maps of all layers, case {i + 1}",
            "Rows of one image with the map of each layer, for the offline and the online network.",
            "Filled: what the layer's prototypes call object; white: annotation. The numbers above are those of the "
            "layers, for the first and the second line of a network. "
            "The cases stand at even quantiles of the online network's mean SA score. After Fig. 6.",
            "cases",
        )
        for i in range(examples)
    ]
    return page.Section(
        "Layers",
        [
            "A layer's features are averaged over the object and over the background, weighed by the network's own "
            "output; every pixel goes to the nearer of the two means, and the Dice of that map with the annotation is "
            "the layer's SA score. What the paper's tables have behind ± is the standard deviation over cases."
        ],
        maps,
        [
            _table(
                "Output and last layer (Table 1)",
                results.performance,
                {**_NETWORK, "segmentation": "segmentation"},
                {"std": "std", **_WITH_PAPER, "paper_std": "paper, std"},
            ),
            _table("Differences", results.differences, {**_NETWORK, "quantity": "difference"}, _WITH_PAPER),
            _table(
                "SA score by layer (Fig. 5)",
                results.layers,
                {**_NETWORK, "layer": "layer", "name": "name", "group": "group"},
            ),
        ],
    )


def _units_section(settings: Settings, results: tables.Tables, figure: page.FigureOf) -> page.Section:
    heat = figure(
        "heat",
        "How many units mark a pixel",
        "Rows of images with heat maps of both networks' last layers and the online network's output.",
        "The share of the last layer's units whose own map holds the pixel, from black (none) to light yellow (all); "
        "white: annotation. After Figs. 9 and 13.",
        "cases",
    )
    units = figure(
        "units",
        "Units of the last layer, sorted",
        "Lines of the SA score of the last layer's units in rising order, and the thresholds of inert units.",
        "Mean over the test cases with 95 % bootstrap intervals over patients. Which units are inert was decided on "
        "the validation cases, against the dashed thresholds. After Fig. 7.",
        "units",
    )
    pruning = figure(
        "pruning",
        "Without the inert units",
        "Dots with intervals: the change of the Dice when inert units are held at their mean, by threshold.",
        "A unit is inert with an SA score on validation below that share of the output's Dice there; behind it, how "
        "many of the last layer's units that is, where there are any. They are held at their mean over the validation "
        f"images, which goes into the bias; the threshold of the claims is {settings.evaluation.inert_below:g}.",
        "pruning",
    )
    cost = page.Table(
        "Cost of a forward pass",
        results.cost,
        estimates.note(results.cost[:1]),
        {**_NETWORK, "which": "network as", "last_layer": "units", "parameters": "parameters"}
        | {"megaflops": "MFLOP", "milliseconds": "ms"},
    )
    return page.Section(
        "Units of the last layer",
        [
            "Section 4.5 of the paper finds that many units of the last layer hardly separate object and background, "
            "supposes that what they add is about constant, and suggests to prune them. Here that is done: those "
            "channels are taken out of the last convolution and the head, so that the network is smaller, and what "
            "they add on average is in the head's bias."
        ],
        [units, heat, pruning],
        [
            _table(
                "Dice without inert units",
                results.pruning,
                {**_NETWORK, "inert_below": "inert below", "inert_units": "inert units"}
                | {"units": "units", "active": "active", "dice": "Dice"},
                estimate="minus all units [95 % interval]",
            ),
            cost,
            _table(
                "Share of active units",
                results.active,
                {**_NETWORK, "units": "units", "inert_below": "inert below"},
                {"paper": "paper, five data sets"},
            ),
        ],
    )


def _quality_section(results: tables.Tables, figure: page.FigureOf) -> page.Section:
    shown = [
        figure(
            "quality",
            "Two scores against the Dice",
            "Two scatter plots of the Dice of each test case, against its mean SA score and against its VoG.",
            "The online network, as in the paper's tables. After Fig. 10.",
            "cases",
        ),
        figure(
            "buckets",
            "Dice by percentile of the score",
            "Two panels with lines of the Dice of equal parts of the test cases, by rising mean SA score and VoG.",
            "A useful mean SA score rises, a useful VoG falls. Means with 95 % bootstrap intervals over patients. "
            "After Fig. 11.",
            "buckets",
        ),
        figure(
            "coverage",
            "Rejecting what looks worst",
            "Two panels with lines of the mean Dice of the kept cases against their share.",
            "Cases with the lowest mean SA score, or the highest VoG, go first. Intervals stand in the table.",
            "coverage",
        ),
        figure(
            "ranked",
            "Cases ranked by the mean SA score",
            "A row of images with annotation and output, from the lowest mean SA score to the highest.",
            "Above each: its mean SA score and its Dice; white: annotation. Cases at even quantiles. After Fig. 12.",
            "cases",
        ),
    ]
    return page.Section(
        "Quality without annotation",
        [
            "The mean SA score takes the network's own output for the truth: it asks how well the units of the last "
            "two layers agree with it, each by itself. VoG is how much the gradient of the logits with respect to the "
            "image varied over the checkpoints of the training."
        ],
        shown,
        [
            _table(
                "Rank correlation (Fig. 10)",
                results.quality,
                {**_NETWORK, "score": "score"},
                estimate="Spearman [95 % interval]",
            ),
            _table(
                "Dice at a coverage (Table 2)",
                results.coverage,
                {**_NETWORK, "score": "score", "coverage": "coverage"},
                {"std": "std", **_WITH_PAPER, "paper_std": "paper, std"},
            ),
            _table(
                "What rejecting gains",
                results.coverage_gains,
                {**_NETWORK, "score": "score", "coverage": "coverage"},
                _WITH_PAPER,
            ),
        ],
    )


def _separableness_section(results: tables.Tables, figure: page.FigureOf) -> page.Section:
    return page.Section(
        "Separableness of the images",
        ["The colours of the image themselves, taken as features: how well could a lesion be told by colour alone?"],
        [
            figure(
                "separable",
                "Low, middle and high separableness",
                "Three images with the map of their colours and the network's output.",
                "White: annotation. Cases at even quantiles of the separableness. After Fig. 14.",
                "cases",
            ),
            figure(
                "separableness",
                "What the network adds",
                "A scatter plot of the Dice of the output against the separableness of each test case.",
                "The online network. Above the line the network is better than a map of the colours. After Fig. 15.",
                "cases",
            ),
        ],
        [
            _table(
                "Separableness and gain (Table 3)",
                results.separableness,
                {**_NETWORK, "quantity": "quantity"},
                _WITH_PAPER,
            )
        ],
    )


def _noise_section(results: tables.Tables, figure: page.FigureOf) -> page.Section:
    overall = results.noise_groups.where(noise=tables.ALL_LEVELS)
    return page.Section(
        "Noise in the image",
        ["Noise is on the pixels that the network sees, and the mask is what the network makes of the noisy image."],
        [
            figure(
                "noise",
                "What noise costs each layer",
                "Two panels with lines of the change of the SA score against the layer, one line per level of noise.",
                "The level is the greatest noise, as a share of the gray range. Means with 95 % bootstrap intervals "
                "over patients; shaded: the abstract layers. After Fig. 16; levels between stand in the table.",
                "noise",
            )
        ],
        [_table("Groups of layers, over all levels", overall, {**_NETWORK, "quantity": "difference"})],
    )
