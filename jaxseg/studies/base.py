"""What a study is to the runner, from its config to its page, and what several studies share."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import ml_collections
import numpy as np

from jaxseg.data import builders, inputs, pipeline
from jaxseg.data.normalisation import Range
from jaxseg.metrics import ranking
from jaxseg.models import capture, tracing
from jaxseg.report import figures, page
from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR, Claim, Verdict
from jaxseg.results.stored import kept
from jaxseg.results.table import Table
from jaxseg.settings import Read, read
from jaxseg.training import checks, runs

SPLITS = ("train", "validation", "test")
Measures = Mapping[str, np.ndarray]
Overlay = tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]  # a row of `figures.overlays`
Settings = TypeVar("Settings")
Cases = TypeVar("Cases")
Measured = TypeVar("Measured")
Tables = TypeVar("Tables")


@dataclasses.dataclass(frozen=True)
class Data:
    """Where data sets are.

    Attributes:
      folder: of prepared data sets.
      manual_dir: of raw files; None if the data set is embedded or prepared.
    """

    folder: pathlib.Path
    manual_dir: str | None

    def prepare(self, name: str) -> pathlib.Path:
        """The folder of a prepared data set."""
        return builders.prepare(name, data_dir=self.folder, manual_dir=self.manual_dir)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the tables say.

    Attributes:
      verdicts: the answers to the study's question; the first is the page's.
      claims: of the paper, each with whether it holds here; a table too, where there are any.
    """

    verdicts: Sequence[Verdict]
    claims: Sequence[Claim] = ()


@dataclasses.dataclass(frozen=True)
class Report(Generic[Settings, Cases, Measured, Tables]):
    """What figures and page are made of.

    Attributes:
      workdir, size, settings: of the study.
      cases: that networks are trained and tested on.
      measured: by all networks.
      tables: a dataclass whose fields are the rows of the tables.
      judgement: what they say.
      origin: where the results come from, with the data in words.
    """

    workdir: pathlib.Path
    size: str
    settings: Settings
    cases: Cases
    measured: Measured
    tables: Tables
    judgement: Judgement
    origin: Mapping[str, Any]

    @property
    def figures(self) -> pathlib.Path:
        """The folder of the figures."""
        return self.workdir / "figures"

    def figure(self, name: str, title: str, alt: str, caption: str, *, table: str = "") -> page.Figure:
        """A figure by its name, with what the page says of it and the table of its numbers, by default of its name."""
        return page.figures_in(self.workdir)(name, title, alt, caption, table or name)

    def write_up(
        self,
        title: str,
        question: str,
        lead: page.Figure,
        facts: Sequence[tuple[str, str]],
        sections: Sequence[Callable[[Any], page.Section]],
        *,
        answer: str = "",
    ) -> page.Page:
        """The page: the first verdict, with its sentence unless an `answer` is given, and a section per function."""
        first, made = self.judgement.verdicts[0], [section(self) for section in sections]
        title = f"{title} ({self.size})"
        return page.Page(title, question, first.verdict, answer or first.sentence, lead, facts, made)


def open_splits(run: ml_collections.ConfigDict, data: Data) -> tuple[pathlib.Path, runs.Splits]:
    """The folder of the data set of a training run, prepared if need be, and its splits.

    Raises InputError where the data set cannot be had, or has too few cases for the run.
    """
    directory = data.prepare(run.data.dataset)
    given = inputs.of_config(run)
    pictured = not isinstance(given.normalisation, Range)  # gray levels are shown as they are
    splits = runs.Splits(directory, given, run.data.domains, pictured=pictured)
    runs.Data(run, splits)  # says when there are too few
    return directory, splits


def fingerprints(splits: runs.Splits) -> dict[str, str]:
    """Checksums of all splits, of a study whose cases they are."""
    return {name: splits[name].fingerprint for name in SPLITS}


def described(settings: Any, splits: runs.Splits) -> str:
    """The data set, with how many cases its splits have."""
    return f"{settings.run.data.dataset}: {', '.join(f'{len(splits[name])} {name}' for name in SPLITS)}"


def run_folder(workdir: pathlib.Path, network: str | tuple[Any, ...]) -> pathlib.Path:
    """Where a run of a study, by its network, keeps its checkpoints, metrics and measures."""
    return workdir / "runs" / (network if isinstance(network, str) else "_".join(map(str, network)))


@dataclasses.dataclass(frozen=True)
class Study(Generic[Settings, Cases, Measured, Tables]):
    """The parts of a study; what was trained and measured before is read back.

    Attributes:
      settings: the config, checked once: raises InputError, before anything is computed, when a field cannot work.
      measure: trains in the work directory, and measures.
      tabulate: the measures as a dataclass of tables.
      judge: what the tables say.
      draw: the figures, into the report's folder of them.
      page: what the page says.
      gather: the cases that networks are trained and tested on; data sets that are not prepared yet are prepared.
      fingerprints: name -> checksum of the cases, by which a work directory is known.
      describe: the data in words, with how many cases there are.
      folders: of the training runs.
      known: the config by which a work directory is known.
    """

    settings: Callable[[ml_collections.ConfigDict], Settings]
    measure: Callable[[Settings, Cases, pathlib.Path], Measured]
    tabulate: Callable[[Settings, Cases, Measured], Tables]
    judge: Callable[[Settings, Tables], Judgement]
    draw: Callable[[Report[Settings, Cases, Measured, Tables]], None]
    page: Callable[[Report[Settings, Cases, Measured, Tables]], page.Page]
    gather: Callable[[Any, Data], Any] = lambda settings, data: open_splits(settings.run, data)[1]
    fingerprints: Callable[[Any], Mapping[str, str]] = fingerprints
    describe: Callable[[Any, Any], str] = described
    folders: Callable[[Any, pathlib.Path], Sequence[pathlib.Path]] = lambda settings, workdir: [
        run_folder(workdir, network) for network in settings.networks
    ]
    known: Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict] = lambda config: config


