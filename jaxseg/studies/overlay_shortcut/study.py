"""The overlay-shortcut study, as the runner knows it."""

from jaxseg.studies.base import Judgement, Study, described, fingerprints
from jaxseg.studies.overlay_shortcut import claims, experiment, figures, images, page, tables
from jaxseg.studies.overlay_shortcut.settings import settings
from jaxseg.training import runs


def _annotated(scans: images.ScansOfSplits) -> runs.Splits:
    return runs.InMemorySplits({split: both.annotated for split, both in scans.items()})


STUDY = Study(
    settings,
    experiment.train_and_measure,
    tables.tabulate,
    lambda settings, results: Judgement([claims.verdict(results)]),
    figures.draw,
    page.make,
    gather=images.gather,
    fingerprints=lambda scans: fingerprints(_annotated(scans)),
    describe=lambda settings, scans: described(settings, _annotated(scans)),
)
