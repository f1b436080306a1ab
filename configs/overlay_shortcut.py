"""The overlay shortcut: calipers and text on ultrasound images tell a network where the organ is.

Paper: Lin, Weng et al. 2024, *Shortcut Learning in Medical Image Segmentation*, section 3. The baseline is trained on
annotated images, the mitigated network on the same images from which the marks were removed (found, then filled in by a
network that never saw what is below them). Where the images without marks are known, a third network, the reference, is
trained on those: no removal can do better. Ways of removal are compared with each other.

    python -m launch.study --config=configs/overlay_shortcut.py:demo --workdir=runs/overlays
    python -m launch.study --config=configs/overlay_shortcut.py:cpu --workdir=runs/hc18 --manual_dir=HC18_FOLDER
    python -m launch.study --config=configs/overlay_shortcut.py:paper --workdir=runs/paper --manual_dir=YOUR_FOLDER

| size  | images                                          | network                       | cost on two cores |
| ----- | ----------------------------------------------- | ----------------------------- | ----------------- |
| tiny  | embedded world of scans, 32 px, for the tests   | 4 ... 8 features, 2 levels    | a minute          |
| demo  | embedded world of scans, 64 px, marks at 128 px | 8 ... 64 features, 4 levels   | 5 min 38 s        |
| cpu   | HC18, marks drawn on at 256 px, 128 px          | 16 ... 128 features, 4 levels | 33 min of CPU     |
| paper | a folder of your own with marks in it, 256 px   | DTU-Net, the paper's recipe   | not measured yet  |

Expected, as the paper finds: the Dice falls when marks are removed (by 2 to 6 points there), and a network trained on
cleaned images is steadier while a frame is annotated. Measured on 2026-11-25, one seed, 95 % intervals over patients:

| Dice, all planes                          | demo                 | cpu (HC18)              | HC18, small network     |
| ----------------------------------------- | -------------------- | ----------------------- | ----------------------- |
| does the network segment by the marks?    | yes                  | yes                     | no                      |
| baseline, annotated minus cleaned         | 0.34 [0.28, 0.40]    | 0.06 [0.02, 0.10]       | 0.005 [-0.000, 0.013]   |
| baseline, annotated minus truly clean     | 0.15 [0.11, 0.20]    | 0.05 [0.02, 0.10]       | -0.001 [-0.005, 0.003]  |
| start and end of a clip, baseline         | 0.55 [0.45, 0.65]    | 0.93 [0.89, 0.97]       | 0.98 [0.97, 0.99]       |
| the same, mitigated network               | 0.63 [0.55, 0.71]    | 0.93 [0.91, 0.95]       | 0.98 [0.97, 0.99]       |
| reference, found marks filled: bilinear   | -0.16 [-0.21, -0.12] | -0.002 [-0.007, 0.000]  | -0.005 [-0.011, -0.001] |
| the same: fast marching                   | -0.17 [-0.21, -0.12] | -0.003 [-0.007, 0.000]  | -0.004 [-0.010, -0.001] |
| the same: network                         | -0.18 [-0.23, -0.13] | -0.002 [-0.006, 0.000]  | -0.007 [-0.014, -0.003] |
| the same: noise                           | -0.23 [-0.28, -0.18] | -0.009 [-0.015, -0.003] | -0.007 [-0.014, -0.001] |
| the same: black                           | -0.44 [-0.50, -0.38] | -0.025 [-0.035, -0.017] | -0.023 [-0.033, -0.015] |

In the demo the baseline did not learn the cervix and the mitigated network the femur, which the means contain. The
last column is `cpu` with `data.image_size=64`, `model.features=(8,16,32,64,64)`, `training.epochs=20`,
`evaluate_every=2` and `removal.steps=400`, `batch_size=8`, `features=(8,16,32)`, `learning_rate=4e-3`: 5 min.

The paper's 3,775 images and 110 videos are private. `paper` keeps its recipe and reads a folder data set
(`cases.csv`, planes as classes; see `jaxseg.data.builders.folder`) whose images have marks burnt in. Where marks are
and what is below them is then unknown, so the comparison of removals and the changed marks are left out.

Not stated in the paper and therefore ours: the loss of the smaller sizes (Dice and cross-entropy), the size of images,
and all settings of the network that inpaints.
"""

