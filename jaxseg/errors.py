"""The error that a person can mend."""


class InputError(ValueError):
    """Something given from outside is unusable: a file, a folder, a config value, a flag.

    The message is one line per problem; each names the thing and the remedy. Launchers print it without a traceback
    and exit with status 2.
    """
