"""Optimisers and learning-rate schedules by name, from the plain values of a config.

The options of an optimiser or a schedule are its keyword-only parameters here; their defaults are the choices of
PyTorch, which the papers' code was written in, unless a docstring says otherwise.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxseg import options
from jaxseg.errors import InputError
from jaxseg.numerics import at_defaults

Rate = Callable[[Any], jax.Array]


def adam(rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015)."""
    return optax.adam(rate, b1=b1, b2=b2, eps=eps)


def adamw(
    rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay of kernels (Loshchilov and Hutter 2019).

    PyTorch's AdamW, which Lin, Weng et al. 2024 name, decays every parameter unless told otherwise; here biases and the
    scales of norms are left alone. With the paper's 1e-6 at a rate of 1e-4, a million steps would take 0.01 % off them.
    """
    return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_kernels)


def sgd(rate: Rate, *, momentum: float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent, with momentum if it is above 0."""
    return optax.sgd(rate, momentum=momentum or None, nesterov=nesterov)


def constant(rate: float, steps_per_epoch: int, total_steps: int, *, warmup_epochs: float = 0) -> Rate:
    """The same rate throughout, after a warm-up that rises to it in equal steps."""
    del total_steps
    return lambda step: rate * _warmup(step, warmup_epochs * steps_per_epoch)


def cosine(
    rate: float, steps_per_epoch: int, total_steps: int, *, warmup_epochs: float = 0, final_fraction: float = 0.0
) -> Rate:
    """Half a cosine, step by step, to `final_fraction` of the rate at `total_steps` (Loshchilov and Hutter 2017).

    It begins where the warm-up, which rises in equal steps, ends.
    """
    warmup = warmup_epochs * steps_per_epoch

    def at(step: Any) -> jax.Array:
        progress = jnp.clip((jnp.asarray(step, jnp.float32) - warmup) / (total_steps - warmup), 0.0, 1.0)
        fraction = final_fraction + (1 - final_fraction) * 0.5 * (1 + jnp.cos(math.pi * progress))
        return rate * _warmup(step, warmup) * fraction

    return at


def step(rate: float, steps_per_epoch: int, total_steps: int, *, every_epochs: float = 20, factor: float = 0.5) -> Rate:
    """Multiplied by `factor` at the start of every `every_epochs`-th epoch; as in He et al. 2022, section 4.2."""
    del total_steps
    length = max(round(every_epochs * steps_per_epoch), 1)
    return lambda step: rate * jnp.float32(factor) ** (jnp.asarray(step, jnp.int32) // length).astype(jnp.float32)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"adam": adam, "adamw": adamw, "sgd": sgd}
SCHEDULES: dict[str, Callable[..., Rate]] = {"constant": constant, "cosine": cosine, "step": step}

_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": ("above 0", lambda value: value > 0),
    "clip_norm": ("at least 0, which clips nothing", lambda value: value >= 0),
    "b1": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "b2": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "eps": ("above 0", lambda value: value > 0),
    "weight_decay": ("at least 0", lambda value: value >= 0),
    "momentum": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "nesterov": ("True or False", lambda value: value in (True, False)),
    "warmup_epochs": ("at least 0", lambda value: value >= 0),
    "final_fraction": ("in 0 to 1", lambda value: 0 <= value <= 1),
    "every_epochs": ("above 0", lambda value: value > 0),
    "factor": ("above 0 and at most 1", lambda value: 0 < value <= 1),
}


def make(
    *,
    optimizer: str,
    learning_rate: float,
    schedule: str,
    steps_per_epoch: int,
    total_steps: int,
    optimizer_options: Mapping[str, Any] | None = None,
    schedule_options: Mapping[str, Any] | None = None,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """The optimiser of a run: clipped gradients, the update of `optimizer`, the rate of `schedule`.

    Its state is arrays alone, with the number of updates in it, so that a restored run resumes exactly.

    Args:
      optimizer: a name of `OPTIMIZERS`.
      learning_rate: the highest, of the schedule.
      schedule: a name of `SCHEDULES`.
      steps_per_epoch: updates in one epoch.
      total_steps: updates in the run.
      optimizer_options: keyword arguments of the optimiser.
      schedule_options: keyword arguments of the schedule.
      clip_norm: gradients with a larger global norm are scaled to this one, before anything else; 0 clips nothing.

    Raises:
      InputError: an unknown name or option, or a value that cannot be; names the field `config.training.<...>`.
    """
    rate = make_schedule(
        schedule,
        learning_rate,
        schedule_options=schedule_options,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )
    chosen = _chosen("optimizer", OPTIMIZERS, optimizer, optimizer_options)
    if chosen.get("nesterov") and not chosen.get("momentum"):
        raise InputError("config.training.optimizer_options.nesterov needs a momentum above 0")
    _check_value("clip_norm", "clip_norm", clip_norm)
    update = OPTIMIZERS[optimizer](rate, **chosen)
    return apart(optax.chain(optax.clip_by_global_norm(clip_norm), update) if clip_norm else update)


def apart(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser, whose values and types do not depend on JAX's global switches."""
    return optax.GradientTransformation(at_defaults(optimizer.init), at_defaults(optimizer.update))


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    steps_per_epoch: int,
    total_steps: int,
    schedule_options: Mapping[str, Any] | None = None,
) -> Rate:
    """`step -> learning rate`, float32, of the update that follows `step` others; may be traced.

    Args:
      name: of `SCHEDULES`.
      learning_rate: the highest.
      steps_per_epoch: updates in one epoch.
      total_steps: updates in the run.
      schedule_options: keyword arguments of the schedule.

    Raises:
      InputError: as `make`.
    """
    chosen = _chosen("schedule", SCHEDULES, name, schedule_options)
    _check_value("learning_rate", "learning_rate", learning_rate)
    warmup = chosen.get("warmup_epochs", 0) * steps_per_epoch
    if warmup and warmup >= total_steps:
        raise InputError(
            f"config.training.schedule_options.warmup_epochs is {chosen['warmup_epochs']}, which is no less than the "
            f"run's {total_steps} steps of {steps_per_epoch} an epoch; choose fewer"
        )
    rate = SCHEDULES[name](learning_rate, steps_per_epoch, total_steps, **chosen)
    return at_defaults(lambda step: jnp.asarray(rate(step), jnp.float32))


def _warmup(step: Any, steps: float) -> jax.Array:
    """The share of the rate: that of update i, counted from 0, is (i + 1) / steps, at most 1."""
    return jnp.minimum((jnp.asarray(step, jnp.float32) + 1) / max(steps, 1), 1.0)


def _kernels(params: Any) -> Any:
    """True for kernels; by name, as a LayerNorm over positions has scales of any rank."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)


def _chosen(field: str, table: Mapping[str, Any], name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that the choice of that name takes, with values that can be."""
    chosen = options.chosen(f"training.{field}", table, name, given or {})
    for option, value in chosen.items():
        _check_value(f"{field}_options.{option}", option, value)
    return chosen


def _check_value(field: str, name: str, value: Any) -> None:
    wanted, fits = _RANGES[name]
    if not (isinstance(value, (int, float)) and math.isfinite(value) and fits(value)):
        raise InputError(f"config.training.{field} is {value!r}; it must be {wanted}")
