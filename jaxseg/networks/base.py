"""What a network is to whoever evaluates, predicts and audits: images in, logits out, and activations by name.

A network is a pytree, and so an argument of compiled programs as arrays are. Variables of a linen network are its
leaves: networks of one shape share a program. Networks of other makes have no leaves, and each has programs of its own.

    program = jax.jit(lambda network, images: network.logits(images))
    program(network, images)
"""

import dataclasses
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from jaxseg.data.inputs import Inputs
from jaxseg.errors import InputError
from jaxseg.models.skeleton import Roles


class Network:
    """A segmentation network of any make. `jit` and `vmap` go through all its methods, and `grad` if `differentiable`.

    Images are float32 `[B,*n,C]`, gray levels 0 to 255 as -1 to 1, or whatever `inputs` makes of them; logits are
    float32 `[B,*n,K]` of a softmax, class 0 the background. Cases of a batch do not depend on each other.
    """

    @property
    def num_classes(self) -> int:
        """K, background included."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """C, of the images."""
        raise NotImplementedError

    @property
    def sides(self) -> tuple[int, ...]:
        """n, of the images that it sees: height and width, of volumes the depth before them."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers whose activations can be asked for, input to output."""
        raise NotImplementedError

    @property
    def roles(self) -> Roles:
        """Its layers by role, as far as they are known."""
        raise NotImplementedError

    @property
    def inputs(self) -> Inputs | None:
        """What becomes of a stored case before it is given one; None: gray levels, squashed to `sides`."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of its classes, the background first; empty where they are not known."""
        return ()

    @property
    def padding(self) -> str:
        """How feature maps are padded; empty where that is not known."""
        return ""

    @property
    def padding_seen(self) -> str:
        """Which layers are seen to be padded so, in words, where that may not be all; else empty."""
        return ""

    @property
    def normalisation(self) -> str:
        """What it makes of gray levels before its first layer, in words; empty where it takes images as they come."""
        return ""

    @property
    def margin(self) -> int:
        """Pixels of reflection that the network puts on every side of the image."""
        return 0

    @property
    def differentiable(self) -> bool:
        """Whether it has gradients."""
        raise NotImplementedError

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be made of its images and answers, a sentence each."""
        return ()

    @property
    def compiler_options(self) -> dict[str, str]:
        """What `jax.jit(..., compiler_options=...)` needs for a gradient through it."""
        return {}

    @property
    def fingerprint(self) -> str:
        """A checksum of the network, eight hexadecimal digits."""
        raise NotImplementedError

    def captured(self, images: jax.Array, layers: Sequence[str]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits and the activations of some layers, of one forward pass.

        Args:
          images: `[B,*n,C]`.
          layers: names from `layers`.

        Returns:
          Logits `[B,*n,K]`, and layer -> `[B,*h,D]`.

        Raises:
          ValueError: no such layer, or images that it does not take.
        """
        raise NotImplementedError

    def replaced(self, images: jax.Array, activations: Mapping[str, jax.Array]) -> jax.Array:
        """The logits `[B,*n,K]` of the network in which layers have other activations.

        Args:
          images: `[B,*n,C]`.
          activations: layer -> what it has instead, of the shape of its own.

        Raises:
          ValueError: no such layer, or another shape.
        """
        raise NotImplementedError

    def repadded(self, padding: str) -> "Network | None":
        """The same network with other padding around its feature maps; None where it cannot be changed from outside.

        Args:
          padding: reflect, replicate or circular.
        """
        return None

    def logits(self, images: jax.Array) -> jax.Array:
        """`[B,*n,K]` of images `[B,*n,C]`."""
        return self.captured(images, ())[0]

    def activations(self, images: jax.Array, layers: Sequence[str] | None = None) -> dict[str, jax.Array]:
        """Layer -> activations `[B,*h,D]` of images `[B,*n,C]`; of all layers, if none are named."""
        return self.captured(images, self.layers if layers is None else layers)[1]


class Wrapped(Network):
    """A network that is asked through another: what that one does not change is its own.

    Attributes:
      network: that is asked.
    """

    network: Network

    @property
    def num_classes(self) -> int:
        """That of the network."""
        return self.network.num_classes

    @property
    def channels(self) -> int:
        """That of the network."""
        return self.network.channels

    @property
    def sides(self) -> tuple[int, ...]:
        """That of the network."""
        return self.network.sides

    @property
    def layers(self) -> tuple[str, ...]:
        """That of the network."""
        return self.network.layers

    @property
    def roles(self) -> Roles:
        """That of the network."""
        return self.network.roles

    @property
    def inputs(self) -> Inputs | None:
        """That of the network."""
        return self.network.inputs

    @property
    def class_names(self) -> tuple[str, ...]:
        """That of the network."""
        return self.network.class_names

    @property
    def padding(self) -> str:
        """That of the network."""
        return self.network.padding

    @property
    def padding_seen(self) -> str:
        """That of the network."""
        return self.network.padding_seen

    @property
    def normalisation(self) -> str:
        """That of the network."""
        return self.network.normalisation

    @property
    def margin(self) -> int:
        """That of the network."""
        return self.network.margin

    @property
    def differentiable(self) -> bool:
        """That of the network."""
        return self.network.differentiable

    @property
    def notes(self) -> tuple[str, ...]:
        """That of the network."""
        return self.network.notes

    @property
    def compiler_options(self) -> dict[str, str]:
        """That of the network."""
        return self.network.compiler_options

    @property
    def fingerprint(self) -> str:
        """That of the network."""
        return self.network.fingerprint


