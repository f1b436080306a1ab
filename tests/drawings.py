"""Figures read back as plain numbers: what stands where, in data and on the sheet.

`described(figure)` is what a reader would measure with a ruler: the ends of lines and boxes, offsets of points, words
with their places, ticks, limits, colours, sizes. What has a meaning is tested against closed forms; that the rest of a
drawing stays as it is, against numbers that are stored beside the tests. `JAXSEG_REDRAW=1 python -m pytest` on the file
of such a test stores them anew; look at the difference, and at the figures, before that is committed.
"""

import functools
import json
import math
import os
import pathlib
import re
import struct
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

_LONG = 16  # numbers; of more, a summary is kept
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawings(monkeypatch):
    """`(folder) -> {name of a figure: what is drawn there}`; in this test figures are described and not painted."""
    return _recorded(monkeypatch, laid_out=True)


@pytest.fixture
def plots(monkeypatch):
    """The same without the search for a layout, which takes most of the time: the data, and not where they lie."""
    return _recorded(monkeypatch, laid_out=False)


def _recorded(monkeypatch, *, laid_out):
    found = []

    def describe(figure, stream, **_):
        width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
        stream.write(_SIGNATURE + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"drawing %d" % len(found))
        found.append(described(figure, laid_out=laid_out))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", describe)
    number = lambda path: int(re.fullmatch(rb".*drawing (\d+)", path.read_bytes(), re.DOTALL)[1])
    return lambda folder: {path.stem: found[number(path)] for path in sorted(pathlib.Path(folder).glob("*.png"))}


def assert_as_stored(path: pathlib.Path, found: Any) -> None:
    """What was found is what the file has, to three digits; stores it where `JAXSEG_REDRAW` is set."""
    found = json.loads(json.dumps(found))
    if os.environ.get("JAXSEG_REDRAW"):
        path.parent.mkdir(exist_ok=True)
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert not list(differences(found, json.loads(path.read_text())))


