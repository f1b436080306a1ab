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
from scipy import ndimage

from jaxseg import settings
from jaxseg.data import raw_cases

SCOPES = ("image", "slice")
_LEAST = 1e-8  # a standard deviation by which it can be divided
_SAMPLES = 10_000  # intensities of a case, for the statistics of all
_LARGEST = float(np.finfo(np.float16).max)


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


class Scale(NamedTuple):
    """What the gray levels of a case's picture are to a network, per channel: float32 `[C]` each.

    A normalisation is a line from intensities to what a network is given, and so is the picture's scale of 256 levels:
    two points tell one from the other. What is clipped lies at the ends.

    Attributes:
      black: what the level 0 becomes.
      white: what the level 255 becomes.
      least: a network is given nothing below.
      most: nor above.
    """

    black: np.ndarray
    white: np.ndarray
    least: np.ndarray
    most: np.ndarray

    def levels(self, values: np.ndarray) -> np.ndarray:
        """What a network is given, `[...,C]` -> gray levels, float32, which lie beyond 0 and 255 where values do."""
        return (values.astype(np.float32) - self.black) * (255 / (self.white - self.black))

    def values(self, levels: np.ndarray) -> np.ndarray:
        """Gray levels `[...,C]` -> what a network is given of them, float32."""
        there = self.black + levels.astype(np.float32) * ((self.white - self.black) / 255)
        return np.clip(there, self.least, self.most)


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

    def scale(
        self,
        image: np.ndarray,
        *,
        scaling: tuple[str, float, float] | None = None,
        known: Statistics | None = None,
    ) -> Scale:
        """What the gray levels that `range` would make of a case are to a network; arguments as for a call.

        Of a volume whose slices are normalised each by itself, black and white are the mean over them.
        """
        offset, width = self._line(image, known)
        black, white = (
            np.broadcast_to(np.asarray(end, float), image.shape[-1:]) for end in _ends(image, scaling, known)
        )
        white = np.where(white > black, white, black + 1)  # of an image of one intensity
        seen = lambda values: ((values - offset) / width).reshape(-1, image.shape[-1]).mean(0)
        limits = (np.broadcast_to(end, image.shape[-1:]) for end in self._limits())
        return Scale(*(end.astype(np.float32) for end in (seen(black), seen(white), *limits)))

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        """Intensities become themselves minus the first, divided by the second: numbers, or arrays `[*,C]`."""
        del known
        return (127.5, 127.5) if image.dtype == np.uint8 else (0.0, 1.0)

    def _limits(self) -> tuple[Any, Any]:
        """Beyond which a network is given nothing: numbers, or one for each channel."""
        return -np.inf, np.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range(Normalisation):
    """Gray levels 0 to 255."""

    itemsize: ClassVar[int | None] = 1

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        if _are_levels(image, scaling, known):
            return image
        return raw_cases.between(image, *_ends(image, scaling, known))

    def scale(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> Scale:
        """A network is given the levels themselves, from -1 to 1."""
        del scaling, known
        ends = np.ones(image.shape[-1], np.float32)
        return Scale(-ends, ends, -ends, ends)


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
        low, width = self._span(values)
        return _narrow(2 * np.clip((values - low) / width, 0, 1) - 1)

    def _span(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lower percentile, and the distance of the two."""
        low, high = np.percentile(values, (self.low, self.high), axis=_axes(values, self.scope), keepdims=True)
        return low, np.maximum(high - low, _LEAST)

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        del known
        low, width = self._span(image.astype(np.float32))
        return low + width / 2, width / 2

    def _limits(self) -> tuple[Any, Any]:
        return -1.0, 1.0


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
        mean, std = self._line(image, known)
        return _narrow((image.astype(np.float32) - mean) / std)

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        if known is not None and self.scope == "image":
            mean, std = known.mean, known.std
        else:
            values, axes = image.astype(np.float32), _axes(image, self.scope)
            mean = values.mean(axes, dtype=np.float64, keepdims=True)
            std = values.std(axes, dtype=np.float64, keepdims=True)
        return mean, np.maximum(std, _LEAST)

    def _limits(self) -> tuple[Any, Any]:
        return -_LARGEST, _LARGEST


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
        del scaling
        values = image.astype(np.float32)
        if self.clip:
            values = np.clip(values, self.clip[0], self.clip[1])
        mean, std = self._line(image, known)
        return _narrow((values - mean) / std)

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        del image, known
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.mean, self.std))
        return mean, np.maximum(std, np.float32(_LEAST))

    def _limits(self) -> tuple[Any, Any]:
        mean, std = self._line(np.zeros(0), None)
        low, high = ((np.float32(end) - mean) / std for end in self.clip or (-np.inf, np.inf))
        return np.maximum(low, -_LARGEST), np.minimum(high, _LARGEST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsInFile(Normalisation):
    """The intensities of the file, float32."""

    itemsize: ClassVar[int | None] = 4

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        del scaling, known
        return image.astype(np.float32)

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        del image, known
        return 0.0, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinMax(Normalisation):
    """0 to 1 between the least and the largest intensity of every channel of a case, nnU-Net's RescaleTo01."""

    itemsize: ClassVar[int | None] = 2

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        del scaling
        low, width = self._line(image, known)
        return _narrow((image.astype(np.float32) - low) / width)

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        del known
        values, axes = image.astype(np.float32), _axes(image, "image")
        low = values.min(axes, keepdims=True)
        return low, np.maximum(values.max(axes, keepdims=True) - low, _LEAST)

    def _limits(self) -> tuple[Any, Any]:
        return 0.0, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerChannel(Normalisation):
    """Every channel by a normalisation of its own.

    Attributes:
      each: of the channels.
      inside: of the channels, whether what is outside the object in a frame of zeros stays 0 and is not asked: pixels
        that are 0 in all channels, and in volumes are not enclosed by others. Of a slice that is a case, its own.
    """

    each: tuple[Normalisation, ...]
    inside: tuple[bool, ...]
    itemsize: ClassVar[int | None] = 4

    def __call__(self, image: np.ndarray, *, scaling: Any = None, known: Statistics | None = None) -> np.ndarray:
        mask, made = self._mask(image), []
        for channel, (how, inside) in enumerate(zip(self.each, self.inside, strict=True)):
            values = image[..., channel : channel + 1]
            if inside:
                seen = values.astype(np.float32)
                if mask.any():
                    seen[mask] = how(values[mask], scaling=scaling)
                made.append(seen)
            else:
                made.append(how(values, scaling=scaling, known=_of_channel(known, channel)))
        return np.concatenate(made, -1)

    def _line(self, image: np.ndarray, known: Statistics | None) -> tuple[Any, Any]:
        """Of what is inside."""
        mask, lines = self._mask(image), []
        for channel, (how, inside) in enumerate(zip(self.each, self.inside, strict=True)):
            values = image[..., channel : channel + 1]
            if inside and mask.any():
                lines.append(how._line(values[mask], None))
            else:
                lines.append(how._line(values, _of_channel(known, channel)))
        return _side_by_side([offset for offset, _ in lines]), _side_by_side([width for _, width in lines])

    def _limits(self) -> tuple[Any, Any]:
        lows, highs = zip(*(how._limits() for how in self.each), strict=True)
        return _side_by_side(lows), _side_by_side(highs)

    def _mask(self, image: np.ndarray) -> np.ndarray:
        """Bool `[*S]`, as nnU-Net crops by it: it takes a picture for a volume of one slice, which encloses nothing."""
        if not any(self.inside):
            return np.ones(image.shape[:-1], bool)
        mask = np.any(image != 0, -1)
        return ndimage.binary_fill_holes(mask) if mask.ndim == 3 else mask


def _of_channel(known: Statistics | None, channel: int) -> Statistics | None:
    return known and Statistics(*(numbers[channel : channel + 1] for numbers in known))


def _side_by_side(numbers: Sequence[Any]) -> np.ndarray:
    """Numbers, or arrays `[*,1]`, of channels -> `[*,C]`."""
    arrays = [np.atleast_1d(np.asarray(one, float)) for one in numbers]
    shape = np.broadcast_shapes(*(one.shape for one in arrays))
    return np.concatenate([np.broadcast_to(one, shape) for one in arrays], -1)


def foreground(
    cases: Iterable[tuple[np.ndarray, np.ndarray]], *, ignored: int, clip: Sequence[float] = (), seed: int = 0
) -> dict[str, Any]:
    """The options of `mean_std` by the foreground of all training cases, as nnU-Net has them for CT (Isensee 2021).

    Args:
      cases: image `[*S,C]` as stored, and labels `[*S]`, of each.
      ignored: the label of pixels that do not count.
      clip: two ends that are given; none: those below.
      seed: of the sample, of at most 10,000 pixels a case.

    Returns:
      `mean` and `std` per channel, of clipped intensities, and `clip`: of one channel the percentiles 0.5 and 99.5,
      unless it is given.

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
    if not clip and values.shape[-1] == 1:
        clip = np.percentile(values[:, 0], (0.5, 99.5)).tolist()
    of_all = np.clip(values, clip[0], clip[1]) if clip else values
    return {
        "mean": tuple(of_all.mean(0, dtype=np.float64).tolist()),
        "std": tuple(of_all.std(0, dtype=np.float64).tolist()),
        "clip": tuple(clip),
    }


def _are_levels(image: np.ndarray, scaling: Any, known: Statistics | None) -> bool:
    """Whether a stored image holds the levels of its picture: it is not scaled, or was when it was prepared."""
    return image.dtype == np.uint8 and (scaling is None or known is None)


def _ends(image: np.ndarray, scaling: Any, known: Statistics | None) -> tuple[Any, Any]:
    """The intensities that are black and white in the picture of a case."""
    if _are_levels(image, scaling, known):
        return 0, 255
    return (known.low, known.high) if known else raw_cases.ends(image, scaling)


def _axes(image: np.ndarray, scope: str) -> tuple[int, ...]:
    """Over which statistics are taken: all spatial axes, or those of a slice."""
    spatial = tuple(range(image.ndim - 1))
    return spatial[-2:] if scope == "slice" else spatial


def _narrow(values: np.ndarray) -> np.ndarray:
    """Float16 holds what is normalised to a two-thousandth; beyond its ends it would be infinite."""
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)


# by the name in a config; their fields are the options
NORMALISATIONS: dict[str, Callable[..., Normalisation]] = {
    "range": Range,
    "percentiles": Percentiles,
    "z_score": ZScore,
    "mean_std": MeanStd,
    "none": AsInFile,
}
