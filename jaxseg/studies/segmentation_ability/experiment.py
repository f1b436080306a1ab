"""The segmentation ability of features (He et al. 2022): what is trained and measured.

Two networks of one seed that differ in their loss alone:

  network   loss                                  how the paper calls it
  offline   the recipe's                          the SA score is measured afterwards
  online    the same plus mean(1 - SA), weighted  the SA score is trained too

Of both, the best checkpoint is measured on the same test cases. Which units of the last layer are inert is decided on
the validation cases, and the network without them is tested too.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import ml_collections
import numpy as np

from jaxseg.analysis import prototypes
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.models.pruning import prune_last_layer
from jaxseg.models.unet import UNet
from jaxseg.results.stored import kept
from jaxseg.scores import vog as difficulty
from jaxseg.studies import base
from jaxseg.studies.base import Measures, at_even_quantiles, run_folder
from jaxseg.studies.segmentation_ability import scores
from jaxseg.studies.segmentation_ability.settings import NETWORKS, Settings
from jaxseg.training import runs


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured."""

    networks: Mapping[str, Measures]  # per network, as of `measure`
    shown: Mapping[str, np.ndarray]  # as of `show`


def train_and_measure(settings: Settings, splits: runs.Splits, workdir: pathlib.Path) -> Measured:
    """Both networks, trained and measured, or read back; raises InputError where the cases are volumes."""
    if splits.rank != 2:
        raise InputError(f"{settings.run.data.dataset} has volumes; this study is of pictures, use its slices")
    of_run = lambda run, folder: measure(settings, run, folder, splits)
    every = settings.evaluation.vog_every
    measured = base.train_and_measure(settings, workdir, lambda _: splits, of_run, keep_every=every)
    return Measured(measured, show(settings, splits["test"], measured, workdir))


def measure(
    settings: Settings, run: ml_collections.ConfigDict, folder: pathlib.Path, splits: runs.Splits
) -> dict[str, np.ndarray]:
    """The best checkpoint of a run on the test cases, and without its inert units.

    Returns:
      Of the N test cases what `scores.examine` gives (but `unit_means`), `noise_sa` `[N,V,L]`, `vog` `[N]` and
      `pruned_dice` `[N]`; of the M validation cases `validation_units` `[M,C]` and `validation_output` `[M]`; `keep`
      bool `[T,C]` for the thresholds of the sweep; of the whole and the pruned network `parameters`, `flops` and
      `seconds` `[2]`; `vog_checkpoints`; `step` and `validation_dice` of the checkpoint.
    """
    evaluation = settings.evaluation
    test = splits["test"]
    network, best = runs.best_network(run, folder, test.images.shape, splits.num_classes)
    model, variables = network.model, network.variables
    assert isinstance(model, UNet)
    where = {"size": run.data.image_size, "batch_size": run.training.batch_size}
    width = model.decoder_widths[0][1]
    everything = np.ones((len(evaluation.inert_sweep), width), bool)
    means = np.zeros(width, np.float32)
    validation = scores.examine(model, variables, splits["validation"], **where, keep=everything, means=means)
    unit_means = validation["unit_means"].mean(0)
    active = lambda share: prototypes.active_units(validation["units"], validation["dice"], share)
    keep = np.stack([active(share) for share in evaluation.inert_sweep])
    measures = scores.examine(model, variables, test, **where, keep=keep, means=unit_means)
    del measures["unit_means"]
    noise = {"levels": evaluation.noise_levels, "seed": run.seed}
    measures["noise_sa"] = scores.noisy_abilities(model, variables, test, **where, **noise)
    checkpoints = difficulty.checkpoints(evaluation.vog_every, run, folder, splits, network)
    measures["vog"] = difficulty.variance_of_gradients(checkpoints, test, **where)
    inert = evaluation.inert_sweep.index(evaluation.inert_below)
    narrow, pruned = prune_last_layer(model, variables, keep[inert], unit_means)
    measures["pruned_dice"] = scores.output_dice(narrow, pruned, test, **where)
    shape = (1, where["size"], where["size"], test.num_channels)
    return (
        measures
        | scores.cost([(model, variables), (narrow, pruned)], shape, rounds=evaluation.rounds)
        | {"validation_units": validation["units"], "validation_output": validation["dice"], "keep": keep}
        | {"vog_checkpoints": np.array(len(checkpoints))}
        | {name: np.asarray(value) for name, value in best.items()}
    )


def quantiles(values: np.ndarray, count: int) -> list[int]:
    """Cases at even quantiles of a number, lowest first; where none is defined, any."""
    return at_even_quantiles(values, count) or at_even_quantiles(np.arange(len(values)), count)


def show(
    settings: Settings, test: pipeline.InMemory, measured: Mapping[str, Measures], workdir: pathlib.Path
) -> dict[str, np.ndarray]:
    """What the figures show of single cases, computed once.

    Returns:
      `examples` `[E]` and `ranked` `[R]`, cases at even quantiles of the online network's mean SA score, and
      `separable` `[3]`, of the separableness; per network, of examples, ranked and separable ones one after the other,
      what `scores.explain` gives, as `NETWORK_NAME`.
    """

    def explain() -> dict[str, np.ndarray]:
        online, evaluation = measured["online"], settings.evaluation
        chosen = {
            "examples": quantiles(online["mean_sa"], evaluation.examples),
            "ranked": quantiles(online["mean_sa"], evaluation.ranked),
            "separable": quantiles(online["separableness"], 3),
        }
        shown = {name: np.array(index) for name, index in chosen.items()}
        cases = [case for index in chosen.values() for case in index]
        for network in NETWORKS:
            run, folder = settings.of_run(network), run_folder(workdir, network)
            model, variables, _ = runs.load_best(run, folder, test.images.shape, test.num_classes)
            assert isinstance(model, UNet)
            of_network = scores.explain(model, variables, test, cases, size=run.data.image_size)
            shown |= {f"{network}_{name}": value for name, value in of_network.items()}
        return shown

    return kept(workdir / "runs" / "shown.npz", explain)
