"""Timing on machines that others use too: the two sides take turns, and what counts is their ratio."""

import dataclasses
import functools
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.errors import InputError


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Seconds of two ways to the same result, measured in turns.

    Attributes:
      seconds: of the first, per round.
      baseline_seconds: of the second, per round.
    """

    seconds: tuple[float, ...]
    baseline_seconds: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """Median over the rounds of baseline over first; a round's two sides share what else the machine did."""
        pairs = zip(self.seconds, self.baseline_seconds, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    @property
    def best(self) -> tuple[float, float]:
        """The least seconds of each side."""
        return min(self.seconds), min(self.baseline_seconds)


def compare(
    first: Callable[[], Any], baseline: Callable[[], Any], *, rounds: int = 5, least_seconds: float = 0.05
) -> Comparison:
    """Runs both sides in turns, after one unmeasured call of each; JAX arrays are waited for.

    Args:
      first: the side that is to be judged.
      baseline: what it is judged by.
      rounds: turns of each.
      least_seconds: a side is repeated within its turn until it took this long, and the mean is taken.
    """
    return Comparison(*turns((first, baseline), rounds=rounds, least_seconds=least_seconds))


def turns(
    sides: Sequence[Callable[[], Any]], *, rounds: int = 5, least_seconds: float = 0.05
) -> list[tuple[float, ...]]:
    """Seconds per round of each of the `sides`, measured as by `compare`."""
    repeats = [_repeats(side, least_seconds) for side in sides]
    seconds = [[_mean_seconds(side, n) for side, n in zip(sides, repeats, strict=True)] for _ in range(rounds)]
    return [*zip(*seconds, strict=True)]


def _repeats(side: Callable[[], Any], least_seconds: float) -> int:
    jax.block_until_ready(side())  # compiles
    return max(1, round(least_seconds / _mean_seconds(side, 1)))


def _mean_seconds(side: Callable[[], Any], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(side())
    return (time.perf_counter() - began) / repeats


def memory_bandwidth(arrays: Sequence[jax.Array]) -> float:
    """Bytes per second at which the device reads: the sum over all of `arrays`, the best of five."""
    read = jax.jit(lambda arrays: sum(jnp.sum(array) for array in arrays))
    jax.block_until_ready(read(arrays))
    total = sum(array.nbytes for array in arrays)
    return total / min(_mean_seconds(functools.partial(read, arrays), 1) for _ in range(5))


def matmul_rate(size: int, dtype: Any) -> float:
    """Floating-point operations per second of a product of two square matrices, the best of five: a ceiling."""
    matrix = jnp.full((size, size), 1 / size, dtype)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(matrix, matrix))
    return 2 * size**3 / min(_mean_seconds(functools.partial(multiply, matrix, matrix), 1) for _ in range(5))


def memory_use(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes that a compiled call of `function` holds at its peak besides its arguments."""
    analysis: Any = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def peak_memory() -> int:
    """Bytes that the process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> str:
    """Device, processor count and versions, in a line."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else f"{platform.machine()} CPU"
    return f"{kind} x {jax.device_count()}, Python {platform.python_version()}, JAX {jax.__version__}"


def pytorch() -> Any:
    """The module `torch`.

    Raises:
      InputError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError("the benchmark compares with PyTorch; install it with pip install -e '.[torch]'") from error
    return torch
