"""What is audited, a network with the cases it is asked about, and the way in which every probe asks."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, pipeline
from jaxseg.errors import InputError
from jaxseg.models import capture, pretrained, tracing
from jaxseg.models.layers import over_image
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.prediction.network import Run
from jaxseg.results.patients import Patients
from jaxseg.training import checks, runs
from jaxseg.training.checkpoints import checksums

# images float32 [B,n,n,C], labels int32 [B,n,n], index int32 [B]; valid bool [B,n,n] where not all pixels count
Seen = Mapping[str, jax.Array]
Question = Callable[[Any, Seen], dict[str, jax.Array]]
Asked = Callable[[pipeline.InMemory], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network and the cases it is asked about.

    Attributes:
      model: `images -> logits`.
      variables: its variables.
      image_size: n, side of the images that it sees.
      view: what it sees of a case, original or quadrant.
      batch_size: cases at once.
      test: the cases that are asked about.
      familiar: cases that are like those it was trained on, for scores that need them; None where there are none.
      domains: the domains it was trained on; none where that is unknown, or all.
      name: of the network, in words.
    """

    model: nn.Module
    variables: Any
    image_size: int
    view: str
    batch_size: int
    test: pipeline.InMemory
    familiar: pipeline.InMemory | None = None
    domains: tuple[str, ...] = ()
    name: str = "the network"

    @property
    def rank(self) -> int:
        """2, or 3 for volumes."""
        return self.test.labels.ndim - 1

    def patients(self, resamples: int) -> Patients:
        """Of the test cases, for estimates over them."""
        return Patients(np.array(self.test.patients), resamples)

    @property
    def padding(self) -> str:
        """How the network pads its feature maps; empty where it does not say."""
        return getattr(self.model, "padding", "")

    @property
    def margin(self) -> int:
        """Pixels of reflection that the network puts on every side of the image."""
        return getattr(self.model, "margin", 0)

    @functools.cached_property
    def image(self) -> Any:
        """Shape and type of what the network takes."""
        sides = (self.image_size,) * self.rank
        return jax.ShapeDtypeStruct((1, *sides, self.test.num_channels), jnp.float32)

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """The convolutional layers, input to output; of a network that does not say which, all layers."""
        if isinstance(self.model, UNetSkeleton):
            return self.model.roles.convolutions
        return capture.layer_names(self.model, self.variables, self.image)

    @property
    def bottleneck(self) -> str | None:
        """The layer between encoder and decoder, where the network says which it is."""
        return self.model.roles.bottleneck if isinstance(self.model, UNetSkeleton) else None

    @property
    def fingerprint(self) -> dict[str, str]:
        """Checksums of the network and of the cases."""
        network = sum(checksums(self.variables).values()) % 2**32 if jax.tree.leaves(self.variables) else 0
        return {"network": f"{network:08x}", "test": self.test.fingerprint}

    def asks(self, question: Question, *, batch_size: int | None = None) -> Asked:
        """A question as one compiled program.

        Args:
          question: `(variables, seen) -> {name: [B,...]}`; seen is the network's view of the cases.
          batch_size: cases at once; by default the subject's.

        Returns:
          `cases -> {name: [N,...]}` in the order of the cases, which may be any with the test cases' classes.
        """

        @jax.jit
        def run(variables: Any, batch: Mapping[str, Any], corners: jax.Array) -> dict[str, jax.Array]:
            if self.view == "original":
                seen = augment.whole(batch, size=self.image_size)
            else:
                seen = augment.quadrant(batch, corners[batch["index"]], size=self.image_size)
            return question(variables, seen | {"index": batch["index"]})

        def asked(cases: pipeline.InMemory) -> dict[str, np.ndarray]:
            corners = augment.case_corners(cases.cases)  # belongs to a case, not to its place among others
            batches = pipeline.epoch(cases, batch_size=batch_size or self.batch_size)
            return inference.over_cases(lambda batch: run(self.variables, batch, corners), batches)

        return asked

    def features(self, variables: Any, seen: Seen) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits, and the layers' activations over the image, without the margin that padding `valid` has."""
        logits, activations = capture.capture(self.model, variables, seen["images"], self.layers)
        sizes = seen["labels"].shape[1:]
        return logits, {name: over_image(activations[name].astype(jnp.float32), sizes) for name in self.layers}

    def predict(self, variables: Any, images: jax.Array) -> jax.Array:
        """Class numbers int32 `[B,*n]`."""
        return jnp.argmax(self.logits(variables, images), -1).astype(jnp.int32)

    def logits(self, variables: Any, images: jax.Array) -> jax.Array:
        """`[B,*n,K]`."""
        answer: Any = self.model.apply(variables, images)
        return answer


def of_run(run: Run, test: pipeline.InMemory, familiar: pipeline.InMemory | None) -> Subject:
    """The network of a run, with cases that it takes (`training.contract`).

    Raises:
      InputError: the run is one of replicas.
    """
    if len(run.members) > 1:
        raise InputError(f"{run.folder}: holds replicas; audit one network, as {run.folder / 'replica_0'}")
    return _subject(run.config, run.model, run.members[0], test, familiar, str(run.folder))


def of_weights(
    path: pathlib.Path, config: ml_collections.ConfigDict, test: pipeline.InMemory, familiar: pipeline.InMemory | None
) -> Subject:
    """The network that `config.model` describes with PyTorch tensors.

    Args:
      path: file with the tensors.
      config: of a run, such as configs/train.py gives; its network, view and sizes are used.
      test: cases.
      familiar: cases like those that the network was trained on.

    Raises:
      InputError: the tensors do not fit the network, or its image size does not.
    """
    model = checks.build_model(config, test.num_classes)
    shape = (1, *(config.data.image_size,) * (test.labels.ndim - 1), test.num_channels)
    try:
        tracing.variable_shapes(model, shape)
    except ValueError as error:
        raise InputError(f"config.data.image_size with config.model: {error}") from error
    variables = pretrained.load_whole(model, str(path), shape)
    return _subject(config, model, variables, test, familiar, str(path))


def _subject(
    config: ml_collections.ConfigDict,
    model: UNetSkeleton,
    variables: Any,
    test: pipeline.InMemory,
    familiar: pipeline.InMemory | None,
    name: str,
) -> Subject:
    data = config.data
    return Subject(
        model=model,
        variables=variables,
        image_size=data.image_size,
        view=data.view,
        batch_size=config.training.batch_size,
        test=test,
        familiar=familiar,
        domains=tuple(data.domains),
        name=name,
    )


def counted(seen: Seen, place: jax.Array) -> jax.Array:
    """The part of a place, bool `[...,B,n,n]`, where pixels count."""
    if "valid" not in seen:
        return place
    return place & jnp.expand_dims(seen["valid"], range(place.ndim - seen["valid"].ndim))


def strip_width(subject: Subject, border_share: float) -> int:
    """Pixels of the network's image that count as near the border."""
    return max(round(border_share * subject.image_size), 2)


def evenly(cases: pipeline.InMemory, count: int) -> pipeline.InMemory:
    """At most so many of the cases, evenly over them."""
    return cases if len(cases) <= count else cases.take(_spread(len(cases), count))


def read_cases(splits: runs.Splits, split: str, count: int) -> pipeline.InMemory:
    """At most so many cases of a split, evenly over it; no other is decoded."""
    source = splits.open(split)
    return pipeline.in_memory(source, chosen=_spread(len(source), min(len(source), count)).tolist())


def _spread(length: int, count: int) -> np.ndarray:
    return np.linspace(0, length - 1, count).round().astype(int)
