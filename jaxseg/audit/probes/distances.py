"""Distances: how far apart are the domains in every layer's activations? (Wilm et al. 2024.) Evidence, no findings."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import cells, hellinger
from jaxseg.audit import profiles
from jaxseg.audit.probe import Answer, Arrays, NotAskedError, Probe, plain
from jaxseg.audit.probes.accuracy import reference_domain
from jaxseg.audit.subject import Seen, Subject, evenly
from jaxseg.models.layers import mask_around
from jaxseg.networks import Network
from jaxseg.settings import count


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    profile_cases: int = count()
    grid_share: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """Hellinger distance of every other domain's activations from the reference's (Wilm et al. 2024, Eqs. 4 to 10).

    Returns:
      `names` `[D]`; `distance` `[D,L]` of every layer, mean over channels; `null` `[L]`, the mean distance of random
      halves of the reference domain.
    """
    reference = reference_domain(subject)
    if reference is None:
        raise NotAskedError("all cases are of one domain")
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; activations are pooled from pictures")
    cases = evenly(subject.test, settings.profile_cases)
    domains = np.array(cases.domains)
    if (domains == reference).sum() < 4:
        raise NotAskedError(f"{reference} has fewer than 4 cases, too few for two halves")
    profiles.check(subject)
    names = sorted(set(cases.domains) - {reference})
    grid = tuple(max(side // settings.grid_share, 1) for side in subject.sides)

    def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
        activations = network.activations(seen["images"], subject.layers)
        layers, count = [activations[name] for name in subject.layers], len(seen["images"])
        around: list[Any] = [None] * len(layers)
        if "valid" in seen:
            around = [mask_around(seen["valid"], array.shape[1:-1], subject.network.margin) for array in layers]
        pooled = [hellinger.pool_vectors(x, grid=grid, valid=valid) for x, valid in zip(layers, around, strict=True)]
        counted = [jnp.ones((count, *grid), bool) if valid is None else cells.counted(valid, grid) for valid in around]
        # channels are independent: all layers side by side are one program
        vectors = jnp.concatenate(pooled, -1).reshape(count, math.prod(grid), -1)
        return {"vectors": vectors, "counted": jnp.all(jnp.stack(counted), 0).reshape(count, -1)}

    answer = subject.asks(question)(cases)
    vectors, counted = answer["vectors"], answer["counted"]
    of = lambda name: jnp.asarray(vectors[domains == name][counted[domains == name]])
    channels = [np.asarray(hellinger.hellinger_distance(of(reference), of(name))) for name in names]
    halves = hellinger.split_half_null(
        jax.random.key(0),
        jnp.asarray(vectors[domains == reference]),
        splits=20,
        valid=None if counted.all() else jnp.asarray(counted[domains == reference]),
    )
    ends = np.cumsum(_widths(subject))
    layers = lambda values: np.stack([part.mean(-1) for part in np.split(np.asarray(values), ends[:-1], -1)], -1)
    return {"names": np.array(names), "distance": layers(np.stack(channels)), "null": layers(halves).mean(0)}


def _widths(subject: Subject) -> list[int]:
    """Channels of every layer."""
    shapes: Any = jax.eval_shape(lambda images: subject.network.activations(images, subject.layers), subject.image)
    return [shapes[name].shape[-1] for name in subject.layers]


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """A row per domain and layer, with the null of the layer."""
    reference = reference_domain(subject)
    n = min(len(subject.test), settings.profile_cases)
    convention = "Hellinger distance of pooled activations, 100 bins over the joint range, mean over channels"
    lines = {
        f"distance of {name} from {reference}": v for name, v in zip(arrays["names"], arrays["distance"], strict=True)
    }
    lines[f"between halves of {reference}"] = arrays["null"]
    rows = [
        plain(what, value, convention, where=layer, n=n)
        for what, values in lines.items()
        for layer, value in zip(subject.layers, values, strict=True)
    ]
    return profiles.answer(
        "distances",
        rows,
        "Distance of the domains, layer by layer",
        "Lines of the Hellinger distance by layer, one for each domain and one for halves of one domain.",
        "0: a layer's activations are distributed alike, 1: apart. What halves of one domain differ by is what nothing "
        "looks like. After Wilm et al. 2024.",
        ylabel="Hellinger distance",
        limits=(0.0, 1.0),
    )


PROBE = Probe("distances", "How far apart are the domains in its activations?", "layers", Settings, measure, tabulate)
