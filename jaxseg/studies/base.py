"""What a study is to the runner: from a config to the cases, the measures, the tables, the answer and the page."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import ml_collections

from jaxseg.data import builders
from jaxseg.report import page
from jaxseg.results.claims import Claim, Verdict
from jaxseg.training import runs

SPLITS = ("train", "validation", "test")
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
class Report(Generic[Cases, Measured, Tables]):
    """What figures and page are made of.

    Attributes:
      workdir: of the study.
      config: of the study.
      cases: that networks are trained and tested on.
      measured: by all networks.
      tables: a dataclass whose fields are the rows of the tables.
      judgement: what they say.
      origin: where the numbers come from, with the data in words.
    """

    workdir: pathlib.Path
    config: ml_collections.ConfigDict
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
class Study(Generic[Cases, Measured, Tables]):
    """The parts of a study, called in this order; what was trained and measured before is read back.

    Attributes:
      check: raises InputError, before anything is computed, when a field of the config cannot work.
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

    check: Callable[[ml_collections.ConfigDict], None]
    gather: Callable[[ml_collections.ConfigDict, Data], Cases]
    fingerprints: Callable[[Cases], Mapping[str, str]]
    describe: Callable[[ml_collections.ConfigDict, Cases], str]
    measure: Callable[[ml_collections.ConfigDict, Cases, pathlib.Path], Measured]
    tabulate: Callable[[ml_collections.ConfigDict, Cases, Measured], Tables]
    judge: Callable[[ml_collections.ConfigDict, Tables], Judgement]
    folders: Callable[[ml_collections.ConfigDict, pathlib.Path], Sequence[pathlib.Path]]
    draw: Callable[[Report[Cases, Measured, Tables]], None]
    page: Callable[[Report[Cases, Measured, Tables]], page.Page]
    known: Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict] = lambda config: config


def open_splits(
    config: ml_collections.ConfigDict, data: Data, run: ml_collections.ConfigDict
) -> tuple[pathlib.Path, runs.Splits]:
    """The folder of a study's data set, prepared if need be, and its splits.

    Args:
      config: of the study.
      data: where data sets are.
      run: config of a training run of the study.

    Raises:
      InputError: the data set cannot be had, or has too few cases for the run.
    """
    directory = data.prepare(config.data.dataset)
    splits = runs.Splits(directory, config.data.source_size, config.data.domains)
    runs.Data(run, splits)  # says when there are too few
    return directory, splits


def fingerprints(splits: runs.Splits) -> dict[str, str]:
    """Checksums of all splits, of a study whose cases they are."""
    return {name: splits[name].fingerprint for name in SPLITS}


def describe(config: ml_collections.ConfigDict, splits: runs.Splits) -> str:
    """The data set, with how many cases its splits have."""
    return f"{config.data.dataset}: {', '.join(f'{len(splits[name])} {name}' for name in SPLITS)}"
