"""Synthetic ultrasound: one scan with any marks, true measures, and the physics that makes it look like ultrasound."""

import functools
import itertools
import re

import numpy as np
import pytest
from scipy import ndimage, special

from jaxseg.data import overlays
from jaxseg.data.synthetic import ultrasound
from jaxseg.data.synthetic.ultrasound import PLANES

SIZE = 64
COUNT = 80


@pytest.fixture(scope="module")
def frames():
    return [ultrasound.render(3, index, SIZE) for index in range(COUNT)]


@functools.cache
def unmarked(index, size=128, plane=None, difficulty=0.0):
    """Not to be changed."""
    return ultrasound.render(5, index, size, plane=plane, calipers=False, text=False, difficulty=difficulty)


def gray(frame):
    return frame.clean[..., 0].astype(float)


def axes(frame):
    """Lengths between the measured ends in pixels, the long one first."""
    return np.hypot(*(frame.points[::2] - frame.points[1::2]).T)


def grid(size):
    return np.stack(np.mgrid[:size, :size], axis=-1).astype(float)


def assert_equal_but(first, second, *differing):
    for name in ultrasound.Frame._fields:
        if name not in differing:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_shapes_and_values(frames):
    for frame in frames:
        assert frame.image.shape == frame.clean.shape == (SIZE, SIZE, 3)
        assert frame.image.dtype == frame.clean.dtype == frame.labels.dtype == np.uint8
        assert frame.labels.shape == frame.overlay.shape == (SIZE, SIZE) and frame.overlay.dtype == bool
        assert set(np.unique(frame.labels)) == {0, ultrasound.CLASS_NAMES.index(frame.plane)}
        assert frame.points.shape == (4 if frame.plane in ("head", "abdomen") else 2, 2)
        assert (frame.points >= 0).all() and (frame.points <= SIZE - 1).all()


def test_planes_are_equally_frequent(frames):
    counts = [sum(frame.plane == plane for frame in frames) for plane in PLANES]
    assert min(counts) > COUNT / 4 - 3 * np.sqrt(COUNT * 3 / 16)


def test_same_seed_and_index_give_the_same_frame():
    first = ultrasound.render(5, 2, SIZE)
    ultrasound.render(5, 3, 2 * SIZE)
    assert_equal_but(first, ultrasound.render(5, 2, SIZE))


@pytest.mark.parametrize(("seed", "index"), [(5, 3), (6, 2), (2, 5)])
def test_another_seed_or_index_gives_another_scene(seed, index):
    one, other = (ultrasound.render(*source, SIZE, plane="head") for source in ((5, 2), (seed, index)))
    assert (one.clean != other.clean).any(axis=-1).mean() > 0.3
    assert (one.labels != other.labels).any()


# Marks


@pytest.mark.parametrize("plane", PLANES)
def test_marks_leave_the_scan_and_the_truth_as_they_are(plane):
    full = ultrasound.render(5, 4, SIZE, plane=plane)
    for options in ({"calipers": False}, {"text": False}, {"calipers": False, "text": False}, {"text_of": "femur"}):
        assert_equal_but(full, ultrasound.render(5, 4, SIZE, plane=plane, **options), "image", "overlay")


def test_the_overlay_is_where_the_image_differs_from_the_clean_one(frames):
    for frame in frames:
        changed = (frame.image != frame.clean).any(axis=-1)
        assert not (changed & ~frame.overlay).any()
        assert changed[frame.overlay].mean() > 0.9  # the faintest edges of a letter are below a gray level
    bare = ultrasound.render(3, 0, SIZE, calipers=False, text=False)
    assert not bare.overlay.any()
    np.testing.assert_array_equal(bare.image, bare.clean)


def test_calipers_are_at_the_measured_ends_and_nowhere_else_unless_dotted():
    for index in range(12):
        frame = ultrasound.render(5, index, 128, text=False)
        rows, columns = np.rint(frame.points).astype(int).T
        assert frame.overlay[rows, columns].all()
        away = np.hypot(*(grid(128)[:, :, None] - frame.points).transpose(3, 0, 1, 2)).min(axis=-1)
        lines = frame.overlay & (away > 6.5)  # beyond the arms of a mark
        for start, end in frame.points.reshape(-1, 2, 2):  # what is away from all ends is on a line between two
            along = (end - start) / np.hypot(*(end - start))
            offset = (grid(128) - start) @ np.array([along[1], -along[0]])
            lines &= abs(offset) > 1.5
        assert not lines.any()


