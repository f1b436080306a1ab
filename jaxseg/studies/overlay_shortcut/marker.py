"""How a machine marks the heads of clean images: calipers at the ends of the axes, and text."""

import dataclasses
import functools
import math
import zlib
from typing import Any

import numpy as np

from jaxseg.data import overlays, pipeline

COLOURS = (255, 255, 0), (255, 210, 70), (130, 255, 130), (255, 255, 255)
_SIDE_IN_MM = 150.0  # of an image whose pixel size is unknown


@dataclasses.dataclass(frozen=True)
class Marker:
    """How a machine marks one case: style and colours belong to the machine, places to the organ."""

    case: pipeline.Case

    @functools.cached_property
    def _chance(self) -> tuple[str, tuple[int, int, int]]:
        rng = np.random.default_rng(zlib.crc32(self.case["case"].encode()))
        style = overlays.CALIPER_STYLES[rng.integers(3)]
        return style, COLOURS[rng.choice(len(COLOURS), p=(0.5, 0.2, 0.1, 0.2))]

    def draw(self, *, other: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The image with calipers and text, this plane's or another's, and what they cover, bool `[S,S]`."""
        look = self._look | {"text": self._text(other), "colour": self._chance[1], "height": self._tall}
        return overlays.draw_head_calipers(self.case["image"], self.case["labels"] > 0, **look)

    def move(self, image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
        """Puts the calipers on an image, all moved by so many pixels; what is beyond the border is lost."""
        return overlays.draw_calipers(image, self._points + shift, colour=self._chance[1], **self._look)[0]

    def calipers(self, count: int) -> np.ndarray:
        """What the first so many calipers cover, bool `[S,S]`; dots join two when the second appears."""
        style, blank = self._look["style"], np.zeros(self.case["labels"].shape, np.uint8)
        pairs = count - count % 2 if style == "dotted" else count
        covered = overlays.draw_calipers(blank, self._points[:pairs], **self._look)[1]
        single = overlays.draw_calipers(blank, self._points[pairs:count], **self._look | {"style": "plus"})[1]
        return covered | single

    @property
    def text(self) -> np.ndarray:
        """What the text covers and the calipers do not, bool `[S,S]`."""
        return self.draw()[1] & ~self.calipers(4)

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return np.concatenate(overlays.ellipse_axes(self.case["labels"] > 0))

    @property
    def _tall(self) -> int:
        return max(round(0.06 * len(self.case["labels"])), 5)

    @property
    def _look(self) -> dict[str, Any]:
        thickness = max(round(len(self.case["labels"]) / 200), 1)
        return {"style": self._chance[0], "size": self._tall, "thickness": thickness}

    def _text(self, other: bool) -> str:
        spacing = float(np.mean(self.case["spacing"]))
        scale = spacing if math.isfinite(spacing) else _SIDE_IN_MM / len(self.case["labels"])
        text = "HEAD\n" + overlays.head_measurements(self.case["labels"] > 0, scale)
        for own, others in (("HEAD", "ABDOMEN"), ("BPD", "APD"), ("OFD", "TAD"), ("HC", "AC")) if other else ():
            text = text.replace(own, others)
        return text


def away(labels: np.ndarray) -> tuple[int, int]:
    """A quarter of the side along both axes, from the organ's centre towards the farther borders."""
    side = len(labels)
    centre = np.argwhere(labels > 0).mean(0)
    y, x = np.where(centre < (side - 1) / 2, 1, -1) * (side // 4)
    return int(y), int(x)
