"""The zeros around the feature maps of a PyTorch module, and what can stand in their place."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

Widths = list[tuple[int, int]]
_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # as `np.pad` calls them


class Found(NamedTuple):
    """Where a module pads with zeros, as far as its parts show it.

    Attributes:
      parts: convolutions and padding modules that do, with the pixels before and after along each spatial axis.
      unseen: convolutions wider than a pixel for which no such padding is seen.
      wide: all convolutions wider than a pixel.
    """

    parts: dict[Any, Widths]
    unseen: int
    wide: int

    @property
    def seen(self) -> str:
        """What a swap reaches, in words where that may not be all."""
        return f"{self.wide - self.unseen} of the {self.wide} convolutions wider than a pixel" if self._partly else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The same as a sentence."""
        if not self._partly:
            return ()
        return (
            f"Of its {self.wide} convolutions wider than a pixel, {self.wide - self.unseen} are seen to be padded with "
            "zeros, and a swap of padding is theirs; whether the others are padded elsewhere is not known.",
        )

    @property
    def _partly(self) -> bool:
        return bool(self.parts and self.unseen)


def found(module: Any) -> Found:
    """What a module pads with zeros; what it pads within `forward` is not seen.

    A convolution that pads nothing itself counts as padded where a padding module stands for it.
    """
    import torch

    convolutions = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Conv3d)]
    wide = [part for part in convolutions if max(part.kernel_size) > 1]
    own = {part: _widths(part) for part in convolutions if part.padding_mode == "zeros"}
    own = {part: widths for part, widths in own.items() if np.any(widths)}
    before = {part: _around(part) for part in module.modules() if _is_padding(part)}
    before = {part: widths for part, widths in before.items() if np.any(widths) and np.min(widths) >= 0}
    bare = sum(part.padding_mode == "zeros" and not np.any(_widths(part)) for part in wide)
    return Found(own | before, max(bare - len(before), 0), len(wide))


@contextlib.contextmanager
def repadded(module: Any, padding: str) -> Iterator[None]:
    """Within it, what its parts pad with zeros they pad in another mode, on maps of any size.

    Args:
      module: `torch.nn.Module`.
      padding: reflect, replicate or circular; or zero, which changes nothing.
    """
    parts = {} if padding == "zero" else found(module).parts
    own = {part: part.padding for part in parts}
    hooks = [part.register_forward_pre_hook(_widened(widths, _MODES[padding])) for part, widths in parts.items()]
    try:
        for part, widths in parts.items():
            part.padding = (0,) * (2 * len(widths) if _is_padding(part) else len(widths))
        yield
    finally:
        for part, given in own.items():
            part.padding = given
        for hook in hooks:
            hook.remove()


def _is_padding(part: Any) -> bool:
    """Whether it is a module that does nothing but pad with zeros."""
    import torch

    zeros = (torch.nn.ZeroPad2d, torch.nn.ZeroPad3d, torch.nn.ConstantPad2d, torch.nn.ConstantPad3d)
    return isinstance(part, zeros) and part.value == 0


def _around(part: Any) -> Widths:
    """PyTorch's numbers begin with the last axis."""
    pairs = [*zip(part.padding[::2], part.padding[1::2], strict=True)]
    return pairs[::-1]


def _widths(part: Any) -> Widths:
    if isinstance(part.padding, str):  # same, or valid
        totals = [step * (size - 1) for step, size in zip(part.dilation, part.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) if part.padding == "same" else (0, 0) for total in totals]
    return [(width, width) for width in part.padding]


def _widened(widths: Widths, mode: str) -> Callable[..., Any]:
    """A hook that pads a part's images `[B,C,*n]`; PyTorch's own refuses maps smaller than their padding."""
    import torch

    def hook(part: Any, inputs: Any) -> Any:
        x, *further = inputs
        for axis, around in enumerate(widths, x.ndim - len(widths)):
            places = np.pad(np.arange(x.shape[axis]), around, mode=mode)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(places).to(x.device))
        return (x, *further)

    return hook
