"""The two sides of each comparison compute the same; how fast they are is not asserted."""

from jaxseg.benchmarks import analyses


def test_hellinger_sides_agree():
    row = analyses.streamed_hellinger(50, rounds=1, stages=(3, 6))
    assert row["largest_difference"] < 1e-3
    assert row["layers"] == 2 and row["speedup"] > 0
    assert len(analyses.STAGES) == 9


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


def test_the_scored_forward_pass_is_compared_with_the_plain_one():
    row = analyses.forward(8, (2, 4), rounds=1)
    assert row["cost"] > 0 and row["seconds"] > 0