def printed(monkeypatch, draw):
    """The texts that are written while the frame is drawn, the machine's legend left out."""
    texts, write = [], overlays.draw_text

    def spy(image, text, *args, **options):
        texts.append(text)
        return write(image, text, *args, **options)

    frame = draw()
    with monkeypatch.context() as patched:
        patched.setattr(overlays, "draw_text", spy)
        ultrasound.annotate(frame)
    return frame, "\n".join(dict.fromkeys(texts))


@pytest.mark.parametrize("plane", PLANES)
def test_the_printed_values_are_the_measures_in_centimetres(monkeypatch, plane):
    frame, text = printed(monkeypatch, lambda: ultrasound.render(5, 7, 192, plane=plane))
    long, *short = axes(frame) * frame.spacing
    found = {name: float(value) for name, value in re.findall(r"(\w+) (\d+\.\d+) cm", text)}
    if not short:
        expected = {"FL" if plane == "femur" else "Length": long}
    else:
        names = ("OFD", "BPD", "HC") if plane == "head" else ("TAD", "APD", "AC")
        around = 2 * long * special.ellipe(1 - (short[0] / long) ** 2)
        expected = dict(zip(names, (long, short[0], around), strict=True))
    assert found == {name: pytest.approx(value, abs=0.0051) for name, value in expected.items()}
    assert plane.upper() in text


def test_the_measures_are_what_a_second_half_of_pregnancy_has(frames):
    limits = {"head": (4, 12.7), "abdomen": (4, 12), "femur": (2.5, 8.5), "cervix": (1.4, 6)}
    for plane, (low, high) in limits.items():
        lengths = [axes(frame)[0] * frame.spacing for frame in frames if frame.plane == plane]
        assert low < min(lengths) and max(lengths) < high
        assert np.std(lengths) > 0.1 * np.mean(lengths)


def test_text_of_another_plane_changes_the_text_alone():
    own, swapped = (ultrasound.render(5, 1, 128, plane="head", text_of=text) for text in (None, "cervix"))
    named = ultrasound.render(5, 1, 128, plane="head", text_of="head")
    cervix = ultrasound.annotate(swapped, calipers=0, name=True, values=False, text_of="cervix")
    calipers = ultrasound.annotate(own, name=False, values=False)
    assert_equal_but(own, named)
    assert (own.overlay != swapped.overlay).any()
    assert swapped.overlay[calipers.overlay].all() and swapped.overlay[cervix.overlay].all()
    other = ultrasound.render(5, 1, 128, plane="cervix", calipers=False)
    shown = ultrasound.annotate(other, calipers=0, values=False)
    np.testing.assert_array_equal(shown.overlay, cervix.overlay)  # the same words at the same place on another plane


def test_calipers_can_be_put_elsewhere():
    frame = unmarked(3, 128, "femur")
    places = np.array([[20.0, 30.0], [40.0, 90.0]])
    moved = ultrasound.annotate(frame, name=False, values=False, points=places)
    assert moved.overlay[[20, 40], [30, 90]].all()
    rows, columns = np.rint(frame.points).astype(int).T
    assert not moved.overlay[rows, columns].any()
    assert_equal_but(frame, moved, "image", "overlay")


def test_annotating_starts_from_the_clean_image():
    frame = ultrasound.render(5, 6, SIZE)
    assert_equal_but(frame, ultrasound.annotate(ultrasound.annotate(frame, text_of="head")))


# Clips


@pytest.mark.parametrize(("plane", "steps"), [("head", 7), ("abdomen", 7), ("femur", 5), ("cervix", 5)])
def test_a_clip_gathers_marks_on_one_scan(plane, steps):
    frames = ultrasound.clip(5, 8, SIZE, plane=plane)
    assert len(frames) == steps
    assert_equal_but(frames[0], ultrasound.render(5, 8, SIZE, plane=plane, calipers=False, text=False))
    assert_equal_but(frames[-1], ultrasound.render(5, 8, SIZE, plane=plane))
    for before, after in itertools.pairwise(frames):
        assert_equal_but(before, after, "image", "overlay")
        assert not (before.overlay & ~after.overlay).any() and before.overlay.sum() < after.overlay.sum()


def test_calipers_appear_in_a_clip_one_by_one():
    frames = ultrasound.clip(5, 8, 128, plane="head")
    rows, columns = np.rint(frames[0].points).astype(int).T
    marked = [frame.overlay[rows, columns].sum() for frame in frames]
    assert marked == [0, 0, 1, 2, 3, 4, 4]


def test_a_longer_clip_holds_its_steps_and_a_short_one_skips():
    steps = ultrasound.clip(5, 8, SIZE, plane="femur")
    held = ultrasound.clip(5, 8, SIZE, plane="femur", frames=13)
    kinds = [next(i for i, step in enumerate(steps) if (step.image == frame.image).all()) for frame in held]
    assert len(held) == 13 and kinds == sorted(kinds) and set(kinds) == {0, 1, 2, 3, 4}
    ends = ultrasound.clip(5, 8, SIZE, plane="femur", frames=2)
    assert_equal_but(ends[0], steps[0])
    assert_equal_but(ends[1], steps[-1])


