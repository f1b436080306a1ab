"""One training step and one validation step, pure functions of arrays; the loop owns input and output."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxseg.metrics import overlap
from jaxseg.training.objectives import Batch, Objective
from jaxseg.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    view: Callable[[jax.Array, Batch], dict[str, jax.Array]],
) -> TrainStep:
    """`train_step(state, batch) -> (state, {"loss", "grad_norm"})`.

    Args:
      objective: what is made small.
      optimizer: an optax transformation.
      view: `(key, stored batch) -> {"images", "labels"}`, on the device.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        seen = view(key, batch)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            return objective(jax.random.fold_in(key, 1), variables, seen)

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return new, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

    return train_step


def make_eval_step(
    model: nn.Module, view: Callable[[Batch], dict[str, jax.Array]], num_classes: int
) -> Callable[[Any, Batch], jax.Array]:
    """`eval_step(variables, batch) -> Dice [B,K-1]`, NaN where a class is in neither label nor prediction."""

    def eval_step(variables: Any, batch: Batch) -> jax.Array:
        seen = view(batch)
        logits: Any = model.apply(variables, seen["images"])  # a tuple only where something is mutable
        return overlap.dice(seen["labels"], jnp.argmax(logits, -1), num_classes=num_classes)

    return eval_step
