"""Numbers layer by layer, as probes draw them."""

from collections.abc import Sequence

import numpy as np

from jaxseg.audit.probe import Answer, Figure, NotAskedError
from jaxseg.audit.subject import Subject
from jaxseg.report import figures
from jaxseg.results.table import Row, Table

_KNOWS = "That a layer knows something does not say that the network uses it: this is evidence, no finding."


NO_LAYERS = "the network does not say what its layers are"


def check(subject: Subject) -> None:
    """Raises NotAskedError where the network has no layers that could be asked."""
    if not subject.layers:
        raise NotAskedError(NO_LAYERS)


def answer(
    name: str,
    rows: Sequence[Row],
    title: str,
    alt: str,
    caption: str,
    *,
    ylabel: str,
    limits: tuple[float, float] | None = None,
) -> Answer:
    """The rows of a probe that are given layer by layer, with a figure that has a line for every quantity.

    Args:
      name: of the probe.
      rows: of one quantity after the other, each from input to output.
      title: as of `Figure`.
      alt: as of `Figure`.
      caption: as of `Figure`.
      ylabel: what the numbers are.
      limits: of the axis.
    """
    table = Table(tuple(rows))
    profiles = {what: table.where(quantity=what) for what in table.values("quantity")}
    of = lambda label, own: figures.Series(label, np.arange(1, len(own) + 1), *own.numbers)
    series = [of(what if len(profiles) > 1 else "", own) for what, own in profiles.items()]
    label = "layer, input to output"
    draw = lambda path: figures.curves(path, {"": series}, xlabel=label, ylabel=ylabel, ylim=limits)
    return Answer(rows, figures=[Figure(name, title, alt, caption, draw)], text=[_KNOWS])
