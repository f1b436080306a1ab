"""One training run: a config and a prepared data set in, a folder with checkpoints and metrics out.

A run's config has the sections `data` (image_size, source_size, view), `model` (name and options) and `training`
(epochs, batch_size, learning_rate, loss, evaluate_every), and `seed`; `configs/` shows every field.
"""

import inspect
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from jaxseg import models
from jaxseg.data import augment, pipeline
from jaxseg.errors import InputError
from jaxseg.models import pretrained
from jaxseg.models.skeleton import UNetSkeleton, compiler_options
from jaxseg.training import losses, objectives, state, steps
from jaxseg.training.checkpoints import Checkpoints, has_steps
from jaxseg.training.loop import Loop, fit

LOSSES: dict[str, Callable[..., jax.Array]] = {"dice": losses.dice_loss, "dice_focal": losses.dice_focal_loss}
OBJECTIVES: dict[str, Callable[..., objectives.Objective]] = {"dtu": objectives.dtu}  # need more than logits and labels
_FIELDS = {
    "data": ("dataset", "source_size", "image_size", "view"),
    "model": ("name", "dtype", "padding", "pretrained"),
    "training": ("loss", "loss_options", "learning_rate", "batch_size", "epochs", "evaluate_every"),
}


class Splits:
    """The stored cases of a prepared data set, each split decoded into memory when it is first asked for."""

    def __init__(self, directory: pathlib.Path, source_size: int):
        self._directory = directory
        self._size = source_size
        self._loaded: dict[str, pipeline.InMemory] = {}

    def __getitem__(self, split: str) -> pipeline.InMemory:
        if split not in self._loaded:
            self._loaded[split] = pipeline.in_memory(pipeline.Split(self._directory, split, size=self._size))
        return self._loaded[split]

    @property
    def num_classes(self) -> int:
        return self["validation"].num_classes


def train(config: ml_collections.ConfigDict, splits: Splits, folder: pathlib.Path) -> None:
    """Trains, or resumes, the run in `folder`; returns at once when it is finished.

    Args:
      config: of the run.
      splits: the stored cases.
      folder: of the run; created, or with the same config.

    Raises:
      InputError: the config cannot be run, the folder belongs to another config, the loss is not finite.
    """
    check(config)
    check_cases(config, splits)
    model = build_model(config, splits.num_classes)
    fresh = _fresh_state(config, model, splits["train"])
    if config.model.pretrained is not None and not has_steps(folder / "checkpoints"):
        shape = (1, config.data.image_size, config.data.image_size, splits["train"].images.shape[-1])
        fresh = fresh.replace(**pretrained.load(model, fresh.variables, config.model.pretrained, shape))
    claim(folder, config, {split: splits[split].fingerprint for split in ("train", "validation")})
    batch = config.training.batch_size
    per_epoch = len(splits["train"]) // batch
    size, view = config.data.image_size, config.data.view
    loop = Loop(
        train_step=steps.make_train_step(
            build_objective(config, model), _optimizer(config), augment.training_view(view, size=size)
        ),
        eval_step=steps.make_eval_step(
            model, augment.testing_view(view, size=size, cases=splits["validation"].cases), splits.num_classes
        ),
        batches=lambda step: pipeline.batches(splits["train"], batch_size=batch, seed=config.seed, start_step=step),
        validation=lambda: pipeline.epoch(splits["validation"], batch_size=batch),
        total_steps=config.training.epochs * per_epoch,
        evaluate_every=config.training.evaluate_every * per_epoch,
        name=folder.name,
        compiler_options=compiler_options(model),
    )
    fit(loop, fresh, folder)


def load_best(
    config: ml_collections.ConfigDict, folder: pathlib.Path, image_shape: tuple[int, ...], num_classes: int
) -> tuple[nn.Module, dict[str, Any], dict[str, float]]:
    """The network of a run with the variables of its best checkpoint, and that checkpoint's step and Dice.

    Args:
      config: of the run.
      folder: of the run.
      image_shape: `[B,n,n,C]`.
      num_classes: K.
    """
    model = build_model(config, num_classes)
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_shape[1:])))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step, dice, best = checkpoints.restore_best(dict(like))
    return model, best, {"step": step, "validation_dice": dice}


def build_model(config: ml_collections.ConfigDict, num_classes: int) -> UNetSkeleton:
    """The network that `config.model` describes."""
    options = config.model.to_dict()
    del options["pretrained"]  # where it starts, not what it is
    dtype = jnp.dtype(options.pop("dtype"))
    try:
        return models.build(options.pop("name"), num_classes, dtype=dtype, **options)
    except ValueError as error:
        raise InputError(f"config.model: {error}") from error


