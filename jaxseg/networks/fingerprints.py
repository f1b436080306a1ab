"""Checksums of networks: of what they are made of, and of what they answer, as far as that stays the same."""

import re
import zlib
from typing import Any

import numpy as np

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


def checksum(*parts: Any) -> str:
    """Eight hexadecimal digits of bytes, and of the words of all else, without the places of objects in memory."""
    found = 0
    for part in parts:
        content = part if isinstance(part, bytes) else _ADDRESS.sub("", f"{part}\n").encode()
        found = zlib.crc32(content, found)
    return f"{found:08x}"


def told(answer: np.ndarray) -> str:
    """What stays of an answer `[B,*n,channels]` where other threads or devices change its last bits.

    Of every image and channel, the root of its mean square and, as a part of that, its mean: three digits each.
    """
    values = answer.astype(np.float64)
    axes = tuple(range(1, values.ndim - 1))
    with np.errstate(all="ignore"):  # of answers without end
        size = np.sqrt(np.mean(values**2, axes))
        part = np.mean(values, axes) / size
    return f"{[f'{one:.2e}' for one in size.flat]} {[f'{one:.3f}' for one in part.flat]}".replace("-0.000", "0.000")
