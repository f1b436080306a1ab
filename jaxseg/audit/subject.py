"""What is audited, a network with the cases it is asked about, and the way in which every probe asks."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.audit.asking import Asked, Make, Question, Seen
from jaxseg.data import augment, grids, inputs, pipeline, windows
from jaxseg.data.raw_cases import size_text
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.models import pretrained, tracing
from jaxseg.models.layers import over_image
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.networks import Network, of_linen
from jaxseg.networks.linen import LinenNetwork
from jaxseg.prediction.network import Run
from jaxseg.results.patients import Patients
from jaxseg.training import checks, runs, sliding

Cases = pipeline.InMemory | pipeline.Listed
_BATCH = 8  # cases at once, of a network that has no config


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network and the cases it is asked about.

    Attributes:
      network: of whatever make.
      view: what it sees of a case, original or quadrant.
      batch_size: cases at once.
      test: the cases that are asked about.
      familiar: cases that are like those it was trained on, for scores that need them; None where there are none.
      domains: the domains it was trained on; none where that is unknown, or all.
      name: of the network, in words.
      resized: pixels a side to which cases are squashed on the device; None: they come as the network sees them.
      tiling: the window that slides over images, where the network is one for patches; None: it takes them whole.
      notes: what a reader has to know of how the cases are seen.
      given: what became of the stored cases before they are seen; None where that is not known.
      config: of the network's run; empty where there is none.
    """

    network: Network
    view: str
    batch_size: int
    test: pipeline.InMemory
    familiar: pipeline.InMemory | None = None
    domains: tuple[str, ...] = ()
    name: str = "the network"
    resized: int | None = None
    tiling: windows.Tiling | None = None
    notes: tuple[str, ...] = ()
    given: inputs.Inputs | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def rank(self) -> int:
        """2, or 3 for volumes."""
        return self.test.labels.ndim - 1

    def patients(self, resamples: int) -> Patients:
        """Of the test cases, for estimates over them."""
        return Patients(np.array(self.test.patients), resamples)

    @property
    def sides(self) -> tuple[int, ...]:
        """Spatial sizes of the images that are seen."""
        return _sides(self.test, self.resized)

    @property
    def shorter(self) -> int:
        """The shorter side of an image, of which widths near the border are a share."""
        return min(self.sides)

    @functools.cached_property
    def image(self) -> Any:
        """Shape and type of an image as it is seen."""
        return jax.ShapeDtypeStruct((1, *self.sides, self.test.num_channels), jnp.float32)

    def view_of(self, cases: pipeline.InMemory) -> Callable[[Mapping[str, Any]], dict[str, jax.Array]]:
        """`stored batch of these cases -> {"images", "labels"}`, and `"valid"` where not all pixels count."""
        return augment.testing_view(self.view, size=self.resized, cases=cases.cases)

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """The convolutional layers, input to output; of a network that does not say which, all layers."""
        return self.network.roles.convolutions or self.network.layers

    @property
    def bottleneck(self) -> str | None:
        """The layer between encoder and decoder, where the network says which it is."""
        return self.network.roles.bottleneck

    @property
    def fingerprint(self) -> dict[str, str]:
        """Checksums of the network and of the cases."""
        return {"network": self.network.fingerprint, "test": self.test.fingerprint}

    @property
    def made_with(self) -> dict[str, Any]:
        """What the numbers depend on beside the cases, for the foot of a page."""
        given = {}
        if self.given is not None:
            given = {"geometry": _words(self.given.grid), "normalisation": _words(self.given.normalisation)}
        seen = {"size": f"{size_text(self.sides)} px", "view": self.view, **given}
        return seen | {"checksums": self.fingerprint} | ({"config": self.config} if self.config else {})

    def dice(self) -> np.ndarray:
        """Of every test case and foreground class, `[N,K-1]`."""

        def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
            both, classes = (seen["labels"], self.predict(network, seen["images"])), self.test.num_classes
            return {"dice": overlap.dice(*both, num_classes=classes, valid=seen.get("valid"))}

        return self.asks(question)(self.test)["dice"]

    def asks(self, question: Question, *, batch_size: int | None = None, make: Make | None = None) -> Asked:
        """A question as one compiled program.

        Args:
          question: `(network, seen) -> {name: [B,...]}`; seen is the network's view of the cases. What it answers as
            `pictures`, `{name: [B,...]}`, is kept of the few cases alone for which it is asked for.
          batch_size: cases at once; by default the subject's.
          make: other images and masks of a case, see `asking.Make`; made while cases are read.

        Returns:
          `cases -> {name: [N,...]}` in the order of the cases, with `pictures(cases, chosen)`.
        """
        return Asked(self.network, question, self.view, self.resized, batch_size or self.batch_size, make)

    def features(self, network: Network, seen: Seen) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits, and the layers' activations over the image, without the margin that padding `valid` has.

        Images go through the network whole, also where it is one for patches.
        """
        logits, activations = network.captured(seen["images"], self.layers)
        sizes = seen["labels"].shape[1:]
        return logits, {name: over_image(activations[name].astype(jnp.float32), sizes) for name in self.layers}

    def predict(self, network: Network, images: jax.Array) -> jax.Array:
        """Class numbers int32 `[B,*n]`, of the subject's network as a program is given it."""
        # of one network's logits, as a softmax may round two of them to one
        scores = self.probabilities(network, images) if self.tiling else network.logits(images)
        return jnp.argmax(scores, -1).astype(jnp.int32)

    def probabilities(self, network: Network, images: jax.Array) -> jax.Array:
        """Class probabilities float32 `[B,*n,K]`."""
        of_tiles = lambda tiles: jax.nn.softmax(network.logits(tiles).astype(jnp.float32))
        return sliding.probabilities(of_tiles, images, self.tiling) if self.tiling else of_tiles(images)


