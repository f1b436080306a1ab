"""A trained network as whoever evaluates, predicts and audits takes it: of a run, of PyTorch weights, of any make."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from jaxseg.data import grids, inputs, pipeline
from jaxseg.data.inputs import Inputs
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError
from jaxseg.models import pretrained, tracing
from jaxseg.networks import Network, of_linen, slice_by_slice
from jaxseg.numerics import in_32_bits
from jaxseg.training import checks, contract, runs
from jaxseg.training.contract import TrainedOn

Prepare = Callable[[str], pathlib.Path | None]  # name of a data set -> its prepared folder
Where = tuple[pathlib.Path, str]  # the folder of a prepared data set, and a split of it
_BATCH = 8  # pictures at once, of a network that has no config; of volumes one


class Trained(NamedTuple):
    """A trained network, with what is made of a case for it.

    Attributes:
      name: of it, in words.
      members: networks; several are one ensemble, whose probabilities are averaged.
      trained_on: what it takes and gives.
      given: what becomes of a stored case before it sees it.
      resized: pixels a side to which cases are squashed on the device; None: they come as it sees them.
      batch_size: cases at once.
      dataset: name of a data set with cases like those of its training; None where there is none.
      config: of its run; None where there is none.
      folder: of its run; None where there is none.
      steps: of its checkpoints.
    """

    name: str
    members: tuple[Network, ...]
    trained_on: TrainedOn
    given: Inputs
    resized: int | None = None
    batch_size: int = _BATCH
    dataset: str | None = None
    config: ml_collections.ConfigDict | None = None
    folder: pathlib.Path | None = None
    steps: tuple[int, ...] = ()

    @property
    def squashes(self) -> bool:
        """Whether it is given all of a case, whatever its aspect."""
        return isinstance(self.given.grid, grids.Squash)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a trained network is: a run, weights with the config of their network, or what makes one of any make.

    Attributes:
      run: folder of a run.
      weights: file with PyTorch tensors.
      config: of a run, for weights: which network they are of, and what it sees.
      network: makes one for what a data set has; None: where none is named.
      name: of that network, in words.
      dataset: name of a data set; None is the run's own.
    """

    run: pathlib.Path | None = None
    weights: pathlib.Path | None = None
    config: ml_collections.ConfigDict | None = None
    network: Callable[[TrainedOn | None], Network] | None = None
    name: str = "the network"
    dataset: str | None = None

    @property
    def own_dataset(self) -> str:
        """The name of the data set, by the run's config where none is given."""
        if self.dataset is not None:
            return self.dataset
        assert self.run is not None
        return runs.read_config(self.run).data.dataset

    @in_32_bits
    def load(self, prepare: Prepare, *, where: Where | None = None) -> Trained:
        """The network.

        Args:
          prepare: name of a data set -> its prepared folder, or None.
          where: of the data set. What a run takes is its own, unless that is not known; others take what it has. May be
            None for a run, and for what makes a network by itself.

        Raises:
          InputError: there is no such network, or it cannot be used on the data set.
        """
        if self.run is not None:
            return of_run(self.run, prepare, instead=where)
        known = None if where is None else contract.of_split(pipeline.Split(*where))
        if self.network is not None:
            return of_network(self.network(known), known, name=self.name, dataset=self.dataset)
        assert self.weights is not None and self.config is not None and known is not None
        return of_weights(self.weights, self.config, known)._replace(dataset=self.dataset)


@in_32_bits
def of_run(folder: pathlib.Path, prepare: Prepare, *, instead: Where | None = None) -> Trained:
    """The network of the best checkpoint of a run, or of all its replicas.

    What it takes and gives is read from its data set once and then kept in the run's folder, so that the run can be
    used where the data set is not.

    Args:
      folder: of the run.
      prepare: name of a data set -> its prepared folder, or None; called if need be.
      instead: what the network is assumed to match where neither its folder nor `prepare` knows its own.

    Raises:
      InputError: there is no run or no checkpoint in the folder, or the data set is not there.
    """
    config = runs.read_config(folder)
    trained_on = _trained_on(config, folder, prepare, instead)
    shape = (1, *inputs.sides(config, trained_on.rank), trained_on.num_channels)
    loaded = [
        runs.best_network(member, place, shape, len(trained_on.class_names))
        for member, place in runs.member_runs(config, folder)
    ]
    members, steps = tuple(network for network, _ in loaded), tuple(int(best["step"]) for _, best in loaded)
    return of_config(config, members, trained_on, name=str(folder), folder=folder, steps=steps)


