"""The page of the segmentation-ability study."""

from collections.abc import Mapping

from jaxseg.report import estimates, page
from jaxseg.results.table import Table
from jaxseg.studies.base import claims_table
from jaxseg.studies.segmentation_ability import claims, quality, tables
from jaxseg.studies.segmentation_ability.tables import StudyReport

_WHAT = {"output": "Dice of the output", "last layer": "SA score of the last layer"}
_NETWORK = {"network": "network"}
_COVERAGE = {**_NETWORK, "score": "score", "coverage": "coverage"}
_PAPER = {"paper": "paper, ISIC"}
_SPREAD = {"std": "std", **_PAPER, "paper_std": "paper, std"}


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    lead = report.figure(
        "layers",
        "Segmentation ability by layer",
        "Two lines of the SA score against the layer, for the offline and the online network.",
        "Mean over the test cases with 95 % bootstrap intervals over patients. Shaded: the abstract layers, whose "
        "resolution is low. After Fig. 5 of He et al. 2022.",
    )
    question = "Does the segmentation ability of features tell how a U-Net segments, and which outputs fail?"
    sections = (_claims, _layers, _units, _quality, _separableness, _noise)
    return report.write_up("Segmentation ability", question, lead, _facts(report.tables), sections)


def _facts(results: tables.Tables) -> list[tuple[str, str]]:
    facts = [(f"{row['network']}, {_WHAT[row['segmentation']]}", row.text(digits=3)) for row in results.performance]
    online = results.quality.where(network="online")
    for score in (quality.MEAN_SA, quality.VOG):
        facts.append((f"rank correlation of {score} with 1 − Dice", online.one(score=score).text()))
    taken_out = results.pruning.where(inert_units=tables.TAKEN_OUT)
    for row in taken_out:
        facts.append((f"{row['network']}, active units of the last layer", f"{row['active']} of {row['units']}"))
    return [
        *facts,
        *((f"{row['network']}, change of the Dice without the others", row.text(digits=3)) for row in taken_out),
    ]


def _table(
    title: str,
    rows: Table,
    columns: Mapping[str, str],
    further: Mapping[str, str] | None = None,
    estimate: str = estimates.MEAN,
) -> page.Table:
    return estimates.table(title, rows, {**_NETWORK, **columns}, further=further, estimate=estimate, digits=3)


def _claims(report: StudyReport) -> page.Section:
    margins = f"{claims.COST_MARGIN:g} for online training and {claims.PRUNE_MARGIN:g} for units taken out"
    text = [
        "The offline network is trained with the recipe's loss, the online network with the same plus what its layers "
        f"lack in segmentation ability, times {report.settings.online_weight:g} ({report.origin['data']}). They differ "
        "in nothing else; the seed is the same.",
        "A claim holds if its whole interval lies on its side of a bound, does not hold if it lies on the other, and "
        "is unclear otherwise. The bound is 0; where no change is claimed, a small loss of Dice is allowed, "
        f"{margins}. Intervals are over patients, with the networks as they are: with one run of each, they do not "
        "cover the variation between seeds, as in online minus offline. Claims are not corrected for their number.",
    ]
    shown = claims_table(report.judgement.claims, "bootstrap over patients, differences paired")
    return page.Section("The paper's claims", text, [], [shown])


def _layers(report: StudyReport) -> page.Section:
    results = report.tables
    maps = [
        report.figure(
            f"maps_{i}",
            f"Maps of all layers, case {i + 1}",
            "Rows of one image with the map of each layer, for the offline and the online network.",
            "Filled: what the layer's prototypes classify as object; white: annotation. Above: the numbers of the "
            "layers, for the first and the second line of a network. Cases at even quantiles of the online network's "
            "mean SA score. After Fig. 6.",
            table="cases",
        )
        for i in range(len(report.measured.shown["examples"]))
    ]
    text = (
        "A layer's features are averaged over the object and over the background, weighted by the network's own "
        "output; every pixel is assigned to the nearer of the two means, and the Dice of that map with the annotation "
        "is the layer's SA score. The ± of the paper's tables is the standard deviation over cases."
    )
    named = {"layer": "layer", "name": "name", "group": "group"}
    shown = [
        _table("Output and last layer (Table 1)", results.performance, {"segmentation": "segmentation"}, _SPREAD),
        _table("Differences", results.differences, {"quantity": "difference"}, _PAPER),
        _table("SA score by layer (Fig. 5)", results.layers, named),
    ]
    return page.Section("Layers", [text], maps, shown)


