"""The life of a study, from its config to its report; every folder beside this file is a study."""

import dataclasses
import importlib
import pathlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import ml_collections

from jaxseg import atomic, studies
from jaxseg.errors import InputError
from jaxseg.numerics import in_32_bits
from jaxseg.report import canvas, page
from jaxseg.results import table
from jaxseg.studies.base import Cases, Data, Measured, Report, Settings, Study, Tables
from jaxseg.training import provenance, runs


@in_32_bits
def run(
    config: ml_collections.ConfigDict,
    *,
    workdir: pathlib.Path,
    data_dir: pathlib.Path,
    manual_dir: str | None,
    command: str,
) -> pathlib.Path:
    """Runs, or resumes, the study that `config.study` names, and writes its report.

    The report is `results.json`, a CSV file for each table, figures, and `report.html`.

    Args:
      config: as the file of that name in configs/ gives it.
      workdir: of the study; created, or with the same config.
      data_dir: of prepared data sets.
      manual_dir: of raw files; None if the data set is embedded or prepared.
      command: that a reader would type to get the same.

    Returns:
      The path of the report page.

    Raises:
      InputError: the config is no study's, or the config, a folder or a raw file is unusable.
    """
    study = _named(config.get("study"))
    settings = study.settings(config)
    known = study.known(config)
    runs.claim(workdir, known)  # before anything is prepared; it is written when the data are known
    cases = study.gather(settings, Data(data_dir, manual_dir))
    runs.claim(workdir, known, data=study.fingerprints(cases))
    measured = study.measure(settings, cases, workdir)
    tables = study.tabulate(settings, cases, measured)
    judgement = study.judge(settings, tables)
    origin = _origin(config, study.folders(settings, workdir), command, study.describe(settings, cases))
    return write(study, Report(workdir, config.size, settings, cases, measured, tables, judgement, origin))


def write(
    study: Study[Settings, Cases, Measured, Tables], report: Report[Settings, Cases, Measured, Tables]
) -> pathlib.Path:
    """Writes `results.json`, tables, figures and the page, whose path is returned; raises InputError if it cannot."""
    path = report.workdir / "report.html"
    with atomic.writing(report.workdir):
        _write_results(report)
        with canvas.one_page():
            study.draw(report)
        page.write(path, study.page(report), report.origin)
    return path


def _named(name: Any) -> Study[Any, Any, Any, Any]:
    known = [module.name for module in pkgutil.iter_modules(studies.__path__) if module.ispkg]
    if name not in known:
        raise InputError(
            f"the config is not a study's (config.study is {name!r}); give configs/NAME.py with NAME one of "
            f"{', '.join(known)}, or use launch.train"
        )
    study: Study[Any, Any, Any, Any] = importlib.import_module(f"{studies.__name__}.{name}.study").STUDY
    return study


def _origin(
    config: ml_collections.ConfigDict, folders: Iterable[pathlib.Path], command: str, data: str
) -> dict[str, Any]:
    """Where each run was trained, and where this report was written, which may be elsewhere and later."""
    sessions = [session for folder in folders for session in provenance.sessions(folder)]
    return {
        "command": command,
        "trained": list(dict.fromkeys(f"{session['date']}, {session['machine']}" for session in sessions)),
        "trained_with": {name: v for session in sessions for name, v in session["versions"].items()},
        "reported": provenance.here(),
        "data": data,
        "config": config.to_dict(),
    }


def _write_results(report: Report[Any, Any, Any, Any]) -> None:
    """Writes `results.json` and a CSV file for each table, the paper's claims among them."""
    named, claims = report.tables, report.judgement.claims
    tables = {field.name: table.records(getattr(named, field.name)) for field in dataclasses.fields(named)}
    if claims:
        tables = {"claims": [claim.record() for claim in claims]} | tables
    for name, rows in tables.items():
        atomic.write_csv(report.workdir / "tables" / f"{name}.csv", rows)
    answers = [verdict.record() for verdict in report.judgement.verdicts]
    of = {"study": report.origin["config"]["study"], "size": report.size}
    results = {**of, "verdicts": answers, **tables, "provenance": report.origin}
    atomic.write_json(report.workdir / "results.json", results)
