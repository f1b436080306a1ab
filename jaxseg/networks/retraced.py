"""A layer of a function that JAX can trace, replaced: what is computed from it is computed from something else."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core

from jaxseg.errors import InputError

_CALLS = ("jit", "pjit")  # whose insides are read as if they stood outside


def replaced(
    function: Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]],
    argument: jax.Array,
    given: Mapping[str, jax.Array],
    name: str,
) -> jax.Array:
    """The answer of a function, were the values of its layers others.

    Args:
      function: argument -> answer, and layer -> activation.
      argument: of it.
      given: layer -> what it has instead, of its shape.
      name: of the function, for messages.

    Raises:
      InputError: the answer is not computed from what the function returns for a layer.
    """
    layers = tuple(given)

    def parts(argument: jax.Array) -> tuple[jax.Array, ...]:
        answer, activations = function(argument)
        return answer, *(activations[layer] for layer in layers)

    nested = jax.make_jaxpr(parts)(argument)
    flat = jax.make_jaxpr(lambda argument: _computed(nested, [argument], {}))(argument)
    answer, *places = flat.jaxpr.outvars
    if unread := [layer for layer, place in zip(layers, places, strict=True) if place not in _read_for(flat, answer)]:
        raise InputError(
            f"{name} does not compute its answer from what it returns for {', '.join(unread)}; return the very array "
            "that it goes on with"
        )
    instead = {place: given[layer].astype(place.aval.dtype) for layer, place in zip(layers, places, strict=True)}
    return _computed(flat, [argument], instead)[0]


def _computed(closed: core.ClosedJaxpr, arguments: list[Any], instead: Mapping[core.Var, Any]) -> list[Any]:
    """The results of a jaxpr in which some variables have other values."""
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *arguments), strict=True))
    values.update(instead)
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else values[atom]
    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _CALLS:
            results = _computed(equation.params["jaxpr"], given, {})
        else:
            results = _alone(equation, jaxpr)(*given)
        values.update(zip(equation.outvars, results, strict=True))
        values.update(instead)
    return [read(atom) for atom in jaxpr.outvars]


def _alone(equation: core.JaxprEqn, jaxpr: core.Jaxpr) -> Callable[..., list[Any]]:
    """An equation as a function of its arguments."""
    held = list(dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, core.Literal)))
    one = jaxpr.replace(constvars=[], invars=held, outvars=equation.outvars, eqns=[equation])
    compute = core.jaxpr_as_fun(core.ClosedJaxpr(one, ()))

    def results(*given: Any) -> list[Any]:
        pairs = zip(equation.invars, given, strict=True)
        values = {atom: value for atom, value in pairs if not isinstance(atom, core.Literal)}
        return compute(*(values[atom] for atom in held))

    return results


def _read_for(closed: core.ClosedJaxpr, answer: Any) -> set[Any]:
    """The variables from which an answer is computed, itself among them."""
    read = {answer}
    for equation in reversed(closed.jaxpr.eqns):
        if read & set(equation.outvars):
            read |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)}
    return read
