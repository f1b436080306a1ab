"""Pooling, Ledoit-Wolf and distances against the authors' numbers, scikit-learn and plain numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import mahalanobis


def correlated(number, dimension, *, seed=0, offset=0.0):
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((dimension, dimension))
    return (random.standard_normal((number, dimension)) @ mixing + offset).astype(np.float32)


def slow_ledoit_wolf(vectors):
    """The definition, sample by sample: how far each `y y^T` lies from their mean."""
    centred = vectors.astype(float) - vectors.astype(float).mean(0)
    number, dimension = centred.shape
    covariance = sum(np.outer(y, y) for y in centred) / number
    target = np.trace(covariance) / dimension * np.eye(dimension)
    apart = ((covariance - target) ** 2).sum()
    noise = sum(((np.outer(y, y) - covariance) ** 2).sum() for y in centred) / number**2
    shrinkage = min(noise, apart) / apart if min(noise, apart) > 1e-9 * apart else 0.0
    return (1 - shrinkage) * covariance + shrinkage * target, shrinkage


def slow_distance(train, test):
    covariance, _ = slow_ledoit_wolf(train)
    difference = test.astype(float) - train.astype(float).mean(0)
    return np.einsum("bi,ij,bj->b", difference, np.linalg.inv(covariance), difference)


def streamed(vectors, sizes):
    moments = mahalanobis.init(vectors.shape[1])
    for start, end in itertools.pairwise(np.cumsum([0, *sizes])):
        moments = mahalanobis.update(moments, vectors[start:end])
    return moments


def test_the_authors_distances(oracles):
    with np.load(oracles / "pooled_mahalanobis.npz") as stored:
        train, test, expected = (stored[name] for name in ("train", "test", "squared_distance"))
    assert mahalanobis.pool(train).shape == (40, 256)
    np.testing.assert_allclose(mahalanobis.distance(mahalanobis.fit(train), test), expected, rtol=1e-4)
    moments = mahalanobis.init(256)
    for start in range(0, 40, 16):
        moments = mahalanobis.update(moments, mahalanobis.pool(train[start : start + 16]))
    np.testing.assert_allclose(mahalanobis.distance(mahalanobis.finish(moments), test), expected, rtol=1e-4)


# many vectors, few, fewer than dimensions, far from the origin, a single feature, two vectors of one feature
SETS = pytest.mark.parametrize(
    ("number", "dimension", "offset"), [(300, 6, 0), (20, 15, 2), (5, 12, 0), (300, 6, 1000), (30, 1, 3), (2, 1, 0)]
)


@SETS
def test_fit_is_the_definition(number, dimension, offset):
    train = correlated(number, dimension, offset=offset)
    test = train[:4] + np.float32(0.5)
    covariance, shrinkage = slow_ledoit_wolf(train)
    fitted = mahalanobis.fit(train)
    factor = np.asarray(fitted.cholesky)
    np.testing.assert_allclose(fitted.shrinkage, shrinkage if dimension > 1 else 0, atol=1e-6)
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-5 * np.abs(covariance).max())
    np.testing.assert_array_equal(np.triu(factor, 1), 0)
    np.testing.assert_allclose(mahalanobis.distance(fitted, test), slow_distance(train, test), rtol=1e-4)


@SETS
def test_fit_is_scikit_learns(number, dimension, offset):
    covariance = pytest.importorskip("sklearn.covariance")
    train = correlated(number, dimension, seed=1, offset=offset)
    theirs = covariance.LedoitWolf().fit(train.astype(float))
    fitted = mahalanobis.fit(train)
    factor = np.asarray(fitted.cholesky)
    np.testing.assert_allclose(fitted.shrinkage, theirs.shrinkage_, atol=1e-6)
    np.testing.assert_allclose(
        factor @ factor.T, theirs.covariance_, rtol=1e-5, atol=1e-6 * np.abs(theirs.covariance_).max()
    )
    test = correlated(4, dimension, seed=2, offset=offset)
    np.testing.assert_allclose(mahalanobis.distance(fitted, test), theirs.mahalanobis(test.astype(float)), rtol=1e-4)


def test_known_distances():
    # one feature of variance 4 about 1
    fitted = mahalanobis.fit(np.array([[-1.0], [3.0], [-1.0], [3.0]], np.float32))
    np.testing.assert_allclose(mahalanobis.distance(fitted, np.array([[1.0], [3.0], [7.0]], np.float32)), [0, 1, 9])
    # corners of a square of variance 1: the covariance is the identity, whatever the shrinkage
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    np.testing.assert_allclose(mahalanobis.distance(mahalanobis.fit(corners), 3 * corners), 18, rtol=1e-6)
    # two opposite vectors, repeated: every y y^T is the covariance, so nothing is shrunk
    assert mahalanobis.fit(np.array([[1, 0], [-1, 0]] * 2, np.float32)).shrinkage == 0


def test_few_vectors_of_much_noise_shrink_to_a_ball():
    noise = np.eye(6, dtype=np.float32)[:3]  # three corners: the empirical covariance says less than its mean
    covariance, shrinkage = slow_ledoit_wolf(noise)
    fitted = mahalanobis.fit(noise)
    np.testing.assert_allclose(fitted.shrinkage, shrinkage, atol=1e-6)
    np.testing.assert_allclose(fitted.cholesky @ fitted.cholesky.T, covariance, atol=1e-6)


def test_fit_and_distance_under_jit():
    train = correlated(20, 6)
    both = jax.jit(lambda a, b: mahalanobis.distance(mahalanobis.fit(a), b))(train, train[:4])
    np.testing.assert_allclose(both, mahalanobis.distance(mahalanobis.fit(train), train[:4]), rtol=1e-5)
    passed = jax.jit(mahalanobis.distance)(jax.jit(mahalanobis.fit)(train), train[:4])  # a pytree goes in and out
    np.testing.assert_allclose(passed, both, rtol=1e-5)


@pytest.mark.parametrize("offset", [0, 300])
def test_streams_and_merges_are_the_whole(offset):
    train = correlated(60, 7, offset=offset)
    whole = mahalanobis.update(mahalanobis.init(7), train)
    left, right = streamed(train[:25], [1, 1, 23]), streamed(train[25:], [30, 5])
    empty = mahalanobis.init(7)
    for moments in (
        streamed(train, [23, 5, 1, 30, 1]),
        streamed(train, [1] * 60),
        mahalanobis.merge(left, right),
        mahalanobis.merge(right, left),
        mahalanobis.merge(empty, mahalanobis.merge(whole, empty)),
    ):
        assert moments.number == 60
        for name in ("mean", "scatter", "fourth"):
            ours, expected = getattr(moments, name), np.asarray(getattr(whole, name))
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(), err_msg=name)
        # a sum of signed terms: measured against their size
        np.testing.assert_allclose(moments.third, whole.third, atol=1e-4 * float(whole.fourth) ** 0.75)
        expected = slow_distance(train, train[:4] + np.float32(1))
        ours = mahalanobis.distance(mahalanobis.finish(moments), train[:4] + np.float32(1))
        np.testing.assert_allclose(ours, expected, rtol=1e-3)
    nothing = mahalanobis.merge(empty, empty)
    assert nothing.number == 0 and np.isfinite(nothing.scatter).all()


@pytest.mark.parametrize(("offset", "sizes", "rtol"), [(2, [7, 10, 3], 1e-4), (10_000, [20], 1e-5)])
def test_moments_are_their_definitions(offset, sizes, rtol):
    train = correlated(20, 6, seed=3, offset=offset)
    moments = streamed(train, sizes)
    y = train.astype(float) - train.astype(float).mean(0)
    square = (y**2).sum(1)
    np.testing.assert_allclose(moments.mean, train.astype(float).mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.scatter, y.T @ y, atol=rtol * np.abs(y.T @ y).max())
    np.testing.assert_allclose(moments.third, square @ y, atol=rtol * (square**1.5).sum())
    np.testing.assert_allclose(moments.fourth, (square**2).sum(), rtol=rtol)


def test_devices_may_be_merged_by_a_scan():
    train = correlated(48, 5)
    parts = jax.vmap(lambda v: mahalanobis.update(mahalanobis.init(5), v))(train.reshape(4, 12, 5))
    merged, _ = jax.lax.scan(lambda a, b: (mahalanobis.merge(a, b), None), mahalanobis.init(5), parts)
    whole = mahalanobis.update(mahalanobis.init(5), train)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(merged.fourth, whole.fourth, rtol=1e-5)


def test_distances_survive_moves_turns_and_scales():
    train, test = correlated(20, 6), correlated(4, 6, seed=9)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    expected = mahalanobis.distance(mahalanobis.fit(train), test)
    assert (expected > 0).all()
    moved = lambda x: (3 * x.astype(float) @ turn + 5).astype(np.float32)
    ours = mahalanobis.distance(mahalanobis.fit(moved(train)), moved(test))
    np.testing.assert_allclose(ours, expected, rtol=1e-3)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(mahalanobis.distance(mahalanobis.fit(train[order]), test), expected, rtol=1e-4)
    np.testing.assert_allclose(mahalanobis.distance(mahalanobis.fit(train), train.mean(0)[None]), 0, atol=1e-6)


def slow_pool(activations, axes):
    """Blocks of two along the axes, as PyTorch's average pooling with kernel and stride 2."""
    window = [2 if i in axes and size > 1 else 1 for i, size in enumerate(activations.shape)]
    shape = [size // w for size, w in zip(activations.shape, window, strict=True)]
    out = np.empty(shape)
    for index in itertools.product(*map(range, shape)):
        block = tuple(slice(i * w, i * w + w) for i, w in zip(index, window, strict=True))
        out[index] = activations[block].mean(dtype=float)
    return out


@pytest.mark.parametrize(
    ("shape", "pooling", "times"),
    [
        ((2, 5, 7, 3), "all", 1),  # the rest of odd axes is dropped
        ((1, 26, 20, 20), "all", 2),  # 10400 entries
        ((1, 25, 20, 20), "all", 1),  # 10000 entries exactly
        ((1, 20, 26, 20), "spatial", 2),
        ((2, 4, 1, 6), "all", 1),  # an axis of one element stays
        ((1, 2, 4, 6, 4), "all", 1),
        ((1, 2, 4, 6, 5), "spatial", 1),
    ],
)
def test_pool_is_the_loop(shape, pooling, times):
    activations = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = activations
    for _ in range(times):
        expected = slow_pool(expected, range(1, len(shape) if pooling == "all" else len(shape) - 1))
    ours = jax.jit(lambda a: mahalanobis.pool(a, pooling=pooling))(activations)
    np.testing.assert_allclose(ours, expected.reshape(shape[0], -1), atol=1e-6)


def test_pooling_ends_where_nothing_is_left_to_pool():
    assert mahalanobis.pool(np.ones((1, 1, 1, 10_001), np.float32), pooling="spatial").shape == (1, 10_001)


def test_activations_are_pooled_as_they_were():
    activations = np.random.default_rng(0).standard_normal((12, 8, 6, 4)).astype(np.float16)
    for pooling, entries in (("all", 24), ("spatial", 48)):
        fitted = mahalanobis.fit(activations, pooling=pooling)
        assert fitted.pooling == pooling
        vectors = mahalanobis.pool(activations, pooling=pooling)
        assert vectors.shape == (12, entries)
        ours = mahalanobis.distance(fitted, activations)
        assert ours.dtype == jnp.float32 and ours.shape == (12,)
        np.testing.assert_allclose(ours, slow_distance(np.asarray(vectors), np.asarray(vectors)), rtol=1e-3)


def test_gradients_are_finite():
    train = correlated(20, 6)
    fitted = mahalanobis.fit(train)
    covariance, _ = slow_ledoit_wolf(train)
    test = train[:2] + np.float32(1)
    gradient = jax.grad(lambda x: mahalanobis.distance(fitted, x).sum())(test)
    np.testing.assert_allclose(gradient, 2 * (test - train.mean(0)) @ np.linalg.inv(covariance), rtol=1e-3)
    through = jax.jit(jax.grad(lambda x: mahalanobis.distance(mahalanobis.fit(x), test).sum()))(train)
    assert np.isfinite(through).all() and np.abs(through).max() > 0


def test_constant_features_are_harmless():
    train = correlated(20, 6)
    train[:, 2] = 4.0
    np.testing.assert_allclose(
        mahalanobis.distance(mahalanobis.fit(train), train[:4]), slow_distance(train, train[:4]), rtol=1e-4
    )


def test_what_has_no_covariance_is_undefined():
    train = correlated(4, 6)
    for few in (train[:1], *(correlated(2, 6, seed=i) for i in range(9)), np.full((5, 6), 0.1, np.float32)):
        assert np.isnan(mahalanobis.distance(mahalanobis.fit(few), train)).all()
    assert np.isnan(mahalanobis.distance(mahalanobis.fit(train[:1, :1]), train[:, :1])).all()
    assert np.isfinite(mahalanobis.distance(mahalanobis.fit(train[:3]), train)).all()
    assert np.isnan(mahalanobis.distance(mahalanobis.finish(mahalanobis.init(6)), train)).all()


def test_nan_stays_with_its_case_but_spoils_a_training_set():
    train = correlated(20, 6)
    broken = train[:4].copy()
    broken[1, 3] = np.nan
    np.testing.assert_array_equal(
        np.isnan(mahalanobis.distance(mahalanobis.fit(train), broken)), [False, True, False, False]
    )
    assert np.isnan(mahalanobis.distance(mahalanobis.fit(broken), train)).all()


def test_what_cannot_be_measured_is_named():
    train = np.ones((4, 3))
    fitted = mahalanobis.fit(train)
    for wrong in (np.ones(3, np.float32), np.ones((0, 3))):
        with pytest.raises(ValueError, match=r"vectors \[N,D\], or activations"):
            mahalanobis.fit(wrong)
    with pytest.raises(ValueError, match=r"\[B,H,W,C\] or \[B,D,H,W,C\] and not empty, got \(2, 3, 4\)"):
        mahalanobis.fit(np.ones((2, 3, 4)))
    with pytest.raises(TypeError, match="int32; convert"):
        mahalanobis.fit(train.astype(np.int32))
    with pytest.raises(TypeError, match="int32; convert"):
        mahalanobis.pool(np.ones((1, 2, 2, 2), np.int32))
    with pytest.raises(ValueError, match="'max'; choose one of all, spatial"):
        mahalanobis.fit(train, pooling="max")
    with pytest.raises(ValueError, match=r"vectors of 4 entries, the training set's have 3"):
        mahalanobis.distance(fitted, np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4\) have 4 entries, the moments were initialised for 3"):
        mahalanobis.update(mahalanobis.init(3), np.ones((2, 4)))
    with pytest.raises(ValueError, match="3 and 4 cannot be merged"):
        mahalanobis.merge(mahalanobis.init(3), mahalanobis.init(4))
    with pytest.raises(ValueError, match="dimension is 0"):
        mahalanobis.init(0)
