"""Runs the steps: data in, checkpoints and metrics out. Called again, it goes on where it was."""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from jaxseg.errors import InputError
from jaxseg.training import provenance
from jaxseg.training.checkpoints import Checkpoints
from jaxseg.training.state import TrainState
from jaxseg.training.steps import Batch, TrainStep


@dataclasses.dataclass(frozen=True)
class Loop:
    """What `fit` runs.

    Attributes:
      train_step: `(state, batch) -> (state, metrics)`.
      eval_step: `(variables, batch) -> Dice [B,K-1]`.
      batches: `start_step -> endless batches`; the position is a function of the step.
      validation: `() -> every validation case once`, with `valid` [B].
      total_steps: updates in all.
      evaluate_every: updates between two validations, each followed by a checkpoint.
      name: shown by the progress bar.
      compiler_options: for XLA, of the training step.
    """

    train_step: TrainStep
    eval_step: Callable[[Any, Batch], jax.Array]
    batches: Callable[[int], Iterator[Mapping[str, Any]]]
    validation: Callable[[], Iterator[Mapping[str, Any]]]
    total_steps: int
    evaluate_every: int
    name: str
    compiler_options: Mapping[str, str]


def fit(loop: Loop, state: TrainState, folder: pathlib.Path) -> None:
    """Trains from `state`, or from the newest checkpoint under `folder`, to `total_steps`.

    Leaves `folder/checkpoints` with the latest and the best step and appends to `folder/metrics.jsonl`, and to
    TensorBoard where tensorboardX is installed.

    Raises:
      InputError: the loss is not finite; the last checkpoint is kept.
    """
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.latest_step is not None:
            state = checkpoints.restore_latest(state)
        start = int(state.step)
        if start >= loop.total_steps:
            return
        provenance.record(folder, start)
        train_step = jax.jit(loop.train_step, donate_argnums=0, compiler_options=dict(loop.compiler_options))
        eval_step = jax.jit(loop.eval_step)
        batches = loop.batches(start)
        log = MetricLog(folder, start)
        with tqdm.tqdm(total=loop.total_steps, initial=start, desc=loop.name, unit="step", mininterval=1) as bar:
            step = start
            while step < loop.total_steps:
                chunk = min(loop.evaluate_every, loop.total_steps - step)
                began = time.perf_counter()
                metrics = []
                for _ in range(chunk):
                    state, values = train_step(state, next(batches))
                    metrics.append(values)
                    if len(metrics) > 1:  # one step ahead keeps the device busy; more would only hide the progress
                        jax.block_until_ready(metrics[-2])
                    bar.update()
                step += chunk
                row = _train_metrics(metrics, step - chunk, folder)
                row["steps_per_second"] = chunk / (time.perf_counter() - began)
                row["validation_dice"] = mean_dice(eval_step, state.variables, loop.validation())
                # copied before it returns, as the next step donates the buffers; written beside the next steps
                checkpoints.save(jax.block_until_ready(state), step=step, dice=row["validation_dice"])
                log.write(step, row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", dice=f"{row['validation_dice']:.3f}")
        log.close()


def mean_dice(
    eval_step: Callable[[Any, Batch], jax.Array], variables: Any, batches: Iterator[Mapping[str, Any]]
) -> float:
    """Mean Dice over the defined pairs of case and class; NaN if there is none."""
    scores = [np.asarray(eval_step(variables, batch))[np.asarray(batch["valid"])] for batch in batches]
    values = np.concatenate(scores)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _train_metrics(metrics: list[dict[str, jax.Array]], first_step: int, folder: pathlib.Path) -> dict[str, float]:
    fetched = jax.device_get(metrics)
    for i, values in enumerate(fetched):
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            raise InputError(
                f"{folder}: {' and '.join(bad)} not finite at step {first_step + i + 1}; the checkpoint before it is "
                "kept. Lower config.training.learning_rate or check the data, and use a new work directory"
            )
    return {name: float(np.mean([values[name] for values in fetched])) for name in fetched[0]}


class MetricLog:
    """Appends `{"step", ...}` rows to `metrics.jsonl`; rows past `start` (written before a kill) are dropped."""

    def __init__(self, folder: pathlib.Path, start: int):
        self._path = folder / "metrics.jsonl"
        rows = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        kept = [line for line in rows if _complete_step(line) <= start]
        self._path.write_text("".join(f"{line}\n" for line in kept))
        try:
            from tensorboardX import SummaryWriter
        except ImportError:  # optional: the JSON lines hold the same numbers
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        clean = {name: None if math.isnan(value) else value for name, value in row.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **clean}) + "\n")
        if self._board:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._board:
            self._board.close()


def _complete_step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):  # cut short by a kill
        return math.inf
