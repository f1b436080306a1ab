"""What a study has computed, kept in its work directory, so that a second call reads it back."""

import contextlib
import pathlib
import zipfile
from collections.abc import Callable, Mapping

import numpy as np


def kept(path: pathlib.Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that are stored at a place; made, and stored there, where none are or they are damaged.

    Args:
      path: `.npz`; its folder is created.
      make: computes them.
    """
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), np.load(path) as stored:
        return dict(stored)
    made = dict(make())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")  # a killed write must not pass for a result
    np.savez_compressed(partial, allow_pickle=False, **made)
    partial.replace(path)
    return made
