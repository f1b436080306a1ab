"""A case at the size at which the contact sheet shows it."""

from collections.abc import Sequence

import numpy as np

from jaxseg.data import resizing
from jaxseg.report.contact_sheet import CELL, Cell


def thumbnail(image: np.ndarray, labels: np.ndarray, captions: Sequence[str]) -> Cell:
    """A case brought to the size at which it is drawn, so that sheets of large images take little memory.

    Args:
      image: uint8 `[H,W,C]` with 1 or 3 channels, or of others the first; it may be smaller or larger than the labels,
        which decide the shape of the picture.
      labels: class numbers `[H,W]`.
      captions: lines below the picture; long ones lose their beginning.
    """
    scale = CELL / max(labels.shape)
    size = [max(1, round(side * scale)) for side in labels.shape]
    plain = image if image.shape[-1] in (1, 3) else image[..., :1]
    picture = np.broadcast_to(resizing.resize(np.ascontiguousarray(plain), size), (*size, 3))
    return Cell(np.array(picture), resizing.resize_labels(labels, size), tuple(captions))
