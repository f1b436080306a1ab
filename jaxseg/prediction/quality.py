"""How far a prediction may be trusted: its quality estimates against those of the run's validation cases.

He et al. 2022, section 4.6: at a coverage of 80 %, the predictions that look worse than 80 % of the validation cases do
are given to a person. A case whose score is undefined, as the mean SA score is where nothing was segmented, ranks
last; where that is common among the validation cases it is no reason to flag one.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxseg.metrics.intervals import defined_mean


def percentile(reference: np.ndarray, value: float, *, high_is_good: bool) -> float:
    """Per cent of the validation cases that look better than this one, from 0 (better than all) to 100.

    Args:
      reference: `[N]` scores of the validation cases, NaN where undefined.
      value: the score, NaN where undefined.
      high_is_good: whether a high score predicts a good segmentation.

    Raises:
      ValueError: there is no reference.
    """
    if not reference.size:
        raise ValueError("reference is empty; give the scores of the validation cases")
    sign = -1 if high_is_good else 1
    worse = lambda scores: np.where(np.isnan(scores), math.inf, sign * np.asarray(scores, float))
    return 100.0 * float(np.mean(worse(reference) < worse(value)))


def is_flagged(value: float, *, coverage: float) -> bool:
    """Whether a percentile lies beyond the coverage, so that of N different validation cases (1 - coverage) N do."""
    return value >= 100 * coverage - 1e-9  # 0.8 is no sum of powers of two


def mean_defined(scores: np.ndarray) -> float:
    """The mean of what is defined, over the tiles of an image or the slices of a volume; NaN where nothing is."""
    return float(defined_mean(np.asarray(scores, float)))


def by_volume(cases: Sequence[str], scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of slices -> those of their volumes, in the order in which these first appear.

    Args:
      cases: names of the slices, `<volume>_<number>`.
      scores: name -> `[N]`, one per slice.
    """
    volumes = np.array([case.rpartition("_")[0] for case in cases])
    order = list(dict.fromkeys(volumes.tolist()))
    return {
        name: np.array([mean_defined(values[volumes == volume]) for volume in order]) for name, values in scores.items()
    }
