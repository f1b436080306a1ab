"""The segmentation-ability study, as the runner knows it."""

from jaxseg.studies.base import Judgement, Study
from jaxseg.studies.segmentation_ability import claims, experiment, figures, page, tables
from jaxseg.studies.segmentation_ability.settings import Settings, settings


def _judge(_: Settings, results: tables.Tables) -> Judgement:
    judged = claims.claims(results)
    return Judgement([claims.verdict(judged)], judged)


STUDY = Study(settings, experiment.train_and_measure, tables.tabulate, _judge, figures.draw, page.make)
