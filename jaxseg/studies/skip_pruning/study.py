"""The skip-pruning study, as the runner knows it."""

import pathlib
from collections.abc import Mapping

from jaxseg.studies.base import Data, Judgement, Study, open_splits
from jaxseg.studies.skip_pruning import claims, experiment, figures, page, tables
from jaxseg.studies.skip_pruning.conditions import conditions
from jaxseg.studies.skip_pruning.iou import class_numbers
from jaxseg.studies.skip_pruning.settings import Settings, settings
from jaxseg.training import runs


def _gather(settings: Settings, data: Data) -> experiment.Cases:
    directory, splits = open_splits(settings.of_run(settings.networks[0]), data)
    tested = conditions(settings, splits, runs.Splits(directory, settings.run.data.source_size))
    class_numbers(settings.evaluation.classes, tested[0].cases.class_names)  # says which is unknown
    return experiment.Cases(splits, tested)


def _fingerprints(cases: experiment.Cases) -> Mapping[str, str]:
    trained = {name: cases.splits[name].fingerprint for name in ("train", "validation")}
    return trained | {c.name: c.cases.fingerprint for c in cases.tested if not c.shift}


def _describe(settings: Settings, cases: experiment.Cases) -> str:
    counts = [f"{len(cases.splits[name])} {name}" for name in ("train", "validation")]
    counts += [f"{len(c.cases)} test, {c.label}" for c in cases.tested if not c.shift]
    return f"{settings.run.data.dataset}: {', '.join(counts)}"


def _judge(settings: Settings, results: tables.Tables) -> Judgement:
    found = [
        claim for encoder in settings.encoder_names for claim in claims.claims(results, encoder, settings.pruned[-1])
    ]
    return Judgement([claims.verdict(found, encoder) for encoder in settings.encoder_names], found)


def _folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [
        place
        for network in settings.networks
        for _, place in runs.member_runs(settings.of_run(network), experiment.run_folder(workdir, network))
    ]


STUDY = Study(
    settings=settings,
    gather=_gather,
    fingerprints=_fingerprints,
    describe=_describe,
    measure=experiment.train_and_measure,
    tabulate=tables.tabulate,
    judge=_judge,
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
