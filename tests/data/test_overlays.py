"""Calipers and text: where they are drawn, what is found of them, what is left behind."""

import math

import cv2
import jax
import numpy as np
import pytest
from scipy import ndimage, special

from jaxseg.data import overlays

YELLOW, WHITE, GREEN = (255, 255, 0), (255, 255, 255), (0, 255, 0)


def scan(seed=0, shape=(160, 200)):
    """Like an ultrasound image: speckle as wide as a beam, and a bright arc of bone."""
    random = np.random.default_rng(seed)
    speckle = ndimage.gaussian_filter(np.hypot(*random.standard_normal((2, *shape))), (1.2, 2.0))
    y, x = np.mgrid[: shape[0], : shape[1]]
    ring = np.exp(-0.5 * ((np.hypot((y - 80) / 50, (x - 100) / 70) - 1) / 0.04) ** 2)
    return np.clip(60 * speckle + 170 * ring, 0, 255).astype(np.uint8)


def in_colour(gray):
    return np.repeat(gray[..., None], 3, -1)


def ellipse(shape, centre, major, minor, degrees):
    """Pixels whose centres are inside, the semi-axis `major` turned by `degrees` from x to y."""
    y, x = np.mgrid[: shape[0], : shape[1]] - np.reshape(centre, (2, 1, 1))
    turn = math.radians(degrees)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return (along / major) ** 2 + (across / minor) ** 2 <= 1


# Drawing.


def test_marks_cover_these_pixels():
    image = np.full((40, 50, 3), 90, np.uint8)
    arms = range(-4, 5)
    expected = {
        "plus": {(20 + i, 30) for i in arms} | {(20, 30 + i) for i in arms},
        "cross": {(20 + i, 30 + i) for i in arms} | {(20 + i, 30 - i) for i in arms},
    }
    for style, places in expected.items():
        drawn, mask = overlays.draw_calipers(image, np.array([(20.2, 29.6)]), style=style)
        assert set(map(tuple, np.argwhere(mask).tolist())) == places
        assert (drawn[mask] == YELLOW).all() and (drawn[~mask] == 90).all()
        assert (image == 90).all()
        _, even = overlays.draw_calipers(image, np.array([(20, 30)]), style=style, size=8)
        np.testing.assert_array_equal(even, mask)


def test_dots_join_pairs_of_points():
    points = np.array([(10, 10), (10, 50), (30, 20), (60, 20)], float)
    _, mask = overlays.draw_calipers(np.zeros((70, 70), np.uint8), points, style="dotted", size=1)
    expected = {(10, x) for x in range(10, 51, 4)} | {(round(y), 20) for y in np.linspace(30, 60, 8)}
    assert set(map(tuple, np.argwhere(mask).tolist())) == expected
    _, marked = overlays.draw_calipers(np.zeros((70, 70), np.uint8), points, style="dotted")
    _, plus = overlays.draw_calipers(np.zeros((70, 70), np.uint8), points, style="plus")
    np.testing.assert_array_equal(marked, mask | plus)


def test_a_thicker_stroke_covers_more_and_contains_the_thin_one():
    points = np.array([(20, 20)])
    thin, thick = (
        overlays.draw_calipers(np.zeros((40, 40), np.uint8), points, style="plus", thickness=t)[1] for t in (1, 3)
    )
    assert (thick & thin).sum() == thin.sum() and thick.sum() > 2.5 * thin.sum()


@pytest.mark.parametrize("style", overlays.CALIPER_STYLES)
def test_what_is_beyond_the_border_is_cut_off(style):
    points = np.array([(1, -2), (38, 41)], float)
    small, mask = overlays.draw_calipers(np.zeros((40, 40), np.uint8), points, style=style)
    large, whole = overlays.draw_calipers(np.zeros((80, 80), np.uint8), points + 20, style=style)
    np.testing.assert_array_equal(mask, whole[20:60, 20:60])
    np.testing.assert_array_equal(small, large[20:60, 20:60])
    assert 0 < mask.sum() < whole.sum()
    assert not overlays.draw_calipers(small, np.array([(1e9, -1e9)]), style="plus")[1].any()


