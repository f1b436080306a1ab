"""Entries of nnU-Net's JSON files, of the kind that they must have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxseg.errors import InputError

Json = Mapping[str, Any]
PLANS, DATASET = "plans.json", "dataset.json"
_WORDS: dict[Any, str] = {dict: "an object", list: "a list", str: "a text"}


def entry(of: Json, name: str, kind: type, *, file: str = PLANS) -> Any:
    """The entry `name` of an object in a file.

    Raises:
      InputError: it is missing, or not of the kind, which is dict, list or str.
    """
    if not isinstance(of.get(name), kind):
        found = f"is {of[name]!r:.80}" if name in of else "is missing"
        raise InputError(f"{file}: {name} {found}; nnU-Net 2 writes {_WORDS[kind]} there")
    return of[name]


def options(of: Json, name: str) -> Json:
    """The object `name` in the plans; an empty one where there is none, or null."""
    return {} if of.get(name) is None else dict(entry(of, name, dict))


def number(of: Json, name: str) -> int:
    """The whole number `name` in the plans."""
    return integers({name: [of.get(name)]}, name)[0]


def integers(of: Json, name: str, *, count: int | None = None, repeat: int | None = None) -> tuple[int, ...]:
    """The whole numbers `name` in the plans: `count` of them, or `repeat`, for all of which one may stand."""
    given = of.get(name)
    listed = {name: [given] * repeat if repeat and isinstance(given, int) else given}
    return tuple(int(one) for one in _numbers(listed, name, count or repeat, "whole number"))


def reals(of: Json, name: str, *, count: int) -> tuple[float, ...]:
    """The finite numbers `name` in the plans."""
    return tuple(float(one) for one in _numbers(of, name, count, "number"))


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(of: Json, name: str, count: int | None, words: str) -> Sequence[Any]:
    values = of.get(name)
    fit = isinstance(values, list | tuple) and len(values) > 0 and count in (None, len(values))
    whole = words.startswith("whole")
    if not fit or not all(is_number(one) and (not whole or one == int(one)) for one in values or ()):
        wanted = f"{count or 'some'} {words}{'' if count == 1 else 's'}"
        raise InputError(f"{PLANS}: {name} is {values!r:.80}; nnU-Net 2 writes {wanted} there")
    return list(values or ())
