"""What a study has computed, kept in its work directory, so that a second call reads it back."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Collection, Mapping

import numpy as np

from jaxseg import atomic


def kept(
    path: pathlib.Path, make: Callable[[], Mapping[str, np.ndarray]], *, wanted: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays that are stored at a place; made, and stored there, where none are or they are damaged.

    Args:
      path: `.npz`; its folder is created.
      make: computes them.
      wanted: names that an earlier version may have left out; where one is missing, all are made anew.
    """
    # a damaged file may raise nearly anything
    with contextlib.suppress(Exception), np.load(io.BytesIO(path.read_bytes())) as stored:
        if set(wanted) <= set(stored):
            return dict(stored)
    made = dict(make())
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **made)
    atomic.replace(path, content.getvalue())
    return made
