"""Rows of the segmentation-ability study's tables: an estimate with its interval over patients and its convention."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.metrics.intervals import Estimate, bootstrap_contrast, bootstrap_mean

Row = dict[str, Any]
Term = tuple[float, np.ndarray]  # weight, and values [N]

OVER_PATIENTS = "bootstrap over patients, 95 %"
PAIRED = f"{OVER_PATIENTS}, paired"
DICE = "Dice per case of the output, mean; empty in annotation and output is undefined and left out"
SA = (
    "SA score per case: Dice of the prototype map (soft mask of the network, bilinear) with the annotation, mean; "
    "undefined where the mask has an empty side"
)


def row(who: Mapping[str, Any], estimate: Estimate, convention: str, interval: str = OVER_PATIENTS) -> Row:
    """A row of a table."""
    return {**who, **dataclasses.asdict(estimate), "interval": interval, "convention": convention}


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
