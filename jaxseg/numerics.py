"""Numbers that do not depend on JAX's global switches."""

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def in_32_bits(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, computed as without `jax_enable_x64`, whatever the switch says.

    Our own arrays name their types. What libraries make follows the switch, and with it the last bits of a result.
    """

    @functools.wraps(function)
    def narrow(*arguments: P.args, **options: P.kwargs) -> R:
        with jax.enable_x64(False):
            return function(*arguments, **options)

    return narrow


def at_defaults(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with JAX's switches where they are by default, for what is written for those alone.

    Such as optax: its Adam raises a float to an integer power, which strict promotion refuses and 64 bits compute
    otherwise.
    """

    @functools.wraps(function)
    def usual(*arguments: P.args, **options: P.kwargs) -> R:
        with contextlib.ExitStack() as switches:
            switches.enter_context(jax.enable_x64(False))
            switches.enter_context(jax.numpy_dtype_promotion("standard"))
            switches.enter_context(jax.numpy_rank_promotion("allow"))
            return function(*arguments, **options)

    return usual