def build_objective(config: ml_collections.ConfigDict, model: UNetSkeleton) -> objectives.Objective:
    """What `config.training.loss` with its options makes small."""
    name, options = config.training.loss, config.training.loss_options.to_dict()
    if name in OBJECTIVES:
        return OBJECTIVES[name](model, **options)
    return objectives.supervised(model, LOSSES[name], **options)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises InputError, before anything is computed, when the run cannot work; the message names the field."""
    _check_fields(config)
    training, data = config.training, config.data
    if config.seed < 0:
        raise InputError(f"config.seed is {config.seed}; it must not be negative")
    positive = {f"training.{name}" for name in ("epochs", "batch_size", "learning_rate", "evaluate_every")}
    for name in sorted(positive | {"data.image_size", "data.source_size"}):
        section, field = name.split(".")
        value = config[section][field]
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"config.{name} is {value}; it must be above 0")
    losses_known: dict[str, Callable[..., Any]] = LOSSES | OBJECTIVES
    if training.loss not in losses_known:
        raise InputError(f"config.training.loss is {training.loss!r}; choose one of {', '.join(losses_known)}")
    if training.loss == "dtu" and config.model.name != "dtu_net":
        raise InputError(f"config.training.loss 'dtu' is for dtu_net alone, config.model.name is {config.model.name!r}")
    parameters = inspect.signature(losses_known[training.loss]).parameters.values()
    known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
    for name in training.loss_options:
        if name not in known:
            raise InputError(f"config.training.loss_options.{name} is unknown; {training.loss} has {', '.join(known)}")
    if config.model.pretrained == "":
        raise InputError("config.model.pretrained is empty; give a file, imagenet, or None")
    if data.view not in augment.VIEWS:
        raise InputError(f"config.data.view is {data.view!r}; choose one of {', '.join(augment.VIEWS)}")
    if data.source_size % 2:
        raise InputError(f"config.data.source_size is {data.source_size}; quadrants need an even size")
    if config.model.dtype not in ("float32", "bfloat16"):
        raise InputError(f"config.model.dtype is {config.model.dtype!r}; choose one of float32, bfloat16")
    model = build_model(config, 2)
    image = jax.ShapeDtypeStruct((1, data.image_size, data.image_size, 3), jnp.float32)
    try:
        jax.eval_shape(model.init, jax.random.key(0), image)
    except ValueError as error:
        raise InputError(f"config.data.image_size with config.model: {error}") from error


def check_cases(config: ml_collections.ConfigDict, splits: Mapping[str, pipeline.InMemory] | Splits) -> None:
    """Raises InputError, before a folder is claimed, when the training split is too small for the config."""
    source, batch = splits["train"], config.training.batch_size
    if len(source) < batch:
        raise InputError(
            f"config.training.batch_size is {batch}, {source.name} has {len(source)} cases; it can be at most that"
        )


def _check_fields(config: ml_collections.ConfigDict) -> None:
    if "seed" not in config:
        raise InputError("config.seed is missing; configs/train.py shows every field of a run")
    for section, fields in _FIELDS.items():
        for field in fields:
            if section not in config or field not in config[section]:
                raise InputError(f"config.{section}.{field} is missing; configs/train.py shows every field of a run")


def claim(folder: pathlib.Path, config: ml_collections.ConfigDict, data: Mapping[str, str] | None = None) -> None:
    """Marks `folder` as belonging to `config` and data, in `config.json` and `data.json`.

    Args:
      folder: of a run or a study; created if need be.
      config: of it.
      data: split -> fingerprint of its cases; None checks the config alone and writes nothing.

    Raises:
      InputError: it belongs to another config (the message names the first field that differs) or was made with other
        cases, or it cannot be read or written.
    """
    wanted = json.loads(config.to_json())  # as a file gives it back: tuples are lists
    for name, there, here in _differences(_stored(folder / "config.json", wanted), wanted, "config"):
        raise InputError(
            f"{folder} belongs to another config: {name} is {there!r} there and {here!r} here; "
            "choose another work directory or the same config"
        )
    if data is None:
        return
    for name, *_ in _differences(_stored(folder / "data.json", data), dict(data), "data"):
        raise InputError(
            f"{folder} was made with other cases in {name.partition('.')[2]}; choose another work directory or the "
            "same --data_dir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("config.json", wanted), ("data.json", data)):
            if not (folder / name).exists():
                temporary = folder / f"{name}.part"
                temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
                temporary.replace(folder / name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another work directory") from error


def _stored(path: pathlib.Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text()) if path.exists() else default
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it or choose another work directory") from error


def read_config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run in `folder`.

    Raises:
      InputError: there is no run.
    """
    try:
        config = ml_collections.ConfigDict(json.loads((folder / "config.json").read_text()))
        _check_fields(config)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no training run; make one with python -m launch.train") from error
    return config.lock()


def _differences(found: Any, wanted: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(name), wanted.get(name), f"{prefix}.{name}")
    elif found != wanted:
        yield prefix, found, wanted


def _optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    return optax.adam(config.training.learning_rate)


def _fresh_state(config: ml_collections.ConfigDict, model: nn.Module, source: pipeline.InMemory) -> state.TrainState:
    size = config.data.image_size
    shape = (1, size, size, source.images.shape[-1])
    # one compiled program instead of hundreds of small ones
    return jax.jit(lambda key: state.create(key, model, _optimizer(config), shape))(jax.random.key(config.seed))
