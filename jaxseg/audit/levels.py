"""The picture of a case that a network is given: where it lies on its grid, and its 256 gray levels."""

import numpy as np

from jaxseg.data import pipeline
from jaxseg.data.normalisation import Scale


def place(case: pipeline.Case) -> tuple[slice, ...]:
    """Where on its grid a case lies, all of it unless it says `inside`; what is beside it is padding."""
    if "inside" not in case:
        return tuple(slice(0, side) for side in case["image"].shape[:-1])
    return tuple(slice(*ends) for ends in case["inside"].T)


def scale(case: pipeline.Case) -> Scale | None:
    """What levels are to the network; None where it is given the levels themselves, uint8."""
    return None if case["image"].dtype == np.uint8 else Scale(*case["scale"])


def of_case(case: pipeline.Case) -> np.ndarray:
    """Gray levels of the whole grid, uint8 `[*S,C]`."""
    known = scale(case)
    if known is None:
        return case["image"]
    return np.clip(np.rint(known.levels(case["image"])), 0, 255).astype(np.uint8)
