"""What an audit asks, how often, and from where on an answer is a finding; for `launch.audit`.

    python -m launch.audit --run=runs/unet --workdir=runs/audit
    python -m launch.audit --run=runs/unet --workdir=runs/audit --audit.cases=100

Margins are set from what the numbers mean, not from outcomes: 0.05 of Dice is what the studies of this project call
negligible. A finding's whole 95 % interval lies above its margin.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Every number of an audit."""
    config = ml_collections.ConfigDict()
    config.probes = ()  # which are asked, as accuracy, translation, padding, overlays; none: all of jaxseg/audit/probes
    config.findings = 5  # shown at most
    config.seed = 0  # of the autoencoder
    config.cases = 400  # test cases at most, evenly over the split
    config.familiar_cases = 1000  # at most so many training cases, for scores that need them
    config.profile_cases = 64  # for profiles over layers and distances of domains
    config.resamples = 2000  # of the bootstrap
    config.examples = 2  # cases in a finding's picture

    config.margin = 0.05  # of Dice, and of the share of an empty place that calipers turn into an object
    config.low_dice = 0.7  # a mean Dice that lies below with its whole interval is a finding
    config.calibration_margin = 0.05  # of the expected calibration error

    config.border_share = 0.12  # of the shorter side, "near the border"; 30 of 256 pixels as in the border study
    config.least_recall = 0.3  # in windows with the border far away, without which a loss at it cannot be seen
    config.chroma = 40.0  # levels between red, green and blue from which on a stroke counts as a mark; gray ones do not
    config.gray_share = 0.8  # of an image without colour, so that what has colour counts as marks
    config.removal = "fast_marching"  # how marks are filled in; see jaxseg.data.overlays
    config.beside_share = 0.08  # of the shorter side: how far beside a mark its shape is filled in instead
    config.stroke_share = 0.03  # of the shorter side: nearer to an inserted stroke nothing is scored
    config.caliper_share = 0.06  # of the shorter side: size of a caliper
    config.gathered_share = 0.35  # of the way from the middle of an empty place to its ends, for the control
    config.colours = ((255, 255, 0), (255, 255, 255), (130, 255, 130))  # of calipers, in turn
    config.least_cases = 8  # images with marks, without which their removal is not asked

    config.position_folds = 5  # of the regression of the distance from the border on features
    config.grid_share = 8  # pixels per cell of the grid over which activations are averaged for distances
    config.bins = 15  # of confidence
    config.latent = 32  # of the autoencoder for segmentation distortion, the width of its first block, and its steps
    config.autoencoder_width = 16
    config.autoencoder_steps = 200
    return config.lock()
