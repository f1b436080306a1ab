"""Fits an autoencoder to the activations of a trained network, for segmentation distortion (Lennartz, Schultz 2023).

It is trained by the same loop as every run, with another objective, the network frozen, and a lower score better. Its
config has, besides the fields of a run, `network` (the folder of the run whose network is taken), `layer` and
`autoencoder`; `configs/autoencoder.py` shows them.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import paths
from jaxseg.analysis import cells, distortion
from jaxseg.data import augment, inputs
from jaxseg.errors import InputError
from jaxseg.metrics import pixels
from jaxseg.models import autoencoder, tracing
from jaxseg.networks.linen import LinenNetwork
from jaxseg.numerics import in_32_bits
from jaxseg.training import checks, objectives, runs
from jaxseg.training.checkpoints import checksums
from jaxseg.training.objectives import Batch

# of the data, in which a run and that of its network agree
_ALIKE = ("image_size", "view", "geometry", "geometry_options", "normalisation", "normalisation_options")


@in_32_bits
def train(config: ml_collections.ConfigDict, splits: runs.Splits, folder: pathlib.Path) -> None:
    """Fits the autoencoder in `folder`, or resumes it; of replicas, those in the folders below it.

    The network is that of the best checkpoint of the run in `config.network`, which must be there again when the
    autoencoder is used; it is not copied.

    Raises:
      InputError: as `runs.train`, or the network or its layer is not there.
      Preempted: the process was asked to stop and has saved its work.
    """
    checks.check_common(config)
    checks.check_rank(config, splits.rank)
    if not inputs.of_config(config).grid.one_size:
        raise InputError("autoencoders are for activations of one size; give config.data.geometry 'keep' no multiple")
    network = _network(config, splits.num_classes, splits.open("train").num_channels)
    fitted = build(config, network)
    data = runs.Data(config, splits)
    data.fingerprints["network"] = f"{sum(checksums(network.variables).values()) % 2**32:08x}"
    view = augment.testing_view(config.data.view, size=inputs.resized_to(config), cases=data.validation_names)
    task = runs.Task(
        module=fitted,
        input_shape=(1, *fitted.shape),
        objective=objectives.reconstruction(fitted, config.layer),
        eval_step=losses_step(fitted, config.layer, view),
        summarise=_losses,
        selection=("loss", checks.SELECTIONS["loss"]),
        start=lambda fresh: fresh,
        frozen=network,
        compiler_options=network.compiler_options,
    )
    runs.fit_members(config, task, data, folder)


def losses_step(
    fitted: autoencoder.Autoencoder, layer: str, view: Callable[[Batch], dict[str, jax.Array]]
) -> Callable[[Mapping[str, Any], Batch], jax.Array]:
    """`step(variables, batch) -> [B,3]`: L_seg and L_mse of every case, of the pixels that count, and its distortion.

    Args:
      fitted: the autoencoder.
      layer: of the network, which is `variables["frozen"]`.
      view: `stored batch -> {"images", "labels"}`, with `"valid"` where not all pixels count.
    """

    def step(variables: Mapping[str, Any], batch: Batch) -> jax.Array:
        seen = view(batch)
        images, valid, network = seen["images"], seen.get("valid"), variables["frozen"]
        logits, activations = network.captured(images, (layer,))
        x = activations[layer]
        r: Any = fitted.apply({"params": variables["params"]}, x)
        after = network.replaced(images, {layer: r})
        of_cells = None if valid is None else cells.counted(valid, x.shape[1:-1])
        mean_square = lambda a, b, counts: pixels.mean(jnp.square(a.astype(jnp.float32) - b), counts, empty=0.0)
        distorted = distortion.segmentation_distortion(logits, after, valid=valid)
        return jnp.stack([mean_square(logits, after, valid), mean_square(x, r, of_cells), distorted], -1)

    return step


def build(config: ml_collections.ConfigDict, network: LinenNetwork) -> autoencoder.Autoencoder:
    """The autoencoder that `config.autoencoder` describes, for the activations of `config.layer`.

    Raises:
      InputError: there is no such layer, or the options cannot be.
    """
    image = jax.ShapeDtypeStruct((1, *network.sides, network.channels), jnp.float32)
    read = lambda network, image: network.activations(image, (config.layer,))[config.layer]
    try:
        made = autoencoder.for_activations(jax.eval_shape(read, network, image), **config.autoencoder.to_dict())
        tracing.variable_shapes(made, (1, *made.shape))
    except (ValueError, TypeError) as error:
        raise InputError(f"config.layer or config.autoencoder: {error}") from error
    return made


@in_32_bits
def load_best(
    config: ml_collections.ConfigDict, folder: pathlib.Path, num_classes: int, num_channels: int
) -> tuple[autoencoder.Autoencoder, dict[str, Any], LinenNetwork]:
    """The autoencoder of a run and its variables, and the network.

    Args:
      config: of the autoencoder's run.
      folder: of it.
      num_classes: K.
      num_channels: C.

    Raises:
      InputError: one of the two runs is not there.
    """
    network = _network(config, num_classes, num_channels)
    fitted = build(config, network)
    _, best, _ = runs.restore_best(folder, tracing.variable_shapes(fitted, (1, *fitted.shape)))
    return fitted, best, network


def _network(config: ml_collections.ConfigDict, num_classes: int, num_channels: int) -> LinenNetwork:
    if not config.network:
        raise InputError("config.network is missing; name the folder of the run whose network is taken")
    folder = paths.expanded(config.network)
    of_network = runs.read_config(folder)
    for name in _ALIKE:
        ours, theirs = (json.loads(data.to_json())[name] for data in (config.data, of_network.data))  # tuples are lists
        if ours != theirs:
            raise InputError(
                f"config.data.{name} is {ours!r}, the network of {folder} was trained with {theirs!r}; give the same"
            )
    shape = (1, *inputs.sides(config, 2), num_channels)
    return runs.best_network(of_network, folder, shape, num_classes)[0]


def _losses(scores: np.ndarray) -> dict[str, float]:
    """Means over the cases: L_seg and L_mse by which the autoencoder is fitted, their sum, and the distortion."""
    seg, mse, distorted = (float(value) for value in scores.mean(0, dtype=np.float64))
    return {"loss": seg + mse, "seg": seg, "mse": mse, "distortion": distorted}
