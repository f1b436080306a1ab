"""Segmentation distortion: does what an autoencoder changes tell where a segmentation is wrong under domain shift?

Paper: Lennartz and Schultz 2023, *Segmentation Distortion*. Several networks are trained on one domain, and for each an
autoencoder of its bottleneck's activations; scores of uncertainty are compared with the Dice on other domains.

    python -m launch.study --config=configs/distortion.py:demo --workdir=runs/demo
    python -m launch.study --config=configs/distortion.py:cpu --workdir=runs/ge --manual_dir=ACDC \
        --config.shifted.manual_dir=GE_FOLDER
    python -m launch.study --config=configs/distortion.py:cpu,lgg --workdir=runs/lgg --manual_dir=LGG_FOLDER
    python -m launch.study --config=configs/distortion.py:paper --workdir=runs/brain --manual_dir=CC359
    python -m launch.study --config=configs/distortion.py:paper,mnms --workdir=runs/heart --manual_dir=ACDC \
        --config.shifted.manual_dir=MNMS

| size       | trained on                    | tested on                       | networks | cost                      |
| ---------- | ----------------------------- | ------------------------------- | -------- | ------------------------- |
| tiny       | synthetic hearts, A, 32 px    | vendors A to D                  | 2        | for the tests             |
| demo       | synthetic hearts, A, 64 px    | vendors A to D, the same hearts | 3        | 5 min 20 s on two cores   |
| cpu        | ACDC, 128 px                  | a folder of GE slices           | 3        | 77 min of one core        |
| cpu,lgg    | one site of LGG, 128 px       | the other sites                 | 3        | 54 min on 1 to 2 cores    |
| paper      | CC-359, Siemens 3 T, 256 px   | the five other scanners         | 10       | accelerator; not measured |
| paper,mnms | ACDC, 256 px                  | M&Ms, by vendor                 | 10       | accelerator; not measured |

Expected, as the paper finds: distortion (SD) correlates with 1 - Dice more closely than pooled Mahalanobis distance
(PM) and entropy, and detects other scanners less well than PM.

Measured with `demo` (2026-11-25, two CPU cores; twice, with the same results): Dice 0.80 on the training vendor's test
hearts, and 0.67, 0.60 and 0.54 on the others. By slice, mean of the three, the rank correlation with 1 - Dice is 0.16
[0.05, 0.26] for SD, 0.14 [-0.04, 0.28] for PM, 0.10 [-0.02, 0.23] for LM, 0.72 [0.64, 0.80] for entropy and 0.75 [0.68,
0.83] for that of the ensemble, -0.40 [-0.52, -0.30] for VoG: whether SD is above PM is unclear, above entropy it is
not. By subject (16 hearts) it is 0.39 [0.19, 0.56], 0.24 [-0.07, 0.47], 0.04 [-0.14, 0.23], 0.36 [0.04, 0.61] and 0.40
[0.04, 0.70]. SD flags 0.40 [0.32, 0.49] of the shifted slices, PM 0.43 [0.31, 0.54]. The networks see 320
slices 8 times and have not converged.

Measured with `cpu` (2026-11-25, one CPU core; before VoG was among the scores; half of ACDC, all of its scanners, and
96 slices of 5 patients of a GE scanner, in two domains by what is annotated): Dice 0.68 [0.65, 0.71] on ACDC's test
slices, 0.81 and 0.64 on the GE slices, where only the left ventricle, or that and the myocardium, are scored. By slice
the rank correlation with 1 - Dice is 0.27 [-0.06, 0.54] for SD, 0.05 [-0.32, 0.35] for PM, 0.03 [-0.27, 0.36] for LM,
0.38 [0.18, 0.54] for entropy and 0.58 [0.03, 0.75] for that of the ensemble: whether SD is above PM is unclear (0.22
[-0.18, 0.57]), above the entropy of the ensemble it is not. Of the GE slices SD flags 0.02 [0.01, 0.04], PM 0.11 [0.02,
0.26]. Five patients decide little.

Measured with `cpu,lgg` (2026-11-26, one to two CPU cores; trained in hospital DU, 299 slices of 53 patients of three
others): Dice 0.78 [0.69, 0.84] at home, 0.58 [0.49, 0.65] elsewhere. By slice the rank correlation with 1 - Dice is
0.58 [0.41, 0.67] for SD, -0.24 [-0.43, -0.05] for PM, 0.02 [-0.18, 0.19] for LM, 0.60 [0.47, 0.71] for entropy, 0.63
[0.39, 0.79] for that of the ensemble, 0.25 [0.09, 0.43] for the mean SA score and 0.23 [0.09, 0.33] for VoG: SD is
above PM (by 0.82 [0.62, 0.97], by subject 0.70 [0.42, 0.91]), against the entropies it is unclear. SD flags 0.18 [0.12,
0.25] of the slices, PM 0.24 [0.16, 0.32].

The paper's recipe: Adam with 1e-3, ten networks, ensembles of five, an autoencoder per network with a latent of 64
(brain) or 128 (heart), no augmentation for the brain. For the heart it takes nnU-Net's augmentations, as `paper,mnms`
does (recipe `nnunet`); `cpu` has turns, scale and flips alone. Its text does not say which loss, how many epochs, and
which scanner of CC-359 is trained on: these are ours. It speaks of images; the code that belongs to it scores subjects,
as the size `paper` does; where there are a handful of subjects, `unit` is the slice.
"""

