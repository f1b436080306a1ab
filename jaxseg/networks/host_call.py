"""A call of the host from within compiled programs, as `jax.pure_callback`, but given NumPy's arrays as they lie.

`jax.pure_callback` puts its operands on a device first, by the threads of the CPU client, one of which runs the
callback: with one core, the copy waits for the callback and the callback for the copy, for ever (JAX 0.10.2, 0.1 MB and
more). Here no JAX array is made and nothing copied, and outside of programs the host is simply called: its errors are
its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import batching, mlir

Shapes = tuple[jax.ShapeDtypeStruct, ...]
_call = core.Primitive("host_call")
_call.multiple_results = True


def host_call(function: Callable[..., Any], like: Any, *arguments: Any) -> Any:
    """The result of a pure function of NumPy arrays.

    Under `vmap` its arguments, all of them, and its results have one more axis at their front.

    Args:
      function: of arrays, or of pytrees of them; it must not use JAX.
      like: shapes and types of its result, a pytree of `jax.ShapeDtypeStruct`.
      *arguments: of it.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes, result_structure = jax.tree.flatten(like)

    def flat(*arrays: np.ndarray) -> list[np.ndarray]:
        return jax.tree.leaves(function(*jax.tree.unflatten(structure, arrays)))

    return jax.tree.unflatten(result_structure, _call.bind(*leaves, function=flat, shapes=tuple(shapes)))


@_call.def_impl
def _at_once(*arrays: Any, function: Callable[..., list[np.ndarray]], shapes: Shapes) -> list[jax.Array]:
    del shapes
    return [jnp.asarray(result) for result in function(*map(np.asarray, arrays))]


@_call.def_abstract_eval
def _abstract(*arrays: Any, function: Callable[..., Any], shapes: Shapes) -> list[Any]:
    del arrays, function
    return [jax.core.ShapedArray(one.shape, one.dtype) for one in shapes]


def _batched(
    arrays: Sequence[jax.Array], axes: Sequence[Any], *, function: Callable[..., Any], shapes: Shapes
) -> tuple[list[jax.Array], list[int]]:
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    whole = [
        jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    larger = tuple(jax.ShapeDtypeStruct((size, *one.shape), one.dtype) for one in shapes)
    return _call.bind(*whole, function=function, shapes=larger), [0] * len(shapes)


def _lowered(context: Any, *operands: Any, function: Callable[..., Any], shapes: Shapes) -> Any:
    del shapes
    results, _, _ = mlir.emit_python_callback(
        context,
        function,
        None,
        list(operands),
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return results


batching.primitive_batchers[_call] = _batched
mlir.register_lowering(_call, _lowered, cacheable=False)  # every call has a function of its own
