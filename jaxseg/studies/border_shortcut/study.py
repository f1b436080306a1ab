"""The border-shortcut study, as the runner knows it."""

import pathlib

import ml_collections

from jaxseg.studies.base import Data, Judgement, Study, describe, fingerprints, open_splits
from jaxseg.studies.border_shortcut import claims, experiment, figures, page, tables
from jaxseg.training import runs


def _gather(config: ml_collections.ConfigDict, data: Data) -> runs.Splits:
    return open_splits(config, data, experiment.run_config(config, config.paddings[0], "original"))[1]


def _judge(config: ml_collections.ConfigDict, results: tables.Tables) -> Judgement:
    return Judgement([claims.verdict(config, results.border, padding) for padding in config.paddings])


def _folders(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [experiment.run_folder(workdir, padding, view) for padding in config.paddings for view in config.views]


STUDY = Study(
    check=experiment.check,
    gather=_gather,
    fingerprints=fingerprints,
    describe=describe,
    measure=experiment.train_and_measure,
    tabulate=tables.tabulate,
    judge=_judge,
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
