"""The two sides of each comparison compute the same; how fast they are is not asserted."""

import resource

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import hellinger, prototypes
from jaxseg.benchmarks import analyses, timing
from tests.benchmarks import numpy_torch


def test_protoseg_sides_agree_in_all_shapes(torch):
    layers = analyses.features(32, (4, 8, 16))
    assert [layer.shape for layer in layers[::2]] == [
        (2, 32, 32, 4),
        (2, 16, 16, 8),
        (2, 8, 8, 16),
        (2, 16, 16, 8),
        (2, 32, 32, 4),
    ]
    rows = analyses.protoseg(layers, 32, rounds=1)
    assert len(rows) == 11 and rows[-1]["layer"] == "all"
    assert max(row["largest_difference"] for row in rows) < 1e-4


def test_drawn_activations_are_those_of_eighteen_layers_brighter_or_darker_in_a_disc():
    layers = analyses.features(64, (4, 2, 1))
    assert [layer.shape for layer in layers] == [
        (2, n, n, c) for n, c in ((64, 4), (32, 2), (16, 1), (32, 2), (64, 4)) for _ in range(2)
    ]
    assert len(analyses.features(16, (1,) * 5)) == 18
    places = (np.arange(64) + 0.5) / 64 - 0.5
    disc = places[:, None] ** 2 + places**2 < 0.3**2
    np.testing.assert_array_equal(analyses._disc(64), disc)
    drawn = np.random.default_rng(0).uniform(-0.5, 0.5, 4)  # of the first layer
    inside, outside = layers[0][:, disc].mean((0, 1)), layers[0][:, ~disc].mean((0, 1))
    # the mean of max(0, x) of a normal x is its density at 0, and by its mean half of that more or less
    density = 1 / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(outside, density, atol=0.03)
    np.testing.assert_allclose(inside, density + drawn / 2 + density * drawn**2 / 2, atol=0.05)
    assert min(layer.min() for layer in layers) == 0