def of_run(run: Run, test: Cases, familiar: Cases | None) -> Subject:
    """The network of a run, with cases that it takes (`training.contract`).

    Raises:
      InputError: the run is one of replicas.
    """
    if len(run.members) > 1:
        raise InputError(f"{run.folder}: holds replicas; audit one network, as {run.folder / 'replica_0'}")
    load = lambda shape: of_linen(run.model, run.members[0], image_size=shape[1:-1], channels=shape[-1])
    return _of_config(run.config, run.model, load, test, familiar, name=str(run.folder))


def of_weights(path: pathlib.Path, config: ml_collections.ConfigDict, test: Cases, familiar: Cases | None) -> Subject:
    """The network that `config.model` describes with PyTorch tensors.

    Args:
      path: file with the tensors.
      config: of a run, such as configs/train.py gives; its network, view, geometry and sizes are used.
      test: cases.
      familiar: cases like those that the network was trained on.

    Raises:
      InputError: the tensors do not fit the network, or its image size does not.
    """
    model = checks.build_model(config, test.num_classes)

    def load(shape: tuple[int, ...]) -> Network:
        try:
            tracing.variable_shapes(model, shape)
        except ValueError as error:
            raise InputError(f"config.data.image_size with config.model: {error}") from error
        variables = pretrained.load_whole(model, str(path), shape)
        return of_linen(model, variables, image_size=shape[1:-1], channels=shape[-1])

    return _of_config(config, model, load, test, familiar, name=str(path))


def of_network(network: Network, test: Cases, familiar: Cases | None, *, name: str) -> Subject:
    """A network of any make, with cases that `given_to` made for it."""
    model = network.model if isinstance(network, LinenNetwork) else None
    given = given_to(network)
    return _subject(lambda shape: network, given, test, familiar, model=model, batch_size=_BATCH, name=name)


def given_to(network: Network) -> inputs.Inputs:
    """What becomes of a stored case before a network is given it: by default gray levels, squashed to its size."""
    return network.inputs or inputs.gray_levels(network.sides)


def check(network: Network, split: pipeline.Split) -> None:
    """Raises InputError where a network cannot be asked about the cases of a split."""
    rank, kind = len(network.sides), {2: "pictures", 3: "volumes"}
    if rank != split.rank:
        raise InputError(f"{split.name}: holds {kind[split.rank]}, and the network takes {kind[rank]}")
    if network.channels != split.num_channels:
        raise InputError(f"{split.name}: has {split.num_channels} channels, and the network takes {network.channels}")
    if network.num_classes != split.num_classes:
        raise InputError(
            f"{split.name}: has {split.num_classes} classes, {', '.join(split.class_names)}, and the network tells "
            f"{network.num_classes} apart"
        )
    names = network.class_names
    if names != split.class_names and sorted(names) == sorted(split.class_names):
        raise InputError(
            f"{split.name}: has the classes {', '.join(split.class_names)}, and the network {', '.join(names)}; name "
            "them in this order in the classes.csv of its folder, and prepare it anew"
        )


def _of_config(
    config: ml_collections.ConfigDict,
    model: UNetSkeleton,
    load: Callable[[tuple[int, ...]], Network],
    test: Cases,
    familiar: Cases | None,
    *,
    name: str,
) -> Subject:
    """A network as the config of its run has it."""
    made = _subject(
        load,
        inputs.of_config(config),
        test,
        familiar,
        model=model,
        batch_size=config.training.batch_size,
        name=name,
        resized=inputs.resized_to(config),
    )
    told = json.loads(config.to_json())
    return dataclasses.replace(made, view=config.data.view, domains=tuple(config.data.domains), config=told)


