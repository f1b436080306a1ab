"""An audit, from a network and a data set to the page: `results.json`, tables, figures and `report.html`."""

import dataclasses
import functools
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg import atomic
from jaxseg.audit import findings, right_input, same_network, subject
from jaxseg.audit import run as audits
from jaxseg.audit.probe import ALL, Candidate, Figure, Probe
from jaxseg.audit.progress import Progress
from jaxseg.audit.request import Request, load
from jaxseg.numerics import in_32_bits
from jaxseg.report import canvas, estimates, figures, page
from jaxseg.results.claims import Verdict
from jaxseg.results.stored import kept
from jaxseg.results.table import OVER_PATIENTS
from jaxseg.results.text import text_of
from jaxseg.training import provenance, runs


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of an audit.

    Attributes:
      page: the report.
      verdict: whether the network uses a shortcut: yes, no or unclear.
      findings: the most harmful first, each with `kind`, `sentence` and `estimate`.
    """

    page: pathlib.Path
    verdict: str
    findings: tuple[findings.Finding, ...]


@in_32_bits
def run(
    request: Request,
    config: ml_collections.ConfigDict,
    *,
    workdir: pathlib.Path,
    prepare: Callable[[str], pathlib.Path],
    command: str,
) -> Result:
    """Audits, or resumes an earlier call, and writes the report.

    Args:
      request: what is audited.
      config: as configs/audit.py gives it.
      workdir: of the audit; created, or that of the same audit.
      prepare: name of a data set -> its prepared folder.
      command: that a reader would type to get the same.

    Raises:
      InputError: network, data set, config or a folder cannot be used, the folder was made with another network, or the
        network does not have the Dice that it is known for.
    """
    settings = audits.settings(config)
    if request.known_dice is not None:
        right_input.check_known(request.known_dice)
    asked, dataset = load(request, settings, prepare)
    parts = workdir / "input.parts" if request.known_dice is None else None
    measure = functools.cache(dataclasses.replace(asked, progress=Progress("Dice", parts)).dice)
    if request.known_dice is not None:  # before anything is written
        _check_dice(asked, measure(), request.known_dice)
    claimed = ml_collections.ConfigDict(
        {"audit": config.to_dict(), "network": asked.name, "dataset": dataset, "split": request.split}
    )
    runs.claim(workdir, claimed, data=asked.fingerprint)
    same_network.check(asked, workdir)
    dice = kept(workdir / "input.npz", lambda: {"dice": measure()})["dice"]
    shutil.rmtree(workdir / "input.parts", ignore_errors=True)
    if request.known_dice is not None:  # what is shown may have been measured by an earlier call
        same_network.check_dice(measure(), dice, workdir)
        _check_dice(asked, dice, request.known_dice)
    opening = right_input.opening(asked, right_input.mean_dice(dice), request.known_dice)
    audit = audits.run(asked, settings, workdir)
    origin = {
        "command": command,
        "network": asked.name,
        "data": f"{asked.test.name}: {len(asked.test)} cases",
        "reported": provenance.here(),
        "audit": config.to_dict(),
        **asked.made_with,
    }
    verdict = findings.verdict(audit.candidates)
    with atomic.writing(workdir):
        _write_results(workdir, audit, verdict, origin)
        with canvas.one_page(*_GROUPS.values()):
            _draw(workdir / "figures", audit)
        path = workdir / "report.html"
        made = _page(workdir, asked, audit, verdict, opening, left_out=audits.left_out(settings))
        page.write(path, made, origin)
    return Result(path, verdict.verdict, tuple(audit.findings))


def _check_dice(asked: subject.Subject, dice: np.ndarray, known: float) -> None:
    cases = f"{len(asked.test)} cases of {asked.test.name}"
    right_input.check(asked.name, cases, right_input.mean_dice(dice), known)


def _write_results(workdir: pathlib.Path, audit: audits.Audit, verdict: Verdict, origin: Mapping[str, Any]) -> None:
    found = [_finding_record(i, finding) for i, finding in enumerate(audit.findings, 1)]
    candidates = [one.record() for one in audit.candidates]
    numbers = [row.record() for row in audit.numbers]
    for name, records in (("findings", found), ("candidates", candidates), ("numbers", numbers)):
        atomic.write_csv(workdir / "tables" / f"{name}.csv", records)
    for probe in audit.answers:
        atomic.write_csv(workdir / "tables" / f"{probe.slug}.csv", [row.record() for row in audit.rows(probe)])
    results = {"verdicts": [verdict.record()], "findings": found, "candidates": candidates, "numbers": numbers}
    atomic.write_json(workdir / "results.json", {**results, "what_to_do": _advice(audit), "provenance": origin})


def _finding_record(number: int, finding: findings.Finding) -> dict[str, Any]:
    main = finding.main
    return {
        "number": number,
        "kind": main.kind.name,
        "shortcut": main.kind.is_shortcut,
        "title": main.title,
        "text": finding.text,
        "quantity": main.quantity,
        **dataclasses.asdict(main.estimate),
        "interval": OVER_PATIENTS,
        "convention": main.quantity,
        "margin": main.margin,
        "damage": main.damage,
        "what_to_do": main.remedy,
    }


def _advice(audit: audits.Audit) -> list[str]:
    """One line per finding, then what probes advise whatever was found."""
    lines = [f"{finding.main.title}: {finding.main.remedy}" for finding in audit.findings]
    lines += [answer.advice for answer in audit.answers.values() if answer.advice]
    return lines or ["Nothing was found that needs doing; repeat the audit when cases of a new kind come."]


# -------------------------------------------------------------------------------------------------------------- page


_GROUPS = {False: "no finding", True: "finding"}


def _draw(folder: pathlib.Path, audit: audits.Audit) -> None:
    """The figures of everything that was measured; those of findings show cases."""
    known = [one for one in audit.candidates if not math.isnan(one.estimate.mean)]
    dots = [(one.quantity, _GROUPS[one.found], one.estimate.mean, one.estimate.low, one.estimate.high) for one in known]
    nothing = ("nothing could be asked", "", math.nan, math.nan, math.nan)
    limits = [one.margin for one in known]
    label, limit = "number with 95 % interval", "limit of what is wanted" if known else ""
    figures.dots(folder / "candidates.png", dots or [nothing], xlabel=label, limits=limits, limit=limit)
    evidence = [one for answer in audit.answers.values() for one in answer.figures]
    for one in {one.name: one for one in (*evidence, *_shown_findings(audit))}.values():
        one.draw(folder / f"{one.name}.png")


def _shown_findings(audit: audits.Audit) -> list[Figure]:
    return [finding.main.figure for finding in audit.findings if finding.main.figure]


def _page(
    workdir: pathlib.Path,
    asked: subject.Subject,
    audit: audits.Audit,
    verdict: Verdict,
    opening: str,
    *,
    left_out: Sequence[str],
) -> page.Page:
    figure = page.figures_in(workdir)
    wanted = _wanted(audit.candidates) if audit.candidates else ""
    lead = figure(
        "candidates",
        "What was asked, and from where on it is a finding",
        "Dots with intervals: the number of every possible finding, with the limit of what is wanted.",
        f"Wanted: {wanted}. A finding's whole interval lies beyond."
        if wanted
        else "Nothing that was asked could be a finding; see the tables of numbers.",
        "candidates" if wanted else "numbers",
    )
    return page.Page(
        title=f"Audit of {asked.name} on {asked.test.name}",
        question="Does the network use a shortcut?",
        verdict=verdict.verdict,
        answer=verdict.sentence,
        opening=opening,
        bad="yes",
        lead=lead,
        facts=_facts(asked, audit),
        sections=[
            *(_finding_section(figure, i, finding) for i, finding in enumerate(audit.findings, 1)),
            page.Section("What to do", _advice(audit)),
            *([page.Section("How the cases are seen", asked.notes)] if asked.notes else []),
            *(_evidence(figure, audit, probe) for probe in audit.answers if len(audit.rows(probe))),
            _not_asked(audit, left_out),
        ],
    )


def _wanted(candidates: Sequence[Candidate]) -> str:
    """What is wanted of the numbers, those that most have in common last."""
    of: dict[str, list[str]] = {}
    for one in candidates:
        of.setdefault(one.wanted, []).append(one.quantity)
    *rare, usual = sorted(of, key=lambda wanted: len(of[wanted]))
    told = [f"{', '.join(of[wanted])} {wanted}" for wanted in rare]
    names = of[usual] if len(of[usual]) == 1 else ["the others" if rare else "all"]
    return "; ".join([*told, f"{names[0]} {usual}"])


def _facts(asked: subject.Subject, audit: audits.Audit) -> list[tuple[str, str]]:
    facts = [("findings", f"{len(audit.findings)}"), ("test cases", f"{len(asked.test)}")]
    facts += [fact for answer in audit.answers.values() for fact in answer.facts]
    facts += [(finding.main.quantity, text_of(finding.main.estimate)) for finding in audit.findings]
    return list(dict.fromkeys(facts))  # a finding may be of a key number


def _shown(figure: page.FigureOf, one: Figure) -> page.Figure:
    return figure(one.name, one.title, one.alt, one.caption, one.table or one.name)


def _finding_section(figure: page.FigureOf, number: int, finding: findings.Finding) -> page.Section:
    main, estimate = finding.main, finding.main.estimate
    counted = f"{estimate.n} cases of {estimate.patients} patients, {estimate.undefined} undefined"
    text = [
        finding.text,
        f"The number: {main.quantity} {text_of(estimate)}, wanted {main.wanted} (95 % interval, bootstrap over "
        f"patients; {counted}).",
        f"What to do: {main.remedy}",
    ]
    drawn = [_shown(figure, main.figure)] if main.figure else []
    return page.Section(f"Finding {number}: {main.title}", text, drawn)


def _evidence(figure: page.FigureOf, audit: audits.Audit, probe: Probe) -> page.Section:
    answer = audit.answers[probe]
    above = {one.name for one in _shown_findings(audit)}  # drawn once, with the finding
    drawn = [_shown(figure, one) for one in answer.figures if one.name not in above]
    numbers = estimates.table(f"Numbers: {probe.name}", audit.rows(probe), ("quantity", "where"))
    return page.Section(probe.question, answer.text, drawn, [numbers])


def _not_asked(audit: audits.Audit, left_out: Sequence[str]) -> page.Section:
    parts: dict[tuple[str, str], list[str]] = {}  # one reason may be that of several scores
    for row in audit.not_asked:
        own = parts.setdefault((row["probe"], row.convention), [])
        own += [row["where"]] if row["where"] not in (ALL, row.convention.removeprefix("not asked: ")) else []
    of = lambda names: f" ({', '.join(names)})" if names else ""
    lines = [f"{probe}{of(names)}: {why}." for (probe, why), names in parts.items()]
    if left_out:
        lines.append(f"Left out by the settings (probes): {', '.join(left_out)}.")
    return page.Section("What was not asked", lines or ["Every probe could be asked."])
