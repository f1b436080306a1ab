"""What may be done to training images, with what probability and how strongly; checked in one place."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxseg.errors import InputError

FILLS = ("reflect", "constant")
INTERPOLATIONS = ("linear", "cubic")
INTENSITIES = (  # in the order in which they are applied, which is nnU-Net's
    *("noise", "blur", "brightness", "brightness_shift", "contrast", "low_resolution", "inverted_gamma", "gamma"),
)
FOR_VOLUMES = ("flip_depth", "tilt")  # what pictures do not have


class Augmentation(NamedTuple):
    """How training images are changed; by default not at all. Pairs are the two ends of a uniform draw.

    First a sample is moved: flipped, rotated, scaled and translated about its centre, in this order, then cropped, and
    all of it deformed. Then its intensities change, in the order of `INTENSITIES`; each change has a probability of its
    own, by sample, and `..._channels` is that of a channel of a sample that is changed. Factors and exponents are as
    often below 1 as above, where their range has both.

    Attributes:
      flip_horizontal: probability of swapping left and right.
      flip_vertical: that of swapping top and bottom.
      flip_depth: that of swapping first and last slice, of volumes.
      rotate: degrees, drawn in -rotate to rotate, counter-clockwise; of volumes, in the plane of the slices.
      tilt: the same about each of the other two axes, of volumes.
      rotate_probability: that of being rotated and tilted at all.
      scale: factors of the size of what is seen, above 1 enlarges.
      scale_probability: that of being scaled at all.
      scale_per_axis: that of a factor for each axis, where a sample is scaled.
      translate: of the image's sides, drawn in -translate to translate for each.
      crop: share of each side that is cropped, anywhere, and resized.
      elastic: probability of a smooth deformation, a cubic B-spline with random control points.
      elastic_spacing: between control points, of the image's sides.
      elastic_amplitude: by how much of this spacing control points move at most along an axis; nothing folds up to 0.4.
      interpolation: of images, linear or cubic (a B-spline); labels are those of the nearest pixel.
      fill: what is beyond the border: `reflect`, the image and the labels mirrored at the centres of the outermost
        pixels; or `constant`, `fill_value` and label 0.
      fill_value: of images, for `constant`.
      channels_alike: whether all channels of a sample change in the same way; otherwise each draws its own.
      noise: probability of Gaussian noise.
      noise_std: its standard deviation.
      noise_shared: whether all channels have the same noise.
      noise_channels: see above.
      blur: probability of a Gaussian blur.
      blur_sigma: in pixels, drawn for each axis.
      blur_channels: see above.
      brightness: probability of a factor.
      brightness_factor: this factor.
      brightness_channels: see above.
      brightness_shift: probability of adding a constant, which is normally distributed.
      brightness_shift_mean: of the constant.
      brightness_shift_std: of the constant.
      brightness_shift_channels: see above.
      contrast: probability of a factor of the distances from the mean.
      contrast_factor: this factor.
      contrast_clip: whether the range stays what it was.
      contrast_channels: see above.
      low_resolution: probability of sampling by nearest pixels and going back linearly.
      low_resolution_scale: of every side in between.
      low_resolution_channels: see above.
      gamma: probability of a power of the intensities as shares of their range.
      inverted_gamma: that of the same with black and white swapped, before it.
      gamma_exponent: of both.
      gamma_keeps_moments: whether mean and standard deviation stay what they were.
      gamma_channels: see above, of both.
    """

    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    flip_depth: float = 0.0
    rotate: float = 0.0
    tilt: float = 0.0
    rotate_probability: float = 1.0
    scale: tuple[float, float] = (1.0, 1.0)
    scale_probability: float = 1.0
    scale_per_axis: float = 0.0
    translate: float = 0.0
    crop: tuple[float, float] = (1.0, 1.0)
    elastic: float = 0.0
    elastic_spacing: tuple[float, float] = (0.15, 0.3)
    elastic_amplitude: tuple[float, float] = (0.0, 0.4)
    interpolation: str = "linear"
    fill: str = "reflect"
    fill_value: float = -1.0
    channels_alike: bool = False
    noise: float = 0.0
    noise_std: tuple[float, float] = (0.0, 0.1)
    noise_shared: bool = True
    noise_channels: float = 1.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    blur_channels: float = 0.5
    brightness: float = 0.0
    brightness_factor: tuple[float, float] = (0.75, 1.25)
    brightness_channels: float = 1.0
    brightness_shift: float = 0.0
    brightness_shift_mean: float = 0.0
    brightness_shift_std: float = 0.1
    brightness_shift_channels: float = 1.0
    contrast: float = 0.0
    contrast_factor: tuple[float, float] = (0.75, 1.25)
    contrast_clip: bool = True
    contrast_channels: float = 1.0
    low_resolution: float = 0.0
    low_resolution_scale: tuple[float, float] = (0.5, 1.0)
    low_resolution_channels: float = 0.5
    gamma: float = 0.0
    inverted_gamma: float = 0.0
    gamma_exponent: tuple[float, float] = (0.7, 1.5)
    gamma_keeps_moments: bool = True
    gamma_channels: float = 1.0

    @property
    def moves(self) -> bool:
        """Whether anything can move."""
        turns = self.rotate_probability and (self.rotate or self.tilt)
        scales = self.scale_probability and self.scale != (1.0, 1.0)
        flips = self.flip_horizontal or self.flip_vertical or self.flip_depth
        return bool(flips or turns or scales or self.translate or self.crop != (1.0, 1.0) or self.deforms)

    @property
    def deforms(self) -> bool:
        """Whether anything can be deformed."""
        return bool(self.elastic and self.elastic_amplitude[1])

    @property
    def intensities(self) -> tuple[str, ...]:
        """The changes of intensity that can happen, in their order."""
        return tuple(name for name in INTENSITIES if getattr(self, name))


def check_augmentation(augmentation: Mapping[str, Any]) -> Augmentation:
    """The augmentation with its defaults; raises InputError, naming the field, where one is unknown or invalid."""
    given: dict[str, Any] = dict(augmentation)
    for name, value in given.items():
        where = f"config.data.augmentation.{name}"
        if name not in _WANTED:
            raise InputError(f"{where} is unknown; choose from {', '.join(_WANTED)}")
        fits, words = _WANTED[name]
        if not fits(value):
            raise InputError(f"{where} is {value!r}; it must be {words}")
        if isinstance(value, list):  # as a config file has it
            given[name] = tuple(value)
    return Augmentation(**given)


def check_augmentation_rank(augmentation: Mapping[str, Any], rank: int, *, dataset: str) -> None:
    """Raises InputError where pictures are to be turned out of their plane; `dataset` is its name, for the message."""
    checked = check_augmentation(augmentation)
    for name in FOR_VOLUMES:
        if rank == 2 and getattr(checked, name):
            raise InputError(f"config.data.augmentation.{name} is for volumes, {dataset} has pictures; leave it at 0")


_Wanted = tuple[Callable[[Any], bool], str]  # whether a value fits, and the words for what it must be


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(low: float, high: float) -> _Wanted:
    words = f"a number in {low:g} to {high:g}" if high < math.inf else f"a number, at least {low:g}"
    return lambda value: _is_number(value) and low <= value <= high, words


def _pair(*, above: float = -math.inf, least: float = -math.inf, most: float = math.inf) -> _Wanted:
    """Two numbers, ascending, above or at least a bound."""

    def fits(value: Any) -> bool:
        if not (isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))):
            return False
        return value[0] > above and least <= value[0] <= value[1] <= most

    bounds = [f"{words} {bound:g}" for words, bound in (("above", above), ("at least", least)) if bound > -math.inf]
    bounds += [f"at most {most:g}"] if most < math.inf else []
    return fits, f"a pair of numbers {' and '.join(bounds)}, the lower first"


def _choice(known: tuple[str, ...]) -> _Wanted:
    return lambda value: value in known, f"one of {', '.join(known)}"


def _wanted(name: str) -> _Wanted:
    """What a field may be; a probability, if nothing else."""
    default = Augmentation._field_defaults[name]
    return _OTHERS.get(name) or (_FLAG if isinstance(default, bool) else _number(0, 1))


_FLAG: _Wanted = (lambda value: isinstance(value, bool), "True or False")
_ANY_NUMBER: _Wanted = (_is_number, "a number")
_OTHERS: dict[str, _Wanted] = {
    **dict.fromkeys(("rotate", "tilt"), _number(0, 180)),
    "scale": _pair(above=0),
    "crop": _pair(above=0, most=1),
    "elastic_spacing": _pair(least=0.05, most=1),
    "elastic_amplitude": _pair(least=0, most=0.4),
    "interpolation": _choice(INTERPOLATIONS),
    "fill": _choice(FILLS),
    **dict.fromkeys(("fill_value", "brightness_shift_mean"), _ANY_NUMBER),
    "noise_std": _pair(least=0),
    "blur_sigma": _pair(above=0, most=16),
    **dict.fromkeys(("brightness_factor", "contrast_factor"), _pair(least=0)),
    "brightness_shift_std": _number(0, math.inf),
    "low_resolution_scale": _pair(above=0, most=1),
    "gamma_exponent": _pair(above=0),
}
_WANTED = {name: _wanted(name) for name in Augmentation._fields}
