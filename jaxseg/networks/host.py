"""A network that computes on the host, outside JAX, inside compiled programs and their gradients."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError
from jaxseg.networks import answers
from jaxseg.networks.base import Form, Formed, Network
from jaxseg.networks.host_call import host_call

Arrays = dict[str, np.ndarray]
Answer = tuple[np.ndarray, Arrays]  # float32 [B,*n,channels], and layer -> float32 [B,*h,D]


class Host(Protocol):
    """What computes on the host; all arrays are float32, channels last."""

    @property
    def name(self) -> str:
        """Of the network, for messages."""

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits."""

    @property
    def takes_activations(self) -> bool:
        """Whether activations can be given in place of its own."""

    def repadded(self, padding: str) -> "Host | None":
        """The same with other padding around its feature maps; None where it cannot be changed.

        Args:
          padding: as of `Network.repadded`.
        """

    def forward(self, images: np.ndarray, given: Arrays, layers: Sequence[str]) -> Answer:
        """The answer `[B,*n,channels]` to images `[B,*n,C]`, and the activations of layers.

        Args:
          images: `[B,*n,C]`.
          given: layer -> activations in place of its own.
          layers: whose activations are returned.
        """

    def backward(self, images: np.ndarray, given: Arrays, slopes: Answer) -> Answer:
        """Gradients with respect to images and given activations.

        Args:
          images: `[B,*n,C]`.
          given: layer -> activations in place of its own.
          slopes: of what `forward` returned.
        """


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class HostNetwork(Formed):
    """A network on the host. A call of a compiled program waits for it; `vmap` makes larger batches.

    Attributes:
      host: what computes.
      form: what a trial told of it.
      reading: how its answers are read.
      batch_size: images at once on the host; None: as many as come.
    """

    host: Host
    form: Form
    reading: answers.Reading
    batch_size: int | None = None

    @property
    def fingerprint(self) -> str:
        return self.host.fingerprint

    def captured(self, images: jax.Array, layers: Sequence[str]) -> tuple[jax.Array, dict[str, jax.Array]]:
        self.check(images, layers)
        answer, activations = self._called(images, {}, tuple(dict.fromkeys(layers)))
        return self.reading.logits(answer), activations

    def replaced(self, images: jax.Array, activations: Mapping[str, jax.Array]) -> jax.Array:
        self.check(images, activations=activations)
        if not self.host.takes_activations:
            raise InputError(f"{self.host.name} shows its activations and takes none; give a JAX function, or a module")
        given = {name: jnp.asarray(array, jnp.float32) for name, array in activations.items()}
        return self.reading.logits(self._called(images, given, ())[0])

    def repadded(self, padding: str) -> Network | None:
        host = self.host.repadded(padding)
        form = dataclasses.replace(self.form, padding=padding)
        return dataclasses.replace(self, host=host, form=form) if host else None

    def _called(self, images: jax.Array, given: dict[str, jax.Array], layers: tuple[str, ...]) -> Any:
        shapes = dict(self.form.shapes)
        of = lambda *shape: jax.ShapeDtypeStruct((len(images), *shape), jnp.float32)
        like = of(*self.sides, self.reading.channels), {name: of(*shapes[name]) for name in layers}

        @jax.custom_vjp
        def call(images: jax.Array, given: dict[str, jax.Array]) -> Any:
            forward = lambda images, given: self._in_batches(
                lambda images, given: self._checked(self.host.forward(images, given, layers)), images, given
            )
            return host_call(forward, like, images, given)

        def backward(saved: Any, slopes: Any) -> Any:
            if not self.differentiable:
                raise InputError(
                    f"{self.host.name} has no gradient; give a JAX function, or PyTorch that keeps its graph"
                )
            back = lambda images, given, slopes: self._in_batches(self.host.backward, images, given, slopes)
            like = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), saved)
            return host_call(back, like, *saved, slopes)

        call.defvjp(lambda images, given: (call(images, given), (images, given)), backward)
        return call(jnp.asarray(images, jnp.float32), given)

    def _in_batches(self, function: Any, images: Any, *further: Any) -> Any:
        """A function of batches, of any number of images and with further axes before them, as `vmap` adds."""
        before = np.shape(images)[: -len(self.sides) - 1]
        merged = lambda array: np.asarray(array).reshape(-1, *array.shape[len(before) :])
        flat = jax.tree.map(merged, (images, *further))
        step = self.batch_size or max(len(flat[0]), 1)
        part = lambda first: jax.tree.map(lambda array: array[first : first + step], flat)
        parts = [function(*part(first)) for first in range(0, len(flat[0]), step)]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays).reshape(*before, *arrays[0].shape[1:]), *parts)

    def _checked(self, answer: Answer) -> Answer:
        answers.check_numbers(answer[0], self.host.name)
        return answer


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Within it, what a network on the host refuses in a compiled program is the one sentence.

    Raises:
      InputError: in place of JAX's error, which has a traceback in its message.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        _, said, sentence = str(error).rpartition("InputError: ")
        if not said:
            raise
        raise InputError(sentence.strip().splitlines()[0]) from error
