"""Annotations with wrong topology: how much is erased, what is painted, and where."""

import jax
import numpy as np
import pytest

from jaxseg.training import topology

KEY = jax.random.key(3)
erase = jax.jit(topology.erase_patches)
corrupt = jax.jit(topology.corrupt, static_argnames="num_classes")


def changed_patches(before, after):
    return {(i // 8, j // 8) for i, j in zip(*np.nonzero(before != np.asarray(after)), strict=True)}


@pytest.mark.parametrize(("fraction", "patches"), [(0.0, 0), (0.01, 1), (0.3, 2), (0.5, 3), (1.0, 6)])
def test_a_fraction_of_the_patches_with_foreground_is_erased_whole(fraction, patches):
    labels = np.zeros((40, 44), np.int32)
    labels[9:30, 2:12] = 2  # 3 x 2 patches
    erased = erase(KEY, labels, fraction=fraction)
    gone = changed_patches(labels, erased)
    assert len(gone) == patches
    for i, j in gone:
        assert not np.asarray(erased)[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].any()
    labels[39, 43] = 1
    assert (4, 5) in changed_patches(labels, erase(KEY, labels, fraction=1.0))  # a smaller patch, in the corner


def test_painting_covers_a_fraction_of_the_pixels_that_look_like_the_class():
    """Gray 5 +- 1 in the class, the same in one far corner, 0 elsewhere; the annotation is one patch, which goes."""
    labels, similar = np.zeros((1, 32, 32), np.int32), np.zeros((32, 32), bool)
    labels[0, :8, :8] = 2
    similar[:8, :8] = similar[24:, 24:] = True
    checker = np.where(np.indices((32, 32)).sum(0) % 2 == 0, 4, 6)
    images = np.where(similar, checker, 0).astype(np.float32)[None, ..., None]
    wrong = np.asarray(corrupt(KEY, images, labels, num_classes=4, fraction=0.5))
    outside = wrong[0].copy()
    outside[:8, :8] = 0
    assert set(np.unique(wrong)) == {0, 2}
    assert not outside[:24].any() and not outside[24:, :24].any()
    assert (outside == 2).sum() == 32  # of 64 background pixels that look like the class
    assert not wrong[0, :8, :8].any()  # and what was erased is not painted again


def test_the_number_of_painted_pixels_is_exact():
    labels = np.zeros((1, 16, 16), np.int32)
    labels[0, 0, 0] = 1
    images = np.full((1, 16, 16, 4), 0.25, np.float32)  # every pixel looks like the class: four have an exact mean
    wrong = np.asarray(corrupt(KEY, images, labels, num_classes=2, fraction=0.25))
    assert (wrong == 1).sum() == 64  # of 255 background pixels, rounded up; the annotated one is erased


def test_only_classes_of_the_annotation_are_painted_and_images_differ():
    labels = np.zeros((16, 16, 16), np.int32)
    labels[:, 2:6, 2:6], labels[:, 9:14, 9:14] = 1, 3
    images = np.random.default_rng(0).random((16, 16, 16, 1), np.float32)
    wrong = np.asarray(corrupt(KEY, images, labels, num_classes=5, fraction=0.3))
    painted = [set(np.unique(w[(labels[0] == 0)])) - {0} for w in wrong]
    assert {frozenset(classes) for classes in painted} == {frozenset({1}), frozenset({3})}


def test_an_image_without_foreground_stays_as_it_is():
    images = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    assert not np.any(corrupt(KEY, images, np.zeros((2, 16, 16), np.int32), num_classes=3, fraction=0.5))


def test_volumes_and_shapes_that_do_not_match():
    labels = np.ones((1, 10, 16, 9), np.int32)
    assert not np.any(erase(KEY, labels[0], fraction=1.0))
    with pytest.raises(ValueError, match="must have the labels' shape"):
        topology.corrupt(KEY, np.zeros((1, 8, 8, 1), np.float32), labels, num_classes=2)
