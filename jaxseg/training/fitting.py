"""The arrays of a checkpoint as a state: whether they are of the same network, and how they get onto the devices."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError
from jaxseg.training import parallel, stored

_REMEDY = "give the config that the run was made with"


def fitted(where: pathlib.Path, loaded: Mapping[str, np.ndarray], like: Any) -> Any:
    """Arrays on every device, as a pytree like `like`.

    Args:
      where: the checkpoint, for messages.
      loaded: its arrays by name.
      like: pytree with the structure, shapes and types that are expected.

    Raises:
      InputError: it holds other arrays.
    """
    wanted = {name: _stored_type(leaf) for name, leaf in stored.by_name(like).items()}
    _check(where, loaded, wanted)
    arrays = parallel.place_state([loaded[name].astype(dtype, copy=False) for name, (_, dtype) in wanted.items()])
    leaves = [
        _as_key(array, leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else array
        for array, leaf in zip(arrays, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check(
    where: pathlib.Path, loaded: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> None:
    if other := sorted(loaded.keys() ^ wanted.keys()):
        what = "lacks" if other[0] in wanted else "has"
        raise InputError(
            f"{where}: is of another network or optimiser: it {what} {other[0]}"
            f"{f' and {len(other) - 1} more' if len(other) > 1 else ''}; {_REMEDY}"
        )
    for name, (shape, dtype) in wanted.items():
        if loaded[name].shape != shape:
            raise InputError(
                f"{where}: is of another network: {name} has the shape {loaded[name].shape} there and {shape} here; "
                f"{_REMEDY}"
            )
        if not _fits(loaded[name], dtype):
            raise InputError(
                f"{where}: cannot be read here: {name} is {loaded[name].dtype} there and {dtype} here; {_REMEDY}"
            )


def _fits(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the array is of that dtype, or what an earlier version made of it under JAX_ENABLE_X64: twice as wide."""
    wider = array.dtype.kind == dtype.kind and array.dtype.itemsize == 2 * dtype.itemsize == 8
    return array.dtype == dtype or (wider and (dtype.kind == "f" or np.array_equal(array.astype(dtype), array)))


def _stored_type(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype with which a checkpoint holds a leaf of a state: of keys, that of their words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _as_key(words: jax.Array, like: jax.Array) -> jax.Array:
    return _wrap(jax.random.key_impl(like))(words)


@functools.cache
def _wrap(impl: Any) -> Callable[[jax.Array], jax.Array]:
    """Compiled once, however many checkpoints are read."""
    return jax.jit(lambda words: jax.random.wrap_key_data(words, impl=impl), out_shardings=parallel.replicated())