def test_text_covers_what_changes_and_blends_where_it_is_soft():
    black = np.zeros((60, 120, 3), np.uint8)
    white_on_black, mask = overlays.draw_text(black, "BPD 4.5\ncm", (8, 10))
    coverage = white_on_black[..., 0].astype(float)
    np.testing.assert_array_equal(mask, coverage > 0)
    assert coverage.max() > 240 and ((coverage > 0) & (coverage < 200)).any()
    under, ink = np.full_like(black, 100), np.array(YELLOW)
    drawn, same = overlays.draw_text(under, "BPD 4.5\ncm", (8, 10), colour=YELLOW)
    np.testing.assert_array_equal(same, mask)
    np.testing.assert_array_equal(drawn, np.rint(100 + coverage[..., None] / 255 * (ink - 100)))
    rows, columns = np.nonzero(mask)
    assert 8 <= rows.min() < 14 and 9 <= columns.min() < 14


def test_lines_of_text_stand_below_each_other():
    image = np.zeros((80, 120), np.uint8)
    both = overlays.draw_text(image, "HC 17\nFL 3", (5, 6), height=20)[1]
    first = overlays.draw_text(image, "HC 17", (5, 6), height=20)[1]
    second = overlays.draw_text(image, "FL 3", (5 + 26, 6), height=20)[1]
    np.testing.assert_array_equal(both, first | second)
    rows = np.flatnonzero(overlays.draw_text(image, "H", (5, 6), height=20)[1].any(1))
    assert 0.6 * 20 < np.ptp(rows) + 1 < 0.85 * 20
    assert not overlays.draw_text(image, "", (5, 6))[1].any()


def test_gray_images_take_the_colours_level_and_keep_their_rank():
    gray = scan()
    points = np.array([(30, 40)])
    level = round(0.299 * 255 + 0.587 * 255)
    for image in (gray, gray[..., None]):
        drawn, mask = overlays.draw_calipers(image, points)
        assert drawn.shape == image.shape and mask.shape == gray.shape
        assert (drawn[mask] == level).all()
        written, mask = overlays.draw_text(image, "LT", (30, 40), colour=WHITE)
        in_three, same = overlays.draw_text(in_colour(gray), "LT", (30, 40), colour=WHITE)
        np.testing.assert_array_equal(written.reshape(gray.shape), in_three[..., 1])
        np.testing.assert_array_equal(mask, same)


def test_drawings_that_cannot_be_are_named():
    image, points = np.zeros((20, 20, 3), np.uint8), np.array([(3, 4)])
    with pytest.raises(ValueError, match="style is 'star'; choose one of cross, plus, dotted"):
        overlays.draw_calipers(image, points, style="star")
    with pytest.raises(ValueError, match=r"\(y, x\) pairs \[P,2\], got shape \(2,\)"):
        overlays.draw_calipers(image, points[0])
    with pytest.raises(ValueError, match="finite"):
        overlays.draw_calipers(image, np.array([(math.nan, 1)]))
    with pytest.raises(ValueError, match="pairs of points, got 1"):
        overlays.draw_calipers(image, points, style="dotted")
    with pytest.raises(ValueError, match="thickness 0"):
        overlays.draw_calipers(image, points, thickness=0)
    with pytest.raises(ValueError, match=r"got float64\(20, 20, 3\)"):
        overlays.draw_text(image / 255, "A", (0, 0))
    with pytest.raises(ValueError, match=r"got uint8\(20, 20, 4\)"):
        overlays.detect(np.zeros((20, 20, 4), np.uint8))


# Heads.


@pytest.mark.parametrize("degrees", (0, 25, 90, 140))
def test_axes_of_an_ellipse_end_on_it(degrees):
    centre, major, minor = np.array((71.3, 88.6)), 60.0, 41.0
    ends = overlays.ellipse_axes(ellipse((160, 180), centre, major, minor, degrees))
    for found, reach, angle in zip(ends, (major, minor), (degrees, degrees + 90), strict=True):
        along = reach * np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
        expected = np.stack([centre - along, centre + along])
        expected = expected if along.sum() > 0 else expected[::-1]
        np.testing.assert_allclose(found, expected, atol=0.3)


