"""A trained network of nnU-Net from its folder, with what its plans make of a case as far as that can be said here."""

import os

from jaxseg import paths
from jaxseg.data import grids, normalisation
from jaxseg.data.inputs import Inputs
from jaxseg.data.normalisation import Normalisation
from jaxseg.errors import InputError
from jaxseg.models import nnunet_folder
from jaxseg.models.nnunet_folder import Channel, Plans
from jaxseg.networks.base import Network
from jaxseg.networks.linen import LinenNetwork
from jaxseg.networks.transposed import Transposed, in_cases

_PICTURES = (".png", ".bmp", ".tif", ".jpg")  # of 2-D plans: their pixels have no size in mm
_NOTES = (
    "Cases are resampled and normalised as nnU-Net's plans say, with these differences: images are interpolated "
    "linearly, by area where they shrink, not by cubic splines; what is empty around a case is not cropped away, "
    "which moves the mean of a z-score and the least intensity; answers are not averaged over mirrored images; the "
    "network is that of one fold."
)
_OF_SLICES = (
    "Of slices that were prepared as cases, the least and the largest intensity, and what is inside a border of zeros, "
    "are those of the slice, not of its volume."
)


def from_nnunet(folder: str | os.PathLike[str], *, fold: int | str = 0) -> Network:
    """The network of one fold of a trained nnU-Net 2, with the inputs and the classes of its plans.

    Its images are patches; `inputs` has the geometry `patches`, under which a window slides over whole cases.

    Args:
      folder: such as `nnUNetTrainer__nnUNetPlans__3d_fullres`, see `nnunet_folder.from_folder`.
      fold: its number, or `all`.

    Raises:
      InputError: as `nnunet_folder.from_folder` and `inputs_of`.
    """
    module, variables, plans = nnunet_folder.from_folder(folder, fold=fold)
    try:
        inputs, axes = inputs_of(plans), _axes(plans)
    except InputError as error:
        raise InputError(f"{paths.expanded(folder)}: {error}") from error
    own = any(one.masked or one.scheme == "RescaleTo01Normalization" for one in plans.channels)
    notes = (_NOTES, _OF_SLICES) if own and plans.rank == 2 else (_NOTES,)
    network = LinenNetwork(
        module, variables, plans.patch_size, len(plans.channels), inputs, class_names=plans.labels, notes=notes
    )
    return network if axes == tuple(range(plans.rank)) else Transposed(network, axes)


def inputs_of(plans: Plans) -> Inputs:
    """What becomes of a stored case by the plans: patches of their size and spacing, and their normalisation.

    Pictures keep their pixels: for them nnU-Net plans a spacing of 1, and no data set here knows one.

    Raises:
      InputError: slices along another axis than the first.
    """
    pictures = plans.rank == 2 and plans.file_ending in _PICTURES and set(plans.spacing) == {1.0}
    axes = _axes(plans)
    size, spacing = in_cases(plans.patch_size, axes), in_cases(plans.spacing, axes)
    grid = grids.Patches(max(size), spacing=() if pictures else spacing, size=size)
    return Inputs(grid, _normalisation(plans.channels))


def _axes(plans: Plans) -> tuple[int, ...]:
    """Which spatial axis of a case is the network's first, second, third."""
    if plans.rank == 3:
        return plans.transpose_forward
    first, *others = plans.transpose_forward
    if first != 0:
        raise InputError(
            f"its plans put the axes of a file in the order {', '.join(map(str, plans.transpose_forward))}, so its "
            "slices lie along another axis than the first, along which those of cases here do; choose a 3d one"
        )
    return tuple(axis - 1 for axis in others)


def _normalisation(channels: tuple[Channel, ...]) -> Normalisation:
    """One for all channels where they have the same, else one for each."""
    each = [_of_channel(one) for one in channels]
    masked = tuple(one.masked and one.scheme == "ZScoreNormalization" for one in channels)  # the others do not ask
    alike = all(one == each[0] for one in each)
    return each[0] if alike and not any(masked) else normalisation.PerChannel(each=tuple(each), inside=masked)


def _of_channel(channel: Channel) -> Normalisation:
    if channel.scheme == "CTNormalization":
        mean, std, low, high = (float(getattr(channel, name)) for name in ("mean", "std", "low", "high"))
        return normalisation.MeanStd(mean=(mean,), std=(std,), clip=(low, high))
    return {
        "ZScoreNormalization": normalisation.ZScore(),
        "RescaleTo01Normalization": normalisation.MinMax(),
        "RGBTo01Normalization": normalisation.MeanStd(mean=(0.0,), std=(255.0,)),
        "NoNormalization": normalisation.AsInFile(),
    }[channel.scheme]
