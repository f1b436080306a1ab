"""Numbers of the paper (Wilm et al. 2024) beside the study's: IoU, its change by pruning, parameters.

Networks are given by encoder and number of removed skips.
"""

import numpy as np

Architecture = tuple[str, int]  # encoder, how many of the top skips are removed

PARAMETERS = {  # Table II
    "resnet18": (14_328_354, 14_309_922, 14_273_058, 14_125_602, 13_535_778),
    "resnet34": (24_436_514, 24_418_082, 24_381_218, 24_233_762, 23_643_938),
}
# Section V.A, of Fig. 7: cell IoU at a brightness of 0.75; the text says no more of that figure in numbers
_BRIGHTNESS = {
    ("resnet18", 2): 0.86, ("resnet34", 2): 0.90,
    ("resnet18", 3): 0.82, ("resnet34", 3): 0.91,
    ("resnet18", 4): 0.77, ("resnet34", 4): 0.86,
}  # fmt: skip
# Fig. 9: IoU by domain, A (trained on) first
DOMAINS: dict[str, dict[Architecture, tuple[float, ...]]] = {
    "MS-MF": {
        ("resnet18", 0): (0.85, 0.58, 0.70, 0.47, 0.57, 0.34),
        ("resnet18", 1): (0.86, 0.57, 0.70, 0.47, 0.53, 0.32),
        ("resnet18", 4): (0.83, 0.60, 0.70, 0.47, 0.59, 0.35),
        ("resnet34", 0): (0.86, 0.56, 0.67, 0.49, 0.53, 0.34),
        ("resnet34", 1): (0.87, 0.60, 0.70, 0.51, 0.58, 0.40),
        ("resnet34", 4): (0.84, 0.59, 0.68, 0.47, 0.57, 0.31),
    },
    "MS-CCT": {
        ("resnet18", 0): (0.63, 0.59, 0.60, 0.55, 0.52),
        ("resnet18", 1): (0.73, 0.68, 0.68, 0.63, 0.64),
        ("resnet18", 4): (0.72, 0.67, 0.68, 0.64, 0.62),
        ("resnet34", 0): (0.71, 0.68, 0.67, 0.58, 0.64),
        ("resnet34", 1): (0.74, 0.70, 0.70, 0.63, 0.67),
        ("resnet34", 4): (0.73, 0.69, 0.68, 0.63, 0.65),
    },
    "MV-MR": {
        ("resnet18", 0): (0.72, 0.60, 0.56, 0.55),
        ("resnet18", 1): (0.77, 0.62, 0.69, 0.58),
        ("resnet18", 4): (0.67, 0.49, 0.50, 0.51),
        ("resnet34", 0): (0.77, 0.65, 0.67, 0.67),
        ("resnet34", 1): (0.79, 0.69, 0.71, 0.68),
        ("resnet34", 4): (0.74, 0.63, 0.60, 0.66),
    },
}
_CENTRES = range(1, 7)  # M&Ms names a domain by its vendor and centre
_PLACES: dict[str, tuple[str, dict[str, int]]] = {  # data set -> the paper's name of it; domain -> place in `DOMAINS`
    "ms_cct": ("MS-CCT", {scanner: i for i, scanner in enumerate(("cs2", "nz210", "nz20", "p1000", "gt450"))}),
    "mnms": (
        "MV-MR",
        {f"{vendor} {k}": i for i, vendor in enumerate(("Siemens", "Philips", "GE", "Canon")) for k in _CENTRES},
    ),
}


def iou(
    dataset: str, architecture: Architecture, *, domain: str = "", shift: tuple[str, float] | None = None
) -> float | None:
    """The paper's IoU beside one of ours; None where its text and figures have none.

    Args:
      dataset: of the study, such as `ms_cct/512`.
      architecture: encoder and removed skips.
      domain: that is tested on.
      shift: name and strength of what is done to the images.
    """
    name = dataset.partition("/")[0]  # without the variant
    if name == "smear" and shift == ("brightness", 0.75):
        return _BRIGHTNESS.get(architecture)
    data, places = _PLACES.get(name, ("", {}))
    if shift or domain not in places or architecture not in DOMAINS[data]:
        return None
    return DOMAINS[data][architecture][places[domain]]


TRAINED_ON, OTHERS = slice(0, 1), slice(1, None)  # of the domains of a data set


def change(data: str, encoder: str, more: int, less: int, *, domains: slice = slice(None)) -> float:
    """IoU of a network with more removed skips minus that of one with less, mean over domains."""
    return float(np.mean(np.subtract(DOMAINS[data][encoder, more][domains], DOMAINS[data][encoder, less][domains])))


def range_of_changes(more: int, less: int, *, domains: slice = slice(None)) -> str:
    """The smallest and the largest `change` of the paper's networks, in words."""
    changes = [change(data, encoder, more, less, domains=domains) for data in DOMAINS for encoder in PARAMETERS]
    return f"{min(changes):+.2f} to {max(changes):+.2f} IoU in six networks on clinical data (Fig. 9)"
