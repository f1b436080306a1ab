"""Estimates of the segmentation-ability study, over patients, and their conventions."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from jaxseg.metrics.intervals import Estimate, bootstrap_contrast, bootstrap_mean

Term = tuple[float, np.ndarray]  # weight, and values [N]

DICE = "Dice per case of the output, mean; empty in annotation and output is undefined and left out"
SA = (
    "SA score per case: Dice of the prototype map (soft mask of the network, bilinear) with the annotation, mean; "
    "undefined where the mask has an empty side"
)


def mean(config: ml_collections.ConfigDict, values: np.ndarray, patients: np.ndarray) -> Estimate:
    """The mean over cases `[N]`."""
    return bootstrap_mean(values, patients, resamples=config.evaluation.resamples)


def contrast(config: ml_collections.ConfigDict, terms: Sequence[Term], patients: np.ndarray) -> Estimate:
    """A weighted sum of means over the same cases."""
    return bootstrap_contrast(terms, patients, resamples=config.evaluation.resamples)


def std(values: np.ndarray) -> float:
    """Standard deviation over the defined cases, which the paper prints behind its means."""
    defined = values[~np.isnan(values)]
    return float(defined.std()) if defined.size else float("nan")
