"""A trained network and a prepared data set in, a table per case out; of replicas, that of their ensemble.

    python -m launch.evaluate --workdir=runs/unet --split=test
    python -m launch.evaluate --network=mine.py:segment --image_size=256 --dataset=hc18/256 --workdir=runs/mine
    python -m launch.evaluate --nnunet=nnUNetTrainer__nnUNetPlans__2d --dataset=folder/mine --workdir=runs/theirs
    python -m launch.evaluate --weights=model.pth --config=theirs.py --dataset=hc18/256 --workdir=runs/theirs

The network is the best checkpoint of the run in `--workdir`, or named as for launch.audit; then `--workdir` is where
the table goes. `--known_dice=0.88` is what the network is known for on such cases: where it has another Dice on these,
it is given something else than in its training, and nothing is written.
"""

from absl import flags

from launch import cli, networks

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, as launch.train leaves it; else, for the table.")
_DATASET = flags.DEFINE_string("dataset", None, "Prepared data set, like isic2017/256; the run's own if not given.")
_SPLIT = flags.DEFINE_string("split", "test", "Which cases.")
_VIEW = flags.DEFINE_string("view", None, "original or quadrant; the run's own if not given.")
_KNOWN_DICE = flags.DEFINE_float("known_dice", None, "Mean Dice that the network is known for on such cases.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, if the data set is not prepared yet.")


def main() -> None:
    workdir, source = cli.path(_WORKDIR), networks.source(_WORKDIR, _DATASET, is_place=True)
    from jaxseg import atomic, inference
    from jaxseg.audit import right_input
    from jaxseg.data import builders, diagnosis
    from jaxseg.errors import InputError
    from jaxseg.paths import exists
    from jaxseg.results.text import estimate_text
    from jaxseg.training import contract
    from jaxseg.training.trained import Source

    asked, split = Source(**source), _SPLIT.value
    if asked.run is None and exists(workdir / "config.json"):
        raise InputError(f"--workdir={workdir}: is that of a run or an audit; name another folder for the table")
    name = asked.own_dataset
    directory = builders.prepare(name, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value)
    prepared = lambda name: builders.prepared(name, data_dir=_DATA_DIR.value)
    trained = asked.load(prepared, where=(directory, split))
    contract.check_split(directory, split, trained.trained_on, trained.name)
    view = _VIEW.value or (trained.config.data.view if trained.config else "original")
    rows, estimates = inference.evaluate(trained, directory, split=split, view=view)
    if _KNOWN_DICE.value is not None:
        dice = right_input.mean_dice([[row[f"dice_{of}"] for of in trained.trained_on.class_names[1:]] for row in rows])
        right_input.check(trained.name, f"{len(rows)} cases of {name}", dice, _KNOWN_DICE.value)
    path = workdir / f"cases_{name.replace('/', '_')}_{split}_{view}.csv"
    try:
        atomic.write_csv(path, rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); make room there, or copy the run") from error
    if len(trained.members) > 1:
        print(f"ensemble of {len(trained.members)}; for one of them give --workdir={workdir}/replica_0")
    for class_name, e in estimates.items():
        counted = f"n = {e.n}, {e.undefined} undefined; bootstrap over patients"
        print(f"Dice of {class_name}: {estimate_text(e.mean, e.low, e.high)} ({counted})")
    own = prepared(trained.dataset) if trained.folder else None
    for line in diagnosis.untrained(own) if own else ():
        print(f"{trained.dataset}: {line}")
    print(path)


if __name__ == "__main__":
    cli.run(main)
