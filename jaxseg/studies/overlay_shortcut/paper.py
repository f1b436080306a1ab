"""Numbers of the paper (Lin, Weng et al. 2024) beside the study's, as columns of its tables.

Dice, mean and standard deviation over images: percent in the paper, parts of one in the tables; NaN where it has none.
"""

import math

DICE = {  # Table 1: the baseline's, by test images and plane
    "annotated": {"head": (76.97, 5.10), "abdomen": (82.06, 6.60), "femur": (93.82, 1.79), "cervix": (76.29, 4.05)},
    "cleaned": {"head": (70.85, 8.24), "abdomen": (78.85, 7.72), "femur": (91.84, 4.87), "cervix": (71.81, 4.86)},
}
STABILITY = {  # Table 2: of the predictions at start and end of a clip, by network and plane
    "baseline": {"head": (89.07, 14.9), "abdomen": (94.75, 12.6), "femur": (91.51, 19.6), "cervix": (82.42, 10.1)},
    "mitigation": {"head": (98.39, 1.3), "abdomen": (98.53, 1.9), "femur": (95.38, 8.9), "cervix": (97.00, 1.2)},
}
_NONE = (math.nan, math.nan)
Columns = dict[str, float]


def dice(network: str, kind: str, plane: str) -> Columns:
    """Dice of a network on one kind of test images."""
    return _columns(*(DICE.get(kind, {}).get(plane, _NONE) if network == "baseline" else _NONE))


def drop(network: str, kind: str, plane: str) -> Columns:
    """Dice of a network on annotated test images minus that on another kind."""
    annotated, other = (DICE.get(name, {}).get(plane, _NONE)[0] for name in ("annotated", kind))
    return {"paper_mean": (annotated - other) / 100 if network == "baseline" else math.nan}


def stability(network: str, plane: str) -> Columns:
    """Dice of a network's predictions at start and end of a clip."""
    return _columns(*STABILITY.get(network, {}).get(plane, _NONE))


def gain_of_stability(plane: str) -> Columns:
    """The mitigated network's stability minus the baseline's."""
    before, after = (STABILITY[name].get(plane, _NONE)[0] for name in ("baseline", "mitigation"))
    return _columns(after - before, math.nan)


def _columns(mean: float, spread: float) -> Columns:
    return {"paper_mean": mean / 100, "paper_sd": spread / 100}
