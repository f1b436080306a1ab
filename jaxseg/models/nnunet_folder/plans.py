"""What nnU-Net 2 writes beside its networks, `plans.json` and `dataset.json`, checked and in plain numbers."""

import dataclasses
from typing import Any

from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models.nnunet import NNUNet
from jaxseg.models.nnunet_folder import architecture, fields
from jaxseg.models.nnunet_folder.fields import DATASET, PLANS, Json

SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
    "NoNormalization",
)
_PROPERTIES = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of the images, and what becomes of its intensities.

    Attributes:
      name: as the data set has it.
      scheme: nnU-Net's name of it, one of `SCHEMES`.
      masked: whether `ZScoreNormalization` asks the pixels inside the border of zeros alone, and leaves 0 outside.
      mean, std: of the foreground of the training images, which `CTNormalization` takes; None for the others.
      low, high: percentiles 0.5 and 99.5 of it, to which `CTNormalization` clips before.
    """

    name: str
    scheme: str
    masked: bool
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Resampling:
    """A function of nnU-Net that brings arrays to another spacing, by name, and its options."""

    function: str
    options: Json


@dataclasses.dataclass(frozen=True)
class Plans:
    """What a trained network of nnU-Net expects and means, in one configuration.

    Axes are those of nnU-Net's arrays after `transpose_forward`: `[D,H,W]` or `[H,W]` here.

    Attributes:
      dataset: its name.
      configuration: such as 2d or 3d_fullres.
      network: options of the network `nnunet` of `models.build`.
      channels: of the images.
      labels: names of the classes by number, the background first.
      ignore: the number of annotated pixels that do not count, which no network predicts; None where all count.
      patch_size: of what the network sees at once, in pixels.
      spacing: of these pixels, in mm.
      transpose_forward: which axis of a file's array comes first, second, third; of three in 2-D too.
      transpose_backward: the way back.
      images, probabilities: how images come to the spacing, and probabilities back; None where the plans do not say.
      file_ending: of the images.
      trainer: the class that trained it; empty where the checkpoint does not say.
      mirrored_axes: spatial axes along which it was trained on mirrored images; None where the checkpoint does not say.
    """

    dataset: str
    configuration: str
    network: Json
    channels: tuple[Channel, ...]
    labels: tuple[str, ...]
    ignore: int | None
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    images: Resampling | None
    probabilities: Resampling | None
    file_ending: str
    trainer: str = ""
    mirrored_axes: tuple[int, ...] | None = None

    @property
    def rank(self) -> int:
        """2 for slices and pictures, 3 for volumes."""
        return len(self.patch_size)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one patch, `[1,*patch_size,C]`."""
        return (1, *self.patch_size, len(self.channels))

    def build(self, **options: Any) -> NNUNet:
        """The network; `options`, such as `dtype`, come before those of the plans."""
        module = models.build("nnunet", len(self.labels), **{**self.network, **options})
        assert isinstance(module, NNUNet)
        return module


def read(plans: Json, dataset: Json, configuration: str) -> Plans:
    """The plans of one configuration.

    Args:
      plans: what `plans.json` holds, as nnU-Net 2 writes it, or wrote it before 2.4.
      dataset: what `dataset.json` holds.
      configuration: one of `configurations(plans)`.

    Raises:
      InputError: something is missing or of another kind; the network is none that `nnunet` can be; the classes are
        regions, which may overlap; the network is the second of a cascade, which takes labels beside the image.
    """
    of = _inherited(plans, configuration)
    if of.get("previous_stage"):
        raise InputError(
            f"{PLANS}: {configuration!r} takes the labels of {of['previous_stage']!r} beside the image, which networks "
            "here do not; choose a configuration that takes the image alone"
        )
    patch_size = fields.integers(of, "patch_size")
    if len(patch_size) not in (2, 3):
        raise InputError(f"{PLANS}: patch_size is {list(patch_size)}; it must have 2 or 3 entries")
    labels, ignore = _labels(dataset)
    found = Plans(
        dataset=str(plans.get("dataset_name", "")),
        configuration=configuration,
        network=architecture.options(of, len(patch_size)),
        channels=_channels(of, plans, dataset),
        labels=labels,
        ignore=ignore,
        patch_size=patch_size,
        spacing=fields.reals(of, "spacing", count=len(patch_size)),
        transpose_forward=_axes(plans, "transpose_forward"),
        transpose_backward=_axes(plans, "transpose_backward"),
        images=_resampling(of, "resampling_fn_data"),
        probabilities=_resampling(of, "resampling_fn_probabilities"),
        file_ending=str(dataset.get("file_ending", "")),
    )
    _check_network(found)
    return found