def _trained_on(
    config: ml_collections.ConfigDict, folder: pathlib.Path, prepare: Prepare, instead: Where | None
) -> TrainedOn:
    try:
        known = contract.of_run(config, folder, prepare)
    except InputError:
        if instead is None:
            raise
        known = None
    if known is not None:
        return known
    assert instead is not None
    print(f"{folder}: what it was trained on is not known, so {instead[0]} is assumed to match", file=sys.stderr)
    return contract.of_split(pipeline.Split(*instead))


def of_config(
    config: ml_collections.ConfigDict,
    members: tuple[Network, ...],
    trained_on: TrainedOn,
    *,
    name: str,
    folder: pathlib.Path | None = None,
    steps: tuple[int, ...] = (),
) -> Trained:
    """Networks that see what the config of a run says; see `Trained`."""
    return Trained(
        name,
        members,
        trained_on,
        inputs.of_config(config),
        resized=inputs.resized_to(config),
        batch_size=config.training.batch_size,
        dataset=config.data.dataset,
        config=config,
        folder=folder,
        steps=steps,
    )


@in_32_bits
def of_weights(path: pathlib.Path, config: ml_collections.ConfigDict, trained_on: TrainedOn) -> Trained:
    """The network that `config.model` describes with PyTorch tensors.

    Args:
      path: file with the tensors.
      config: of a run, such as configs/train.py gives; its network, view, geometry and sizes are used.
      trained_on: what it takes and gives.

    Raises:
      InputError: the config cannot be, the tensors do not fit the network, or its image size does not.
    """
    checks.check(config)
    model = checks.build_model(config, len(trained_on.class_names))
    shape = (1, *inputs.sides(config, trained_on.rank), trained_on.num_channels)
    try:
        tracing.variable_shapes(model, shape)
    except ValueError as error:
        raise InputError(f"config.data.image_size with config.model: {error}") from error
    variables = pretrained.load_whole(model, str(path), shape)
    network = of_linen(model, variables, image_size=shape[1:-1], channels=shape[-1])
    return of_config(config, (network,), trained_on, name=str(path))


def of_network(network: Network, known: TrainedOn | None, *, name: str, dataset: str | None = None) -> Trained:
    """A network of any make: it is given gray levels, squashed to its size, or what its `inputs` say.

    One for pictures is given volumes slice by slice.

    Args:
      network: of any make.
      known: what a network takes and gives that was trained on the data set; None where none is named: its own
        classes, in files as they are.
      name: of the network, in words.
      dataset: name of the data set.

    Raises:
      InputError: it takes or gives something else.
    """
    if known is not None and known.rank == 3 and len(network.sides) == 2:
        network = slice_by_slice(network)
    given = network.inputs or inputs.gray_levels(network.sides)
    if known is None:
        known = TrainedOn(_class_names(network), network.channels, len(network.sides), _as_in_files(network))
    own = TrainedOn(network.class_names or known.class_names, network.channels, len(network.sides), known.preparation)
    contract.check(dataset or "the data set", known, own, name)
    if network.num_classes != len(known.class_names):
        raise InputError(
            f"{dataset or 'the data set'}: has {len(known.class_names)} classes, {', '.join(known.class_names)}, and "
            f"the network tells {network.num_classes} apart; give one of the same classes"
        )
    return Trained(name, (network,), own, given, batch_size=_BATCH if own.rank == 2 else 1, dataset=dataset)


def _class_names(network: Network) -> tuple[str, ...]:
    return network.class_names or ("background", *(f"class {k}" for k in range(1, network.num_classes)))


def _as_in_files(network: Network) -> Preparation:
    """Of files that no data set was made of: gray levels of pictures; else intensities for the network's own scheme."""
    gray = network.inputs is None or network.inputs.normalisation.itemsize == 1
    return Preparation(None if gray else ("percentiles", 0.5, 99.5), None, volumes=len(network.sides) == 3)
