"""A run's best checkpoint and a prepared data set in, a table per case out; of replicas, that of their ensemble.

python -m launch.evaluate --workdir=runs/unet --split=test
"""

import sys

from absl import flags

from launch import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, as launch.train leaves it.")
_DATASET = flags.DEFINE_string("dataset", None, "Prepared data set, like isic2017/256; the run's own if not given.")
_SPLIT = flags.DEFINE_string("split", "test", "Which cases.")
_VIEW = flags.DEFINE_string("view", None, "original or quadrant; the run's own if not given.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, if the data set is not prepared yet.")


def main() -> None:
    workdir = cli.path(_WORKDIR)
    from jaxseg import atomic, inference
    from jaxseg.data import builders, diagnosis
    from jaxseg.errors import InputError
    from jaxseg.results.text import estimate_text
    from jaxseg.training import contract, runs

    config = runs.read_config(workdir)
    name = _DATASET.value or config.data.dataset
    view = _VIEW.value or config.data.view
    directory = builders.prepare(name, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value)
    own = builders.prepared(config.data.dataset, data_dir=_DATA_DIR.value)
    if known := contract.of_run(config, workdir, lambda name: own):
        contract.check_split(directory, _SPLIT.value, known, workdir)
    else:
        print(f"{workdir}: what it was trained on is not known, so {name} is assumed to match", file=sys.stderr)
    rows, estimates = inference.evaluate_run(config, workdir, directory, split=_SPLIT.value, view=view)
    path = workdir / f"cases_{name.replace('/', '_')}_{_SPLIT.value}_{view}.csv"
    try:
        atomic.write_csv(path, rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); make room there, or copy the run") from error
    if config.replicas > 1:
        print(f"ensemble of {config.replicas}; for one of them give --workdir={workdir}/replica_0")
    for class_name, e in estimates.items():
        counted = f"n = {e.n}, {e.undefined} undefined; bootstrap over patients"
        print(f"Dice of {class_name}: {estimate_text(e.mean, e.low, e.high)} ({counted})")
    for line in diagnosis.untrained(own) if own else ():
        print(f"{config.data.dataset}: {line}")
    print(path)


if __name__ == "__main__":
    cli.run(main)
