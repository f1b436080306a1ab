"""One training step and one validation step, pure functions of arrays; the loop owns input and output."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxseg.metrics import overlap
from jaxseg.training.state import TrainState

Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array],
    view: Callable[[jax.Array, Batch], dict[str, jax.Array]],
) -> TrainStep:
    """`train_step(state, batch) -> (state, {"loss", "grad_norm"})`.

    Args:
      model: `images -> logits`.
      optimizer: an optax transformation.
      loss_fn: `(logits, labels) -> scalar`.
      view: `(key, stored batch) -> {"images", "labels"}`, on the device.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        seen = view(jax.random.fold_in(state.key, state.step), batch)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updated = model.apply(variables, seen["images"], train=True, mutable=["batch_stats"])
            return loss_fn(logits, seen["labels"]), updated.get("batch_stats", {})

        (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
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
