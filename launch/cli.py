"""What every launcher shares: errors that a person can fix end as one line and exit status 2, not as a traceback."""

import io
import os
import pathlib
import platform
import re
import shlex
import signal
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import app, flags, logging

from jaxseg import paths
from jaxseg.errors import InputError, LostProcess, Preempted

_TRY_AGAIN = 75  # EX_TEMPFAIL: nothing to fix: the same command resumes


class _Stopped(BaseException):
    """A signal to stop, for programs that clean up after themselves."""


def run(
    main: Callable[..., None], commands: Sequence[str] = (), *, resumes: bool = False, cleans_up: bool = False
) -> None:
    """Parses the flags and calls `main`; prints an `InputError` as its message alone and exits with status 2.

    A process that was asked to stop and has saved its work says so and exits with status 0; one that has lost another
    process of its run, with status 75. One that `resumes`, and is asked to stop while there is nothing to save, exits
    with status 0 too; one that `cleans_up` ends by unwinding, with status 130 or 143. Where there are `commands`,
    `main` is given the one on the command line.
    """
    signal.signal(signal.SIGINT, _interrupted)
    if resumes:
        signal.signal(signal.SIGTERM, _stopped)
    if cleans_up:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _unwind)
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if cache := _cache():
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    try:
        app.run(lambda argv: _call(main, argv[1:], commands), flags_parser=_parse)
    except Preempted as stop:
        print(stop, file=sys.stderr)
    except _Stopped as stop:
        print("\nstopped; nothing is left behind", file=sys.stderr)
        sys.exit(128 + stop.args[0])
    except LostProcess as error:
        _fail(str(error))
        os._exit(_TRY_AGAIN)  # an orderly end would wait for the lost one
    except InputError as error:
        status = _fail(str(error))
        if resumes:  # threads that write would add what they make of the same error
            os._exit(status)
        sys.exit(status)


def _cache() -> pathlib.Path | None:
    """Where compiled programs are kept, so that resuming does not begin with compiling; one place per machine.

    None where there is no home, or none that can be written to.

    Programs for a CPU may use instructions that another one lacks, and home folders are often shared.
    """
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    there = next((place for place in (root, *root.parents) if os.path.isdir(place)), None)  # pathlib's raises
    if not root.is_absolute() or there is None or not os.access(there, os.W_OK):
        return None
    return root / "jaxseg" / f"xla-{platform.node()}"


def _unwind(number: int, frame: types.FrameType | None) -> NoReturn:
    del frame
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
    raise _Stopped(number)


def _interrupted(number: int, frame: types.FrameType | None) -> NoReturn:
    """Ends at once: unwinding under XLA's and orbax's threads can crash or be swallowed, and all writes are atomic."""
    del number, frame
    os.write(2, b"\ninterrupted; the same command resumes where it stopped\n")
    os._exit(130)


def _stopped(number: int, frame: types.FrameType | None) -> NoReturn:
    """As `_interrupted`; the next call does what is left half done."""
    del number, frame
    os.write(2, b"asked to stop: nothing was left to save; the same command resumes where it stopped\n")
    os._exit(0)


def _call(main: Callable[..., None], arguments: Sequence[str], commands: Sequence[str]) -> None:
    if commands and (not arguments or arguments[0] not in commands):
        given = f"unknown command {arguments[0]!r}" if arguments else "a command is missing"
        raise InputError(f"{given}; choose one of {', '.join(commands)}")
    rest = arguments[1:] if commands else arguments
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}: flags are written --name=value (see --help)")
    main(*arguments[: len(arguments) - len(rest)])


def _parse(argv: Sequence[str]) -> Sequence[str]:
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, SyntaxError) as error:
        raise InputError(_reason(error)) from error
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS["verbosity"].value = logging.WARNING  # app.run would make it INFO, and libraries talk a lot there
        flags.FLAGS["verbosity"].using_default_value = False
    return rest


def _reason(error: Exception) -> str:
    """The one line that names the cause, of what absl and ml_collections raise."""
    text = str(error)
    if isinstance(error, KeyError | AttributeError):  # a field that the config does not have
        field, meant = re.search(r"[\w.]+", text), re.search(r'Did you mean "(\w+)"', text)
        advice = f"did you mean {meant[1]}?" if meant else "its fields stand in the file named by --config"
        return f"the config has no field {field[0] if field else text}; {advice}"
    last = text.strip().splitlines()[-1]  # before it come the places that were searched, or a traceback
    return re.sub(r"^\w+Error: ", "", last)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    sys.stderr.flush()
    return 2


def required(flag: flags.FlagHolder) -> Any:
    """The flag's value; raises InputError when it was not given."""
    if flag.value is None:
        raise InputError(f"--{flag.name} is missing (see --help)")
    return flag.value


def path(flag: flags.FlagHolder) -> pathlib.Path:
    """The place that the flag names; raises InputError when it was not given."""
    return paths.expanded(required(flag))


def config(flag: flags.FlagHolder) -> ml_collections.ConfigDict:
    """The config of a config flag, locked; raises InputError when it was not given or its file cannot be read."""
    value = required(flag)
    try:
        return value.lock()
    except OSError as error:  # ml_collections gives a stand-in that fails at first use
        raise InputError(f"--{flag.name}: {_reason(error)}") from error
    except AttributeError as error:
        raise InputError(f"--{flag.name}: its get_config() must return an ml_collections.ConfigDict") from error


def command() -> str:
    """The command line as a person would type it again, from the repository's root."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else shlex.quote(sys.argv[0])
    return " ".join([program, *(shlex.quote(argument) for argument in sys.argv[1:])])
