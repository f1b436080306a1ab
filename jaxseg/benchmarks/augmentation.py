"""What augmentation costs: a training step with it beside the bare step, and each of its parts beside none."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxseg import models
from jaxseg.benchmarks import timing
from jaxseg.data import augment
from jaxseg.data.augmentation.settings import INTENSITIES
from jaxseg.errors import InputError
from jaxseg.models import skeleton
from jaxseg.training import losses, objectives, state, steps

# all that there is, with nnU-Net's probabilities where it has one
SPATIAL: Mapping[str, Any] = {
    **{"flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate": 180.0, "rotate_probability": 0.2},
    **{"scale": (0.7, 1.4), "scale_probability": 0.2, "translate": 0.1, "crop": (0.8, 1.0)},
}
PROBABILITIES: Mapping[str, float] = {
    **{"noise": 0.1, "blur": 0.2, "brightness": 0.15, "brightness_shift": 0.15, "contrast": 0.15},
    **{"low_resolution": 0.25, "inverted_gamma": 0.1, "gamma": 0.3},
}
ELASTIC: Mapping[str, Any] = {"elastic": 0.2}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
      width: channels of the top level; the levels have 1, 2, 4, 8 and 8 times as many.
      size: side of the images in pixels.
      batch: images per step.
      rank: 2, or 3 for volumes.
    """

    width: int
    size: int
    batch: int
    rank: int = 2

    @property
    def text(self) -> str:
        """What the table calls it."""
        return f"width {self.width}, {' x '.join([str(self.size)] * self.rank)}, batch {self.batch}"


CPU = (Setting(16, 128, 8), Setting(8, 32, 2, rank=3))
ACCELERATOR = (Setting(16, 128, 8), Setting(64, 256, 16), Setting(16, 96, 2, rank=3))


def read_setting(text: str) -> Setting:
    """`WIDTH,SIZE,BATCH` or `WIDTH,SIZE,BATCH,RANK` as a row; raises InputError where it is neither."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (3, 4) or min(numbers) < 1 or (len(numbers) == 4 and numbers[3] not in (2, 3)):
        raise InputError(
            f"step is {text!r}; it must be WIDTH,SIZE,BATCH, and RANK 2 or 3 if you like, as in 16,128,8,2"
        )
    return Setting(*numbers)


def run(*, rounds: int = 5, settings: Sequence[Setting] | None = None) -> dict[str, Any]:
    """The tables: the step with all augmentations beside the bare one, and how much of it each of them takes.

    On CPU seconds are those of the process on all of its threads, which other work on the machine changes little.

    Args:
      rounds: how often the sides take turns.
      settings: the rows; None takes `CPU` or `ACCELERATOR`, whichever the default device is.
    """
    rows, parts = [], []
    for setting in settings or (CPU if jax.default_backend() == "cpu" else ACCELERATOR):
        row, shares = _measure(setting, rounds)
        rows.append(row)
        parts += shares
    return {"machine": timing.machine(), "step with all augmentations": rows, "each alone": parts}


def kinds(rank: int) -> dict[str, dict[str, Any]]:
    """Name -> augmentation: `everything`, and each kind alone."""
    spatial = dict(SPATIAL) | ({"flip_depth": 0.5, "tilt": 30.0} if rank == 3 else {})
    alone = {"flips, turns, scale, shift, crop": spatial, "elastic": dict(ELASTIC)}
    alone |= {name: {name: PROBABILITIES[name]} for name in INTENSITIES}
    return {"everything": spatial | dict(ELASTIC) | dict(PROBABILITIES)} | alone


def _measure(setting: Setting, rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    augmentations: dict[str, dict[str, Any]] = {"bare": {}} | kinds(setting.rank)
    batch = jax.device_put(_example(setting))
    (bare, held), (full, more) = (_step(setting, batch, augmentations[name]) for name in ("bare", "everything"))
    pairs = [(_seconds(bare), _seconds(full)) for _ in range(rounds)]
    views = {name: _view(setting, batch, given) for name, given in augmentations.items()}
    turns = [{name: _seconds(view, repeats=5) for name, view in views.items()} for _ in range(rounds)]
    least = {name: min(turn[name] for turn in turns) for name in views}
    row = {
        "step": setting.text,
        "bare_milliseconds": 1e3 * min(plain for plain, _ in pairs),
        "augmented_milliseconds": 1e3 * min(augmented for _, augmented in pairs),
        "ratio": float(np.median([augmented / plain for plain, augmented in pairs])),
        "view_share_of_step": (least["everything"] - least["bare"]) / min(plain for plain, _ in pairs),
        "bare_mb": held / 2**20,
        "augmented_mb": more / 2**20,
    }
    shares = [
        {"step": setting.text, "augmentation": name, "milliseconds": 1e3 * (seconds - least["bare"])}
        for name, seconds in least.items()
        if name != "bare"
    ]
    return row, shares


def _step(
    setting: Setting, batch: Mapping[str, jax.Array], augmentation: Mapping[str, Any]
) -> tuple[Callable[[], Any], int]:
    """A compiled training step, and the bytes that it holds at its peak beside its arguments and results."""
    model = models.build("unet", 2, features=tuple(setting.width * factor for factor in (1, 2, 4, 8, 8)))
    optimizer = optax.adam(1e-3)
    view = augment.training_view("original", size=setting.size, augmentation=augmentation)
    step = steps.make_train_step(objectives.supervised(model, losses.dice_loss), optimizer, view)
    shape = (1, *batch["image"].shape[1:])
    fresh = jax.jit(lambda key: state.create(key, model, optimizer, shape))(jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to the power of an integer
        lowered = jax.jit(step).lower(fresh, batch)
    program = lowered.compile(compiler_options={**skeleton.compiler_options(model)})
    memory: Any = program.memory_analysis()
    return lambda: program(fresh, batch), memory.temp_size_in_bytes


def _view(setting: Setting, batch: Mapping[str, jax.Array], augmentation: Mapping[str, Any]) -> Callable[[], Any]:
    view = jax.jit(augment.training_view("original", size=setting.size, augmentation=augmentation))
    key = jax.random.key(0)
    return lambda: view(key, batch)


def _seconds(side: Callable[[], Any], *, repeats: int = 1) -> float:
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    jax.block_until_ready(side())  # compiles
    began = clock()
    for _ in range(repeats):
        jax.block_until_ready(side())
    return (clock() - began) / repeats


def _example(setting: Setting) -> dict[str, np.ndarray]:
    """Stored cases: noise, in which the brighter pixels are class 1."""
    random = np.random.default_rng(0)
    sides = (setting.size,) * setting.rank
    image = random.integers(0, 256, (setting.batch, *sides, 3 if setting.rank == 2 else 1), dtype=np.uint8)
    return {
        "image": image,
        "labels": (image[..., 0] > 127).astype(np.uint8),
        "index": np.arange(setting.batch, dtype=np.int32),
    }
