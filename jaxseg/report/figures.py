"""Arrays into PNG files: lines, boxes, dots, images, all drawn on a `canvas`."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from jaxseg.atomic import PathLike
from jaxseg.report import canvas
from jaxseg.report.canvas import GRID, INK, MUTED, SHADE, SMALL, TEXT, WIDTH
from jaxseg.results.text import estimate_text


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of `curves`: means over x, with the bounds of their intervals if any, each `[R]`; NaN leaves a gap.

    One without a label is in no legend.
    """

    label: str
    x: Any
    mean: Any
    low: Any = None
    high: Any = None
    style: str = "-"


def curves(
    path: PathLike,
    panels: Mapping[str, Sequence[Series]],
    *,
    xlabel: str,
    ylabel: str,
    ylim: tuple[float, float] | None = (0.0, 1.0),
    shade: tuple[float, float, str] | None = None,
) -> None:
    """Lines with shaded intervals: a panel per entry, side by side, or below each other if there are more than two.

    A label has the same colour and marker in every panel.

    Args:
      path: PNG to write.
      panels: title -> series. An empty title is fine for a single panel.
      xlabel: of the axis.
      ylabel: of the axis.
      ylim: range of the shared y axis; None: from the data.
      shade: from x, to x, and the words that say what this range is.
    """
    _need(panels, "panels")
    looks = canvas.looks(series.label for panel in panels.values() for series in panel)
    stacked = len(panels) > 2
    height = 1.1 + 2.2 * len(panels) if stacked else (3.45 if len(panels) == 2 else 3.7)
    with canvas.sheet(path, (WIDTH, height + canvas.extra_lines(looks))) as figure:
        grid = (len(panels), 1) if stacked else (1, len(panels))
        axes = figure.subplots(*grid, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, panel in zip(axes, panels.values(), strict=True):
            ax.grid(axis="y")
            for series in panel:
                _curve(ax, series, looks[series.label])
            if ylim is not None:
                ax.set_ylim(*ylim)
            ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
            if all(np.isnan(_floats(series.mean)).all() for series in panel):
                ax.text(0.5, 0.5, "nothing defined", transform=ax.transAxes, ha="center", color=MUTED)
        for ax, title in zip(axes, panels, strict=True):
            words = not stacked or ax is axes[0]  # below each other, the first panel explains the others
            lines = _shade(ax, shade, words=words, width=20 if len(panels) == 2 else 48) if shade else 0
            if title:
                ax.set_title(title, pad=6 + lines * 1.25 * SMALL + (3 if lines else 0))
        canvas.axis_labels(figure, axes, xlabel, ylabel, stacked=stacked)
        styles = {series.label: series.style for panel in panels.values() for series in panel}
        canvas.legend(figure, [canvas.line(label, look, styles[label]) for label, look in looks.items() if label])


def boxes(path: PathLike, panels: Mapping[str, Mapping[str, tuple[Any, Any]]], *, xlabel: str, ylabel: str) -> None:
    """Box plots of the cases at every x: quartiles, median, whiskers of Tukey (1.5 interquartile ranges), outliers.

    Panels lie below each other. Under each box stands how many cases are defined, where there is room for it.

    Args:
      path: PNG to write.
      panels: title -> label -> (x `[R]`, values `[N,R]`); NaN is dropped.
      xlabel: of the axis.
      ylabel: of the axis.
    """
    _need(panels, "panels")
    looks = canvas.looks(label for panel in panels.values() for label in panel)
    positions = np.unique(np.concatenate([_floats(x).ravel() for panel in panels.values() for x, _ in panel.values()]))
    spacing = float(np.diff(positions).min()) if len(positions) > 1 else 1.0
    slot = 0.84 * spacing / max(len(looks), 1)
    span = float(np.ptp(positions)) + spacing
    slot_points = slot / span * (WIDTH - 0.9) * 72
    with canvas.sheet(path, (WIDTH, 1.2 + 2.6 * len(panels) + canvas.extra_lines(looks))) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (title, panel) in zip(axes, panels.items(), strict=True):
            ax.grid(axis="y")
            if title:
                ax.set_title(title)
            counts = []
            for i, label in enumerate(looks):
                if label in panel:
                    counts += _boxes_of(ax, *panel[label], (i - (len(looks) - 1) / 2) * slot, slot, looks[label][0])
            room = _counts(ax, counts, slot_points)
            ax.tick_params(axis="x", pad=3 + room, length=0 if room else 3.5, labelbottom=True)
        ticks = positions[:: -math.ceil(len(positions) / 10)]  # from the end, so that the last box has its number
        axes[-1].set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes[-1].set_xlim(positions[0] - spacing / 2, positions[-1] + spacing / 2)
        canvas.axis_labels(figure, axes, xlabel, ylabel, stacked=len(panels) > 1)
        canvas.legend(figure, [canvas.patch(label, colour) for label, (colour, _) in looks.items()])


def dots(
    path: PathLike,
    rows: Sequence[tuple[str, str, float, float, float]],
    *,
    xlabel: str,
    zero: bool = True,
    limits: Sequence[float] = (),
    limit: str = "",
) -> None:
    """Estimates as dots with whiskers, one row each from the top, the numbers beside them.

    Args:
      path: PNG to write.
      rows: (label, group, mean, low, high); groups have a colour and a marker each; a NaN mean reads "undefined".
      xlabel: of the axis.
      zero: draw a vertical line at 0, and keep 0 in view.
      limits: where each row has a bar of its own; none: nowhere.
      limit: what these bars are, in words.
    """
    _need(rows, "rows")
    looks = canvas.looks(group for _, group, *_ in rows)
    names = [group for group in looks if group]
    names = names if len(names) > 1 else []
    more = canvas.extra_lines((*names, limit) if limit else names)
    labels = [textwrap.fill(label, 24) for label, *_ in rows]
    heights = np.array([0.2 + 0.18 * (1 + label.count("\n")) for label in labels])
    middles = np.cumsum(heights) - heights / 2
    with canvas.sheet(path, (WIDTH, 1.1 + float(heights.sum()) + more)) as figure:
        ax = figure.subplots()
        ax.grid(axis="x")
        if len(limits):
            ax.vlines(limits, middles - 0.45 * heights, middles + 0.45 * heights, color=INK, linewidth=1.6)
        if zero:
            ax.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
        for y, (_, group, mean, low, high) in zip(middles, rows, strict=True):
            colour, marker = looks[group]
            ax.plot([low, high], [y, y], color=colour, linewidth=2.2)
            ax.plot([mean], [y], marker, color=colour, markersize=8, markeredgecolor="white", markeredgewidth=0.8)
            text = estimate_text(mean, low, high).replace("-", "\N{MINUS SIGN}")
            ax.annotate(text, (1.03, y), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
        ax.set_ylim(float(heights.sum()), 0.0)
        ax.set_yticks(middles, labels)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        figure.supxlabel(xlabel, fontsize=TEXT)
        handles = [canvas.line(name, looks[name], "-") for name in names]
        handles += [Line2D([], [], color=INK, marker="|", markersize=11, linestyle="", label=limit)] * bool(limit)
        canvas.legend(figure, handles)


def overlays(path: PathLike, rows: Sequence[tuple[str, Any, Any, Mapping[str, Any]]]) -> None:
    """Cases with annotation and predictions: the image, then a column per model.

    The annotation is a white line with a black rim, a prediction is filled in the colour of its model.

    Args:
      path: PNG to write.
      rows: (name, image uint8 `[H,W,3]`, annotation `[H,W]`, model -> prediction `[H,W]`); masks: above 0 is inside.
    """
    _need(rows, "rows")
    looks = canvas.looks(model for *_, predictions in rows for model in predictions)
    shapes = [np.shape(image)[:2] for _, image, *_ in rows]
    names, foot = [name for name, *_ in rows], 0.42 + canvas.extra_lines(("annotation", *looks))
    with canvas.image_grid(path, names, ("image", *looks), shapes, foot=foot) as (figure, axes):
        for line, (_, image, label, predictions) in zip(axes, rows, strict=True):
            for ax, model in zip(line, (None, *looks), strict=True):
                if model is None or model in predictions:
                    _image(ax, image)
                    if model is not None:
                        _fill(ax, image, predictions[model], looks[model][0])
                    _contour(ax, image, label, "white", rim=True)
        rim = [Stroke(linewidth=3.2, foreground="black"), Normal()]
        handles: list[Any] = [Line2D([], [], color="white", linewidth=1.6, path_effects=rim, label="annotation")]
        handles += [canvas.patch(model, colour, alpha=0.6) for model, (colour, _) in looks.items()]
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.0, 0.0),
            ncols=canvas.ncols([handle.get_label() for handle in handles]),
        )