def test_both_sides_of_protoseg_agree_and_rows_have_their_ratios(stand_in, monkeypatch):
    layers = analyses.features(8, (3, 2))[::2]
    asked = []

    def compare(ours, theirs, rounds):
        asked.append((rounds, float(np.abs(np.asarray(ours()) - np.asarray(theirs())).max())))
        number = len(asked)
        return timing.Comparison((0.5 * number, 9.0), (2.0 * number, 9.0))

    monkeypatch.setattr(timing, "compare", compare)
    monkeypatch.setattr(timing, "memory_bandwidth", lambda arrays: 1000.0)
    monkeypatch.setattr(timing, "memory_use", lambda function, layer, mask: layer.nbytes // 2)
    rows = analyses.protoseg(layers, 8, rounds=3)
    sizes = [2 * 4 * n * n * c for n, c in ((8, 3), (4, 2), (8, 3))]
    assert [rounds for rounds, _ in asked] == [3, 3, 3] and max(difference for _, difference in asked) < 1e-5
    for number, (row, size) in enumerate(zip(rows[:-1], sizes, strict=True), 1):
        assert row["layer"] == number and row["largest_difference"] < 1e-5
        assert (row["milliseconds"], row["torch_milliseconds"], row["speedup"]) == (500 * number, 2000 * number, 4)
        assert row["bandwidth_share"] == pytest.approx(2 * size / (0.5 * number) / 1000)
        assert row["memory_over_features"] == 1.5
    assert [row.get("shape") for row in rows] == ["2x8x8x3", "2x4x4x2", "2x8x8x3", "3 layers"]
    whole = rows[-1]
    assert (whole["milliseconds"], whole["torch_milliseconds"], whole["speedup"]) == (3000, 12000, 4)
    assert whole["bandwidth_share"] == pytest.approx(2 * sum(sizes) / 3.0 / 1000)
    assert whole["largest_difference"] == max(row["largest_difference"] for row in rows[:-1])


def test_the_largest_difference_is_that_of_both_sides(stand_in, monkeypatch):
    [layer] = analyses.features(4, (2,))[:1]
    monkeypatch.setattr(timing, "compare", lambda *_, rounds: timing.Comparison((1.0,), (1.0,)))
    monkeypatch.setattr(timing, "memory_bandwidth", lambda arrays: 1.0)
    monkeypatch.setattr(timing, "memory_use", lambda *_: 0)
    monkeypatch.setattr(prototypes, "object_probability", lambda layer, mask: jnp.full(mask.shape, 0.25))
    masks = []

    def side(torch, layer, mask):
        masks.append(mask)
        return lambda: numpy_torch.tensor(np.full(mask.shape, 0.75))

    monkeypatch.setattr(analyses, "torch_side", side)
    assert analyses.protoseg([layer], 4, rounds=1)[0]["largest_difference"] == 0.5
    wanted = np.where(analyses._disc(4) > 0, 0.95, 0.05)  # likely in the disc, and never certain
    np.testing.assert_allclose(masks, np.broadcast_to(wanted, (1, 2, 4, 4)), rtol=1e-6)


def test_the_forward_pass_scores_every_numbered_layer_by_the_networks_own_output(monkeypatch):
    found = []

    def compare(scored, plain, rounds):
        found.append((scored(), plain(), scored.args))
        return timing.Comparison((3.0, 6.0), (1.0, 3.0))

    def score(layer, mask, labels):  # in place of one that takes longer to compile
        return jnp.stack([jnp.mean(mask), jnp.mean(labels.astype(jnp.float32)), jnp.float32(layer.shape[-1])])

    monkeypatch.setattr(timing, "compare", compare)
    monkeypatch.setattr(prototypes, "sa_score", score)
    row = analyses.forward(8, (2, 4), rounds=2)
    assert row == {"seconds": 3.0, "plain_seconds": 1.0, "cost": pytest.approx(12 / 5)}  # of 1/3 and 1/2 the median
    [((logits, scores), plain, (_, images))] = found
    np.testing.assert_allclose(logits, plain, atol=1e-5)
    object_probability = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    wanted = [object_probability.mean(), (images[..., 0] > 0).mean()]
    np.testing.assert_allclose(scores, [[*wanted, channels] for channels in (2, 2, 4, 4, 2, 2)], rtol=1e-4)


def test_a_stream_of_two_domains_counts_every_batch_of_both(monkeypatch):
    peaks = iter([5000, 9500])
    monkeypatch.setattr(analyses, "_peak_kilobytes", lambda: next(peaks))
    monkeypatch.setattr(timing, "memory_use", lambda *_: 3_000_000)
    counted = []

    def compare(streamed, looped, rounds):
        counted.extend([streamed(), looped()])
        return timing.Comparison((2.0, 4.0), (6.0, 8.0))

    monkeypatch.setattr(timing, "compare", compare)

    def total(p, q):  # what was counted, in place of its distance
        return jnp.stack([jnp.sum(one.counts[0]) for one in (p, q)]).astype(jnp.float32)

    monkeypatch.setattr(hellinger, "compute", total)
    means = []

    def loop(p, q, repeats):
        means.extend([p.mean(), q.mean()])
        return np.array([len(p) * repeats, 0.0])

    monkeypatch.setattr(analyses, "_numpy_hellinger", loop)
    row = analyses.streamed_hellinger(100, rounds=1, stages=(2,))
    np.testing.assert_allclose(means[:2], [2.0, 2.2], rtol=0.03)  # of gamma distributions of shape 2
    ours, theirs = counted
    np.testing.assert_array_equal(ours, [[6400, 6400]])  # 100 images of 64 vectors
    np.testing.assert_array_equal(theirs, [[6400, 0]])
    assert row["largest_difference"] == 6400 and row["layers"] == 1
    assert row["program_megabytes"] == 3 and row["process_growth_megabytes"] == 4.5
    assert (row["seconds"], row["numpy_seconds"], row["speedup"], row["images"]) == (2.0, 6.0, 2.5, 100)


def test_the_stream_and_the_loop_find_the_same_distances():
    row = analyses.streamed_hellinger(50, rounds=1, stages=(3,))
    assert row["largest_difference"] < 1e-3 and row["images"] == 50
    assert len(analyses.STAGES) == 9


def test_numpys_distance_is_that_of_histograms():
    random = np.random.default_rng(0)
    p, q = random.random((300, 2)), random.random((300, 2)) ** 2
    found = analyses._numpy_hellinger(p, q, 3)
    for channel in range(2):
        one, other = p[:, channel], q[:, channel]
        ends = min(one.min(), other.min()), max(one.max(), other.max())
        a, b = (np.histogram(x, 100, ends)[0] / len(x) for x in (one, other))
        assert found[channel] == pytest.approx(np.sqrt(1 - np.sqrt(a * b).sum()))


def test_the_peak_is_the_processes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak <= analyses._peak_kilobytes() < 1.1 * peak
