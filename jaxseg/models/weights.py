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
    wanted = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(image_shape, jnp.float32))
    shapes = {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(wanted, sep="/").items()}
    entries = _LAYOUTS[type(module)](module)
    given = {name: array for name, array in state_dict.items() if not name.endswith("num_batches_tracked")}
    problems = _problems(entries, shapes, given)
    if problems:
        raise InputError("\n".join([f"the PyTorch tensors do not fit {type(module).__name__}:", *problems]))
    flat = {}
    for entry in entries:
        value = entry.convert(*(np.asarray(given[name], np.float32) for name in entry.sources))
        flat[entry.variable] = jnp.asarray(entry.narrow(value, shapes[entry.variable]))
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _problems(entries: list[Tensor], shapes: Mapping[str, tuple[int, ...]], given: StateDict) -> list[str]:
    used = {name for entry in entries for name in entry.sources}
    lines = [f"  missing: {name}" for name in sorted(used - set(given))]
    lines += [f"  left over: {name} {tuple(given[name].shape)}" for name in sorted(set(given) - used)]
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
    """

    skip: int

    def accepted(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The narrowed shape and the full one."""
        out, read, *kernel = self.shape(shape)
        return [(out, read, *kernel), (out, read + self.skip, *kernel)]

    def narrow(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The part of a kernel that does not read the skip."""
        return value[..., -shape[-2] :, :]  # the skip stands first


def _conv(variable: str, name: str, skip: int = 0) -> Tensor:
    convert = lambda w: np.moveaxis(w, (0, 1), (-1, -2))
    shape = lambda s: (s[-1], s[-2], *s[:-2])
    if skip:
        return Narrowed(f"params/{variable}/conv/kernel", (f"{name}.weight",), convert, shape, skip)
    return Tensor(f"params/{variable}/conv/kernel", (f"{name}.weight",), convert, shape)


def _vector(variable: str, *names: str, convert: Callable[..., np.ndarray] = lambda v: v) -> Tensor:
    return Tensor(variable, names, convert, lambda s: s)


def _norm(variable: str, name: str, conv: str) -> list[Tensor]:
    """A batch norm behind the convolution `conv`, whose bias moves into the running mean."""
    return [
        _vector(f"params/{variable}/scale", f"{name}.weight"),
        _vector(f"params/{variable}/bias", f"{name}.bias"),
        _vector(
            f"batch_stats/{variable}/mean",
            f"{name}.running_mean",
            f"{conv}.bias",
            convert=np.subtract,
        ),
        _vector(f"batch_stats/{variable}/var", f"{name}.running_var"),
    ]


def _unet(module: UNet) -> list[Tensor]:
    def block(variable: str, name: str, skip: int = 0) -> list[Tensor]:
        entries = []
        for i, (conv, norm) in enumerate(((0, 1), (3, 4))):
            conv_name = f"{name}.double_conv.{conv}"
            entries.append(_conv(f"{variable}/conv_{i}", conv_name, skip if i == 0 else 0))
            entries += _norm(f"{variable}/norm_{i}", f"{name}.double_conv.{norm}", conv_name)
        return entries

    levels = module.levels
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


_LAYOUTS: dict[type[nn.Module], Callable[[Any], list[Tensor]]] = {UNet: _unet}
