"""The planted-shortcuts study, from config to report page: draws, trains, audits every network, counts."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from jaxseg.audit import run as audits
from jaxseg.audit.answers import SHORTCUTS
from jaxseg.audit.subject import Subject
from jaxseg.report import figures, page, study_parts, tables
from jaxseg.studies import planted_shortcuts as study
from jaxseg.training import runs


def run(
    config: ml_collections.ConfigDict,
    *,
    workdir: pathlib.Path,
    data_dir: pathlib.Path,
    manual_dir: str | None,
    command: str,
) -> pathlib.Path:
    """Runs the study, or what is left of it, and writes its report: see `studies.run`."""
    del data_dir, manual_dir  # everything is drawn
    study.check(config)
    audits.check(config.audit)
    runs.claim(workdir, config, {})
    with study_parts.writing(workdir):
        outcomes = [one for kind in config.kinds for seed in config.seeds for one in _pair(config, kind, seed, workdir)]
        results = study.tabulate(config, outcomes, SHORTCUTS)
        answer = study.verdict(config, results.counts)
        folders = [study.run_folder(workdir, o["kind"], o["arm"], o["seed"]) for o in outcomes]
        data = f"drawn: {len(config.seeds)} seeds, {len(outcomes)} networks"
        origin = study_parts.origin(config, command, folders, data)
        study_parts.write_results(workdir, config, results, [answer], origin)
        return _write_page(workdir, config, results, answer, origin)


def _pair(config: ml_collections.ConfigDict, kind: str, seed: int, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """What the audit says of a planted network and of its twin; kept in their folders."""
    places = {arm: study.run_folder(workdir, kind, arm, seed) / "outcome.json" for arm in study.ARMS}
    if not all(path.exists() for path in places.values()):
        worlds = study.draw(config, kind, seed)
        for arm, path in places.items():
            if not path.exists():
                tables.write_json(path, _audit(config, kind, arm, seed, worlds[arm], path.parent))
    return [json.loads(path.read_text()) for path in places.values()]


def _audit(
    config: ml_collections.ConfigDict,
    kind: str,
    arm: str,
    seed: int,
    splits: runs.InMemorySplits,
    folder: pathlib.Path,
) -> dict[str, Any]:
    own = study.run_config(config, kind, seed)
    runs.train(own, splits, folder)
    test = splits["test"]
    model, variables, _ = runs.load_best(own, folder, test.images.shape, test.num_classes)
    subject = Subject(
        model=model,
        variables=variables,
        image_size=own.data.image_size,
        view=own.data.view,
        batch_size=own.training.batch_size,
        test=test,
        familiar=splits["train"],
        name=f"{kind} {arm} {seed}",
    )
    found = audits.run(subject, config.audit, folder / "audit")
    return {
        "kind": kind,
        "arm": arm,
        "seed": seed,
        "dice": study.dice_of(found.rows),
        "found": [finding.main.kind for finding in found.found],
        "candidates": [
            {"kind": one.kind, "probe": one.probe, "quantity": one.quantity, "margin": one.margin, "found": one.found}
            | {name: getattr(one.estimate, name) for name in ("mean", "low", "high", "n", "undefined")}
            for one in found.candidates
        ],
    }


_ARM_NAMES = {"planted": "planted", "twin": "twin without the cue"}


def _write_page(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    results: study.Tables,
    answer: study.Verdict,
    origin: Mapping[str, Any],
) -> pathlib.Path:
    figure = study_parts.figure_in(workdir)
    rates = [(f"{r['kind']}, {_ARM_NAMES[r['arm']]}", r["arm"], r["mean"], r["low"], r["high"]) for r in results.counts]
    figures.dots(workdir / "figures" / "rates.png", rates, xlabel="share of networks with a shortcut found")
    sections = [_counts(results), *(_kind_section(workdir, figure, results, kind) for kind in config.kinds)]
    path = workdir / "report.html"
    page.write(
        path,
        title=f"Planted shortcuts ({config.size})",
        question="Does the audit find a planted shortcut, and is it silent on the twin without it?",
        verdict=answer.verdict,
        answer=answer.sentence,
        lead=figure(
            "rates",
            "How often the audit finds a shortcut",
            "Dots with intervals: share of planted networks with that kind found, of twins with any shortcut found.",
            "Exact intervals over seeds (Clopper and Pearson).",
            "counts",
        ),
        facts=[
            (f"{r['kind']}, {r['arm']}", f"{r['found']} of {r['n']} found, {r['learned']} learned")
            for r in results.counts
        ],
        sections=sections,
        provenance=study_parts.in_words(origin),
    )
    return path


def _counts(results: study.Tables) -> page.Section:
    columns = {
        **{"kind": "kind", "arm": "images", "found": "found", "silent": "silent", "unclear": "of these unclear"},
        **{"rate": "rate [95 % interval]", "learned": "learned", "least_dice": "least Dice"},
        **{"other_findings": "with other findings"},
    }
    rows = [dict(r) | {"rate": tables.estimate_text(r["mean"], r["low"], r["high"])} for r in results.counts]
    text = (
        "Every seed draws its own scenes, once with the cue and once without, and trains a network on each. A planted "
        "network counts when the planted kind is among the findings; a twin counts, as a false alarm, when any kind of "
        "shortcut is. Of a silent one the audit says 'unclear' where an interval reaches beyond its margin: with more "
        "test cases it would say no, or find something. Findings of low Dice, calibration or domains are no shortcuts."
    )
    return page.Section("Counted", [text], [], [page.Table("Found and silent", rows, "", columns)])


def _kind_section(workdir: pathlib.Path, figure: study_parts.Figure, results: study.Tables, kind: str) -> page.Section:
    rows = [r for r in results.numbers if (r["kind"], r["found_kind"]) == (kind, kind)]
    number = lambda value: float("nan") if value is None else float(value)
    shown = []
    for r in sorted(rows, key=lambda r: (r["quantity"], r["arm"], r["seed"])):
        label = f"{r['quantity']}, seed {r['seed']}"
        shown.append((label, _ARM_NAMES[r["arm"]], number(r["mean"]), number(r["low"]), number(r["high"])))
    drawn = []
    if shown:
        figures.dots(workdir / "figures" / f"{kind}.png", shown, xlabel="number of the audit, 95 % interval")
        title = f"The audit's numbers, {kind}"
        alt = f"Dots with intervals of the numbers that decide on {kind}, for every network."
        drawn = [figure(kind, title, alt, f"A finding lies above {rows[0]['margin']} with its interval.", "numbers")]
    networks = [r for r in results.networks if r["kind"] == kind]
    columns = {
        **{"arm": "images", "seed": "seed", "dice": "Dice", "learned": "learned"},
        **{"planted_kind_found": f"{kind} found", "other_findings": "other findings"},
    }
    return page.Section(f"The kind {kind}", [], drawn, [page.Table("Networks", networks, "", columns)])
