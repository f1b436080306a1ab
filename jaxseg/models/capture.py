"""Activations of any linen network by name: list them, read them, replace them. The network's code stays unchanged.

A layer is a submodule, and its activation is what its `__call__` returns. Its name is its path in the network joined by
slashes, such as `encoder_0/conv_1`. This is the one place that knows how linen stores activations.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from jaxseg.models import tracing

Activations = dict[str, jax.Array]


def layer_names(module: nn.Module, variables: Any, images: jax.Array, **options: Any) -> tuple[str, ...]:
    """Names of the layers whose activation is one array, in the order in which they finish, input to output.

    Args:
      module: `images -> logits`.
      variables: its variables; shapes are enough, nothing is computed.
      images: as the network takes them; a `jax.ShapeDtypeStruct` is enough.
      **options: for the call of the network, such as `train=False`, if it needs any.

    What is inside a lifted loop (`nn.scan`, `nn.vmap`) has no single activation and is not listed; the loop itself is.
    """
    return _names(module, variables, images, (), options)


def _names(
    module: nn.Module, variables: Any, images: jax.Array, mutable: Sequence[str], options: Mapping[str, Any]
) -> tuple[str, ...]:
    if not all(isinstance(value, bool) for value in options.values()):  # arrays may be among them
        return _traced_names(module, variables, images, mutable, options)
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda *given: given, variables, images))
    return _known_names(module, structure, tuple(leaves), tuple(mutable), tuple(sorted(options.items())))


@tracing.remembered
def _known_names(
    module: nn.Module,
    structure: Any,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
    mutable: tuple[str, ...],
    options: tuple[tuple[str, bool], ...],
) -> tuple[str, ...]:
    variables, images = jax.tree.unflatten(structure, leaves)
    return _traced_names(module, variables, images, mutable, dict(options))


def _traced_names(
    module: nn.Module, variables: Any, images: jax.Array, mutable: Sequence[str], options: Mapping[str, Any]
) -> tuple[str, ...]:
    names: list[str] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.module.path and context.method_name == "__call__" and isinstance(output, jax.Array):
            names.append("/".join(context.module.path))
        return output

    def run(variables: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(note):
            collections = ["intermediates", *mutable]
            return module.apply(variables, images, capture_intermediates=True, mutable=collections, **options)

    _, state = jax.eval_shape(run, variables, images)
    stored = flax.traverse_util.flatten_dict(state.get("intermediates", {}), sep="/")
    return tuple(name for name in dict.fromkeys(names) if f"{name}/__call__" in stored)


def capture(
    module: nn.Module, variables: Any, images: jax.Array, layers: Sequence[str] | None = None, **options: Any
) -> tuple[jax.Array, Activations]:
    """The logits and the activations of the named layers; under jit, only those are kept.

    Args:
      module: `images -> logits`.
      variables: its variables.
      images: `[B,H,W,C]`.
      layers: names from `layer_names`; None captures all.
      **options: for the call of the network, such as `train=False`, if it needs any.

    Returns:
      Logits, and layer -> activation. A layer that is called more than once gives its last activation. JAX sorts the
      keys of a dict that a jitted function returns; `layer_names` has the order from input to output.

    Raises:
      ValueError: a layer is unknown; the message lists the known ones.
    """
    logits, activations, _ = _captured(module, variables, images, layers, (), options)
    return logits, activations


def capture_and_update(
    module: nn.Module,
    variables: Any,
    images: jax.Array,
    layers: Sequence[str],
    *,
    mutable: Sequence[str],
    **options: Any,
) -> tuple[jax.Array, Activations, dict[str, Any]]:
    """As `capture`, of a forward pass that changes variables, such as one of training with its running statistics.

    Args:
      module: `images -> logits`.
      variables: its variables.
      images: `[B,H,W,C]`.
      layers: names from `layer_names`.
      mutable: collections that the pass may change, such as `["batch_stats"]`.
      **options: for the call of the network, such as `train=True, rngs={"dropout": key}`.

    Returns:
      Logits, layer -> activation, and collection -> its new values.

    Raises:
      ValueError: a layer is unknown; the message lists the known ones.
    """
    return _captured(module, variables, images, layers, mutable, options)


def replace(
    module: nn.Module,
    variables: Any,
    images: jax.Array,
    functions: Mapping[str, Callable[[jax.Array], jax.Array]],
    **options: Any,
) -> jax.Array:
    """The logits of the network in which the activation `x` of each named layer is replaced by its function of `x`.

    With a plain forward pass in one jitted function, everything before the first replaced layer is computed once:
    XLA merges equal operations.

    Args:
      module: `images -> logits`.
      variables: its variables.
      images: `[B,H,W,C]`.
      functions: layer -> function; it must keep the activation's shape, and may apply networks of its own, this one
        too.
      **options: for the call of the network, such as `train=False`, if it needs any.

    Raises:
      ValueError: a layer is unknown, or a function changes the shape.
    """
    _checked(module, variables, images, tuple(functions), (), options)
    busy = False  # a function may apply a network of its own, whose layers may have the same names

    def change(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal busy
        output = call(*args, **kwargs)
        name = "/".join(context.module.path)
        if busy or context.method_name != "__call__" or name not in functions:
            return output
        busy = True
        try:
            changed = jnp.asarray(functions[name](output))
        finally:
            busy = False
        if changed.shape != output.shape:
            raise ValueError(f"the function for {name} made {changed.shape} of {output.shape}; it must keep the shape")
        return changed.astype(output.dtype)

    with nn.intercept_methods(change):
        logits: Any = module.apply(variables, images, **options)
    return logits


def _captured(
    module: nn.Module,
    variables: Any,
    images: jax.Array,
    layers: Sequence[str] | None,
    mutable: Sequence[str],
    options: Mapping[str, Any],
) -> tuple[jax.Array, Activations, dict[str, Any]]:
    if layers is None:
        layers = _names(module, variables, images, mutable, options)
    _check_sequence(layers)
    wanted = set(layers)
    logits, state = module.apply(
        variables,
        images,
        capture_intermediates=lambda layer, method: method == "__call__" and "/".join(layer.path) in wanted,
        mutable=["intermediates", *mutable],
        **options,
    )
    updated = dict(state)
    stored = flax.traverse_util.flatten_dict(updated.pop("intermediates", {}), sep="/")
    activations = {name: stored.get(f"{name}/__call__", (None,))[-1] for name in layers}
    if not all(isinstance(activation, jax.Array) for activation in activations.values()):  # only then traced once more
        _checked(module, variables, images, layers, mutable, options)
    return logits, activations, updated


def _checked(
    module: nn.Module,
    variables: Any,
    images: jax.Array,
    layers: Sequence[str],
    mutable: Sequence[str],
    options: Mapping[str, Any],
) -> tuple[str, ...]:
    _check_sequence(layers)
    known = _names(module, variables, images, mutable, options)
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ValueError(f"no layer {', '.join(unknown)}; the network has {', '.join(known)}")
    return tuple(layers)


def _check_sequence(layers: Sequence[str]) -> None:
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}; give a sequence of names")
