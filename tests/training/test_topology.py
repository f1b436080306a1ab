"""Annotations with wrong topology: how much is erased, what is painted, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.training import topology

KEY = jax.random.key(3)


def changed_patches(before, after):
    return {(i // 8, j // 8) for i, j in zip(*np.nonzero(np.asarray(before) != np.asarray(after)), strict=True)}


@pytest.mark.parametrize(("fraction", "patches"), [(0.0, 0), (0.01, 1), (0.3, 2), (0.5, 3), (1.0, 6)])
def test_a_fraction_of_the_patches_with_foreground_is_erased_whole(fraction, patches):
    labels = jnp.zeros((40, 44), jnp.int32).at[9:30, 2:12].set(2).at[39, 43].set(1)  # 3 x 2 patches, and a corner
    erased = topology.erase_patches(KEY, labels.at[39, 43].set(0), fraction=fraction)
    gone = changed_patches(labels.at[39, 43].set(0), erased)
    assert len(gone) == patches
    for i, j in gone:
        assert not np.asarray(erased)[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].any()
    assert (4, 5) in changed_patches(labels, topology.erase_patches(KEY, labels, fraction=1.0))  # a smaller patch


def test_painting_covers_a_fraction_of_the_pixels_that_look_like_the_class():
    """Gray 5 +- 1 in the class, the same in one far corner, 0 elsewhere; the annotation is one patch, which goes."""
    labels = jnp.zeros((1, 32, 32), jnp.int32).at[0, :8, :8].set(2)
    checker = jnp.where((jnp.indices((32, 32)).sum(0) % 2) == 0, 4.0, 6.0)
    similar = jnp.zeros((32, 32), bool).at[:8, :8].set(True).at[24:, 24:].set(True)
    images = jnp.where(similar, checker, 0.0)[None, ..., None]
    wrong = topology.corrupt(KEY, images, labels, num_classes=4, fraction=0.5)
    outside = np.asarray(wrong[0]).copy()
    outside[:8, :8] = 0
    assert set(np.unique(wrong)) == {0, 2}
    assert not outside[:24].any() and not outside[24:, :24].any()
    assert (outside == 2).sum() == 32  # of 64 background pixels that look like the class
    assert not np.asarray(wrong[0])[:8, :8].any()  # and what was erased is not painted again


def test_the_number_of_painted_pixels_is_exact():
    labels = jnp.zeros((1, 16, 16), jnp.int32).at[0, 0, 0].set(1)
    images = jnp.full((1, 16, 16, 3), 0.25)  # every pixel looks like the class
    wrong = topology.corrupt(KEY, images, labels, num_classes=2, fraction=0.25)
    assert int((wrong == 1).sum()) == 64  # of 255 background pixels, rounded up; the annotated one is erased


def test_only_classes_of_the_annotation_are_painted_and_images_differ():
    labels = jnp.zeros((16, 16, 16), jnp.int32).at[:, 2:6, 2:6].set(1).at[:, 9:14, 9:14].set(3)
    images = jax.random.uniform(KEY, (16, 16, 16, 1))
    wrong = np.asarray(jax.jit(lambda k: topology.corrupt(k, images, labels, num_classes=5, fraction=0.3))(KEY))
    painted = [set(np.unique(w[(labels[0] == 0)])) - {0} for w in wrong]
    assert {frozenset(classes) for classes in painted} == {frozenset({1}), frozenset({3})}


def test_an_image_without_foreground_stays_as_it_is():
    labels = jnp.zeros((2, 16, 16), jnp.int32)
    images = jax.random.uniform(KEY, (2, 16, 16, 1))
    assert not topology.corrupt(KEY, images, labels, num_classes=3, fraction=0.5).any()


def test_volumes_and_shapes_that_do_not_match():
    labels = jnp.ones((1, 10, 16, 9), jnp.int32)
    assert not topology.erase_patches(KEY, labels[0], fraction=1.0).any()
    with pytest.raises(ValueError, match="must have the labels' shape"):
        topology.corrupt(KEY, jnp.zeros((1, 8, 8, 1)), labels, num_classes=2)