def train_and_measure(
    settings: Any,
    workdir: pathlib.Path,
    splits: Callable[[Any], runs.Splits],
    measure: Callable[[ml_collections.ConfigDict, pathlib.Path], Measures],
    *,
    folder_of: Callable[[pathlib.Path, Any], pathlib.Path] = run_folder,
    **options: int,
) -> dict[Any, Measures]:
    """Every network of the settings -> its measures; trained and measured, or read back where that was done before.

    Args:
      settings: with `networks` and `of_run`.
      workdir: of the study.
      splits: network -> the cases that it is trained on.
      measure: config and folder of a run -> the measures of its best checkpoint.
      folder_of: work directory and network -> the folder of its run.
      **options: of `runs.train`.
    """
    measured: dict[Any, Measures] = {}
    for network in settings.networks:
        run, folder = settings.of_run(network), folder_of(workdir, network)
        runs.train(run, splits(network), folder, **options)
        measured[network] = kept(folder / "measures.npz", functools.partial(measure, run, folder))
    return measured


def read_settings(
    cls: type[Read], config: ml_collections.ConfigDict, section: str = "", *, changes_levels: bool, **made: Any
) -> Read:
    """A study's settings, as of `settings.read`, whose `run` is the part of the config that is a training run's.

    Args:
      cls, config, section, **made: as of `settings.read`.
      changes_levels: the study changes gray levels, see `inputs.check_study`.
    """
    run = checks.run_config(config)
    inputs.check_study(run, changes_levels=changes_levels)
    return read(cls, config, section, shown_in=f"configs/{config.study}.py", run=run, **made)


def changed(config: ml_collections.ConfigDict, fields: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """A locked copy of a config with other values of some fields, given as in `data.view`."""
    made = config.copy_and_resolve_references().unlock()
    made.update_from_flattened_dict(fields)
    return made.lock()


def layer_names(run: ml_collections.ConfigDict) -> Sequence[str]:
    """The layers of the network of a run, whose names are the same for any number of channels and classes."""
    model, size = checks.build_model(run, 2), run.data.image_size
    image: Any = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return capture.layer_names(model, tracing.variable_shapes(model, image.shape), image)


def answer(holds: bool, fails: bool) -> str:
    """Whether a claim holds; unclear where neither condition is met, as with NaN."""
    return HOLDS if holds else FAILS if fails else UNCLEAR


def case_records(cases: pipeline.InMemory, columns: Mapping[str, Any], **said: Any) -> list[dict[str, Any]]:
    """A record of every case: whose it is, what is `said` of all of them, and its values of columns `[N]`."""
    listed: dict[str, Any] = {"case": cases.cases, "patient": cases.patients}
    listed |= {name: [value] * len(cases) for name, value in said.items()}
    listed |= {name: np.asarray(values).tolist() for name, values in columns.items()}
    return [dict(zip(listed, values, strict=True)) for values in zip(*listed.values(), strict=True)]


def claims_table(claims: Sequence[Claim], intervals: str) -> page.Table:
    """All claims, with what each is of, and how their intervals were taken."""
    columns = {"claim": "claim", **{name: name for name in claims[0].of}, "answer": "answer"}
    columns |= {"sentence": "by these numbers", "paper": "the paper"}
    return page.Table("Claims", [claim.record() for claim in claims], f"Intervals: 95 %, {intervals}.", columns)


def lines(rows: Table, x: str, by: str, names: Sequence[Any]) -> list[figures.Series]:
    """A panel of `figures.curves`: estimates against the column `x`, a line for each of the names in column `by`."""
    tables = {name if isinstance(name, str) else f"{name:g}": rows.where(**{by: name}) for name in names}
    return [figures.Series(label, [row[x] for row in own], *own.numbers) for label, own in tables.items()]


def of_kept(
    label: str, worse: np.ndarray, values: np.ndarray, shares: np.ndarray, *, style: str = "-"
) -> figures.Series:
    """A line of `figures.curves`: mean of the values `[M,N]` of cases that are kept, by their share, over M networks.

    The cases with the highest numbers `worse` `[M,N]` are left out first.
    """
    curves = [ranking.risk_coverage(*pair) for pair in zip(worse, values, strict=True)]  # of any quality, as of risks
    means = [np.interp(shares, curve.coverage, curve.risk) for curve in curves if curve.n > 1]
    return figures.Series(label, shares, np.mean(means, 0) if means else np.full(len(shares), np.nan), style=style)


def at_even_quantiles(values: np.ndarray, count: int) -> list[int]:
    """Cases at even quantiles of `[N]`, lowest first, so that nobody chose them; none where no value is defined."""
    order = np.argsort(values, kind="stable")[: np.sum(~np.isnan(values))]
    count = min(count, len(order))
    return order[((np.arange(count) + 0.5) / max(count, 1) * len(order)).astype(int)].tolist()
