"""The planted-shortcuts study, as the runner knows it; everything is drawn, so there are no cases to gather."""

from jaxseg.studies.base import Judgement, Study
from jaxseg.studies.planted_shortcuts import claims, experiment, figures, page, tables
from jaxseg.studies.planted_shortcuts.settings import settings

STUDY = Study(
    settings=settings,
    gather=lambda settings, data: None,
    fingerprints=lambda cases: {},
    describe=lambda settings, cases: f"drawn: {len(settings.seeds)} seeds, {len(settings.networks)} networks",
    measure=experiment.train_and_audit,
    tabulate=tables.tabulate,
    judge=lambda settings, tables: Judgement([claims.verdict(tables.counts)]),
    folders=lambda settings, workdir: [experiment.run_folder(workdir, network) for network in settings.networks],
    draw=figures.draw,
    page=page.make,
)
