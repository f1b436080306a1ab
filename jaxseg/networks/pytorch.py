"""A PyTorch module as a network, without a change to it: activations are read and replaced through forward hooks.

PyTorch is imported here and in `torch_padding` alone, and only when they are called.
"""

import contextlib
import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.errors import InputError
from jaxseg.models.skeleton import Roles
from jaxseg.networks import answers, fingerprints, host, picking, torch_padding
from jaxseg.networks.base import Form, check_batch_size, check_sides, roles_around
from jaxseg.networks.functions import last_line, trial_levels

_ONE_PASS = threading.RLock()  # at a time: hooks belong to a module, and XLA calls from many threads
_BEYOND = 0.05  # a mean of gray levels from 0 to 1 may lie that far beyond them
_WIDEST = 2.0  # their standard deviation is at most 0.5, and 1 where nothing is divided
Normalise = tuple[float | Sequence[float], float | Sequence[float]]


def from_torch(
    module: Any,
    *,
    num_classes: int,
    image_size: int | Sequence[int],
    channels: int = 3,
    layers: Sequence[str] = (),
    normalise: Normalise = (0.0, 1.0),
    output: answers.Output | None = None,
    bottleneck: str | None = None,
    batch_size: int | None = None,
) -> host.HostNetwork:
    """A PyTorch module as a network.

    It stays on its device and in its type, and runs in eval mode, whatever mode it is in; its own graph has no gradient
    unless JAX asks for one, which PyTorch then computes. It is given `(levels / 255 - mean) / std`, channels first; one
    gray channel is repeated for a module whose first convolution takes three.

    Of its answer, a tensor, or dictionaries and sequences of them, the tensor counts that has K channels, or one of two
    classes; of several the largest, as with deep supervision, and of those `out` or `logits`. An answer that is smaller
    than the image by a whole factor, as SegFormer's, is resized linearly with half-pixel centres.

    A layer is a submodule, named as in `module.named_modules()`, its activation the tensor `[B,D,*h]` that it returns,
    here channels last. One that is called several times in a pass is there once a call, as `name`, `name#1`, ...
    `roles.convolutions` are those before the convolution that makes the answer, which is the head. TorchScript shows no
    layers.

    Args:
      module: `torch.nn.Module`.
      num_classes: K, background included.
      image_size: side of its square images, `(height, width)`, or `(depth, height, width)`.
      channels: C, of the images as they are stored.
      layers: whose activations can be asked for; none: all convolutions (2-D and 3-D), input to output.
      normalise: mean and standard deviation of gray levels from 0 to 1 in its training, a number or one per channel.
      output: logits, probabilities or sigmoids (`answers.Reading`); None: as its answers to trial images look.
      bottleneck: the layer between encoder and decoder, if there is one; it is added to the layers.
      batch_size: images at once, by what memory allows; None: as many as come.

    Raises:
      InputError: the module fails on such images, gives NaN or nothing that could be K classes of them, or has no such
        layer.
    """
    sides = check_sides(image_size)
    check_batch_size(batch_size)
    _check_module(module)
    module = getattr(module, "_orig_mod", module)  # torch.compile's, whose submodules are not called
    shown = f"the module {getattr(module, 'original_name', type(module).__name__)}"
    repeated = channels == 1 and _first_channels(module) == 3
    notes: tuple[str, ...] = ("The one gray channel is repeated for a network of three.",) if repeated else ()
    seen_channels = 3 if repeated else channels
    mean, std = _mean_and_std(normalise, seen_channels)
    widths = answers.widths(num_classes, output)
    made = _Module(module, shown, sides, widths, seen_channels, mean, std)
    images = trial_levels(sides, channels).astype(np.float32) / np.float32(127.5) - 1
    trial = made.tried(images[:1])
    answer = np.concatenate([trial.answer, made.forward(images[1:], {}, ())[0]])
    reading = answers.read(answer, num_classes, output, shown)
    shapes = _chosen(trial, layers, bottleneck, _why_none(module, shown))
    notes, roles = (*notes, *trial.notes, *reading.notes), _roles(trial, tuple(shapes), bottleneck)
    form = Form(num_classes, channels, sides, tuple(shapes.items()), roles, trial.differentiable, notes)
    form = dataclasses.replace(_padded(form, module), normalisation=_in_words(mean, std))
    given = (mean, std, sides, channels, reading, form.shapes, form.roles)
    made.fingerprint = fingerprints.checksum(*_state(module), module, *given, fingerprints.told(answer))
    return host.HostNetwork(made, form, reading, batch_size)


