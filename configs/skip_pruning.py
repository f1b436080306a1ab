"""Skip connections removed from the top: does a U-Net with less of its shallow layers withstand a domain shift better?

Paper: Wilm et al. 2024, *Rethinking U-net Skip Connections for Biomedical Image Segmentation*. The baseline has all
four skips, `Ln` lacks the top n. Each is trained on every fold of a cross-validation and tested on the held-out test
set: as it is, with its brightness, contrast and saturation changed, and, where the data have several domains, on those
it was not trained on. How far a layer's activations move is their Hellinger distance.

    python -m launch.study --config=configs/skip_pruning.py:demo --workdir=runs/skips
    python -m launch.study --config=configs/skip_pruning.py:cpu --workdir=runs/smear --manual_dir=SMEAR_FOLDER
    python -m launch.study --config=configs/skip_pruning.py:cpu,wbc --workdir=runs/wbc --manual_dir=WBC_FOLDER
    python -m launch.study --config=configs/skip_pruning.py:paper --workdir=runs/paper --manual_dir=BBBC041_FOLDER

| size       | images                                        | networks           | folds, epochs | cost          |
| ---------- | --------------------------------------------- | ------------------ | ------------- | ------------- |
| tiny       | synthetic smears, 32 px, for the tests        | unet 4 ... 8       | 2, 1          | 90 s of CPU   |
| demo       | synthetic smears, 64 px                       | unet 8 ... 64      | 2, 16         | 5 min         |
| cpu        | smears of real templates, 128 px              | resnet18           | 2, 12         | 47 min of CPU |
| cpu,wbc    | white blood cells of two laboratories, 96 px  | resnet18, L1, L4   | 2, 12         | 11 min of CPU |
| cpu,lgg    | brain tumours of five hospitals, 128 px       | resnet18, L1, L4   | 2, 8          | 18 min of CPU |
| paper      | smears of real templates, 512 px              | resnet18, resnet34 | 5, 50         | not measured  |
| paper,cct  | canine skin tumours on five scanners, 512 px  | both, L1, L4       | 5, 50         | not measured  |
| paper,mnms | hearts by four vendors, 256 px                | both, L1, L4       | 5, 50         | not measured  |

Expected, as the paper finds: L1 is at least as good as the baseline in-domain and better under shift, more pruning
hurts, the first layers move most.

Measured with `demo` on 2026-11-25 (two CPU cores; twice, with the same results; one seed, two folds, 60 test images;
95 % intervals over them): IoU of the set in-domain 0.81 [0.80, 0.81] for the baseline, then 0.80, 0.68, 0.37 and 0.19
for L1 to L4. L1 minus baseline is -0.010 [-0.013, -0.008] in-domain (unclear at a margin of 0.01) and -0.065 [-0.067,
-0.063] over the shifts: the paper's main claim does not hold there. More pruning hurts, and the first layer moves more
than those after it (Hellinger distance 0.55 to 0.20 at the bottleneck); the decoder does not move less without the
top skip (by -0.063 [-0.078, -0.048]). Those networks are small, start from random weights and are trained for 240
steps, too few for L3 and L4.

Measured with `cpu,wbc` on 2026-11-25 (two CPU cores, other work beside; one seed, two folds; 60 and 100 test images):
IoU of the set in the laboratory of the training 0.88 for the baseline, 0.85 and 0.61 for L1 and L4; in the other one
0.50, 0.53 and 0.39. L1 minus baseline is -0.022 [-0.030, -0.014] in-domain and 0.034 [0.023, 0.045] in the other
laboratory, but in the two folds -0.077 and 0.145: both claims are unclear. Without all skips it is worse by 0.193
[0.180, 0.207] than without the top one; the first layer moves more than the others, by 0.115 [0.097, 0.132].

Measured with `cpu` on 2026-11-26 (one CPU core; cells of five real smears; one seed, two folds, 60 test images):
IoU of the set in-domain 0.93 for the baseline, then 0.88, 0.81, 0.53 and 0.28 for L1 to L4. L1 minus baseline is -0.055
[-0.057, -0.053] in-domain and -0.077 [-0.079, -0.075] over the shifts, in both folds: neither claim holds. Without all
skips it is worse by 0.434 [0.426, 0.442] than without the top one; the first layer moves more than the others, by 0.393
[0.386, 0.399] at brightness 0.75.

Measured with `cpu,lgg` on 2026-11-25 (one CPU core; one seed, two folds; trained in hospital DU, 49 test images of 7
patients there and 302 of 54 elsewhere): IoU of the set in-domain 0.68 for the baseline, 0.53 and 0.40 for L1 and L4. L1
minus baseline is -0.151 [-0.193, -0.073] in-domain, in both folds: the claim does not hold; over three other hospitals
it is 0.021 [-0.036, 0.052], unclear. Without all skips it is 0.005 [-0.024, 0.041] worse than without the top one over
all conditions, unclear. The first layer moves more than the others to one of three hospitals (0.054 [0.011, 0.096]), to
two that is unclear (-0.011 and -0.039).

The recipe of section IV.C is in `configs/recipes.py` (wilm2024); `paper` starts from ImageNet as the paper does.
The smaller sizes start from random weights, and therefore with a rate of 1e-3 that does not decay. `demo` trains a
narrow `unet` in place of a ResNet, which would take an hour: its top skip is at full resolution, the ResNet's at half.
"""

