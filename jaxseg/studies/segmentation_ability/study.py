"""The segmentation-ability study, as the runner knows it."""

import pathlib

from jaxseg.studies.base import Data, Judgement, Study, described, fingerprints, open_splits
from jaxseg.studies.segmentation_ability import claims, experiment, figures, page, tables
from jaxseg.studies.segmentation_ability.settings import NETWORKS, Settings, settings
from jaxseg.training import runs


def _gather(settings: Settings, data: Data) -> runs.Splits:
    return open_splits(settings.run, data)[1]


def _judge(settings: Settings, results: tables.Tables) -> Judgement:
    judged = claims.claims(results)
    return Judgement([claims.verdict(judged)], judged)


def _folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [experiment.run_folder(workdir, network) for network in NETWORKS]


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
