"""The planted-shortcuts study, as the runner knows it; everything is rendered, so there are no cases to gather."""

from jaxseg.studies.base import Judgement, Study
from jaxseg.studies.planted_shortcuts import claims, experiment, figures, page, tables
from jaxseg.studies.planted_shortcuts.settings import settings

STUDY = Study(
    settings,
    experiment.train_and_audit,
    tables.tabulate,
    lambda settings, tables: Judgement([claims.verdict(tables.counts)]),
    figures.draw,
    page.make,
    gather=lambda settings, data: None,
    fingerprints=lambda cases: {},
    describe=lambda settings, cases: f"drawn: {len(settings.seeds)} seeds, {len(settings.networks)} networks",
)
