"""The sheet that every figure is drawn on: its size, its style, grids of images, legends.

Every figure is 6 inches wide with text of 10 points and more: that fits a printed column and can still be read when a
phone scales it down to 360 pixels. Colours are Okabe and Ito's (2008), told apart under every colour blindness, and
markers differ too. The same data gives the same bytes. Neither pyplot nor its global state is touched.
"""

import contextlib
import contextvars
import io
import math
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxseg.atomic import PathLike, replace

BLUE, VERMILLION = "#0072B2", "#D55E00"
PALETTE = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, MUTED, GRID, SHADE = "#1b1f24", "#5b6470", "#e3e6ea", "#eceef1"
WIDTH, DPI = 6.0, 160  # inches; 960 pixels
TEXT, SMALL = 12.0, 10.5  # points

_STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": TEXT,
    "legend.handlelength": 2.2,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    "lines.solid_capstyle": "round",
}


@contextlib.contextmanager
def sheet(path: PathLike, size: tuple[float, float], *, layout: Any = "constrained") -> Iterator[Figure]:
    """A figure in the style of this module whatever the caller's settings are, written when the block ends."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=size, dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
        if layout:
            engine: Any = figure.get_layout_engine()
            engine.set(w_pad=0.06, h_pad=0.06)
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})  # the version would change the bytes
    replace(path, content.getvalue())


@contextlib.contextmanager
def image_grid(
    path: PathLike, names: Sequence[str], titles: Sequence[str], shapes: Sequence[tuple[int, ...]], *, foot: float = 0.0
) -> Iterator[tuple[Figure, list[list[Axes]]]]:
    """Axes for images, rows by columns, with a name above each row and a title above each column.

    Measured in inches by hand: the layout engines leave uneven gaps between images.
    """
    gap, head, name_height = 0.06, 0.3, 0.28
    width = (WIDTH - gap * (len(titles) + 1)) / len(titles)
    height = width * max(shape[0] / shape[1] for shape in shapes)
    row_height = height + name_height + gap
    total = head + row_height * len(names) + foot
    with sheet(path, (WIDTH, total), layout=None) as figure:
        size = float(np.clip(width * 72 / (0.66 * max(len(title) for title in titles)), 7.0, TEXT))
        lines = []
        for i, name in enumerate(names):
            top = total - head - i * row_height
            figure.text(gap / WIDTH, (top - 0.2) / total, name, fontsize=SMALL, va="baseline", color=MUTED)
            bottom = (top - name_height - height) / total
            lines.append(
                [
                    figure.add_axes((((gap + width) * j + gap) / WIDTH, bottom, width / WIDTH, height / total))
                    for j in range(len(titles))
                ]
            )
        for ax in (ax for line in lines for ax in line):
            ax.set_axis_off()
        for j, title in enumerate(titles):
            middle = ((gap + width) * j + gap + width / 2) / WIDTH
            figure.text(middle, 1 - 0.22 / total, title, fontsize=size, ha="center", weight="bold")
        yield figure, lines


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Above the axes, in as many columns as fit."""
    if handles:
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=ncols([handle.get_label() for handle in handles]),
            columnspacing=1.6,
        )


def axis_labels(figure: Figure, axes: np.ndarray, xlabel: str, ylabel: str, *, stacked: bool) -> None:
    """One label for all x axes, one for all y axes: at the axis where there is one, in the middle of a stack."""
    figure.supxlabel(xlabel, fontsize=TEXT)
    if stacked:
        figure.supylabel(ylabel, fontsize=TEXT)
    else:
        axes[0].set_ylabel(ylabel)


def ncols(labels: Collection[str]) -> int:
    """As many columns of a legend as fit the width; all are as wide as the longest label."""
    longest = max(len(label) for label in labels) + 6
    return int(np.clip(WIDTH * 72 / (0.58 * TEXT) // longest, 1, len(labels)))


def extra_lines(labels: Collection[str]) -> float:
    """Inches that a legend takes beyond its first line, so that it grows the figure and not shrinks the plot."""
    return 0.25 * (math.ceil(len(labels) / ncols(labels)) - 1) if labels else 0.0


_NUMBERS: contextvars.ContextVar[dict[str, int] | None] = contextvars.ContextVar("numbers of looks", default=None)


@contextlib.contextmanager
def one_page(*labels: str) -> Iterator[None]:
    """Figures that are drawn within it are of one page: a label keeps its colour and marker; `labels` come first."""
    token = _NUMBERS.set({label: i for i, label in enumerate(labels)})
    try:
        yield
    finally:
        _NUMBERS.reset(token)


def looks(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each label of a figure.

    They are those that the label has on this page, else, by first appearance, what is free there, in a colour of its
    own in the figure; beyond the palette both start again, out of step. What has no name is alone: it takes the first.
    """
    distinct, on_page = list(dict.fromkeys(labels)), _NUMBERS.get() or {}
    n = len(PALETTE)
    own = {label: on_page[label] for label in distinct if label in on_page}
    for label in distinct:
        if label not in own:
            used = {*own.values(), *(on_page.values() if label else ())}
            free = [i for i in range(len(used) + n) if i not in used]
            colours = {number % n for number in own.values()}
            own[label] = next((i for i in free if i % n not in colours), free[0])
    if (known := _NUMBERS.get()) is not None:
        known.update((label, number) for label, number in own.items() if label)
    return {label: (PALETTE[own[label] % n], MARKERS[(own[label] + own[label] // n) % n]) for label in distinct}


def line(label: str, look: tuple[str, str], style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=look[0], marker=look[1], linestyle=style, markersize=6.5, label=label)


def patch(label: str, colour: str, *, alpha: float = 0.35) -> Patch:
    """An entry of a legend for what is filled."""
    return Patch(facecolor=tint(colour, alpha=alpha), edgecolor=colour, linewidth=1.5, label=label)


def colour_bar(figure: Figure, axes: np.ndarray, scale: Normalize, label: str, **options: Any) -> None:
    """Beside the axes, of the colours of all figures that have a scale."""
    bar = figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, pad=0.03, **options)
    bar.outline.set_visible(False)
    bar.set_label(textwrap.fill(label, 28))


def tint(colour: str, *, alpha: float = 0.35) -> tuple[float, float, float]:
    """The colour on white, opaque."""
    red, green, blue = (1 - alpha * (1 - c) for c in to_rgb(colour))
    return red, green, blue