import ml_collections

from configs import base, recipes

_FACTORS = (0.5, 0.75, 1.25, 1.5, 1.75)


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The study in the size tiny, demo, cpu or paper; of domains: `cpu,wbc`, `cpu,lgg`, `paper,cct`, `paper,mnms`."""
    if size not in _SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of {', '.join(_SIZES)}")
    config = _paper()
    config.size = size
    name, _, variant = size.partition(",")
    if name in _UNETS:
        config.model = _UNETS[name]  # in place of, as another network has other fields
    config.update(_SIZES[name])
    if variant:
        config.shifts = ml_collections.ConfigDict()  # the domains are the shift
        config.pruned = (0, 1, 4)  # as in Fig. 9
        config.update(_SIZES[size])
    config.replicas = config.data.folds
    return config.lock()


def _paper() -> ml_collections.ConfigDict:
    config = base.run()
    recipes.apply(config, "wilm2024", all_epochs=True)
    config.vary = "fold"
    config.data.update(dataset="smear/paper-cut", source_size=512, image_size=512)
    config.model = _COMMON | {"name": "resnet_unet", "encoder": "resnet18", "skips": (True,) * 4}
    config.model.pretrained = ml_collections.config_dict.placeholder(str)
    config.model.pretrained = "imagenet"

    config.study = "skip_pruning"
    config.size = "paper"
    config.encoders = ("resnet18", "resnet34")  # each is a network of its own; none: config.model as it stands
    config.pruned = (0, 1, 2, 3, 4)  # how many of the top skips are removed; 0 is the baseline
    config.shifts = {"brightness": _FACTORS, "contrast": _FACTORS, "saturation": (0.0, 0.25, 0.5, 0.75)}

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.classes = ()  # whose IoU is averaged; none means all but the background
    config.evaluation.distance_shift = "brightness"  # for the Hellinger distance; of domains, each one is taken
    config.evaluation.distance_strength = 0.75
    config.evaluation.bins = 100  # of the histograms
    config.evaluation.halvings = 100  # random splits of the test set in two, for the distance without a shift
    config.evaluation.distance_resamples = 200  # of the bootstrap of distances
    config.evaluation.resamples = 2000  # of the bootstrap of IoU
    return config


_COMMON = {"padding": "zero", "remat": False, "dtype": "float32"}
_UNETS = {
    size: _COMMON
    | {"name": "unet", "features": features, "skips": (True,) * (len(features) - 1)}
    | {"upsample": "bilinear", "norm": "batch", "pretrained": ml_collections.config_dict.placeholder(str)}
    for size, features in {"demo": (8, 16, 32, 64, 64), "tiny": (4, 8, 8)}.items()
}
_SCRATCH = {"learning_rate": 1e-3, "schedule": "constant"}
_SIZES: dict[str, dict] = {
    "paper": {},
    "paper,cct": {
        "data": {"dataset": "ms_cct/512", "domains": ("cs2",)},
        "evaluation": {"classes": ("tumor",)},
    },
    "paper,mnms": {
        "data": {"dataset": "mnms/slices", "domains": ("Siemens 1",), "source_size": 256, "image_size": 256},
    },
    "cpu": {
        "data": {"dataset": "smear/demo-cut", "source_size": 128, "image_size": 128, "folds": 2},
        "encoders": ("resnet18",),
        "model": {"pretrained": None},
        "training": {"epochs": 12, "evaluate_every": 2, **_SCRATCH},
    },
    "cpu,wbc": {
        "data": {"dataset": "folder/wbc", "domains": ("lab1",), "source_size": 120, "image_size": 96},
    },
    "cpu,lgg": {
        "data": {"dataset": "folder/lgg", "domains": ("DU",)},
        "training": {"epochs": 8},
    },
    "demo": {
        "data": {"dataset": "smear/demo", "source_size": 128, "image_size": 64, "folds": 2},
        "encoders": (),
        "training": {"epochs": 16, "evaluate_every": 4, **_SCRATCH},
    },
    "tiny": {
        "data": {"dataset": "smear/tiny", "source_size": 64, "image_size": 32, "folds": 2},
        "encoders": (),
        "pruned": (0, 1),
        "shifts": {"brightness": (0.5, 0.75), "contrast": (1.5,), "saturation": (0.0,)},
        "training": {"epochs": 1, **_SCRATCH},
        "evaluation": {"halvings": 10, "distance_resamples": 20, "resamples": 100},
    },
}
