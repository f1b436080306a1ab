r"""How the papers trained, for `configs/train.py`: what their texts say, and, marked, ours where they say nothing.

| recipe             | paper, section           | optimiser, rate, schedule      | loss                 | batch, ep |
| ------------------ | ------------------------ | ------------------------------ | -------------------- | --------- |
| lin2024            | Lin, Weng 2024, 4        | Adam 1e-3                      | Dice                 | 16, 100   |
| lin2024_ultrasound | Lin, Weng 2024, 3        | AdamW 1e-4, decay 1e-6, cosine | DTU-Net's (dtu_net)  | 32, 1000  |
| he2022             | He 2022, 4.2             | Adam 1e-4, halved every 20     | cross-entropy        | 10, 50    |
| he2022_online      | He 2022, 4.2             | the same                       | the same + SA        | 10, 50    |
| wilm2024           | Wilm 2024, IV.C and V    | Adam 1e-4, step decay          | cross-entropy + Dice | 8, 50     |
| lennartz2023       | Lennartz 2023, 3.3 and 4 | Adam 1e-3                      | cross-ent. + Dice*   | 16*, 100* |
| nnunet, nnunet_3d  | nnU-Net 2, its trainer   | of lin2024                     | of lin2024           | 16, 100   |

\* not stated. Also not stated, and therefore ours: Wilm's decay (halved every 20 epochs) and the ranges of its flips,
crops, rotations and scalings; after how many validations without a better one training ends where a paper says "early
stopping" or "until convergence". Wilm chooses by validation mIoU and trains five stratified folds:
`--config.replicas=5 --config.vary=fold` trains all five as one program.

`nnunet` and `nnunet_3d` are nnU-Net's augmentations of pictures and of volumes, with its default probabilities and
ranges, and nothing else of it. It multiplies distances by 0.7 to 1.4 where images here are enlarged by 1/1.4 to 1/0.7,
and takes what is beyond the border from a larger patch. Where a patch is longer than wide it rotates by 15 degrees, and
where slices are thick in their plane alone, by 180.

Epochs are those of the paper in the size `paper`; the other sizes keep theirs.
"""

import ml_collections

RECIPES = (
    "lin2024",
    "lin2024_ultrasound",
    "he2022",
    "he2022_online",
    "wilm2024",
    "lennartz2023",
    "nnunet",
    "nnunet_3d",
)
_NNUNET = {
    **{"flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate": 180.0, "rotate_probability": 0.2},
    **{"scale": (1 / 1.4, 1 / 0.7), "scale_probability": 0.2},
    **{"noise": 0.1, "noise_std": (0.0, 0.1), "noise_shared": True, "noise_channels": 1.0},
    **{"blur": 0.2, "blur_sigma": (0.5, 1.0), "blur_channels": 0.5},
    **{"brightness": 0.15, "brightness_factor": (0.75, 1.25), "brightness_channels": 1.0},
    **{"contrast": 0.15, "contrast_factor": (0.75, 1.25), "contrast_clip": True, "contrast_channels": 1.0},
    **{"low_resolution": 0.25, "low_resolution_scale": (0.5, 1.0), "low_resolution_channels": 0.5},
    **{"inverted_gamma": 0.1, "gamma": 0.3, "gamma_exponent": (0.7, 1.5), "gamma_keeps_moments": True},
    **{"gamma_channels": 1.0, "channels_alike": False},
}
AUGMENTATIONS = {
    "nnunet": _NNUNET,
    "nnunet_3d": _NNUNET | {"flip_depth": 0.5, "rotate": 30.0, "tilt": 30.0},
}


def apply(config: ml_collections.ConfigDict, recipe: str, *, all_epochs: bool) -> None:
    """Changes a run's config to a recipe; its epochs only if `all_epochs`."""
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; known are {', '.join(RECIPES)}")
    training, epochs = config.training, config.training.epochs
    if recipe == "lin2024_ultrasound":
        training.update(optimizer="adamw", learning_rate=1e-4, schedule="cosine", batch_size=32, epochs=1000)
        training.optimizer_options.weight_decay = 1e-6
        training.patience = 50
    elif recipe in ("he2022", "he2022_online"):
        training.update(loss="cross_entropy", learning_rate=1e-4, schedule="step", batch_size=10, epochs=50)
        training.ability_weight = 1.0 if recipe == "he2022_online" else 0.0
    elif recipe == "wilm2024":
        training.update(loss="dice_cross_entropy", learning_rate=1e-4, schedule="step", batch_size=8, epochs=50)
        training.selection = "miou"
        config.data.folds = 5
        config.data.augmentation.update(
            flip_horizontal=0.5, flip_vertical=0.5, rotate=15.0, scale=(0.9, 1.1), crop=(0.8, 1.0)
        )
    elif recipe == "lennartz2023":
        training.update(loss="dice_cross_entropy", learning_rate=1e-3)
        training.patience = 20
    elif recipe in AUGMENTATIONS:
        config.data.augmentation.update(AUGMENTATIONS[recipe])
    if not all_epochs:
        training.epochs = epochs
