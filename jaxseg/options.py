"""What is chosen by name in a config, with options of its own: losses, optimisers, schedules."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxseg.errors import InputError

_OF_A_BATCH = "valid"  # a keyword of losses that no config has


def chosen(field: str, table: Mapping[str, Callable[..., Any]], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `table[name]` takes, which are its keyword-only parameters (but `valid`, which batches have).

    A config holds the options of all choices, so that another name can be given on the command line; those that belong
    to others must be at their defaults, else something would be asked for that does not happen.

    Args:
      field: of the config, such as `training.loss`; its options are in `<field>_options`.
      table: name -> function, or dataclass.
      name: what was chosen.
      given: the options in the config.

    Raises:
      InputError: an unknown name, an option that none in the table has, or one that others have, with another value.
    """
    if name not in table:
        raise InputError(f"config.{field} is {name!r}; choose one of {', '.join(table)}")
    defaults = {known: _defaults(function) for known, function in table.items()}
    for option, value in given.items():
        owners = [known for known, own in defaults.items() if option in own]
        where = f"config.{field}_options.{option}"
        if not owners:
            raise InputError(f"{where} is unknown; {name} has {', '.join(defaults[name]) or 'no options'}")
        unchanged = _plain(value) == defaults[owners[0]][option]
        if name not in owners and not unchanged:
            raise InputError(f"{where} is {value!r}, but {name} has no {option}; {', '.join(owners)} has")
    return {option: value for option, value in given.items() if option in defaults[name]}


def _plain(value: Any) -> Any:
    """A stored config has lists where its source has tuples."""
    return tuple(value) if isinstance(value, list) else value


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY and p.name != _OF_A_BATCH}