import ml_collections

from configs import base, recipes


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The study in one of the sizes tiny, demo, cpu, paper, or `cpu,lgg`, `paper,mnms`."""
    name, _, variant = size.partition(",")
    if size not in _SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of {'; '.join(_SIZES)}")
    config = _paper()
    config.size = size
    for part in (name, size) if variant else (name,):
        config.update(_SIZES[part])
    _match_autoencoder(config)
    return config.lock()


def _paper() -> ml_collections.ConfigDict:
    config = base.run()
    config.study = "distortion"
    config.size = "paper"
    config.replicas = 10
    config.data.update(dataset="cc359/slices", domains=("Siemens 3 T",), source_size=256, image_size=256)
    config.model = {
        "name": "residual_unet",
        "features": (8, 16, 32, 64),
        "skips": (True, True, True),
        "padding": "zero",
        "remat": False,
        "dtype": "float32",
    }
    config.model.pretrained = ml_collections.config_dict.placeholder(str)
    recipes.apply(config, "lennartz2023", all_epochs=True)

    config.shifted = ml_collections.ConfigDict()
    config.shifted.dataset = ""  # whose cases are shifted; empty: the training data set's own, of its other domains
    config.shifted.manual_dir = ""  # of its raw files, as --manual_dir is of the training data set's
    config.shifted.splits = ("train", "validation", "test")  # nothing of it is trained on
    config.shifted.domains = ()  # none means all
    config.shifted.domain_words = 0  # words of a domain's name that count, as 1 of "Siemens 3"; 0 means all
    config.shifted.classes = "name"  # how its classes become the network's: by name, or by order

    config.layer = "down_3"  # the bottleneck, whose activations the autoencoder is of
    config.autoencoder = {"kind": "plain", "latent": 64, "width": 64, "noise": 0.1}
    config.autoencoder_training = config.training.to_dict()
    config.autoencoder_training.update(loss="reconstruction", loss_options={}, selection="loss")

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.unit = "subject"  # on which the verdict is given; or slice. Tables have both
    config.evaluation.ensemble_size = 5  # networks of an ensemble
    config.evaluation.ability_layers = ("up_0", "head/block")  # of the mean SA score: the last two
    config.evaluation.vog_every = 5  # epochs between the checkpoints that the variance of gradients is of
    config.evaluation.keep = 0.95  # share of in-domain validation below the threshold of detection
    config.evaluation.least_patients = 3  # a domain of fewer has no interval and no say in the verdict
    config.evaluation.resamples = 1000  # of the bootstrap
    return config


def _match_autoencoder(config: ml_collections.ConfigDict) -> None:
    """What the autoencoder's training takes from that of the networks."""
    for name in ("batch_size", "evaluate_every"):
        config.autoencoder_training[name] = config.training[name]


_HEART = recipes.AUGMENTATIONS["nnunet"]
_SMALL = {"replicas": 3, "evaluation": {"unit": "slice", "ensemble_size": 3, "vog_every": 2}}

_SIZES = {
    "paper": {},
    "paper,mnms": {
        "data": {"dataset": "acdc/slices", "domains": (), "augmentation": _HEART},
        "shifted": {"dataset": "mnms/slices", "domain_words": 1},
        "autoencoder": {"latent": 128},
    },
    "cpu": {
        **_SMALL,
        "data": {
            "dataset": "acdc/slices",
            "domains": (),
            "source_size": 128,
            "image_size": 128,
            "augmentation": {"flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate": 45.0, "scale": (0.8, 1.2)},
        },
        "shifted": {"dataset": "folder/sunnybrook_ge", "classes": "order"},
        "autoencoder": {"latent": 128, "width": 32},
        "training": {"batch_size": 8, "epochs": 12, "evaluate_every": 2},
        "autoencoder_training": {"epochs": 8},
    },
    "cpu,lgg": {
        "data": {"dataset": "folder/lgg", "domains": ("DU",)},
        "shifted": {"dataset": "", "classes": "name"},
        "training": {"epochs": 60, "evaluate_every": 3},
        "evaluation": {"vog_every": 6},
        "autoencoder_training": {"epochs": 40},
    },
    "demo": {
        **_SMALL,
        "data": {"dataset": "cardiac/demo", "domains": ("A",), "source_size": 64, "image_size": 64},
        "shifted": {"splits": ("test",)},
        "autoencoder": {"latent": 32, "width": 16},
        "training": {"batch_size": 8, "epochs": 8, "evaluate_every": 2},
        "autoencoder_training": {"epochs": 8},
    },
    "tiny": {
        "replicas": 2,
        "data": {"dataset": "cardiac/tiny", "domains": ("A",), "source_size": 32, "image_size": 32},
        "shifted": {"splits": ("test",)},
        "model": {"name": "unet", "features": (4, 8), "skips": (True,), "upsample": "bilinear", "norm": "batch"},
        "layer": "bottleneck",
        "autoencoder": {"latent": 4, "width": 4},
        "training": {"epochs": 2},
        "autoencoder_training": {"epochs": 2},
        "evaluation": {"unit": "slice", "ensemble_size": 2, "vog_every": 1, "resamples": 100}
        | {"ability_layers": ("decoder_0/conv_0", "decoder_0/conv_1")},
    },
}
