"""The border-shortcut study, as the runner knows it."""

from jaxseg.studies.base import Judgement, Study
from jaxseg.studies.border_shortcut import claims, experiment, figures, page, tables
from jaxseg.studies.border_shortcut.settings import Settings, settings


def _judge(settings: Settings, results: tables.Tables) -> Judgement:
    verdicts = [claims.verdict(settings.evaluation, results.border, arm) for arm in settings.arms]
    return Judgement(verdicts, claims.claims(settings, results.border))


STUDY = Study(settings, experiment.train_and_measure, tables.tabulate, _judge, figures.draw, page.make)
