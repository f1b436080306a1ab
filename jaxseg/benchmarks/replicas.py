"""Five folds trained as one program beside five programs of one fold each, with the real step on synthetic cases."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
import optax

from jaxseg import models
from jaxseg.benchmarks import timing
from jaxseg.data import augment, pipeline
from jaxseg.training import losses, objectives, state, steps
from jaxseg.training.programs import Cases, Member, Program

COUNT = 5
_CASES = 100


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row: channels per level, side of the images, images per step."""

    features: tuple[int, ...]
    size: int
    batch: int


CPU = (Setting((4, 8, 16, 16), 32, 8), Setting((8, 16, 32, 64, 64), 64, 16), Setting((16, 32, 64, 128, 128), 64, 16))
ACCELERATOR = (*CPU, Setting((16, 32, 64, 128, 128), 128, 16), Setting((64, 128, 256, 512, 512), 128, 16))


def run(*, rounds: int = 5, settings: tuple[Setting, ...] | None = None, folds: int = COUNT) -> dict[str, Any]:
    """The table: what a step costs both ways, and what the first step does, which compiles.

    Args:
      rounds: how often the two sides take turns.
      settings: the rows; None takes `CPU` or `ACCELERATOR`, whichever the default device is.
      folds: how many are trained.
    """
    on_cpu = jax.default_backend() == "cpu"
    rows = [_compare(setting, rounds, folds) for setting in settings or (CPU if on_cpu else ACCELERATOR)]
    return {"machine": timing.machine(), "replicas": rows}


def _compare(setting: Setting, rounds: int, folds: int) -> dict[str, Any]:
    together = _Training(setting, range(folds), folds)
    # a run of its own compiles its own program, so each of them is a Program here too
    apart = [_Training(setting, [fold], folds) for fold in range(folds)]
    pair = timing.compare(together.step, lambda: [one.step() for one in apart], rounds=rounds)
    differences = [
        np.abs(a - b).max()
        for fold, one in enumerate(apart)
        for a, b in zip(together.parameters(fold), one.parameters(0), strict=True)
    ]
    seconds, seconds_apart = pair.best
    first, first_apart = together.first_seconds, sum(one.first_seconds for one in apart)
    return {
        "network": f"{'-'.join(map(str, setting.features))}, {setting.size} px, batch {setting.batch}",
        "milliseconds": 1e3 * seconds,
        "milliseconds_apart": 1e3 * seconds_apart,
        "ratio": pair.speedup,
        "first_step_seconds": first,
        "first_step_seconds_apart": first_apart,
        "largest_difference": float(max(differences)),
    }


class _Training:
    """A program of some folds that steps on; the first step is taken on the way."""

    def __init__(self, setting: Setting, chosen: Any, folds: int):
        model = models.build("unet", 2, features=setting.features)
        # not Adam: it divides a gradient by its own size, and so shows rounding where that is nearly zero
        optimizer = optax.sgd(1e-2, momentum=0.9)
        view = augment.training_view("original", size=setting.size)
        train_step = steps.make_train_step(objectives.supervised(model, losses.dice_loss), optimizer, view)
        evaluate = steps.make_counts_step(model, augment.testing_view("original", size=setting.size, cases=()), 2)
        cases = _cases(setting.size)
        fold = np.arange(_CASES, dtype=np.int32) % folds
        members = [
            Member(Cases(cases, np.flatnonzero(fold != i)), Cases(cases, np.flatnonzero(fold == i)), seed=0)
            for i in chosen
        ]
        self._program = Program(members, train_step, evaluate, batch_size=setting.batch)
        create = jax.jit(lambda key: state.create(key, model, optimizer, (1, setting.size, setting.size, 3)))
        self._state = self._program.join([create(jax.random.key(i)) for i in chosen])
        self._items = self._program.items(0)
        began = time.perf_counter()
        jax.block_until_ready(self.step())
        self.first_seconds = time.perf_counter() - began
        self._first = [jax.device_get(one.params) for one in self._program.split(self._state)]

    def step(self) -> Any:
        self._state, metrics = self._program.run(self._state, [next(self._items)])
        return metrics

    def parameters(self, number: int) -> list[np.ndarray]:
        """Of a fold after its first step."""
        return jax.tree.leaves(self._first[number])


def _cases(size: int) -> pipeline.InMemory:
    random = np.random.default_rng(0)
    labels = np.zeros((_CASES, size, size), np.uint8)
    for i in range(_CASES):
        top, left = random.integers(0, size // 2, 2)
        labels[i, top : top + size // 3, left : left + size // 3] = 1
    images = (labels[..., None] * 80 + random.integers(0, 120, (_CASES, size, size, 3))).astype(np.uint8)
    names = tuple(map(str, range(_CASES)))
    return pipeline.InMemory(
        "drawn", ("background", "object"), images, labels, names, names, *pipeline.nowhere(len(names))
    )