@dataclasses.dataclass(frozen=True)
class Form:
    """What is known of a network that is no linen module; attributes as `Network` has them.

    Attributes:
      num_classes: K.
      channels: C.
      sides: n.
      shapes: layer -> shape of its activation of one image, `(*h, D)`, input to output.
      roles: its layers by role.
      differentiable: whether it has gradients.
      notes: what had to be made of its images and answers.
      padding: around its feature maps.
      padding_seen: of which layers.
      normalisation: what it makes of gray levels.
    """

    num_classes: int
    channels: int
    sides: tuple[int, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    roles: Roles
    differentiable: bool
    notes: tuple[str, ...] = ()
    padding: str = ""
    padding_seen: str = ""
    normalisation: str = ""


class Formed(Network):
    """A network whose `form` is known from a trial."""

    form: Form

    @property
    def num_classes(self) -> int:
        return self.form.num_classes

    @property
    def channels(self) -> int:
        return self.form.channels

    @property
    def sides(self) -> tuple[int, ...]:
        return self.form.sides

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.form.shapes)

    @property
    def roles(self) -> Roles:
        return self.form.roles

    @property
    def differentiable(self) -> bool:
        return self.form.differentiable

    @property
    def notes(self) -> tuple[str, ...]:
        return self.form.notes

    @property
    def padding(self) -> str:
        return self.form.padding

    @property
    def padding_seen(self) -> str:
        """That of the form."""
        return self.form.padding_seen

    @property
    def normalisation(self) -> str:
        """That of the form."""
        return self.form.normalisation

    def check(
        self, images: jax.Array, layers: Sequence[str] = (), *, activations: Mapping[str, jax.Array] | None = None
    ) -> None:
        """Raises ValueError for images, layers or activations that are not this network's.

        Args:
          images: `[B,*n,C]`.
          layers: that are asked for.
          activations: layer -> array, that are given.
        """
        wanted = (*self.sides, self.channels)
        if images.shape[1:] != wanted:
            raise ValueError(f"images are {images.shape}, and the network takes [B,{','.join(map(str, wanted))}]")
        if isinstance(layers, str):
            raise ValueError(f"layers is the string {layers!r}; give a sequence of names")
        shapes, given = dict(self.form.shapes), activations or {}
        if unknown := [name for name in (*layers, *given) if name not in shapes]:
            raise ValueError(f"no layer {', '.join(unknown)}; the network has {', '.join(shapes) or 'none'}")
        for name, array in given.items():
            if array.shape != (len(images), *shapes[name]):
                raise ValueError(f"{name} was given {array.shape}; its activation is {(len(images), *shapes[name])}")


def check_sides(image_size: int | Sequence[int]) -> tuple[int, ...]:
    """The sides of the images, of which one number means squares.

    Raises:
      InputError: not two or three sizes above 0.
    """
    sides: Any = image_size
    if isinstance(image_size, numbers.Integral):
        sides = (image_size, image_size)
    whole = isinstance(sides, Sequence) and all(isinstance(side, numbers.Integral) for side in sides)
    if not whole or len(sides) not in (2, 3) or min(sides) < 1:
        raise InputError(
            f"image_size is {image_size!r}; give the side of squares, or (height, width), after the depth, in whole "
            "pixels"
        )
    return tuple(map(int, sides))


def check_batch_size(batch_size: int | None) -> None:
    """Raises InputError unless it is a number of images at once, or None for as many as come."""
    whole = isinstance(batch_size, numbers.Integral) and not isinstance(batch_size, bool)
    if batch_size is not None and (not whole or batch_size < 1):
        raise InputError(f"batch_size is {batch_size!r}; give how many images at once, at least 1, or None for all")


def roles_around(layers: Sequence[str], bottleneck: str | None, convolutions: Iterable[str]) -> Roles:
    """Roles by the order of layers: those before the bottleneck are the encoder's, those after it the decoder's.

    Raises:
      InputError: the bottleneck is none of the layers.
    """
    if bottleneck is None:
        return Roles(None, (), (), tuple(convolutions))
    if bottleneck not in layers:
        raise InputError(
            f"bottleneck is {bottleneck!r}; choose one of the layers: {', '.join(layers) or 'it has none'}"
        )
    place = layers.index(bottleneck)
    return Roles(bottleneck, tuple(layers[:place]), tuple(layers[place + 1 :]), tuple(convolutions))
