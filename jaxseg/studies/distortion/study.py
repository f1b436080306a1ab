"""The distortion study, as the runner knows it."""

from collections.abc import Mapping

from jaxseg.studies.base import Judgement, Study
from jaxseg.studies.distortion import claims, experiment, figures, page, tables
from jaxseg.studies.distortion.cases import Gathered, gather
from jaxseg.studies.distortion.settings import Settings, known, settings


def _fingerprints(gathered: Gathered) -> Mapping[str, str]:
    trained = {name: gathered.splits[name].fingerprint for name in ("train", "validation")}
    return trained | {"scored": gathered.scored.stored.fingerprint}


def _describe(settings: Settings, gathered: Gathered) -> str:
    train, scored = gathered.splits["train"], gathered.scored
    domains = scored.by_domain(settings.evaluation.least_patients).names
    counts = ", ".join(f"{int((scored.domains == name).sum())} {name}" for name in domains)
    return f"{train.name}: {len(train)}; scored: {counts}"


def _judge(settings: Settings, results: tables.Tables) -> Judgement:
    decided = claims.claims(results)
    return Judgement([claims.verdict(settings.evaluation.unit, results, decided)], decided)


STUDY = Study(
    *(settings, experiment.train_and_measure, tables.tabulate, _judge, figures.draw, page.make),
    *(gather, _fingerprints, _describe, experiment.run_folders, known),
)
