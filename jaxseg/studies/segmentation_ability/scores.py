"""What the segmentation-ability study asks of a network: one compiled program per question, streamed over batches.

The programs belong to the architecture: networks of one shape share them, and so do a data set's splits. Of all images
nothing is held but their scores. Masks are the network's soft probability of any foreground class, as in He et al.
2022, Eq. 6; the Dice of an output is that of the mask thresholded at 1/2.
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import inference
from jaxseg.analysis import prototypes
from jaxseg.data import augment, pipeline, shifts
from jaxseg.metrics import overlap, pixels
from jaxseg.models import capture
from jaxseg.models.skeleton import UNetSkeleton, compiler_options
from jaxseg.models.unet import UNet

Variables = Mapping[str, Any]
Batch = Mapping[str, Any]


def examine(
    model: UNet,
    variables: Variables,
    source: pipeline.Source,
    *,
    size: int,
    batch_size: int,
    keep: np.ndarray,
    means: np.ndarray,
) -> dict[str, np.ndarray]:
    """All scores of a network on the N cases of a source as they are.

    Args:
      model, variables: the network.
      source: N stored cases.
      size: n, of what the network sees.
      batch_size: B.
      keep: bool `[T,C]`, T choices of units of the last layer.
      means: `[C]` what the other units are taken to be.

    Returns:
      `sa` `[N,L]` of all layers, `units` `[N,C]` of the last one's units, `unit_means` `[N,C]` of their activations,
      `dice` `[N]`, `mean_sa` `[N]` (Eq. 12, against the own output), `separableness` `[N]` (section 4.7), `gain` `[N]`
      of the network over it, and `masked_dice` `[N,T]` with the units that are not kept at their means.
    """
    run = _examined(model, size)
    chosen = jnp.asarray(keep), jnp.asarray(means, jnp.float32)
    batches = pipeline.epoch(source, batch_size=batch_size)
    return inference.over_cases(lambda batch: run(variables, batch, *chosen), batches)


def _program(question: Callable[..., Any]) -> Callable[..., Callable[..., Any]]:
    """Network and image size -> the rest of a question's arguments -> its answer, compiled once."""

    @functools.cache
    def of(model: UNetSkeleton, size: int) -> Callable[..., Any]:
        return jax.jit(functools.partial(question, model, size), compiler_options=compiler_options(model))

    return of


@_program
def _examined(
    model: UNet, size: int, variables: Variables, batch: Batch, keep: jax.Array, means: jax.Array
) -> dict[str, jax.Array]:
    images, labels, valid = _seen(batch, size)
    mask, layers = _mask_and_layers(model, variables, images)
    last = layers[-1]
    return {
        "sa": _abilities(layers, mask, labels, valid),
        "units": prototypes.unit_sa_scores(last, mask, labels, region=valid),
        "unit_means": _unit_means(last, valid),
        "dice": _dice(labels, mask, valid),
        "mean_sa": prototypes.mean_sa_score(layers[-2:], mask, region=valid),
        "separableness": prototypes.sa_score(images, mask, labels, region=valid),
        "gain": prototypes.segmentation_gain(images, mask, labels, region=valid),
        "masked_dice": _masked_dice(variables, last, (labels, valid), keep, means),
    }


def noisy_abilities(
    model: UNet,
    variables: Variables,
    source: pipeline.Source,
    *,
    size: int,
    batch_size: int,
    levels: Sequence[float],
    seed: int,
) -> np.ndarray:
    """SA scores of all layers with noise in the image (section 4.8), `[N,V,L]` for V levels.

    The noise is on the pixels that the network sees; that of a case does not depend on the network.
    """
    run, of_levels, scales = _layer_abilities(model, size), [], getattr(source, "scales", None)

    def score(batch: Batch, *, spoil: Callable[..., Any], key: jax.Array) -> dict[str, jax.Array]:
        of_batch = None if scales is None else scales[batch["index"]]
        return {"sa": run(variables, *spoil(key, batch, of_batch))}

    for i, level in enumerate(levels):
        key = jax.random.fold_in(jax.random.key(seed), i)
        spoilt = functools.partial(score, spoil=_spoiler(size, level), key=key)
        of_levels.append(inference.over_cases(spoilt, pipeline.epoch(source, batch_size=batch_size))["sa"])
    return np.stack(of_levels, 1)


