"""The segmentation-ability study's tables of quality estimates: do scores without annotation predict the Dice?

He et al. 2022, section 4.6: the mean SA score, against the variance of gradients (VoG).
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxseg.metrics import ranking
from jaxseg.results.patients import Patients
from jaxseg.results.table import PAIRED, Row
from jaxseg.scores import registry
from jaxseg.studies.base import Measures
from jaxseg.studies.segmentation_ability.settings import Settings

# Of what the study's numbers are means.
DICE = "Dice per case of the output, mean; empty in annotation and output is undefined and left out"
SA = (
    "SA score per case: Dice of the prototype map (soft mask of the network, bilinear) with the annotation, mean; "
    "undefined where the mask has an empty side"
)
# Table 2, of the online network; its caption has 75 % where the column says 70 %
PAPER_COVERAGE = {1.0: (0.8353, 0.17), 0.9: (0.8457, 0.16), 0.7: (0.8421, 0.16), 0.5: (0.8551, 0.15)}
MEAN_SA, VOG = registry.SCORES["mean_sa"].name, registry.SCORES["vog"].name
_SCORES = {score.name: score for score in registry.SCORES.values() if score.name in (MEAN_SA, VOG)}


def _risk(measures: Measures, score: str) -> np.ndarray:
    return _SCORES[score].risk(np.asarray(measures[_SCORES[score].key], float))


def _score_convention(measures: Measures, score: str) -> str:
    if score == MEAN_SA:
        return "Mean SA: score of the last two layers' units against the network's own output, no annotation (Eq. 12)"
    count = int(measures["vog_checkpoints"])
    return f"VoG: over {count} checkpoints, of the summed logits of the predicted classes"


def correlation_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Fig. 10: rank correlations, positive where the score orders the cases as it is meant to."""
    risk = 1 - np.asarray(measures["dice"], float)
    for score in _SCORES:
        estimate = patients.spearman(_risk(measures, score), risk)
        sign = "a low score" if score == MEAN_SA else "a high score"
        convention = f"Spearman with 1 - Dice, {sign} predicting a bad case. {_score_convention(measures, score)}"
        yield Row({"network": network, "score": score}, estimate, convention)
    difference = patients.statistic(
        lambda ours, theirs, risk: ranking.spearman(ours, risk) - ranking.spearman(theirs, risk),
        {score: _risk(measures, score) for score in (MEAN_SA, VOG)} | {"risk": risk},
    )
    convention = "difference of the two rank correlations, over the cases in which both scores are defined"
    yield Row({"network": network, "score": f"{MEAN_SA} minus {VOG}"}, difference, convention, PAIRED)


def bucket_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Fig. 11: Dice of the cases in equal parts, by rising score."""
    for score, of in _SCORES.items():
        values = np.asarray(measures[of.key], float)
        order = np.argsort(values, kind="stable")[: np.sum(~np.isnan(values))]
        parts = np.array_split(order, settings.evaluation.buckets)
        for number, part in enumerate(parts, 1):
            if not len(part):
                continue
            who: dict[str, Any] = {
                "network": network,
                "score": score,
                "bucket": number,
                "up_to_percentile": 100 * number / len(parts),
            }
            left_out = f"{len(values) - len(order)} cases without a score left out"
            convention = f"{DICE}. {left_out}. {_score_convention(measures, score)}"
            yield patients.of(part).row(measures["dice"][part], convention, **who)


def coverage_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Table 2: Dice of what is left when the cases that look worst are rejected."""
    dice = np.asarray(measures["dice"], float)
    for score in _SCORES:
        convention = f"{DICE}. Of the cases that are kept. {_score_convention(measures, score)}"
        worse = _risk(measures, score)
        kept_cases = ranking.coverage_table(
            worse, dice, patients.names, coverages=settings.evaluation.coverages, resamples=patients.resamples
        )
        for kept in kept_cases:
            paper = PAPER_COVERAGE.get(kept.coverage) if (score, network) == (MEAN_SA, "online") else None
            who = {"network": network, "score": score, "coverage": kept.coverage}
            more = {"std": kept.std, "paper": paper and paper[0], "paper_std": paper and paper[1]}
            yield Row(who, kept.estimate, convention, more=more)


def gain_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """What rejecting cases gains over the mean Dice of all, at every coverage below 1."""
    dice = np.asarray(measures["dice"], float)
    for score, coverage in itertools.product(_SCORES, settings.evaluation.coverages):
        if coverage == 1:
            continue
        statistic = functools.partial(ranking.kept_gain, coverage=coverage)
        gain = patients.statistic(statistic, {"score": _risk(measures, score), "values": dice})
        paper = None
        if (score, network) == (MEAN_SA, "online") and coverage in PAPER_COVERAGE:
            paper = round(PAPER_COVERAGE[coverage][0] - PAPER_COVERAGE[1.0][0], 4)
        convention = "mean Dice of the cases that are kept minus that of all with a score; every resample ranks anew"
        who = {"network": network, "score": score, "coverage": coverage}
        yield Row(who, gain, f"{convention}. {_score_convention(measures, score)}", PAIRED, {"paper": paper})