def strip(path: PathLike, rows: Mapping[str, Sequence[tuple[Any, Any]]], *, titles: Sequence[str]) -> None:
    """Rows of images with a mask over them, such as a window that slides: the images first, then each model's masks.

    Args:
      path: PNG to write.
      rows: name -> one (image uint8 `[H,W,3]`, mask `[H,W]` or None) per column. Without a mask the image stands
        alone; the rows with masks take the colours of the palette in turn.
      titles: one per column.
    """
    _need(rows, "rows")
    for name, cells in rows.items():
        if len(cells) != len(titles):
            raise ValueError(f"row {name!r} has {len(cells)} images, but there are {len(titles)} titles; give one each")
    looks = canvas.looks(name for name, cells in rows.items() if any(mask is not None for _, mask in cells))
    shapes = [np.shape(image)[:2] for cells in rows.values() for image, _ in cells]
    with canvas.image_grid(path, list(rows), titles, shapes) as (_, axes):
        for line, (name, cells) in zip(axes, rows.items(), strict=True):
            for ax, (image, mask) in zip(line, cells, strict=True):
                _image(ax, image)
                if mask is not None:
                    _fill(ax, image, mask, looks[name][0])


def heat_maps(
    path: PathLike, maps: Mapping[str, Any], *, extent_label: str, label: str = "", shared: bool = True
) -> None:
    """Maps over the image's plane as small multiples, with a cross-hair at the centre and one colour bar.

    Both axes run from -1 to 1, from border to border; the first row of a map is at the top.

    Args:
      path: PNG to write.
      maps: title -> `[n,n]`; NaN is grey.
      extent_label: what the axes are, such as "offset from the image's centre, half sides".
      label: what the colours are.
      shared: one colour scale for all panels, so that colours compare across them. Otherwise each panel is divided by
        its largest absolute value, and only shapes compare; the colour bar says so.
    """
    _need(maps, "maps")
    arrays = [_floats(array) for array in maps.values()]
    if not shared:
        arrays = [array / (np.abs(array[np.isfinite(array)]).max(initial=0.0) or 1.0) for array in arrays]
        label = f"{label} (share of each panel's maximum)".strip()
    finite = np.concatenate([array[np.isfinite(array)] for array in arrays])
    scale = Normalize(min(0.0, finite.min(initial=0.0)), finite.max(initial=0.0) or 1.0)
    cols = len(maps) if len(maps) < 4 else math.ceil(len(maps) / math.ceil(len(maps) / 3))
    lines = math.ceil(len(maps) / cols)
    size = (WIDTH, 0.65 + lines * (0.34 + (WIDTH - 1.75) / max(cols, 2)))
    with canvas.sheet(path, size, layout="compressed") as figure:
        axes = figure.subplots(lines, cols, sharex=True, sharey=True, squeeze=False)
        for ax, title, array in zip(axes.ravel(), maps, arrays, strict=False):
            ax.set_facecolor(GRID)  # shines through where a map is NaN
            ax.imshow(array, cmap="viridis", norm=scale, extent=(-1, 1, 1, -1), interpolation="nearest")
            for cross in (ax.axhline, ax.axvline):
                rim = [Stroke(linewidth=2.0, foreground="black", alpha=0.5), Normal()]
                cross(0.0, color="white", linewidth=0.8, path_effects=rim)
            ax.set_title(title)
            ax.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        for ax in axes.ravel()[len(maps) :]:
            ax.set_axis_off()
        canvas.colour_bar(figure, axes, scale, label, shrink=0.9, aspect=20 * lines)
        figure.supxlabel(extent_label, fontsize=TEXT)


