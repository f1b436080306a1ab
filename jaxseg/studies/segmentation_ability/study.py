"""The segmentation-ability study, as the runner knows it."""

import pathlib

import ml_collections

from jaxseg.studies.base import Data, Judgement, Study, described, fingerprints, open_splits
from jaxseg.studies.segmentation_ability import claims, experiment, figures, page, tables
from jaxseg.training import runs


def _gather(config: ml_collections.ConfigDict, data: Data) -> runs.Splits:
    return open_splits(experiment.run_config(config, "offline"), data)[1]


def _measure(config: ml_collections.ConfigDict, splits: runs.Splits, workdir: pathlib.Path) -> experiment.Measured:
    networks = experiment.train_and_measure(config, splits, workdir)
    return experiment.Measured(networks, experiment.show(config, splits, networks, workdir))


def _tabulate(config: ml_collections.ConfigDict, splits: runs.Splits, measured: experiment.Measured) -> tables.Tables:
    return tables.tabulate(config, splits, measured.networks)


def _judge(config: ml_collections.ConfigDict, results: tables.Tables) -> Judgement:
    found = claims.claims(config, results)
    return Judgement([claims.verdict(found)], found)


def _folders(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [experiment.run_folder(workdir, network) for network in experiment.NETWORKS]


STUDY = Study(
    settings=experiment.check,
    gather=_gather,
    fingerprints=fingerprints,
    describe=lambda config, splits: described(config.data.dataset, splits),
    measure=_measure,
    tabulate=_tabulate,
    judge=_judge,
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