class _Trial(NamedTuple):
    """What a forward pass of one image showed.

    Attributes:
      answer: of the image's size.
      shapes: of the maps that layers returned, `(*h, D)`, in the order in which they did.
      convolutions: which of them are such layers.
      head: the one that makes the answer.
      differentiable: whether PyTorch has a gradient of it.
      notes: what had to be made of the answer.
    """

    answer: np.ndarray
    shapes: dict[str, tuple[int, ...]]
    convolutions: tuple[str, ...]
    head: str | None
    differentiable: bool
    notes: tuple[str, ...]


class _Module:
    """A module as `host.Host`."""

    takes_activations = True
    fingerprint = ""

    def __init__(
        self,
        module: Any,
        name: str,
        sides: tuple[int, ...],
        widths: Sequence[int],
        channels: int,
        mean: np.ndarray,
        std: np.ndarray,
    ) -> None:
        self.module, self.name = module, name
        self._sides, self._channels, self._mean, self._std = sides, channels, mean, std
        self._widths = widths
        self._parts = _hookable(module)
        self._padding = "zero"

    def repadded(self, padding: str) -> "_Module | None":
        if not torch_padding.found(self.module).parts:
            return None
        made = copy.copy(self)
        made._padding = padding
        return made

    def forward(self, images: np.ndarray, given: host.Arrays, layers: Sequence[str]) -> host.Answer:
        import torch

        with _ONE_PASS, torch.no_grad(), _evaluating(self.module):
            answer, seen = self._passed(self._taken(images), self._tensors(given), layers)
            return _to_numpy(answer), {name: _to_numpy(tensor) for name, tensor in seen.items()}

    def backward(self, images: np.ndarray, given: host.Arrays, slopes: host.Answer) -> host.Answer:
        import torch

        with _ONE_PASS, torch.enable_grad(), _evaluating(self.module):
            x, replacements = self._tensor(images), self._tensors(given)
            inputs = [x, *replacements.values()]
            for tensor in inputs:
                tensor.requires_grad_()
            answer, seen = self._passed(self._normalised(x), replacements, tuple(slopes[1]))
            pairs = [(answer, slopes[0]), *((seen[name], slopes[1][name]) for name in seen)]
            led = [(result, self._tensor(slope).to(result)) for result, slope in pairs if result.requires_grad]
            results, downwards = zip(*led, strict=True)
            found = torch.autograd.grad(results, inputs, downwards, allow_unused=True, materialize_grads=True)
        of_images, *of_given = map(_to_numpy, found)
        return of_images, dict(zip(given, of_given, strict=True))

    def tried(self, images: np.ndarray) -> _Trial:
        """One pass with all layers looked at."""
        import torch

        shapes: dict[str, tuple[int, ...]] = {}
        order: list[str] = []
        ends: dict[str, Any] = {}
        kinds = (torch.nn.Conv2d, torch.nn.Conv3d)

        def look(name: str, output: Any) -> None:
            if torch.is_tensor(output) and output.ndim == images.ndim and len(output) == len(images):
                shapes[name] = (*output.shape[2:], output.shape[1])
                if isinstance(self._parts[name.partition("#")[0]], kinds):
                    order.append(name)
                    if output.shape[1] in self._widths:
                        ends[name] = output.detach().clone()

        with _ONE_PASS, torch.enable_grad(), _evaluating(self.module):
            x = self._tensor(images).requires_grad_()
            with self._hooked([name for name in self._parts if name], look):
                raw = self._answer(self._normalised(x))
            answer = self._of_size(raw)
            smooth = bool(answer.requires_grad)
        notes: tuple[str, ...] = ()
        if raw.shape[2:] != answer.shape[2:]:
            notes = (f"Its {picking.in_words(raw.shape[2:])} answers are resized to the image's size.",)
        return _Trial(_to_numpy(answer), shapes, tuple(order), _head(ends, answer.detach()), smooth, notes)

    def _passed(self, x: Any, given: Mapping[str, Any], layers: Sequence[str]) -> tuple[Any, dict[str, Any]]:
        """The answer, of the image's size, and the layers' tensors."""
        seen: dict[str, Any] = {}
        met: set[str] = set()

        def look(name: str, output: Any) -> Any:
            met.add(name)
            if name in given:
                output = given[name].to(output)
            if name in layers:
                seen[name] = output.clone()  # what follows may write into it
            return output.clone() if name in given else None

        called = dict.fromkeys(name.partition("#")[0] for name in (*given, *layers))
        with self._hooked(list(called), look):
            answer = self._of_size(self._answer(x))
        if lost := [name for name in (*layers, *given) if name not in met]:
            raise InputError(f"{self.name} did not call {', '.join(lost)} on these images, as it did on trial images")
        return answer, seen

    @contextlib.contextmanager
    def _hooked(self, names: Sequence[str], look: Callable[[str, Any], Any]) -> Iterator[None]:
        """Within it, `look(name, output)` sees what each of these modules returns, and may return something else."""
        calls: dict[str, int] = {}
        hooks = []

        def watch(name: str) -> Callable[..., Any]:
            def hook(module: Any, inputs: Any, output: Any) -> Any:
                number = calls[name] = calls.get(name, -1) + 1
                return look(f"{name}#{number}" if number else name, output)

            return hook

        try:
            for name in names:
                hooks.append(self._parts[name].register_forward_hook(watch(name)))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _answer(self, x: Any) -> Any:
        """What the module says of normalised images, `[B,channels,*h]`."""
        try:
            with torch_padding.repadded(self.module, self._padding):
                answer = self.module(x)
        except Exception as error:  # whatever a module of someone else raises
            takes = _first_channels(self.module)
            hint = f"; its first convolution takes {takes} channels" if takes not in (None, x.shape[1]) else ""
            raise InputError(
                f"{self.name} failed on images {tuple(x.shape)}: {last_line(error)}; give image_size and channels as "
                f"in its training{hint}"
            ) from error
        answer = picking.picked(answer, len(x), self._sides, self._widths, self.name)
        return answer if answer.is_floating_point() else answer.float()

    def _of_size(self, answer: Any) -> Any:
        """An answer of the image's size."""
        import torch

        given = tuple(answer.shape[2:])
        if given == self._sides:
            return answer
        picking.check_size(given, self._sides, self.name)
        mode = "bilinear" if len(given) == 2 else "trilinear"
        return torch.nn.functional.interpolate(answer, size=self._sides, mode=mode, align_corners=False)

    def _taken(self, images: np.ndarray) -> Any:
        return self._normalised(self._tensor(images))

    def _normalised(self, x: Any) -> Any:
        """Images in [-1, 1], channels first, as the module takes them."""
        if x.shape[1] == 1 and self._channels > 1:
            x = x.expand(-1, self._channels, *x.shape[2:])
        shape = (1, -1, *(1,) * len(self._sides))
        mean, std = (x.new_tensor(values).reshape(shape) for values in (self._mean, self._std))
        x = ((x + 1.0) / 2.0 - mean) / std
        like = _first_floating(self.module)
        return x if like is None else x.to(like.dtype)

    def _tensors(self, arrays: host.Arrays) -> dict[str, Any]:
        return {name: self._tensor(array) for name, array in arrays.items()}

    def _tensor(self, array: np.ndarray) -> Any:
        """Channels last -> float32, channels first, on the module's device."""
        import torch

        like = _first_floating(self.module)
        first = np.ascontiguousarray(np.moveaxis(np.asarray(array, np.float32), -1, 1))
        tensor = torch.from_numpy(first if first.flags.writeable and first.base is None else first.copy())
        return tensor if like is None else tensor.to(like.device)


