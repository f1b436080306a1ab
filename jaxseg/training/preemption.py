"""A request to stop (SIGTERM, which clusters send before they take a machine away) that lets the step be finished."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Request:
    """Whether this run was asked to stop."""

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0

    def note(self, *_: object) -> None:
        """The signal's handler."""
        self._asked = True

    def agreed(self) -> bool:
        """Whether all processes of the run stop here, because one was asked; each asks as often as the others."""
        if jax.process_count() == 1:
            return self._asked
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Within it, SIGTERM is noted instead of ending the process; with many processes JAX notes it."""
    request = Request()
    # signals are the main thread's
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, request.note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