def scatter(path: PathLike, panels: Mapping[str, tuple[Any, Any]], *, xlabel: str, ylabel: str, label: str) -> None:
    """Points coloured by a number, a panel per entry on one colour scale; each panel has its own axes.

    Args:
      path: PNG to write.
      panels: title -> (points `[P,2]`, values `[P]`).
      xlabel: of all panels.
      ylabel: of all panels.
      label: what the colours are.
    """
    _need(panels, "panels")
    values = np.concatenate([_floats(value) for _, value in panels.values()])
    scale = Normalize(values.min(), values.max())
    cols = 1 if len(panels) == 1 else 2
    lines = math.ceil(len(panels) / cols)
    with canvas.sheet(path, (WIDTH, 0.7 + 2.6 * lines)) as figure:
        axes = figure.subplots(lines, cols, squeeze=False)
        for ax, (title, (points, value)) in zip(axes.ravel(), panels.items(), strict=False):
            points, value = _floats(points), _floats(value)
            order = np.argsort(-value)  # what is near the border lies on top
            ax.scatter(*points[order].T, c=value[order], norm=scale, cmap="viridis", s=5, linewidths=0)
            ax.set_title(title)
            ax.set(xticks=(), yticks=())
        for ax in axes.ravel()[len(panels) :]:
            ax.set_axis_off()
        canvas.colour_bar(figure, axes, scale, label, aspect=20 * lines)
        figure.supxlabel(xlabel, fontsize=TEXT)
        figure.supylabel(ylabel, fontsize=TEXT)


