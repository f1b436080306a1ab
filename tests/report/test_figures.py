"""Every figure shows its data: colours that must be there are, and other data give another picture."""

import hashlib

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from jaxseg.report import canvas, figures
from jaxseg.report.canvas import BLUE, VERMILLION
from jaxseg.report.figures import Series

X = np.arange(8.0, 129.0, 8.0)
NAN = np.full(len(X), np.nan)
YY, XX = np.mgrid[:32, :32]
IMAGE = np.full((32, 32, 3), 120, np.uint8)


def disc(x, y=16.0, radius=7.0):
    return np.hypot(XX - x, YY - y) < radius


def pixels(path):
    image = imread(path)[..., :3]
    assert image.shape[1] == round(canvas.WIDTH * canvas.DPI)
    assert image.shape[0] > 200 and np.ptp(image) > 0.5
    return image


def count(image, colour, tolerance=0.02):
    return int((np.abs(image - np.array(to_rgb(colour))).max(-1) < tolerance).sum())


def line(label, mean, style="-"):
    return Series(label, X, mean, mean - 0.05, mean + 0.05, style)


def draw_curves(path, shift=0.0):
    falling = 0.9 - X / 200
    panels = {"a": [line("first", falling)], "b": [line("first", falling), line("second", falling - shift, "--")]}
    figures.curves(path, panels, xlabel="distance", ylabel="Dice", shade=(112, 128, "border"))


def draw_boxes(path, shift=0.0):
    values = np.random.default_rng(0).uniform(0.4, 0.8, (30, len(X)))
    values[:, 0] = np.nan
    values[::3, 3] = np.nan
    panels = {"a": {"first": (X, values), "second": (X, values - shift)}}
    figures.boxes(path, panels, xlabel="distance", ylabel="Dice")


def draw_dots(path, shift=0.0):
    rows = [("one", "first", 0.3, 0.2, 0.4), ("two", "second", 0.1 + shift, shift, 0.2 + shift)]
    figures.dots(path, [*rows, ("none", "first", np.nan, np.nan, np.nan)], xlabel="gap")


def draw_overlays(path, shift=0.0):
    predictions = {"first": disc(14), "second": disc(18 + 20 * shift)}
    empty = {"first": np.zeros((32, 32)), "second": np.ones((32, 32))}
    figures.overlays(path, [("case 1", IMAGE, disc(16), predictions), ("case 2", IMAGE, disc(0), empty)])


def draw_strip(path, shift=0.0):
    rows = {name: [(IMAGE, disc(at + 20 * shift)) for at in (8, 16, 24)] for name in ("first", "second")}
    figures.strip(path, {"image": [(IMAGE, None)] * 3, **rows}, titles=("left", "middle", "right"))


def draw_points(path, shift=0.0):
    x = np.linspace(0, 1, 20)
    left = {"first": (x, x**2), "second": (x, x - shift)}
    right = {"first": (9 * x, np.where(x < 1, x, np.nan))}
    figures.points(path, {"mean SA": left, "VoG": right}, ylabel="Dice", diagonal=True)


def draw_heat_maps(path, shift=0.0):
    maps = {"a": np.exp(-((XX - 16) ** 2) / 50.0), "b": np.where(YY < 3, np.nan, XX / 62.0 + shift)}
    figures.heat_maps(path, maps, extent_label="offset", label="share")


ALL = [draw_curves, draw_boxes, draw_dots, draw_overlays, draw_strip, draw_points, draw_heat_maps]
OF_TWO = ALL[:-1]  # groups, the first blue and the second vermillion


@pytest.mark.parametrize("draw", ALL)
def test_figures_depend_on_their_data_alone_and_have_their_colours(tmp_path, draw):
    before = dict(matplotlib.rcParams)
    draw(tmp_path / "deep" / "a.png")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black", "lines.linewidth": 9}):
        draw(tmp_path / "again.png")
    draw(tmp_path / "other.png", shift=0.2)
    first, again, _ = ((tmp_path / n).read_bytes() for n in ("deep/a.png", "again.png", "other.png"))
    assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()
    assert b"matplotlib" not in first.lower() and b"tEXt" not in first
    a, b = pixels(tmp_path / "deep" / "a.png"), pixels(tmp_path / "other.png")
    assert a.shape == b.shape and (np.abs(a - b).max(-1) > 0.1).sum() > 200
    assert dict(matplotlib.rcParams) == before
    assert (first[:8], count(a, "white") > 5000) == (b"\x89PNG\r\n\x1a\n", True)
    if draw in OF_TWO:
        assert count(a, BLUE) > 100 and count(a, VERMILLION) > 100


