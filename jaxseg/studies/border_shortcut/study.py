"""The border-shortcut study, as the runner knows it."""

import pathlib

from jaxseg.studies.base import Data, Judgement, Study, described, fingerprints, open_splits
from jaxseg.studies.border_shortcut import claims, experiment, figures, page, tables
from jaxseg.studies.border_shortcut.settings import Settings, settings
from jaxseg.training import runs


def _gather(settings: Settings, data: Data) -> runs.Splits:
    return open_splits(settings.run, data)[1]


def _judge(settings: Settings, results: tables.Tables) -> Judgement:
    of = settings.evaluation
    return Judgement([claims.verdict(of, results.border, padding) for padding in settings.paddings])


def _folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [experiment.run_folder(workdir, run) for run in settings.runs]


STUDY = Study(
    settings=settings,
    gather=_gather,
    fingerprints=fingerprints,
    describe=lambda settings, splits: described(settings.run.data.dataset, splits),
    measure=experiment.train_and_measure,
    tabulate=tables.tabulate,
    judge=_judge,
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
