"""Where figures draw what: lines and boxes at their numbers, and the rest of every drawing as it is."""

import pathlib

import numpy as np
import pytest

from jaxseg.report import canvas, figures
from jaxseg.report.figures import Series
from tests.drawings import assert_as_stored

STORED = pathlib.Path(__file__).parent / "drawn"
X = np.arange(8.0, 81.0, 8.0)
FALLING = 0.9 - X / 200
NAN = np.full(len(X), np.nan)
ROWS, COLUMNS = np.mgrid[:24, :32]
IMAGE = (ROWS * 4 + COLUMNS * 3)[..., None].astype(np.uint8)
LONG = "a second network with a longer name"  # a line of its own in legends
COLOUR = np.concatenate([IMAGE, 255 - IMAGE, IMAGE // 2], -1)


def disc(x, y=12.0, radius=6.0):
    return np.hypot(COLUMNS - x, ROWS - y) < radius


def series(label, mean, style="-", x=X):
    return Series(label, x, mean, mean - 0.05, mean + 0.1, style)


def curves(path, panels, **options):
    figures.curves(path, panels, **({"xlabel": "distance", "ylabel": "Dice"} | options))


def drawn_curves(folder):
    one, two = series("first", FALLING), series("second", np.where(X == 24, np.nan, FALLING - 0.2), "--")
    curves(folder / "curves_one.png", {"": [one]}, shade=(60, 80, "the border"))
    curves(folder / "curves_two.png", {"a": [one], "b": [one, two]}, shade=(4, 20, "a band whose words fill two lines"))
    curves(
        folder / "curves_stack.png", {"a": [two], "b": [one], "c": [one]}, ylim=None, shade=(30, 50, "the middle " * 6)
    )
    dense = [series(f"of {n}", np.linspace(0.2, 0.7, n), x=np.arange(float(n))) for n in (40, 41)]
    curves(folder / "curves_dense.png", {"dense": dense}, ylim=(0.1, 0.9))
    curves(folder / "curves_none.png", {"none": [Series("first", X, NAN, NAN, NAN)], "one": [one]})
    many = [series(f"network number {i}", FALLING - i / 20) for i in range(9)]
    curves(folder / "curves_many.png", {"": many}, shade=(90, 100, "outside"))
    curves(folder / "curves_sides.png", {"a": [one], "b": [one]}, shade=(70, 78, "right"))


def drawn_boxes(folder):
    values = np.random.default_rng(0).uniform(0.4, 0.8, (30, len(X)))
    values[0, 5], values[:, 0], values[::3, 3] = 0.0, np.nan, np.nan
    name = {"xlabel": "distance", "ylabel": "Dice"}
    panels = {"a": {"first": (X, values), LONG: (X[2:5], values[:, 2:5] - 0.1)}, "b": {LONG: (X, values)}}
    figures.boxes(folder / "boxes_two.png", panels, **name)
    figures.boxes(folder / "boxes_one.png", {"": {"first": (X[:1], values[:, 1:2])}}, **name)
    x = np.arange(30.0)
    figures.boxes(folder / "boxes_upright.png", {"": {"first": (x, np.full((12, 30), 0.5) + x / 100)}}, **name)
    figures.boxes(
        folder / "boxes_uncounted.png", {"": {k: (x, np.full((12, 30), 0.5)) for k in ("a", "b", LONG)}}, **name
    )


def drawn_dots(folder):
    rows = [("one", "first", 0.3, 0.2, 0.4), ("a label that fills two lines", LONG, -0.1, -0.3, 0.05)]
    figures.dots(folder / "dots_two.png", [*rows, ("none", "first", np.nan, np.nan, np.nan)], xlabel="gap")
    figures.dots(folder / "dots_one.png", [("one", "", 3.0, 2.5, 3.25)], xlabel="gap", zero=False)


def drawn_pictures(folder):
    rows = [
        ("case 1", COLOUR, disc(16), {"first": disc(14), LONG: disc(18)}),
        ("case 2", IMAGE[:16, :20], disc(2, 6)[:16, :20], {LONG: np.ones((16, 20))}),
        ("case 3", COLOUR, np.zeros((24, 32)), {"first": np.zeros((24, 32))}),
    ]
    figures.overlays(folder / "overlays.png", rows)
    rows = {"image": [(COLOUR, None)] * 3, **{name: [(IMAGE, disc(x)) for x in (8, 16, 24)] for name in ("a", "b")}}
    figures.strip(folder / "strip.png", rows, titles=("left", "a rather long title", "right"))


def drawn_maps(folder):
    maps = [np.exp(-((COLUMNS - 16) ** 2) / 50.0), np.where(ROWS < 3, np.nan, COLUMNS / 62.0), ROWS - 3.0, 0.0 * ROWS]
    for count in (1, 3, 4, 7):
        given = {f"map {i}": maps[i % 4] for i in range(count)}
        options = {"extent_label": "offset from the centre", "label": "masks per cell of the map", "shared": count != 4}
        figures.heat_maps(folder / f"maps_{count}.png", given, **options)


def drawn_points(folder):
    points = np.random.default_rng(0).normal(size=(12, 2)).round(2)
    name = {"xlabel": "first", "ylabel": "second", "label": "distance from the border, 1 in the middle"}
    for count in (1, 3):
        given = {f"panel {i}": (points + i, np.linspace(0.1 * i, 1, 12)) for i in range(count)}
        figures.scatter(folder / f"scatter_{count}.png", given, **name)
    x = np.linspace(0, 1, 7)
    left = {"first": (x, x**2), LONG: (x, np.where(x < 1, x - 0.2, np.nan))}
    figures.points(
        folder / "points_two.png", {"mean SA": left, "VoG": {"first": (9 * x, x)}}, ylabel="Dice", diagonal=True
    )
    figures.points(folder / "points_one.png", {"mean SA": {"": (x, x**2)}}, ylabel="Dice")


def of(drawings, tmp_path):
    """The axes of the one figure that was drawn."""
    (drawing,) = drawings(tmp_path).values()
    return drawing["axes"]


def test_a_line_goes_through_its_means_within_its_interval(tmp_path, drawings):
    curves(tmp_path / "a.png", {"left": [series("first", FALLING)], "right": [series("first", FALLING / 2)]})
    for ax, mean in zip(of(drawings, tmp_path), (FALLING, FALLING / 2), strict=True):
        (line,), (band,) = ax["lines"], ax["collections"]
        assert line["x"] == pytest.approx(X) and line["y"] == pytest.approx(mean, rel=1e-3)
        assert band["paths"][0][:4] == pytest.approx([X[0], mean.min() - 0.05, X[-1], mean.max() + 0.1], rel=1e-3)
        assert ax["limits"][2:] == [0, 1]


def test_a_shade_covers_its_range_and_its_words_stand_over_it(tmp_path, drawings):
    for start, end, side in ((20, 30, "left"), (40, 50, "center"), (70, 78, "right")):
        curves(tmp_path / "a.png", {"": [series("first", FALLING)]}, shade=(start, end, "here"))
        (ax,) = of(drawings, tmp_path)
        left, right = ax["limits"][:2]
        x = ax["patches"][0]["corners"][::2]
        assert (min(x), max(x)) == (start, end)
        (words, (place, _), look, *_), *_ = ax["texts"]
        anchor = {"left": start, "center": (start + end) / 2, "right": end}[side]
        assert words == "here" and look.startswith(side)
        assert place == pytest.approx((anchor - left) / (right - left), abs=1e-3)


def test_dots_stand_in_the_middle_of_their_rows_with_their_intervals(tmp_path, drawings):
    rows = [
        ("one", "first", 0.3, 0.2, 0.4),
        ("two " * 8, "second", -0.1, -0.3, 0.05),
        ("three", "first", 0.5, 0.4, 0.6),
    ]
    figures.dots(tmp_path / "a.png", rows, xlabel="gap")
    (ax,) = of(drawings, tmp_path)
    zero, *drawn = ax["lines"]
    assert zero["x"] == [0, 0]
    whiskers, means = drawn[::2], drawn[1::2]
    heights = [0.38, 0.56, 0.38]  # inches: the second label has two lines
    for i, (_, _, mean, low, high) in enumerate(rows):
        middle = sum(heights[:i]) + heights[i] / 2
        assert (whiskers[i]["x"], means[i]["x"]) == ([low, high], [mean])
        assert [*whiskers[i]["y"], *means[i]["y"], ax["ticks"][1]["at"][i]] == pytest.approx([middle] * 4, rel=1e-3)
    assert ax["limits"][2:] == pytest.approx([sum(heights), 0])
    assert ax["ticks"][1]["words"] == ["one", "two two two two two two\ntwo two", "three"]
    assert [text[0] for text in ax["texts"]] == ["0.30 [0.20, 0.40]", "−0.10 [−0.30, 0.05]", "0.50 [0.40, 0.60]"]


def test_boxes_are_quartiles_and_stand_beside_each_other(tmp_path, drawings):
    values = np.linspace(0, 1, 9)[:, None] + [[0.0, 1.0]]
    values[0, 1] = np.nan
    given = {name: (np.array([10.0, 20.0]), values + i) for i, name in enumerate(("first", "second"))}
    figures.boxes(tmp_path / "a.png", {"": given}, xlabel="distance", ylabel="Dice")
    (ax,) = of(drawings, tmp_path)
    slot = 0.84 * 10 / 2  # of the distance between two x, for two labels
    for box, (column, at) in zip(ax["patches"], [(c, k) for k in (0, 1) for c in (0, 1)], strict=True):
        x, y = box["corners"][::2], box["corners"][1::2]
        own = values[:, column][~np.isnan(values[:, column])] + at
        assert (min(y), max(y)) == pytest.approx(tuple(np.quantile(own, (0.25, 0.75))), rel=1e-3)
        middle = 10 * (1 + column) + (at - 0.5) * slot
        assert (min(x), max(x)) == pytest.approx((middle - 0.4 * slot, middle + 0.4 * slot), rel=1e-3)
    assert [text[0] for text in ax["texts"]] == ["9", "8", "9", "8", "n"]
    assert ax["limits"][:2] == [5, 25] and sorted(ax["ticks"][0]["words"]) == ["10", "20"]


def test_points_and_diagonal_lie_at_their_numbers(tmp_path, drawings):
    x = np.linspace(0, 1, 5)
    figures.points(tmp_path / "a.png", {"SA": {"": (x, x**2)}}, ylabel="Dice", diagonal=True)
    ((diagonal, points),) = [ax["lines"] for ax in of(drawings, tmp_path)]
    assert (diagonal["through"], diagonal["slope"]) == ([0, 0], 1)
    assert points["x"] == pytest.approx(x) and points["y"] == pytest.approx(x**2, rel=1e-3)


def test_scattered_points_near_the_border_lie_on_top(tmp_path, drawings):
    points, value = np.arange(8.0).reshape(4, 2), np.array([0.2, 1.0, 0.0, 0.5])
    figures.scatter(tmp_path / "a.png", {"": (points, value)}, xlabel="x", ylabel="y", label="distance")
    ax, bar = of(drawings, tmp_path)
    assert ax["collections"][0]["offsets"] == [2, 3, 6, 7, 0, 1, 4, 5]  # the last is drawn last
    assert bar["limits"][2:] == [0, 1]


def test_a_legend_stands_where_there_are_two_groups_to_tell(tmp_path, drawings):
    x = np.linspace(0, 1, 3)
    for groups in (("",), ("a",), ("a", ""), ("a", "b")):
        figures.dots(tmp_path / "dots.png", [("row", group, 0.5, 0.4, 0.6) for group in groups], xlabel="gap")
        figures.points(tmp_path / "points.png", {"SA": dict.fromkeys(groups, (x, x))}, ylabel="Dice")
        for drawing in drawings(tmp_path).values():
            assert len(drawing["legends"]) == (groups == ("a", "b"))


@pytest.mark.parametrize("shared", [True, False])
def test_maps_have_one_scale_or_each_its_own(tmp_path, drawings, shared):
    maps = {"a": np.full((4, 4), 0.5), "b": np.full((4, 4), -2.0), "c": np.full((4, 4), np.nan)}
    figures.heat_maps(tmp_path / "a.png", maps, extent_label="offset", shared=shared)
    *panels, bar = of(drawings, tmp_path)
    assert bar["limits"][2:] == ([-2, 0.5] if shared else [-1, 1])
    for ax, mean in zip(panels, (0.5, -2.0, None), strict=True):
        image = ax["images"][0]
        assert image["means"][:1] == ([] if mean is None else [mean if shared else np.sign(mean)])
        assert image["extent"] == [-1, 1, 1, -1]
        assert [ticks["words"] for ticks in ax["ticks"][:1]] == [["−1", "0", "1"]]
    assert [ax["words"][0][0] for ax in panels] == ["a", "b", "c"]


def test_a_contour_runs_half_a_pixel_around_the_mask(tmp_path, drawings):
    mask = np.zeros((24, 32))
    mask[5:10, 8:20] = 1
    figures.overlays(tmp_path / "a.png", [("case", COLOUR, mask, {"model": mask})])
    for ax in of(drawings, tmp_path):
        x0, y0, x1, y1 = ax["collections"][0]["paths"][0][:4]
        assert (x0, y0, x1, y1) == (7.5, 4.5, 19.5, 9.5)
        assert ax["limits"] == [-0.5, 31.5, 23.5, -0.5]
        assert ax["images"][0]["means"][:3] == pytest.approx(COLOUR.mean((0, 1)), rel=1e-3)
    layer = of(drawings, tmp_path)[1]["images"][1]["means"]  # of the prediction: red, green, blue, alpha
    assert layer[3] == pytest.approx(0.5 * mask.mean(), rel=1e-3)


EMPTY = {
    "panels": [lambda path: curves(path, {}), lambda path: figures.boxes(path, {}, xlabel="", ylabel="")],
    "rows": [
        lambda path: figures.dots(path, [], xlabel=""),
        lambda path: figures.overlays(path, []),
        lambda path: figures.strip(path, {}, titles=()),
    ],
    "maps": [lambda path: figures.heat_maps(path, {}, extent_label="")],
}
EMPTY["panels"] += [
    lambda path: figures.scatter(path, {}, xlabel="", ylabel="", label=""),
    lambda path: figures.points(path, {}, ylabel=""),
]


@pytest.mark.parametrize(("name", "draw"), [(name, draw) for name, draws in EMPTY.items() for draw in draws])
def test_nothing_to_draw_is_refused(tmp_path, name, draw):
    with pytest.raises(ValueError, match=f"{name} is empty: there is nothing to draw"):
        draw(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda path: curves(path, {"": [Series("s", X, X, X[1:], X)]}), "series 's': .* vectors of one length"),
        (lambda path: curves(path, {"": [Series("s", *[X[None]] * 4)]}), "series 's': .* vectors of one length"),
        (lambda path: figures.boxes(path, {"": {"s": (X, X)}}, xlabel="", ylabel=""), "values must be .N,10."),
        (lambda path: figures.strip(path, {"a": [(IMAGE, None)]}, titles=()), "row 'a' has 1 images, .* 0 titles"),
        (lambda path: figures.strip(path, {"a": [(IMAGE[..., 0], None)]}, titles=("a",)), "uint8 .24, 32.; it must"),
        (lambda path: figures.strip(path, {"a": [(COLOUR[..., :2], None)]}, titles=("a",)), "24, 32, 2.; it must be"),
        (lambda path: figures.strip(path, {"a": [(COLOUR / 1.0, None)]}, titles=("a",)), "is float64"),
        (lambda path: figures.strip(path, {"a": [(IMAGE, X)]}, titles=("a",)), "a mask is .10,., its image .24, 32."),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, draw, words):
    with pytest.raises(ValueError, match=words):
        draw(tmp_path / "a.png")


def test_legends_have_as_many_columns_as_fit_and_grow_the_sheet():
    """A letter is 0.58 of 12 points wide, a line of 6 inches has 62 of them, an entry 6 more than its label."""
    for length, columns in ((4, 6), (9, 4), (10, 3), (14, 3), (15, 2), (25, 2), (26, 1), (70, 1)):
        labels = [str(i) * length for i in range(8)]
        assert canvas.ncols(labels) == columns
        assert canvas.ncols(labels[:2]) == min(columns, 2)
        assert canvas.extra_lines(labels) == pytest.approx(0.25 * (-(-8 // columns) - 1))
    assert canvas.extra_lines([]) == 0


def test_labels_beyond_the_palette_differ_in_their_markers():
    looks = canvas.looks([f"{i % 20}" for i in range(40)])
    n = len(canvas.PALETTE)
    assert list(looks) == [str(i) for i in range(20)] and len(set(looks.values())) == 20
    assert [canvas.PALETTE.index(colour) for colour, _ in looks.values()] == [i % n for i in range(20)]
    markers = [canvas.MARKERS.index(marker) for _, marker in looks.values()]
    assert markers == [*range(7), *range(1, 7), 0, *range(2, 7), 0][:20]


def test_dots_with_limits_say_what_they_are(tmp_path, drawings):
    rows = [("Dice", "a", 0.4, 0.3, 0.5), ("lost", "b", 0.1, 0.0, 0.2)]
    for name, options in (("plain", {}), ("limited", {"limits": (0.7, 0.05), "limit": "limit of what is wanted"})):
        figures.dots(tmp_path / f"{name}.png", rows, xlabel="number", **options)
    found = drawings(tmp_path)
    assert [one["legends"][0]["words"] for one in (found["plain"], found["limited"])] == [
        ["a", "b"],
        ["a", "b", "limit of what is wanted"],
    ]
    (bars,) = found["limited"]["axes"][0]["collections"]
    assert [path[0] for path in bars["paths"]] == [0.7, 0.05] and "collections" not in found["plain"]["axes"][0]
    assert bars["paths"][0][1] < bars["paths"][0][3] < bars["paths"][1][1]  # each in its own row


def colours(*labels):
    return [canvas.PALETTE.index(colour) for colour, _ in canvas.looks(labels).values()]


def test_a_label_keeps_its_look_across_the_figures_of_a_page():
    with canvas.one_page("quiet", "loud"):
        assert colours("loud", "quiet") == [1, 0]
        assert colours("train", "test") == [2, 3]  # no network's colour
        assert colours("", "") == [0] and colours("") == [0]  # has no name that could be kept
        assert colours("test", "quiet", "new") == [3, 0, 4]
        first = canvas.looks(["a", "b", "c"])  # two of them beyond the palette
        assert [canvas.PALETTE.index(colour) for colour, _ in first.values()] == [5, 6, 0]
        assert canvas.looks(["c", "loud"])["c"] == first["c"] != canvas.looks(["quiet"])["quiet"]
        assert colours("loud", "d", "e") == [1, 2, 3]  # 8, whose colour would be that of loud, is left out
        with canvas.one_page():
            assert colours("test", "loud") == [0, 1]
        assert colours("test") == [3]
    assert colours("test", "loud") == colours("loud", "test") == [0, 1]  # on no page, by first appearance


def test_a_tint_is_mixed_with_white_channel_by_channel():
    assert canvas.tint("#336699", alpha=0.5) == pytest.approx((0.6, 0.7, 0.8))
    assert canvas.tint("#336699") == pytest.approx([1 - 0.35 * (1 - c) for c in (0.2, 0.4, 0.6)])


@pytest.mark.parametrize("draw", [drawn_curves, drawn_boxes, drawn_dots, drawn_pictures, drawn_maps, drawn_points])
def test_drawings_stay_as_they_are(tmp_path, drawings, draw):
    draw(tmp_path)
    assert_as_stored(STORED / f"{draw.__name__}.json", drawings(tmp_path))
