"""An audit, from a network and a data set to the page: `results.json`, tables, figures and `report.html`."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from jaxseg import atomic
from jaxseg.audit import figures as audit_figures
from jaxseg.audit import findings, subject
from jaxseg.audit import run as audits
from jaxseg.audit.answers import Row
from jaxseg.audit.probes import failures
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.numerics import in_32_bits
from jaxseg.prediction.network import load_run
from jaxseg.report import page
from jaxseg.results.text import estimate_text
from jaxseg.training import checks as run_checks
from jaxseg.training import contract, provenance, runs


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be audited: a run, or weights with the config of their network.

    Attributes:
      run: folder of a run.
      weights: file with PyTorch tensors.
      config: of a run, for weights.
      dataset: name of a data set; None is the run's own.
      split: whose cases are asked about.
    """

    run: pathlib.Path | None
    weights: pathlib.Path | None
    config: ml_collections.ConfigDict | None
    dataset: str | None
    split: str


@in_32_bits
def run(
    request: Request,
    settings: ml_collections.ConfigDict,
    *,
    workdir: pathlib.Path,
    prepare: Callable[[str], pathlib.Path],
    command: str,
) -> pathlib.Path:
    """Audits, or goes on where an earlier call was, and writes the report.

    Args:
      request: what is audited.
      settings: as configs/audit.py gives them.
      workdir: of the audit; created, or that of the same audit.
      prepare: name of a data set -> its prepared folder.
      command: that a reader would type to get the same.

    Returns:
      The path of the report page.

    Raises:
      InputError: network, data set, settings or a folder cannot be used.
    """
    audits.check(settings)
    asked, dataset = _load(request, settings, prepare)
    claimed = ml_collections.ConfigDict(
        {"audit": settings.to_dict(), "network": asked.name, "dataset": dataset, "split": request.split}
    )
    runs.claim(workdir, claimed, asked.fingerprint)
    audit = audits.run(asked, settings, workdir)
    origin = {
        "command": command,
        "network": asked.name,
        "data": f"{asked.test.name}: {len(asked.test)} cases",
        "reported": provenance.here(),
        "audit": settings.to_dict(),
    }
    with atomic.writing(workdir):
        verdict, answer = findings.verdict(audit.candidates, audit.found)
        _write_results(workdir, audit, verdict, answer, origin)
        audit_figures.draw(workdir / "figures", asked, settings, audit)
        return _write_page(workdir, asked, audit, verdict, answer, origin)


def _load(
    request: Request, settings: ml_collections.ConfigDict, prepare: Callable[[str], pathlib.Path]
) -> tuple[subject.Subject, str]:
    """The network with its cases, and the name of the data set."""
    if request.run is not None:
        loaded = load_run(request.run, prepare)
        config, own = loaded.config, loaded.config.data.dataset
        dataset = request.dataset or own
        # of a run on other domains, its own data set's test cases show all of them
        directory = prepare(dataset)
        contract.check_split(directory, request.split, loaded.trained_on, request.run)
        test = _cases(directory, config, request.split, settings.cases, ())
        familiar = None
        # elsewhere than on its own data, a run is audited without them too
        with contextlib.suppress(InputError) if dataset != own else contextlib.nullcontext():
            familiar = _cases(prepare(own), config, "train", settings.familiar_cases, config.data.domains)
        return subject.of_run(loaded, test, familiar), dataset
    assert request.weights is not None and request.config is not None and request.dataset is not None
    run_checks.check(request.config)
    directory = prepare(request.dataset)
    test = _cases(directory, request.config, request.split, settings.cases, ())
    # whether they were trained on is not known; they are of the same kind as the test cases
    known = "train" in pipeline.split_sizes(directory)
    familiar_cases = _cases(directory, request.config, "train", settings.familiar_cases, ()) if known else None
    return subject.of_weights(request.weights, request.config, test, familiar_cases), request.dataset


def _cases(
    directory: pathlib.Path, config: ml_collections.ConfigDict, split: str, count: int, domains: Sequence[str]
) -> pipeline.InMemory:
    return subject.read_cases(runs.Splits(directory, config.data.source_size, tuple(domains)), split, count)


def _write_results(
    workdir: pathlib.Path, audit: audits.Audit, verdict: str, answer: str, origin: Mapping[str, Any]
) -> None:
    found = [_finding_row(i, finding) for i, finding in enumerate(audit.found, 1)]
    candidates = [dataclasses.asdict(one) | {"found": one.found} for one in audit.candidates]
    flat = [{k: v for k, v in one.items() if k != "estimate"} | one["estimate"] for one in candidates]
    for name, rows in (("findings", found), ("candidates", flat), ("numbers", audit.rows)):
        atomic.write_csv(workdir / "tables" / f"{name}.csv", rows)
    for probe in dict.fromkeys(r["probe"] for r in audit.rows):
        own = [r for r in audit.rows if r["probe"] == probe]
        atomic.write_csv(workdir / "tables" / f"{probe.replace(' ', '_')}.csv", own)
    verdicts = [{"verdict": verdict, "sentence": answer}]  # as every study's results have them
    results = {"verdicts": verdicts, "findings": found, "candidates": flat, "numbers": audit.rows}
    atomic.write_json(workdir / "results.json", {**results, "what_to_do": _advice(audit), "provenance": origin})


def _finding_row(number: int, finding: findings.Finding) -> Row:
    main = finding.main
    return {
        "number": number,
        "kind": main.kind,
        "shortcut": main.is_shortcut,
        "title": main.title,
        "text": finding.text,
        "quantity": main.quantity,
        **dataclasses.asdict(main.estimate),
        "interval": "bootstrap over patients, 95 %",
        "convention": main.quantity,
        "margin": main.margin,
        "damage": main.damage,
        "what_to_do": main.remedy,
    }


