"""The errors that a person can fix, and the end that is none."""


class InputError(ValueError):
    """Something given from outside is unusable: a file, a folder, a config value, a flag.

    The message is one line per problem; each names the thing and the remedy. Launchers print it without a traceback
    and exit with status 2.
    """


class LostProcess(InputError):
    """Another process of the run has ended; nothing that needs it can be waited for."""


class Preempted(Exception):
    """The process was asked to stop and has saved its work; the message says how to resume."""