@functools.cache
def _spoiler(size: int, level: float) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array | None]]:
    """`(key, stored batch, scales) -> images, labels, valid`, a program of its own: networks are compiled once for all.

    Noise is a share of the range from black to white, so images that are no gray levels need their scales.
    """
    shifted = shifts.shift("uniform_noise", strength=level)

    def run(key: jax.Array, batch: Batch, scales: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        images, labels, valid = _seen(batch, size)
        spoilt = lambda gray: shifted(key, {"images": gray, "position": batch["index"]})["images"]
        if scales is None:
            return spoilt(images), labels, valid
        black, white, least, most = (jnp.expand_dims(scales[:, i], (1, 2)) for i in range(4))
        gray = jnp.clip(2 * (images - black) / (white - black) - 1, -1, 1)
        noisy = images + (spoilt(gray) - gray) * (white - black) / 2
        return jnp.clip(noisy, least, most), labels, valid

    return jax.jit(run)


@_program
def _layer_abilities(
    model: UNet, size: int, variables: Variables, images: jax.Array, labels: jax.Array, valid: jax.Array | None
) -> jax.Array:
    mask, layers = _mask_and_layers(model, variables, images)
    return _abilities(layers, mask, labels, valid)


def explain(model: UNet, variables: Variables, source: pipeline.Source, cases: Sequence[int], *, size: int) -> dict:
    """What the figures show of some cases.

    Returns:
      uint8 `seen` `[E,n,n,C]`; `annotation`, `output` and the map of the colours, `colour_map`, `[E,n,n]`; `maps`
      `[E,L,n,n]` of every layer; and `heat` float32 `[E,n,n]`, the share of the last layer's units whose map holds a
      pixel (Fig. 9).
    """
    chosen = [source[i] for i in cases]
    stored = [name for name in ("image", "labels", "valid", "scale") if name in chosen[0]]
    batch = {name: jnp.asarray(np.stack([case[name] for case in chosen])) for name in stored}
    return {name: np.asarray(value) for name, value in _explainer(model, size)(variables, batch).items()}


@functools.cache
def _explainer(model: UNet, size: int) -> Callable[..., dict[str, jax.Array]]:
    def run(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        images, labels, valid = _seen(batch, size)
        mask, layers = _mask_and_layers(model, variables, images)
        probability = lambda features: prototypes.object_probability(features, mask, region=valid)
        maps = [probability(features) > 0.5 for features in layers]
        return {
            "seen": augment.levels(images, scales=batch.get("scale")),
            "annotation": labels.astype(jnp.uint8),
            "output": (mask > 0.5).astype(jnp.uint8),
            "colour_map": (probability(images) > 0.5).astype(jnp.uint8),
            "maps": jnp.stack(maps, 1).astype(jnp.uint8),
            "heat": prototypes.unit_heat_map(layers[-1], mask, region=valid),
        }

    return jax.jit(run)


def output_dice(
    model: UNet, variables: Variables, source: pipeline.Source, *, size: int, batch_size: int
) -> np.ndarray:
    """Dice of a network's output alone, `[N]`."""
    run = functools.partial(_output_dice(model, size), variables)
    return inference.over_cases(run, pipeline.epoch(source, batch_size=batch_size))["dice"]


@_program
def _output_dice(model: UNetSkeleton, size: int, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
    images, labels, valid = _seen(batch, size)
    return {"dice": _dice(labels, _mask(model.apply(variables, images)), valid)}


def cost(
    networks: Sequence[tuple[UNetSkeleton, Variables]], shape: tuple[int, ...], *, rounds: int
) -> dict[str, np.ndarray]:
    """What a forward pass of each of the M networks costs.

    Args:
      networks: module and variables of each.
      shape: `[1,n,n,C]` of the image.
      rounds: in which the networks take turns, so that other load affects all.

    Returns:
      `parameters` int `[M]` that are trained; `flops` `[M]` of XLA's analysis of the program as written; `seconds`
      `[M]`, the median.
    """
    image = jnp.zeros(shape, jnp.float32)
    lowered = [jax.jit(model.apply).lower(variables, image) for model, variables in networks]
    analyses: list[Any] = [one.cost_analysis() for one in lowered]
    options: list[dict[str, Any]] = [dict(compiler_options(model)) for model, _ in networks]
    passes = [one.compile(chosen) for one, chosen in zip(lowered, options, strict=True)]
    seconds: list[list[float]] = [[] for _ in networks]
    for i in range(rounds + 1):
        for times, run, (_, variables) in zip(seconds, passes, networks, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(run(variables, image))
            if i:  # the first call is slower
                times.append(time.perf_counter() - began)
    return {
        "parameters": np.array([sum(x.size for x in jax.tree.leaves(v["params"])) for _, v in networks]),
        "flops": np.array([float(analysis["flops"]) for analysis in analyses]),
        "seconds": np.array([statistics.median(times) for times in seconds]),
    }


def _seen(batch: Batch, size: int) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Images, labels that are 1 in any foreground, and which pixels count, None where all do."""
    seen = augment.whole(batch, size=size)
    return seen["images"], (seen["labels"] > 0).astype(jnp.int32), seen.get("valid")


def _mask(logits: Any) -> jax.Array:
    return 1 - jax.nn.softmax(logits.astype(jnp.float32))[..., 0]


def _mask_and_layers(model: UNet, variables: Variables, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    logits, activations = capture.capture(model, variables, images, model.roles.convolutions)
    return _mask(logits), [activations[name] for name in model.roles.convolutions]


def _abilities(layers: Sequence[jax.Array], mask: jax.Array, labels: jax.Array, valid: jax.Array | None) -> jax.Array:
    return jnp.stack([prototypes.sa_score(features, mask, labels, region=valid) for features in layers], 1)


def _unit_means(features: jax.Array, valid: jax.Array | None) -> jax.Array:
    """`[B,C]`, of every unit's activations."""
    of_unit = lambda unit: pixels.mean(unit.astype(jnp.float32), valid)
    return jnp.mean(features.astype(jnp.float32), (1, 2)) if valid is None else jax.vmap(of_unit, -1, 1)(features)


def _dice(labels: jax.Array, mask: jax.Array, valid: jax.Array | None) -> jax.Array:
    return overlap.dice(labels, (mask > 0.5).astype(jnp.int32), num_classes=2, valid=valid)[:, 0]


def _masked_dice(
    variables: Variables,
    last: jax.Array,
    annotated: tuple[jax.Array, jax.Array | None],
    keep: jax.Array,
    means: jax.Array,
) -> jax.Array:
    """`[B,T]`, of the head over the units that are kept, the others at their means."""
    head = variables["params"]["head"]["conv"]
    kernel = head["kernel"][0, 0][None]  # [1,C,K]
    kept = jnp.where(keep[..., None], kernel, 0)  # [T,C,K]
    bias = head["bias"][None] + jnp.einsum("c,tck->tk", means, kernel - kept)
    logits = jnp.einsum("bhwc,tck->tbhwk", last.astype(jnp.float32), kept) + bias[:, None, None, None]
    labels, valid = annotated
    return jax.vmap(lambda one: _dice(labels, _mask(one), valid), out_axes=1)(logits)
