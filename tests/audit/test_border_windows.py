"""Windows that show an object inside and at the border, by a slow reference, and networks whose answer is known."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, spatial

from jaxseg.audit import border_windows, findings, pictures
from jaxseg.audit.probe import BORDER, NotAskedError
from jaxseg.audit.probes import padding, translation
from jaxseg.data import pipeline

WIDTH = 2


@functools.partial(jax.jit, static_argnames="quarters")
def windows(images, labels, valid, side, quarters):
    cut_as = border_windows.Windows(labels.shape[1:], WIDTH, quarters)
    made = border_windows.cut(images, labels, side, windows=cut_as, valid=valid)
    return made._asdict() | {
        "matched": made.matched(made.labels),
        "recalled": jnp.stack([*made.recalled(made.labels[0]).values()]),
    }


def cut(images, labels, valid, quarters=2):
    """By name, of all sides: `[S,...]`."""
    sides = range(len(border_windows.Windows(labels.shape[1:], WIDTH, quarters).sides))
    found = [windows(images, labels, valid, np.full(len(images), side, np.int32), quarters) for side in sides]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def turned(array, side, rank):
    """So that the last axis begins at that side; twice, the array is as it was."""
    axis = rank - 1 - side // 2
    return (np.flip(array, range(axis, rank)) if side % 2 else array).swapaxes(axis, rank - 1)


def scene(size, seed=0):
    """Two images with an object each, and without a few pixels of both; of volumes in some of their slices."""
    random = np.random.default_rng(seed)
    labels = np.zeros((2, *size), np.int32)
    slices = [np.s_[: size[0] - 1], np.s_[size[0] // 2 :]] if len(size) == 3 else [...] * 2
    for one, where, place, value in zip(labels, slices, [np.s_[5:10, 8:15], np.s_[4:13, 11:15]], (1, 2), strict=True):
        one[where][..., *place] = value
    return random.random((2, *size, 2), np.float32), labels, random.random((2, *size)) < 0.95


def reference(image, label, valid, side, lengths):
    """The windows of one image at one side, turned so that its last axis begins there, by loops and slices."""
    rank = label.ndim
    image, label, valid, lengths = (
        turned(image, side, rank), turned(label, side, rank), turned(valid, side, rank), list(lengths)
    )  # fmt: skip
    axis = rank - 1 - side // 2
    lengths[axis], lengths[-1] = lengths[-1], lengths[axis]
    factors = [n / length for n, length in zip(label.shape, lengths, strict=True)]
    middle = [round(places.mean()) for places in np.nonzero(label)]
    line = min(middle[-1], label.shape[-1] - lengths[-1])
    about = [
        min(max(place - length // 2, 0), n - length)
        for place, length, n in zip((*middle[:-1], line), lengths, label.shape, strict=True)
    ]
    if factors[-1] < 2:  # three quarters: every third pixel is enlarged alike
        line -= (line - about[-1]) % 3
    shift = (line - about[-1]) * label.shape[-1] // lengths[-1]
    if shift < 2 * WIDTH:
        return None
    windows = []
    for start in (about, (*about[:-1], line)):
        place = tuple(slice(first, first + length) for first, length in zip(start, lengths, strict=True))
        zoom = lambda part: ndimage.zoom(part, factors, order=1, mode="nearest", grid_mode=True)
        larger = lambda array, place=place: ndimage.zoom(
            array[place].astype(int), factors, order=0, mode="nearest", grid_mode=True
        )
        windows.append((np.stack([zoom(image[place][..., c]) for c in range(2)], -1), larger(label), larger(valid) > 0))
    both = np.zeros(label.shape, bool)
    both[..., :-shift] = windows[1][2][..., :-shift] & windows[0][2][..., shift:]
    near = both & (np.arange(label.shape[-1]) < WIDTH)
    return windows, shift, near, both & ~near


SIZES = [  # of images, and of their windows
    ((16, 24), (8, 12)),
    ((24, 16), (12, 8)),
    ((20, 20), (10, 10)),
    ((8, 16, 20), (4, 8, 10)),
    ((6, 16, 20), (6, 8, 10)),  # too few slices
    ((16, 24), (12, 18)),
    ((20, 20), (15, 15)),
    ((8, 16, 20), (8, 12, 15)),
    ((16, 16, 20), (12, 12, 15)),
]


@pytest.mark.parametrize(("size", "lengths"), SIZES, ids=str)
def test_windows_are_those_of_a_slow_reference(size, lengths):
    images, labels, valid = scene(size)
    rank, quarters = len(size), 4 * lengths[-1] // size[-1]
    found, cut_as = cut(images, labels, valid, quarters), border_windows.Windows(size, WIDTH, quarters)
    assert cut_as.lengths == lengths
    assert cut_as.sides == tuple(range(2 * sum(n > length for n, length in zip(size, lengths, strict=True))))
    cuts, sides = 0, cut_as.sides
    for number, side in enumerate(sides):
        for case in range(2):
            wanted = reference(images[case], labels[case], valid[case], side, lengths)
            at, turn = (number, case), lambda array, side=side: turned(array, side, rank)
            if wanted is None:
                assert not found["near"][at].any() and not found["rest"][at].any()
                continue
            windows, shift, near, rest = wanted
            cuts += 1
            for which, (image, label, _) in enumerate(windows):
                np.testing.assert_allclose(turn(found["images"][number, which, case]), image, atol=1e-6)
                np.testing.assert_array_equal(turn(found["labels"][number, which, case]), label)
            image, label, counted = windows[0]
            colour = image[counted & (label == 0)].mean(0)
            place = np.arange(label.shape[-1])[:, None]
            alone = (place < shift, place >= label.shape[-1] - shift)
            for which, (hidden, (image, *_)) in enumerate(zip(alone, windows, strict=True)):
                painted = np.where(hidden, colour, image)
                np.testing.assert_allclose(turn(found["painted"][number, which, case]), painted, atol=1e-5)
            assert np.abs(found["moves"][at]).tolist() == [
                shift * (axis == rank - 1 - side // 2) for axis in range(rank)
            ]
            np.testing.assert_array_equal(turn(found["near"][at]), near)
            np.testing.assert_array_equal(turn(found["rest"][at]), rest)
            # of a network that says what is there, the two windows say the same of what both show
            where = found["near"][at] | found["rest"][at]
            inside, at_border = found["matched"][number, :, case]
            np.testing.assert_array_equal(inside[where], at_border[where])
            here = np.sum(near & (windows[1][1] > 0))
            np.testing.assert_array_equal(found["recalled"][number, :, case], (here, here))
    assert cuts >= 6


def test_an_object_without_room_beside_it_or_none_is_not_cut():
    labels = np.zeros((2, 16, 16), np.int32)
    labels[0, :, :3] = 1  # left of its middle is no room for a window in which the line is far from the border
    near = cut(np.zeros((2, 16, 16, 1), np.float32), labels, None)["near"]
    assert not near[0, 0].any() and near[1, 0].any() and near[2, 0].any() and not near[:, 1].any()


def test_where_a_border_is_near():
    windows = border_windows.Windows((6, 8, 9), 2)
    near = border_windows.near_border(windows)
    wanted = np.ones((8, 9), bool)
    wanted[2:-2, 2:-2] = False
    assert windows.axes == (False, True, True)
    np.testing.assert_array_equal(near, np.broadcast_to(wanted, (6, 8, 9)))
    assert border_windows.Windows((7, 7), 2).sides == ()


# Networks in closed form.


class Hull(nn.Module):
    """What is bright, with the hole in it and the gap between its parts filled: it knows of no place."""

    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        bright = images[..., 0] > 0
        hull = jax.pure_callback(_hulls, jax.ShapeDtypeStruct(bright.shape, jnp.bool_), bright)
        return jnp.stack([jnp.zeros(bright.shape), jnp.where(hull, 9.0, -9.0)], -1)


def _hulls(bright):
    places = np.stack(np.indices(bright.shape[1:]), -1).reshape(-1, 2)

    def hull(one):
        corners = np.argwhere(one)
        if len(np.unique(corners[:, 0])) < 2 or len(np.unique(corners[:, 1])) < 2:
            return one
        return spatial.Delaunay(corners).find_simplex(places).reshape(one.shape) >= 0

    return np.stack([hull(one) for one in np.asarray(bright)])


class CentralDisc(nn.Module):
    """The middle of the image, whatever it shows; of volumes a ball that is as flat as they are."""

    radius: float = 0.2
    padding: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        sizes = images.shape[1:-1]
        places = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / n for n in sizes), indexing="ij")
        inside = np.sqrt(np.sum(np.square(places), 0)) < self.radius
        z = jnp.broadcast_to(jnp.where(jnp.asarray(inside), 9.0, -9.0), images.shape[:-1])
        return jnp.stack([jnp.zeros_like(z), z], -1)


class Filled(nn.Module):
    """What is bright, and what lies between bright pixels of a line: it knows of no place."""

    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        bright = (images[..., 0] > 0).astype(jnp.int32)
        last = bright.ndim - 1
        between = jax.lax.cummax(bright, last) & jax.lax.cummax(bright, last, reverse=True)
        z = jnp.where(between > 0, 9.0, -9.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


class OfItsSize(nn.Module):
    """What is bright, unless that is more than it ever saw; perhaps not at the border."""

    largest: int
    blind: int = 0
    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        bright = images[..., 0] > 0
        seen = jnp.zeros(images.shape[1:-1], bool)
        seen = seen.at[(slice(self.blind, -self.blind or None),) * seen.ndim].set(True)
        few = jnp.sum(bright, range(1, bright.ndim), keepdims=True) <= self.largest
        z = jnp.where(bright & seen[None] & few, 9.0, -9.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


class Wary(nn.Module):
    """What is bright, but nothing of an image that is painted over in part; nothing at the border either."""

    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        edge = np.ones(images.shape[1:-1], bool)
        edge[8:-8, 8:-8] = False
        flat = jnp.mean(images[:, 1:, :, 0] == images[:, :-1, :, 0], (1, 2), keepdims=True) > 0.2
        z = jnp.where((images[..., 0] > 0) & jnp.asarray(~edge)[None] & ~flat, 9.0, -9.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


class Frame(nn.Module):
    """What is bright, and all of the border: it makes objects up there."""

    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        bright = images[..., 0] > 0
        edge = np.ones(images.shape[1:-1], bool)
        edge[(slice(4, -4),) * edge.ndim] = False
        z = jnp.where(bright | jnp.asarray(edge)[None], 9.0, -9.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


def bright(labels, random):
    """Cases of bright objects in dark, noisy images, a patient each."""
    images, count = np.where(labels, 200, 60) + random.integers(-40, 41, labels.shape), len(labels)
    names = tuple(f"disc{i}" for i in range(count))
    return pipeline.InMemory(
        "discs/test", ("background", "disc"), images[..., None].astype(np.uint8), labels.astype(np.uint8),
        names, names, *pipeline.nowhere(count),
    )  # fmt: skip


@pytest.fixture(scope="module")
def discs():
    """In the middle of images."""
    random, size = np.random.default_rng(0), 64
    rows, columns = np.ogrid[:size, :size]
    radii, centres = random.uniform(9, 14, 16), random.uniform(30, 34, (16, 2))
    labels = np.stack([np.hypot(rows - y, columns - x) < r for r, (y, x) in zip(radii, centres, strict=True)])
    return bright(labels, random)


def balls(slices, count=8):
    """As flat as the volumes in whose middle they are."""
    random, sizes = np.random.default_rng(0), (slices, 32, 32)
    places = np.stack(np.indices(sizes), -1) / sizes
    radii, centres = random.uniform(0.15, 0.22, count), random.uniform(0.45, 0.5, (count, 3))
    return bright(
        np.stack([np.linalg.norm(places - c, axis=-1) < r for r, c in zip(radii, centres, strict=True)]), random
    )


@pytest.mark.parametrize(
    ("network", "given_up", "made_up"),
    [("Threshold", False, False), (Hull, False, False), (CentralDisc, True, False), (Frame, False, True)],
)
def test_networks_whose_answer_is_known_are_judged_so(networks, subject_of, answer, discs, network, given_up, made_up):
    model = networks.Threshold() if network == "Threshold" else network()
    found, arrays = answer(translation.PROBE, subject_of(model, discs))
    inside, _, rest_inside, rest_at_border = judged(found, arrays, given_up=given_up, made_up=made_up)
    if given_up:
        assert inside > 0.5 and abs(rest_inside - rest_at_border) < 0.2


def judged(found, arrays, *, given_up, made_up, least=0.99):
    """Asserts what translation says of the border, and of objects that are made up; recall in its two windows."""
    border, false = found.candidates
    assert border.kind == BORDER and false.kind == translation.FALSE_OBJECTS
    assert (border.found, false.found) == (given_up, made_up)
    assert not border.open and not false.open
    (inside, at_border, painted, painted_at_border), (rest_inside, rest_at_border, *_) = arrays["found"].mean(-1)
    if given_up:
        assert at_border <= 1 - least
        weakest = min(inside - at_border, painted - painted_at_border)
        assert border.estimate.mean == pytest.approx(weakest, abs=1e-6)
    else:
        assert min(inside, at_border, rest_inside, rest_at_border) > least and border.estimate.high < 0.01
    return inside, at_border, rest_inside, rest_at_border


VOLUMES = {  # slices, network, whether objects at the border are given up, or made up
    "threshold": (16, Filled(), False, False),
    "threshold, few slices": (6, Filled(), False, False),
    "central ball": (16, CentralDisc(0.3), True, False),
    "central ball, few slices": (6, CentralDisc(0.3), True, False),
    "frame": (16, Frame(), False, True),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_of_volumes_too(subject_of, answer, name):
    slices, network, given_up, made_up = VOLUMES[name]
    subject = subject_of(network, balls(slices), batch_size=4)
    found, arrays = answer(translation.PROBE, subject)
    judged(found, arrays, given_up=given_up, made_up=made_up, least=0.95)
    told = found.rows[0].convention
    assert "two windows of a volume" in told and ("six sides" if slices == 16 else "four sides") in told


def test_a_network_that_is_blind_at_the_ends_of_volumes_is_found_and_shown(
    networks, subject_of, answer, monkeypatch, tmp_path
):
    cases = balls(16)
    found, arrays = answer(translation.PROBE, subject_of(networks.Threshold(blind=4), cases, batch_size=4))
    judged(found, arrays, given_up=True, made_up=False, least=0.95)
    rows = []
    monkeypatch.setattr(pictures.figures, "overlays", lambda path, given: rows.extend(given))
    found.candidates[0].figure.draw(tmp_path / "x.png")
    assert "Of every volume the slice with most of the object is shown." in found.candidates[0].figure.caption
    places = np.repeat(arrays["picture_slices"], 2)
    for (title, image, label, _), case, place in zip(rows, np.repeat(arrays["chosen"], 2), places, strict=True):
        assert title.startswith(f"disc{case}, the border ") and f", slice {place + 1} of 16 (" in title
        # it is a window of that slice, twice as large
        larger = np.kron(cases.labels[case, place], np.ones((2, 2), int))
        at = [(y, x) for y in range(0, 33, 2) for x in range(0, 33, 2)]
        assert image.shape == (32, 32, 3) and any((larger[y : y + 32, x : x + 32] == label).all() for y, x in at)


def test_a_network_that_is_blind_at_the_border_is_found(networks, subject_of, answer, assert_stays, discs):
    found, arrays = answer(translation.PROBE, subject_of(networks.Threshold(blind=8), discs))
    assert_stays("translation", found, arrays)
    candidate = found.candidates[0]
    # near the border are the 8 px in which it sees nothing; a disc may reach the other sides of both windows
    np.testing.assert_allclose(arrays["found"][0, 1], 0)
    assert (arrays["found"][0, 0] > 0.8).all()
    np.testing.assert_allclose(arrays["found"][1, 0], arrays["found"][1, 1], atol=0.2)
    assert candidate.estimate.mean == pytest.approx(arrays["found"][0, 0].mean(), abs=0.1)
    np.testing.assert_allclose(candidate.damage, np.mean(arrays["dice"][0] - arrays["dice"][1]))
    lost = next(r for r in found.rows if r["quantity"] == "recall, inside minus at the border")
    assert lost.estimate.n == 16 and "within 8 of 64 px" in lost["where"]
    figure = candidate.figure
    assert (figure.name, figure.title) == ("finding_translation", "The border far away, and the border close by")
    assert arrays["pictures"].shape == (2, 2, 64, 64, 1) and arrays["pictures"].dtype == np.uint8
    assert arrays["picture_classes"][:, 0].any()


@pytest.mark.parametrize(("blind", "given_up"), [(8, True), (0, False)])
def test_a_network_that_knows_no_larger_objects_is_asked_in_larger_windows(subject_of, answer, discs, blind, given_up):
    # twice as large none is found; larger by a third all are
    large = discs.take(np.flatnonzero(discs.labels.sum((1, 2)) > 400))
    found, arrays = answer(translation.PROBE, subject_of(OfItsSize(1200, blind), large))
    border = found.candidates[0]
    assert arrays["quarters"] == 3 and border.found == given_up and not border.open
    inside, at_border, painted, _ = np.nanmean(arrays["found"][0], -1)
    assert inside > 0.95 and painted > 0.95
    assert border.estimate.mean == pytest.approx(inside - at_border, abs=0.02)
    assert "three quarters as wide and high" in found.rows[0].convention
    assert "of three quarters of the side" in border.figure.caption


def test_a_loss_that_only_strange_pictures_could_confirm_is_open(subject_of, answer, discs):
    found, arrays = answer(translation.PROBE, subject_of(Wary(), discs))
    inside, at_border, *painted = arrays["found"][0].mean(-1)
    assert inside > 0.8 and at_border < 0.01 and max(painted) == 0
    border = found.candidates[0]
    assert border.open and not border.found
    told = (
        "of objects in windows of half the side whose rest is painted over the network finds 0% where no border is near"
    )
    assert told in findings.verdict(found.candidates).sentence


def test_sides_at_which_no_object_was_cut_are_named(networks, subject_of, answer, discs):
    # a window whose left border cuts them would reach beyond the image
    moved = {name: np.roll(getattr(discs, name), 26, 2) for name in ("images", "labels")}
    found, arrays = answer(translation.PROBE, subject_of(networks.Threshold(), dataclasses.replace(discs, **moved)))
    assert arrays["cut"].any(1).tolist() == [False, True, True, True]
    assert found.text == ("No object could be cut at: left. Of these sides nothing is said.",)
    assert answer(translation.PROBE, subject_of(networks.Threshold(), discs))[0].text == ()


def test_where_nothing_is_found_anyway_no_loss_can_be_seen(networks, subject_of, answer, settings, discs):
    found, _ = answer(translation.PROBE, subject_of(networks.Threshold(level=2.0), discs))
    border = found.candidates[0]
    assert not border.found and border.open
    said = findings.verdict(found.candidates)
    assert said.verdict == "unclear"
    assert said.sentence.startswith(
        "Recall lost near the border cannot be told: of objects in windows of half the side"
    )
    assert "the network finds 0% where no border is near, and a loss could be seen from 20% on." in said.sentence
    empty = dataclasses.replace(discs, labels=discs.labels * 0)
    with pytest.raises(NotAskedError, match="no object lies where a window's border could cut it"):
        translation.measure(subject_of(networks.Threshold(), empty), settings(translation.PROBE))


def test_zeros_that_a_network_uses_are_found_by_taking_them_away(networks, subject_of, answer, assert_stays):
    found, arrays = answer(padding.PROBE, subject_of(networks.PaddedSum()))
    assert_stays("padding", found, arrays)
    (candidate,) = found.candidates
    assert candidate.kind == BORDER and candidate.found
    own, swapped = arrays["strip"].mean(1)
    assert own < 0.75 < 0.8 < swapped
    assert candidate.estimate.mean == pytest.approx(swapped - own, abs=1e-6)


def test_zeros_around_volumes_are_found_by_taking_them_away(networks, subject_of, answer):
    found, arrays = answer(padding.PROBE, subject_of(networks.PaddedSum(), balls(16), batch_size=4))
    own, swapped = arrays["strip"].mean(1)
    assert found.candidates[0].found and own < 0.5 < 0.7 < swapped
    assert arrays["pictures"].shape == (2, 2, 32, 32, 1)


def test_a_swap_is_not_asked_where_there_are_no_zeros(networks, subject_of, settings):
    reflecting = networks.PaddedSum(padding="reflect")
    for model, told in ((reflecting, "pads with 'reflect'"), (networks.Threshold(), "does not say")):
        with pytest.raises(NotAskedError, match=told):
            padding.measure(subject_of(model), settings(padding.PROBE))
