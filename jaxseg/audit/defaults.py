"""What an audit asks, how often, and from where on an answer is a finding, unless someone says otherwise.

Margins are set from what the numbers mean: 0.05 of Dice is what the studies of this project call negligible. The whole
95 % interval of a finding lies above its margin. That of recall was 0.05 too until networks without the shortcut turned
out to lie on it, as half an object is harder to see: see there what it means.
"""

import dataclasses
from typing import Any

import ml_collections

from jaxseg.errors import InputError


@dataclasses.dataclass(frozen=True)
class Defaults:
    """Every number of an audit; `configs/audit.py` makes a config of it."""

    probes: tuple[str, ...] = ()  # asked, as accuracy, translation, padding, overlays; none: all of jaxseg/audit/probes
    findings: int = 5  # shown at most
    seed: int = 0  # of the autoencoder
    cases: int = 400  # test cases at most, evenly over the split
    familiar_cases: int = 1000  # at most so many training cases, for scores that need them
    profile_cases: int = 64  # for profiles over layers and distances of domains
    resamples: int = 2000  # of the bootstrap
    examples: int = 2  # cases in a finding's picture

    margin: float = 0.05  # of Dice, and of the share of an empty place that calipers turn into an object
    low_dice: float = 0.7  # a mean Dice that lies below with its whole interval is a finding
    calibration_margin: float = 0.05  # of the expected calibration error

    border_share: float = 0.12  # of the shorter side, "near the border"; 30 of 256 pixels as in the border study
    # of the recall of an object near the border. A loss r there costs the object about 2/3 r s of Dice, where a share s
    # of what is seen of it lies near, mostly half: 0.1 is still less than 0.05 of Dice
    recall_margin: float = 0.1
    # in windows with the border far away, without which a loss at it cannot be seen: larger windows are tried
    least_recall: float = 0.2
    chroma: float = 40.0  # levels between red, green and blue from which on a stroke counts as coloured
    gray_share: float = 0.8  # of an image without colour, so that what has colour counts as marks
    away_share: float = 0.04  # of the shorter side: nearer to the object white and gray strokes are left alone
    removal: str = "fast_marching"  # how marks are filled in; see jaxseg.data.overlays
    beside_share: float = 0.08  # of the shorter side: how far beside a mark its shape is filled in instead
    stroke_share: float = 0.03  # of the shorter side: nearer to an inserted stroke nothing is scored
    caliper_share: float = 0.06  # of the shorter side: size of a caliper
    gathered_share: float = 0.35  # of the way from the middle of an empty place to its ends, for the control
    inks: tuple[str, ...] = ("yellow", "green", "white", "light gray", "gray")  # of calipers that are drawn
    copied_margin: float = 0.75  # of the share of a mark's strokes that is called object
    left_margin: float = 0.5  # of Dice lost to calipers beside the object; networks that saw no marks lost up to 0.3
    least_cases: int = 8  # images with marks, without which their removal is not asked

    position_folds: int = 5  # of the regression of the distance from the border on features
    grid_share: int = 8  # pixels per cell of the grid over which activations are averaged for distances
    bins: int = 15  # of confidence
    latent: int = 32  # of the autoencoder for segmentation distortion, the width of its first block, and its steps
    autoencoder_width: int = 16
    autoencoder_steps: int = 200


def config(**changed: Any) -> ml_collections.ConfigDict:
    """The config of an audit, unlocked; `changed` are fields that differ from their defaults.

    Raises:
      InputError: no such field.
    """
    fields = dataclasses.asdict(Defaults())
    if unknown := [name for name in changed if name not in fields]:
        raise InputError(f"an audit has no setting {unknown[0]!r}; choose from {', '.join(fields)}")
    return ml_collections.ConfigDict(fields | changed)
