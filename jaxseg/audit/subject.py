"""What is audited, a network with the cases it is asked about, and the way in which every probe asks."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit.asking import Asked, Cases, Make, Question, Seen
from jaxseg.audit.progress import Progress
from jaxseg.data import augment, grids, inputs, pipeline, windows
from jaxseg.data.raw_cases import size_text
from jaxseg.metrics import overlap
from jaxseg.models.layers import over_image
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.networks import Network
from jaxseg.networks.linen import LinenNetwork
from jaxseg.networks.transposed import Transposed
from jaxseg.results.patients import Patients
from jaxseg.training import runs, sliding
from jaxseg.training.trained import Trained

_HELD = 2**27  # bytes of decoded cases; more than that are decoded anew for every question


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
      ensemble: networks that the audited one is one of, whose disagreement may tell failures.
      progress: of what is asked.
    """

    network: Network
    view: str
    batch_size: int
    test: Cases
    familiar: Cases | None = None
    domains: tuple[str, ...] = ()
    name: str = "the network"
    resized: int | None = None
    tiling: windows.Tiling | None = None
    notes: tuple[str, ...] = ()
    given: inputs.Inputs | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ensemble: tuple[Network, ...] = ()
    progress: Progress = dataclasses.field(default_factory=Progress)

    @property
    def rank(self) -> int:
        """2, or 3 for volumes."""
        return len(self.test.sides)

    def patients(self, resamples: int) -> Patients:
        """Of the test cases, for estimates over them."""
        return Patients(np.array(self.test.patients), resamples)

    @property
    def sides(self) -> tuple[int, ...]:
        """Spatial sizes of the images that are seen."""
        return _sides(self.test, self.resized)

    @property
    def shorter(self) -> int:
        """The shorter side of an image, of which widths near the border are a share; of volumes, of the longest two."""
        return sorted(self.sides)[-2]

    @functools.cached_property
    def image(self) -> Any:
        """Shape and type of an image as it is seen."""
        return jax.ShapeDtypeStruct((1, *self.sides, self.test.num_channels), jnp.float32)

    def view_of(self, cases: Cases) -> Callable[[Mapping[str, Any]], dict[str, jax.Array]]:
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
        others = {f"member_{i}": one.fingerprint for i, one in enumerate(self.ensemble) if i}
        return {"network": self.network.fingerprint, **others, "test": self.test.fingerprint}

    @property
    def made_with(self) -> dict[str, Any]:
        """What the numbers depend on beside the cases, for the foot of a page."""
        given = {}
        if self.given is not None:
            normalisation = [_words(self.given.normalisation), *filter(None, [self.network.normalisation])]
            given = {
                "geometry": _words(self.given.grid),
                "normalisation": ", which the network is given as ".join(normalisation),
            }
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
          `cases -> {name: [N,...]}` in the order of the cases, with `pictures(cases, chosen)`; see there.
        """
        size = batch_size or self.batch_size
        return Asked(self.network, question, self.view, self.resized, size, make, self.progress)

    def batches(self, cases: Cases) -> Iterator[pipeline.Batch]:
        """Stored batches of cases, as `pipeline.epoch` gives them, with a bar."""
        return self.progress.batches(cases, batch_size=self.batch_size)

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


def of_trained(trained: Trained, test: Cases, familiar: Cases | None) -> Subject:
    """A trained network, with cases that it takes (`training.contract`) as they are given to it.

    Of replicas it is the first, and all are the ensemble of its scores.
    """
    network, given, batch_size = trained.members[0], trained.given, trained.batch_size
    tiling, notes, rank = None, [], len(test.sides)
    if isinstance(given.grid, grids.Patches):
        tile = given.grid.example(rank)
        tiling = windows.Tiling(tile, given.grid.overlap, "gaussian", max(batch_size, sliding.TILES))
        notes.append(_of_patches(tiling))
    inner = network.network if isinstance(network, Transposed) else network
    model = inner.model if isinstance(inner, LinenNetwork) else None
    unit = math.lcm(*model.units(rank)) if isinstance(model, UNetSkeleton) else 1
    of_test, of_familiar = _on_one_grid(test, familiar, unit=unit, fill=given.normalisation.fill)
    if isinstance(of_test, pipeline.Streamed) and of_test.smaller:
        notes.append(_of_grid(of_test))
    if tiling:  # as many pixels as a batch of patches has
        sides = _sides(of_test, trained.resized)
        batch_size = max(batch_size * math.prod(tiling.sides(len(sides))) // math.prod(sides), 1)
    several = trained.members if len(trained.members) > 1 else ()
    if several:
        notes.append(_of_replicas(len(several)))
    of_config: dict[str, Any] = {}
    if trained.config is not None:
        data = trained.config.data
        of_config = {"view": data.view, "domains": tuple(data.domains), "config": json.loads(trained.config.to_json())}
    return Subject(
        network=network,
        resized=trained.resized,
        batch_size=batch_size,
        test=_held(of_test),
        familiar=of_familiar and _held(of_familiar),
        name=trained.name,
        tiling=tiling,
        notes=(*network.notes, *notes),
        given=given,
        ensemble=several,
        **{"view": "original"} | of_config,
    )


def _of_replicas(count: int) -> str:
    return (
        f"The run has {count} replicas: the first is audited, and the disagreement of all is among the scores that "
        "predict failures."
    )


def _words(choice: Any) -> str:
    """A geometry or a normalisation with those of its options that are not empty."""
    if isinstance(choice, tuple) and choice and dataclasses.is_dataclass(choice[0]):  # of several channels
        return f"({'; '.join(map(_words, choice))})"
    if not dataclasses.is_dataclass(choice):
        return f"{choice}"
    options = {field.name: getattr(choice, field.name) for field in dataclasses.fields(choice) if field.init}
    told = (f"{name} {_words(value)}" for name, value in options.items() if value is not False and value != ())
    return ", ".join([type(choice).__name__, *told])


def _sides(cases: Cases, resized: int | None) -> tuple[int, ...]:
    return cases.sides if resized is None else (resized,) * len(cases.sides)


def _on_one_grid(test: Cases, familiar: Cases | None, *, unit: int, fill: float) -> tuple[Cases, Cases | None]:
    """Where cases come in several sizes, on a grid that the network takes."""
    several = [cases for cases in (test, familiar) if isinstance(cases, pipeline.Streamed) and cases.placements]
    if not several:
        return test, familiar
    made = pipeline.on_one_grid(several, unit=unit, fill=fill)
    return made[0], made[1] if len(made) > 1 else None


def _held(cases: Cases) -> Cases:
    """In memory, if they are few."""
    return cases if isinstance(cases, pipeline.Streamed) and cases.num_bytes > _HELD else cases.held()


def _of_patches(tiling: windows.Tiling) -> str:
    assert not isinstance(tiling.size, int)
    return (
        f"The network is one for patches: a window of {size_text(tiling.size)} px slides over a case, and the next one "
        f"repeats {tiling.overlap:.0%} of it; segmentations are those. Layers, and scores that predict failures, are "
        "asked of whole cases at once."
    )


def _of_grid(cases: pipeline.Streamed) -> str:
    return (
        f"Cases come in several sizes, and are asked about in the middle of one grid of {size_text(cases.sides)} px; "
        f"{cases.smaller} of {len(cases)} test cases do not fill it. What is around a case counts nowhere, but the "
        "network sees it: the Dice may be another than that of launch.evaluate, where every case has a grid of its "
        "own. The border is that of windows of this grid."
    )


def strip_width(subject: Subject, border_share: float) -> int:
    """Pixels of the network's image that count as near the border."""
    return max(round(border_share * subject.shorter), 2)


def evenly(cases: Cases, count: int) -> Cases:
    """At most so many of the cases, evenly over them."""
    return cases if len(cases) <= count else cases.take(_spread(len(cases), count))


def read_cases(splits: runs.Splits, split: str, count: int) -> pipeline.Streamed:
    """At most so many cases of a split, evenly over it."""
    source = splits.open(split)
    return pipeline.streamed(source, _spread(len(source), min(len(source), count)).tolist())


def _spread(length: int, count: int) -> np.ndarray:
    return np.linspace(0, length - 1, count).round().astype(int)
