r"""What a trained network has learned that it should not have: at most five findings, and what to do about them.

    python -m launch.audit --run=runs/unet --workdir=runs/audit
    python -m launch.audit --run=runs/unet --dataset=folder/other --workdir=runs/audit
    python -m launch.audit --weights=model.pth --config=configs/train.py:demo --dataset=hc18/256 --workdir=runs/audit

A run is audited on the test cases of its own data set, or of another prepared one, which it sees as in training, in
whatever geometry and normalisation. PyTorch weights need the config of a run that says which network they are of and
what it sees; nothing is trained with it. Where their file holds several networks, `--weights=FILE:KEY` chooses. All
settings of the audit are in configs/audit.py and can be changed, as in `--audit.cases=100`.

Objects are shown inside a window and at its border, padding is swapped, calipers are removed and drawn, images get
other scanners' gray levels. Also reported: Dice by ring and domain, profiles over the layers, distances of domains, a
league of scores that predict failure, and calibration. The work directory gets report.html, results.json, tables and
figures; called again, it resumes.
"""

from absl import flags
from ml_collections import config_flags

from launch import cli

_RUN = flags.DEFINE_string("run", None, "Folder of a run, as launch.train leaves it.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File with PyTorch tensors, or FILE:KEY; with --config.")
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

    if (_RUN.value is None) == (_WEIGHTS.value is None):
        raise InputError("give one of --run and --weights (see --help)")
    if _WEIGHTS.value is not None and _DATASET.value is None:
        raise InputError("--dataset is missing; weights do not say what they were trained on")
    if _RUN.value is not None and _CONFIG.value is not None:
        raise InputError("--config belongs to --weights; a run has its own")
    page = audit.run(
        audit.Request(
            run=cli.path(_RUN) if _RUN.value is not None else None,
            weights=cli.path(_WEIGHTS) if _WEIGHTS.value is not None else None,
            config=cli.config(_CONFIG) if _WEIGHTS.value is not None else None,
            dataset=_DATASET.value,
            split=_SPLIT.value,
        ),
        settings,
        workdir=workdir,
        prepare=lambda name: builders.prepare(name, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value),
        command=cli.command(),
    )
    print(page)


if __name__ == "__main__":
    cli.run(main, resumes=True)
