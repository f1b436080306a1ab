"""A function of gray levels as a network: of NumPy and what it calls, on the host; of JAX, compiled with the rest."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import augment
from jaxseg.errors import InputError
from jaxseg.networks import answers, fingerprints, host, retraced
from jaxseg.networks.base import Form, Formed, Network, check_batch_size, check_sides, roles_around

Function = Callable[[Any], Any]


def from_function(
    function: Function,
    *,
    num_classes: int,
    image_size: int | Sequence[int],
    channels: int = 3,
    output: answers.Output | None = None,
    bottleneck: str | None = None,
    batch_size: int | None = None,
) -> Network:
    """A function as a network.

    It is tried on two images. If JAX can trace it (`jax.eval_shape`), it becomes part of compiled programs, its layers
    can be replaced where the answer is computed from what is returned for them, and it has gradients if it says the
    same of float32 as of uint8 gray levels; rounding to whole levels counts as the identity there. Otherwise it is
    called on the host (`host_call`), with NumPy's uint8 arrays: then it has no gradient, and takes no
    activations. Such a function must not use JAX inside, whose threads may be busy waiting for it.

    Args:
      function: uint8 `[B,*n,C]`, gray levels -> `[B,*n,K]`, logits or probabilities; or `[B,*n,1]`, a logit or a
        probability of the foreground; or a pair of that and layer -> activations `[B,*h,D]`, input to output. Cases of
        a batch must not depend on each other.
      num_classes: K, background included.
      image_size: side of its square images, `(height, width)`, or `(depth, height, width)`.
      channels: C.
      output: logits, probabilities or sigmoids (`answers.Reading`); None: as its answers to trial images look.
      bottleneck: the layer between encoder and decoder, if there is one.
      batch_size: images at once, on the host; None: as many as come.

    Raises:
      InputError: the function fails, or its answers cannot be the logits of K classes for such images.
    """
    sides = check_sides(image_size)
    check_batch_size(batch_size)
    name = f"the function {_name(function)}"
    trial = trial_levels(sides, channels)
    traced = _traceable(function, trial)
    try:
        given = jax.jit(function)(trial) if traced else function(trial)
    except Exception as error:  # whatever a function of someone else raises
        raise InputError(failed(name, trial, error)) from error
    answer, activations = _parts(given, name)
    _check_shapes(answer, activations, sides, len(trial), name)
    reading = answers.read(answer, num_classes, output, name)
    shapes = tuple((layer, array.shape[1:]) for layer, array in activations.items())
    roles = roles_around(tuple(activations), bottleneck, activations)
    smooth = traced and _takes_floats(function, trial, answer)
    takes = "gray levels from 0 to 255, of which the function makes its own"
    form = Form(num_classes, channels, sides, shapes, roles, smooth, reading.notes, normalisation=takes)
    fingerprint = fingerprints.checksum(sides, channels, reading, roles, fingerprints.told(answer))
    if traced:
        return FunctionNetwork(function, form, reading, name, fingerprint)
    return host.HostNetwork(_OnHost(function, name, fingerprint), form, reading, batch_size)


def _name(function: Function) -> str:
    """Of a function, also of one whose arguments are partly given."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def trial_levels(sides: Sequence[int], channels: int) -> np.ndarray:
    """Two images, uint8 `[2,*n,C]`: noise, and a ramp from black to white along the first axis."""
    shape = (*sides, channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ramp = np.linspace(0, 255, sides[0]).round().astype(np.uint8).reshape(-1, *(1,) * (len(shape) - 1))
    return np.stack([noise, np.broadcast_to(ramp, shape)])


def failed(name: str, images: np.ndarray, error: BaseException) -> str:
    """A sentence on what a function of someone else raised of these images."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return f"{name} failed on images {images.shape} of {images.dtype}: {kind}{last_line(error)}"


def last_line(error: BaseException) -> str:
    """The last line of an error's message, or its name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class FunctionNetwork(Formed):
    """A function that JAX can trace.

    Attributes:
      function: uint8 levels -> answer, or a pair with layers.
      form: what a trial told of it.
      reading: how its answers are read.
      name: of it, for messages.
      fingerprint_of_trial: checksum of how it is read and of its answers to the trial images.
    """

    function: Function
    form: Form
    reading: answers.Reading
    name: str
    fingerprint_of_trial: str

    @property
    def fingerprint(self) -> str:
        return self.fingerprint_of_trial

    def captured(self, images: jax.Array, layers: Sequence[str]) -> tuple[jax.Array, dict[str, jax.Array]]:
        self.check(images, layers)

        def asked(levels: jax.Array, given: dict[str, jax.Array]) -> Any:
            answer, activations = self._parts(levels)
            return jax.tree.map(_as_float, (answer, {name: activations[name] for name in layers}))

        answer, activations = self._of_images(asked)(images, {})
        return self.reading.logits(answer), activations

    def replaced(self, images: jax.Array, activations: Mapping[str, jax.Array]) -> jax.Array:
        self.check(images, activations=activations)

        def changed(levels: jax.Array, given: dict[str, jax.Array]) -> jax.Array:
            return _as_float(retraced.replaced(self._parts, levels, given, self.name))

        return self.reading.logits(self._of_images(changed)(images, dict(activations)))

    def _parts(self, levels: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        answer, activations = _pair(self.function(levels))
        return jnp.asarray(answer), {str(name): jnp.asarray(array) for name, array in activations.items()}

    def _of_images(self, of_levels: Callable[..., Any]) -> Callable[..., Any]:
        """A function of levels and activations as one of images: of whole levels forward, of any levels backward."""
        any_levels = lambda images, given: of_levels(_levels(images), given)

        @jax.custom_vjp
        def call(images: jax.Array, given: dict[str, jax.Array]) -> Any:
            return of_levels(augment.levels(images), given)

        def forward(images: jax.Array, given: dict[str, jax.Array]) -> Any:
            if not self.differentiable:
                raise InputError(
                    f"{self.name} has no gradient: it says something else of float32 gray levels, or nothing"
                )
            return jax.vjp(any_levels, images, given)

        call.defvjp(forward, lambda pull_back, slopes: pull_back(slopes))
        return call


def _as_float(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float32)


def _levels(images: jax.Array) -> jax.Array:
    """Whole gray levels as float32; rounding and clipping have the slope of the identity."""
    exact = (images + 1.0) * 127.5
    return _as_float(augment.levels(jax.lax.stop_gradient(images))) + (exact - jax.lax.stop_gradient(exact))


@dataclasses.dataclass(frozen=True, eq=False)
class _OnHost:
    """A function of NumPy arrays, as `host.Host`."""

    function: Function
    name: str
    fingerprint: str
    takes_activations: bool = False

    def forward(self, images: np.ndarray, given: host.Arrays, layers: Sequence[str]) -> host.Answer:
        levels = np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype(np.uint8)
        try:
            given_back = self.function(levels)
        except Exception as error:  # whatever a function of someone else raises
            raise InputError(failed(self.name, levels, error)) from error
        answer, activations = _parts(given_back, self.name)
        return np.asarray(answer, np.float32), {name: np.asarray(activations[name], np.float32) for name in layers}

    def backward(self, images: np.ndarray, given: host.Arrays, slopes: host.Answer) -> host.Answer:
        raise InputError(f"{self.name} has no gradient")

    def repadded(self, padding: str) -> None:
        return None


def _traceable(function: Function, trial: np.ndarray) -> bool:
    """Whether JAX can trace it; what goes wrong on the host too is said there."""
    try:
        jax.eval_shape(function, jax.ShapeDtypeStruct(trial.shape, trial.dtype))
    except Exception:  # whatever NumPy, or a function of someone else, makes of a tracer
        return False
    return True


def _takes_floats(function: Function, trial: np.ndarray, answer: np.ndarray) -> bool:
    """Whether it says the same of gray levels as float32, by which it has a gradient."""
    try:
        other = np.asarray(_parts(jax.jit(function)(trial.astype(np.float32)), "")[0], np.float32)
    except Exception:  # as above
        return False
    return other.shape == answer.shape and np.allclose(
        other, np.asarray(answer, np.float32), 1e-3, 1e-3, equal_nan=True
    )


def _parts(given: Any, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The answer and the layers, as NumPy's."""
    answer, layers = _pair(given)
    try:
        return np.asarray(answer), {str(layer): np.asarray(array) for layer, array in layers.items()}
    except Exception as error:  # of lists of unequal lengths, tensors on an accelerator
        raise InputError(f"{name} gave a {type(answer).__name__} that is no array: {last_line(error)}") from error


def _pair(given: Any) -> tuple[Any, Mapping[Any, Any]]:
    """Answer and layers, of which there need be none."""
    pair = isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[1], Mapping)
    return (given[0], given[1]) if pair else (given, {})


def _check_shapes(
    answer: np.ndarray, layers: Mapping[str, np.ndarray], sides: tuple[int, ...], count: int, name: str
) -> None:
    form = f"[{count},{','.join(map(str, sides))},K]"
    if answer.shape[:-1] != (count, *sides) or answer.dtype.kind not in "biuf":
        raise InputError(
            f"{name} gave {answer.shape} of {answer.dtype}; it must give numbers {form}, for a mask "
            "a last axis of 1, or a pair of that and a dict of layers"
        )
    for layer, array in layers.items():
        if array.ndim != len(sides) + 2 or len(array) != count or array.dtype.kind not in "biuf":
            raise InputError(
                f"{name} gave {array.shape} of {array.dtype} for the layer {layer}; activations are [B,*h,D]"
            )
