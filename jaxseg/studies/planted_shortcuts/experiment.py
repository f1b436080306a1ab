"""Planted shortcuts: a network is trained on every world, and audited."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxseg import atomic
from jaxseg.audit import run as audits
from jaxseg.audit.probe import ALL, SHORTCUTS
from jaxseg.audit.subject import Subject
from jaxseg.metrics.intervals import Estimate
from jaxseg.networks import of_linen
from jaxseg.results.table import Row, Table, table
from jaxseg.studies.base import run_folder
from jaxseg.studies.planted_shortcuts import worlds
from jaxseg.studies.planted_shortcuts.settings import Network, Settings
from jaxseg.training import runs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the audit says of a network."""

    network: Network
    dice: float  # its mean Dice on its own test images, NaN where that was not measured
    findings: tuple[str, ...]  # their kinds, the most harmful first
    candidates: Table  # the numbers that decide on findings of the kind `found_kind`, each with its `margin`

    @property
    def shortcuts(self) -> set[str]:
        """Kinds of shortcuts among the findings."""
        return {kind.name for kind in SHORTCUTS} & set(self.findings)

    @property
    def unclear(self) -> bool:
        """No shortcut is found, and a number of some shortcut tells neither that it is there nor that it is not."""
        names = {kind.name for kind in SHORTCUTS}
        return not self.shortcuts and any(row["open"] for row in self.candidates if row["found_kind"] in names)

    def deciding(self, kind: str) -> Table:
        """Of the numbers of a kind, the one that comes closest to a finding; none where nothing was asked."""
        own = self.candidates.where(found_kind=kind)
        return Table(tuple(sorted(own, key=lambda row: row["margin"] - row.estimate.low)[:1]))


def train_and_audit(settings: Settings, _: None, workdir: pathlib.Path) -> list[Outcome]:
    """What the audit says of every network of the study; kept in the folders of their runs."""
    world = functools.lru_cache(maxsize=1)(functools.partial(worlds.draw, settings))  # pairs come together
    outcomes = []
    for network in settings.networks:
        path = run_folder(workdir, network) / "outcome.json"
        if not path.exists():
            splits = world(network.kind, network.seed)[settings.images(network)]
            atomic.write_json(path, _audit(settings, network, splits, path.parent))
        outcomes.append(_outcome(json.loads(path.read_bytes())))
    return outcomes


def _audit(settings: Settings, network: Network, splits: runs.InMemorySplits, folder: pathlib.Path) -> dict[str, Any]:
    """An outcome as it is stored."""
    run, test = settings.of_run(network), splits["test"]
    runs.train(run, splits, folder)
    model, variables, _ = runs.load_best(run, folder, test.images.shape, test.num_classes)
    subject = Subject(
        network=of_linen(model, variables, image_size=run.data.image_size, channels=test.num_channels),
        resized=run.data.image_size,
        view=run.data.view,
        batch_size=run.training.batch_size,
        test=test,
        familiar=splits["train"],
        name=" ".join(map(str, network)),
    )
    audit = audits.run(subject, settings.audit, folder / "audit")
    return {
        **network._asdict(),
        "dice": _dice(audit.numbers),
        "found": [finding.main.kind.name for finding in audit.findings],
        "candidates": [one.record() for one in audit.candidates],
    }


def _dice(rows: Table) -> float:
    """The mean Dice among the numbers of an audit; NaN if it was not measured."""
    asked = rows.where(probe="accuracy", quantity="Dice", where=ALL)
    return asked[0].estimate.mean if len(asked) else math.nan


def _outcome(stored: Mapping[str, Any]) -> Outcome:
    network = Network(*(stored[name] for name in Network._fields))
    candidates = table(_candidate(network, one) for one in stored["candidates"])
    return Outcome(network, _number(stored["dice"]), tuple(stored["found"]), candidates)


def _candidate(network: Network, stored: Mapping[str, Any]) -> Row:
    mean, low, high = (_number(stored[name]) for name in ("mean", "low", "high"))
    n = stored["n"]
    estimate = Estimate(mean, low, high, n, stored["undefined"], patients=n)  # every case is a patient of its own
    keys = {"probe": stored["probe"], "quantity": stored["quantity"], "found_kind": stored["kind"]}
    more = {name: stored[name] for name in ("margin", "found", "open")}
    return Row({**network._asdict(), **keys}, estimate, stored["quantity"], more=more)


def _number(stored: float | None) -> float:
    """JSON has no NaN."""
    return math.nan if stored is None else float(stored)