# Truth


@pytest.mark.parametrize("plane", PLANES)
def test_labels_and_points_are_equal_where_the_pixel_centres_are(plane):
    for index in range(3):
        small, large = unmarked(index, 64, plane), unmarked(index, 192, plane)
        np.testing.assert_array_equal(small.labels, large.labels[1::3, 1::3])
        np.testing.assert_allclose(3 * small.points + 1, large.points, atol=1e-9)
        assert small.spacing == pytest.approx(3 * large.spacing)


def test_images_show_the_same_scene_at_another_size():
    for index in range(5):
        scan = gray(unmarked(index, 128)), gray(unmarked(index, 256)).reshape(128, 2, 128, 2).mean(axis=(1, 3))
        assert np.abs(scan[0] - scan[1])[20:].mean() < 1  # below the legend, whose letters have a least size


@pytest.mark.parametrize("plane", PLANES)
def test_difficulty_leaves_the_truth_as_it_is(plane):
    easy, hard = unmarked(2, SIZE, plane), unmarked(2, SIZE, plane, difficulty=1.0)
    assert_equal_but(easy, hard, "image", "clean")
    assert (easy.clean != hard.clean).any()


def test_round_organs_are_the_ellipse_through_the_measured_ends():
    cut = 0
    for index in range(40):
        frame = unmarked(index, 128, ("head", "abdomen")[index % 2])
        middle, half = frame.points[:2].mean(axis=0), axes(frame) / 2
        np.testing.assert_allclose(frame.points[2:].mean(axis=0), middle, atol=1e-4)
        directions = (frame.points[1::2] - frame.points[::2]) / axes(frame)[:, None]
        np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-4)
        inside = np.hypot(*((grid(128) - middle) @ directions.T / half).transpose(2, 0, 1)) < 1
        assert not (frame.labels > 0)[~inside].any()
        missing = 1 - (frame.labels > 0)[inside].mean()
        assert missing < 0.25
        cut += missing > 0.004
    assert 2 <= cut <= 16  # some organs leave the fan, most do not


@pytest.mark.parametrize("plane", ["femur", "cervix"])
def test_long_organs_reach_from_end_to_end(plane):
    for index in range(8):
        frame = unmarked(index, 192, plane)
        start, end = frame.points
        along = (end - start) / np.hypot(*(end - start))
        position = (np.argwhere(frame.labels) - start) @ along
        assert abs(position.min()) < 2.5 and abs(position.max() - axes(frame)[0]) < 2.5


def test_sizes_places_and_turns_vary(frames):
    for plane in PLANES:
        chosen = [frame for frame in frames if frame.plane == plane]
        areas = [(frame.labels > 0).mean() for frame in chosen]
        assert max(areas) > 2 * min(areas) > 0
        assert np.std([frame.points[:2].mean(axis=0) for frame in chosen], axis=0).min() > 0.05 * SIZE
        turns = [np.arctan2(*(frame.points[1] - frame.points[0])) % np.pi for frame in chosen]
        assert np.std(np.cos(2 * np.array(turns))) > 0.1


# Appearance


def test_nothing_outside_of_the_organ_and_its_surroundings_tells_the_plane():
    first, *others = [unmarked(4, 128, plane) for plane in PLANES]
    near = lambda frame: ndimage.maximum_filter(gray(frame), 9) > 0  # shadows are black too, but not all of it
    for other in others:
        np.testing.assert_array_equal(other.clean[:25, :30], first.clean[:25, :30])  # the legend
        assert (near(other) == near(first)).mean() > 0.95  # the fan


@pytest.fixture
def even_matter():
    matter = ultrasound._Matter(ultrasound._Fan(0.4, 0.6), np.random.default_rng(0))
    matter.level[:] = -20.0
    return matter


def speckle(matter):
    return ultrasound._speckle(np.random.default_rng(1), matter, haze=-200.0)


def test_speckle_of_even_matter_is_fully_developed(even_matter):
    amplitude = np.hypot(*speckle(even_matter))
    assert np.mean(amplitude**2) == pytest.approx(0.01, rel=0.05)  # -20 dB
    levels = np.array([0.05, 0.1, 0.15])
    shares = [(amplitude < level).mean() for level in levels]
    np.testing.assert_allclose(shares, 1 - np.exp(-((levels / 0.1) ** 2)), atol=0.02)  # Rayleigh's distribution


