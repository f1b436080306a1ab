"""What every launcher shares: errors that a person can mend end as one line and exit status 2, not as a traceback."""

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from jaxseg.errors import InputError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`; prints an `InputError` as its message alone and exits with status 2."""
    try:
        app.run(lambda argv: _call(main, argv), flags_parser=_parse)
    except InputError as error:
        sys.exit(_fail(str(error)))


def _call(main: Callable[[], None], argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: flags are written --name=value (see --help)")
    main()


def _parse(argv: Sequence[str]) -> Sequence[str]:
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        # absl and ml_collections wrap long advice around the cause; the first line names it
        raise InputError(str(error).strip().splitlines()[0].removeprefix("FATAL Flags parsing error: ")) from error
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS["verbosity"].value = logging.WARNING  # app.run would make it INFO, and libraries talk a lot there
        flags.FLAGS["verbosity"].using_default_value = False
    return rest


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def required(flag: flags.FlagHolder) -> Any:
    """The flag's value; raises InputError when it was not given."""
    if flag.value is None:
        raise InputError(f"--{flag.name} is missing (see --help)")
    return flag.value


def command() -> str:
    """The command line as a person would type it again, from the repository's root."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else shlex.quote(sys.argv[0])
    return " ".join([program, *(shlex.quote(argument) for argument in sys.argv[1:])])
