"""What is to be audited: from folders, files and data sets to a network with its cases."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from jaxseg.audit import subject
from jaxseg.audit.run import Settings
from jaxseg.data import pipeline
from jaxseg.data.inputs import Inputs
from jaxseg.errors import InputError
from jaxseg.training import contract, runs, trained

_UNFAMILIAR = (
    "There are no cases like those of its training at hand ({}), so what needs them is left out: of the scores that "
    "predict failures, SD (segmentation distortion), PM and LM (Mahalanobis distances from training cases)."
)
Prepare = Callable[[str], pathlib.Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(trained.Source):
    """What is to be audited, a run, weights with the config of their network, or a network, and on what.

    Attributes:
      split: whose cases are asked about.
      known_dice: that the network is known for; None where that is not known.
    """

    split: str = "test"
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
    dataset = request.own_dataset
    directory = prepare(dataset)
    loaded = request.load(prepare, where=(directory, request.split))
    # of a run on other domains, its own data set's test cases show all of them
    contract.check_split(directory, request.split, loaded.trained_on, loaded.name)
    test = _cases(directory, loaded.given, request.split, settings.cases, ())
    familiar, why = _of_training(loaded, settings, directory if dataset == loaded.dataset else None, prepare)
    return _told(subject.of_trained(loaded, test, familiar), why), dataset


def _of_training(
    loaded: trained.Trained, settings: Settings, directory: pathlib.Path | None, prepare: Prepare
) -> tuple[subject.Cases | None, str]:
    """Cases that a run was trained on, or of a data set like its own; where they are not at hand, why."""
    assert loaded.dataset is not None
    domains = () if loaded.folder is None or loaded.config is None else tuple(loaded.config.data.domains)
    read = lambda folder: _cases(folder, loaded.given, "train", settings.familiar_cases, domains)
    if directory is None:  # elsewhere than on its own data, a run is audited without them too
        try:
            return read(prepare(loaded.dataset)), ""
        except InputError as error:
            return None, str(error).splitlines()[0]
    if "train" not in pipeline.split_sizes(directory):
        return None, f"{directory} has none"
    return read(directory), ""


def _told(made: subject.Subject, why: str) -> subject.Subject:
    """With a note on training cases that are not there."""
    return dataclasses.replace(made, notes=(*made.notes, _UNFAMILIAR.format(why))) if why else made


def _cases(directory: pathlib.Path, given: Inputs, split: str, count: int, domains: Sequence[str]) -> subject.Cases:
    return subject.read_cases(runs.Splits(directory, given, tuple(domains)), split, count)