def test_losses_add_up_along_a_beam(even_matter):
    even_matter.loss[:64] = 40.0  # a quarter of the depth at 40 dB per depth
    power = np.sum(speckle(even_matter) ** 2, axis=0)
    assert 10 * np.log10(power[80:].mean()) == pytest.approx(-30, abs=0.5)


def test_speckle_widens_with_depth_as_beams_do(even_matter):
    fan, size = even_matter.fan, 256
    image = ultrasound._to_pixels(128 + 400 * speckle(even_matter)[0], fan, size)[..., 0].astype(float) - 128
    pixel = fan.side / size
    for depth in (0.2, 0.5, 0.9):
        row = round((fan.near + depth - fan.middle) / pixel + size / 2)
        reach = int((fan.near + depth) * np.sin(fan.half_angle) / pixel / 2)  # where arcs are still about flat
        strip = image[row - 8 : row + 9, size // 2 - reach : size // 2 + reach]
        width = 1.5 * 2 * fan.half_angle / 160 * (fan.near + depth) / pixel  # of the beam, standard deviation in pixels
        lags = np.arange(1, 5)
        found = [np.mean(strip[:, lag:] * strip[:, :-lag]) / np.mean(strip**2) for lag in lags]
        np.testing.assert_allclose(found, np.exp(-((lags / (2 * width)) ** 2)), atol=0.12)


def edge_contrast(frame):
    """How much brighter the outline of a round organ is, in gray levels, than what is a little further in and out."""
    middle, half = frame.points[:2].mean(axis=0), axes(frame) / 2
    directions = (frame.points[1::2] - frame.points[::2]) / axes(frame)[:, None]
    radius = np.hypot(*((grid(128) - middle) @ directions.T / half).transpose(2, 0, 1))
    image, seen = gray(frame), gray(frame) > 0
    rim = image[(radius > 0.93) & (radius < 1) & seen].mean()
    return rim - image[((radius > 0.75) & (radius < 0.87) | (radius > 1.06) & (radius < 1.2)) & seen].mean()


def test_difficulty_fades_the_outline():
    easy, middling, hard = (
        np.mean([edge_contrast(unmarked(index, 128, "head", difficulty)) for index in range(10)])
        for difficulty in (0.0, 0.5, 1.0)
    )
    assert easy > 70
    assert easy > 1.25 * middling > 2.5 * hard > 0


def test_difficulty_brings_look_alikes(monkeypatch):
    paint = ultrasound._paint_lookalikes

    def leave_out(matter, rng, organ):
        before = matter.snapshot()
        paint(matter, rng, organ)  # for what it draws of the random numbers
        matter.fade(before, 0.0)

    changes = []
    for difficulty in (0.0, 0.5, 1.0):
        with_them = [gray(unmarked(index, SIZE, difficulty=difficulty)) for index in range(6)]
        with monkeypatch.context() as patched:
            patched.setattr(ultrasound, "_paint_lookalikes", leave_out)
            without = [gray(unmarked.__wrapped__(index, SIZE, difficulty=difficulty)) for index in range(6)]
        changes.append(np.mean(np.abs(np.subtract(with_them, without)) > 20))
    assert changes[0] == 0
    assert changes[2] > 1.3 * changes[1] > 0.02


def test_bone_casts_a_shadow():
    darker = []
    for index in range(15):
        frame = unmarked(index, 128, "femur")
        row, column = np.rint(frame.points.mean(axis=0)).astype(int)
        before, behind = (
            gray(frame)[rows, column - 3 : column + 4] for rows in (slice(row - 16, row - 6), slice(row + 6, row + 16))
        )
        darker.append(before[before > 0].mean() - behind.mean())
    assert np.mean(darker) > 20


# Misuse


def test_what_cannot_be_is_refused():
    for options, message in (
        ({"size": 0}, "size is 0"),
        ({"difficulty": 1.5}, r"difficulty is 1\.5"),
        ({"plane": "foot"}, "plane is 'foot'; choose one of head, abdomen, femur, cervix"),
        ({"text_of": "foot"}, "plane is 'foot'"),
    ):
        with pytest.raises(ValueError, match=message):
            ultrasound.render(**{"seed": 0, "index": 0, "size": SIZE, **options})
    with pytest.raises(ValueError, match="frames is 1"):
        ultrasound.clip(0, 0, SIZE, frames=1)
    frame = unmarked(0, SIZE, "femur")
    with pytest.raises(ValueError, match="3 calipers cannot be put at 2 points"):
        ultrasound.annotate(frame, calipers=3)
    with pytest.raises(ValueError, match="3 points"):
        ultrasound.annotate(frame, points=np.zeros((3, 2)))
