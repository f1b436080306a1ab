"""The skip-pruning study, as the runner knows it."""

import pathlib
from collections.abc import Mapping

from jaxseg.studies.base import Judgement, Study
from jaxseg.studies.skip_pruning import claims, experiment, figures, page, tables
from jaxseg.studies.skip_pruning.settings import Settings, settings
from jaxseg.training import runs


def _fingerprints(cases: experiment.Cases) -> Mapping[str, str]:
    trained = {name: cases.splits[name].fingerprint for name in ("train", "validation")}
    return trained | {c.name: c.cases.fingerprint for c in cases.tested if not c.shift}


def _describe(settings: Settings, cases: experiment.Cases) -> str:
    counts = [f"{len(cases.splits[name])} {name}" for name in ("train", "validation")]
    counts += [f"{len(c.cases)} test, {c.label}" for c in cases.tested if not c.shift]
    return f"{settings.run.data.dataset}: {', '.join(counts)}"


def _judge(settings: Settings, results: tables.Tables) -> Judgement:
    names, last = settings.encoder_names, settings.pruned[-1]
    decided = [claim for encoder in names for claim in claims.claims(results, encoder, last)]
    return Judgement([claims.verdict(decided, encoder) for encoder in names], decided)


def _folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    folders = {network: experiment.run_folder(workdir, network) for network in settings.networks}
    return [place for network in folders for _, place in runs.member_runs(settings.of_run(network), folders[network])]


STUDY = Study(
    *(settings, experiment.train_and_measure, tables.tabulate, _judge, figures.draw, page.make),
    *(experiment.gather, _fingerprints, _describe, _folders),
)
