"""One network on one data set: a single training run.

    python -m launch.train --config=configs/train.py:demo --workdir=runs/unet
    python -m launch.train --config=configs/train.py:demo,resnet_unet --workdir=runs/resnet
    python -m launch.evaluate --workdir=runs/unet

Sizes (tiny, demo, cpu, paper), data and recipe are those of the border-shortcut study (Lin, Weng et al. 2024); after
the size a network may follow: unet, resnet_unet (Wilm et al. 2024), residual_unet (Lennartz and Schultz 2023),
dtu_net (Lin et al. 2023), nnunet (Isensee et al. 2021) or vit (Dosovitskiy et al. 2021), and after that a recipe of
configs/recipes.py, as in `demo,unet,he2022` or `demo,nnunet,nnunet`. All fields are explained in configs/base.py; any
can be changed on the command line, as in `--config.model.padding=reflect`.

`--config.model.pretrained=imagenet` starts the encoder of resnet_unet from torchvision's weights, and
`--config.model.pretrained=FILE` any network but dtu_net and vit from PyTorch tensors in a .safetensors, .npz or any
file of torch.save; `FILE:KEY` chooses among several networks in one file.

Measured at an earlier state of the code:

| demo,...      | cost on two cores that had other work too | best validation Dice |
| ------------- | ----------------------------------------- | -------------------- |
| unet          | 2 min                                     | 0.85                 |
| resnet_unet   | 13 min                                    | 0.84                 |
| residual_unet | 3 min                                     | 0.79                 |
| dtu_net       | 2 min, without other work                 | 0.78                 |
| vit           | 3 min                                     | 0.75                 |
"""

from typing import Any

import ml_collections

from configs import base, border_shortcut, recipes


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The run in one of the sizes tiny, demo, cpu, paper; a network's name and a recipe may follow after commas."""
    parts = size.split(",")
    if len(parts) > 3:
        raise ValueError(f"unknown size {size!r}; give a size, a network and a recipe, separated by commas")
    size, network, recipe = (*parts, "", "")[:3]
    study = border_shortcut.get_config(size)
    networks = _networks(study.model.to_dict(), study.vit.to_dict())
    network = network or "unet"
    if network not in networks:
        raise ValueError(f"unknown network {network!r}; known are {', '.join(networks)}")
    config = base.run()
    for section in ("data", "model", "training"):
        config[section] = study[section].to_dict()
    common = {name: study.model[name] for name in ("padding", "remat", "dtype")}
    config.model = {"name": network} | common | networks[network]
    config.model.pretrained = ml_collections.config_dict.placeholder(str)  # or imagenet, or a file
    if recipe:
        recipes.apply(config, recipe, all_epochs=size == "paper")
    if network == "dtu_net":
        config.training.loss = "dtu"
        # of patches erased and pixels painted for the triplet's negative; how much further away that must be
        config.training.loss_options.update(fraction=0.2, margin=0.1)
    return config.lock()


def _networks(unet: dict[str, Any], vit: dict[str, Any]) -> dict[str, dict[str, Any]]:
    features = unet["features"]
    return {
        "unet": {name: unet[name] for name in ("features", "skips", "upsample", "norm")},
        "resnet_unet": {"encoder": "resnet18", "skips": (True,) * 4},
        "residual_unet": {"features": (8, 16, 32, 64), "skips": (True,) * 3},
        "dtu_net": {
            "features": (*features[:-1], 2 * features[-2]),  # the paper's widths double at every level
            "topology_features": features[:-1],
            "skips": (True,) * (len(features) - 1),
            "fusion": "fixed",  # or learned
            "fusion_weights": (0.5, 0.5),
        },
        "nnunet": {
            "encoder": "plain",  # or residual
            "features": features,
            # per stage, full resolution first; a tuple in place of a number has one for each axis
            "kernels": (3,) * len(features),
            "strides": (1, *(2,) * (len(features) - 1)),
            "depths": (2,) * len(features),
            "decoder_depths": (2,) * (len(features) - 1),
            "up_bias": True,
            "norm": "instance",  # or batch
            "negative_slope": 0.01,
            "skips": (True,) * (len(features) - 1),
        },
        "vit": {
            **vit,  # patch, width, depth, heads
            "position": "learned",  # sinusoidal, relative or none
            "skips": (),
        },
    }
