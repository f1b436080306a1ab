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


def of_library(function: Callable[P, R]) -> Callable[P, R]:
    """A function of a library, with the switches at the defaults that it was written for.

    optax's Adam raises a float to an integer power, which strict promotion refuses and 64 bits compute otherwise.
    """

    @functools.wraps(function)
    def quiet(*arguments: P.args, **options: P.kwargs) -> R:
        with contextlib.ExitStack() as switches:
            switches.enter_context(jax.enable_x64(False))
            switches.enter_context(jax.numpy_dtype_promotion("standard"))
            switches.enter_context(jax.numpy_rank_promotion("allow"))
            return function(*arguments, **options)

    return quiet
