"""One training step and one validation step, pure functions of arrays; the loop owns input and output."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxseg.metrics import overlap
from jaxseg.models import layers
from jaxseg.training import parallel
from jaxseg.training.objectives import Batch, Objective
from jaxseg.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
View = Callable[[jax.Array, Batch], dict[str, jax.Array]]
ON_NONFINITE = ("stop", "skip")


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    view: View,
    *,
    accumulate: int = 1,
    on_nonfinite: str = "stop",
    axis: str | None = None,
) -> TrainStep:
    """`train_step(state, batch) -> (state, {"loss", "grad_norm", "finite"})`.

    `finite` is bool `[1 + L]`: of the loss and of the gradient of each of the L parameters, in the order of
    `tensor_names`.

    Args:
      objective: what is made small; a mean over the cases of a batch.
      optimizer: an optax transformation.
      view: `(key, stored batch) -> {"images", "labels"}`, on the device; with `"valid"` where not all pixels count.
      accumulate: parts into which the batch is split, computed one after the other; gradients are averaged, and batch
        statistics are those of a part.
      on_nonfinite: `skip` leaves everything but the step as it is when loss or gradient are not finite, the place in
        the schedule too; `stop` leaves the decision to the caller, who must not use the state.
      axis: name of the mapped axis over which the batch is split, under `pmap`; None under `jit`.
    """

    def value_and_gradient(key: jax.Array, state: TrainState, batch: Batch) -> tuple[jax.Array, Any, Any]:
        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            with layers.batch_axis(axis):
                return objective(key, state.replace(params=params).variables, view(view_key(state), batch))

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        if axis is not None:
            loss, grads = jax.lax.pmean((loss, grads), axis)
        return loss, batch_stats, grads

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(view_key(state), 1)
        if axis is not None:  # dropout differs between the parts of a batch
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        batch = {**batch, "position": _positions(batch, axis)}
        if accumulate == 1:
            loss, batch_stats, grads = value_and_gradient(key, state, batch)
        else:
            loss, batch_stats, grads = _accumulated(value_and_gradient, key, state, batch, accumulate)
        squares = jnp.stack([jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)])
        finite = jnp.isfinite(jnp.concatenate([loss[None], squares]))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = state.replace(
            params=optax.apply_updates(state.params, updates), batch_stats=batch_stats, opt_state=opt_state
        )
        if on_nonfinite == "skip":
            good = jnp.all(finite)
            keep = lambda a, b: jnp.where(good, a, b)
            new = new.replace(
                params=jax.tree.map(keep, new.params, state.params),
                batch_stats=jax.tree.map(keep, new.batch_stats, state.batch_stats),
                opt_state=jax.tree.map(keep, new.opt_state, state.opt_state),
            )
        metrics = {"loss": loss, "grad_norm": jnp.sqrt(jnp.sum(squares)), "finite": finite}
        return new.replace(step=state.step + 1), metrics

    return train_step


def view_key(state: TrainState) -> jax.Array:
    """The random key with which the view of a step is drawn."""
    return jax.random.fold_in(state.key, state.step)


def tensor_names(params: Any) -> tuple[str, ...]:
    """What the entries of `finite` are about."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return ("the loss", *("the gradient of " + "/".join(str(part.key) for part in path) for path in paths))


def _positions(batch: Batch, axis: str | None) -> jax.Array:
    """The place of every case in the global batch, so that its draws do not depend on how the batch is split."""
    count = batch["index"].shape[0]
    first = 0 if axis is None else jax.lax.axis_index(axis) * count
    return first + jnp.arange(count, dtype=jnp.int32)


def _accumulated(
    value_and_gradient: Callable[..., tuple[jax.Array, Any, Any]],
    key: jax.Array,
    state: TrainState,
    batch: Batch,
    parts: int,
) -> tuple[jax.Array, Any, Any]:
    """Mean loss and gradient over `parts` of the batch; batch statistics go from one to the next."""
    # every part takes cases from everywhere in the batch, so that each device keeps to its own
    split = {name: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0) for name, x in batch.items()}
    zero = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.params))

    def add(carry: Any, item: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        batch_stats, total = carry
        i, part = item
        now = state.replace(batch_stats=batch_stats)
        loss, batch_stats, grads = value_and_gradient(jax.random.fold_in(key, i), now, part)
        return (batch_stats, jax.tree.map(jnp.add, total, (loss, grads))), None

    carry = (state.batch_stats, zero)
    (batch_stats, total), _ = parallel.scan(add, carry, (jnp.arange(parts, dtype=jnp.uint32), split))
    loss, grads = jax.tree.map(lambda x: x / parts, total)
    return loss, batch_stats, grads


def make_counts_step(
    model: nn.Module, view: Callable[[Batch], dict[str, jax.Array]], num_classes: int
) -> Callable[[Mapping[str, Any], Batch], jax.Array]:
    """`step(variables, batch) -> int32 [B,K,3]`, as `overlap.class_counts` gives them of the pixels that count."""

    def counts_step(variables: Mapping[str, Any], batch: Batch) -> jax.Array:
        seen = view(batch)
        logits: Any = model.apply(dict(variables), seen["images"])  # a tuple only where something is mutable
        classes = jnp.argmax(logits, -1).astype(jnp.int32)
        return overlap.class_counts(seen["labels"], classes, num_classes=num_classes, valid=seen.get("valid"))

    return counts_step
