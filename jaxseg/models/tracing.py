"""Cached results of tracing a network: a large one takes seconds to trace, and is traced often."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def remembered(trace: Callable[..., Any]) -> Callable[..., Any]:
    """Caches a function of a module and of hashable arguments.

    A module that holds arrays cannot be hashed, so it is not recognised, and traced again.
    """
    known = functools.lru_cache(maxsize=64)(trace)

    @functools.wraps(trace)
    def ask(module: nn.Module, *rest: Any) -> Any:
        try:
            hash(module)
        except TypeError:
            return trace(module, *rest)
        return known(module, *rest)

    return ask


def variable_shapes(module: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """Shapes and types of a module's variables, for a float32 input of a shape, as `[1,*n,C]`; nothing is computed."""
    return dict(_variable_shapes(module, tuple(input_shape)))


@remembered
def _variable_shapes(module: nn.Module, shape: tuple[int, ...]) -> Any:
    def init(images: jax.Array) -> Any:
        # of the generator whose draws take half as long to trace
        return module.init(jax.random.key(0, impl="rbg"), images)

    return jax.eval_shape(init, jax.ShapeDtypeStruct(shape, jnp.float32))
