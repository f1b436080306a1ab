"""The figures of the skip-pruning study, from its measures and tables."""

import pathlib
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from jaxseg.atomic import PathLike
from jaxseg.report import canvas, figures
from jaxseg.results.table import Table
from jaxseg.studies.base import Measures, Overlay
from jaxseg.studies.skip_pruning import tables
from jaxseg.studies.skip_pruning.conditions import DOMAIN, IN_DOMAIN, Condition, compared
from jaxseg.studies.skip_pruning.experiment import Measured
from jaxseg.studies.skip_pruning.iou import SET
from jaxseg.studies.skip_pruning.settings import Network, Settings, architecture
from jaxseg.studies.skip_pruning.tables import StudyReport

_SHOWN = (0, 1, -1)  # of the pruned networks, in the figure of examples: baseline, L1, and the last
_NULL = "#5b6470"
_PLACES = {IN_DOMAIN: "in-domain", tables.SHIFTED: "mean over shifts"}


def draw(report: StudyReport) -> None:
    """Writes all figures of the study.

    They are `differences.png` and, per encoder E, `examples_E.png`, `iou_E.png` where there are shifts, `domains_E.png`
    where there are domains, and `distances_E_I.png` for the I-th condition whose activations are compared.
    """
    folder, settings, tested = report.figures, report.settings, report.cases.tested
    measured, results = report.measured, report.tables
    _draw_differences(folder, results.differences.where(measure=SET, minus=architecture(0)))
    for encoder in settings.encoder_names:
        _draw_matrices(folder, encoder, tested, results.iou.where(encoder=encoder, measure=SET))
        layers = results.distances.where(encoder=encoder, architecture=architecture(0), part="decoder")
        for i, condition in enumerate(compared(settings.evaluation, tested)):
            networks = {
                architecture(pruned): measured.of_networks[Network(encoder, pruned)] for pruned in settings.pruned
            }
            panels = {name: _violins(measures, condition) for name, measures in networks.items()}
            path, decoder = folder / f"distances_{encoder}_{i}.png", layers.values("layer")
            violins(path, panels, decoder=decoder, ylabel="Hellinger distance")
        figures.overlays(folder / f"examples_{encoder}.png", _examples(settings, measured, encoder))


def _draw_differences(folder: pathlib.Path, differences: Table) -> None:
    several = len(differences.values("encoder")) > 1
    name = lambda row: f"{row['architecture']}, {row['encoder']}" if several else row["architecture"]
    dots = [(name(row), _PLACES[row["place"]], *row.numbers) for row in differences if row["place"] in _PLACES]
    figures.dots(folder / "differences.png", dots, xlabel="IoU of the pruned network minus that of the baseline")


def _draw_matrices(folder: pathlib.Path, encoder: str, tested: Sequence[Condition], iou: Table) -> None:
    names, label = iou.values("architecture"), "IoU of the set"

    def matrix(conditions: Sequence[Condition]) -> tuple[Sequence[str], list[str], np.ndarray]:
        of = lambda name, c: iou.one(architecture=name, group=c.group, condition=c.label).estimate.mean
        return names, [c.label for c in conditions], np.array([[of(name, c) for c in conditions] for name in names])

    by_group = lambda group: [condition for condition in tested if condition.group == group]
    shifts = dict.fromkeys(condition.group for condition in tested if condition.shift)
    if shifts:
        panels = {name: matrix(_with_original(by_group(name), tested[0])) for name in shifts}
        matrices(folder / f"iou_{encoder}.png", panels, xlabel="strength", label=label)
    if by_group(DOMAIN):
        panels = {"": matrix([tested[0], *by_group(DOMAIN)])}
        matrices(folder / f"domains_{encoder}.png", panels, xlabel="domain; trained on the first", label=label)


def _with_original(shifted: Sequence[Condition], original: Condition) -> list[Condition]:
    """The strengths of a shift in their order, the unshifted images where the factor 1 is."""
    below = [condition for condition in shifted if condition.shift and condition.shift[1] < 1]
    return [*below, original, *(condition for condition in shifted if condition not in below)]


def _violins(measures: Measures, condition: Condition) -> dict[str, tuple[np.ndarray, float]]:
    """Layer -> (distances of its channels in all folds, the layer's null)."""
    null = measures[f"{condition.name}/null"].mean((0, 2))
    return {
        layer: (measures[f"{condition.name}/distance/{layer}"].ravel(), float(null[i]))
        for i, layer in enumerate(measures["layers"].tolist())
    }


