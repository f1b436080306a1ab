r"""What a trained network has learned that it should not have: at most five findings, and what to do about them.

    python -m launch.audit --run=runs/unet --workdir=runs/audit
    python -m launch.audit --run=runs/unet --dataset=folder/other --workdir=runs/audit
    python -m launch.audit --weights=model.pth --config=theirs.py --dataset=hc18/256 --workdir=runs/audit
    python -m launch.audit --network=mine.py:segment --image_size=256 --dataset=hc18/256 --workdir=runs/audit
    python -m launch.audit --nnunet=nnUNetTrainer__nnUNetPlans__2d --dataset=folder/mine --workdir=runs/audit

A run is audited on the test cases of its own data set, or of another prepared one, which it sees as in training, in
whatever geometry and normalisation. PyTorch weights need the config of a run that says which network they are of and
what it sees; nothing is trained with it. With a recipe of configs/, as configs/train.py:demo, what they were given is
to be said beside it, by `--config.data.geometry`, `--config.data.normalisation` and `--config.data.image_size`: tensors
fit whatever the size. Where their file holds several networks, `--weights=FILE:KEY` chooses. A network of any make is
named by a Python file and a name in it: a network of jaxseg.networks, a function of uint8 images [B,H,W,C], or a
function without arguments that returns one of these, such as networks.from_torch(module, num_classes=2,
image_size=256, normalise=(mean, std)) of a PyTorch module; it is given gray levels, squashed to its size, that of a
function to `--image_size`. A trained nnU-Net is its folder, and is given what its plans say. All settings of the audit
can be changed, as in `--audit.cases=100`; configs/audit.py says where they stand.

`--known_dice=0.88` is what the network is known for on such cases: where it has another Dice on these, it is given
something else than in its training, and nothing is audited.

Objects are shown inside a window and at its border, padding is swapped, calipers are removed and drawn, images get
other scanners' gray levels. Also reported: Dice by ring and domain, profiles over the layers, distances of domains, a
league of scores that predict failure, and calibration. The work directory gets report.html, results.json, tables and
figures; called again, it resumes.
"""

from absl import flags
from ml_collections import config_flags

from launch import cli, networks

_RUN = flags.DEFINE_string("run", None, "Folder of a run, as launch.train leaves it.")
_KNOWN_DICE = flags.DEFINE_float("known_dice", None, "Mean Dice that the network is known for on such cases.")
_AUDIT = config_flags.DEFINE_config_file("audit", "configs/audit.py", help_string="Settings of the audit.")
_DATASET = flags.DEFINE_string("dataset", None, "Data set, like isic2017/256; the run's own if not given.")
_SPLIT = flags.DEFINE_string("split", "test", "Which cases.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the report; an audit in it is resumed.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, if the data set is not prepared yet.")


def main() -> None:
    workdir, settings = cli.path(_WORKDIR), cli.config(_AUDIT)
    source = networks.source(_RUN, _DATASET)
    from jaxseg.audit import page as audit
    from jaxseg.data import builders

    result = audit.run(
        audit.Request(**source, split=_SPLIT.value, known_dice=_KNOWN_DICE.value),
        settings,
        workdir=workdir,
        prepare=lambda name: builders.prepare(name, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value),
        command=cli.command(),
    )
    print(result.page)


if __name__ == "__main__":
    cli.run(main, resumes=True)
