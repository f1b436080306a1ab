"""Planted shortcuts: worlds with a cue and their twins without, and how often an audit tells them apart.

    kind      planted                                       twin
    border    lesions in the middle, zero padding           the same images moved, lesions anywhere
    overlay   scans with calipers and text of the organ,    the same scans without marks
              moved, so that they lie anywhere

Each seed draws a pair of worlds; a network is trained on each, and audited.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import scipy.stats

from jaxseg import atomic
from jaxseg.audit import run as audits
from jaxseg.audit.answers import SHORTCUTS
from jaxseg.audit.subject import Subject
from jaxseg.data import pipeline
from jaxseg.data.synthetic import dermoscopy, ultrasound
from jaxseg.errors import InputError
from jaxseg.results.claims import Verdict
from jaxseg.training import checks, runs

KINDS = ("border", "overlay")
ARMS = ("planted", "twin")
SPLITS = ("train", "validation", "test")
_DERMOSCOPY, _ULTRASOUND = 1000, 3000  # added to the seed, so that no data set's images are drawn
Drawn = tuple[np.ndarray, np.ndarray]  # image and labels
Row = dict[str, Any]
Outcome = dict[str, Any]  # of a network: kind, arm, seed, dice, found (kinds) and candidates


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config; raises InputError, before anything is computed, when a field of the study cannot work."""
    if config.get("study") != "planted_shortcuts":
        raise InputError("the config is not this study's; give configs/planted_shortcuts.py")
    for name, known in (("kinds", KINDS), ("seeds", None)):
        values = config[name]
        if not values or len(set(values)) < len(values) or (known and set(values) - set(known)):
            wanted = f"some of {', '.join(known)}" if known else "numbers"
            raise InputError(f"config.{name} is {values!r}; give {wanted}, each once")
    if min(config.seeds) < 0:
        raise InputError(f"config.seeds is {config.seeds!r}; seeds are at least 0")
    if config.data.source_size != config.data.image_size:
        raise InputError(
            f"config.data.source_size is {config.data.source_size}, image_size {config.data.image_size}; images are "
            "drawn at the size that the network sees, so give the same"
        )
    for kind in config.kinds:
        for name in (*SPLITS, "epochs"):
            if config.worlds[kind][name] < 1:
                raise InputError(f"config.worlds.{kind}.{name} is {config.worlds[kind][name]}; it must be at least 1")
        checks.check(run_config(config, kind, config.seeds[0]))
    return config


def run_config(config: ml_collections.ConfigDict, kind: str, seed: int) -> ml_collections.ConfigDict:
    """The config of one training run."""
    run = ml_collections.ConfigDict(checks.run_fields(config))
    run.seed = seed
    run.training.epochs = config.worlds[kind].epochs
    return run.lock()


def run_folder(workdir: pathlib.Path, kind: str, arm: str, seed: int) -> pathlib.Path:
    """Where a network keeps its checkpoints and its audit."""
    return workdir / "runs" / f"{kind}_{arm}_{seed}"


def draw(config: ml_collections.ConfigDict, kind: str, seed: int) -> dict[str, runs.InMemorySplits]:
    """The world of a kind and a seed, planted and twin, from the same scenes."""
    size, first = config.data.image_size, 0
    parts: dict[str, dict[str, pipeline.InMemory]] = {arm: {} for arm in ARMS}
    for split in SPLITS:
        count = config.worlds[kind][split]
        scenes = range(first, first + count)
        pairs = [_scene(config, kind, seed, scene, size) for scene in scenes]
        for arm, drawn in zip(ARMS, zip(*pairs, strict=True), strict=True):
            parts[arm][split] = _in_memory(f"{kind} {arm} {seed}/{split}", kind, drawn, scenes)
        first += count
    return {arm: runs.InMemorySplits(of_arm) for arm, of_arm in parts.items()}