def test_axes_of_a_rectangle_are_four_deviations():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:14, 10:31] = 255
    major, minor = overlays.ellipse_axes(mask)
    long, short = (2 * math.sqrt((n * n - 1) / 12) for n in (21, 9))
    np.testing.assert_allclose(major, [(9, 20 - long), (9, 20 + long)], atol=1e-9)
    np.testing.assert_allclose(minor, [(9 - short, 20), (9 + short, 20)], atol=1e-9)
    with pytest.raises(ValueError, match="the mask is empty"):
        overlays.ellipse_axes(np.zeros((4, 4)))


def test_a_head_is_measured_in_centimetres():
    mask = ellipse((200, 240), (100, 120), 90, 60, 15)
    lines = [line.split() for line in overlays.head_measurements(mask, 0.5).split("\n")]
    assert [(name, unit) for name, _, unit in lines] == [("BPD", "cm"), ("OFD", "cm"), ("HC", "cm")]
    perimeter = 4 * 4.5 * special.ellipe(1 - (60 / 90) ** 2)
    np.testing.assert_allclose([float(value) for _, value, _ in lines], (6, 9, perimeter), atol=0.011)
    assert overlays.head_measurements(np.eye(1), 1) == "BPD 0.00 cm\nOFD 0.00 cm\nHC 0.00 cm"


@pytest.mark.parametrize("style", overlays.CALIPER_STYLES)
def test_head_calipers_stand_at_the_ends_of_the_axes(style):
    image, mask = in_colour(scan()), ellipse((160, 200), (75, 90), 60, 40, 20)
    drawn, covered = overlays.draw_head_calipers(image, mask, style=style, text="BPD 4.0 cm\nHC 15 cm", height=10)
    ends = np.concatenate(overlays.ellipse_axes(mask))
    marks = overlays.draw_calipers(image, ends, style=style)[1]
    np.testing.assert_array_equal(covered & (np.mgrid[:160, :200][0] < 130), marks & (np.mgrid[:160, :200][0] < 130))
    text = covered & ~marks
    rows, columns = np.nonzero(text)
    assert rows.min() >= 160 - 2 * 13 - 5 and 150 < rows.max() < 160
    assert columns.min() > 120 and 185 < columns.max() < 200  # not cut off
    np.testing.assert_array_equal(drawn[~covered], image[~covered])
    only = overlays.draw_head_calipers(image, mask, style=style)[1]
    np.testing.assert_array_equal(only, marks)
    with pytest.raises(ValueError, match=r"the mask is \(160, 200\), the image \(40, 200, 3\)"):
        overlays.draw_head_calipers(image[:40], mask)


# Finding.


def decorated(image, colour, style="plus", seed=0):
    random = np.random.default_rng(seed)
    points = random.uniform((15, 15), (100, 185), (4, 2))
    drawn, marks = overlays.draw_calipers(image, points, style=style, colour=colour)
    drawn, text = overlays.draw_text(drawn, "BPD 4.51 cm\nGA 18w3d", (120, 20), colour=colour)
    return drawn, marks | text


def shares(found, covered, before):
    """Recall of what is covered, and precision with a pixel's tolerance, without what was found before drawing."""
    new = found & ~(before & ~covered)
    near = ndimage.binary_dilation(covered, np.ones((3, 3)))
    return (found & covered).sum() / covered.sum(), (new & near).sum() / max(new.sum(), 1)


def test_speckle_and_bone_are_not_overlays():
    for seed in range(5):
        assert overlays.detect(scan(seed)).mean() < 1e-4


@pytest.mark.parametrize("style", overlays.CALIPER_STYLES)
@pytest.mark.parametrize("colour", (YELLOW, GREEN, (0, 255, 255), (80, 80, 255), WHITE, (215, 215, 215)))
def test_drawn_overlays_are_found(style, colour):
    gray = scan()
    image, covered = decorated(in_colour(gray), colour, style)
    found = overlays.detect(image)
    recall, precision = shares(found, covered, overlays.detect(gray))
    assert recall > 0.65 and precision > 0.97  # what is missed is the faint rim of soft edges
    strong = np.abs(image.astype(int) - in_colour(gray)).max(-1) > 90
    assert (found & strong).sum() > 0.97 * strong.sum()
    recall, _ = shares(overlays.detect(image, dilation=1), covered, found)
    assert recall > 0.88


