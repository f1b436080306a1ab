"""The planted-shortcuts study, as the runner knows it."""

import pathlib
from collections.abc import Mapping, Sequence

import ml_collections

from jaxseg.audit import run as audits
from jaxseg.studies.base import Data, Judgement, Study
from jaxseg.studies.planted_shortcuts import experiment, page


def _check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    audits.check(config.audit)
    return experiment.check(config)


def _gather(config: ml_collections.ConfigDict, data: Data) -> None:
    """Everything is drawn."""


def _fingerprints(cases: None) -> Mapping[str, str]:
    return {}


def _describe(config: ml_collections.ConfigDict, cases: None) -> str:
    networks = len(config.kinds) * len(config.seeds) * len(experiment.ARMS)
    return f"drawn: {len(config.seeds)} seeds, {networks} networks"


def _tabulate(
    config: ml_collections.ConfigDict, cases: None, outcomes: Sequence[experiment.Outcome]
) -> experiment.Tables:
    return experiment.tabulate(config, outcomes)


def _judge(config: ml_collections.ConfigDict, tables: experiment.Tables) -> Judgement:
    return Judgement([experiment.verdict(config, tables.counts)])


def _folders(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [
        experiment.run_folder(workdir, kind, arm, seed)
        for kind in config.kinds
        for seed in config.seeds
        for arm in experiment.ARMS
    ]


STUDY = Study(
    settings=_check,
    gather=_gather,
    fingerprints=_fingerprints,
    describe=_describe,
    measure=experiment.train_and_audit,
    tabulate=_tabulate,
    judge=_judge,
    folders=_folders,
    draw=page.draw,
    page=page.make,
)
