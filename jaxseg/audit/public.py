"""An audit in one call, from Python."""

import dataclasses
import os
import pathlib
from typing import Any

from jaxseg.audit import defaults, page
from jaxseg.audit.page import Result
from jaxseg.audit.request import Request
from jaxseg.errors import InputError
from jaxseg.networks import Network


def audit(
    network: Network,
    dataset_folder: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    split: str = "test",
    known_dice: float | None = None,
    name: str = "the network",
    **settings: Any,
) -> Result:
    """Audits a network of any make on a prepared data set, or resumes an earlier call, and writes the report.

    The network is given gray levels squashed to its size, or what its `inputs` say. If the data set has training cases,
    they are taken for cases like those that the network was trained on.

    Args:
      network: of `jaxseg.networks`.
      dataset_folder: of the data set, as `jaxseg.data.builders.prepare` returns it.
      workdir: for the report; created, or that of the same audit.
      split: whose cases are asked about.
      known_dice: that the network is known for on such cases; another one here ends the audit.
      name: of the network, in words.
      **settings: fields of `jaxseg.audit.defaults.Defaults`, such as `cases=100`, that differ from those.

    Returns:
      `page`, the path of the report; `verdict`, yes, no or unclear: whether the network uses a shortcut; `findings`,
      each with `kind`, `sentence` and `estimate`.

    Raises:
      InputError: network, data set, settings or a folder cannot be used, or the network does not have the Dice that it
        is known for.
    """
    if not isinstance(network, Network):
        raise InputError(
            f"network is a {type(network).__name__}; give one of jaxseg.networks, of a PyTorch module "
            "from_torch(module, normalise=(mean, std), ...), of a function from_function(function, ...)"
        )
    folder = pathlib.Path(dataset_folder)
    given = {"split": split, "known_dice": known_dice, "name": name, **settings}
    usual = {**(audit.__kwdefaults__ or {}), **dataclasses.asdict(defaults.Defaults())}
    changed = "".join(f", {field}={value!r}" for field, value in given.items() if value != usual.get(field))
    return page.run(
        Request(network=lambda known: network, name=name, dataset=str(folder), split=split, known_dice=known_dice),
        defaults.config(**settings).lock(),
        workdir=pathlib.Path(workdir),
        prepare=lambda name: folder,
        command=f"jaxseg.audit.audit(network, {str(folder)!r}, {str(workdir)!r}{changed})",
    )
