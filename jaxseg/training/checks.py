"""Whether a run's config can work, before anything is computed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from jaxseg import models, options
from jaxseg.data import augment, inputs
from jaxseg.data.augmentation.settings import check_augmentation, check_augmentation_rank
from jaxseg.errors import InputError
from jaxseg.models import tracing
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.training import objectives, optim, parallel
from jaxseg.training.losses import LOSSES
from jaxseg.training.steps import ON_NONFINITE

SELECTIONS = {"dice": 1, "miou": 1, "loss": -1}  # 1: more is better
RESIDENCES = ("auto", "device", "sharded", "stream")
VARIED = ("seed", "fold")
_FIELDS: dict[str, tuple[str, ...]] = {
    "": ("seed", "parallel", "replicas", "vary", "on_nonfinite", "deterministic"),
    "data": (
        *("dataset", "domains", "source_size", "image_size", "geometry", "geometry_options", "normalisation"),
        *("normalisation_options", "view", "augmentation", "residence", "folds", "fold"),
    ),
    "model": ("name", "dtype", "padding", "pretrained"),
    "training": (
        *("loss", "loss_options", "ability_weight", "ability_layers", "optimizer", "optimizer_options"),
        *("learning_rate", "schedule", "schedule_options", "clip_norm", "batch_size", "accumulate", "epochs"),
        *("evaluate_every", "save_every", "steps_per_call", "selection", "patience"),
    ),
}
_AT_LEAST = {
    **{"seed": 0, "replicas": 1, "data.image_size": 1, "data.source_size": 1, "data.folds": 0, "data.fold": 0},
    **{f"training.{name}": 1 for name in ("batch_size", "accumulate", "epochs", "evaluate_every")},
    **{f"training.{name}": 0 for name in ("save_every", "steps_per_call", "patience", "ability_weight")},
}
_WHOLE = (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number")
_TEXTS = (
    lambda value: isinstance(value, tuple | list) and all(isinstance(one, str) for one in value),
    "a list of texts",
)
_SECTION = (lambda value: isinstance(value, ml_collections.ConfigDict), "a section")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys((name for name in _AT_LEAST if name != "training.ability_weight"), _WHOLE),
    **dict.fromkeys(("data.domains", "training.ability_layers"), _TEXTS),
    **dict.fromkeys(
        ("data.augmentation", *(f"training.{n}_options" for n in ("loss", "optimizer", "schedule"))), _SECTION
    ),
    **dict.fromkeys(("data.dataset", "data.view"), (lambda value: isinstance(value, str), "a text")),
}
_CHOICES = {
    "parallel": parallel.PARALLEL,
    "vary": VARIED,
    "on_nonfinite": ON_NONFINITE,
    "data.view": augment.VIEWS,
    "data.residence": RESIDENCES,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises InputError when the run cannot work; the message names the field and how to fix it."""
    check_common(config)
    check_fields(config, sections=("model",))
    _check_choices(config, {"model.dtype": ("float32", "bfloat16"), "training.selection": ("dice", "miou")})
    _check_loss(config)
    _check_model(config)


def check_rank(config: ml_collections.ConfigDict, rank: int) -> None:
    """Raises InputError when the config asks of volumes what is made for pictures, or the other way round."""
    data = config.data
    check_augmentation_rank(data.augmentation.to_dict(), rank, dataset=data.dataset)
    if rank == 3 and data.view != "original":
        raise InputError(f"config.data.view is {data.view!r}, {data.dataset} has volumes; use 'original'")


def check_common(config: ml_collections.ConfigDict) -> None:
    """`check` of all but the network, its loss and by what the best checkpoint is chosen."""
    if "study" in config:
        raise InputError("the config is that of a study, not of a run; give it to python -m launch.study")
    check_fields(config, sections=("", "data", "training"))
    _check_kinds(config)
    for name, least in _AT_LEAST.items():
        value = field(config, name)
        if not (isinstance(value, int | float) and value >= least and math.isfinite(value)):
            raise InputError(f"config.{name} is {value}; it must be at least {least}")
    _check_choices(config, _CHOICES)
    _check_recipe(config)
    _check_layout(config)


