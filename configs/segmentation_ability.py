"""Segmentation ability: which layers and units of a U-Net separate an object, and does that tell where it fails?

Paper: He et al. 2022, *Segmentation Ability Map: Interpret deep features for medical image segmentation*. Two networks
of one seed are trained, `offline` with the cross-entropy alone, `online` with what its layers lack in segmentation
ability added (`L + mean(1 - SA)`; the paper writes `+ SA`, which would lower it). The SA score of each of the 18
layers, of the units of the last one and of the raw colours is measured on the test images, and the mean SA score of
the last two layers' units is held against the variance of gradients as an estimate of quality. What section 4.5 only
suggests is done: the inert units of the last layer are taken out.

    python -m launch.study --config=configs/segmentation_ability.py:demo --workdir=runs/ability
    python -m launch.study --config=configs/segmentation_ability.py:cpu --workdir=runs/ability_isic \
        --manual_dir=ISIC_FOLDER
    python -m launch.study --config=configs/segmentation_ability.py:paper --workdir=runs/ability_paper \
        --manual_dir=ISIC_FOLDER

| size  | images                              | network                        | cost                      |
| ----- | ----------------------------------- | ------------------------------ | ------------------------- |
| tiny  | embedded skin, 32 px, for the tests | 4 ... 8 features, 2 levels     | for the tests             |
| demo  | embedded skin, 64 px                | 8 ... 64 features, 4 levels    | 2 min on two cores        |
| cpu   | ISIC 2017, 128 px                   | 16 ... 128 features, 4 levels  | 55 min of one core        |
| paper | ISIC 2017, 256 px, 50 epochs        | 64 ... 1024 features, 4 levels | accelerator; not measured |

Expected, as the paper finds on ISIC: late layers separate better than early ones; the online network has the higher
scores and loses no Dice (0.835 and 0.833); the mean SA score correlates with the Dice, VoG hardly; the half of the
images with the highest mean SA score has a Dice of 0.855; a map of the colours alone reaches 0.667.

Measured with `demo` on 2026-11-25 (two CPU cores; one seed, 160 test images, 95 % intervals over them): SA score of
late minus early layers 0.25 [0.22, 0.28] offline and 0.23 [0.20, 0.26] online; online training raises the mean over
all layers by 0.086 [0.073, 0.100] and changes the Dice (0.81) by 0.002 [-0.013, 0.017]. The rank correlation of the
mean SA score with 1 - Dice is 0.48 [0.35, 0.59], of VoG 0.35 [0.20, 0.49]: whether the first is better is unclear
(0.12 [-0.07, 0.32]). The half with the highest mean SA score gains 0.046 [0.027, 0.076] Dice. Of 8 units 3 (offline)
and 1 (online) count as inert, and without them the Dice falls by 0.082 [0.060, 0.105] and 0.029 [0.018, 0.040]: at
this width what they add is not constant.

Measured with `cpu` on 2026-11-25 (one CPU core; images squashed to 256 px beforehand; 1600 training, 150 validation
and, in place of the official test masks, 200 held-out training cases; one seed, 95 % intervals over those): Dice 0.87
offline and 0.85 online. SA score of late minus early layers 0.099 [0.079, 0.120] offline and 0.074 [0.057, 0.092]
online; online training raises the mean over all layers by 0.079 [0.063, 0.098] and changes the Dice by -0.019 [-0.032,
-0.006], unclear at the margin of 0.02. The rank correlation of the mean SA score with 1 - Dice is 0.18 [0.04, 0.32]
offline and 0.36 [0.23, 0.48] online, of VoG 0.38 [0.24, 0.50] and 0.45 [0.32, 0.57]: the mean SA score orders the
cases, but not better (difference -0.20 [-0.34, -0.06] and -0.09 [-0.22, 0.04]). The half with the highest mean SA score
gains 0.046 [0.021, 0.068] Dice. Without the 13 (offline) and 8 (online) inert ones of 16 units the Dice falls by 0.690
[0.661, 0.720] and 0.243 [0.221, 0.264].

The recipe of section 4.2 is in `configs/recipes.py` (he2022). The smaller sizes have fewer steps, and therefore a
rate of 1e-3 that does not decay. Not stated in the paper and therefore ours: the size of the images and the widths of
the network; that the checkpoint with the best validation Dice is taken; which checkpoints and which gradient VoG is of;
the noise's distribution; the threshold of inert units.
"""

import ml_collections

from configs import base, recipes


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The study in one of the sizes tiny, demo, cpu, paper."""
    if size not in _SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of {', '.join(_SIZES)}")
    config = _paper()
    config.size = size
    config.update(_SIZES[size])
    return config.lock()


def _paper() -> ml_collections.ConfigDict:
    config = base.run()
    recipes.apply(config, "he2022", all_epochs=True)
    config.data.update(dataset="isic2017/256", source_size=256, image_size=256)
    config.model.features = (64, 128, 256, 512, 1024)
    config.model.upsample = "transpose"
    config.study = "segmentation_ability"
    config.size = "paper"
    config.online_weight = 1.0  # of the mean over all layers of 1 - SA in the loss of the online network

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.noise_levels = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # shares of the gray range
    config.evaluation.coverages = (1.0, 0.9, 0.7, 0.5)  # shares of the test cases that are kept (Table 2)
    config.evaluation.buckets = 10  # of test cases, by their score (Fig. 11)
    config.evaluation.vog_every = 5  # epochs between the checkpoints that the variance of gradients is of
    config.evaluation.inert_below = 0.8  # a unit is inert with an SA score below that share of the output's Dice
    config.evaluation.inert_sweep = (0.5, 0.6, 0.7, 0.8, 0.9)  # further thresholds, with that one
    config.evaluation.examples = 3  # cases whose maps are shown
    config.evaluation.ranked = 6  # cases in the figure of ranked cases
    config.evaluation.rounds = 20  # of timing a forward pass
    config.evaluation.resamples = 2000  # of the bootstrap
    return config


_SCRATCH = {"learning_rate": 1e-3, "schedule": "constant"}
_SIZES: dict[str, dict] = {
    "paper": {},
    "cpu": {
        "data": {"image_size": 128},
        "model": {"features": (16, 32, 64, 128, 128), "upsample": "bilinear"},
        "training": {"epochs": 10, **_SCRATCH},
        "evaluation": {"vog_every": 1},
    },
    "demo": {
        "data": {"dataset": "dermoscopy/demo", "source_size": 128, "image_size": 64},
        "model": {"features": (8, 16, 32, 64, 64), "upsample": "bilinear"},
        "training": {"epochs": 12, "evaluate_every": 2, **_SCRATCH},
        "evaluation": {"vog_every": 2},
    },
    "tiny": {
        "data": {"dataset": "dermoscopy/tiny", "source_size": 64, "image_size": 32},
        "model": {"features": (4, 8, 8), "skips": (True, True), "upsample": "bilinear"},
        "training": {"epochs": 2, **_SCRATCH},
        "evaluation": {"vog_every": 1, "noise_levels": (0.2, 1.0), "buckets": 4, "examples": 2, "ranked": 4}
        | {"rounds": 2, "resamples": 100},
    },
}
