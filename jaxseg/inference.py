"""A network and a data set in, per-case results out, batch by batch."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import augment, pipeline
from jaxseg.data.grids import Patches
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.metrics.intervals import Estimate, bootstrap_mean
from jaxseg.networks import Network, host
from jaxseg.numerics import in_32_bits
from jaxseg.training import sliding
from jaxseg.training.trained import Trained

Batch = Mapping[str, Any]
Score = Callable[..., dict[str, jax.Array]]


def predict(network: Network, images: jax.Array) -> jax.Array:
    """Class numbers int32 `[B,H,W]` of images `[B,H,W,C]`."""
    return jnp.argmax(network.logits(images), -1).astype(jnp.int32)


@in_32_bits
def score_cases(
    network: Any,
    batches: Iterator[Batch],
    view: Callable[[Batch], dict[str, jax.Array]],
    score: Score,
    *,
    predict: Callable[[Any, jax.Array], jax.Array] = predict,
) -> dict[str, np.ndarray]:
    """Results per case, in the order of the cases; network, view and score run as one compiled program.

    Args:
      network: of any make; or whatever `predict` takes, such as several.
      batches: stored cases with `real` [B], as `pipeline.epoch` gives them.
      view: `stored batch -> {"images", "labels"}`, with `"valid"` where not all pixels count.
      score: `(labels, predictions) -> {name: [B,...]}`, with `valid=` where the view has it.
      predict: `(network, images) -> class numbers`.

    Returns:
      `{name: [N,...]}`.
    """

    @jax.jit
    def run(network: Any, batch: Batch) -> dict[str, jax.Array]:
        seen = view(batch)
        counts = {"valid": seen["valid"]} if "valid" in seen else {}
        return score(seen["labels"], predict(network, seen["images"]), **counts)

    return over_cases(lambda batch: run(network, batch), batches)


def over_cases(run: Callable[[Batch], Mapping[str, jax.Array]], batches: Iterator[Batch]) -> dict[str, np.ndarray]:
    """Results per case, in the order of the batches, of a program that is compiled elsewhere and used more than once.

    Args:
      run: `stored batch -> {name: [B,...]}`.
      batches: stored cases with `real` [B], as `pipeline.epoch` gives them.

    Returns:
      `{name: [N,...]}`.

    Raises:
      InputError: a network outside JAX refuses a batch.
    """
    with host.plainly():
        rows = [of_real(run(batch), batch["real"]) for batch in batches]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def of_real(values: Mapping[str, jax.Array], real: np.ndarray) -> dict[str, np.ndarray]:
    """What a program gave of a batch `[B,...]`, on the host, without the cases that are repetitions."""
    return {name: np.asarray(value)[real] for name, value in values.items()}


@in_32_bits
def evaluate(
    trained: Trained, directory: pathlib.Path, *, split: str, view: str
) -> tuple[list[dict[str, Any]], dict[str, Estimate]]:
    """Dice per case of a trained network, and its mean per class; of several, that of their ensemble.

    Args:
      trained: the network.
      directory: of a prepared data set, whose classes and channels are the network's.
      split: of the data set.
      view: original or quadrant.

    Returns:
      One row per case, with `dice_<class>` on the network's grid and, of whole images, `file_dice_<class>` on that of
      the file, as the data set stores it; and class -> mean with its interval over patients: of the network's grid
      `<class>`, of the file's `<class> on the grid of the file`, and where there are several domains, `<class> in
      <domain>`.

    Raises:
      InputError: the data set has no such split, or the network cannot be given such a view or a batch.
    """
    if view != "original" and trained.resized is None:
        raise InputError(f"--view={view}: is for runs that squash, and {trained.name} is none")
    source = pipeline.Split(directory, split, inputs=trained.given)
    stored = pipeline.Split(directory, split) if view == "original" else None
    counts = _counts(trained, source, stored, view)
    scores = {name: np.asarray(overlap.dice_from_counts(jnp.asarray(rows))) for name, rows in counts.items()}
    names = source.class_names[1:]
    columns = {f"{kind}_{name}": values[:, k] for kind, values in scores.items() for k, name in enumerate(names)}
    rows = [
        {"case": case, "patient": patient, "domain": domain} | {name: float(v[i]) for name, v in columns.items()}
        for i, (case, patient, domain) in enumerate(zip(source.cases, source.patients, source.domains, strict=True))
    ]
    patients, domains = np.array(source.patients), np.array(source.domains)
    parts = {"": np.ones(len(domains), bool)}
    if len(set(source.domains)) > 1:
        parts |= {f" in {domain or 'no domain'}": domains == domain for domain in sorted(set(source.domains))}
    estimates = {
        f"{name}{part}": bootstrap_mean(scores["dice"][where, k], patients[where])
        for part, where in parts.items()
        for k, name in enumerate(names)
    }
    if stored is not None:
        in_files = {f"{n} on the grid of the file": scores["file_dice"][:, k] for k, n in enumerate(names)}
        estimates |= {name: bootstrap_mean(values, patients) for name, values in in_files.items()}
    return rows, estimates


def _counts(
    trained: Trained, source: pipeline.Split, stored: pipeline.Split | None, view: str
) -> dict[str, np.ndarray]:
    """`overlap.class_counts` of every case `[N,K,3]`, on the network's grid and, if `stored`, on that."""
    grid, classes, members = trained.given.grid, source.num_classes, trained.members
    if isinstance(grid, Patches):
        slide = sliding.Sliding(sides=grid.example(source.rank), overlap=grid.overlap)
        answers = slide.over_cases(members, source)
    else:
        seen = augment.testing_view(view, size=trained.resized, cases=source.cases)
        answers = _answers(members, pipeline.epoch(source, batch_size=trained.batch_size), seen)
    rows: dict[str, dict[int, np.ndarray]] = {"dice": {}}
    if stored is not None:
        rows["file_dice"] = {}
    for index, probabilities, truth in answers:
        rows["dice"][index] = sliding.counts_of_case(truth, probabilities, classes)
        if stored is not None:
            case = stored.truth(index)
            placement = grid.placement(case["labels"].shape, case["spacing"])
            rows["file_dice"][index] = sliding.counts_of_case(case, placement.back(probabilities), classes)
    return {name: np.stack([of_case[i] for i in range(len(source))]) for name, of_case in rows.items()}


def _answers(
    members: Sequence[Network], batches: Iterator[Batch], view: Callable[[Batch], dict[str, jax.Array]]
) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Of every case its index, its class probabilities `[*n,K]`, and `labels` and `valid` as the network sees them."""

    @jax.jit
    def run(members: Sequence[Network], batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen = dict(view(batch))
        images = seen.pop("images")
        return sliding.mean_probabilities(members, images), seen

    for batch in batches:
        with host.plainly():
            probabilities, truth = jax.device_get(run(members, batch))
        for place in np.flatnonzero(batch["real"]):
            of_case = {name: values[place] for name, values in truth.items()}
            yield int(batch["index"][place]), probabilities[place], of_case
