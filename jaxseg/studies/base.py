"""What a study is to the runner: from a config to the cases, the measures, the tables, the answer and the page."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import ml_collections
import numpy as np

from jaxseg.data import builders
from jaxseg.report import page
from jaxseg.results.claims import Claim, Verdict
from jaxseg.training import runs

SPLITS = ("train", "validation", "test")
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
      workdir: of the study.
      size: of the study, as its config calls it.
      settings: of the study.
      cases: that networks are trained and tested on.
      measured: by all networks.
      tables: a dataclass whose fields are the rows of the tables.
      judgement: what they say.
      origin: where the numbers come from, with the data in words.
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

    @property
    def figure(self) -> page.FigureOf:
        """A figure by its name, with what the page says of it."""
        return page.figures_in(self.workdir)


@dataclasses.dataclass(frozen=True)
class Study(Generic[Settings, Cases, Measured, Tables]):
    """The parts of a study, called in this order; what was trained and measured before is read back.

    Attributes:
      settings: the config, checked once: raises InputError, before anything is computed, when a field cannot work.
      gather: the cases that networks are trained and tested on; what is not prepared yet is.
      fingerprints: name -> checksum of the cases, by which a work directory is known.
      describe: the data in words, with how many cases there are.
      measure: trains in the work directory, and measures.
      tabulate: the measures as a dataclass of tables.
      judge: what the tables say.
      folders: of the training runs.
      draw: the figures, into the report's folder of them.
      page: what the page says.
      known: the config by which a work directory is known.
    """

    settings: Callable[[ml_collections.ConfigDict], Settings]
    gather: Callable[[Settings, Data], Cases]
    fingerprints: Callable[[Cases], Mapping[str, str]]
    describe: Callable[[Settings, Cases], str]
    measure: Callable[[Settings, Cases, pathlib.Path], Measured]
    tabulate: Callable[[Settings, Cases, Measured], Tables]
    judge: Callable[[Settings, Tables], Judgement]
    folders: Callable[[Settings, pathlib.Path], Sequence[pathlib.Path]]
    draw: Callable[[Report[Settings, Cases, Measured, Tables]], None]
    page: Callable[[Report[Settings, Cases, Measured, Tables]], page.Page]
    known: Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict] = lambda config: config


def open_splits(run: ml_collections.ConfigDict, data: Data) -> tuple[pathlib.Path, runs.Splits]:
    """The folder of the data set of a training run, prepared if need be, and its splits.

    Args:
      run: config of a training run of the study.
      data: where data sets are.

    Raises:
      InputError: the data set cannot be had, or has too few cases for the run.
    """
    directory = data.prepare(run.data.dataset)
    splits = runs.Splits(directory, run.data.source_size, run.data.domains)
    runs.Data(run, splits)  # says when there are too few
    return directory, splits


def fingerprints(splits: runs.Splits) -> dict[str, str]:
    """Checksums of all splits, of a study whose cases they are."""
    return {name: splits[name].fingerprint for name in SPLITS}


def described(dataset: str, splits: runs.Splits) -> str:
    """The data set, with how many cases its splits have."""
    return f"{dataset}: {', '.join(f'{len(splits[name])} {name}' for name in SPLITS)}"


def at_even_quantiles(values: np.ndarray, count: int) -> list[int]:
    """Cases at even quantiles of `[N]`, lowest first, so that nobody chose them; none where no value is defined."""
    order = np.argsort(values, kind="stable")[: np.sum(~np.isnan(values))]
    count = min(count, len(order))
    return order[((np.arange(count) + 0.5) / max(count, 1) * len(order)).astype(int)].tolist()