def _check_kinds(config: ml_collections.ConfigDict) -> None:
    for name, (fits, words) in _KINDS.items():
        if not fits(field(config, name)):
            raise InputError(f"config.{name} is {field(config, name)!r}; it must be {words}")


def _check_choices(config: ml_collections.ConfigDict, known: Mapping[str, Sequence[str]]) -> None:
    for name, choices in known.items():
        if field(config, name) not in choices:
            raise InputError(f"config.{name} is {field(config, name)!r}; choose one of {', '.join(choices)}")


def check_fields(config: ml_collections.ConfigDict, *, sections: Sequence[str] = tuple(_FIELDS)) -> None:
    """Raises InputError when a field of a run is missing in one of the `sections`."""
    for section in sections:
        found = config.get(section) if section else config
        for name in _FIELDS[section]:
            place = f"{section}.{name}" if section else name
            if not isinstance(found, ml_collections.ConfigDict) or name not in found:
                raise InputError(f"config.{place} is missing; configs/train.py shows every field of a run")


def run_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The part of a larger config, such as a study's, that is a run's."""
    names = [*_FIELDS[""], *(section for section in _FIELDS if section)]
    return {name: value for name, value in config.to_dict().items() if name in names}


def run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The run's part of a larger config, such as a study's; raises InputError where a field is missing."""
    check_fields(config)
    _check_kinds(config)
    return ml_collections.ConfigDict(run_fields(config)).lock()


def field(config: ml_collections.ConfigDict, name: str) -> Any:
    """The value of a field such as `training.loss`."""
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def _check_loss(config: ml_collections.ConfigDict) -> None:
    training = config.training
    if training.loss == "dtu" and config.model.name != "dtu_net":
        raise InputError(f"config.training.loss 'dtu' is for dtu_net alone, config.model.name is {config.model.name!r}")
    options.chosen("training.loss", LOSSES | objectives.OBJECTIVES, training.loss, training.loss_options)
    if training.ability_weight and training.loss in objectives.OBJECTIVES:
        raise InputError(f"config.training.ability_weight is for losses of logits and labels, not {training.loss!r}")


def _check_recipe(config: ml_collections.ConfigDict) -> None:
    training, data = config.training, config.data
    # the length of an epoch is not known yet, and does not matter here
    optimizer(training, steps_per_epoch=1, total_steps=training.epochs)
    if training.ability_layers and not training.ability_weight:
        raise InputError("config.training.ability_layers are named, but ability_weight is 0; give it a weight")
    check_augmentation(data.augmentation.to_dict())
    _check_geometry(config)
    if data.geometry == "squash" and data.source_size % 2:
        raise InputError(f"config.data.source_size is {data.source_size}; quadrants need an even size")
    if data.folds == 1 or data.fold >= max(data.folds, 1):
        raise InputError(
            f"config.data.folds is {data.folds} and fold {data.fold}; give at least 2 folds and one of them, or 0 and 0"
        )


def _check_geometry(config: ml_collections.ConfigDict) -> None:
    data, grid = config.data, inputs.of_config(config).grid
    if data.geometry == "squash":
        return
    if data.view != "original":
        raise InputError(f"config.data.view is {data.view!r}, which is for geometry 'squash'; use 'original'")
    if grid.one_size:
        return
    for name, plain in (("data.folds", 0), ("replicas", 1)):
        if field(config, name) != plain:
            raise InputError(
                f"config.{name} needs cases of one size, and config.data.geometry {data.geometry!r} has several; use "
                "'keep' with a size and no multiple"
            )
    if data.residence in ("device", "sharded"):
        raise InputError(f"config.data.residence {data.residence!r} needs cases of one size; use 'auto'")


