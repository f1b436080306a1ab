"""Windows that show an object inside and at the border, by a slow reference, and networks whose answer is known."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, spatial

from jaxseg.audit import border_windows, findings
from jaxseg.audit.probe import BORDER, NotAskedError
from jaxseg.audit.probes import padding, translation
from jaxseg.data import pipeline

WIDTH = 2
TURNS = {
    "left": lambda x: x,
    "right": lambda x: x[:, ::-1],
    "top": lambda x: x.swapaxes(0, 1),
    "bottom": lambda x: x.swapaxes(0, 1)[::-1, ::-1],
}


@functools.partial(jax.jit, static_argnames="width")
def cut(images, labels, valid, width=WIDTH):
    made = border_windows.cut(images, labels, width=width, valid=valid)
    return made._asdict() | {"matched": made.matched(made.labels), "shown": made.shown(made.labels)}


def scene(size=(16, 24), seed=0):
    """Two images with an object each, and without a few pixels of both."""
    random = np.random.default_rng(seed)
    labels = np.zeros((2, *size), np.int32)
    labels[0, 5:10, 8:15], labels[1, 4:13, 11:15] = 1, 2
    return random.random((2, *size, 2), np.float32), labels, random.random((2, *size)) < 0.95


def reference(image, label, valid, side):
    """The windows of one image at one side, turned so that it is the left one, by loops and slices."""
    image, label, valid = (TURNS[side](array) for array in (image, label, valid))
    height, size = label.shape
    rows, columns = np.nonzero(label)
    row, line = round(rows.mean()), min(round(columns.mean()), size - size // 2)
    top = min(max(row - height // 4, 0), height - height // 2)
    left = min(max(line - size // 4, 0), size - size // 2)
    if 2 * (line - left) < 2 * WIDTH:
        return None
    windows = []
    for start in (left, line):
        place = np.s_[top : top + height // 2, start : start + size // 2]
        zoomed = [ndimage.zoom(image[place][..., c], 2, order=1, mode="nearest", grid_mode=True) for c in range(2)]
        double = lambda array: array.repeat(2, 0).repeat(2, 1)
        windows.append((np.stack(zoomed, -1), double(label[place]), double(valid[place])))
    shift = 2 * (line - left)
    both = np.zeros((height, size), bool)
    both[:, : size - shift] = windows[1][2][:, : size - shift] & windows[0][2][:, shift:]
    near = both & (np.arange(size) < WIDTH)
    return windows, shift, near, both & ~near


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (20, 20)])
def test_windows_are_those_of_a_slow_reference(size):
    images, labels, valid = scene(size)
    found = {name: np.asarray(values) for name, values in cut(images, labels, valid).items()}
    cuts = 0
    for number, side in enumerate(border_windows.SIDES):
        for case in range(2):
            wanted = reference(images[case], labels[case], valid[case], side)
            at = (number, case)
            if wanted is None:
                assert not found["near"][at].any() and not found["rest"][at].any()
                continue
            windows, shift, near, rest = wanted
            cuts += 1
            for which, (image, label, _) in enumerate(windows):
                np.testing.assert_allclose(TURNS[side](found["images"][which, *at]), image, atol=1e-6)
                np.testing.assert_array_equal(TURNS[side](found["labels"][which, *at]), label)
            assert found["shifts"][at] == shift
            np.testing.assert_array_equal(TURNS[side](found["near"][at]), near)
            np.testing.assert_array_equal(TURNS[side](found["rest"][at]), rest)
            # of a network that says what is there, the two windows say the same of what both show
            where = found["near"][at] | found["rest"][at]
            np.testing.assert_array_equal(found["matched"][0, *at][where], found["matched"][1, *at][where])
    assert cuts >= 6


def test_an_object_without_room_beside_it_or_none_is_not_cut():
    labels = np.zeros((2, 16, 16), np.int32)
    labels[0, :, :3] = 1  # left of its middle is no room for a window in which the line is far from the border
    found = cut(np.zeros((2, 16, 16, 1), np.float32), labels, None)
    near = np.asarray(found["near"])
    assert not near[0, 0].any() and near[1, 0].any() and near[2, 0].any() and not near[:, 1].any()


def test_a_case_is_shown_at_the_side_where_most_of_it_is_cut():
    """An upright bar is cut along its length on the left, one that lies at the top."""
    labels = np.zeros((2, 16, 16), np.int32)
    labels[0, 4:12, 7:9], labels[1, 7:9, 4:12] = 1, 1
    found = cut(np.zeros((2, 16, 16, 1), np.float32), labels, None)
    for case, side in enumerate(("left", "top")):
        wanted = np.asarray(found["labels"])[:, border_windows.SIDES.index(side), case]
        np.testing.assert_array_equal(found["shown"][case], wanted)


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
    """The middle of the image, whatever it shows."""

    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        height, width = images.shape[1:3]
        rows, columns = np.ogrid[:height, :width]
        inside = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) < 0.2 * height
        z = jnp.broadcast_to(jnp.where(jnp.asarray(inside), 9.0, -9.0), images.shape[:3])
        return jnp.stack([jnp.zeros_like(z), z], -1)


class Frame(nn.Module):
    """What is bright, and all of the border: it makes objects up there."""

    padding = ""

    @nn.compact
    def __call__(self, images, train=False):
        bright = images[..., 0] > 0
        edge = np.ones(images.shape[1:3], bool)
        edge[4:-4, 4:-4] = False
        z = jnp.where(bright | jnp.asarray(edge)[None], 9.0, -9.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


@pytest.fixture(scope="module")
def discs():
    """Bright discs in the middle of dark, noisy images."""
    random, size = np.random.default_rng(0), 64
    rows, columns = np.ogrid[:size, :size]
    radii, centres = random.uniform(9, 14, 16), random.uniform(30, 34, (16, 2))
    labels = np.stack([np.hypot(rows - y, columns - x) < r for r, (y, x) in zip(radii, centres, strict=True)])
    images = np.where(labels, 200, 60) + random.integers(-40, 41, labels.shape)
    names = tuple(f"disc{i}" for i in range(16))
    return pipeline.InMemory(
        "discs/test", ("background", "disc"), images[..., None].astype(np.uint8), labels.astype(np.uint8),
        names, names, *pipeline.nowhere(16),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "given_up", "made_up"),
    [("Threshold", False, False), (Hull, False, False), (CentralDisc, True, False), (Frame, False, True)],
)
def test_networks_whose_answer_is_known_are_judged_so(networks, subject_of, answer, discs, network, given_up, made_up):
    model = networks.Threshold() if network == "Threshold" else network()
    found, arrays = answer(translation.PROBE, subject_of(model, discs))
    border, false = found.candidates
    assert border.kind == BORDER and false.kind == translation.FALSE_OBJECTS
    assert (border.found, false.found) == (given_up, made_up)
    assert not border.open and not false.open
    (inside, at_border), (rest_inside, rest_at_border) = arrays["found"].mean(-1)
    if given_up:
        assert inside > 0.5 and at_border == 0 and abs(rest_inside - rest_at_border) < 0.2
        assert border.estimate.mean == pytest.approx(min(inside, inside - rest_inside + rest_at_border))
    else:
        assert min(inside, at_border, rest_inside, rest_at_border) > 0.99 and border.estimate.high < 0.01


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


def test_where_nothing_is_found_anyway_no_loss_can_be_seen(networks, subject_of, answer, settings, discs):
    found, _ = answer(translation.PROBE, subject_of(networks.Threshold(level=2.0), discs))
    border = found.candidates[0]
    assert not border.found and border.open
    said = findings.verdict(found.candidates)
    assert said.verdict == "unclear"
    assert said.sentence.startswith(
        "Recall lost near the border cannot be told: of objects in windows of half the side"
    )
    assert "the network finds 0% where no border is near, and a loss could be seen from 30% on." in said.sentence
    empty = dataclasses.replace(discs, labels=discs.labels * 0)
    with pytest.raises(NotAskedError, match="no object lies where windows of half the image's side can cut it"):
        translation.measure(subject_of(networks.Threshold(), empty), settings(translation.PROBE))


def test_zeros_that_a_network_uses_are_found_by_taking_them_away(networks, subject_of, answer, assert_stays):
    found, arrays = answer(padding.PROBE, subject_of(networks.PaddedSum()))
    assert_stays("padding", found, arrays)
    (candidate,) = found.candidates
    assert candidate.kind == BORDER and candidate.found
    own, swapped = arrays["strip"].mean(1)
    assert own < 0.75 < 0.8 < swapped
    assert candidate.estimate.mean == pytest.approx(swapped - own, abs=1e-6)


def test_a_swap_is_not_asked_where_there_are_no_zeros(networks, subject_of, settings):
    reflecting = networks.PaddedSum(padding="reflect")
    for model, told in ((reflecting, "pads with 'reflect'"), (networks.Threshold(), "does not say")):
        with pytest.raises(NotAskedError, match=told):
            padding.measure(subject_of(model), settings(padding.PROBE))