def _scene(config: ml_collections.ConfigDict, kind: str, seed: int, scene: int, size: int) -> tuple[Drawn, Drawn]:
    if kind == "border":
        centred = dermoscopy.render(_DERMOSCOPY + seed, scene, size)
        return centred, place_anywhere(np.random.default_rng([seed, scene]), *centred)
    difficulty = config.worlds.difficulty
    frame = ultrasound.render(_ULTRASOUND + seed, scene, size, plane="head", difficulty=difficulty)
    labels = (frame.labels > 0).astype(np.uint8)
    # left where they are, in the middle, heads would plant the other shortcut too
    move = lambda image: place_anywhere(np.random.default_rng([seed, scene]), image, labels)
    return move(frame.image), move(frame.clean)


def place_anywhere(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> Drawn:
    """The image moved so that the object's centre lies anywhere in it, mirrored where there is none.

    Args:
      rng: draws the place, uniformly over the image.
      image: uint8 `[S,S,C]`.
      labels: uint8 `[S,S]`; of an empty mask the image's own centre is moved.
    """
    size = len(labels)
    there = np.argwhere(labels)
    centre = there.mean(0) if len(there) else np.full(2, (size - 1) / 2)
    for axis, shift in enumerate(np.round(rng.uniform(0, size, 2) - 0.5 - centre).astype(int)):
        wanted = np.mod(np.arange(size) - shift, 2 * size)
        wanted = np.where(wanted < size, wanted, 2 * size - 1 - wanted)
        image, labels = image.take(wanted, axis), labels.take(wanted, axis)
    return image, labels


def _in_memory(name: str, kind: str, drawn: Sequence[Drawn], scenes: range) -> pipeline.InMemory:
    images, labels = (np.ascontiguousarray(np.stack(arrays)) for arrays in zip(*drawn, strict=True))
    names = tuple(f"scene{scene:05d}" for scene in scenes)
    classes = "background", {"border": "lesion", "overlay": "head"}[kind]
    return pipeline.InMemory(name, classes, images, labels, names, names, *pipeline.nowhere(len(names)))


def train_and_audit(config: ml_collections.ConfigDict, _: None, workdir: pathlib.Path) -> list[Outcome]:
    """What the audit says of every network of the study."""
    return [one for kind in config.kinds for seed in config.seeds for one in _pair(config, kind, seed, workdir)]


def _pair(config: ml_collections.ConfigDict, kind: str, seed: int, workdir: pathlib.Path) -> list[Outcome]:
    """What the audit says of a planted network and of its twin; kept in their folders."""
    places = {arm: run_folder(workdir, kind, arm, seed) / "outcome.json" for arm in ARMS}
    if not all(path.exists() for path in places.values()):
        worlds = draw(config, kind, seed)
        for arm, path in places.items():
            if not path.exists():
                atomic.write_json(path, _audit(config, kind, arm, seed, worlds[arm], path.parent))
    return [json.loads(path.read_bytes()) for path in places.values()]


def _audit(
    config: ml_collections.ConfigDict,
    kind: str,
    arm: str,
    seed: int,
    splits: runs.InMemorySplits,
    folder: pathlib.Path,
) -> Outcome:
    own = run_config(config, kind, seed)
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
        "dice": dice_of(found.rows),
        "found": [finding.main.kind for finding in found.found],
        "candidates": [
            {"kind": one.kind, "probe": one.probe, "quantity": one.quantity, "margin": one.margin, "found": one.found}
            | {name: getattr(one.estimate, name) for name in ("mean", "low", "high", "n", "undefined")}
            for one in found.candidates
        ],
    }


@dataclasses.dataclass(frozen=True)
class Tables:
    """The numbers of the study, one row each.

    Attributes:
      counts: per kind, in how many planted networks it was found, and in how many twins any shortcut; `silent` ones
        are `unclear` where an interval reaches beyond its margin.
      networks: every network, with its Dice and what was found.
      numbers: the number of every candidate of every network.
    """

    counts: Sequence[Row]
    networks: Sequence[Row]
    numbers: Sequence[Row]


