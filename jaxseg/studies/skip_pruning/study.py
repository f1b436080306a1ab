"""The skip-pruning study, as the runner knows it."""

import pathlib
from collections.abc import Mapping

import ml_collections

from jaxseg.studies.base import Data, Judgement, Study, open_splits
from jaxseg.studies.skip_pruning import claims, experiment, figures, page, tables
from jaxseg.studies.skip_pruning.conditions import conditions
from jaxseg.training import runs


def _gather(config: ml_collections.ConfigDict, data: Data) -> experiment.Cases:
    directory, splits = open_splits(experiment.run_config(config, experiment.networks(config)[0]), data)
    tested = conditions(config, splits, runs.Splits(directory, config.data.source_size))
    tables.class_places(config, tested[0].cases.class_names)  # says which is unknown
    return experiment.Cases(splits, tested)


def _fingerprints(cases: experiment.Cases) -> Mapping[str, str]:
    trained = {name: cases.splits[name].fingerprint for name in ("train", "validation")}
    return trained | {c.name: c.cases.fingerprint for c in cases.tested if not c.shift}


def _describe(config: ml_collections.ConfigDict, cases: experiment.Cases) -> str:
    counts = [f"{len(cases.splits[name])} {name}" for name in ("train", "validation")]
    counts += [f"{len(c.cases)} test, {c.label}" for c in cases.tested if not c.shift]
    return f"{config.data.dataset}: {', '.join(counts)}"


def _measure(
    config: ml_collections.ConfigDict, cases: experiment.Cases, workdir: pathlib.Path
) -> Mapping[experiment.Network, experiment.Measures]:
    return experiment.train_and_measure(config, cases.splits, cases.tested, workdir)


def _tabulate(
    config: ml_collections.ConfigDict,
    cases: experiment.Cases,
    measured: Mapping[experiment.Network, experiment.Measures],
) -> tables.Tables:
    return tables.tabulate(config, cases.tested, measured)


def _judge(config: ml_collections.ConfigDict, results: tables.Tables) -> Judgement:
    encoders = figures.encoders(config)
    found = [claim for encoder in encoders for claim in claims.claims(config, results, encoder)]
    return Judgement([claims.verdict(found, encoder) for encoder in encoders], found)


def _folders(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [
        place
        for network in experiment.networks(config)
        for _, place in runs.member_runs(
            experiment.run_config(config, network), experiment.run_folder(workdir, network)
        )
    ]


STUDY = Study(
    settings=experiment.check,
    gather=_gather,
    fingerprints=_fingerprints,
    describe=_describe,
    measure=_measure,
    tabulate=_tabulate,
    judge=_judge,
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