def test_gray_and_colour_images_show_the_same_white_overlays():
    image, _ = decorated(scan(), WHITE)
    found = overlays.detect(image)
    assert found.sum() > 200
    for same in (image[..., None], in_colour(image)):
        np.testing.assert_array_equal(overlays.detect(same), found)


def test_overlays_survive_a_smaller_size_and_compression():
    # as in public sets: the screen is photographed at twice the size, shrunk and stored as JPEG
    image, covered = overlays.draw_text(scan(shape=(320, 400)), "RT AXILLA", (240, 40), height=28, colour=WHITE)
    image, marks = overlays.draw_calipers(image, np.array([(40, 60), (60, 330)]), style="plus", size=17, thickness=3)
    covered = cv2.resize((covered | marks).astype(np.float32), (200, 160), interpolation=cv2.INTER_AREA) > 0.7
    small = cv2.resize(image, (200, 160), interpolation=cv2.INTER_AREA)
    stored = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_GRAYSCALE)
    found = overlays.detect(stored)
    assert (found & covered).sum() > 0.8 * covered.sum()
    assert (found & ~ndimage.binary_dilation(covered, iterations=2)).sum() < 0.1 * found.sum()


def test_text_at_the_border_is_found_though_it_is_cut():
    image, covered = overlays.draw_text(scan(), "LEFT BREAST", (60, -14), height=16)
    first = overlays.detect(image)[:, :20]
    assert (first & covered[:, :20]).sum() > 0.7 * (covered[:, :20] & (image[:, :20] > 150)).sum() > 10


def test_what_is_thick_is_left_alone():
    image = in_colour(scan())
    image[40:80, 60:100] = (200, 60, 30)  # a Doppler box
    image[100:120, 20:50] = 250
    found = overlays.detect(image)
    assert not found[40:80, 60:100].any() and not found[100:120, 20:50].any()


def test_a_line_that_fades_out_sideways_is_an_echo():
    y, x = np.mgrid[:80, :120]
    sharp_in_depth = 220 * ((y == 40) | (y == 41)) * np.exp(-0.5 * ((x - 60) / 15.0) ** 2)
    drawn = 220 * ((y == 40) | (y == 41)) * (abs(x - 60) < 30)
    assert not overlays.detect(sharp_in_depth.astype(np.uint8)).any()
    np.testing.assert_array_equal(overlays.detect(drawn.astype(np.uint8)), drawn > 0)


def test_thresholds_are_where_they_say():
    image = np.zeros((40, 40, 3), np.uint8)
    points = np.array([(20, 20)])
    faint, mask = overlays.draw_calipers(image, points, colour=(51, 51, 51))
    np.testing.assert_array_equal(overlays.detect(faint), mask)
    assert not overlays.detect(faint, contrast=51).any()
    tinted, _ = overlays.draw_calipers(image, points, colour=(40, 0, 0))
    np.testing.assert_array_equal(overlays.detect(tinted), mask)
    assert not overlays.detect(tinted, chroma=41).any()
    bar = np.zeros((60, 60), np.uint8)
    bar[20:26, 10:50] = 255
    assert not overlays.detect(bar).any()
    np.testing.assert_array_equal(overlays.detect(bar, max_stroke=6), bar > 0)
    assert not overlays.detect(faint, sharpness=1.01).any()


@pytest.mark.parametrize(("width", "chroma", "found"), [(8, 40, True), (9, 40, False), (8, 39, False), (1, 40, True)])
def test_coloured_strokes_end_at_twice_their_greatest_width_and_a_chroma(width, chroma, found):
    image = np.full((100, 100, 3), 120, np.uint8)
    image[:, 40 : 40 + width, 2] -= chroma  # darker, so that it is no bright stroke
    covered = overlays.detect(image, gray_share=0.9)
    assert covered.any() == found
    np.testing.assert_array_equal(covered, found & (image[..., 2] < 120))


def test_colour_says_nothing_in_a_coloured_image():
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.standard_normal((120, 120, 3)), (4, 4, 0))
    photograph = np.clip(np.array((190, 130, 110)) + 200 * smooth, 0, 255).astype(np.uint8)
    drawn, _ = overlays.draw_text(photograph, "MELANOMA", (40, 10), colour=WHITE)
    assert not overlays.detect(drawn).any()
    assert overlays.detect(drawn, gray_share=0).any()


