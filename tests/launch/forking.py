"""Imports what launchers import, once, and forks a process for every command line that stands on standard input.

A line is JSON: `module`, `arguments`, and the files for `stdout` and `stderr`. The answers are the process's id and,
when it has ended, its exit status. What a fork does is what `python -m module arguments` does behind its imports, which
are most of a short program's time.
"""

import gc
import importlib
import json
import os
import runpy
import sys

IMPORTED = (
    *("jaxseg.benchmarks", "jaxseg.inference", "jaxseg.training.autoencoders", "ml_collections.config_flags"),
    *("jaxseg.data.builders.dermoscopy", "jaxseg.data.builders.folder", "jaxseg.data.builders.isic2017"),
    *("jaxseg.audit.page", "jaxseg.prediction.page", "jaxseg.studies.border_shortcut.page", "jaxseg.studies.runner"),
)


def next_launch():
    """In a fork: what it is to launch; in the process itself, None at the end of the input."""
    for line in sys.stdin:
        process = os.fork()
        if not process:
            return json.loads(line)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as python -m does
    gc.disable()
    for name in IMPORTED:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has one thread alone, and may wait for the others for ever"
    gc.freeze()  # what was imported no fork has to look through at its end; while it runs, none looks for cycles
    if launch := next_launch():
        for number, path in enumerate((os.devnull, launch["stdout"], launch["stderr"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
        sys.argv[1:] = launch["arguments"]
        runpy.run_module(launch["module"], run_name="__main__", alter_sys=True)