def points(
    path: PathLike, panels: Mapping[str, Mapping[str, tuple[Any, Any]]], *, ylabel: str, diagonal: bool = False
) -> None:
    """One number of every case against another: panels side by side, each with its own x axis, on one y axis.

    Args:
      path: PNG to write.
      panels: what is on the x axis -> label -> (x `[N]`, y `[N]`); NaN is left out.
      ylabel: of all panels.
      diagonal: draw where the two are equal.
    """
    _need(panels, "panels")
    looks = canvas.looks(label for panel in panels.values() for label in panel)
    with canvas.sheet(path, (WIDTH, (4.4 if len(panels) == 1 else 3.5) + canvas.extra_lines(looks))) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        axes[0].set_ylabel(ylabel)
        for ax, (xlabel, panel) in zip(axes, panels.items(), strict=True):
            ax.grid()
            ax.set_xlabel(xlabel)
            if diagonal:
                ax.axline((0.0, 0.0), slope=1.0, color=INK, linewidth=1.0, zorder=1)
            for label, (x, y) in panel.items():
                colour, marker = looks[label]
                ax.plot(_floats(x), _floats(y), marker, color=colour, alpha=0.6, markeredgecolor="white",
                        markeredgewidth=0.4)  # fmt: skip
            ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if len([label for label in looks if label]) > 1:
            canvas.legend(figure, [canvas.line(label, look, "") for label, look in looks.items()])


# ------------------------------------------------------------------------------------------------------------- pieces


def _curve(ax: Axes, series: Series, look: tuple[str, str]) -> None:
    bounds = (series.mean if bound is None else bound for bound in (series.low, series.high))
    x, mean, low, high = map(_floats, (series.x, series.mean, *bounds))
    if not x.shape == mean.shape == low.shape == high.shape or x.ndim != 1:
        raise ValueError(
            f"series {series.label!r}: x {x.shape}, mean {mean.shape}, low {low.shape} and high {high.shape} must be "
            "vectors of one length"
        )
    colour, marker = look
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    dense = len(x) > 40
    ax.plot(x, mean, color=colour, linestyle=series.style, marker="" if dense else marker, markeredgecolor="white",
            markeredgewidth=0.6)  # fmt: skip


def _shade(ax: Axes, shade: tuple[float, float, str], *, words: bool, width: int) -> int:
    """Shades a range of x and writes what it is above the axes, clear of the data; returns the lines of text."""
    start, end, text = shade
    left, right = ax.get_xlim()
    ax.axvspan(start, end, color=SHADE, linewidth=0, zorder=0)
    ax.set_xlim(left, right)
    if not words:
        return 0
    shown = min(max(start, left), right), max(min(end, right), left)
    middle = (sum(shown) / 2 - left) / (right - left)
    at, side = (middle, "center")  # near an end the text would leave the panel
    if middle > 0.66:
        at, side = (shown[1] - left) / (right - left), "right"
    elif middle < 0.34:
        at, side = (shown[0] - left) / (right - left), "left"
    text = textwrap.fill(text, width)
    ax.text(at, 1.015, text, transform=ax.transAxes, ha=side, va="bottom", fontsize=SMALL, color=MUTED)
    return 1 + text.count("\n")


