"""The segmentation ability of features (He et al. 2022): which runs, which numbers.

Two networks of one seed that differ in their loss alone:

  network   loss                                  how the paper calls it
  offline   the recipe's                          the SA score is measured afterwards
  online    the same plus mean(1 - SA), weighted  the SA score is trained too

Of both, the best checkpoint is measured on the same test cases. Which units of the last layer are inert is decided on
the validation cases, and the network without them is tested too.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import ml_collections
import numpy as np

from jaxseg.data import pipeline, shifts
from jaxseg.errors import InputError
from jaxseg.models.pruning import prune_last_layer
from jaxseg.models.unet import UNet
from jaxseg.results.stored import kept
from jaxseg.scores import vog as difficulty
from jaxseg.studies.segmentation_ability import scores
from jaxseg.training import checks, runs

NETWORKS = ("offline", "online")
Measures = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes:
      networks: per network, as `measure` gives it.
      shown: what `show` gives.
    """

    networks: Mapping[str, Measures]
    shown: Mapping[str, np.ndarray]


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config; raises InputError, before anything is computed, when a field of the study cannot work."""
    if config.get("study") != "segmentation_ability":
        raise InputError("the config is not this study's; give configs/segmentation_ability.py, or use launch.train")
    for name in ("online_weight", "data", "model", "training", "evaluation"):
        if name not in config:
            raise InputError(f"config.{name} is missing; configs/segmentation_ability.py shows every field")
    if not config.online_weight > 0 or config.training.ability_weight:
        raise InputError(
            f"config.online_weight is {config.online_weight} and training.ability_weight "
            f"{config.training.ability_weight}; the first must be above 0, the second 0: the networks differ in it"
        )
    if config.replicas > 1:
        raise InputError(f"config.replicas is {config.replicas}; this study trains one network of each kind, give 1")
    _check_evaluation(config)  # the quickest first
    for network in NETWORKS:
        checks.check(run_config(config, network))
    model = checks.build_model(config, 2)
    if not isinstance(model, UNet) or model.norm == "group" or model.halvings < 2:
        raise InputError(
            "config.model must be a unet of at least two poolings without group norm: its layers are numbered as the "
            "paper's, and units of its last layer can be taken out"
        )
    return config


def _check_evaluation(config: ml_collections.ConfigDict) -> None:
    evaluation = config.evaluation
    for name in ("buckets", "examples", "ranked", "rounds", "resamples"):
        if evaluation[name] < 1:
            raise InputError(f"config.evaluation.{name} is {evaluation[name]}; it must be at least 1")
    for name, most in (("noise_levels", 1.0), ("coverages", 1.0), ("inert_sweep", float("inf"))):
        values = evaluation[name]
        if not values or len(set(values)) < len(values) or not all(0 < value <= most for value in values):
            raise InputError(f"config.evaluation.{name} is {values!r}; give numbers above 0 and up to {most:g}, once")
    for level in evaluation.noise_levels:
        shifts.check_shift("uniform_noise", level)
    if evaluation.inert_below not in evaluation.inert_sweep:
        raise InputError(
            f"config.evaluation.inert_below is {evaluation.inert_below}; it must be one of inert_sweep "
            f"{evaluation.inert_sweep!r}"
        )
    difficulty.check(evaluation.vog_every, config.training)


def run_config(config: ml_collections.ConfigDict, network: str) -> ml_collections.ConfigDict:
    """The config of one training run of the study."""
    run = ml_collections.ConfigDict(checks.run_fields(config))
    run.training.ability_weight = float(config.online_weight) if network == "online" else 0.0
    return run.lock()


def run_folder(workdir: pathlib.Path, network: str) -> pathlib.Path:
    """Where a run of the study keeps its checkpoints, metrics and measures."""
    return workdir / "runs" / network


def train_and_measure(
    config: ml_collections.ConfigDict, splits: runs.Splits, workdir: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """Both networks, trained and measured, or read back where that was done before.

    Raises:
      InputError: the cases are volumes.
    """
    if splits.rank != 2:
        raise InputError(f"{config.data.dataset} has volumes; this study is of pictures, use its slices")
    measured = {}
    for network in NETWORKS:
        run, folder = run_config(config, network), run_folder(workdir, network)
        runs.train(run, splits, folder, keep_every=config.evaluation.vog_every)
        make = functools.partial(measure, config, run, folder, splits)
        measured[network] = kept(folder / "measures.npz", make)
    return measured


def measure(
    config: ml_collections.ConfigDict, run: ml_collections.ConfigDict, folder: pathlib.Path, splits: runs.Splits
) -> dict[str, np.ndarray]:
    """The best checkpoint of a run on the test cases, and without its inert units.

    Returns:
      Of the N test cases what `scores.examine` gives (but `unit_means`), `noise_sa` `[N,V,L]`, `vog` `[N]` and
      `pruned_dice` `[N]`; of the M validation cases `validation_units` `[M,C]` and `validation_output` `[M]`; `keep`
      bool `[T,C]` for the thresholds of the sweep; of the whole and the pruned network `parameters`, `flops` and
      `seconds` `[2]`; `vog_checkpoints`; `step` and `validation_dice` of the checkpoint.
    """
    evaluation = config.evaluation
    test = splits["test"]
    model, variables, best = runs.load_best(run, folder, test.images.shape, splits.num_classes)
    assert isinstance(model, UNet)
    where = {"size": config.data.image_size, "batch_size": config.training.batch_size}
    width = model.decoder_widths[0][1]
    everything = np.ones((len(evaluation.inert_sweep), width), bool)
    validation = scores.examine(
        model, variables, splits["validation"], **where, keep=everything, means=np.zeros(width, np.float32)
    )
    unit_means = validation["unit_means"].mean(0)
    keep = np.stack(
        [scores.active_units(validation["units"], validation["dice"], share) for share in evaluation.inert_sweep]
    )
    measures = scores.examine(model, variables, test, **where, keep=keep, means=unit_means)
    del measures["unit_means"]
    measures["noise_sa"] = scores.noisy_abilities(
        model, variables, test, **where, levels=evaluation.noise_levels, seed=config.seed
    )
    checkpoints = difficulty.checkpoints(evaluation.vog_every, run, folder, splits, variables)
    measures["vog"] = difficulty.variance_of_gradients(model, checkpoints, test, **where)
    narrow, pruned = prune_last_layer(
        model, variables, keep[evaluation.inert_sweep.index(evaluation.inert_below)], unit_means
    )
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
    """Cases at even quantiles of a number, lowest first, so that nobody chose them; where none is defined, any."""
    order = np.argsort(values, kind="stable")[: np.sum(~np.isnan(values))]
    order = order if len(order) else np.arange(len(values))
    count = min(count, len(order))
    return order[((np.arange(count) + 0.5) / count * len(order)).astype(int)].tolist()


def show(
    config: ml_collections.ConfigDict, splits: runs.Splits, measured: Mapping[str, Measures], workdir: pathlib.Path
) -> dict[str, np.ndarray]:
    """What the figures show of single cases, computed once.

    Returns:
      `examples` `[E]` and `ranked` `[R]`, cases at even quantiles of the online network's mean SA score, and
      `separable` `[3]`, of the separableness; per network, of examples and ranked ones behind each other, what
      `scores.explain` gives, as `NETWORK_NAME`.
    """
    return kept(workdir / "runs" / "shown.npz", lambda: _show(config, splits["test"], measured, workdir))


def _show(
    config: ml_collections.ConfigDict,
    test: pipeline.InMemory,
    measured: Mapping[str, Measures],
    workdir: pathlib.Path,
) -> dict[str, np.ndarray]:
    online, evaluation = measured["online"], config.evaluation
    chosen = {
        "examples": quantiles(online["mean_sa"], evaluation.examples),
        "ranked": quantiles(online["mean_sa"], evaluation.ranked),
        "separable": quantiles(online["separableness"], 3),
    }
    cases = [*chosen["examples"], *chosen["ranked"], *chosen["separable"]]
    found = {name: np.array(index) for name, index in chosen.items()}
    for network in NETWORKS:
        run, folder = run_config(config, network), run_folder(workdir, network)
        model, variables, _ = runs.load_best(run, folder, test.images.shape, test.num_classes)
        assert isinstance(model, UNet)
        shown = scores.explain(model, variables, test, cases, size=config.data.image_size)
        found |= {f"{network}_{name}": value for name, value in shown.items()}
    return found


def layer_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The numbered layers of the study's networks."""
    return checks.build_model(config, 2).roles.convolutions


def layer_groups(config: ml_collections.ConfigDict) -> dict[str, tuple[int, ...]]:
    """Early, abstract and late layers (Fig. 4), as places in `layer_names`."""
    names = layer_names(config)
    model = checks.build_model(config, 2)
    assert isinstance(model, UNet)
    return {group: tuple(names.index(name) for name in members) for group, members in model.layer_groups.items()}


def first_of_decoder(config: ml_collections.ConfigDict) -> int:
    """Which of the layers is the decoder's first."""
    roles = checks.build_model(config, 2).roles
    return next(i for i, name in enumerate(roles.convolutions) if name.startswith(f"{roles.decoder[0]}/"))
