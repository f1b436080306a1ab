"""Settings: a config that is checked once, where it comes in, as a frozen dataclass whose fields say what they may be.

@dataclasses.dataclass(frozen=True)
class Evaluation:
    grid: int = count()
    share: float = number(above=0, below=1)
    unit: str = one_of("slice", "subject")

evaluation = read(Evaluation, config, "evaluation", shown_in="configs/border_shortcut.py")
"""

import dataclasses
import functools
import operator
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import ml_collections

from jaxseg.errors import InputError

Read = TypeVar("Read")
_BOUNDS = {  # keyword of `number` -> how a value is compared, and the words for it
    "above": (operator.gt, "above"),
    "least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "at most"),
}


def number(*, default: Any = dataclasses.MISSING, **bounds: float) -> Any:
    """A field that is a number within bounds: `above` or at `least` one, `below` or at `most` another."""
    ordered = {name: bounds[name] for name in _BOUNDS if name in bounds}
    return dataclasses.field(kw_only=True, default=default, metadata={"bounds": ordered})


def count(*, least: int = 1, default: Any = dataclasses.MISSING) -> Any:
    """A field that says how many."""
    return number(least=least, default=default)


def share(*, default: Any = dataclasses.MISSING) -> Any:
    """A field that is a part of a whole, neither none nor all of it."""
    return number(above=0, below=1, default=default)


def one_of(*known: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is one of these words."""
    return dataclasses.field(kw_only=True, default=default, metadata={"known": known})


def some_of(*known: str, every: bool = False) -> Any:
    """A field that lists some of these words, or all of them, each once."""
    return dataclasses.field(kw_only=True, metadata={"listed": known, "every": every})


def read(cls: type[Read], config: ml_collections.ConfigDict, section: str = "", *, shown_in: str, **made: Any) -> Read:
    """A dataclass of the fields of these names in a config; those that have a default may be missing.

    Args:
      cls: the dataclass; its fields may be made by `number`, `count`, `share`, `one_of`, `some_of`.
      config: that has the fields, and others.
      section: of the config, in which they stand; by default not in one.
      shown_in: file that shows every field, for messages.
      **made: fields that the config does not have as they are wanted.

    Raises:
      InputError: a field is missing, or is not what it may be; the message names it.
    """
    place = f"config.{section}." if section else "config."
    parts = section.split(".") if section else []
    for i, part in enumerate(parts, 1):
        if part not in functools.reduce(operator.getitem, parts[: i - 1], config):
            raise InputError(f"config.{'.'.join(parts[:i])} is missing; {shown_in} shows every field")
    found: Any = functools.reduce(operator.getitem, parts, config)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in made or (field.name not in found and field.default is not dataclasses.MISSING):
            continue
        if field.name not in found:
            raise InputError(f"{place}{field.name} is missing; {shown_in} shows every field")
        if problem := _problem(found[field.name], field.metadata):
            raise InputError(f"{place}{field.name} is {found[field.name]!r}; {problem}")
        made[field.name] = found[field.name]
    return cls(**made)


def _problem(value: Any, wanted: Mapping[str, Any]) -> str:
    """What a value has to be and is not; empty where it may stay."""
    if bounds := wanted.get("bounds"):
        words = " and ".join(f"{_BOUNDS[name][1]} {bound:g}" for name, bound in bounds.items())
        number = isinstance(value, int | float)
        return "" if number and all(_BOUNDS[k][0](value, v) for k, v in bounds.items()) else f"it must be {words}"
    if known := wanted.get("known"):
        return "" if value in known else f"choose one of {', '.join(known)}"
    if known := wanted.get("listed"):
        return _list_problem(value, known, wanted["every"])
    return ""


def _list_problem(values: Collection[str], known: Collection[str], every: bool) -> str:
    if every:
        return "" if sorted(values) == sorted(known) else f"give {' and '.join(known)}, each once"
    sound = values and len(set(values)) == len(values) and not set(values) - set(known)
    return "" if sound else f"give some of {', '.join(known)}, each once"
