"""How probes ask: a question as one compiled program, of all cases for numbers and of a few for their pictures."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit.progress import Progress
from jaxseg.data import augment, pipeline
from jaxseg.networks import Network

Cases = pipeline.InMemory | pipeline.Streamed
# images float32 [B,*n,C], labels int32 [B,*n], index int32 [B]; valid bool [B,*n] where not all pixels count, and scale
# float32 [B,4,C] where gray levels are not -1 to 1; and what was made of the cases, see `Make`
Seen = Mapping[str, jax.Array]
Question = Callable[[Network, Seen], dict[str, Any]]  # arrays [B,...], and "pictures": {name: [B,...]}
# of a case and its place: "images" [V,*S,C] like its own, seen as "made" float32 [B,V,*n,C]; "masks" bool [M,*S], seen
# as float32 [B,M,*n], the share of a pixel that is covered; whatever else, seen as it is, [B,...]
Make = Callable[[pipeline.Case, int], Mapping[str, np.ndarray]]
_GIVEN = ("image", "labels", "valid", "scale")


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """A question to a network, see `Subject.asks`.

    Numbers are answered of all cases. Pictures, which would fill the memory, are answered by the same program of the
    few cases that are shown.
    """

    network: Network
    question: Question
    view: str
    size: int | None
    batch_size: int
    make: Make | None
    progress: Progress

    def __call__(self, cases: Cases) -> dict[str, np.ndarray]:
        """The numbers of all cases, `{name: [N,...]}` in their order; they may be any with the test cases' classes."""
        numbers = lambda answer: {name: values for name, values in answer.items() if name != "pictures"}
        return self._over(cases, range(len(cases)), numbers)

    def pictures(self, cases: Cases, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The pictures of the cases at the places `chosen`, `{name: [E,...]}` in their order."""
        places = chosen.tolist() or [0]  # of none, the first case tells their shapes
        found = self._over(cases, places, lambda answer: answer["pictures"])
        return {name: values[: len(chosen)] for name, values in found.items()}

    def _over(
        self, cases: Cases, places: Sequence[int], part: Callable[[dict[str, Any]], dict[str, jax.Array]]
    ) -> dict[str, np.ndarray]:
        run = lambda batch: part(self._run(self.network, batch))
        given = _Given(cases, places, self.make)
        return self.progress.over_cases(run, given, batch_size=self.batch_size, names=None)

    @functools.cached_property
    def _run(self) -> Callable[[Network, Mapping[str, Any]], dict[str, Any]]:
        @jax.jit
        def run(network: Network, batch: Mapping[str, Any]) -> dict[str, Any]:
            return self.question(network, self._seen(dict(batch)))

        return run

    def _seen(self, batch: dict[str, Any]) -> Seen:
        """The network's view of a batch, and of what was made of its cases."""
        corner = batch.pop("corner")
        seen = self._viewed({name: batch.pop(name) for name in _GIVEN[:3] if name in batch}, corner)
        if "made" in batch:
            seen["made"] = self._several(batch.pop("made"), corner)
        if "masks" in batch:
            seen["masks"] = self._several(batch.pop("masks")[..., None].astype(jnp.float32), corner)[..., 0]
        del batch["real"]
        return seen | batch

    def _several(self, images: jax.Array, corner: jax.Array) -> jax.Array:
        """`[B,V,*S,C]` as the network sees images."""
        count, several = images.shape[:2]
        flat = images.reshape(-1, *images.shape[2:])
        labels = jnp.zeros(flat.shape[:-1], jnp.uint8)
        seen = self._viewed({"image": flat, "labels": labels}, jnp.repeat(corner, several))["images"]
        return seen.reshape(count, several, *seen.shape[1:])

    def _viewed(self, batch: Mapping[str, jax.Array], corner: jax.Array) -> dict[str, jax.Array]:
        if self.view == "original":
            return augment.whole(batch, size=self.size)
        return augment.quadrant(batch, corner, size=self.size)


@dataclasses.dataclass(frozen=True)
class _Given:
    """Some cases as a program is given them, with what is made of them; read by several threads."""

    cases: Cases
    places: Sequence[int]
    make: Make | None

    @property
    def name(self) -> str:
        return self.cases.name

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> pipeline.Case:
        place = self.places[index]
        case = self.cases[place]
        # the quadrant belongs to a case, not to its place among others
        known = {"index": np.int32(place), "corner": augment.case_corners([case["case"]])[0]}
        made = dict(self.make(case, place)) if self.make else {}
        if "images" in made:
            made["made"] = made.pop("images")
        return {name: case[name] for name in _GIVEN if name in case} | known | made
