"""Work on many files or cases, from two threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import tqdm

T = TypeVar("T")
R = TypeVar("R")
_READERS = 2  # decoding takes one core each; more than two mostly wait for the disk


def in_threads(
    function: Callable[[T], R], items: Sequence[T], description: str, *, first: int = 0, total: int | None = None
) -> Iterator[R]:
    """Yields `function(item)` in the order of the items, from two threads, with a progress bar if it takes long.

    Pillow releases the interpreter's lock while it decodes and encodes.

    Args:
      function: of one item.
      items: these are `first`, `first + 1`, ... of `total`.
      description: shown by the progress bar.
      first: where the bar starts.
      total: where the bar ends; None: with these items.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            yield from progress(pool.map(function, items), description, first, total or len(items))
        finally:
            pool.shutdown(cancel_futures=True)  # else leaving early, or Ctrl-C, waits for all the items


def progress(items: Iterable[T], description: str, first: int, total: int) -> Iterator[T]:
    """Yields the items, with a progress bar that appears after a second and is erased at the end, on a terminal."""
    yield from tqdm.tqdm(items, description, total, initial=first, leave=False, delay=1, mininterval=0.5, disable=None)
