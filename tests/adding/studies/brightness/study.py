"""The brightness study, as the runner knows it."""

import dataclasses
import pathlib

import ml_collections
import numpy as np

from jaxseg.data import pipeline
from jaxseg.metrics import ranking
from jaxseg.report import estimates, figures, page
from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR, Claim, Verdict
from jaxseg.results.patients import Patients
from jaxseg.results.stored import kept
from jaxseg.results.table import Row, Table, table
from jaxseg.settings import count, read, some_of
from jaxseg.studies.base import Data, Judgement, Report, Study

CLAIM = "dark images have large objects"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which splits are looked at.

    Attributes:
      dataset: whose cases.
      splits: of it; the first is that of the answer.
      resamples: of the bootstrap.
    """

    dataset: str
    splits: tuple[str, ...] = some_of("train", "validation", "test")
    resamples: int = count()


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError when a field cannot work."""
    return read(Settings, config, shown_in="configs/brightness.py")


Cases = dict[str, pipeline.InMemory]
Measures = dict[str, dict[str, np.ndarray]]


def gather(settings: Settings, data: Data) -> Cases:
    """All splits."""
    folder = data.prepare(settings.dataset)
    return {name: pipeline.in_memory(pipeline.Split(folder, name, size=32)) for name in settings.splits}


def measure(settings: Settings, cases: Cases, workdir: pathlib.Path) -> Measures:
    """Per split the mean gray level and the share of the object, `[N]`."""

    def of_split(of: pipeline.InMemory) -> dict[str, np.ndarray]:
        return {"gray": of.images.mean((1, 2, 3)), "share": (of.labels > 0).mean((1, 2))}

    return {name: kept(workdir / "runs" / f"{name}.npz", lambda of=of: of_split(of)) for name, of in cases.items()}


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    correlation: Table


def tabulate(settings: Settings, cases: Cases, measured: Measures) -> Tables:
    """Rank correlation of darkness and size, per split."""
    rows = []
    for name, of in measured.items():
        patients = Patients(np.array(cases[name].patients), settings.resamples)
        estimate = patients.statistic(ranking.spearman, {"dark": -of["gray"], "share": of["share"]})
        rows.append(Row({"split": name}, estimate, "Spearman of darkness with the share of the object"))
    return Tables(table(rows))


def judge(settings: Settings, results: Tables) -> Judgement:
    """Of the first split: whether the whole interval lies above 0."""
    row = results.correlation.one(split=settings.splits[0])
    answer = HOLDS if row.estimate.low > 0 else FAILS if row.estimate.high <= 0 else UNCLEAR
    claim = Claim({"split": row["split"]}, CLAIM, answer, f"Spearman {row.text()}.", "no paper's", row)
    words = {HOLDS: "yes", FAILS: "no", UNCLEAR: "unclear"}
    return Judgement([Verdict(words[answer], f"Darkness and size: {row.text()}.")], [claim])


StudyReport = Report[Settings, Cases, Measures, Tables]


def draw(report: StudyReport) -> None:
    """Writes `correlation.png`."""
    dots = [(row["split"], "", *row.numbers) for row in report.tables.correlation]
    figures.dots(report.figures / "correlation.png", dots, xlabel="rank correlation")


def make_page(report: StudyReport) -> page.Page:
    """What the page says."""
    verdict, correlation = report.judgement.verdicts[0], report.tables.correlation
    words = "Dots with intervals of the rank correlation of darkness and size in every split."
    shown = report.figure("correlation", "Darkness and size", words, "Bootstrap over patients.")
    return page.Page(
        title=f"Brightness ({report.size})",
        question="Does the gray level tell the size of the object?",
        verdict=verdict.verdict,
        answer=verdict.sentence,
        lead=shown,
        facts=[(row["split"], row.text()) for row in correlation],
        sections=[page.Section("By split", tables=[estimates.table("Correlation", correlation, {"split": "split"})])],
    )


STUDY = Study(
    settings=settings,
    gather=gather,
    fingerprints=lambda cases: {name: of.fingerprint for name, of in cases.items()},
    describe=lambda settings, cases: f"{settings.dataset}: {', '.join(f'{len(of)} {k}' for k, of in cases.items())}",
    measure=measure,
    tabulate=tabulate,
    judge=judge,
    folders=lambda settings, workdir: [],
    draw=draw,
    page=make_page,
)
