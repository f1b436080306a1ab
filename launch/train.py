"""One training run: config in, checkpoints and metrics out. Called again, it resumes.

python -m launch.train --config=configs/train.py:demo --workdir=runs/unet

On many hosts the same command is given on each, with one work directory that all of them see. SLURM, Open MPI and TPU
pods tell which host is which (`launch/slurm`, `launch/tpu`); elsewhere --coordinator, --num_processes and --process_id
do. Asked to stop (SIGTERM), it saves and exits with status 0; when another host is lost, it exits with status 75.
"""

import pathlib
import sys

import ml_collections
from absl import flags
from ml_collections import config_flags

from launch import cli

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Recipe and size, like configs/train.py:demo.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and metrics; a run in it is resumed.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets; the run's own is prepared in it.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, for data sets that need them.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Address and port of process 0, as 10.0.0.1:1234.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of the run, on all hosts.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Ask the cluster for those three; needed on TPU pods alone.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this process, from 0.")


def main() -> None:
    config, workdir = cli.config(_CONFIG), cli.path(_WORKDIR)
    from jaxseg.training import parallel

    parallel.initialize(
        coordinator=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        ask=_DISTRIBUTED.value,
    )
    with parallel.failures_named():
        _train(config, workdir)
    if parallel.is_main():
        print(workdir)


def _train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    from jaxseg.data import builders, diagnosis, inputs
    from jaxseg.training import autoencoders, checks, parallel, runs

    (checks.check_common if "network" in config else checks.check)(config)
    # by one process first, as the folder may be one that all see
    with parallel.main_first("prepare"):
        directory = builders.prepare(config.data.dataset, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value)
    config = runs.resolved(config, directory)
    train = autoencoders.train if "network" in config else runs.train
    train(config, runs.Splits(directory, inputs.of_config(config), config.data.domains), workdir)
    if parallel.is_main():
        for line in diagnosis.untrained(directory):
            print(f"{config.data.dataset}: {line}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, resumes=True)