def _subject(
    load: Callable[[tuple[int, ...]], Network],
    given: inputs.Inputs,
    test: Cases,
    familiar: Cases | None,
    *,
    model: nn.Module | None,
    batch_size: int,
    name: str,
    resized: int | None = None,
) -> Subject:
    """A network that `load` gives for the shape of what it is asked of."""
    tiling, notes, rank = None, [], test[0]["labels"].ndim
    if isinstance(given.grid, grids.Patches):
        tile = given.grid.example(rank)
        tiling = windows.Tiling(tile, given.grid.overlap, "gaussian", max(batch_size, sliding.TILES))
        notes.append(_of_patches(tiling))
    unit = math.lcm(*model.units(rank)) if isinstance(model, UNetSkeleton) else 1
    of_test, of_familiar = _on_one_grid(test, familiar, unit=unit, fill=given.normalisation.fill)
    if (smaller := _smaller(of_test)) and of_test is not test:
        notes.append(_of_grid(of_test, smaller))
    sides = _sides(of_test, resized)
    if tiling:  # as many pixels as a batch of patches has
        batch_size = max(batch_size * math.prod(tiling.sides(len(sides))) // math.prod(sides), 1)
    network = load((1, *sides, of_test.num_channels))
    return Subject(
        network=network,
        resized=resized,
        view="original",
        batch_size=batch_size,
        test=of_test,
        familiar=of_familiar,
        name=name,
        tiling=tiling,
        notes=(*network.notes, *notes),
        given=given,
    )


def _words(choice: Any) -> str:
    """A geometry or a normalisation with those of its options that are not empty."""
    options = {field.name: getattr(choice, field.name) for field in dataclasses.fields(choice) if field.init}
    told = (f"{name} {value}" for name, value in options.items() if value is not False and value != ())
    return ", ".join([type(choice).__name__, *told])


def _sides(cases: pipeline.InMemory, resized: int | None) -> tuple[int, ...]:
    sides = cases.labels.shape[1:]
    return sides if resized is None else (resized,) * len(sides)


def _on_one_grid(
    test: Cases, familiar: Cases | None, *, unit: int, fill: float
) -> tuple[pipeline.InMemory, pipeline.InMemory | None]:
    """Cases as arrays; where they come in several sizes, on a grid that the network takes."""
    if isinstance(test, pipeline.InMemory):
        assert not isinstance(familiar, pipeline.Listed)
        return test, familiar
    assert not isinstance(familiar, pipeline.InMemory)
    made = pipeline.on_one_grid([test] if familiar is None else [test, familiar], unit=unit, fill=fill)
    return made[0], made[1] if len(made) > 1 else None


def _of_patches(tiling: windows.Tiling) -> str:
    assert not isinstance(tiling.size, int)
    return (
        f"The network is one for patches: a window of {size_text(tiling.size)} px slides over a case, and the next one "
        f"repeats {tiling.overlap:.0%} of it; segmentations are those. Layers, and scores that predict failures, are "
        "asked of whole cases at once."
    )


def _smaller(cases: pipeline.InMemory) -> int:
    """How many cases do not fill their grid."""
    if cases.insides is None:
        return 0
    return int(np.count_nonzero((np.ptp(cases.insides, axis=1) < cases.labels.shape[1:]).any(-1)))


def _of_grid(cases: pipeline.InMemory, smaller: int) -> str:
    grid = size_text(cases.labels.shape[1:])
    return (
        f"Cases come in several sizes, and are asked about in the middle of one grid of {grid} px; {smaller} of "
        f"{len(cases)} test cases do not fill it. What is around a case counts nowhere, but the network sees it: the "
        "Dice may be another than that of launch.evaluate, where every case has a grid of its own. The border is that "
        "of windows of this grid."
    )


def strip_width(subject: Subject, border_share: float) -> int:
    """Pixels of the network's image that count as near the border."""
    return max(round(border_share * subject.shorter), 2)


def evenly(cases: pipeline.InMemory, count: int) -> pipeline.InMemory:
    """At most so many of the cases, evenly over them."""
    return cases if len(cases) <= count else cases.take(_spread(len(cases), count))


def read_cases(splits: runs.Splits, split: str, count: int) -> Cases:
    """At most so many cases of a split, evenly over it; no other is decoded."""
    source = splits.open(split)
    chosen = _spread(len(source), min(len(source), count)).tolist()
    read = pipeline.listed if source.sides is None else pipeline.in_memory
    return read(source, chosen=chosen, pictured=True)


def _spread(length: int, count: int) -> np.ndarray:
    return np.linspace(0, length - 1, count).round().astype(int)
