"""The border shortcut: zero padding and centred lesions teach a U-Net that border pixels are background.

Paper: Lin, Weng et al. 2024, *Shortcut Learning in Medical Image Segmentation*, section 4. `M_ori` is trained on whole
images, `M_crop` on quadrants drawn anew each time; both are tested on both.

    python -m launch.study --config=configs/border_shortcut.py:demo --workdir=runs/demo
    python -m launch.study --config=configs/border_shortcut.py:cpu --workdir=runs/isic --manual_dir=ISIC_FOLDER
    python -m launch.study --config=configs/border_shortcut.py:paper --workdir=runs/paper --manual_dir=ISIC_FOLDER

A comma and `padding` after the size (`demo,padding`) repeats the study with all five padding modes. `transformer` in
its place (`demo,transformer`) runs the U-Net and a vision transformer with zero and with reflection padding, the
transformer with three kinds of positions and with none: the paper leaves open whether it carries the shortcut through
its positional encoding.

| size  | images                         | network                       | cost                                  |
| ----- | ------------------------------ | ----------------------------- | ------------------------------------- |
| tiny  | embedded, 32 px, for the tests | 4 ... 8 features, 2 levels    | seconds                               |
| demo  | embedded, 64 px                | 8 ... 64 features, 4 levels   | under 2 min on two cores, with setup   |
| cpu   | ISIC 2017, 128 px              | 16 ... 128 features, 4 levels | 31 min on two cores, an earlier state |
| paper | ISIC 2017, 256 px, 100 epochs  | 64 ... 512 features, 4 levels | an accelerator; not measured yet      |

Expected, as the paper finds: on quadrants `M_ori` falls off towards the border and `M_crop` does not. Measured
results are in the README.

The paper's recipe, kept in every size: Dice loss, Adam with 1e-3, batch 16, images in [-1, 1], the checkpoint with the
best validation Dice. No other augmentation than the random quadrant. The transformer is trained in the same way; with
3e-4 it came no further in the demo (best validation Dice 0.73, with 1e-3 0.75; one run each).
"""

import ml_collections

from configs import base

_VARIANTS = {
    "": {},
    "padding": {"paddings": ("zero", "reflect", "replicate", "circular", "valid")},
    "transformer": {
        "networks": ("unet", "vit"),
        "paddings": ("zero", "reflect"),
        "positions": ("learned", "sinusoidal", "relative", "none"),
    },
}


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The study in one of the sizes tiny, demo, cpu, paper; `size,padding` and `size,transformer` for more networks."""
    name, _, variant = size.partition(",")
    if name not in _SIZES or variant not in _VARIANTS:
        raise ValueError(
            f"unknown size {size!r}; choose one of {', '.join(_SIZES)}, with ',padding' or ',transformer' after it or "
            "nothing"
        )
    config = _paper()
    config.size = size
    config.update(_SIZES[name])
    config.update(_VARIANTS[variant])
    return config.lock()


def _paper() -> ml_collections.ConfigDict:
    config = base.run()
    config.study = "border_shortcut"
    config.size = "paper"
    config.views = ("original", "quadrant")  # M_ori and M_crop
    config.networks = ("unet",)  # and vit; the first, with the first padding and positions, is that of the answer
    config.paddings = ("zero",)  # of all networks
    config.positions = ("learned",)  # of vit: sinusoidal, relative, none

    # of vit, which shares remat and dtype with config.model; this size is ViT-S (Touvron et al. 2021)
    config.vit = ml_collections.ConfigDict()
    config.vit.patch = 16  # pixels a side
    config.vit.width = 384
    config.vit.depth = 12
    config.vit.heads = 6

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.grid = 256  # predictions and labels are compared at this size, nearest pixel
    config.evaluation.band_width = 10  # pixels of the grid
    config.evaluation.border_width = 30  # pixels of the grid that count as "at the border"
    config.evaluation.windows_per_side = 5  # positions of the moving window along each axis
    config.evaluation.window_images = 64  # test images over which the window moves
    config.evaluation.position_folds = 5  # of the regression of the distance from the border on features
    config.evaluation.feature_pixels = 4000  # in the projection of features
    config.evaluation.examples = 4  # images in the figure of examples
    config.evaluation.resamples = 5000  # of the bootstrap
    return config


_SIZES = {
    "paper": {},
    "cpu": {
        "data": {"dataset": "isic2017/256", "source_size": 256, "image_size": 128},
        "model": {"features": (16, 32, 64, 128, 128)},
        "vit": {"patch": 8, "width": 128, "depth": 6, "heads": 4},
        "training": {"epochs": 12},
    },
    "demo": {
        "data": {"dataset": "dermoscopy/demo", "source_size": 128, "image_size": 64},
        "model": {"features": (8, 16, 32, 64, 64)},
        "vit": {"patch": 8, "width": 96, "depth": 4, "heads": 4},
        "training": {"epochs": 16, "evaluate_every": 2},
        "evaluation": {"window_images": 32},
    },
    "tiny": {
        "data": {"dataset": "dermoscopy/tiny", "source_size": 64, "image_size": 32},
        "model": {"features": (4, 8, 8), "skips": (True, True)},
        "vit": {"patch": 4, "width": 16, "depth": 2, "heads": 2},
        "training": {"epochs": 2},
        "evaluation": {"window_images": 4, "windows_per_side": 3, "resamples": 200},
    },
}
