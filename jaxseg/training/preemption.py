"""A request to stop (SIGTERM, which clusters send before they take a machine away) that lets the step be finished."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from jaxseg.training import parallel


class Request:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self._asked = False

    def note(self, *_: object) -> None:
        """The signal's handler."""
        self._asked = True

    def agreed(self) -> bool:
        """Whether any process of the run was asked; all must call it at the same step."""
        return parallel.any_process(self._asked)


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Within it, SIGTERM is noted instead of ending the process."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield request
        return
    before = signal.signal(signal.SIGTERM, request.note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