def heads(real_data, count):
    paths = sorted((real_data / "hc18_half" / "training_set").glob("*_HC.png"))
    for path in paths[:: len(paths) // count][:count]:
        outline = cv2.imread(str(path).replace("_HC", "_HC_Annotation"), cv2.IMREAD_GRAYSCALE)
        yield cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), ndimage.binary_fill_holes(outline > 0)


@pytest.mark.parametrize("colour, style", [(YELLOW, "cross"), (GREEN, "dotted"), (WHITE, "plus")])
def test_overlays_on_real_heads_are_found(real_data, colour, style):
    scores = []
    for gray, head in heads(real_data, 8):
        image, covered = overlays.draw_head_calipers(
            in_colour(gray), head, style=style, colour=colour, text=overlays.head_measurements(head, 0.2)
        )
        before = overlays.detect(gray)
        # nothing but the scale of gray on the left and, in a few, the bar at the bottom
        assert before[:-12, 12:].mean() < 1e-3
        scores.append(shares(overlays.detect(image, dilation=1), covered, before)[0])
        scores.append(shares(overlays.detect(image), covered, before)[1])
    assert min(scores) > 0.8 and np.mean(scores) > 0.95


def test_real_text_is_found_and_photographs_are_left_alone(real_data):
    image = cv2.imread(str(real_data / "busi_text" / "images" / "benign_1.jpg"))
    found = overlays.detect(image)
    rows, columns = np.nonzero(found)
    assert (rows.min(), rows.max()) > (280, 285) and found.sum() > 300  # LEFT BREAST, at the bottom
    assert 120 < columns.min() < 140 and 230 < columns.max() < 260
    for folder, pattern in (("isic2017_256/ISIC-2017_Validation_Data", "*.jpg"), ("wbc_two_labs/images", "*.png")):
        paths = sorted((real_data / folder).glob(pattern))[::10]
        assert np.mean([overlays.detect(cv2.imread(str(path))).mean() for path in paths]) < 1e-4


# Removing.


def identity(images, masks):
    return images


OPTIONS = {method: {"inpaint": identity} if method == "network" else {} for method in overlays.REMOVALS}


@pytest.mark.parametrize("method", overlays.REMOVALS)
@pytest.mark.parametrize("rank", ("gray", "one", "colour"))
def test_beyond_the_region_every_bit_stays(method, rank):
    gray = scan()
    image = {"gray": gray, "one": gray[..., None], "colour": in_colour(gray)}[rank]
    drawn, covered = decorated(image, YELLOW)
    region = overlays.removed_region(covered, method=method)
    removed = overlays.remove(drawn, covered, method=method, **OPTIONS[method])
    assert removed.shape == image.shape and removed.dtype == np.uint8
    np.testing.assert_array_equal(removed[~region], drawn[~region])
    assert (removed[covered] != drawn[covered]).mean() > 0.5
    assert region[covered].all() and region.sum() < 0.5 * region.size
    untouched = overlays.remove(drawn, np.zeros_like(covered), method=method, **OPTIONS[method])
    np.testing.assert_array_equal(untouched, drawn)


def test_a_black_box_is_the_bounding_box_of_each_component():
    mask = np.zeros((30, 40), bool)
    mask[range(5, 10), range(5, 10)] = True  # joined at corners
    mask[20, 30] = True
    image = np.full((30, 40, 3), 200, np.uint8)
    for margin in (0, 2):
        expected = image.copy()
        expected[5 - margin : 10 + margin, 5 - margin : 10 + margin] = 0
        expected[20 - margin : 21 + margin, 30 - margin : 31 + margin] = 0
        np.testing.assert_array_equal(overlays.remove(image, mask, method="black", margin=margin), expected)


