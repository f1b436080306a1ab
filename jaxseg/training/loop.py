"""Runs the steps: checkpoints, metrics and messages out. Called again, it resumes."""

import contextlib
import dataclasses
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from jaxseg import atomic
from jaxseg.errors import InputError, Preempted
from jaxseg.training import checkpoints, parallel, preemption, provenance
from jaxseg.training.checkpoints import Checkpoints
from jaxseg.training.logs import MetricLog
from jaxseg.training.programs import Program
from jaxseg.training.state import TrainState

Summarise = Callable[[np.ndarray], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Loop:
    """What `fit` runs.

    Attributes:
      program: training and validation on the devices.
      summarise: the validation scores of all cases `[N,...]` -> metrics by name.
      selection: the metric by which the best checkpoint is chosen, and 1 where more is better, -1 where less is.
      patience: validations without a better one after which a run ends; 0 never ends it.
      total_steps: updates in all.
      evaluate_every: updates between two validations, each followed by a checkpoint.
      save_every: updates between two further checkpoints; 0 for none.
      steps_per_call: updates in one call of the program.
      learning_rate: of the update that follows so many others, for the log.
      skip_nonfinite: whether the program leaves out steps that are not finite; else they end the run.
      tensors: what the entries of the metric `finite` are about.
      name: shown by the progress bar.
      keep_every: updates between two checkpoints that stay, beside the newest and the best; 0 for none.
    """

    program: Program
    summarise: Summarise
    selection: tuple[str, int]
    patience: int
    total_steps: int
    evaluate_every: int
    save_every: int
    steps_per_call: int
    learning_rate: Callable[[int], Any]
    skip_nonfinite: bool
    tensors: tuple[str, ...]
    name: str
    keep_every: int = 0

    def boundary(self, step: int) -> int:
        """The next step after `step` that is followed by a validation or a save, or is the last."""
        ends = [every * (step // every + 1) for every in (self.evaluate_every, self.save_every) if every]
        return min(self.total_steps, *ends)

    def evaluates(self, step: int) -> bool:
        """Whether a validation follows `step`."""
        return step % self.evaluate_every == 0 or step == self.total_steps


@dataclasses.dataclass
class Progress:
    """What a member needs to know of its past besides its state; a checkpoint holds it.

    Attributes:
      best: the highest score so far, None before the first defined one.
      best_step: its step.
      since_best: validations since then.
      stopped: whether early stopping has ended the run.
      sums: of the training metrics since the last validation.
      count: steps in `sums`.
      skipped: steps since the last validation that were not finite.
      updates: steps so far that were finite, which the schedule counts.
    """

    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    stopped: bool = False
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0
    skipped: int = 0
    updates: int = 0

    def book(self, loss: float, grad_norm: float, finite: bool) -> None:
        """Adds a training step."""
        if not finite:
            self.skipped += 1
            return
        self.count += 1
        self.updates += 1
        for name, value in (("loss", loss), ("grad_norm", grad_norm)):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def training_row(self) -> dict[str, float]:
        """Means since the last validation, which begin anew."""
        row = {name: total / self.count for name, total in self.sums.items()} | {"skipped_steps": float(self.skipped)}
        self.sums, self.count, self.skipped = {}, 0, 0
        return row

    def validate(self, score: float | None, step: int, patience: int) -> None:
        """Notes the score of a validation."""
        if score is not None and (self.best is None or score > self.best):
            self.best, self.best_step, self.since_best = score, step, 0
        else:
            self.since_best += 1
        self.stopped = bool(patience) and self.since_best >= patience


def fit(loop: Loop, fresh: list[TrainState], folders: Sequence[pathlib.Path], values: Sequence[Any]) -> None:
    """Trains every member from `fresh`, or from its newest checkpoint, to the end.

    Leaves in each folder `checkpoints` with the newest and the best step, `metrics.jsonl`, and at the end
    `summary.json`.

    Args:
      loop: what is run.
      fresh: a state per member; emptied.
      folders: one per member.
      values: per member, what JSON can hold and every checkpoint shall.

    Raises:
      InputError: loss or gradient are not finite (the last checkpoint is kept), or something cannot be written.
      Preempted: SIGTERM came, and the work is saved.
      LostProcess: another process of the run has ended.
    """
    with contextlib.ExitStack() as stack:
        stores = [
            stack.enter_context(Checkpoints(folder / "checkpoints", keep_every=loop.keep_every)) for folder in folders
        ]
        request = stack.enter_context(preemption.listening())
        try:
            with parallel.failures_named():
                _fit(loop, fresh, folders, values, stores, request)
        except OSError as error:
            raise InputError(
                f"{error.filename or folders[0]}: {error.strerror}; fix that and give the same command again: the run "
                "resumes from the last checkpoint"
            ) from error


def _fit(
    loop: Loop,
    fresh: list[TrainState],
    folders: Sequence[pathlib.Path],
    values: Sequence[Any],
    stores: Sequence[Checkpoints],
    request: preemption.Request,
) -> None:
    states, progress, start, ends = _resume(fresh, stores)
    if start < loop.total_steps and not all(member.stopped for member in progress):
        trainer = _Trainer(loop, folders, values, stores, progress, ends)
        joined = loop.program.join(states)
        states.clear()  # a copy of them is on the devices; two would take twice the memory
        fresh.clear()
        trainer.train(joined, start, request)
    for store, folder, member in zip(stores, folders, progress, strict=True):
        store.wait()
        if parallel.is_main() and not (folder / "summary.json").exists():
            _write_summary(folder, loop, member, store.steps[-1])


def _resume(
    fresh: Sequence[TrainState], stores: Sequence[Checkpoints]
) -> tuple[list[TrainState], list[Progress], int, dict[int, int]]:
    """States and progress of all members, the step at which they resume, and the last step of those that have ended.

    Members that early stopping has ended keep the state of their last step, which is not saved again.
    """
    like = fresh[0].saved
    ended = {i: _restore_ended(store, like) for i, store in enumerate(stores)}
    restored = {i: held for i, held in ended.items() if held is not None}
    ends = {i: stores[i].steps[-1] for i in restored}
    running = [i for i in range(len(stores)) if i not in restored]
    newest, step = checkpoints.restore_newest([stores[i] for i in running], like) if running else ([], 0)
    restored |= dict(zip(running, newest, strict=False))
    states, progress = list(fresh), [Progress() for _ in fresh]
    for i, (state, stored) in restored.items():
        states[i] = state.replace(frozen=fresh[i].frozen)
        progress[i] = Progress(**stored["progress"])
    return states, progress, step, ends


def _restore_ended(store: Checkpoints, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """What a member that early stopping has ended holds; None for one that still runs."""
    while steps := store.steps:
        try:
            if not store.progress(steps[-1], kind=Progress).stopped:
                return None
            return store.restore(steps[-1], like)
        except InputError as error:
            store.fall_back(error, steps)
    return None


class _Trainer:
    """Runs the program from boundary to boundary and does the bookkeeping of the members."""

    def __init__(
        self,
        loop: Loop,
        folders: Sequence[pathlib.Path],
        values: Sequence[Any],
        stores: Sequence[Checkpoints],
        progress: Sequence[Progress],
        ends: Mapping[int, int],
    ):
        self._loop = loop
        self._folders = folders
        self._values = values
        self._stores = stores
        self._progress = progress
        self._ends = ends

    def train(self, state: TrainState, start: int, request: preemption.Request) -> None:
        loop, step = self._loop, start
        if parallel.is_main():
            for folder in self._folders:
                provenance.record(folder, start)
        items = loop.program.items(start)
        with contextlib.ExitStack() as stack:
            logs = []
            if parallel.is_main():
                places = enumerate(self._folders)
                logs = [stack.enter_context(MetricLog(folder, self._ends.get(i, start))) for i, folder in places]
            bar = stack.enter_context(
                tqdm.tqdm(total=loop.total_steps, initial=start, desc=loop.name, unit="step", mininterval=1)
                if parallel.is_main()
                else tqdm.tqdm(disable=True)
            )
            while step < loop.total_steps and not all(member.stopped for member in self._progress):
                end, began, first = loop.boundary(step), time.perf_counter(), step
                state, step, asked = self._advance(state, step, end, items, request, bar)
                running = [i for i, member in enumerate(self._progress) if not member.stopped]
                scores: dict[int, float | None] = {}
                if step == end and loop.evaluates(step):
                    rows = self._validate(state, step, rate=(step - first) / (time.perf_counter() - began))
                    bar.set_postfix(_shown(rows[0]))
                    for i in running:
                        scores[i] = self._note(self._progress[i], rows[i], step)
                        if logs:  # before the checkpoint, so that no checkpoint is without its row
                            logs[i].write(step, rows[i])
                self._save(state, step, {i: scores.get(i) for i in running})
                if asked and step < loop.total_steps:
                    self._stop(step)

    def _advance(
        self, state: TrainState, step: int, end: int, items: Iterator[Any], request: preemption.Request, bar: tqdm.tqdm
    ) -> tuple[TrainState, int, bool]:
        """Runs to `end`, or to where a request to stop came; the state, the step and whether there was one."""
        asked, waiting = False, []
        while step < end and not asked:
            count = min(self._loop.steps_per_call, end - step)
            state, metrics = self._loop.program.run(state, list(itertools.islice(items, count)))
            waiting.append((step, metrics))
            step += count
            if len(waiting) > 1:  # one call ahead keeps the devices busy; more would only hide the progress
                self._book(*waiting.pop(0))
            bar.update(count)
            asked = request.agreed()
        for call in waiting:
            self._book(*call)
        return state, step, asked

    def _book(self, first: int, metrics: Any) -> None:
        fetched = self._loop.program.fetch(metrics)
        finite = fetched["finite"]
        for i, member in enumerate(self._progress):
            for j in range(len(finite)):
                good = bool(finite[j, i].all())
                if not good and not self._loop.skip_nonfinite and not member.stopped:
                    raise self._not_finite(first + j + 1, self._folders[i], finite[j, i])
                member.book(float(fetched["loss"][j, i]), float(fetched["grad_norm"][j, i]), good)

    def _not_finite(self, step: int, folder: pathlib.Path, finite: np.ndarray) -> InputError:
        bad = [name for name, good in zip(self._loop.tensors, finite, strict=True) if not good]
        named = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        return InputError(
            f"{folder}: not finite at step {step}: {named} (of {len(finite) - 1} gradients); the last checkpoint is "
            "kept. Lower config.training.learning_rate, check the data or set config.on_nonfinite to 'skip', in a new "
            "work directory"
        )

    def _validate(self, state: TrainState, step: int, *, rate: float) -> list[dict[str, float]]:
        rows = []
        scores = self._loop.program.evaluate(state)
        for folder, member, cases in zip(self._folders, self._progress, scores, strict=True):
            if not member.count and not member.stopped:
                raise InputError(
                    f"{folder}: no step since the last validation was finite, up to step {step}; lower "
                    "config.training.learning_rate or check the data, in a new work directory"
                )
            row = member.training_row() | {"steps_per_second": rate}
            row["learning_rate"] = float(self._loop.learning_rate(member.updates - 1))
            rows.append(row | {f"validation_{name}": value for name, value in self._loop.summarise(cases).items()})
        return rows

    def _note(self, member: Progress, row: Mapping[str, float], step: int) -> float | None:
        """Notes a validation; its score if it is the best so far, of equals the first."""
        name, sign = self._loop.selection
        value = row[f"validation_{name}"]
        score = None if math.isnan(value) else sign * value
        member.validate(score, step, self._loop.patience)
        return score if member.best_step == step else None

    def _save(self, state: TrainState, step: int, scores: Mapping[int, float | None]) -> None:
        """Saves the members that have an entry in `scores`."""
        # every array is copied before this returns, as the next call takes the buffers; written beside the next steps
        states = self._loop.program.split(jax.block_until_ready(state))
        for i, score in scores.items():
            progress = dataclasses.asdict(self._progress[i])
            self._stores[i].save(states[i].saved, {"progress": progress} | self._values[i], step=step, score=score)

    def _stop(self, step: int) -> None:
        for store in self._stores:
            store.wait()
        raise Preempted(
            f"asked to stop: saved at step {step} of {self._loop.total_steps}; the same command resumes from there"
        )


def _shown(row: Mapping[str, float]) -> dict[str, str]:
    return {
        name.removeprefix("validation_"): f"{value:.3f}"
        for name, value in row.items()
        if name == "loss" or name.startswith("validation_")
    }


def _write_summary(folder: pathlib.Path, loop: Loop, progress: Progress, last_step: int) -> None:
    name, sign = loop.selection
    summary = {
        "last_step": last_step,
        "best_step": progress.best_step,
        f"best_validation_{name}": None if progress.best is None else sign * progress.best,
        "stopped_early": progress.stopped,
    }
    atomic.write_json(folder / "summary.json", summary)
