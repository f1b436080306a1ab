"""Numbers layer by layer, as probes draw them."""

from collections.abc import Sequence

import numpy as np

from jaxseg.audit.probe import Figure
from jaxseg.report import figures
from jaxseg.results.table import Row, Table

KNOWS = "That a layer knows something does not say that the network uses it: this is evidence, no finding."


def figure(
    name: str,
    rows: Sequence[Row],
    title: str,
    alt: str,
    caption: str,
    *,
    ylabel: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A line for every quantity of rows that are given layer by layer.

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
    series = [figures.Series(what, np.arange(1, len(own) + 1), *own.numbers) for what, own in profiles.items()]
    label = "layer, input to output"
    draw = lambda path: figures.curves(path, {"": series}, xlabel=label, ylabel=ylabel, ylim=limits)
    return Figure(name, title, alt, caption, draw)