def tabulate(config: ml_collections.ConfigDict, outcomes: Sequence[Mapping[str, Any]]) -> Tables:
    """Counts over seeds.

    Args:
      config: of the study.
      outcomes: per network `kind`, `arm`, `seed`, `dice`, `found` (kinds of its findings, the most harmful first) and
        `candidates` (kind, probe, quantity, mean, low, high, n, margin).
    """
    counts = [_count(config, outcomes, kind, arm) for kind in config.kinds for arm in ARMS]
    networks = [
        {name: outcome[name] for name in ("kind", "arm", "seed")}
        | {"dice": outcome["dice"], "learned": outcome["dice"] > config.learned}
        | {"planted_kind_found": outcome["kind"] in outcome["found"]}
        | {"other_findings": ", ".join(kind for kind in outcome["found"] if kind != outcome["kind"])}
        for outcome in outcomes
    ]
    numbers = [
        {name: outcome[name] for name in ("kind", "arm", "seed")} | dict(one) | {"found_kind": one["kind"]}
        | {"kind": outcome["kind"], "interval": "bootstrap over patients, 95 %", "convention": one["quantity"]}
        for outcome in outcomes for one in outcome["candidates"]
    ]  # fmt: skip
    return Tables(counts, networks, numbers)


def _count(
    config: ml_collections.ConfigDict,
    outcomes: Sequence[Mapping[str, Any]],
    kind: str,
    arm: str,
) -> Row:
    own = [outcome for outcome in outcomes if (outcome["kind"], outcome["arm"]) == (kind, arm)]
    counted = {kind} if arm == "planted" else set(SHORTCUTS)  # in a twin, any shortcut is a false alarm
    found = sum(bool(counted & set(outcome["found"])) for outcome in own)
    unclear = sum(not set(SHORTCUTS) & set(outcome["found"]) and _is_open(outcome) for outcome in own)
    low, high = exact_interval(found, len(own))
    dice = [outcome["dice"] for outcome in own]
    return {
        "kind": kind,
        "arm": arm,
        "found": found,
        "silent": len(own) - found,
        "unclear": unclear,
        "mean": found / len(own),
        "low": low,
        "high": high,
        "n": len(own),
        "undefined": 0,
        "interval": "Clopper-Pearson over seeds, 95 %",
        "convention": f"share of networks with a finding of the kind {' or '.join(sorted(counted))}",
        "learned": sum(value > config.learned for value in dice),
        "least_dice": min(dice),
        "other_findings": sum(bool(set(outcome["found"]) - counted) for outcome in own),
    }


def _is_open(outcome: Mapping[str, Any]) -> bool:
    """Whether the interval of some shortcut's number reaches beyond its margin, so that the audit says "unclear"."""
    numbers = [one for one in outcome["candidates"] if one["kind"] in SHORTCUTS and one["high"] is not None]
    return any(one["high"] > one["margin"] for one in numbers)


def exact_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """The interval of a rate (Clopper and Pearson 1934), which covers at least the level."""
    tail = (1 - level) / 2
    low = scipy.stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = scipy.stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def verdict(config: ml_collections.ConfigDict, counts: Sequence[Mapping[str, Any]]) -> Verdict:
    """yes: of every kind the interval of the rate of detection lies above that of false alarms; partly: of some."""
    by = {(r["kind"], r["arm"]): r for r in counts}
    apart = [by[kind, "planted"]["low"] > by[kind, "twin"]["high"] for kind in config.kinds]
    answer = "yes" if all(apart) else "partly" if any(apart) else "no"
    parts = [
        "{kind}: found in {found} of {n} networks with the planted cue [{low:.2f}, {high:.2f}]".format(
            **by[kind, "planted"]
        )
        + ", any shortcut in {found} of {n} twins [{low:.2f}, {high:.2f}]".format(**by[kind, "twin"])
        for kind in config.kinds
    ]
    return Verdict(answer, f"{'; '.join(parts)} (rates with exact 95 % intervals over seeds).")


def dice_of(rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean Dice among the rows of an audit; NaN if it was not asked."""
    found = [r["mean"] for r in rows if (r["probe"], r["quantity"], r["where"]) == ("accuracy", "Dice", "all cases")]
    return float(found[0]) if found else math.nan
