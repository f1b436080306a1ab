"""Everything that training changes, as one pytree."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


class TrainState(flax.struct.PyTreeNode):
    """The state of a run after `step` updates; the data position is a function of `step` alone.

    Attributes:
      step: int32 scalar array.
      params, batch_stats: the network's variables, float32.
      opt_state: the optimiser's.
      key: typed random key of the run; step i uses `fold_in(key, i)`.
      frozen: what the objective reads and nothing changes, such as another network.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    frozen: Any = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """What `module.apply` and an objective take."""
        return {"params": self.params, "batch_stats": self.batch_stats} | (
            {"frozen": self.frozen} if self.frozen else {}
        )

    @property
    def saved(self) -> "TrainState":
        """What a checkpoint holds: everything but the frozen variables, which their own run holds."""
        return self.replace(frozen={})


def create(
    key: jax.Array, model: nn.Module, optimizer: optax.GradientTransformation, input_shape: tuple[int, ...]
) -> TrainState:
    """A fresh state for inputs of `input_shape` (batch included; the batch size does not matter)."""
    seed_key, run_key = jax.random.split(key)
    # a draw per parameter: XLA compiles those of the default generator several times slower
    init_key = jax.random.key(jax.random.bits(seed_key, dtype=jnp.uint32), impl="rbg")
    variables = model.init(init_key, jnp.zeros((1, *input_shape[1:]), jnp.float32))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        key=run_key,
    )