def _boxes_of(ax: Axes, x: Any, values: Any, offset: float, slot: float, colour: str) -> list[tuple[float, int, str]]:
    """Draws the boxes of one label; returns (position, defined cases, colour) of each."""
    x, values = _floats(x), _floats(values)
    if values.ndim != 2 or x.shape != values.shape[1:]:
        raise ValueError(f"x {x.shape} and values {values.shape} do not match: values must be [N,{len(x)}]")
    columns = [column[~np.isnan(column)] for column in values.T]
    drawn = [(column, at + offset) for column, at in zip(columns, x, strict=True) if len(column)]
    if drawn:
        line = {"color": colour, "linewidth": 1.2}
        ax.boxplot(
            [column for column, _ in drawn],
            positions=[at for _, at in drawn],
            widths=0.8 * slot,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": canvas.tint(colour), "edgecolor": colour, "linewidth": 1.2},
            medianprops={"color": INK, "linewidth": 1.8, "solid_capstyle": "butt"},
            whiskerprops=line,
            showcaps=False,
            flierprops={"marker": ".", "markersize": 4, "markerfacecolor": colour, "markeredgewidth": 0, "alpha": 0.5},
        )
    return [(at + offset, len(column), colour) for column, at in zip(columns, x, strict=True)]


def _counts(ax: Axes, counts: Sequence[tuple[float, int, str]], slot: float) -> float:
    """Writes the numbers of cases under the axis, upright if they must; returns the points they take, 0 if none fit."""
    digits, size = max((len(str(n)) for _, n, _ in counts), default=0), 8.5
    flat, upright = slot >= 0.68 * size * digits, slot >= size
    if not counts or not (flat or upright):
        return 0.0
    for at, n, colour in counts:
        ax.annotate(str(n), (at, 0), (0, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
                    ha="center", va="top", rotation=0 if flat else 90, fontsize=size, color=colour)  # fmt: skip
    ax.annotate("n", (0, 0), (-6, -8), xycoords="axes fraction", textcoords="offset points", ha="right", va="top",
                fontsize=SMALL, color=MUTED)  # fmt: skip
    return 4 + (size if flat else 0.66 * size * digits)


def _image(ax: Axes, image: Any) -> None:
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or pixels.dtype != np.uint8:
        raise ValueError(f"an image is {pixels.dtype} {pixels.shape}; it must be uint8 [H,W,3] or [H,W,1]")
    ax.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _fill(ax: Axes, image: Any, mask: Any, colour: str) -> None:
    """A prediction: translucent inside, a line around it."""
    inside = _inside(image, mask)
    layer = np.zeros((*inside.shape, 4))
    layer[inside] = (*to_rgb(colour), 0.5)
    ax.imshow(layer, interpolation="nearest")
    _contour(ax, image, mask, colour, rim=False)


def _contour(ax: Axes, image: Any, mask: Any, colour: str, *, rim: bool) -> None:
    inside = np.pad(_inside(image, mask), 1)  # so that the line closes along the image's border
    if inside.any():
        rows, cols = (np.arange(-1, n - 1) for n in inside.shape)
        line = ax.contour(cols, rows, inside, levels=[0.5], colors=[colour], linewidths=1.4)
        if rim:
            line.set_path_effects([Stroke(linewidth=2.8, foreground="black"), Normal()])
        height, width = inside.shape
        ax.set(xlim=(-0.5, width - 2.5), ylim=(height - 2.5, -0.5))


def _inside(image: Any, mask: Any) -> np.ndarray:
    inside = np.asarray(mask) > 0
    if inside.shape != np.shape(image)[:2]:
        raise ValueError(f"a mask is {inside.shape}, its image {np.shape(image)[:2]}; bring them to one size")
    return inside


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _need(values: Sequence[Any] | Mapping[str, Any], name: str) -> None:
    if not values:
        raise ValueError(f"{name} is empty: there is nothing to draw")
