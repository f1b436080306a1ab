"""A trained network of nnU-Net from its folder, with what its plans make of a case as far as that can be said here."""

import os

from jaxseg import paths
from jaxseg.data import grids, normalisation
from jaxseg.data.inputs import Inputs
from jaxseg.data.normalisation import Normalisation
from jaxseg.errors import InputError
from jaxseg.models import nnunet_folder
from jaxseg.models.nnunet_folder import Channel, Plans
from jaxseg.networks.linen import LinenNetwork

_PICTURES = (".png", ".bmp", ".tif", ".jpg")  # of 2-D plans: their pixels have no size in mm
_NOTES = (
    "Cases are resampled and normalised as nnU-Net's plans say, with these differences: images are interpolated "
    "linearly, by area where they shrink, not by cubic splines; what is empty around a case is not cropped away, "
    "which moves the mean of a z-score; answers are not averaged over mirrored images; the network is that of one fold."
)


def from_nnunet(folder: str | os.PathLike[str], *, fold: int | str = 0) -> LinenNetwork:
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
        inputs = inputs_of(plans)
    except InputError as error:
        raise InputError(f"{paths.expanded(folder)}: {error}") from error
    return LinenNetwork(
        module, variables, plans.patch_size, len(plans.channels), inputs, class_names=plans.labels, notes=(_NOTES,)
    )


def inputs_of(plans: Plans) -> Inputs:
    """What becomes of a stored case by the plans: patches of their size and spacing, and their normalisation.

    Pictures keep their pixels: for them nnU-Net plans a spacing of 1, and no data set here knows one.

    Raises:
      InputError: axes in another order, or a normalisation that has no counterpart here.
    """
    if plans.transpose_forward != (0, 1, 2):
        raise InputError(
            f"its plans put the axes of a file in the order {', '.join(map(str, plans.transpose_forward))}, and cases "
            "here keep theirs; plan it with transpose_forward 0, 1, 2"
        )
    pictures = plans.rank == 2 and plans.file_ending in _PICTURES and set(plans.spacing) == {1.0}
    spacing = () if pictures else plans.spacing
    grid = grids.Patches(max(plans.patch_size), spacing=spacing, size=plans.patch_size)
    return Inputs(grid, _normalisation(plans.channels))


def _normalisation(channels: tuple[Channel, ...]) -> Normalisation:
    schemes = sorted({one.scheme for one in channels})
    if len(schemes) > 1:
        raise InputError(f"its channels are normalised by {' and '.join(schemes)}, and here all are by one scheme")
    if schemes == ["ZScoreNormalization"] and not any(one.masked for one in channels):
        return normalisation.ZScore()
    if schemes == ["RGBTo01Normalization"]:
        return normalisation.MeanStd(mean=(0.0,), std=(255.0,))
    if schemes == ["NoNormalization"]:
        return normalisation.AsInFile()
    if schemes == ["CTNormalization"]:
        return _ct(channels)
    masked = " of the pixels inside the border of zeros alone (use_mask_for_norm)" if schemes[0].startswith("Z") else ""
    raise InputError(f"it is normalised by {schemes[0]}{masked}, which has no counterpart here")


def _ct(channels: tuple[Channel, ...]) -> Normalisation:
    """Clipped, then a mean and a standard deviation for each channel."""
    numbers = [[getattr(one, name) for one in channels] for name in ("mean", "std", "low", "high")]
    mean, std, low, high = (tuple(map(float, each)) for each in numbers)
    if len({*low}) > 1 or len({*high}) > 1:
        raise InputError("its channels are clipped at different ends, and here all are at the same")
    return normalisation.MeanStd(mean=mean, std=std, clip=(low[0], high[0]))
