"""Planted shortcuts: how often does the audit find what was planted, and is it silent where nothing was?

    python -m launch.study --config=configs/planted_shortcuts.py:demo --workdir=runs/planted

No paper's study; it judges `launch.audit`. For every kind of cue and every seed, scenes are rendered twice: with a cue
that tells of the object, and, as a twin, with the same cue where it tells nothing. A network is trained on each and
audited on its own test images.

| kind            | planted                                          | twin                                         |
| --------------- | ------------------------------------------------ | -------------------------------------------- |
| `border`        | skin lesions in the middle, zero padding         | the same images moved: lesions lie anywhere  |
| `calipers`      | scans with coloured calipers at the organ's ends | the same calipers anywhere                   |
| `gray_calipers` | white and gray ones                              | the same                                     |
| `text`          | name and measure beside the organ, of any of     | the same text anywhere                       |
|                 | these colours                                    |                                              |
| `scanner`       | scans of training are of one machine, half of    | half of all scans are of the lighter machine |
|                 | the test scans of a lighter one                  |                                              |

Networks of other makes cannot have a shortcut either: a U-Net with circular or valid padding on the lesions in the
middle, which has no border to go by; and a residual U-Net, DTU-Net and nnU-Net on the moved ones, which saw no cue.

Scans are moved, so that organs lie anywhere: left in the middle they would plant the border too. Counted: the planted
kind is among the findings; in any other network, any kind of shortcut is, which is a false alarm. Findings that are no
shortcuts (low Dice, calibration) are listed, and the page lists every miss. A network with a mean Dice of at most
`learned` on its own test images has not learned and is named. One kind alone is `--config.kinds="('text',)"`.

| size | images                                          | networks                                             |
| ---- | ----------------------------------------------- | ---------------------------------------------------- |
| tiny | 32 px, 1 seed, for the tests                    | 4 ... 8 features                                     |
| demo | 48 px, seeds 0 to 19, and 0 to 3 of other makes | 200 of 8 ... 32 features; 20 of other makes          |

What it costs was not measured: the networks were trained and audited in parts, beside other work. What was counted
stands in docs/audit.md. Sizes, epochs and what the probes compare were settled on seed 100; settings that were changed
later are named there.
"""

from typing import Any

import ml_collections

from configs import audit, base
from configs import train as train_config


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The study in one of the sizes tiny, demo."""
    if size not in _SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of {', '.join(_SIZES)}")
    config = base.run()
    config.study = "planted_shortcuts"
    config.size = size
    config.kinds = ("border", "calipers", "gray_calipers", "text", "scanner")
    config.seeds = tuple(range(20))  # of the images, the network and the order of the cases
    config.null_seeds = tuple(range(4))
    config.learned = 0.7  # Dice on its own test images above which a network has learned
    config.data.residence = "device"
    config.model.update(features=(8, 16, 32, 32), skips=(True,) * 3)
    config.training.update(loss="dice_cross_entropy", learning_rate=3e-3, schedule="cosine", evaluate_every=4)

    config.world = {"train": 400, "validation": 32, "test": 96, "epochs": 14}
    config.world.difficulty = 0.6  # of the scans; see jaxseg.data.synthetic.ultrasound
    config.nulls = {name: _null(config, name) for name in ("circular", "valid", "residual_unet", "dtu_net", "nnunet")}

    config.audit = audit.get_config().to_dict()
    config.audit.probes = ("accuracy", "translation", "padding", "overlays", "gray levels", "calibration")
    _SIZES[size](config)
    return config.lock()


def _null(config: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
    """Padding that marks no border, on images that plant it; other networks, on those that plant nothing."""
    if name in ("circular", "valid"):
        model = {field: config.model[field] for field in ("name", "features", "skips", "upsample", "norm")}
        return {"kind": "border", "images": "planted", "model": model | {"padding": name}}
    return {"kind": "border", "images": "twin", "model": train_config.get_config(f"demo,{name}").model.to_dict()}


def _demo(config: ml_collections.ConfigDict) -> None:
    config.data.update(dataset="drawn", source_size=48, image_size=48)
    config.data.augmentation.update(flip_horizontal=0.5, flip_vertical=0.5)


def _tiny(config: ml_collections.ConfigDict) -> None:
    config.seeds = config.null_seeds = (0,)
    config.nulls = {"circular": config.nulls.circular.to_dict()}
    config.data.update(dataset="drawn", source_size=32, image_size=32)
    config.model.update(features=(4, 8), skips=(True,))
    config.nulls.circular.model.update(features=(4, 8), skips=(True,))
    config.world.update(train=16, validation=4, test=8, epochs=1)
    config.training.update(evaluate_every=1)
    config.audit.update(resamples=100)


_SIZES = {"demo": _demo, "tiny": _tiny}