def _examples(settings: Settings, measured: Measured, encoder: str) -> list[Overlay]:
    shown = {
        architecture(pruned): measured.of_networks[Network(encoder, pruned)]["examples"]
        for pruned in dict.fromkeys(settings.pruned[i] for i in _SHOWN)
    }
    return [
        (example.name, example.image, example.labels, {name: masks[i] for name, masks in shown.items()})
        for i, example in enumerate(measured.examples)
    ]


def matrices(
    path: PathLike, panels: Mapping[str, tuple[Sequence[str], Sequence[str], np.ndarray]], *, xlabel: str, label: str
) -> None:
    """Matrices below each other on one colour scale from 0 to 1, the number in every cell.

    Args:
      path: PNG to write.
      panels: title -> (names of the rows, names of the columns, values `[R,C]`); NaN is grey and reads "–".
      xlabel: of all panels.
      label: what the colours are.
    """
    heights = [0.75 + 0.34 * len(rows) for rows, _, _ in panels.values()]
    with canvas.sheet(path, (canvas.WIDTH, 0.4 + sum(heights))) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
        scale = Normalize(0.0, 1.0)
        for ax, (title, (rows, columns, values)) in zip(axes, panels.items(), strict=True):
            ax.set_facecolor(canvas.GRID)
            ax.imshow(values, cmap="viridis", norm=scale, aspect="auto")
            for (i, j), value in np.ndenumerate(values):
                colour = "white" if value < 0.6 else canvas.INK  # viridis becomes light there
                text = "–" if np.isnan(value) else f"{value:.2f}"
                ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=canvas.SMALL)
            ax.set_xticks(range(len(columns)), [textwrap.fill(name, 12) for name in columns])
            ax.set_yticks(range(len(rows)), rows)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            if title:
                ax.set_title(title)
        canvas.colour_bar(figure, axes, scale, label, aspect=40)
        figure.supxlabel(xlabel, fontsize=canvas.TEXT)


def violins(
    path: PathLike,
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, float]]],
    *,
    decoder: Collection[str],
    ylabel: str,
) -> None:
    """Distributions over channels by layer, a panel per network below each other, encoder and decoder in two colours.

    Args:
      path: PNG to write.
      panels: title -> layer -> (values `[N]` of its channels, the null of their mean).
      decoder: those of the layers that are its.
      ylabel: of all panels.
    """
    colours = {name: colour for name, (colour, _) in canvas.looks(("encoder", "decoder")).items()}
    with canvas.sheet(path, (canvas.WIDTH, 1.5 + 1.45 * len(panels))) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (title, layers) in zip(axes, panels.items(), strict=True):
            ax.grid(axis="y")
            ax.set_title(title)
            for at, (layer, (values, null)) in enumerate(layers.items()):
                _violin(ax, at, values, null, colours["decoder" if layer in decoder else "encoder"])
            ax.set_ylim(0.0, 1.0)
        names = list(dict.fromkeys(layer for layers in panels.values() for layer in layers))
        axes[-1].set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        figure.supylabel(ylabel, fontsize=canvas.TEXT)
        handles: list[Any] = [canvas.patch(name, colour) for name, colour in colours.items()]
        handles.append(Line2D([], [], color=canvas.INK, marker="o", linestyle="", label="mean"))
        handles.append(Line2D([], [], color=_NULL, linewidth=2, linestyle="--", label="no shift"))
        canvas.legend(figure, handles)


def _violin(ax: Axes, at: int, values: np.ndarray, null: float, colour: str) -> None:
    defined = values[~np.isnan(values)]
    if defined.size:
        # a density needs two different values; few channels are shown as they are too
        if np.ptp(defined) > 0:
            bodies: Any = ax.violinplot([defined], [at], widths=0.8, showextrema=False)["bodies"]
            for body in bodies:
                body.set(facecolor=canvas.tint(colour), edgecolor=colour, alpha=1.0, linewidth=1.2)
        if defined.size <= 40:
            ax.plot(np.full(defined.size, at), defined, ".", color=colour, markersize=3, alpha=0.5)
        ax.plot([at], [defined.mean()], "o", color=canvas.INK, markersize=5, markeredgecolor="white")
    ax.plot([at - 0.4, at + 0.4], [null, null], color=_NULL, linewidth=1.6, linestyle="--")
