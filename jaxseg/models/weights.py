"""PyTorch state dicts to Flax variables."""

import sys
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError
from jaxseg.models import matching, mismatch
from jaxseg.models.layouts import LAYOUTS, without_copies
from jaxseg.models.matching import Match, StateDict
from jaxseg.models.resnet_unet import ResNetUNet

_STEM = "conv1.weight"  # of torchvision's ResNets
_FIRST_BLOCK = "layer1.0.conv1.weight"


def from_torch(module: nn.Module, state_dict: StateDict, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Variables of `module` with the numbers of a PyTorch network of the same architecture.

    `unet` takes the shortcut paper's network (names `inc`, `down1` ... `outc`). The biases of its convolutions, where
    they have some, go into the running means of the batch norms after them, which subtract them again: the network
    computes the same. No tensor tells how features are interpolated; that network, and the well-known one that it comes
    from, are `bilinear_aligned`.

    `nnunet` takes nnU-Net's; the copies that it has of tensors under further names, and its heads of lower resolutions,
    are passed over.

    Args:
      module: built by `jaxseg.models.build`. Where it has a skip switched off, the full network's tensors are taken
        without the part that read the skip.
      state_dict: PyTorch names to arrays, or what NumPy converts to arrays, with any common prefix, such
        as `model.`; everything else, such as `criterion.weight`, is left out with a line on stderr,
        `num_batches_tracked` and non-tensors without one. For a network with one logit z, instead of two classes, the
        logits are `[0, z]`, whose softmax is the sigmoid of z. An instance or group norm without tensors of its own,
        PyTorch's default for instance norm, has scale 1 and bias 0.
      image_shape: `[B,H,W,C]` or `[B,D,H,W,C]`, of images that the network accepts.

    Returns:
      `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
      InputError: tensors that are missing, left over or of another shape. One sentence says what explains it: another
        option of the network, another network, or else the first few tensors and how many more. Also numbers that are
        not weights: quantised, bool, not finite, too large for float32, a negative variance.
    """
    if type(module) not in LAYOUTS:
        known = ", ".join(kind.__name__ for kind in LAYOUTS)
        raise InputError(f"no PyTorch layout is known for {type(module).__name__}; there is one for {known}")
    state_dict = matching.tensors_of(state_dict)
    match = matching.match(matching.of_network(module, image_shape), state_dict)
    if match.problems():
        raise mismatch.explained(module, image_shape, state_dict, match)
    return flax.traverse_util.unflatten_dict(_taken(match), sep="/")


def is_encoder(state_dict: StateDict) -> bool:
    """Whether there is a ResNet of torchvision's names, and no decoder of `resnet_unet` with it."""
    ends = {ending for ending in (_STEM, _FIRST_BLOCK) for name in state_dict if f".{name}".endswith(f".{ending}")}
    return len(ends) == 2 and not any("decoder.blocks." in name for name in state_dict)


def encoder_from_torchvision(module: ResNetUNet, variables: Any, state_dict: StateDict) -> dict[str, Any]:
    """`variables` with the encoder of a torchvision ResNet in them.

    Torchvision's networks take RGB images, from which ImageNet's mean was subtracted and which were divided by its
    standard deviation; images in [-1, 1] come near to that. For one channel the first kernels are summed over RGB; for
    other counts RGB repeats, scaled to keep the size of the sums, as segmentation_models_pytorch does it.

    Args:
      module: of `variables`, for images in 2-D.
      variables: `{"params": ..., "batch_stats": ...}`.
      state_dict: torchvision's names to arrays; those of the classifier, `fc`, are ignored.

    Raises:
      InputError: as `from_torch`.
    """
    wanted = matching.encoder(module, matching.shapes_of(variables))
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    channels = flat["params/stem/conv/conv/kernel"].shape[-2]
    classifier = (".fc.weight", ".fc.bias")
    tensors = {
        name: array for name, array in matching.tensors_of(state_dict).items() if not f".{name}".endswith(classifier)
    }
    for name in tensors:
        if f".{name}".endswith(f".{_STEM}") and tensors[name].shape[1:] == (3, 7, 7):
            tensors[name] = _for_channels(matching.weight(name, tensors[name]), channels)
    match = matching.match(wanted, tensors)
    if match.problems():
        raise mismatch.encoder(module, tensors, match)
    return flax.traverse_util.unflatten_dict(flat | _taken(match), sep="/")


def for_gray(state_dict: StateDict) -> dict[str, np.ndarray]:
    """The tensors of a network for colour images, for gray ones: its first kernel is summed over the channels.

    On a gray image the network computes what it did on the same image repeated three times. Floating tensors become
    float32, as all are in the variables.

    Args:
      state_dict: PyTorch names to arrays, in a layout that `from_torch` knows.

    Raises:
      InputError: there is no first kernel, or one for another number of channels than 3, or of numbers that are not
        weights.
    """
    state_dict = without_copies(matching.tensors_of(state_dict))
    stems = tuple(f".{stem}" for layout in LAYOUTS.values() for stem in layout.stems)
    first = [name for name in state_dict if f".{name}".endswith(stems)]
    if len(first) != 1 or state_dict[first[0]].shape[1:2] != (3,):
        raise InputError("there is not one first kernel for three channels; give the tensors of a network for RGB")
    tensors = {
        name: matching.weight(name, array) if jnp.issubdtype(array.dtype, jnp.floating) else array
        for name, array in state_dict.items()
    }
    return {**tensors, first[0]: matching.weight(first[0], tensors[first[0]]).sum(1, keepdims=True)}


def _taken(match: Match) -> dict[str, Any]:
    """The variables; a line on stderr names what was left out."""
    if match.left_out:
        more = f" and {len(match.left_out) - 3} more" if match.left_out[3:] else ""
        print(f"left out, as it is not part of the network: {', '.join(match.left_out[:3])}{more}", file=sys.stderr)
    return match.converted()


def _for_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A PyTorch kernel `[out,3,...]` for images of another number of channels."""
    if kernel.shape[1] != 3 or channels == 3:
        return kernel
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    return kernel[:, np.arange(channels) % 3] * np.float32(3 / channels)
