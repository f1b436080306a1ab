"""Settings: a config that is checked once, where it comes in, as a frozen dataclass whose fields say what they may be.

@dataclasses.dataclass(frozen=True)
class Evaluation:
    grid: int = count()
    share: float = number(above=0, below=1)
    unit: str = one_of("slice", "subject")

@dataclasses.dataclass(frozen=True)
class Settings:
    evaluation: Evaluation  # the section of that name
    seed: int = count(least=0)

settings = read(Settings, config, shown_in="configs/border_shortcut.py")
"""

import dataclasses
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import ml_collections

from jaxseg.errors import InputError

Read = TypeVar("Read")
_KINDS: Mapping[Any, tuple[Any, str]] = {  # annotation -> what a value is, and the words for it
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    bool: (bool, "true or false"),
    ml_collections.ConfigDict: (ml_collections.ConfigDict, "a section"),
}
_OF = {int: " of whole numbers", float: " of numbers", str: " of texts"}
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

    A field that is itself a dataclass is read of the section of its name.

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
    found: Any = config
    for i, part in enumerate(parts, 1):
        if part not in found:
            raise InputError(f"config.{'.'.join(parts[:i])} is missing; {shown_in} shows every field")
        found = found[part]
        if not isinstance(found, ml_collections.ConfigDict):
            raise InputError(f"config.{'.'.join(parts[:i])} is {found!r}; it must be a section, as in {shown_in}")
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in made or (field.name not in found and field.default is not dataclasses.MISSING):
            continue
        if dataclasses.is_dataclass(hints[field.name]):
            made[field.name] = read(hints[field.name], config, field.name, shown_in=shown_in)
            continue
        if field.name not in found:
            raise InputError(f"{place}{field.name} is missing; {shown_in} shows every field")
        value = found[field.name]
        if problem := _kind_problem(value, hints[field.name]) or _problem(value, field.metadata):
            shown = value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value
            raise InputError(f"{place}{field.name} is {shown!r}; {problem}")
        made[field.name] = found[field.name]
    return cls(**made)


def _kind_problem(value: Any, hint: Any) -> str:
    """What a value has to be by the annotation of its field, and is not; of other annotations than these, nothing."""
    if get_origin(hint) in (tuple, Sequence):
        fits = isinstance(value, tuple | list) and not any(_kind_problem(one, get_args(hint)[0]) for one in value)
        return "" if fits else f"it must be a list{_OF.get(get_args(hint)[0], '')}"
    if get_origin(hint) is Mapping:
        fits = isinstance(value, ml_collections.ConfigDict)
        problems = (
            [_kind_problem(one, get_args(hint)[1]) for one in value.values()] if fits else ["it must be a section"]
        )
        return next(filter(None, problems), "")
    if hint not in _KINDS:
        return ""
    kinds, words = _KINDS[hint]
    return "" if isinstance(value, kinds) and isinstance(value, bool) == (hint is bool) else f"it must be {words}"


def _problem(value: Any, wanted: Mapping[str, Any]) -> str:
    """What a value has to be and is not; empty where it may stay."""
    if bounds := wanted.get("bounds"):
        words = " and ".join(f"{_BOUNDS[name][1]} {bound:g}" for name, bound in bounds.items())
        return "" if all(_BOUNDS[k][0](value, v) for k, v in bounds.items()) else f"it must be {words}"
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