def test_a_mean_line_lies_where_the_data_are(tmp_path):
    heights = []
    for level in (0.2, 0.8):
        figures.curves(tmp_path / "a.png", {"": [line("first", 0 * X + level)]}, xlabel="x", ylabel="y")
        image = pixels(tmp_path / "a.png")
        rows = np.flatnonzero((np.abs(image[:, 300:900] - np.array(to_rgb(BLUE))).max(-1) < 0.02).sum(1) > 200)
        heights.append(image.shape[0] - rows.mean())
    assert heights[1] - heights[0] > 200


def test_labels_keep_their_colour_in_every_panel(tmp_path):
    mean = 0 * X + 0.5
    figures.curves(tmp_path / "a.png", {"a": [line("one", mean)], "b": [line("one", mean)]}, xlabel="x", ylabel="y")
    assert count(pixels(tmp_path / "a.png"), VERMILLION) == 0


def test_more_than_two_panels_are_stacked(tmp_path):
    panels = {name: [line("first", 0 * X + 0.5)] for name in "abc"}
    figures.curves(tmp_path / "a.png", panels, xlabel="x", ylabel="y", ylim=None, shade=(0, 20, "the centre"))
    height, width, _ = pixels(tmp_path / "a.png").shape
    assert height > width


def test_nothing_defined_is_no_error(tmp_path):
    figures.curves(tmp_path / "a.png", {"": [Series("first", X, NAN, NAN, NAN)]}, xlabel="x", ylabel="y", ylim=None)
    figures.boxes(tmp_path / "b.png", {"": {"first": (X, np.tile(NAN, (4, 1)))}}, xlabel="x", ylabel="y")
    figures.boxes(tmp_path / "c.png", {"": {"first": (X[:1], np.zeros((0, 1)))}}, xlabel="x", ylabel="y")
    figures.dots(tmp_path / "d.png", [("a", "g", np.nan, np.nan, np.nan)], xlabel="x", zero=False)
    for shared in (True, False):
        maps = {"a": np.full((4, 4), np.nan), "b": np.zeros((4, 4))}
        figures.heat_maps(tmp_path / "e.png", maps, extent_label="x", shared=shared)
    assert len(list(tmp_path.iterdir())) == 5


def test_box_counts_are_the_defined_cases(tmp_path):
    """Two cases more or less at one x change nothing but the number below it, where the values are all alike."""
    images = []
    for undefined in (0, 2):
        values = np.full((9, 3), 0.5)
        values[:undefined, 1] = np.nan
        figures.boxes(tmp_path / "a.png", {"": {"first": (X[:3], values)}}, xlabel="x", ylabel="y")
        images.append(pixels(tmp_path / "a.png"))
    changed = np.argwhere(np.abs(images[0] - images[1]).max(-1) > 0.1)
    assert 0 < len(changed) < 300 and np.ptp(changed[:, 0]) < 30 and np.ptp(changed[:, 1]) < 30


def test_scales_of_heat_maps(tmp_path):
    """A map ten times as weak is dark on the shared scale and, each on its own, the same picture."""
    strong = np.where(disc(16), 1.0, 0.0)
    bright = []
    for shared in (True, False):
        figures.heat_maps(tmp_path / "a.png", {"a": strong, "b": strong / 10}, extent_label="x", shared=shared)
        bright.append(count(pixels(tmp_path / "a.png"), matplotlib.colormaps["viridis"](1.0)[:3]))
    assert bright[1] > 1.5 * bright[0]  # not twice: the longer label of the colours leaves the panels less room


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="panels is empty"):
        figures.curves(path, {}, xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="one length"):
        figures.curves(path, {"": [Series("s", X, X[1:], X, X)]}, xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match=r"\[N,16\]"):
        figures.boxes(path, {"": {"first": (X, np.zeros((4, 3)))}}, xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="bring them to one size"):
        figures.overlays(path, [("case", IMAGE, np.ones((16, 16)), {"first": disc(3)})])
    with pytest.raises(ValueError, match="uint8"):
        figures.overlays(path, [("case", IMAGE / 255.0, disc(3), {"first": disc(3)})])
    with pytest.raises(ValueError, match="titles"):
        figures.strip(path, {"image": [(IMAGE, None)]}, titles=("a", "b"))
    assert not path.exists()


def test_a_tint_is_the_colour_on_white():
    assert canvas.tint("#ff0000", alpha=0.25) == (1.0, 0.75, 0.75)
    assert canvas.tint("#000000", alpha=1.0) == (0.0, 0.0, 0.0)


def test_boxes_have_at_most_ten_numbers_and_the_last_one(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        figures.canvas, "axis_labels", lambda figure, axes, *_, **__: given.append(axes[-1].get_xticks())
    )
    for boxes in (9, 10, 11, 25, 30):
        x = np.arange(float(boxes))
        figures.boxes(tmp_path / "a.png", {"": {"first": (x, np.full((3, boxes), 0.5))}}, xlabel="x", ylabel="y")
        (ticks,) = given
        assert max(ticks) == boxes - 1 and len(ticks) == -(-boxes // -(-boxes // 10))
        given.clear()
