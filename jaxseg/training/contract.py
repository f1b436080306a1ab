"""What a network takes and gives, by the data set that it was trained on: noted in its run's folder, and compared.

A run may be used where its data set is not, on data sets that were prepared on their own. What a prepared data set has
of its own is classes, channels, orientation and scaling; a network that is given others fails silently.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from jaxseg import atomic
from jaxseg.data import pipeline
from jaxseg.data.diagnosis import count
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError

FILE = "trained_on.json"


class TrainedOn(NamedTuple):
    """What a network takes and gives, from the data set that it was trained on.

    Attributes:
      class_names: the background first.
      num_channels: C.
      rank: 2, or 3 for volumes.
      preparation: what became of the data set's files.
    """

    class_names: tuple[str, ...]
    num_channels: int
    rank: int
    preparation: Preparation


def of_split(split: pipeline.Split) -> TrainedOn:
    """What a network that is trained on a split takes and gives; raises InputError where its data set is too old."""
    return TrainedOn(split.class_names, split.num_channels, split.rank, split.preparation)


def of_run(
    config: ml_collections.ConfigDict, folder: pathlib.Path, prepare: Callable[[str], pathlib.Path | None]
) -> TrainedOn | None:
    """What the network of a run takes and gives, as noted in its folder; else it is asked of its data set, and noted.

    Args:
      config: of the run.
      folder: of the run.
      prepare: name of a data set -> its prepared folder, or None; called if need be.

    Returns:
      None where neither the folder nor `prepare` knows.
    """
    if known := noted(folder):
        return known
    directory = prepare(config.data.dataset)
    if directory is None:
        return None
    known = of_split(pipeline.Split(directory, "train"))
    note(folder, known)
    return known


def noted(folder: pathlib.Path) -> TrainedOn | None:
    """What is noted in the folder of a run; None where nothing does, or it cannot be read."""
    try:
        values = json.loads((folder / FILE).read_bytes())
        scaling, orientation = values["scaling"], values.get("orientation", "")  # not noted by the first versions
        dtype = values.get("dtype", "uint8")
        preparation = Preparation(scaling and tuple(scaling), values["size"], values["volumes"], orientation, dtype)
        return TrainedOn(tuple(values["class_names"]), values["num_channels"], values["rank"], preparation)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def note(folder: pathlib.Path, known: TrainedOn) -> None:
    """Writes it into the folder of a run."""
    names = ("class_names", "num_channels", "rank")
    keep(folder / FILE, {name: getattr(known, name) for name in names} | known.preparation._asdict())


def keep(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes JSON into the run's folder if it can be written to; what cannot be kept is computed again."""
    with contextlib.suppress(OSError):
        atomic.write_json(path, dict(value))


def check_split(directory: pathlib.Path, split: str, known: TrainedOn, run: pathlib.Path | str) -> None:
    """Asks `check` of a split of a prepared data set, and says on stderr what may make the network fail."""
    given = of_split(pipeline.Split(directory, split))
    for line in check(str(directory), given, known, run):
        print(f"{directory}: {line}", file=sys.stderr)


def check(where: str, given: TrainedOn, known: TrainedOn, run: pathlib.Path | str) -> list[str]:
    """Whether a network can be used on a data set.

    Args:
      where: names the data set.
      given: what a network that was trained on it would take and give.
      known: what this one does.
      run: its folder, or its name where it is no run's.

    Returns:
      What may make it fail nevertheless, a line each.

    Raises:
      InputError: it cannot: rank, channels, classes or orientation are others.
    """
    if given.rank != known.rank:
        kind, other = ("pictures", "volumes") if given.rank == 2 else ("volumes", "pictures")
        raise InputError(f"{where}: holds {kind}, and the network takes {other}; prepare its {other}")
    if given.num_channels != known.num_channels:
        wanted = known.num_channels
        colour = {3: "save its images as RGB", 1: "save its images as gray"}.get(wanted, "give it all of them")
        raise InputError(f"{where}: has {count(given.num_channels, 'channel')}, the network takes {wanted}; {colour}")
    classes, names = given.class_names, known.class_names
    if len(classes) != len(names) or (sorted(classes) == sorted(names) and classes != names):  # or in another order
        raise InputError(
            f"{where}: has the classes {', '.join(classes)}, and the network tells {', '.join(names)} apart; name "
            "these, in this order, in the classes.csv of its folder, and prepare it anew"
        )
    remedy = f"prepare it as those, with --like={run} and another --data_dir"
    sides, saw = given.preparation.orientation, known.preparation.orientation
    if given.preparation.volumes and saw and sides and sides != saw:
        raise InputError(f"{where}: its volumes run to {sides}, those that the network saw to {saw}; {remedy}")
    notes = []
    if given.preparation.volumes and bool(saw) != bool(sides):
        notes.append(f"whether its volumes run as those that the network saw, {saw or sides}, is not known")
    if given.preparation.scaling != known.preparation.scaling:
        ours, theirs = (_scaled(one.preparation.scaling) for one in (given, known))
        notes.append(f"its intensities are {ours}, those of the network's data set {theirs}; {remedy}")
    return notes


def _scaled(scaling: tuple[str, float, float] | None) -> str:
    return "as in the files" if scaling is None else f"scaled by {scaling[0]} {scaling[1]:g} and {scaling[2]:g}"