def _chosen(trial: _Trial, layers: Sequence[str], bottleneck: str | None, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the layers that are asked for, input to output."""
    wanted = {*(layers or trial.convolutions), *filter(None, [bottleneck])}
    if unknown := sorted(wanted - set(trial.shapes)):
        known = ", ".join(trial.shapes) or "none"
        raise InputError(f"{name} has no layer {', '.join(unknown)} that returns a map; it has {known}")
    return {layer: shape for layer, shape in trial.shapes.items() if layer in wanted}


def _roles(trial: _Trial, layers: tuple[str, ...], bottleneck: str | None) -> Roles:
    """Those of the layers; the head, and what is behind it, are no convolutions among them."""
    before = trial.convolutions[: trial.convolutions.index(trial.head)] if trial.head else trial.convolutions
    return roles_around(layers, bottleneck, (name for name in before if name in layers))


def _padded(form: Form, module: Any) -> Form:
    """With what is seen of its padding."""
    seen = torch_padding.found(module)
    padding, notes = "zero" if seen.parts else "", (*form.notes, *seen.notes)
    return dataclasses.replace(form, padding=padding, padding_seen=seen.seen, notes=notes)


def _hookable(module: Any) -> dict[str, Any]:
    """Its parts by name; those of TorchScript show nothing of a pass."""
    import torch

    return {name: part for name, part in module.named_modules() if not isinstance(part, torch.jit.ScriptModule)}


def _why_none(module: Any, name: str) -> str:
    """The module's name, with why some of its layers cannot be asked for."""
    if len(_hookable(module)) == len([*module.modules()]):
        return name
    return f"{name} is TorchScript, which shows no layers (give the module that it was made of); it"


def _head(ends: Mapping[str, Any], answer: Any) -> str | None:
    """The convolution that makes the answer: whose output it is, resized if need be, or, failing that, the last."""
    import torch

    mode = "bilinear" if answer.ndim == 4 else "trilinear"
    for name, end in ends.items():
        resized = torch.nn.functional.interpolate(end, size=answer.shape[2:], mode=mode, align_corners=False)
        if resized.shape == answer.shape and torch.allclose(resized, answer, 1e-3, 1e-5):
            return name
    return [None, *ends][-1]


def _check_module(module: Any) -> None:
    import torch

    if not isinstance(module, torch.nn.Module):
        raise InputError(f"from_torch takes a torch.nn.Module, got a {type(module).__name__}; see from_function")


def _first_channels(module: Any) -> int | None:
    """How many channels the first convolution takes, as modules are registered."""
    import torch

    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)
    return next((int(part.in_channels) for part in module.modules() if isinstance(part, kinds)), None)