def test_noise_has_the_images_colours_in_their_proportions():
    image = np.zeros((60, 60, 3), np.uint8)
    image[:, :15] = (10, 20, 30)
    image[:, 15:] = (200, 100, 50)
    mask = np.zeros((60, 60), bool)
    mask[10:50] = True
    drawn = np.where(mask[..., None], np.uint8(255), image)
    one, same, other = (overlays.remove(drawn, mask, method="noise", seed=seed)[mask] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    first = (one == (10, 20, 30)).all(-1)
    assert (first | (one == (200, 100, 50)).all(-1)).all()
    assert abs(first.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(first))


def holes_of(seed, shape=(24, 30), share=0.4):
    return np.random.default_rng(seed).random(shape) < share


def slow_bilinear(image, region):
    filled = image.astype(float)
    for y, x in np.argwhere(region):
        total = weights = 0.0
        for line, unknown, at in ((image[y], region[y], x), (image[:, x], region[:, x], y)):
            known = np.flatnonzero(~unknown)
            before, after = known[known < at], known[known > at]
            if len(before) and len(after):
                low, high = before[-1], after[0]
                value = np.interp(at, (low, high), (line[low], line[high]))
                total, weights = total + value / (high - low), weights + 1 / (high - low)
        if weights:
            filled[y, x] = total / weights
    return filled


@pytest.mark.parametrize("seed", range(3))
def test_bilinear_is_the_slow_one(seed):
    image, mask = scan(seed)[60:84, 40:70], holes_of(seed)
    mask[[0, -1]] = mask[:, [0, -1]] = False
    expected = slow_bilinear(image, mask)
    np.testing.assert_allclose(overlays.remove(image, mask, method="bilinear", margin=0), expected, atol=0.5 + 1e-9)


@pytest.mark.parametrize("method, error", [("bilinear", 0), ("fast_marching", 8)])
def test_planes_are_restored(method, error):
    y, x = np.mgrid[:50, :60]
    plane = (20 + 2 * y + 2 * x).astype(np.uint8)
    image, mask = decorated_small(plane)
    removed = overlays.remove(image, mask, method=method)
    assert np.abs(removed.astype(int) - plane).max() <= error
    assert overlays.reconstruction_error(plane, image, mask).mae > 50


def decorated_small(image):
    drawn, marks = overlays.draw_calipers(image, np.array([(12, 12), (30, 45)]), style="plus", colour=WHITE)
    drawn, text = overlays.draw_text(drawn, "HC", (32, 10), colour=WHITE)
    return drawn, marks | text


def test_bilinear_at_the_border_takes_the_other_axis_or_the_nearest_pixel():
    y, x = np.mgrid[:12, :16]
    plane = (10 * y + 5 * x).astype(np.uint8)
    mask = np.zeros(plane.shape, bool)
    mask[4:7] = True  # whole rows: columns alone are known on both sides
    mask[10:, 14:] = True  # a corner: no axis is
    removed = overlays.remove(np.where(mask, np.uint8(255), plane), mask, method="bilinear", margin=0)
    np.testing.assert_array_equal(removed[4:7], plane[4:7])
    assert removed[10, 14] in (plane[10, 13], plane[9, 14])


def test_a_network_is_asked_about_the_region_alone():
    image, mask = decorated(in_colour(scan()), YELLOW)
    region = overlays.removed_region(mask, method="network")

    def inpaint(images, masks):
        assert images.shape == (1, 160, 200, 3) and images.dtype == np.float32
        np.testing.assert_array_equal(masks[0], region)
        assert (images[0][region] == 0).all()
        np.testing.assert_allclose(images[0][~region], image[~region] / 127.5 - 1, atol=1e-6)
        return np.full_like(images, 3.0) if masks[0, 0, 0] else np.full_like(images, -0.5)

    removed = overlays.remove(image, mask, method="network", inpaint=inpaint)
    assert (removed[region] == round(0.5 * 127.5)).all()
    bright = overlays.remove(image, mask, method="network", inpaint=lambda images, masks: images + 9)
    assert (bright[region] == 255).all()  # clipped
    with pytest.raises(ValueError, match=r"inpaint gave \(1, 160, 200\); it must give"):
        overlays.remove(image, mask, method="network", inpaint=lambda images, masks: images[..., 0])
    with pytest.raises(ValueError, match="finite"):
        overlays.remove(image, mask, method="network", inpaint=lambda images, masks: images * np.nan)


def test_filling_in_beats_leaving_it_and_noise():
    errors = {method: [] for method in ("none", "black", "noise", "bilinear", "fast_marching")}
    for seed in range(3):
        clean = scan(seed)
        drawn, mask = decorated(clean, WHITE, seed=seed)
        for method, found in errors.items():
            removed = drawn if method == "none" else overlays.remove(drawn, mask, method=method, seed=seed)
            found.append(overlays.reconstruction_error(clean, removed, mask).mae)
    mean = {method: np.mean(found) for method, found in errors.items()}
    assert max(mean["bilinear"], mean["fast_marching"]) < 0.5 * mean["noise"]
    assert mean["noise"] < 0.5 * min(mean["black"], mean["none"])


def test_removals_that_cannot_be_are_named():
    image, mask = np.zeros((8, 8), np.uint8), np.eye(8, dtype=bool)
    with pytest.raises(
        ValueError, match="method is 'magic'; choose one of black, noise, bilinear, fast_marching, network"
    ):
        overlays.remove(image, mask, method="magic")
    with pytest.raises(ValueError, match="inpaint belongs to 'network'"):
        overlays.remove(image, mask, method="network")
    with pytest.raises(ValueError, match="method is 'noise'; inpaint belongs to 'network'"):
        overlays.remove(image, mask, method="noise", inpaint=identity)
    with pytest.raises(ValueError, match="the region is the whole image, so bilinear has nothing"):
        overlays.remove(image, mask, method="bilinear", margin=8)
    with pytest.raises(ValueError, match=r"the mask is \(4, 8\), the image \(8, 8\)"):
        overlays.remove(image, mask[:4], method="black")
    with pytest.raises(ValueError, match=r"clean \(8, 8\) and removed \(4, 8\)"):
        overlays.reconstruction_error(image, image[:4], mask)


def test_errors_are_means_over_the_mask():
    clean = np.full((4, 4, 3), 100, np.uint8)
    mask = np.eye(4, dtype=bool)
    removed = np.where(mask[..., None], np.array((110, 100, 90)), 0).astype(np.uint8)
    error = overlays.reconstruction_error(clean, removed, mask)
    assert error.mae == pytest.approx(20 / 3)
    assert error.psnr == pytest.approx(10 * math.log10(255**2 / (200 / 3)))
    assert overlays.reconstruction_error(clean, clean, mask) == (0, math.inf)
    assert all(math.isnan(value) for value in overlays.reconstruction_error(clean, removed, mask & False))


# Holes to train on.


def floats(b=6, h=48, w=64, c=1):
    return np.random.default_rng(0).uniform(-1, 1, (b, h, w, c)).astype(np.float32)


cut = jax.jit(overlays.holes)


def test_holes_hide_and_leave_the_rest():
    images = floats()
    unknown = np.zeros(images.shape[:3], bool)
    unknown[:, 10:30, 20:40] = True
    batch = {"images": images, "overlays": unknown, "index": np.arange(6)}
    found = jax.device_get(cut(jax.random.key(0), batch))
    masks, scored = found["masks"], found["scored"]
    assert masks.dtype == scored.dtype == bool and masks.shape == images.shape[:3]
    assert (found["images"][masks] == 0).all()
    np.testing.assert_array_equal(found["images"][~masks], images[~masks])
    np.testing.assert_array_equal(found["targets"], images)
    np.testing.assert_array_equal(found["index"], np.arange(6))
    np.testing.assert_array_equal(masks, scored | unknown)
    assert not (scored & unknown).any() and scored.any((1, 2)).all()


def test_what_a_sample_gets_does_not_depend_on_how_the_batch_is_cut():
    batch = {"images": floats(), "overlays": np.zeros((6, 48, 64), bool), "index": np.arange(6)}
    everything = np.asarray(cut(jax.random.key(3), batch)["masks"])
    with_places = {name: batch[name] for name in ("images", "overlays")} | {"position": np.arange(6, dtype=np.int32)}
    for part in (slice(0, 3), slice(1, 6, 2)):
        some = cut(jax.random.key(3), {name: array[part] for name, array in with_places.items()})
        np.testing.assert_array_equal(some["masks"], everything[part])
    assert len({mask.tobytes() for mask in everything}) == 6
    assert (np.asarray(cut(jax.random.key(4), batch)["masks"]) != everything).any()


@pytest.fixture(scope="module")
def single_holes():
    draw = lambda key: overlays.draw_holes(key, (96, 96), count=1, size=(16.0, 30.0))
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 200)))


