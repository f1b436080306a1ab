"""PyTorch state dicts to Flax variables.

Each network has a list of `Tensor` entries: which PyTorch tensors make which variable, and how. Adding a network is
adding its list to `_LAYOUTS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError
from jaxseg.models.residual_unet import ResidualUNet
from jaxseg.models.resnet_unet import ENCODERS, ResNetUNet
from jaxseg.models.unet import UNet

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One variable and where it comes from.

    Attributes:
      variable: path in the variables, such as `params/head/conv/kernel`.
      sources: PyTorch names that are read.
      convert: the arrays of the sources -> the variable.
      shape: shape of the variable -> shape that every source must have.
    """

    variable: str
    sources: tuple[str, ...]
    convert: Callable[..., np.ndarray]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]

    def accepted(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes that a source may have, for a variable of `shape`; the first is the network's own."""
        return [self.shape(shape)]

    def narrow(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The part of the converted `value` that a variable of `shape` needs."""
        del shape
        return value


def from_torch(module: nn.Module, state_dict: StateDict, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Variables of `module` with the numbers of a PyTorch network of the same architecture.

    `unet` takes the shortcut paper's network (names `inc`, `down1` ... `outc`). The biases of its convolutions go into
    the running means of the batch norms behind them, which subtract them again: the network computes the same.

    Args:
      module: built by `jaxseg.models.build`. Where it has a skip switched off, the full network's tensors are taken
        without the part that read the skip.
      state_dict: PyTorch names to arrays; `num_batches_tracked` is ignored.
      image_shape: `[B,H,W,C]` or `[B,D,H,W,C]`, of images that the network accepts.

    Returns:
      `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
      InputError: tensors that are missing, left over or of another shape; all of them are listed, with both shapes.
    """
    if type(module) not in _LAYOUTS:
        known = ", ".join(kind.__name__ for kind in _LAYOUTS)
        raise InputError(f"no PyTorch layout is known for {type(module).__name__}; there is one for {known}")
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    wanted, whole = (
        _shapes(jax.eval_shape(network.init, jax.random.key(0), image))
        for network in (module, module.clone(skips=None))
    )
    converted = _convert(type(module).__name__, _LAYOUTS[type(module)](module), wanted, state_dict, whole)
    return flax.traverse_util.unflatten_dict(converted, sep="/")


def encoder_from_torchvision(module: ResNetUNet, variables: Any, state_dict: StateDict) -> dict[str, Any]:
    """`variables` with the encoder of a torchvision ResNet in them.

    Torchvision's networks take RGB images, of which the mean of ImageNet was subtracted and which were divided by its
    standard deviation; images in [-1, 1] come near to that. For one channel the first kernels are summed over RGB; for
    other counts RGB repeats, scaled to keep the size of the sums, as segmentation_models_pytorch does it.

    Args:
      module: of `variables`, for images in 2-D.
      variables: `{"params": ..., "batch_stats": ...}`.
      state_dict: torchvision's names to arrays; those of the classifier, `fc`, are ignored.

    Raises:
      InputError: as `from_torch`.
    """
    layout = [
        dataclasses.replace(entry, sources=tuple(name.removeprefix("encoder.") for name in entry.sources))
        for entry in _resnet_unet(module)
        if all(name.startswith("encoder.") for name in entry.sources)
    ]
    tensors = {name: array for name, array in state_dict.items() if not name.startswith("fc.")}
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    channels = flat["params/stem/conv/conv/kernel"].shape[-2]
    if "conv1.weight" in tensors:
        tensors["conv1.weight"] = _for_channels(np.asarray(tensors["conv1.weight"], np.float32), channels)
    title, shapes = f"the encoder of {type(module).__name__}", _shapes(variables)
    return flax.traverse_util.unflatten_dict(flat | _convert(title, layout, shapes, tensors, shapes), sep="/")


def _for_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A PyTorch kernel `[out,3,...]` for images of another number of channels."""
    if kernel.shape[1] != 3 or channels == 3:
        return kernel
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    return kernel[:, np.arange(channels) % 3] * np.float32(3 / channels)


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(variables, sep="/").items()}


def _convert(
    title: str,
    layout: list[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    state_dict: StateDict,
    whole: Mapping[str, tuple[int, ...]],
) -> dict[str, jax.Array]:
    """The variables of a layout, with `shapes`; tensors for others, in `whole` or not, are checked and passed over."""
    entries = [entry for entry in layout if entry.variable in shapes]
    unused = [entry for entry in layout if entry.variable not in shapes and entry.variable in whole]
    used = {name for entry in entries for name in entry.sources}
    # of skips that are off; biases that instance norm subtracts again
    spare = {name for entry in layout for name in entry.sources} - used
    given = {
        name: array
        for name, array in state_dict.items()
        if not name.endswith("num_batches_tracked") and name not in spare
    }
    problems = _problems(entries, shapes, given) + _misshapen(unused, whole, state_dict)
    if problems:
        raise InputError("\n".join([f"the PyTorch tensors do not fit {title}:", *problems]))
    flat = {}
    for entry in entries:
        value = entry.convert(*(np.asarray(given[name], np.float32) for name in entry.sources))
        flat[entry.variable] = jnp.asarray(entry.narrow(value, shapes[entry.variable]))
    return flat


def _problems(entries: list[Tensor], shapes: Mapping[str, tuple[int, ...]], given: StateDict) -> list[str]:
    used = {name for entry in entries for name in entry.sources}
    lines = [f"  missing: {name}" for name in sorted(used - set(given))]
    lines += [f"  left over: {name} {tuple(given[name].shape)}" for name in sorted(set(given) - used)]
    return lines + _misshapen(entries, shapes, given)


def _misshapen(entries: list[Tensor], shapes: Mapping[str, tuple[int, ...]], given: StateDict) -> list[str]:
    lines = []
    for entry in entries:
        accepted = entry.accepted(shapes[entry.variable])
        for name in entry.sources:
            if name in given and tuple(given[name].shape) not in accepted:
                lines.append(f"  misshapen: {name} {tuple(given[name].shape)}, the network takes {accepted[0]}")
    return lines


@dataclasses.dataclass(frozen=True)
class Narrowed(Tensor):
    """A kernel without the input channels of a skip that is off.

    Attributes:
      skip: how many they are in the full network.
      skip_first: whether they stand before the others there.
    """

    skip: int
    skip_first: bool

    def accepted(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The narrowed shape and the full one."""
        out, read, *kernel = self.shape(shape)
        return [(out, read, *kernel), (out, read + self.skip, *kernel)]

    def narrow(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The part of a kernel that does not read the skip."""
        read = shape[-2]
        return value[..., -read:, :] if self.skip_first else value[..., :read, :]


def _conv(variable: str, name: str, skip: int = 0, skip_first: bool = True) -> Tensor:
    convert = lambda w: np.moveaxis(w, (0, 1), (-1, -2))
    shape = lambda s: (s[-1], s[-2], *s[:-2])
    if skip:
        return Narrowed(f"params/{variable}/conv/kernel", (f"{name}.weight",), convert, shape, skip, skip_first)
    return Tensor(f"params/{variable}/conv/kernel", (f"{name}.weight",), convert, shape)


def _vector(variable: str, *names: str, convert: Callable[..., np.ndarray] = lambda v: v) -> Tensor:
    return Tensor(variable, names, convert, lambda s: s)


def _norm(variable: str, name: str, conv: str | None = None, kind: str = "batch") -> list[Tensor]:
    """A norm; in front of a batch norm, the bias of the convolution `conv`, if it has one, moves into the mean."""
    mean = f"batch_stats/{variable}/mean"
    affine = [_vector(f"params/{variable}/scale", f"{name}.weight"), _vector(f"params/{variable}/bias", f"{name}.bias")]
    if kind != "batch":
        return affine
    return [
        *affine,
        _vector(mean, f"{name}.running_mean", f"{conv}.bias", convert=np.subtract)
        if conv
        else _vector(mean, f"{name}.running_mean"),
        _vector(f"batch_stats/{variable}/var", f"{name}.running_var"),
    ]


def _unet(module: UNet) -> list[Tensor]:
    def block(variable: str, name: str, skip: int = 0) -> list[Tensor]:
        entries = []
        for i, (conv, norm) in enumerate(((0, 1), (3, 4))):
            conv_name = f"{name}.double_conv.{conv}"
            entries.append(_conv(f"{variable}/conv_{i}/conv", conv_name, skip if i == 0 else 0))
            entries += _norm(f"{variable}/conv_{i}/norm", f"{name}.double_conv.{norm}", conv_name, module.norm)
            if module.norm != "batch":  # instance norm has no use for it and passes it over
                entries.append(_vector(f"params/{variable}/conv_{i}/conv/conv/bias", f"{conv_name}.bias"))
        return entries

    levels = module.halvings
    entries = block("encoder_0", "inc")
    for level in range(1, levels + 1):
        variable = f"encoder_{level}" if level < levels else "bottleneck"
        entries += block(variable, f"down{level}.maxpool_conv.1")
    for level, active in enumerate(module.active_skips):
        name = f"up{levels - level}"
        entries += block(f"decoder_{level}", f"{name}.conv", 0 if active else module.features[level])
        if module.upsample == "transpose":
            entries.append(_transposed(f"up_{level}", f"{name}.up"))
            entries.append(_vector(f"params/up_{level}/bias", f"{name}.up.bias"))
    entries.append(_conv("head", "outc.conv"))
    entries.append(_vector("params/head/conv/bias", "outc.conv.bias"))
    return entries


def _transposed(variable: str, name: str) -> Tensor:
    return Tensor(
        f"params/{variable}/kernel",
        (f"{name}.weight",),
        lambda w: np.moveaxis(w, 1, -1),
        lambda s: (s[0], s[-1], *s[1:-1]),
    )


def _resnet_unet(module: ResNetUNet) -> list[Tensor]:
    def pair(variable: str, conv: str, norm: str, skip: int = 0) -> list[Tensor]:
        return [_conv(f"{variable}/conv", conv, skip, skip_first=False), *_norm(f"{variable}/norm", norm)]

    entries = pair("stem", "encoder.conv1", "encoder.bn1")
    read = 64
    for i, blocks in enumerate(ENCODERS[module.encoder]):
        width = 64 * 2**i
        for j in range(blocks):
            variable, name = f"stage_{i}/block_{j}", f"encoder.layer{i + 1}.{j}"
            entries += pair(f"{variable}/conv_0", f"{name}.conv1", f"{name}.bn1")
            entries += pair(f"{variable}/conv_1", f"{name}.conv2", f"{name}.bn2")
            if read != width:
                entries += pair(f"{variable}/shortcut", f"{name}.downsample.0", f"{name}.downsample.1")
            read = width
    # decoder blocks go up from the bottleneck; their skips are named from the top
    skips = [*zip(reversed(module.active_skips), (256, 128, 64, 64), strict=True), (True, 0)]
    for i, (active, channels) in enumerate(skips):
        for j in range(2):
            name = f"decoder.blocks.{i}.conv{j + 1}"
            entries += pair(f"decoder_{i}/conv_{j}", f"{name}.0", f"{name}.1", 0 if active or j else channels)
    return [
        *entries,
        _conv("head", "segmentation_head.0"),
        _vector("params/head/conv/bias", "segmentation_head.0.bias"),
    ]


def _residual_unet(module: ResidualUNet) -> list[Tensor]:
    def conv(variable: str, name: str) -> list[Tensor]:
        return [*_norm(f"{variable}/norm", f"{name}.bn"), _conv(f"{variable}/conv", f"{name}.layer")]

    def block(variable: str, name: str) -> list[Tensor]:
        return [entry for i in range(2) for entry in conv(f"{variable}/conv_{i}", f"{name}.conv_path.{i}")]

    entries = [_conv("down_0/conv", "init_path.0")]
    for i in range(3):
        entries += block(f"down_0/block_{i}", f"init_path.{i + 2}")
    for level in range(1, module.halvings + 1):
        entries += [*_norm(f"down_{level}/norm", f"down{level}.0"), _conv(f"down_{level}/conv", f"down{level}.1")]
        for i in range(3):
            entries += block(f"down_{level}/block_{i}", f"down{level}.{i + 4}")
            entries += block(f"up_{level - 1}/block_{i}", f"up{level}.{i}")
        entries += _norm(f"up_{level - 1}/norm", f"up{level}.3")
        entries.append(_transposed(f"up_{level - 1}/up", f"up{level}.4"))
    for level in range(module.num_skips):
        entries.append(_conv(f"shortcut_{level}", f"shortcut{level}"))
        entries.append(_vector(f"params/shortcut_{level}/conv/bias", f"shortcut{level}.bias"))
    entries += [*block("head/block", "out_path.0"), *conv("head/conv", "out_path.1"), *_norm("head/norm", "out_path.2")]
    return [*entries, _vector("params/head/conv/conv/conv/bias", "out_path.1.layer.bias")]


_LAYOUTS: dict[type[nn.Module], Callable[[Any], list[Tensor]]] = {
    UNet: _unet,
    ResNetUNet: _resnet_unet,
    ResidualUNet: _residual_unet,
}
