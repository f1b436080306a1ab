"""A trained network from the folder that nnU-Net 2 leaves, without nnU-Net and without PyTorch."""

import dataclasses
import json
import os
import pathlib
import sys
from typing import Any

from jaxseg import paths
from jaxseg.errors import InputError
from jaxseg.models import weight_files, weights
from jaxseg.models.nnunet import NNUNet
from jaxseg.models.nnunet_folder import plans as reading
from jaxseg.models.nnunet_folder.fields import DATASET, PLANS
from jaxseg.models.nnunet_folder.plans import Plans

FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
_CONFIGURATION = "init_args.configuration"
_TRAINER, _MIRRORED = "trainer_name", "inference_allowed_mirroring_axes"


def from_folder(
    folder: str | os.PathLike[str], *, fold: int | str = 0, configuration: str | None = None
) -> tuple[NNUNet, dict[str, Any], Plans]:
    """The network of one fold, its variables, and what it expects of images.

    Args:
      folder: such as `nnUNetTrainer__nnUNetPlans__3d_fullres`, with `plans.json`, `dataset.json` and a folder for each
        fold, in it `checkpoint_final.pth`, or else `checkpoint_best.pth`.
      fold: its number, or `all`.
      configuration: as in `plans.json`; None means the one that the checkpoint or the folder's name says.

    Returns:
      A module `images [B,H,W,C]` or `[B,D,H,W,C]` -> logits, of images that are resampled, normalised and cut as the
      plans say; its variables, float32; the plans.

    Raises:
      InputError: a file that is missing, damaged or of another make, plans that networks here cannot follow (see
        `plans.read`), or a checkpoint that is not of these plans.
    """
    folder = paths.expanded(folder)
    if not paths.is_folder(folder):
        raise InputError(f"{folder}: there is no such folder; give one of a trained network of nnU-Net, with {PLANS}")
    written, dataset = (_json(folder / name) for name in (PLANS, DATASET))
    file = _checkpoint(folder, fold)
    said = weight_files.notes(file, (_CONFIGURATION, _TRAINER, _MIRRORED))
    try:
        name = _configuration(folder, written, said.get(_CONFIGURATION), configuration)
        plans = _completed(reading.read(written, dataset, name), said)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    tensors = weight_files.read(file)
    module = plans.build()
    if any(name.endswith(".norm.running_mean") for name in tensors):
        module = plans.build(norm="batch")  # nnU-Net has a trainer that makes this of plans with instance norm
    try:
        return module, weights.from_torch(module, tensors, plans.image_shape), plans
    except InputError as error:
        both = f"{PLANS} and {DATASET}"
        raise InputError(f"{file}: is not what {both} describe ({error}); copy all three from one training") from error


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not paths.is_file(path):
        raise InputError(f"{path} is missing; copy it from where nnU-Net trained the network")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no JSON object; copy the file that nnU-Net wrote")
    return content


def _checkpoint(folder: pathlib.Path, fold: int | str) -> pathlib.Path:
    """The last checkpoint of a fold, or its best where training did not end."""
    for name in (FINAL, BEST):
        file = folder / f"fold_{fold}" / name
        if paths.is_file(file):
            if name == BEST:
                print(f"{folder / f'fold_{fold}'}: has no {FINAL}; {BEST} is taken", file=sys.stderr)
            return file
    folds = [
        one.name.removeprefix("fold_")
        for one in paths.children(folder)
        if one.name.startswith("fold_") and any(paths.is_file(one / name) for name in (FINAL, BEST))
    ]
    there = f"choose one of the folds {', '.join(folds)}" if folds else "copy them from where nnU-Net trained"
    raise InputError(f"{folder / f'fold_{fold}'}: holds neither {FINAL} nor {BEST}; {there}")


def _configuration(folder: pathlib.Path, written: dict[str, Any], trained: Any, wanted: str | None) -> str:
    """The name of the configuration: the checkpoint's, else the wanted one, else that of the folder's name."""
    if isinstance(trained, str):
        if wanted not in (None, trained):
            raise InputError(
                f"the checkpoint is of the configuration {trained!r:.80}, not {wanted!r:.80}; name that one"
            )
        return trained
    known, last = reading.configurations(written), folder.name.rpartition("__")[2]
    if wanted is None and last not in known and len(known) != 1:
        raise InputError(f"nothing says of which configuration the network is; choose one of {', '.join(known)}")
    return wanted or (last if last in known else known[0])


def _completed(plans: Plans, said: dict[str, Any]) -> Plans:
    """The plans with what only the checkpoint says."""
    trainer, axes = said.get(_TRAINER, ""), said.get(_MIRRORED, ())
    axes = () if axes is None else axes  # of a trainer that mirrors nothing
    known = _MIRRORED in said and isinstance(axes, tuple) and set(axes) <= {*range(plans.rank)}
    return dataclasses.replace(plans, trainer=str(trainer), mirrored_axes=tuple(map(int, axes)) if known else None)
