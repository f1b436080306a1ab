"""From stored intensities to what a network is given: on the host, case by case.

| normalisation | a network sees |
| --- | --- |
| `range` | -1 to 1, of 256 levels: gray levels as they are, else the ends by which the data set is scaled |
| `percentiles` | -1 to 1 between two percentiles of the image, clipped |
| `z_score` | mean 0, standard deviation 1, of the image or of every slice |
| `mean_std` | given numbers, or those of the foreground of all training cases, as nnU-Net does for CT |
| `none` | the intensities of the file |

Uint8 are gray levels, which `jaxseg.data.augment` maps to -1 to 1; all else is floats, which it takes as they are.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jaxseg import settings
from jaxseg.data import raw_cases

SCOPES = ("image", "slice")
_LEAST = 1e-8  # a standard deviation by which it can be divided
_SAMPLES = 10_000  # intensities of a case, for the statistics of all


class Statistics(NamedTuple):
    """Of the file that a case was cut from, per channel: float32 `[C]` each.

    Attributes:
      low: what becomes black.
      high: what becomes white.
      mean: of all intensities.
      std: their standard deviation.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def statistics(image: np.ndarray, scaling: tuple[str, float, float] | None) -> np.ndarray:
    """`Statistics` of a file's image `[*S,C]` as one array, float32 `[4,C]`; `scaling` as for `raw_cases.ends`."""
    channels = image.shape[-1]
    flat = image.reshape(-1, channels)
    ends = (np.broadcast_to(np.asarray(end, np.float32), channels) for end in raw_cases.ends(image, scaling))
    return np.stack([*ends, flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)]).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Base of the normalisations; by itself, intensities stay as they are stored.

    Attributes:
      fill: what padding becomes.
      itemsize: bytes of an intensity; None: as it is stored. What takes more than one needs all levels of the file.
    """

    fill: float = dataclasses.field(default=0.0, init=False)
    itemsize: ClassVar[int | None] = None

    @property
    def of_slices(self) -> "Normalisation":
        """The same for a volume whose slices are cases, each by itself."""
        return self

    def __call__(
        self,
        image: np.ndarray,
        *,
        scaling: tuple[str, float, float] | None = None,
        known: Statistics | None = None,
    ) -> np.ndarray:
        """What a network is given.

        Args:
          image: as stored, `[*S,C]`.
          scaling: of the data set, see `raw_cases.ends`.
          known: of the file that the image was cut from; those of the image itself, if None.

        Returns:
          `[*S,C]`, uint8 or floats.
        """
        del scaling, known
        return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range(Normalisation):
    """Gray levels 0 to 255."""

    itemsize: ClassVar[int | None] = 1

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        if image.dtype == np.uint8 and (scaling is None or known is None):  # not scaled, or when it was prepared
            return image
        return raw_cases.between(image, *((known.low, known.high) if known else raw_cases.ends(image, scaling)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Percentiles(Normalisation):
    """-1 to 1 between two percentiles, of the case or of every slice.

    Attributes:
      low: per cent.
      high: per cent.
      scope: image, or slice: every slice of a volume by itself.
    """

    low: float = settings.number(least=0, most=100, default=0.5)
    high: float = settings.number(least=0, most=100, default=99.5)
    scope: str = settings.one_of(*SCOPES, default="image")
    fill: float = dataclasses.field(default=-1.0, init=False)
    itemsize: ClassVar[int | None] = 2

    @property
    def of_slices(self) -> Normalisation:
        """A slice that is a case knows no percentiles but its own."""
        return dataclasses.replace(self, scope="slice")

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        del scaling, known
        values = image.astype(np.float32)
        low, high = np.percentile(values, (self.low, self.high), axis=_axes(image, self.scope), keepdims=True)
        return _narrow(2 * np.clip((values - low) / np.maximum(high - low, _LEAST), 0, 1) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZScore(Normalisation):
    """Mean 0 and standard deviation 1.

    Attributes:
      scope: image: of the file, all slices of a volume alike, also where each is a case; or slice.
    """

    scope: str = settings.one_of(*SCOPES, default="image")
    itemsize: ClassVar[int | None] = 2

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        del scaling
        values = image.astype(np.float32)
        if known is not None and self.scope == "image":
            mean, std = known.mean, known.std
        else:
            axes = _axes(image, self.scope)
            mean = values.mean(axes, dtype=np.float64, keepdims=True)
            std = values.std(axes, dtype=np.float64, keepdims=True)
        return _narrow((values - mean) / np.maximum(std, _LEAST))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanStd(Normalisation):
    """Numbers that are the same for all cases, one for each channel, or one for all.

    Attributes:
      mean: what becomes 0.
      std: what becomes 1 above it.
      clip: intensities are clipped to these ends of all channels first; none: they are not.
    """

    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    clip: Sequence[float] = ()
    itemsize: ClassVar[int | None] = 2

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        del scaling, known
        values = image.astype(np.float32)
        if self.clip:
            values = np.clip(values, self.clip[0], self.clip[1])
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.mean, self.std))
        return _narrow((values - mean) / np.maximum(std, np.float32(_LEAST)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsInFile(Normalisation):
    """The intensities of the file, float32."""

    itemsize: ClassVar[int | None] = 4

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        del scaling, known
        return image.astype(np.float32)


def foreground(cases: Iterable[tuple[np.ndarray, np.ndarray]], *, ignored: int, seed: int = 0) -> dict[str, Any]:
    """The options of `mean_std` by the foreground of all training cases, as nnU-Net has them for CT (Isensee 2021).

    Args:
      cases: image `[*S,C]` as stored, and labels `[*S]`, of each.
      ignored: the label of pixels that do not count.
      seed: of the sample, of at most 10,000 pixels a case.

    Returns:
      `mean` and `std` per channel, and, of one channel, `clip` at the percentiles 0.5 and 99.5.

    Raises:
      ValueError: no case has foreground.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for image, labels in cases:
        values = image[(labels > 0) & (labels != ignored)].astype(np.float32)
        samples.append(values if len(values) <= _SAMPLES else values[rng.choice(len(values), _SAMPLES, replace=False)])
    values = np.concatenate(samples)
    if not len(values):
        raise ValueError("no training case has foreground")
    clip = np.percentile(values[:, 0], (0.5, 99.5)).tolist() if values.shape[-1] == 1 else []
    of_all = np.clip(values, *clip) if clip else values
    return {
        "mean": tuple(of_all.mean(0, dtype=np.float64).tolist()),
        "std": tuple(of_all.std(0, dtype=np.float64).tolist()),
        "clip": tuple(clip),
    }


def _axes(image: np.ndarray, scope: str) -> tuple[int, ...]:
    """Over which statistics are taken: all spatial axes, or those of a slice."""
    spatial = tuple(range(image.ndim - 1))
    return spatial[-2:] if scope == "slice" else spatial


def _narrow(values: np.ndarray) -> np.ndarray:
    """Float16 holds what is normalised to a two-thousandth; beyond its ends it would be infinite."""
    largest = np.finfo(np.float16).max
    return np.clip(values, -largest, largest).astype(np.float16)


# by the name in a config; their fields are the options
NORMALISATIONS: dict[str, Callable[..., Normalisation]] = {
    "range": Range,
    "percentiles": Percentiles,
    "z_score": ZScore,
    "mean_std": MeanStd,
    "none": AsInFile,
}