def _units(report: StudyReport) -> page.Section:
    results = report.tables
    units = report.figure(
        "units",
        "Units of the last layer, sorted",
        "Lines of the SA score of the last layer's units in rising order, and the thresholds of inert units.",
        "Mean over the test cases with 95 % bootstrap intervals over patients. Which units are inert was decided on "
        "the validation cases, by the dashed thresholds. After Fig. 7.",
    )
    heat = report.figure(
        "heat",
        "How many units mark a pixel",
        "Rows of images with heat maps of both networks' last layers and the online network's output.",
        "The share of the last layer's units whose own map holds the pixel, from black (none) to light yellow (all); "
        "white: annotation. After Figs. 9 and 13.",
        table="cases",
    )
    pruning = report.figure(
        "pruning",
        "Without the inert units",
        "Dots with intervals: the change of the Dice when inert units are held at their mean, by threshold.",
        "A unit is inert with an SA score on validation below that share of the output's Dice there; then the number "
        "of such units in the last layer, where there are any. They are held at their mean over the validation images, "
        f"which goes into the bias; the threshold of the claims is {report.settings.evaluation.inert_below:g}.",
    )
    columns = {**_NETWORK, "which": "network as", "last_layer": "units", "parameters": "parameters"}
    columns |= {"megaflops": "MFLOP", "milliseconds": "ms"}
    cost = page.Table("Cost of a forward pass", results.cost, estimates.note(results.cost[:1]), columns)
    text = (
        "Section 4.5 of the paper finds that many units of the last layer hardly separate object and background, "
        "supposes that their contribution is about constant, and suggests to prune them. This is done here: those "
        "channels are removed from the last convolution and the head, and their mean contribution is added to the "
        "head's bias."
    )
    inert = {"inert_below": "inert below", "inert_units": "inert units", "units": "units", "active": "active"}
    minus = "minus all units [95 % interval]"
    active = {"units": "units", "inert_below": "inert below"}
    shown = [
        _table("Dice without inert units", results.pruning, {**inert, "dice": "Dice"}, estimate=minus),
        cost,
        _table("Share of active units", results.active, active, {"paper": "paper, five data sets"}),
    ]
    return page.Section("Units of the last layer", [text], [units, heat, pruning], shown)


def _quality(report: StudyReport) -> page.Section:
    results = report.tables
    scatter = report.figure(
        "quality",
        "Two scores against the Dice",
        "Two scatter plots of the Dice of each test case, against its mean SA score and against its VoG.",
        "The online network, as in the paper's tables. After Fig. 10.",
        table="cases",
    )
    buckets = report.figure(
        "buckets",
        "Dice by percentile of the score",
        "Two panels with lines of the Dice of equal parts of the test cases, by rising mean SA score and VoG.",
        "It rises with a useful mean SA score and falls with a useful VoG. Means with 95 % bootstrap intervals over "
        "patients. After Fig. 11.",
    )
    coverage = report.figure(
        "coverage",
        "Rejecting what looks worst",
        "Two panels with lines of the mean Dice of the kept cases against their share.",
        "Cases with the lowest mean SA score, or the highest VoG, are rejected first. Intervals are in the table.",
    )
    ranked = report.figure(
        "ranked",
        "Cases ranked by the mean SA score",
        "A row of images with annotation and output, from the lowest mean SA score to the highest.",
        "Above each: its mean SA score and its Dice; white: annotation. Cases at even quantiles. After Fig. 12.",
        table="cases",
    )
    text = (
        "The mean SA score takes the network's own output as the truth: how well do the units of the last two layers "
        "agree with it, each by itself? VoG is the variance, over the checkpoints of the training, of the gradient of "
        "the logits with respect to the image."
    )
    spearman = "Spearman [95 % interval]"
    shown = [
        _table("Rank correlation (Fig. 10)", results.quality, {"score": "score"}, estimate=spearman),
        _table("Dice at a coverage (Table 2)", results.coverage, _COVERAGE, _SPREAD),
        _table("What rejecting gains", results.coverage_gains, _COVERAGE, _PAPER),
    ]
    return page.Section("Quality without annotation", [text], [scatter, buckets, coverage, ranked], shown)


def _separableness(report: StudyReport) -> page.Section:
    images = report.figure(
        "separable",
        "Low, middle and high separableness",
        "Three images with the map of their colours and the network's output.",
        "White: annotation. Cases at even quantiles of the separableness. After Fig. 14.",
        table="cases",
    )
    scatter = report.figure(
        "separableness",
        "What the network adds",
        "A scatter plot of the Dice of the output against the separableness of each test case.",
        "The online network. Above the line the network is better than a map of the colours. After Fig. 15.",
        table="cases",
    )
    text = "The colours of the image themselves, taken as features: how well could a lesion be told by colour alone?"
    rows = report.tables.separableness
    shown = _table("Separableness and gain (Table 3)", rows, {"quantity": "quantity"}, _PAPER)
    return page.Section("Separableness of the images", [text], [images, scatter], [shown])


def _noise(report: StudyReport) -> page.Section:
    overall = report.tables.noise_groups.where(noise=tables.ALL_LEVELS)
    curves = report.figure(
        "noise",
        "What noise costs each layer",
        "Two panels with lines of the change of the SA score against the layer, one line per level of noise.",
        "The level is the largest noise, as a share of the gray range. Means with 95 % bootstrap intervals over "
        "patients; shaded: the abstract layers. After Fig. 16; levels between are in the table.",
    )
    text = "Noise is added to the pixels that the network sees, and the mask is its output for the noisy image."
    shown = _table("Groups of layers, over all levels", overall, {"quantity": "difference"})
    return page.Section("Noise in the image", [text], [curves], [shown])