def _first_floating(module: Any) -> Any:
    tensors = (one for values in (module.parameters(), module.buffers()) for one in values)
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _mean_and_std(normalise: Normalise, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Of gray levels from 0 to 1, one number each or one per channel."""
    try:
        mean, std = (np.atleast_1d(np.asarray(values, np.float32)) for values in normalise)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"normalise is {normalise!r}; give the mean and the standard deviation of gray levels from 0 to 1 in its "
            "training, (0.0, 1.0) if it was given these as they are"
        ) from error
    for array in (mean, std):
        if array.shape not in ((1,), (channels,)):
            raise InputError(
                f"normalise has {array.size} numbers for {channels} channels; give one, or one per channel"
            )
    of_bytes = "they are of gray levels from 0 to 1, so divide what is meant for 0 to 255 by 255"
    if not all(-_BEYOND <= value <= 1 + _BEYOND for value in mean):
        raise InputError(f"normalise has the mean {_numbers(mean)}; {of_bytes}")
    if not all(0 < value <= _WIDEST for value in std):
        raise InputError(f"normalise has the standard deviation {_numbers(std)}, which must be above 0; {of_bytes}")
    return mean, std


def _in_words(mean: np.ndarray, std: np.ndarray) -> str:
    """What becomes of gray levels."""
    shifted = f", minus {_numbers(mean)}" if np.any(mean != 0) else ""
    scaled = f", divided by {_numbers(std)}" if np.any(std != 1) else ""
    return f"gray levels from 0 to 1{shifted}{scaled}"


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _state(module: Any) -> Iterator[Any]:
    """Names and bytes of all that it has learned."""
    import torch

    for name, tensor in module.state_dict().items():
        yield name
        if torch.is_tensor(tensor):
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Within it, the module and its parts are in eval mode; behind it, as they were."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _to_numpy(tensor: Any) -> np.ndarray:
    """Channels first -> float32, channels last."""
    return np.ascontiguousarray(np.moveaxis(tensor.detach().float().cpu().numpy(), 1, -1))
