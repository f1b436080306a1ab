"""The zeros around the feature maps of a PyTorch module, and what can stand in their place."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # as `np.pad` calls them


def pads_zeros(module: Any) -> bool:
    """Whether a convolution of it pads with zeros; what it pads outside its convolutions is not seen."""
    return bool(_padded_convolutions(module))


@contextlib.contextmanager
def repadded(module: Any, padding: str) -> Iterator[None]:
    """Within it, what its convolutions pad with zeros they pad in another mode, on maps of any size.

    Args:
      module: `torch.nn.Module`.
      padding: reflect, replicate or circular; or zero, which changes nothing.
    """
    found = {} if padding == "zero" else _padded_convolutions(module)
    own = {part: part.padding for part in found}
    hooks = [part.register_forward_pre_hook(_widened(widths, _MODES[padding])) for part, widths in found.items()]
    try:
        for part in found:
            part.padding = (0,) * len(part.kernel_size)
        yield
    finally:
        for part, given in own.items():
            part.padding = given
        for hook in hooks:
            hook.remove()


def _padded_convolutions(module: Any) -> dict[Any, list[tuple[int, int]]]:
    """Those that pad with zeros, with the pixels before and after along each spatial axis."""
    import torch

    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)
    parts = {part: _widths(part) for part in module.modules() if isinstance(part, kinds)}
    return {part: widths for part, widths in parts.items() if part.padding_mode == "zeros" and np.any(widths)}


def _widths(part: Any) -> list[tuple[int, int]]:
    if isinstance(part.padding, str):  # same, or valid
        totals = [step * (size - 1) for step, size in zip(part.dilation, part.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) if part.padding == "same" else (0, 0) for total in totals]
    return [(width, width) for width in part.padding]


def _widened(widths: list[tuple[int, int]], mode: str) -> Callable[..., Any]:
    """A hook that pads a convolution's images `[B,C,*n]`; PyTorch's own refuses maps smaller than their padding."""
    import torch

    def hook(part: Any, inputs: Any) -> Any:
        x, *further = inputs
        for axis, around in enumerate(widths, x.ndim - len(widths)):
            places = np.pad(np.arange(x.shape[axis]), around, mode=mode)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(places).to(x.device))
        return (x, *further)

    return hook
