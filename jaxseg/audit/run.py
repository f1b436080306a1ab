"""All probes, one after the other; what was measured is kept, so that a killed audit resumes."""

import dataclasses
import functools
import importlib
import pathlib
import pkgutil
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.audit import findings, probes
from jaxseg.audit.probe import GROUPS, Answer, Candidate, NotAskedError, Probe, not_asked
from jaxseg.audit.progress import Progress
from jaxseg.audit.subject import Subject
from jaxseg.errors import InputError
from jaxseg.networks import host
from jaxseg.results.stored import kept
from jaxseg.results.table import Row, Table
from jaxseg.settings import count, read

_SHOWN_IN = "configs/audit.py"
_WHY = "not_asked"


def all_probes() -> tuple[Probe, ...]:
    """Every file of the folder that has one, as they stand on the page."""
    modules = [importlib.import_module(f"{probes.__name__}.{m.name}") for m in pkgutil.iter_modules(probes.__path__)]
    found = [module.PROBE for module in modules if hasattr(module, "PROBE")]
    return tuple(sorted(found, key=lambda probe: (GROUPS.index(probe.group), probe.name)))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an audit reads of its config beside what its probes read.

    Attributes:
      findings: shown at most.
      cases, familiar_cases: of the test set and of training, at most.
      probes: those that are asked, each with its settings.
    """

    probes: Mapping[Probe, Any]
    findings: int = count()
    cases: int = count()
    familiar_cases: int = count()


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of an audit.

    Raises:
      InputError: a setting is missing or cannot work; the message names it.
    """
    if not isinstance(config, ml_collections.ConfigDict) or "probes" not in config:
        raise InputError(f"config.probes is missing; {_SHOWN_IN} shows every field")
    known = {probe.name: probe for probe in all_probes()}
    if not isinstance(config.probes, tuple | list):
        raise InputError(f"config.probes is {config.probes!r}; give a list of {', '.join(known)}")
    if unknown := [name for name in config.probes if name not in known]:
        raise InputError(f"config.probes has {unknown[0]!r}; choose from {', '.join(known)}")
    asked = [probe for name, probe in known.items() if name in (config.probes or known)]
    return read(
        Settings,
        config,
        shown_in=_SHOWN_IN,
        probes={probe: read(probe.settings, config, shown_in=_SHOWN_IN) for probe in asked},
    )


def left_out(settings: Settings) -> Sequence[str]:
    """The names of the probes that the settings do not ask, as they stand on the page."""
    return [probe.name for probe in all_probes() if probe not in settings.probes]


@dataclasses.dataclass(frozen=True)
class Audit:
    """All answers.

    Attributes:
      answers: of the probes that were asked, in their order.
      not_asked: the rows that say what was not asked, and why.
      findings: the most harmful first.
    """

    answers: Mapping[Probe, Answer]
    not_asked: Table
    findings: Sequence[findings.Finding]

    @property
    def numbers(self) -> Table:
        """All rows, with their probes, those that were not asked last."""
        return Table((*(row for probe in self.answers for row in self.rows(probe)), *self.not_asked))

    def rows(self, probe: Probe) -> Table:
        """The numbers of a probe."""
        return Table(tuple(_of(probe, row) for row in self.answers[probe].rows))

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Of all probes."""
        return [one for answer in self.answers.values() for one in answer.candidates]


def run(subject: Subject, settings: Settings, workdir: pathlib.Path) -> Audit:
    """Asks every probe of the settings; what `workdir/probes` has, of all cases or of the first, is read back.

    Args:
      subject: the network and its cases.
      settings: which probes are asked, and how.
      workdir: of the audit.
    """
    answers, nothing = {}, []
    for probe, own in settings.probes.items():
        path, parts = (workdir / "probes" / f"{probe.slug}{suffix}" for suffix in (".npz", ".parts"))
        asked = dataclasses.replace(subject, progress=Progress(probe.name, parts))
        arrays = kept(path, functools.partial(_measured, probe, asked, own), wanted=probe.wanted(subject))
        shutil.rmtree(parts, ignore_errors=True)
        if _WHY in arrays:
            nothing.append(_of(probe, not_asked(str(arrays[_WHY]))))
            continue
        answers[probe] = probe.tabulate(subject, own, arrays)
        nothing += [_of(probe, row) for row in answers[probe].not_asked]
    candidates = [one for answer in answers.values() for one in answer.candidates]
    return Audit(answers, Table(tuple(nothing)), findings.choose(candidates, most=settings.findings))


def _of(probe: Probe, row: Row) -> Row:
    return dataclasses.replace(row, keys={"probe": probe.name, **row.keys})


def _measured(probe: Probe, subject: Subject, settings: Any) -> Mapping[str, np.ndarray]:
    try:
        with host.plainly():
            return {name: np.asarray(value) for name, value in probe.measure(subject, settings).items()}
    except NotAskedError as reason:
        return {_WHY: np.array(str(reason))}
