"""One U-Net on one data set: a single training run.

    python -m launch.train --config=configs/unet.py:demo --workdir=runs/unet
    python -m launch.evaluate --workdir=runs/unet

Sizes and recipe are those of the border-shortcut study (Lin, Weng et al. 2024); the cost is half of the study's. Every
field can be changed on the command line, as in `--config.model.padding=reflect --config.data.view=quadrant`.
"""

import ml_collections

from configs import border_shortcut


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The run in one of the sizes tiny, demo, cpu, paper."""
    if "," in size:
        raise ValueError(f"unknown size {size!r}; a run has one padding mode, set by --config.model.padding")
    study = border_shortcut.get_config(size)
    config = ml_collections.ConfigDict({"seed": study.seed})
    for section in ("data", "model", "training"):
        config[section] = study[section].to_dict()
    config.model.padding = "zero"
    config.data.view = "original"  # or quadrant, drawn anew each time
    return config.lock()
