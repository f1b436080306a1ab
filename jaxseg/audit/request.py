"""What is to be audited: from folders, files and data sets to a network with its cases."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import ml_collections

from jaxseg.audit import subject
from jaxseg.audit.run import Settings
from jaxseg.data import inputs, pipeline
from jaxseg.data.inputs import Inputs
from jaxseg.errors import InputError
from jaxseg.networks import Network
from jaxseg.prediction.network import load_run
from jaxseg.training import checks as run_checks
from jaxseg.training import contract, runs

_UNFAMILIAR = (
    "There are no cases like those of its training at hand ({}), so what needs them is left out: of the scores that "
    "predict failures, SD (segmentation distortion), PM and LM (Mahalanobis distances from training cases)."
)
Prepare = Callable[[str], pathlib.Path]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be audited: a run, weights with the config of their network, or a network.

    Attributes:
      run: folder of a run.
      weights: file with PyTorch tensors.
      config: of a run, for weights.
      dataset: name of a data set; None is the run's own.
      split: whose cases are asked about.
      network: makes one for the cases of a split.
      name: of that network, in words.
      known_dice: that the network is known for; None where that is not known.
    """

    run: pathlib.Path | None
    weights: pathlib.Path | None
    config: ml_collections.ConfigDict | None
    dataset: str | None
    split: str
    network: Callable[[pipeline.Split], Network] | None = None
    name: str = "the network"
    known_dice: float | None = None


def load(request: Request, settings: Settings, prepare: Prepare) -> tuple[subject.Subject, str]:
    """The network with its cases, and the name of the data set.

    Args:
      request: what is audited.
      settings: of the audit.
      prepare: name of a data set -> its prepared folder.

    Raises:
      InputError: one of them cannot be had, or the network not be asked about the cases.
    """
    if request.run is not None:
        return _of_run(request, request.run, settings, prepare)
    assert request.dataset is not None
    directory = prepare(request.dataset)
    if request.network is not None:
        split = pipeline.Split(directory, request.split, inputs=inputs.STORED)
        network = request.network(split)
        subject.check(network, split)
        test, familiar, why = _both(directory, subject.given_to(network), request.split, settings)
        made = subject.of_network(network, test, familiar, name=request.name)
    else:
        assert request.weights is not None and request.config is not None
        run_checks.check(request.config)
        test, familiar, why = _both(directory, inputs.of_config(request.config), request.split, settings)
        made = subject.of_weights(request.weights, request.config, test, familiar)
    return _told(made, why), request.dataset


def _of_run(
    request: Request, folder: pathlib.Path, settings: Settings, prepare: Prepare
) -> tuple[subject.Subject, str]:
    dataset = request.dataset or runs.read_config(folder).data.dataset
    directory = prepare(dataset)
    loaded = load_run(folder, prepare, instead=(directory, request.split))
    own = loaded.config.data.dataset
    # of a run on other domains, its own data set's test cases show all of them
    contract.check_split(directory, request.split, loaded.trained_on, folder)
    test = _cases(directory, inputs.of_config(loaded.config), request.split, settings.cases, ())
    familiar, why = _of_training(loaded.config, settings, directory if dataset == own else None, prepare)
    return _told(subject.of_run(loaded, test, familiar), why), dataset


def _of_training(
    config: ml_collections.ConfigDict, settings: Settings, directory: pathlib.Path | None, prepare: Prepare
) -> tuple[subject.Cases | None, str]:
    """Cases that a run was trained on; where they are not at hand, why."""
    read = lambda folder: _cases(
        folder, inputs.of_config(config), "train", settings.familiar_cases, config.data.domains
    )
    if directory is None:  # elsewhere than on its own data, a run is audited without them too
        try:
            return read(prepare(config.data.dataset)), ""
        except InputError as error:
            return None, str(error).splitlines()[0]
    if "train" not in pipeline.split_sizes(directory):
        return None, f"{directory} has none"
    return read(directory), ""


def _both(
    directory: pathlib.Path, given: Inputs, split: str, settings: Settings
) -> tuple[subject.Cases, subject.Cases | None, str]:
    """Test cases, and training cases of the same data set; where it has none, why.

    Whether a network was trained on these is not known; they are of the same kind as the test cases.
    """
    test = _cases(directory, given, split, settings.cases, ())
    if "train" not in pipeline.split_sizes(directory):
        return test, None, "the data set has no training cases"
    return test, _cases(directory, given, "train", settings.familiar_cases, ()), ""


def _told(made: subject.Subject, why: str) -> subject.Subject:
    """With a note on training cases that are not there."""
    return dataclasses.replace(made, notes=(*made.notes, _UNFAMILIAR.format(why))) if why else made


def _cases(directory: pathlib.Path, given: Inputs, split: str, count: int, domains: Sequence[str]) -> subject.Cases:
    return subject.read_cases(runs.Splits(directory, given, tuple(domains)), split, count)