def differences(a: Any, b: Any, place: str = "") -> Any:
    """Where two descriptions differ, and how."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from differences(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{place}[{i}]")
    elif isinstance(a, float | int) and isinstance(b, float | int):
        if not math.isclose(a, b, rel_tol=2e-3, abs_tol=2e-3):
            yield place, a, b
    elif a != b:
        yield place, a, b


def described(figure: Figure, *, laid_out: bool = True) -> dict[str, Any]:
    """All that is drawn; where it lies on the sheet, only if it is laid out."""
    if laid_out:
        figure.draw_without_rendering()
    return {
        "size": _numbers(figure.get_size_inches()),
        "axes": [_axes(ax, laid_out) for ax in figure.axes],
        "texts": [_text(text, laid_out) for text in figure.texts],
        "legends": [_legend(one, figure, laid_out) for one in figure.legends],
    }


def _axes(ax: Axes, laid_out: bool) -> dict[str, Any]:
    box = ax.get_position()
    words = [text for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label) if text.get_text()]
    about = {
        "box": _numbers((box.x0, box.y0, box.x1, box.y1)),
        "limits": _numbers((*ax.get_xlim(), *ax.get_ylim())),
        "on": ax.axison,
        "face": to_hex(ax.get_facecolor()),
        "words": [_text(text, laid_out) for text in words],
        "ticks": [_ticks(axis, limits) for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim()))],
        "spines": sorted(name for name, spine in ax.spines.items() if spine.get_visible()),
        "lines": _few(ax.lines, _line),
        "patches": _few(ax.patches, _patch),
        "collections": _few(ax.collections, _collection),
        "images": _few(ax.images, _image),
        "texts": _few(ax.texts, functools.partial(_text, laid_out=laid_out)),
    }
    return {name: value for name, value in about.items() if value not in ([], ["", ""])}


def _ticks(axis: Any, limits: tuple[float, float]) -> Any:
    """Those in view, with the numbers or words at them, and whether lines of a grid lead there."""
    low, high = sorted(limits)
    axis.get_ticklabels()  # brings them up to date
    ticks = [tick for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    shown = [tick.label1.get_text() for tick in ticks if tick.label1.get_visible()]
    grid = [tick.gridline.get_visible() for tick in ticks]
    if not ticks:
        return ""
    return {"at": _numbers([t.get_loc() for t in ticks]), "words": shown, "grid": any(grid), "pad": ticks[0].get_pad(),
            "length": ticks[0].tick1line.get_markersize()}  # fmt: skip


def _line(line: Any) -> dict[str, Any]:
    look = (to_hex(line.get_color()), line.get_linestyle(), line.get_marker(), line.get_linewidth())
    more = [line.get_markersize(), line.get_markeredgewidth(), line.get_zorder(), line.get_alpha() or 1]
    where = {"x": _numbers(line.get_xdata()), "y": _numbers(line.get_ydata())}
    if hasattr(line, "get_slope"):
        where = {"through": _numbers(line.get_xy1()), "slope": line.get_slope()}
    return {**where, "look": " ".join(map(str, look)), "more": more, **_rim(line)}


def _patch(patch: Any) -> dict[str, Any]:
    corners = patch.get_path().transformed(patch.get_patch_transform()).vertices
    face, line = (
        to_hex(patch.get_facecolor(), keep_alpha=True),
        f"{to_hex(patch.get_edgecolor())} {patch.get_linewidth()}",
    )
    return {"corners": _numbers(corners.ravel()), "face": face, "line": line, "order": patch.get_zorder()}


def _collection(one: Any) -> dict[str, Any]:
    paths = [path.vertices[np.isfinite(path.vertices).all(1)] for path in one.get_paths()]
    faces = np.reshape(one.get_facecolor(), (-1, 4))
    return {
        "paths": [_numbers((*v.min(0), *v.max(0), *v.mean(0))) for v in paths[:4] if len(v)],
        "offsets": _numbers(np.ravel(one.get_offsets())),
        "faces": _numbers(faces.ravel()),
        "lines": _numbers(np.ravel(one.get_edgecolor())),
        "sizes": [*_numbers(one.get_linewidth()), *_numbers(getattr(one, "get_sizes", list)())],
        **_rim(one),
    }


def _image(image: Any) -> dict[str, Any]:
    shown = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    shown = np.asarray(shown).reshape(*shown.shape[:2], -1)
    height, width = shown.shape[:2]
    parts = (shown, shown[: height // 2], shown[:, : width // 2], shown[height // 4 : -height // 4])
    means = [np.nan_to_num(np.nanmean(part, (0, 1))) if np.isfinite(part).any() else [] for part in parts]
    return {"shape": shown.shape, "means": _numbers(np.concatenate(means)), "extent": _numbers(image.get_extent()),
            "colours": [image.get_cmap().name, *_numbers(image.get_clim() if shown.shape[2] == 1 else ())]}  # fmt: skip


def _text(text: Text, laid_out: bool) -> list[Any]:
    """Words, where they are anchored, their size, and where they lie on the sheet, in parts of it."""
    anchor = [*(text.xy if isinstance(text, Annotation) else text.get_position())]
    look = f"{text.get_ha()} {text.get_va()} {to_hex(text.get_color())} {text.get_weight()}"
    lies = _place(text, text.get_figure()) if laid_out and text.get_text() and text.get_visible() else []
    return [text.get_text(), _numbers(anchor), look, text.get_fontsize(), text.get_rotation(), lies]


def _place(artist: Any, figure: Any) -> list[float]:
    """Left, bottom, right, top of what is drawn, in parts of the sheet."""
    box, (width, height) = artist.get_window_extent(), figure.bbox.size
    return [round(float(v), 3) for v in (box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height)]


def _legend(legend: Any, figure: Figure, laid_out: bool) -> dict[str, Any]:
    handles = [h.get_color() if hasattr(h, "get_color") else h.get_facecolor() for h in legend.legend_handles]
    return {
        "words": [text.get_text() for text in legend.get_texts()],
        "colours": [to_hex(colour) for colour in handles],
        "columns": legend._ncols,
        "box": _place(legend, figure) if laid_out else [],
        "lines": [_line(h) for h in legend.legend_handles if hasattr(h, "get_xdata")],
        "rims": [h.get_linewidth() for h in legend.legend_handles],
    }


def _rim(artist: Any) -> dict[str, Any]:
    """The strokes under it."""
    rims = [dict(effect._gc) for effect in artist.get_path_effects() or () if hasattr(effect, "_gc")]
    return {"rim": rims} if rims else {}


def _few(many: Any, describe: Any) -> list[Any]:
    """Of many alike their number, and the first and last."""
    parts = list(many)
    shown = parts if len(parts) <= 12 else [*parts[:4], *parts[-3:]]
    return [len(parts)] * (len(shown) < len(parts)) + [describe(part) for part in shown]


def _numbers(values: Any) -> list[float]:
    """To four digits, None where there is none; of many the number, the ends, mean and spread."""
    flat = np.ravel(np.asarray(np.ma.filled(np.ma.asarray(values, float), np.nan), float))
    if len(flat) > _LONG:
        known, weights = flat[np.isfinite(flat)], np.linspace(0, 1, len(flat))[np.isfinite(flat)]
        spread = [known.mean(), known.std(), (known * weights).mean()] if len(known) else []
        flat = np.array([len(flat), len(known), flat[0], flat[-1], *spread])
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in flat]


def kept(rows: Any) -> dict[str, Any]:
    """Rows of a table by columns: numbers as those of a drawing, of words how many there are and the first and last."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return {"rows": len(rows), **{name: _column([row.get(name) for row in rows]) for name in columns}}


def _column(values: list[Any]) -> Any:
    numeric = [math.nan if v is None else v for v in values]
    if all(isinstance(v, int | float) for v in numeric):
        return _numbers(np.array(numeric, float))
    words = list(map(str, values))
    numbers = [float(n.replace("\N{MINUS SIGN}", "-")) for w in words for n in re.findall(r"[-\u2212]?\d+\.\d+", w)]
    return [len(set(words)), words[0][:60], words[-1][:60], _numbers(numbers)]
