"""Inputs: arrays as metrics and analyses compute with them, and values that are checked where they are known.

A function that names its arrays with `native` takes whatever NumPy reads as numbers, in any byte order and layout. What
NumPy would misread, or JAX would, is an error: the values below the mask of a masked array, objects, text.

Values are known for a concrete array and unknown for a traced one, which is left alone: in `jax.jit`, `jax.grad` and
`jax.vmap` checks cost nothing, and wrong values go unnoticed. Memory that the host shares is read where it
lies. From an accelerator, a few numbers are fetched, not the array: that waits for the array to be computed. An array
that has parts on other hosts is left alone too.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

_P = ParamSpec("_P")
_T = TypeVar("_T")
_ROUNDING = 1e-2  # probabilities may miss 0, 1 and their sum by that; bfloat16 rounds 1 by 0.004
_PIXELS = 2**16  # so many are summed over their classes on the host; a forgotten softmax is forgotten everywhere


def native(*names: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorates a function so that its arguments of these names are arrays that JAX computes with.

    JAX's own arrays pass. Anything else is read by NumPy and put in the machine's byte order; states (named tuples
    and registered dataclasses) are converted array by array.

    Raises (the decorated function):
      TypeError: not readable as an array, or not of bool, integer or floating-point numbers.
      ValueError: a masked array with masked values.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        order = tuple(inspect.signature(function).parameters)
        places = [order.index(name) for name in names]

        @functools.wraps(function)
        def with_native_arrays(*args: Any, **kwargs: Any) -> _T:
            positional = list(args)
            for i in places:
                if i < len(args):
                    positional[i] = converted(order[i], args[i])
            for name in names:
                if name in kwargs:
                    kwargs[name] = converted(name, kwargs[name])
            return function(*positional, **kwargs)

        return cast(Callable[_P, _T], with_native_arrays)

    return decorate


def converted(name: str, value: Any) -> Any:
    """One argument as `native` converts it; None stays None."""
    if _ready(value):
        return value
    if jax.tree_util.all_leaves([value]) or isinstance(value, list) or type(value) is tuple:
        return _array(name, value)
    return jax.tree.map(lambda leaf: leaf if _ready(leaf) else _array(name, leaf), value)


def known(array: Any) -> bool:
    """Whether this process has the values of all of `array` now, and there are any."""
    if isinstance(array, jax.core.Tracer) or not array.size:
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def extremes(array: Any) -> tuple[float, float] | None:
    """Least and greatest value, ignoring NaN unless there is nothing else; None where values are not `known`."""
    if not known(array):
        return None
    if _on_accelerator(array):
        with jax.ensure_compile_time_eval():  # a concrete array, also while something else is traced
            low, high = np.asarray(_device_extremes(array)).tolist()
        return low, high
    parts = [_wide(part) for part in _parts(array)]
    low = np.fmin.reduce([np.fmin.reduce(part, None) for part in parts])
    return low.item(), np.fmax.reduce([np.fmax.reduce(part, None) for part in parts]).item()


def check_integers(**labels: Any) -> None:
    """Raises a TypeError unless all are integer, or bool, class numbers."""
    for name, array in labels.items():
        if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_):
            raise TypeError(f"{name} must be integer class numbers, got {array.dtype}; take the argmax over classes")


def check_class_numbers(num_classes: int | None, **labels: Any) -> None:
    """Raises a ValueError where a known value is negative, or not below `num_classes`; None where any number counts."""
    for name, array in labels.items():
        if array.dtype == jnp.bool_ or (limits := extremes(array)) is None:
            continue
        low, high = (int(value) for value in limits)
        if low < 0:
            raise ValueError(
                f"{name} hold the class number {low}, and 0 is the least, the background; give pixels that are to be "
                "ignored class 0, and leave them out with a mask of those that count, valid or region"
            )
        if num_classes is not None and high >= num_classes:
            raise ValueError(
                f"{name} hold the class number {high}, but {num_classes} classes are numbered 0 to {num_classes - 1}; "
                f"{_remedy(name, array, high)}"
            )


def check_shares(**masks: Any) -> None:
    """Raises a ValueError where a known value is not a share: floats outside 0 to 1, integers below 0."""
    for name, array in masks.items():
        if array is None or array.dtype == jnp.bool_ or (limits := extremes(array)) is None:
            continue
        low, high = limits
        hard = not jnp.issubdtype(array.dtype, jnp.floating)
        if low < -_ROUNDING or (high > 1 + _ROUNDING and not hard):
            raise ValueError(
                f"{name} {array.shape} holds values from {low:.6g} to {high:.6g}, which must lie from 0 to 1; "
                f"take the softmax of logits, or of a mask of 0 and 255 give {name} > 0"
            )


def check_probabilities(probabilities: Any, *, name: str = "probabilities") -> None:
    """Raises a ValueError where known values are not from 0 to 1, or do not sum to 1 over the last axis, the classes.

    On the host the sums are those of at most 65,536 pixels, evenly spread.
    """
    if (limits := extremes(probabilities)) is None:
        return
    low, high = limits
    shape = probabilities.shape
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{name} {shape} hold values from {low:.6g} to {high:.6g}, which must lie from 0 to 1; "
            "take the softmax of the logits"
        )
    low, high = _sums(probabilities)
    if low < 1 - _ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{name} {shape} sum to {low:.6g} to {high:.6g} over the last axis, the classes, and must sum to 1; "
            "of one map p give jnp.stack([1 - p, p], -1), of classes first jnp.moveaxis(p, 1, -1)"
        )


def check_filled(**arrays: Any) -> None:
    """Raises a ValueError where an axis after the first, the batch, is empty; None is skipped."""
    for name, array in arrays.items():
        if array is not None and 0 in array.shape[1:]:
            raise ValueError(f"{name} {array.shape} has an empty axis; only the batch may be empty")


def _ready(value: Any) -> bool:
    return value is None or isinstance(value, jax.Array) or (type(value) is np.ndarray and _plain(value.dtype))


def _plain(dtype: np.dtype) -> bool:
    return dtype.isnative and dtype.kind in "biuf" and dtype.itemsize <= 8


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name} {value.shape} is a masked array with {np.ma.count_masked(value)} masked values, which would count "
            f"like the others; give {name}.filled(...), or leave those cases out"
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TypeError(
            f"{name} is a {type(value).__name__} that NumPy cannot read ({reason}); give an array"
        ) from error
    if array.dtype != np.bool_ and not (
        jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    ):
        raise TypeError(
            f"{name} must be bool, integer or floating-point numbers, got {array.dtype}; convert them first"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # no device has a longer one
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _on_accelerator(array: Any) -> bool:
    return isinstance(array, jax.Array) and any(device.platform != "cpu" for device in array.devices())


def _remedy(name: str, array: Any, highest: int) -> str:
    if highest == 255 and set(np.unique(np.asarray(array)).tolist()) == {0, 255}:
        return f"of a mask of 0 and 255 give {name} // 255"
    if highest == 255:
        return "give pixels of 255 that are to be ignored class 0, and leave them out with valid or region"
    return f"give num_classes={highest + 1}, or renumber the classes"


@jax.jit
def _device_extremes(array: jax.Array) -> jax.Array:
    return jnp.stack([jnp.nanmin(array), jnp.nanmax(array)])


@jax.jit
def _device_sums(array: jax.Array) -> jax.Array:
    return _device_extremes(jnp.sum(array.astype(jnp.float32), -1))


def _parts(array: Any) -> list[np.ndarray]:
    """The array on the host, without a copy: piece by piece where it lies on several devices."""
    if not isinstance(array, jax.Array):
        return [array]
    return [np.asarray(shard.data) for shard in array.addressable_shards if shard.replica_id == 0]


def _wide(part: np.ndarray) -> np.ndarray:
    """Half precision and less as float32, which the host's processor compares 20 times as fast."""
    return part if part.dtype.kind in "biu" or part.dtype.itemsize >= 4 else part.astype(np.float32)


def _sums(probabilities: Any) -> tuple[float, float]:
    """Least and greatest sum over the last axis, ignoring NaN."""
    if _on_accelerator(probabilities):
        with jax.ensure_compile_time_eval():
            low, high = np.asarray(_device_sums(probabilities)).tolist()
        return low, high
    parts, sums = _parts(probabilities), []
    if parts[0].shape[-1] != probabilities.shape[-1]:  # devices hold different classes
        parts = [np.asarray(probabilities)]
    for part in parts:
        pixels = part.reshape(-1, part.shape[-1])
        pixels = _wide(pixels[:: -(-len(pixels) // _PIXELS)])
        sums.append(pixels @ np.ones(pixels.shape[-1], pixels.dtype))  # NumPy is slow at summing over a short axis
    together = np.concatenate(sums)
    return float(np.fmin.reduce(together)), float(np.fmax.reduce(together))
