"""One training run: config in, checkpoints and metrics out. Called again, it goes on where it was.

python -m launch.train --config=configs/train.py:demo --workdir=runs/unet
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from launch import cli

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Recipe and size, like configs/train.py:demo.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and metrics; a run in it goes on.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets; the run's own is prepared in it.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, for data sets that need them.")


def main() -> None:
    config, workdir = cli.config(_CONFIG), pathlib.Path(cli.required(_WORKDIR))
    from jaxseg.data import builders
    from jaxseg.training import runs

    runs.check(config)
    directory = builders.prepare(config.data.dataset, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value)
    runs.train(config, runs.Splits(directory, config.data.source_size), workdir)
    print(workdir)


if __name__ == "__main__":
    cli.run(main)
