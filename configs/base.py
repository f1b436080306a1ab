"""Every field of a training run, with the recipe of Lin, Weng et al. 2024; the other configs start from it."""

import ml_collections

# What an option is not given here, a choice by name does not have: see jaxseg.options.
_LOSS_OPTIONS = {"smooth": 1.0, "gamma": 2.0}
_OPTIMIZER_OPTIONS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 1e-2, "momentum": 0.0, "nesterov": False}
_SCHEDULE_OPTIONS = {"warmup_epochs": 0, "final_fraction": 0.0, "every_epochs": 20, "factor": 0.5}


def run() -> ml_collections.ConfigDict:
    """A run of the U-Net on ISIC 2017 at 256 pixels."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.parallel = "jit"  # over a mesh of all devices; or pmap, which gives the same results
    config.replicas = 1  # runs of one shape that are trained as one program, each in a folder of its own
    config.vary = "seed"  # what differs between replicas: seed, or fold
    config.on_nonfinite = "stop"  # when loss or gradient are not finite; or skip, which leaves the step out
    config.deterministic = False  # the same bits on a GPU too, whatever they cost; on CPU and TPU they are in any case

    config.data = ml_collections.ConfigDict()
    config.data.dataset = "isic2017/512"
    config.data.domains = ()  # scanners, vendors, hospitals whose cases are trained and validated on; none means all
    config.data.source_size = 512  # read at this size, so that a quadrant is not enlarged
    config.data.image_size = 256  # of what the network sees
    config.data.geometry = (
        "squash"  # or keep, patches: see jaxseg/data/grids.py; keep and patches take image_size alone
    )
    config.data.geometry_options = {
        "spacing": (),  # mm that pixels are resampled to, as (1.5, 1.5); none: they stay as they are
        "size": (),  # of the grid, or of a patch, where its sides differ; none: image_size along all of them
        "multiple": (),  # all of a case is kept, padded to a multiple, as (32,); none: it is cropped or padded to size
        "whole": False,  # all of a case is kept, its plane resized until it fits, its aspect as it is
        "foreground": 1 / 3,  # share of the patches that are sure to hold foreground
        "overlap": 0.5,  # of patches where a window slides over a case
    }
    config.data.normalisation = "range"  # or percentiles, z_score, mean_std, none: see jaxseg/data/normalisation.py
    config.data.normalisation_options = {
        "low": 0.5,  # percentiles
        "high": 99.5,
        "scope": "image",  # or slice
        "mean": (),  # for each channel; none: that of the training cases' foreground
        "std": (),
        "clip": (),  # two ends
    }
    config.data.view = "original"  # or quadrant, drawn anew each time
    # device keeps all cases on every device, sharded a part of them on each, stream reads them from disk (of several
    # sizes: maps them from files in the work directory); auto: the first that fits
    config.data.residence = "auto"
    config.data.folds = 0  # of a cross-validation over train and validation, stratified, patients whole; 0 is none
    config.data.fold = 0  # the fold that is held out
    config.data.augmentation = {
        # what stands alone, as "noise", is the probability of a sample, and ..._channels that of a channel of it
        "flip_horizontal": 0.0,
        "flip_vertical": 0.0,
        "flip_depth": 0.0,  # of volumes
        "rotate": 0.0,  # degrees to either side; of volumes, in the plane of the slices
        "tilt": 0.0,  # the same about the other two axes, of volumes
        "rotate_probability": 1.0,  # of both
        "scale": (1.0, 1.0),  # above 1 enlarges
        "scale_probability": 1.0,
        "scale_per_axis": 0.0,  # probability of a factor for each axis
        "translate": 0.0,  # of the sides, to either side
        "crop": (1.0, 1.0),  # of the sides
        "elastic": 0.0,
        "elastic_spacing": (0.15, 0.3),  # between control points, of the sides
        "elastic_amplitude": (0.0, 0.4),  # of the spacing; 0.4 is the most that folds nothing
        "interpolation": "linear",  # or cubic
        "fill": "reflect",  # or constant
        "fill_value": -1.0,  # for constant
        "channels_alike": False,  # whether all channels change in the same way
        "noise": 0.0,
        "noise_std": (0.0, 0.1),
        "noise_shared": True,  # by all channels
        "noise_channels": 1.0,
        "blur": 0.0,
        "blur_sigma": (0.5, 1.0),  # pixels
        "blur_channels": 0.5,
        "brightness": 0.0,
        "brightness_factor": (0.75, 1.25),
        "brightness_channels": 1.0,
        "brightness_shift": 0.0,
        "brightness_shift_mean": 0.0,
        "brightness_shift_std": 0.1,
        "brightness_shift_channels": 1.0,
        "contrast": 0.0,
        "contrast_factor": (0.75, 1.25),
        "contrast_clip": True,  # to the range before
        "contrast_channels": 1.0,
        "low_resolution": 0.0,
        "low_resolution_scale": (0.5, 1.0),  # of the sides
        "low_resolution_channels": 0.5,
        "gamma": 0.0,
        "inverted_gamma": 0.0,  # with black and white swapped
        "gamma_exponent": (0.7, 1.5),
        "gamma_keeps_moments": True,  # mean and standard deviation
        "gamma_channels": 1.0,
    }

    config.model = ml_collections.ConfigDict()
    config.model.name = "unet"
    config.model.features = (64, 128, 256, 512, 512)
    config.model.skips = (True, True, True, True)
    config.model.upsample = "bilinear"
    config.model.norm = "batch"
    config.model.padding = "zero"
    config.model.remat = False
    config.model.pretrained = ml_collections.config_dict.placeholder(str)  # or imagenet, or a file
    config.model.dtype = "float32"  # of the computation; or bfloat16

    config.training = ml_collections.ConfigDict()
    # or cross_entropy, dice_cross_entropy, dice_bce, dice_focal, generalised_dice, generalised_dice_cross_entropy
    config.training.loss = "dice"
    config.training.loss_options = dict(_LOSS_OPTIONS)
    config.training.ability_weight = 0.0  # of the segmentation ability of layers, added to the loss (online ProtoSeg)
    config.training.ability_layers = ()  # their names; none means all
    config.training.optimizer = "adam"  # or adamw, sgd
    config.training.optimizer_options = dict(_OPTIMIZER_OPTIONS)
    config.training.learning_rate = 1e-3
    config.training.schedule = "constant"  # or cosine, step
    config.training.schedule_options = dict(_SCHEDULE_OPTIONS)
    config.training.clip_norm = 0.0  # of the whole gradient; 0 clips nothing
    config.training.batch_size = 16
    config.training.accumulate = 1  # parts of a batch that are computed one after the other
    config.training.epochs = 100
    config.training.evaluate_every = 1  # epochs; each validation is followed by a checkpoint
    config.training.save_every = 0  # steps between further checkpoints
    config.training.steps_per_call = 0  # steps in one program; 0: 1 on CPU, 32 elsewhere
    config.training.selection = "dice"  # which validation number chooses the best checkpoint; or miou
    config.training.patience = 0  # validations without a better one that end a run; 0 never ends it
    return config
