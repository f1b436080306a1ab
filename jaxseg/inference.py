"""A network and a data set in, per-case results out, batch by batch."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.data import augment, pipeline
from jaxseg.metrics import overlap
from jaxseg.metrics.intervals import Estimate, bootstrap_mean
from jaxseg.numerics import in_32_bits
from jaxseg.training import runs

Batch = Mapping[str, Any]
Score = Callable[..., dict[str, jax.Array]]


def predict(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Class numbers int32 `[B,H,W]` of images `[B,H,W,C]`."""
    logits: Any = model.apply(variables, images)  # a tuple only where something is mutable
    return jnp.argmax(logits, -1).astype(jnp.int32)


def predict_ensemble(model: nn.Module, members: Sequence[Any], images: jax.Array) -> jax.Array:
    """Class numbers int32 `[B,H,W]` with the highest mean softmax probability over the `members`' variables."""
    logits: Sequence[Any] = [model.apply(variables, images) for variables in members]
    return jnp.argmax(sum(jax.nn.softmax(one) for one in logits), -1).astype(jnp.int32)


@in_32_bits
def score_cases(
    model: nn.Module,
    variables: Any,
    batches: Iterator[Batch],
    view: Callable[[Batch], dict[str, jax.Array]],
    score: Score,
    *,
    predict: Callable[[nn.Module, Any, jax.Array], jax.Array] = predict,
) -> dict[str, np.ndarray]:
    """Results per case, in the order of the cases; network, view and score run as one compiled program.

    Args:
      model: `images -> logits`.
      variables: its variables.
      batches: stored cases with `real` [B], as `pipeline.epoch` gives them.
      view: `stored batch -> {"images", "labels"}`, with `"valid"` where not all pixels count.
      score: `(labels, predictions) -> {name: [B,...]}`, with `valid=` where the view has it.
      predict: `(model, variables, images) -> class numbers`.

    Returns:
      `{name: [N,...]}`.
    """

    @jax.jit
    def run(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        seen = view(batch)
        counts = {"valid": seen["valid"]} if "valid" in seen else {}
        return score(seen["labels"], predict(model, variables, seen["images"]), **counts)

    return over_cases(lambda batch: run(variables, batch), batches)


def over_cases(run: Callable[[Batch], Mapping[str, jax.Array]], batches: Iterator[Batch]) -> dict[str, np.ndarray]:
    """Results per case, in the order of the cases, of a program that is compiled elsewhere and used more than once.

    Args:
      run: `stored batch -> {name: [B,...]}`.
      batches: stored cases with `real` [B], as `pipeline.epoch` gives them.

    Returns:
      `{name: [N,...]}`.
    """
    rows = [_keep(run(batch), batch["real"]) for batch in batches]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@in_32_bits
def evaluate_run(
    config: ml_collections.ConfigDict, folder: pathlib.Path, directory: pathlib.Path, *, split: str, view: str
) -> tuple[list[dict[str, Any]], dict[str, Estimate]]:
    """Dice per case of a run's best checkpoint, and its mean per class; of replicas, that of their ensemble.

    Args:
      config: of the run.
      folder: of the run.
      directory: of a prepared data set.
      split: of the data set.
      view: original or quadrant.

    Returns:
      One row per case, with `dice_<class>`, and class -> mean with its interval over patients; where there are several
      domains, then `<class> in <domain>`.

    Raises:
      InputError: the run has no checkpoint, or the data set no such split.
    """
    source = pipeline.in_memory(pipeline.Split(directory, split, size=config.data.source_size))
    members = [
        runs.load_best(member, place, source.images.shape, source.num_classes)[:2]
        for member, place in runs.member_runs(config, folder)
    ]
    scores = score_cases(
        members[0][0],
        [variables for _, variables in members],
        pipeline.epoch(source, batch_size=config.training.batch_size),
        augment.testing_view(view, size=config.data.image_size, cases=source.cases),
        lambda a, b, valid=None: {"dice": overlap.dice(a, b, num_classes=source.num_classes, valid=valid)},
        predict=predict_ensemble,
    )["dice"]
    names = source.class_names[1:]
    rows = [
        {"case": case, "patient": patient, "domain": domain}
        | {f"dice_{name}": float(v) for name, v in zip(names, values, strict=True)}
        for case, patient, domain, values in zip(source.cases, source.patients, source.domains, scores, strict=True)
    ]
    patients, domains = np.array(source.patients), np.array(source.domains)
    parts = {"": np.ones(len(domains), bool)}
    if len(set(source.domains)) > 1:
        parts |= {f" in {domain or 'no domain'}": domains == domain for domain in sorted(set(source.domains))}
    return rows, {
        f"{name}{part}": bootstrap_mean(scores[where, k], patients[where])
        for part, where in parts.items()
        for k, name in enumerate(names)
    }


def _keep(values: Mapping[str, jax.Array], real: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value)[np.asarray(real)] for name, value in values.items()}