import ml_collections

from configs import base, recipes


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The study in one of the sizes tiny, demo, cpu, paper."""
    if size not in _SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of {', '.join(_SIZES)}")
    config = base.run()
    config.study = "overlay_shortcut"
    config.size = size
    config.training.update(loss="dice_cross_entropy")

    config.overlays = ml_collections.ConfigDict()
    # world: the data set has every scan as domains annotated and clean. drawn: images are clean, heads get marks.
    # burnt_in: images have marks, and nobody knows what is below them.
    config.overlays.source = "world"

    config.removal = ml_collections.ConfigDict()
    config.removal.method = "network"  # that makes the images of the mitigated network; see jaxseg.data.overlays
    config.removal.gray_share = 0.8  # of an image without colour, so that what has colour counts as marks
    config.removal.margin = 1  # pixels by which marks that were found are widened
    config.removal.steps = 2000  # of the network that inpaints, and its batch, crops, widths and learning rate
    config.removal.batch_size = 16
    config.removal.crop = 64
    config.removal.features = (16, 32, 64)
    config.removal.learning_rate = 2e-3

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.clips = 80  # clips of the embedded world; from data sets, every test case is one
    config.evaluation.clip_frames = 7
    config.evaluation.clip_seed = 110  # another than that of the data set's scans, so none was trained on
    config.evaluation.saliency_layer = "bottleneck/conv_1"  # the last of the encoder
    config.evaluation.examples = 4  # images in the figures of examples
    config.evaluation.resamples = 5000  # of the bootstrap
    _SIZES[size](config)
    return config.lock()


def _paper(config: ml_collections.ConfigDict) -> None:
    recipes.apply(config, "lin2024_ultrasound", all_epochs=True)
    config.data.update(dataset="folder/ultrasound", source_size=512, image_size=256)
    config.overlays.source = "burnt_in"
    config.model = {
        "name": "dtu_net",
        "features": (64, 128, 256, 512, 1024),
        "topology_features": (64, 128, 256, 512),
        "skips": (True,) * 4,
        "fusion": "fixed",
        "fusion_weights": (0.5, 0.5),
        **{name: config.model[name] for name in ("padding", "remat", "dtype")},
    }
    config.model.pretrained = ml_collections.config_dict.placeholder(str)
    config.training.loss = "dtu"
    config.training.loss_options.update(fraction=0.2, margin=0.1)
    config.removal.steps = 20_000
    config.evaluation.saliency_layer = "texture_encoder/level_4/conv_1"


def _cpu(config: ml_collections.ConfigDict) -> None:
    config.data.update(dataset="hc18/256", source_size=256, image_size=128)
    config.overlays.source = "drawn"
    config.model.features = (16, 32, 64, 128, 128)
    config.training.epochs = 25
    config.removal.steps = 1500


def _demo(config: ml_collections.ConfigDict) -> None:
    config.data.update(dataset="ultrasound/demo", source_size=128, image_size=64)
    config.model.features = (8, 16, 32, 64, 64)
    config.training.update(epochs=28, evaluate_every=2, learning_rate=3e-3, schedule="cosine")
    config.removal.update(steps=600, batch_size=8, features=(8, 16, 32), learning_rate=4e-3)


def _tiny(config: ml_collections.ConfigDict) -> None:
    config.data.update(dataset="ultrasound/tiny", source_size=64, image_size=32)
    config.model.update(features=(4, 8, 8), skips=(True, True))
    config.training.update(epochs=2)
    config.removal.update(steps=10, batch_size=4, crop=32, features=(4, 8))
    config.evaluation.update(clips=8, clip_frames=4, resamples=200, examples=2)


_SIZES = {"paper": _paper, "cpu": _cpu, "demo": _demo, "tiny": _tiny}
