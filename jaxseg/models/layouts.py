"""Which PyTorch tensors make which Flax variables, network by network.

Each network has a `Layout`, a list of `Tensor` entries and what is read off a file's shapes. Adding a network is adding
its layout to `LAYOUTS`.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from jaxseg.models.layers import PerAxis
from jaxseg.models.nnunet import NNUNet
from jaxseg.models.residual_unet import ResidualUNet
from jaxseg.models.resnet_unet import ENCODERS, ResNetUNet
from jaxseg.models.unet import UNet

Shapes = Mapping[str, tuple[int, ...]]
Options = Mapping[str, tuple[Any, ...]]
# by which nnU-Net's modules name a tensor once more: the decoder has the encoder, and a layer a list of its parts
_COPIES = (
    (re.compile(r"(^|\.)decoder\.encoder\."), r"\1encoder."),
    (re.compile(r"\.all_modules\.0\."), ".conv."),
    (re.compile(r"\.all_modules\.[1-9]\."), ".norm."),
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One variable and where it comes from.

    Attributes:
      variable: path in the variables, such as `params/head/conv/kernel`.
      sources: PyTorch names that are read.
      convert: the arrays of the sources -> the variable.
      shape: shape of the variable -> shape that every source must have.
      optional: sources that a file may lack if it lacks those of every entry of this kind.
      absent: the value that replaces them.
      kind: of optional sources.
    """

    variable: str
    sources: tuple[str, ...]
    convert: Callable[..., np.ndarray]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    optional: tuple[str, ...] = ()
    absent: float = 0.0
    kind: str = "bias"

    def accepted(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes that a source may have, for a variable of `shape`; the first is the network's own."""
        return [self.shape(shape)]

    def narrow(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The part of the converted `value` that a variable of `shape` needs."""
        del shape
        return value


@dataclasses.dataclass(frozen=True)
class Narrowed(Tensor):
    """A kernel without the input channels of a skip that is off.

    Attributes:
      skip: how many the full network has.
      skip_first: whether they come before the others there.
    """

    skip: int = 0
    skip_first: bool = True

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
        kernel = f"params/{variable}/conv/kernel"
        return Narrowed(kernel, (f"{name}.weight",), convert, shape, skip=skip, skip_first=skip_first)
    return Tensor(f"params/{variable}/conv/kernel", (f"{name}.weight",), convert, shape)


def _vector(
    variable: str, *names: str, convert: Callable[..., np.ndarray] = lambda v: v, optional: tuple[str, ...] = ()
) -> Tensor:
    return Tensor(variable, names, convert, lambda s: s, optional)


def _norm(variable: str, name: str, conv: str | None = None, kind: str = "batch") -> list[Tensor]:
    """A norm; before a batch norm, the bias of the convolution `conv`, if it has one, moves into the mean."""
    mean = f"batch_stats/{variable}/mean"
    affine = [_vector(f"params/{variable}/scale", f"{name}.weight"), _vector(f"params/{variable}/bias", f"{name}.bias")]
    if kind != "batch":  # by default PyTorch's instance norm has neither
        values = zip(affine, (1.0, 0.0), strict=True)
        return [dataclasses.replace(v, optional=v.sources, absent=value, kind="affine") for v, value in values]
    return [
        *affine,
        _vector(mean, f"{name}.running_mean", f"{conv}.bias", convert=np.subtract, optional=(f"{conv}.bias",))
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
            if module.norm != "batch":  # instance norm does not need it and ignores it
                bias = f"{conv_name}.bias"
                entries.append(_vector(f"params/{variable}/conv_{i}/conv/conv/bias", bias, optional=(bias,)))
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


def _nnunet(module: NNUNet) -> list[Tensor]:
    def layer(variable: str, name: str, skip: int = 0) -> list[Tensor]:
        conv, bias = f"{name}.conv", f"{name}.conv.bias"
        has_bias = not variable.endswith("shortcut")
        entries = [_conv(f"{variable}/conv", conv, skip, skip_first=False)]
        entries += _norm(f"{variable}/norm", f"{name}.norm", conv if has_bias else None, module.norm)
        if has_bias and module.norm != "batch":  # instance norm does not need it and ignores it
            entries.append(_vector(f"params/{variable}/conv/conv/bias", bias, optional=(bias,)))
        return entries

    entries = [entry for variable, name in _nnunet_encoder(module) for entry in layer(variable, name)]
    levels = module.halvings
    for level, active in enumerate(module.active_skips):
        stage = levels - 1 - level  # they are numbered from the bottleneck
        for i in range(module.decoder_stage_depths[level]):
            skip = 0 if active or i else module.features[level]
            entries += layer(f"decoder_{level}/conv_{i}", f"decoder.stages.{stage}.convs.{i}", skip)
        entries.append(_transposed(f"up_{level}", f"decoder.transpconvs.{stage}"))
        if module.up_bias:
            entries.append(_vector(f"params/up_{level}/bias", f"decoder.transpconvs.{stage}.bias"))
        # of lower resolutions, for deep supervision, there are no variables: their tensors are passed over
        head = "head" if level == 0 else f"head_{level}"
        entries.append(_conv(head, f"decoder.seg_layers.{stage}"))
        entries.append(_vector(f"params/{head}/conv/bias", f"decoder.seg_layers.{stage}.bias"))
    return entries


def _nnunet_encoder(module: NNUNet) -> list[tuple[str, str]]:
    """Variables and names of the encoder's layers."""
    if module.encoder == "plain":
        return [
            (f"stage_{i}/conv_{j}", f"encoder.stages.{i}.0.convs.{j}")
            for i, depth in enumerate(module.stage_depths)
            for j in range(depth)
        ]
    layers, read = [("stem", "encoder.stem.convs.0")], module.features[0]
    for i, (depth, width, stride) in enumerate(
        zip(module.stage_depths, module.features, module.stage_strides, strict=True)
    ):
        for j in range(depth):
            variable, name = f"stage_{i}/block_{j}", f"encoder.stages.{i}.blocks.{j}"
            layers += [(f"{variable}/conv_{k}", f"{name}.conv{k + 1}") for k in range(2)]
            if read != width:  # behind the pooling, if there is one
                pooled = int(j == 0 and stride not in (1, (1, 1), (1, 1, 1)))
                layers.append((f"{variable}/shortcut", f"{name}.skip.{pooled}"))
            read = width
    return layers


def _unet_options(shapes: Shapes) -> Options:
    outer = "inc.double_conv.3.weight"
    inner = (f"down{level}.maxpool_conv.1.double_conv.3.weight" for level in itertools.count(1))
    names = [outer, *itertools.takewhile(lambda name: name in shapes, inner)]
    return {
        "features": (tuple(shapes[name][0] for name in names),),
        "upsample": ("transpose",) if "up1.up.weight" in shapes else ("bilinear_aligned", "bilinear"),
        "norm": ("batch",) if "inc.double_conv.1.running_mean" in shapes else ("instance", "group"),
    }


def _resnet_unet_options(shapes: Shapes) -> Options:
    blocks = itertools.takewhile(lambda j: f"encoder.layer3.{j}.conv1.weight" in shapes, itertools.count())
    num_blocks = len([*blocks])
    return {"encoder": tuple(name for name, stages in ENCODERS.items() if stages[2] == num_blocks)}


def _residual_unet_options(shapes: Shapes) -> Options:
    inner = (f"down{level}.1.weight" for level in itertools.count(1))
    names = ["init_path.0.weight", *itertools.takewhile(lambda name: name in shapes, inner)]
    return {"features": (tuple(shapes[name][0] for name in names),)}


def _nnunet_options(shapes: Shapes) -> Options:
    def numbered(pattern: str) -> list[tuple[int, ...]]:
        """The shapes of the tensors of this name with 0, 1, ... in it."""
        names = (pattern.format(i) for i in itertools.count())
        return [shapes[name] for name in itertools.takewhile(lambda name: name in shapes, names)]

    def depths(pattern: str, stages: int) -> list[int]:
        return [len(numbered(pattern.replace("STAGE", str(i)))) for i in range(stages)]

    residual = _NNUNET_STEMS[1] in shapes
    inner = "blocks.{}.conv1" if residual else "0.convs.{}"
    first = numbered(f"encoder.stages.{{}}.{inner.format(0)}.conv.weight")
    ups = numbered("decoder.transpconvs.{}.weight")[::-1]
    stages = len(first)
    norm = ("batch",) if any(name.endswith(".norm.running_mean") for name in shapes) else ("instance",)
    return {
        "encoder": ("residual",) if residual else ("plain",),
        "features": (tuple(shape[0] for shape in first),),
        "kernels": _by_stage([shape[2:] for shape in first], (3,) * stages),
        "strides": _by_stage([(1,) * (len(first[0]) - 2), *(shape[2:] for shape in ups)], (1, *(2,) * (stages - 1))),
        "depths": _by_stage(depths(f"encoder.stages.STAGE.{inner}.conv.weight", stages), (2,) * stages),
        "decoder_depths": _by_stage(
            depths("decoder.stages.STAGE.convs.{}.conv.weight", stages - 1)[::-1], (2,) * (stages - 1)
        ),
        "up_bias": ("decoder.transpconvs.0.bias" in shapes,),
        "norm": norm,
    }


def _by_stage(values: Sequence[PerAxis], usual: tuple[PerAxis, ...]) -> tuple[Any, ...]:
    """The ways in which an option may say these values: short, in full, and None where they are the usual ones."""
    short = tuple(one[0] if isinstance(one, tuple) and len({*one}) == 1 else one for one in values)
    return (short, tuple(values), *((None,) if short == usual else ()))


def without_copies(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors under one name each: nnU-Net's state dicts have most of them under two to four."""
    plain: dict[str, Any] = {}
    for name, tensor in state_dict.items():
        own = name
        for copy, original in _COPIES:
            own = copy.sub(original, own)
        if own == name or own not in state_dict:
            plain.setdefault(own, tensor)
    return plain


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a network's tensors are named in PyTorch.

    Attributes:
      name: of the network, as `models.build` knows it.
      entries: network -> its variables.
      options: shapes in a file -> options of the network that has them, each with the values that are possible.
      stems: the names that the kernel that reads the images may have.
      head: network -> the tensors with one entry per class, and the number that a class has in each without any weight.
    """

    name: str
    entries: Callable[[Any], list[Tensor]]
    options: Callable[[Shapes], Options]
    stems: tuple[str, ...]
    head: Callable[[Any], Mapping[str, float]]


def _conv_head(name: str) -> dict[str, float]:
    return {f"{name}.weight": 0.0, f"{name}.bias": 0.0}


_RESIDUAL_UNET_HEAD = (
    _conv_head("out_path.1.layer")
    | {f"out_path.2.{part}": 0.0 for part in ("bias", "running_mean")}
    | {f"out_path.2.{part}": 1.0 for part in ("weight", "running_var")}
)
_NNUNET_STEMS = ("encoder.stages.0.0.convs.0.conv.weight", "encoder.stem.convs.0.conv.weight")


LAYOUTS: dict[type[nn.Module], Layout] = {
    UNet: Layout("unet", _unet, _unet_options, ("inc.double_conv.0.weight",), lambda _: _conv_head("outc.conv")),
    ResNetUNet: Layout(
        "resnet_unet",
        _resnet_unet,
        _resnet_unet_options,
        ("encoder.conv1.weight",),
        lambda _: _conv_head("segmentation_head.0"),
    ),
    ResidualUNet: Layout(
        "residual_unet", _residual_unet, _residual_unet_options, ("init_path.0.weight",), lambda _: _RESIDUAL_UNET_HEAD
    ),
    NNUNet: Layout(
        "nnunet",
        _nnunet,
        _nnunet_options,
        _NNUNET_STEMS,
        lambda module: _conv_head(f"decoder.seg_layers.{module.halvings - 1}"),
    ),
}
