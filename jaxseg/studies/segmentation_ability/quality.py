"""The segmentation-ability study's tables of quality estimates: do scores without annotation predict the Dice?

He et al. 2022, section 4.6: the mean SA score, against the variance of gradients (VoG).
"""

import functools
import itertools
import math

import ml_collections
import numpy as np

from jaxseg.metrics import ranking
from jaxseg.results.table import PAIRED, Row
from jaxseg.studies.segmentation_ability import estimates
from jaxseg.studies.segmentation_ability.experiment import Measures

# Table 2, of the online network; its caption has 75 % where the column says 70 %
PAPER_COVERAGE = {1.0: (0.8353, 0.17), 0.9: (0.8457, 0.16), 0.7: (0.8421, 0.16), 0.5: (0.8551, 0.15)}
MEAN_SA, VOG = "mean SA", "VoG"
_WORSE = {MEAN_SA: ("mean_sa", -1.0), VOG: ("vog", 1.0)}  # measure, and its sign so that higher means worse


def _uncertainty(measures: Measures, score: str) -> np.ndarray:
    name, sign = _WORSE[score]
    return sign * np.asarray(measures[name], float)


def _score_convention(measures: Measures, score: str) -> str:
    if score == MEAN_SA:
        return "Mean SA: score of the last two layers' units against the network's own output, no annotation (Eq. 12)"
    count = int(measures["vog_checkpoints"])
    return f"VoG: over {count} checkpoints, of the summed logits of the predicted classes"


def correlation_rows(
    config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray
) -> list[Row]:
    """Fig. 10: rank correlations, positive where the score orders the cases as it is meant to."""
    risk = 1 - np.asarray(measures["dice"], float)
    options = {"resamples": config.evaluation.resamples}
    rows = []
    for score in _WORSE:
        estimate = ranking.spearman_estimate(_uncertainty(measures, score), risk, patients, **options)
        sign = "a low score" if score == MEAN_SA else "a high score"
        convention = f"Spearman with 1 - Dice, {sign} predicting a bad case. {_score_convention(measures, score)}"
        rows.append(Row({"network": network, "score": score}, estimate, convention))
    difference = ranking.bootstrap(
        lambda ours, theirs, risk: ranking.spearman(ours, risk) - ranking.spearman(theirs, risk),
        {score: _uncertainty(measures, score) for score in _WORSE} | {"risk": risk},
        patients,
        **options,
    )
    convention = "difference of the two rank correlations, over the cases in which both scores are defined"
    rows.append(Row({"network": network, "score": f"{MEAN_SA} minus {VOG}"}, difference, convention, PAIRED))
    return rows


def bucket_rows(config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray) -> list[Row]:
    """Fig. 11: Dice of the cases in equal parts, by rising score."""
    rows = []
    for score, (name, _) in _WORSE.items():
        values = np.asarray(measures[name], float)
        order = np.argsort(values, kind="stable")[: np.sum(~np.isnan(values))]
        parts = np.array_split(order, config.evaluation.buckets)
        for number, part in enumerate(parts, 1):
            if not len(part):
                continue
            estimate = estimates.mean(config, measures["dice"][part], patients[part])
            who = {"network": network, "score": score, "bucket": number, "up_to_percentile": 100 * number / len(parts)}
            convention = f"{estimates.DICE}. {len(values) - len(order)} cases without a score left out"
            rows.append(Row(who, estimate, f"{convention}. {_score_convention(measures, score)}"))
    return rows


def coverage_rows(
    config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray
) -> list[Row]:
    """Table 2: Dice of what is left when the cases that look worst are rejected."""
    dice, options = np.asarray(measures["dice"], float), {"resamples": config.evaluation.resamples}
    rows = []
    for score in _WORSE:
        convention = f"{estimates.DICE}. Of the cases that are kept. {_score_convention(measures, score)}"
        worse = _uncertainty(measures, score)
        for kept in ranking.coverage_table(worse, dice, patients, coverages=config.evaluation.coverages, **options):
            paper = PAPER_COVERAGE.get(kept.coverage) if (score, network) == (MEAN_SA, "online") else None
            who = {"network": network, "score": score, "coverage": kept.coverage}
            more = {"std": kept.std, "paper": paper and paper[0], "paper_std": paper and paper[1]}
            rows.append(Row(who, kept.estimate, convention, more=more))
    return rows


def gain_rows(config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray) -> list[Row]:
    """What rejecting cases gains over the mean Dice of all, at every coverage below 1."""
    dice, options = np.asarray(measures["dice"], float), {"resamples": config.evaluation.resamples}
    rows = []
    for score, coverage in itertools.product(_WORSE, config.evaluation.coverages):
        if coverage == 1:
            continue
        gain = ranking.bootstrap(
            functools.partial(kept_gain, coverage=coverage),
            {"worse": _uncertainty(measures, score), "dice": dice},
            patients,
            **options,
        )
        paper = None
        if (score, network) == (MEAN_SA, "online") and coverage in PAPER_COVERAGE:
            paper = round(PAPER_COVERAGE[coverage][0] - PAPER_COVERAGE[1.0][0], 4)
        convention = "mean Dice of the cases that are kept minus that of all with a score; every resample ranks anew"
        who = {"network": network, "score": score, "coverage": coverage}
        rows.append(Row(who, gain, f"{convention}. {_score_convention(measures, score)}", PAIRED, {"paper": paper}))
    return rows


def kept_gain(worse: np.ndarray, dice: np.ndarray, *, coverage: float) -> float:
    """Mean Dice of the share of cases with the lowest score, minus that of all; NaN without a case."""
    if not len(dice):
        return math.nan
    curve = ranking.risk_coverage(worse, dice).risk  # of any quality; the mean of the k that are kept
    return float(curve[math.ceil(coverage * len(dice) - 1e-9) - 1] - curve[-1])