_FLAGS = {
    "mean SA": " (launch.predict flags them)",
    "entropy": " (launch.predict --score=entropy flags them)",
    "SD": " (launch.predict --score=distortion flags them, with an --autoencoder of configs/autoencoder.py)",
}


def _advice(audit: audits.Audit) -> list[str]:
    """One line per finding, then by which score cases are to be flagged."""
    lines = [f"{finding.main.title}: {finding.main.remedy}" for finding in audit.found]
    best = failures.best_score(audit.rows)
    if best is not None:
        correlation = estimate_text(best["mean"], best["low"], best["high"])
        lines.append(
            f"Have the cases with the worst {best['where']} looked at{_FLAGS.get(best['where'], '')}: of the scores "
            f"that need no annotation it orders failures best, with a rank correlation of {correlation}."
        )
    elif any(r["probe"] == failures.NAME for r in audit.rows):
        lines.append("No score orders the failures of this network; do not rely on flags, check a random sample.")
    return lines or ["Nothing was found that needs doing; repeat the audit when cases of a new kind come."]


# -------------------------------------------------------------------------------------------------------------- page


def _write_page(
    workdir: pathlib.Path,
    asked: subject.Subject,
    audit: audits.Audit,
    verdict: str,
    answer: str,
    origin: Mapping[str, Any],
) -> pathlib.Path:
    figure = page.figures_in(workdir)
    margins = ", ".join(sorted({f"{one.margin:g}" for one in audit.candidates}))
    lead = figure(
        "candidates",
        "What was asked, and from where on it is a finding",
        "Dots with intervals: the number behind every possible finding.",
        f"A finding's whole interval lies above its margin ({margins}); see the table of numbers."
        if margins
        else "Nothing that was asked could be a finding; see the tables of numbers.",
        "candidates" if margins else "numbers",
    )
    path = workdir / "report.html"
    shown = page.Page(
        title=f"Audit of {asked.name} on {asked.test.name}",
        question="Does the network use a shortcut?",
        verdict=verdict,
        answer=answer,
        lead=lead,
        facts=_facts(asked, audit),
        sections=[
            *(_finding_section(workdir, figure, i, finding) for i, finding in enumerate(audit.found, 1)),
            page.Section("What to do", _advice(audit)),
            *_evidence(workdir, figure, audit),
            _not_asked(audit),
        ],
    )
    page.write(path, shown, origin)
    return path


def _facts(asked: subject.Subject, audit: audits.Audit) -> list[tuple[str, str]]:
    facts = [("findings", f"{len(audit.found)}"), ("test cases", f"{len(asked.test)}")]
    for r in audit.rows:
        if (r["probe"], r["quantity"], r["where"]) == ("accuracy", "Dice", "all cases"):
            facts.append(("mean Dice", estimate_text(r["mean"], r["low"], r["high"])))
    for finding in audit.found:
        e = finding.main.estimate
        facts.append((finding.main.quantity, estimate_text(e.mean, e.low, e.high)))
    return facts


def _finding_section(
    workdir: pathlib.Path, figure: page.FigureOf, number: int, finding: findings.Finding
) -> page.Section:
    main, name = finding.main, audit_figures.picture_name(finding.main)
    shown = []
    if (workdir / "figures" / f"{name}.png").exists():
        title, alt, caption = audit_figures.caption(main)
        shown = [figure(name, title, alt, caption, audit_figures.table_name(main))]
    estimate = estimate_text(main.estimate.mean, main.estimate.low, main.estimate.high)
    counted = f"{main.estimate.n} cases of {main.estimate.patients} patients, {main.estimate.undefined} undefined"
    return page.Section(
        f"Finding {number}: {main.title}",
        [
            finding.text,
            f"The number: {main.quantity}, {estimate} (95 % interval, bootstrap over patients; {counted}; a finding "
            f"from {main.margin:g} on).",
            f"What to do: {main.remedy}",
        ],
        shown,
    )


def _evidence(workdir: pathlib.Path, figure: page.FigureOf, audit: audits.Audit) -> list[page.Section]:
    sections = []
    titles = {probe.name: probe.title for probe in audits.PROBES}
    above = {audit_figures.picture_name(finding.main) for finding in audit.found}  # drawn once, with the finding
    for name in audit.measured:
        rows = [r for r in audit.rows if r["probe"] == name and not r["convention"].startswith("not asked")]
        if not rows:
            continue
        picture = name.replace(" ", "_")
        there = picture not in above and (workdir / "figures" / f"{picture}.png").exists()
        drawn = [figure(picture, *audit_figures.EVIDENCE[name], picture)] if there else []
        sections.append(page.Section(titles[name], audit_figures.WORDS.get(name, []), drawn, [_table(name, rows)]))
    return sections


def _table(name: str, rows: Sequence[Row]) -> page.Table:
    shown = [
        {
            "quantity": r["quantity"],
            "where": r["where"],
            "estimate": f"{r['mean']:.2f}"
            if r["interval"] == "none" and not math.isnan(r["mean"])
            else estimate_text(r["mean"], r["low"], r["high"]),
            "n": r["n"],
            "undefined": r["undefined"],
        }
        for r in rows
    ]
    headers = {"quantity": "quantity", "where": "where", "estimate": "mean [95 % interval]"}
    note = ". ".join(dict.fromkeys(r["convention"] for r in rows))
    return page.Table(f"Numbers: {name}", shown, f"{note}.", headers | {"n": "n", "undefined": "undefined"})


def _not_asked(audit: audits.Audit) -> page.Section:
    if not audit.not_asked:
        return page.Section("What was not asked", ["Every probe could be asked."])
    lines = [f"{r['probe']}: {r['convention']}." for r in audit.not_asked]
    return page.Section("What was not asked", lines)