def test_holes_are_thin_and_of_the_sizes_asked_for(single_holes):
    masks = single_holes
    areas = masks.sum((1, 2))
    assert (areas > 0).all() and areas.max() < 32 * 20
    for mask in masks:
        (box,) = ndimage.find_objects(mask.astype(int))
        assert max(part.stop - part.start for part in box) <= 30 + 3
    # as a share of the image, 1 to 8 holes hide what calipers and text do
    several = lambda key: overlays.draw_holes(key, (96, 96), count=8, size=(8.0, 30.0))
    share = np.asarray(jax.jit(jax.vmap(several))(jax.random.split(jax.random.key(1), 100))).mean((1, 2))
    assert 0.005 < share.mean() < 0.1 and share.min() > 0


def test_holes_have_the_four_shapes(single_holes):
    kinds = {"plus": 0, "cross": 0, "other": 0}
    for mask in single_holes:
        (box,) = ndimage.find_objects(mask.astype(int))
        if box[0].start == 0 or box[1].start == 0 or box[0].stop == 96 or box[1].stop == 96:
            continue  # cut off
        part = mask[box]
        middle = part[part.shape[0] // 2].all() and part[:, part.shape[1] // 2].all()
        square = abs(part.shape[0] - part.shape[1]) <= 1
        corners = part[0, 0] and part[0, -1] and part[-1, 0] and part[-1, -1]
        kinds["plus" if middle and not corners else "cross" if square and part[1, 1] and part[-2, -2] else "other"] += 1
    assert min(kinds.values()) >= 5


def slow_hole(chances, shape, least, most):
    """One hole, pixel by pixel."""
    length = least + chances[2] * (most - least)
    small = min(least, most / 2) + chances[3] * (most / 2 - min(least, most / 2))
    half_stroke, kind = 0.5 + chances[4], int(4 * chances[6])
    angle = (0.0, math.pi / 4, math.pi * chances[5], 0.0)[kind]
    letters, block = chances[7:].reshape(5, 3, 16) < 0.6, small / 5
    hole = np.zeros(shape, bool)
    for i, j in np.ndindex(shape):
        y, x = i - chances[0] * (shape[0] - 1), j - chances[1] * (shape[1] - 1)
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        if kind < 2:
            hole[i, j] = min(abs(u), abs(v)) < half_stroke and max(abs(u), abs(v)) < small / 2
        elif kind == 2:
            hole[i, j] = abs(u) < length / 2 and abs(v) < half_stroke and u % 4 < 2 * half_stroke
        else:
            row, column = math.floor(y / block + 2.5), math.floor((x + length / 2) / block)
            within = 0 <= row < 5 and abs(x) < length / 2 and column % 4 < 3
            hole[i, j] = within and letters[row, column % 4, column // 4 % 16]
    return hole


def test_holes_are_drawn_as_pixel_by_pixel():
    shape, size, count = (25, 34), (9.0, 22.0), 3
    chances = lambda key: jax.random.uniform(key, (count, 1 + 7 + 5 * 3 * 16))
    both = lambda key: (overlays.draw_holes(key, shape, count=count, size=size), chances(key))
    found, drawn = jax.device_get(jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(2), 24)))
    numbers = [1 + int(count * of_image[0, 0]) for of_image in drawn]
    assert set(numbers) == {1, 2, 3}
    assert {int(4 * hole[7]) for number, holes in zip(numbers, drawn, strict=True) for hole in holes[:number]} == {
        *range(4)
    }
    for mask, number, of_image in zip(found, numbers, drawn, strict=True):
        holes = [slow_hole(hole[1:].astype(float), shape, *size) for hole in of_image[:number]]
        expected = ndimage.binary_dilation(np.any(holes, 0), np.ones((3, 3)))
        assert (mask != expected).mean() < 0.004  # a pixel at an edge may be rounded otherwise, with its neighbours


def test_holes_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"float images \[B,H,W,C\] in \[-1, 1\], got uint8\(1, 8, 8, 1\)"):
        overlays.holes(jax.random.key(0), {"images": np.zeros((1, 8, 8, 1), np.uint8)})
    with pytest.raises(ValueError, match="count is 0"):
        overlays.holes(jax.random.key(0), {"images": floats()}, count=0)
    with pytest.raises(ValueError, match="0 < least <= greatest"):
        overlays.holes(jax.random.key(0), {"images": floats()}, size=(9.0, 3.0))
