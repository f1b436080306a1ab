r"""What a trained network has learned that it should not have: at most five findings, and what to do about them.

    python -m launch.audit --run=runs/unet --workdir=runs/audit
    python -m launch.audit --run=runs/unet --dataset=folder/other --workdir=runs/audit
    python -m launch.audit --weights=model.pth --config=configs/train.py:demo --dataset=hc18/256 --workdir=runs/audit
    python -m launch.audit --network=mine.py:segment --image_size=256 --dataset=hc18/256 --workdir=runs/audit
    python -m launch.audit --nnunet=nnUNetTrainer__nnUNetPlans__2d --dataset=folder/mine --workdir=runs/audit

A run is audited on the test cases of its own data set, or of another prepared one, which it sees as in training, in
whatever geometry and normalisation. PyTorch weights need the config of a run that says which network they are of and
what it sees; nothing is trained with it. Where their file holds several networks, `--weights=FILE:KEY` chooses. A
network of any make is named by a Python file and a name in it: a network of jaxseg.networks, a PyTorch module, a
function of uint8 images [B,H,W,C], or a function without arguments that returns one of these; it is given gray levels,
squashed to `--image_size`. A trained nnU-Net is its folder, and is given what its plans say. All settings of the audit
can be changed, as in `--audit.cases=100`; configs/audit.py says where they stand.

`--known_dice=0.88` is what the network is known for on such cases: where it has another Dice on these, it is given
something else than in its training, and nothing is audited.

Objects are shown inside a window and at its border, padding is swapped, calipers are removed and drawn, images get
other scanners' gray levels. Also reported: Dice by ring and domain, profiles over the layers, distances of domains, a
league of scores that predict failure, and calibration. The work directory gets report.html, results.json, tables and
figures; called again, it resumes.
"""

from typing import Any

from absl import flags
from ml_collections import config_flags

from launch import cli

_RUN = flags.DEFINE_string("run", None, "Folder of a run, as launch.train leaves it.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File with PyTorch tensors, or FILE:KEY; with --config.")
_NETWORK = flags.DEFINE_string("network", None, "FILE.py:NAME, a network, a PyTorch module or a function in the file.")
_IMAGE_SIZE = flags.DEFINE_list(
    "image_size", None, "Of --network, unless it has its own: one number, or height,width, or depth,height,width."
)
_NNUNET = flags.DEFINE_string("nnunet", None, "Folder of a trained nnU-Net 2, with plans.json.")
_FOLD = flags.DEFINE_string("fold", "0", "Of --nnunet: its number, or all.")
_KNOWN_DICE = flags.DEFINE_float("known_dice", None, "Mean Dice that the network is known for on such cases.")
_CONFIG = config_flags.DEFINE_config_file("config", help_string="Of a run, for --weights: configs/train.py:demo.")
_AUDIT = config_flags.DEFINE_config_file("audit", "configs/audit.py", help_string="Settings of the audit.")
_DATASET = flags.DEFINE_string("dataset", None, "Data set, like isic2017/256; the run's own if not given.")
_SPLIT = flags.DEFINE_string("split", "test", "Which cases.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the report; an audit in it is resumed.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, if the data set is not prepared yet.")


def main() -> None:
    workdir, settings = cli.path(_WORKDIR), cli.config(_AUDIT)
    from jaxseg.audit import page as audit
    from jaxseg.data import builders
    from jaxseg.errors import InputError

    networks = (_RUN, _WEIGHTS, _NETWORK, _NNUNET)
    given, *others = [flag for flag in networks if flag.value is not None] or networks
    if others:
        raise InputError(f"give one of {', '.join(f'--{flag.name}' for flag in networks)} (see --help)")
    if given is not _RUN and _DATASET.value is None:
        raise InputError(f"--dataset is missing; --{given.name} does not say what it was trained on")
    for flag, owner in ((_CONFIG, _WEIGHTS), (_IMAGE_SIZE, _NETWORK), (_FOLD, _NNUNET)):
        if flag.present and given is not owner:
            raise InputError(f"--{flag.name} belongs to --{owner.name}, not to --{given.name}")
    if given is _WEIGHTS and _CONFIG.value is None:
        raise InputError("--config is missing; it says which network the weights are of, and what it sees")
    result = audit.run(
        audit.Request(
            run=cli.path(_RUN) if _RUN.value is not None else None,
            weights=cli.path(_WEIGHTS) if _WEIGHTS.value is not None else None,
            config=cli.config(_CONFIG) if _WEIGHTS.value is not None else None,
            dataset=_DATASET.value,
            split=_SPLIT.value,
            network=_maker(),
            name=str(_NETWORK.value or _NNUNET.value),
            known_dice=_KNOWN_DICE.value,
        ),
        settings,
        workdir=workdir,
        prepare=lambda name: builders.prepare(name, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value),
        command=cli.command(),
    )
    print(result.page)


def _maker() -> Any:
    """What makes the network for the cases of a split, where a file or a folder has it."""
    from jaxseg.errors import InputError
    from jaxseg.networks import files, from_nnunet

    if _NNUNET.value is not None:
        return lambda split: from_nnunet(_NNUNET.value, fold=_FOLD.value)
    if _NETWORK.value is None:
        return None
    given = _IMAGE_SIZE.value or []
    try:
        sizes = [int(size) for size in given]
    except ValueError as error:
        raise InputError(f"--image_size is {','.join(given)}; give whole numbers") from error
    size = sizes[0] if len(sizes) == 1 else sizes or None
    return lambda split: files.from_file(
        _NETWORK.value, num_classes=split.num_classes, channels=split.num_channels, image_size=size
    )


if __name__ == "__main__":
    cli.run(main, resumes=True)