def configurations(plans: Json) -> tuple[str, ...]:
    """The names of the configurations in `plans.json`."""
    return tuple(fields.entry(plans, "configurations", dict))


def _inherited(plans: Json, name: str) -> Json:
    """A configuration with the entries of those that it inherits from."""
    known, chain = fields.entry(plans, "configurations", dict), [name]
    while "inherits_from" in (one := _known(known, chain[-1])):
        if one["inherits_from"] in chain:
            raise InputError(f"{PLANS}: the configuration {name!r} inherits from itself; write its entries out")
        chain.append(one["inherits_from"])
    return {key: value for each in reversed(chain) for key, value in known[each].items()}


def _known(known: Json, name: Any) -> Json:
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{PLANS}: there is no configuration {name!r:.80}; choose one of {', '.join(known)}")
    return fields.entry(known, name, dict)


def _check_network(plans: Plans) -> None:
    try:
        units = plans.build().units(plans.rank)
    except ValueError as error:
        raise InputError(f"{PLANS}: the network of {plans.configuration!r} cannot be built: {error}") from error
    if any(size % unit or size < 1 for size, unit in zip(plans.patch_size, units, strict=True)):
        raise InputError(
            f"{PLANS}: patch_size is {list(plans.patch_size)}; by the strides it must be a multiple of {list(units)}"
        )


def _channels(of: Json, plans: Json, dataset: Json) -> tuple[Channel, ...]:
    key = "modality" if "modality" in dataset else "channel_names"
    names = fields.entry(dataset, key, dict, file=DATASET)
    if sorted(names) != sorted(str(i) for i in range(len(names))):
        raise InputError(f"{DATASET}: the keys of {key} are {', '.join(names)}; they must be 0, 1, ...")
    schemes, masked = (fields.entry(of, name, list) for name in ("normalization_schemes", "use_mask_for_norm"))
    if not len(names) == len(schemes) == len(masked) > 0:
        raise InputError(
            f"{DATASET} has {len(names)} channels, {PLANS} {len(schemes)} normalization_schemes and {len(masked)} "
            "use_mask_for_norm; take both files from the folder of one trained network"
        )
    each = zip(range(len(names)), schemes, masked, strict=True)
    return tuple(_channel(plans, i, str(names[str(i)]), scheme, bool(mask)) for i, scheme, mask in each)


def _channel(plans: Json, index: int, name: str, scheme: Any, masked: bool) -> Channel:
    if scheme not in SCHEMES:
        raise InputError(f"{PLANS}: the normalization scheme {scheme!r:.80} is unknown; known are {', '.join(SCHEMES)}")
    if scheme != "CTNormalization":
        return Channel(name, scheme, masked)
    kept = next((one for one in _PROPERTIES if one in plans), _PROPERTIES[0])
    of = fields.entry(fields.entry(plans, kept, dict), str(index), dict)
    numbers = {one: [of.get(one)] for one in ("mean", "std", "percentile_00_5", "percentile_99_5")}
    return Channel(name, scheme, masked, *(fields.reals(numbers, one, count=1)[0] for one in numbers))


def _labels(dataset: Json) -> tuple[tuple[str, ...], int | None]:
    """The names of the classes by number, and the label that is ignored."""
    given = dict(fields.entry(dataset, "labels", dict, file=DATASET))
    given = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in given.items()}
    regions = [name for name, value in given.items() if isinstance(value, list)]
    if regions:
        raise InputError(
            f"{DATASET}: labels has regions, such as {regions[0]!r:.80}, which may overlap, and classes here exclude "
            "each other; train with labels of one number each"
        )
    try:
        numbers = {name: int(str(value)) for name, value in given.items()}
    except ValueError as error:
        raise InputError(f"{DATASET}: labels has other than whole numbers ({error}); give name: number") from error
    ignore = numbers.pop("ignore", None)
    names = sorted(numbers, key=lambda name: numbers[name])
    if [numbers[name] for name in names] != [*range(len(names))] or len(names) < 2:
        raise InputError(f"{DATASET}: labels are {sorted(numbers.values())}; they must be 0, 1, ..., the background 0")
    if ignore not in (None, len(names)):
        raise InputError(f"{DATASET}: the label 'ignore' is {ignore}; it must be the highest, {len(names)}")
    return tuple(names), ignore


def _axes(plans: Json, name: str) -> tuple[int, ...]:
    axes = fields.integers(plans, name)
    if sorted(axes) != [0, 1, 2]:
        raise InputError(f"{PLANS}: {name} is {list(axes)}; it must be 0, 1 and 2 in some order")
    return axes


def _resampling(of: Json, name: str) -> Resampling | None:
    return Resampling(fields.entry(of, name, str), fields.options(of, f"{name}_kwargs")) if name in of else None
