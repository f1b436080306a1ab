"""Pooling, histograms and their distances against numpy, PyTorch, closed forms, and in streams."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxseg.analysis import hellinger


def drawn(number, dimension, *, seed=0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((number, dimension)) + shift).astype(np.float32)


def slow_histograms(p, q, bins):
    """Counts by numpy, one channel after the other, over the joint range."""
    for a, b in zip(p.T, q.T, strict=True):
        limits = min(a.min(), b.min()), max(a.max(), b.max())
        yield [np.histogram(x, bins, limits)[0] for x in (a, b)], np.subtract(*limits[::-1]) / bins


def slow_hellinger(p, q, bins):
    distances = []
    for counts, _ in slow_histograms(p, q, bins):
        a, b = (count / count.sum() for count in counts)
        distances.append(np.sqrt(max(0, 1 - np.sqrt(a * b).sum())))
    return np.array(distances)


@functools.partial(jax.jit, static_argnames="bins")
def both(p, q, bins=100):
    """Histograms of two sets over their joint range."""
    joint = hellinger.merge_range(*(hellinger.update_range(hellinger.init_range(p.shape[1]), x) for x in (p, q)))
    empty = hellinger.init(*joint, bins=bins)
    return hellinger.update(empty, p), hellinger.update(empty, q)


@pytest.mark.parametrize("bins", [1, 7, 100, 4095])
def test_counts_are_numpys_on_and_beside_every_edge(bins):
    random = np.random.default_rng(bins)
    low = (random.standard_normal(24) * 10.0 ** random.uniform(-5, 5, 24)).astype(np.float32)
    high = (low + np.abs(low) * 10.0 ** random.uniform(-2, 4, 24)).astype(np.float32)
    low[0], high[0] = 0.0, 1.0
    low[1], high[1] = -3.0, 3.0
    edges = np.stack([np.linspace(a, b, bins + 1, dtype=np.float32) for a, b in zip(low, high, strict=True)], 1)
    beside = [np.nextafter(edges, np.float32(side)) for side in (-np.inf, np.inf)]
    inside = (low + (high - low) * random.random((500, 24))).astype(np.float32)
    values = np.clip(np.concatenate([edges, *beside, inside]), low, high)
    values[np.abs(values) < np.finfo(np.float32).tiny] = 0  # the compiler's arithmetic has no subnormal numbers
    state = hellinger.update(hellinger.init(low, high, bins=bins), values)
    compared = 0
    for d in range(24):
        try:
            expected, theirs = np.histogram(values[:, d], bins, (low[d], high[d]))
        except ValueError:  # numpy finds fewer numbers than bins in the range
            continue
        np.testing.assert_array_equal(theirs, edges[:, d])
        np.testing.assert_array_equal(state.counts[d], expected)
        compared += 1
    assert compared > 20 and not state.clipped.any() and not state.undefined.any()


@pytest.mark.parametrize("number", [1, 2, 700])
def test_counts_are_numpys_for_any_number_of_vectors(number):
    values = drawn(number, 96)  # 700 vectors are two whole blocks of the counting loop and a rest
    low, high = values.min(0), values.max(0)
    state = hellinger.update(hellinger.init(low, high), values)
    for d in range(96):
        np.testing.assert_array_equal(state.counts[d], np.histogram(values[:, d], 100, (low[d], high[d]))[0])


def test_no_range_is_widened_as_numpy_does():
    values = np.full((5, 3), [[0.0, -2.5, 7.25]], np.float32)
    state = hellinger.update(hellinger.init(values[0], values[0], bins=8), values)
    for d in range(3):
        np.testing.assert_array_equal(state.counts[d], np.histogram(values[:, d], 8)[0])


@pytest.mark.parametrize(("number", "other", "bins"), [(300, 200, 100), (50, 400, 10), (1, 1, 1)])
def test_hellinger_distance_is_the_loop(number, other, bins):
    p, q = drawn(number, 6), drawn(other, 6, seed=1, shift=np.linspace(0, 3, 6))
    expected = slow_hellinger(p, q, bins)
    np.testing.assert_allclose(hellinger.hellinger_distance(p, q, bins=bins), expected, atol=1e-6)
    if number == 300:
        under_jit = jax.jit(lambda a, b: hellinger.hellinger_distance(a, b, bins=bins))(p, q)
        np.testing.assert_allclose(under_jit, expected, atol=1e-6)


def test_known_distances():
    p, q = np.float32([[0], [0], [1], [1]]), np.float32([[1], [1], [2], [2]])
    np.testing.assert_allclose(hellinger.hellinger_distance(p, q, bins=3), np.sqrt(0.5), rtol=1e-6)
    quarter = np.float32([[0], [0], [0], [1]])  # 3/4 and 1/4 against 0 and 1
    np.testing.assert_allclose(hellinger.hellinger_distance(quarter, p[[2, 2, 3, 3]], bins=3), np.sqrt(0.5), rtol=1e-6)
    states = both(p, q, bins=3)
    np.testing.assert_array_equal(states[0].counts, [[2, 2, 0]])
    # half the mass moves by two bins of width 2/3
    np.testing.assert_allclose(hellinger.wasserstein(*states), 2 / 3, rtol=1e-6)
    expected = 2 * 0.5 * np.log((0.5 + 1e-3) / 1e-3) / (1 + 3e-3)
    np.testing.assert_allclose(hellinger.symmetric_kl(*states, epsilon=1e-3), expected, rtol=1e-5)
    np.testing.assert_allclose(hellinger.layer_distance(np.float32([[0, 1], [0.25, 0.25]])), [0.5, 0.25])


def test_constant_channels():
    p = np.array([[0, 1, 1, 5, -1, 3]] * 300, np.float32)
    q = np.array([[0, 2, np.nextafter(np.float32(1), np.float32(2)), 5, 1, 3]] * 200, np.float32)
    np.testing.assert_allclose(hellinger.hellinger_distance(p, q), [0, 1, 1, 0, 1, 0], atol=1e-6)
    states = both(p, q)
    np.testing.assert_allclose(hellinger.wasserstein(*states), [0, 0.99, 0, 0, 1.98, 0], atol=1e-6)
    np.testing.assert_array_equal(hellinger.symmetric_kl(*states) > 1e-6, [False, True, True, False, True, False])
    huge = np.full((300, 6), 2.0**30, np.float32)  # 0.5 is nothing here
    np.testing.assert_array_equal(hellinger.hellinger_distance(huge, huge[:200]), 0)


def test_equal_sets_are_0_apart():
    p = drawn(100, 6)
    states, thrice = both(p, p[::-1]), both(np.concatenate([p] * 3), np.concatenate([p] * 2))
    for measure in (hellinger.compute, hellinger.wasserstein, hellinger.symmetric_kl):
        np.testing.assert_array_equal(measure(*states), 0)
        np.testing.assert_allclose(measure(*thrice), 0, atol=2e-6)


def test_distances_are_metrics_blind_to_scale():
    sets = [drawn(300, 6, seed=i, shift=i / 3) for i in range(3)]
    joint = functools.reduce(hellinger.update_range, sets, hellinger.init_range(6))
    a, b, c = (hellinger.update(hellinger.init(*joint), x) for x in sets)
    for measure in (hellinger.compute, hellinger.wasserstein):
        ab, bc, ac = (np.asarray(measure(*pair)) for pair in ((a, b), (b, c), (a, c)))
        assert (ab > 0).all() and (ac <= ab + bc + 1e-6).all()
        np.testing.assert_allclose(measure(b, a), ab, rtol=1e-6)
    assert (hellinger.compute(a, c) <= 1).all()
    np.testing.assert_allclose(hellinger.symmetric_kl(a, b), hellinger.symmetric_kl(b, a), rtol=1e-5)
    p, q = sets[0], sets[1][:200]
    expected = hellinger.hellinger_distance(p, q)
    np.testing.assert_array_equal(hellinger.hellinger_distance(8 * p[::-1], 8 * q), expected)
    np.testing.assert_array_equal(hellinger.hellinger_distance(p[:, ::-1], q[:, ::-1]), expected[::-1])
    # W1 has the units of the activation
    np.testing.assert_allclose(
        hellinger.wasserstein(*both(8 * p, 8 * q)), 8 * hellinger.wasserstein(*both(p, q)), rtol=1e-5
    )


def test_wasserstein_is_scipys():
    p, q = drawn(300, 6), drawn(200, 6, seed=1, shift=np.linspace(0, 2, 6))
    states = both(p, q, bins=20)
    low, width = np.asarray(states[0].low), (np.asarray(states[0].high) - np.asarray(states[0].low)) / 20
    for d, ours in enumerate(np.asarray(hellinger.wasserstein(*states))):
        centres = low[d] + width[d] * (np.arange(20) + 0.5)
        counts = [np.asarray(state.counts[d]) for state in states]
        np.testing.assert_allclose(ours, scipy.stats.wasserstein_distance(centres, centres, *counts), rtol=1e-4)
        assert abs(float(ours) - scipy.stats.wasserstein_distance(p[:, d], q[:, d])) < width[d]


def test_symmetric_kl_is_the_loop():
    p, q = drawn(300, 6), drawn(200, 6, seed=1, shift=0.5)
    for epsilon, ours in ((e, hellinger.symmetric_kl(*both(p, q, 20), epsilon=e)) for e in (1e-6, 1e-2)):
        for d, (counts, _) in enumerate(slow_histograms(p, q, 20)):
            a, b = ((count / count.sum() + epsilon) / (1 + 20 * epsilon) for count in counts)
            np.testing.assert_allclose(ours[d], (a * np.log(a / b) + b * np.log(b / a)).sum(), rtol=1e-4)
    assert np.isinf(hellinger.symmetric_kl(*both(p, q, 20), epsilon=0)).all()
    np.testing.assert_array_equal(
        hellinger.symmetric_kl(*both(8 * p**3, 8 * p**3, 20), epsilon=0), 0
    )  # bins empty on both sides


def test_streams_and_merges_are_the_whole():
    p, q = drawn(300, 6), drawn(200, 6, seed=1, shift=1)
    joint = hellinger.init_range(6)
    for chunk in (*np.split(p, 6), *np.split(q, 4)):
        joint = hellinger.update_range(joint, chunk)
    np.testing.assert_array_equal(joint.low, np.minimum(p.min(0), q.min(0)))
    np.testing.assert_array_equal(joint.high, np.maximum(p.max(0), q.max(0)))
    empty = hellinger.init(*joint)
    streamed = functools.reduce(hellinger.update, np.split(p, 6), empty)
    left, right = (functools.reduce(hellinger.update, np.split(*half), empty) for half in ((p[:100], 2), (p[100:], 4)))
    for state in (streamed, hellinger.merge(left, right), hellinger.merge(empty, hellinger.merge(right, left))):
        jax.tree.map(np.testing.assert_array_equal, state, hellinger.update(empty, p))
        ours = hellinger.compute(state, hellinger.update(empty, q))
        np.testing.assert_allclose(ours, hellinger.hellinger_distance(p, q), rtol=1e-6)


def test_devices_may_sum_their_counts():
    p = drawn(40, 3)
    p[15, 0], p[25, 1] = np.nan, 99.0  # on the second and the third device
    edge = np.full(3, 3, np.float32)

    @jax.jit
    def run(shards):
        empty = hellinger.init(-edge, edge, bins=10)

        def on_device(vectors):
            state = hellinger.update(empty, vectors)
            counts, clipped, undefined = jax.lax.psum((state.counts, state.clipped, state.undefined), "devices")
            return state._replace(counts=counts, clipped=clipped, undefined=undefined)

        merged = functools.reduce(hellinger.merge, (hellinger.update(empty, shard) for shard in shards))
        return merged, jax.vmap(on_device, axis_name="devices")(shards)

    merged, summed = jax.tree.map(np.asarray, run(p.reshape(4, 10, 3)))
    np.testing.assert_array_equal((merged.undefined, merged.clipped), [[1, 0, 0], [0, 1, 0]])
    for device in range(4):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=device: x[i], summed), merged)


def test_donated_states_keep_nothing_of_each_other():
    p = drawn(50, 6)
    low, high = jnp.asarray(p.min(0)), jnp.asarray(p.max(0))  # arrays that could be shared, and so lost
    update = jax.jit(hellinger.update, donate_argnums=0)
    first, second = hellinger.init(low, high), hellinger.init(low, high)
    donated = first.counts
    for _ in range(3):
        first, second = update(first, p), update(second, p)
    assert donated.is_deleted()
    np.testing.assert_array_equal(first.counts.sum(-1), 150)
    np.testing.assert_array_equal(hellinger.compute(first, second), 0)
    assert low.shape == (6,) and not low.is_deleted()


def test_memory_does_not_grow_with_the_number_of_vectors():
    edge = jax.ShapeDtypeStruct((64,), jnp.float32)
    state = jax.eval_shape(hellinger.init, edge, edge)

    def temporary(number):
        vectors = jax.ShapeDtypeStruct((number, 64), jnp.float32)
        analysis = jax.jit(hellinger.update).lower(state, vectors).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporary(2**20) < 1.2 * temporary(2**11) < 2**20


def test_values_outside_a_given_range_are_kept_and_counted():
    values = np.array([[-9, 0.1], [0.1, 0.3], [0.6, 0.4], [7, 0.9], [8, 1.0]], np.float32)
    values[:, 1][3] = np.inf
    state = hellinger.update(hellinger.init(np.zeros(2, np.float32), np.ones(2, np.float32), bins=2), values)
    np.testing.assert_array_equal(state.counts, [[2, 3], [3, 2]])
    np.testing.assert_array_equal(state.clipped, [3, 1])
    np.testing.assert_array_equal(state.undefined, [0, 0])
    assert np.isfinite(hellinger.compute(state, state)).all()


def test_what_is_not_a_number_makes_its_channel_undefined():
    p, q = drawn(300, 6), drawn(200, 6, seed=1)
    p[3, 0], q[4, 1], q[5, 2] = np.nan, np.inf, -np.inf
    distances = hellinger.hellinger_distance(p, q)
    np.testing.assert_array_equal(np.isnan(distances), [True, True, True, False, False, False])
    assert np.isnan(hellinger.layer_distance(distances))
    # in a given range too, where only NaN has no bin
    nine = np.full(6, 9, np.float32)
    given = hellinger.init(-nine, nine)
    states = [hellinger.update(given, x) for x in (p, drawn(200, 6))]
    np.testing.assert_array_equal(states[0].undefined, [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(states[0].counts.sum(-1), [299, 300, 300, 300, 300, 300])
    for measure in (hellinger.compute, hellinger.wasserstein, hellinger.symmetric_kl):
        for pair in (states, states[::-1]):
            np.testing.assert_array_equal(np.isnan(measure(*pair)), [True, False, False, False, False, False])


def test_nothing_seen_and_ranges_that_differ_are_undefined():
    p = drawn(300, 6)
    five = np.full(6, 5, np.float32)
    empty = hellinger.init(-five, five)
    full = hellinger.update(empty, p)
    for measure in (hellinger.compute, hellinger.wasserstein, hellinger.symmetric_kl):
        assert np.isnan(measure(full, empty)).all() and np.isnan(measure(empty, full)).all()
    low, high = -five, five.copy()
    low[1], high[2] = -4, 4
    other = hellinger.update(hellinger.init(low, high), p)
    merged = hellinger.merge(full, other)
    for a, b in ((full, other), (merged, merged)):
        np.testing.assert_array_equal(np.isnan(hellinger.compute(a, b)), [False, True, True, False, False, False])
    for least, most in ((5.0, -5.0), (np.nan, 1.0), (-np.inf, np.inf)):
        strange = hellinger.update(hellinger.init(np.full(6, least, np.float32), np.full(6, most, np.float32)), p)
        assert np.isnan(hellinger.compute(strange, strange)).all()
    jax.tree.map(np.testing.assert_array_equal, hellinger.update(full, p[:0]), full)
    nothing = hellinger.init_range(6)
    jax.tree.map(np.testing.assert_array_equal, hellinger.update_range(nothing, p[:0]), nothing)


def test_full_bins_do_not_overflow():
    state = hellinger.init(np.zeros(1, np.float32), np.ones(1, np.float32), bins=4)
    full = state._replace(counts=np.full((1, 4), 2**31 - 1, np.int32))
    other = state._replace(counts=np.array([[1, 1, 0, 0]], np.int32))
    np.testing.assert_allclose(hellinger.compute(full, other), np.sqrt(1 - np.sqrt(0.5)), rtol=1e-6)


def test_half_precision_is_binned_in_float32():
    p, q = (drawn(n, 6, seed=n).astype(jnp.bfloat16) for n in (300, 200))
    ours = hellinger.hellinger_distance(p, q)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, slow_hellinger(*(np.asarray(x, np.float32) for x in (p, q)), 100), atol=1e-6)


def slow_adaptive(activations, grid):
    pooled = np.empty((activations.shape[0], *grid, activations.shape[-1]))
    for cell in itertools.product(*map(range, grid)):
        inside = tuple(
            slice(i * size // cells, -(-(i + 1) * size // cells))
            for i, size, cells in zip(cell, activations.shape[1:-1], grid, strict=True)
        )
        pooled[(slice(None), *cell)] = activations[(slice(None), *inside)].mean(
            tuple(range(1, activations.ndim - 1)), dtype=float
        )
    return pooled.reshape(-1, activations.shape[-1])


POOLED = pytest.mark.parametrize(
    ("shape", "grid"),
    [((2, 8, 12, 3), (4, 3)), ((2, 7, 5, 3), (3, 4)), ((1, 3, 6, 2), (4, 6)), ((2, 4, 6, 5, 3), (2, 4, 5))],
)


def pooled(shape, grid):
    activations = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return activations, jax.jit(lambda a: hellinger.pool_vectors(a, grid=grid))(activations)


@POOLED
def test_pool_vectors_is_adaptive_average_pooling(shape, grid):
    activations, ours = pooled(shape, grid)
    np.testing.assert_allclose(ours, slow_adaptive(activations, grid), atol=1e-6)


@POOLED
def test_pool_vectors_is_pytorchs_adaptive_pooling(torch, shape, grid):
    activations, ours = pooled(shape, grid)
    pooling = {4: torch.nn.AdaptiveAvgPool2d, 5: torch.nn.AdaptiveAvgPool3d}[len(shape)](grid)
    theirs = np.moveaxis(pooling(torch.from_numpy(np.moveaxis(activations, -1, 1).copy())).numpy(), 1, -1)
    np.testing.assert_allclose(ours, theirs.reshape(-1, shape[-1]), atol=1e-6)


def test_the_papers_grid_is_one_cell_per_32_pixels():
    pooled_of = lambda shape, sides: jax.eval_shape(
        lambda: hellinger.pool_vectors(np.ones(shape, np.float16), image_shape=sides)
    )
    pooled = pooled_of((2, 16, 24, 3), (256, 384))
    assert pooled.shape == (2 * 8 * 12, 3) and pooled.dtype == jnp.float32
    assert pooled_of((2, 16, 24, 3), (33, 32)).shape == (2 * 2 * 1, 3)
    assert pooled_of((1, 4, 8, 8, 2), (10, 64, 64)).shape == (4, 2)
    # image after image, row after row
    numbered = np.arange(12, dtype=np.float32).reshape(2, 2, 3, 1)
    np.testing.assert_array_equal(hellinger.pool_vectors(numbered, grid=(2, 3))[:, 0], np.arange(12))


def test_split_half_null_draws_images_not_vectors():
    # images that have nothing in common with each other: so have any two halves, but not halves of the vectors
    distinct = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 5, 2))
    key = jax.random.key(0)
    np.testing.assert_array_equal(hellinger.split_half_null(key, distinct, splits=6, bins=8), np.ones((6, 2)))
    # images that are all alike: a split changes nothing, while vectors differ
    alike = np.broadcast_to(drawn(5, 2)[None], (8, 5, 2))
    np.testing.assert_array_equal(hellinger.split_half_null(key, alike, splits=6, bins=8), np.zeros((6, 2)))


@pytest.mark.parametrize("images", [2, 5])
def test_split_half_null_is_a_distance_of_halves(images):
    vectors = drawn(images * 4, 3).reshape(images, 4, 3)
    null = jax.jit(lambda k, v: hellinger.split_half_null(k, v, splits=20, bins=7))(jax.random.key(1), vectors)
    possible = []
    for chosen in itertools.combinations(range(images), images // 2):
        rest = set(range(images)) - set(chosen)
        for others in itertools.combinations(rest, images // 2):
            halves = (vectors[list(half)].reshape(-1, 3) for half in (chosen, others))
            possible.append(slow_hellinger(*halves, 7))
    for row in np.asarray(null):
        assert np.abs(np.array(possible) - row).max(1).min() < 1e-6
    assert images == 2 or len(np.unique(null[:, 0])) > 1
    if images == 5:
        again = hellinger.split_half_null(jax.random.key(1), vectors, splits=20, bins=7)
        np.testing.assert_allclose(null, again, atol=1e-6)


def test_a_shift_exceeds_its_null():
    vectors = drawn(300, 6).reshape(30, 10, 6)
    null = hellinger.layer_distance(hellinger.split_half_null(jax.random.key(0), vectors, splits=30))
    assert null.shape == (30,)
    shifted = hellinger.hellinger_distance(vectors.reshape(-1, 6), vectors[:20].reshape(-1, 6) + np.float32(2))
    assert hellinger.layer_distance(shifted) > 1.5 * null.max()


def test_what_cannot_be_compared_is_named():
    p, ints = np.ones((4, 3)), np.ones((4, 3), np.int32)
    for wrong in (np.ones(3, np.float32), np.ones((0, 3))):
        with pytest.raises(ValueError, match="with a vector each; see pool_vectors"):
            hellinger.hellinger_distance(wrong, p)
    with pytest.raises(ValueError, match="with a vector each"):
        hellinger.hellinger_distance(p, np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"q \(4, 2\) must be \[N,3\]"):
        hellinger.hellinger_distance(p, p[:, :2])
    for pair in ((ints, p), (p, ints)):
        with pytest.raises(TypeError, match="int32; convert to float32"):
            hellinger.hellinger_distance(*pair)
    for bins in (0, 4096):
        with pytest.raises(ValueError, match=f"bins is {bins}; 1 to 4095"):
            hellinger.hellinger_distance(p, p, bins=bins)
    with pytest.raises(ValueError, match="dimension is 0"):
        hellinger.init_range(0)
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\) differ"):
        hellinger.merge_range(hellinger.init_range(2), hellinger.init_range(3))
    with pytest.raises(ValueError, match=r"low \(3,\) and high \(2,\)"):
        hellinger.init(p[0], p[0, :2])
    with pytest.raises(TypeError, match="high must be floating point"):
        hellinger.init(p[0], ints[0])
    state = hellinger.init(p[0], p[0], bins=5)
    with pytest.raises(ValueError, match=r"vectors \(4, 2\) must be \[N,3\]"):
        hellinger.update(state, p[:, :2])
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 6\) differ in channels or bins"):
        hellinger.merge(state, hellinger.init(p[0], p[0], bins=6))
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 6\) differ in channels or bins"):
        hellinger.compute(state, hellinger.init(p[0], p[0], bins=6))
    with pytest.raises(ValueError, match="epsilon is -1"):
        hellinger.symmetric_kl(state, state, epsilon=-1)


def test_what_cannot_be_pooled_or_split_is_named():
    activations, key = np.ones((1, 8, 8, 2)), jax.random.key(0)
    for options in ({}, {"grid": (2, 2), "image_shape": (64, 64)}):
        with pytest.raises(ValueError, match="give one of image_shape and grid"):
            hellinger.pool_vectors(activations, **options)
    for options in ({"grid": (2,)}, {"grid": (2, 0)}, {"image_shape": (64, 64, 64)}, {"image_shape": ()}):
        with pytest.raises(ValueError, match="each of the 2 spatial axes"):
            hellinger.pool_vectors(activations, **options)
    with pytest.raises(ValueError, match=r"\[B,H,W,C\] or \[B,D,H,W,C\]"):
        hellinger.pool_vectors(activations[0], grid=(2, 2))
    with pytest.raises(TypeError, match="activations must be floating"):
        hellinger.pool_vectors(activations.astype(np.int32), grid=(2, 2))
    for wrong in (np.ones((4, 3)), np.ones((1, 4, 3))):
        with pytest.raises(ValueError, match="two images or more"):
            hellinger.split_half_null(key, wrong)
    with pytest.raises(ValueError, match="splits is 0"):
        hellinger.split_half_null(key, np.ones((2, 4, 3)), splits=0)


def test_weighted_histograms_that_do_not_match_are_refused():
    joint = hellinger.Range(np.zeros(2, np.float32), np.ones(2, np.float32))
    p, q, once = np.ones((3, 2, 4), np.int32), np.ones((5, 2, 4), np.int32), np.ones((1, 3))
    channels, layer = hellinger.weighted_distances(joint, p, q, once, np.ones((1, 5)))
    np.testing.assert_array_equal(channels, np.zeros((1, 2)))  # equal frequencies, of however many patients
    assert layer.tolist() == [0]
    for wrong in ((p, q[:, :1], once, np.ones((1, 5))), (p, q, once, np.ones((1, 4))), (p, q, once, np.ones((2, 5)))):
        with pytest.raises(ValueError, match=r"counts \[P,D,bins\] and \[Q,D,bins\] with weights \[R,P\] and \[R,Q\]"):
            hellinger.weighted_distances(joint, *wrong)


def test_constant_channels_whose_range_no_float_can_widen_are_the_same():
    """Around 1e9 the next float32 is 64 away, so a range of one value stays as narrow as it is."""
    constant = np.full((12, 1), 1e9, np.float32)
    np.testing.assert_array_equal(hellinger.hellinger_distance(constant, constant), [0.0])
