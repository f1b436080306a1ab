"""The overlay-shortcut study, as the runner knows it."""

import pathlib
from collections.abc import Mapping

from jaxseg.studies.base import Data, Judgement, Study, described, fingerprints
from jaxseg.studies.overlay_shortcut import claims, experiment, figures, images, page, tables
from jaxseg.studies.overlay_shortcut.settings import Settings, settings
from jaxseg.training import runs

Scans = Mapping[str, images.Scans]


def _gather(settings: Settings, data: Data) -> Scans:
    scans = images.load(settings, data.prepare(settings.run.data.dataset))
    images.check_batch(settings.run.training.batch_size, scans)
    return scans


def _annotated(scans: Scans) -> runs.Splits:
    return runs.InMemorySplits({split: both.annotated for split, both in scans.items()})


def _folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [experiment.run_folder(workdir, network) for network in settings.networks]


STUDY = Study(
    settings=settings,
    gather=_gather,
    fingerprints=lambda scans: fingerprints(_annotated(scans)),
    describe=lambda settings, scans: described(settings.run.data.dataset, _annotated(scans)),
    measure=experiment.train_and_measure,
    tabulate=tables.tabulate,
    judge=lambda settings, results: Judgement([claims.verdict(results)]),
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