def _check_layout(config: ml_collections.ConfigDict) -> None:
    """How the run is laid out over devices."""
    training = config.training
    parallel.check_batch(training.batch_size, accumulate=training.accumulate)
    if config.replicas > 1 and config.parallel == "pmap":
        raise InputError("config.parallel 'pmap' trains one run at a time; use 'jit' for config.replicas")
    if config.replicas > 1 and config.data.residence == "stream":
        raise InputError("config.replicas share the cases on the device; config.data.residence cannot be 'stream'")
    if config.vary == "fold" and config.replicas > 1 and config.data.fold:
        raise InputError("config.data.fold is what the replicas vary; leave it at 0, or set config.vary to 'seed'")
    if config.vary == "fold" and config.replicas not in (1, config.data.folds):
        raise InputError(
            f"config.replicas is {config.replicas}; to vary the fold it must be config.data.folds, {config.data.folds}"
        )
    if config.data.residence == "sharded" and (config.parallel == "pmap" or config.replicas > 1):
        raise InputError("config.data.residence 'sharded' is for one run under config.parallel 'jit'; use 'device'")
    if config.data.folds and config.data.residence == "stream":
        raise InputError("config.data.folds needs the masks of all cases; config.data.residence cannot be 'stream'")
    if config.parallel == "pmap" and config.deterministic:
        raise InputError("config.deterministic needs options that pmap does not take; use config.parallel 'jit'")
    if config.parallel == "pmap" and jax.process_count() > 1:
        raise InputError("config.parallel 'pmap' is for one host; use 'jit' for many")


def _check_model(config: ml_collections.ConfigDict) -> None:
    if config.model.pretrained == "":
        raise InputError("config.model.pretrained is empty; give a file, imagenet, or None")
    model = build_model(config, 2)
    given = config.data.geometry_options  # which say of how many axes they are
    rank = 3 if config.data.geometry != "squash" and 3 in (len(given.size), len(given.multiple)) else model.rank or 2
    sides = inputs.sides(config, rank)
    image = jax.ShapeDtypeStruct((1, *sides, 3), jnp.float32)
    try:
        variables = tracing.variable_shapes(model, image.shape)
        objective = build_objective(config, model)
        if config.training.ability_weight:  # whether its layers are there shows when it is traced
            batch = {"images": image, "labels": jax.ShapeDtypeStruct((1, *sides), jnp.int32)}
            jax.eval_shape(objective, jax.random.key(0), variables, batch)
    except InputError:
        raise
    except ValueError as error:
        squares = config.data.geometry == "squash" or not (given.size or given.multiple)
        option = "geometry_options.multiple" if given.multiple else "geometry_options.size"
        where = f"config.data.{'image_size' if squares else option}"
        raise InputError(f"{where} or config.training with config.model: {error}") from error


def build_model(config: ml_collections.ConfigDict, num_classes: int) -> UNetSkeleton:
    """The network that `config.model` describes."""
    fields = config.model.to_dict()
    del fields["pretrained"]  # where it starts, not what it is
    dtype = jnp.dtype(fields.pop("dtype"))
    try:
        return models.build(fields.pop("name"), num_classes, dtype=dtype, **fields)
    except ValueError as error:
        raise InputError(f"config.model: {error}") from error


def build_objective(config: ml_collections.ConfigDict, model: UNetSkeleton) -> objectives.Objective:
    """What `config.training.loss` with its options makes small."""
    training, name = config.training, config.training.loss
    given = options.chosen("training.loss", LOSSES | objectives.OBJECTIVES, name, training.loss_options.to_dict())
    if name in objectives.OBJECTIVES:
        return objectives.OBJECTIVES[name](model, **given)
    if training.ability_weight:
        ability = {"layers": tuple(training.ability_layers), "weight": training.ability_weight}
        return objectives.segmentation_ability(model, LOSSES[name], **ability, **given)
    return objectives.supervised(model, LOSSES[name], **given)


def optimizer(training: ml_collections.ConfigDict, **lengths: Any) -> optax.GradientTransformation:
    """The optax transformation of a config's section `training`; `lengths` as for `optim.make`."""
    names = ("optimizer", "optimizer_options", "learning_rate", "schedule", "schedule_options", "clip_norm")
    return optim.make(**{name: training[name] for name in names}, **lengths)


def learning_rate(training: ml_collections.ConfigDict, **lengths: Any) -> optim.Rate:
    """`step -> learning rate` of a config's section `training`."""
    return optim.make_schedule(
        training.schedule, training.learning_rate, schedule_options=training.schedule_options, **lengths
    )
