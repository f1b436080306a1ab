"""The distortion study, as the runner knows it."""

import pathlib
from collections.abc import Mapping

import ml_collections

from jaxseg.studies.base import Data, Judgement, Study, open_splits
from jaxseg.studies.distortion import experiment, figures, page, tables


def _gather(config: ml_collections.ConfigDict, data: Data) -> experiment.Data:
    """`data.manual_dir` is of the training data set; that of the shifted one stands in the config."""
    directory, splits = open_splits(experiment.network_config(config), data)
    return experiment.Data(splits, experiment.gather(config, splits, directory, data.folder))


def _fingerprints(data: experiment.Data) -> Mapping[str, str]:
    trained = {name: data.splits[name].fingerprint for name in ("train", "validation")}
    return trained | {"scored": data.scored.stored.fingerprint}


def _describe(config: ml_collections.ConfigDict, data: experiment.Data) -> str:
    train, scored = data.splits["train"], data.scored
    counts = ", ".join(f"{int((scored.domains == name).sum())} {name}" for name in scored.names)
    return f"{train.name}: {len(train)}; scored: {counts}"


def _measure(config: ml_collections.ConfigDict, data: experiment.Data, workdir: pathlib.Path) -> experiment.Measured:
    return experiment.train_and_measure(config, data.splits, data.scored, workdir)


def _tabulate(config: ml_collections.ConfigDict, data: experiment.Data, measured: experiment.Measured) -> tables.Tables:
    return tables.tabulate(config, data.scored, measured)


def _judge(config: ml_collections.ConfigDict, results: tables.Tables) -> Judgement:
    return Judgement([tables.verdict(config, results)])


STUDY = Study(
    settings=experiment.check,
    gather=_gather,
    fingerprints=_fingerprints,
    describe=_describe,
    measure=_measure,
    tabulate=_tabulate,
    judge=_judge,
    folders=experiment.run_folders,
    draw=figures.draw,
    page=page.make,
    known=experiment.claimed,
)
