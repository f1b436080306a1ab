"""Arrays that were computed once are read back, and made anew where they are damaged or lack what is wanted."""

import numpy as np

from jaxseg.results.stored import kept


def test_they_are_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(3), "b": np.zeros((2, 0))}

    for _ in range(2):
        found = kept(tmp_path / "deep" / "measures.npz", make)
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
        assert found["b"].shape == (2, 0)
    assert len(made) == 1
    assert kept(tmp_path / "deep" / "measures.npz", lambda: {"c": np.ones(1)}, wanted=["a"]).keys() == {"a", "b"}
    assert kept(tmp_path / "deep" / "measures.npz", lambda: {"c": np.ones(1)}, wanted=["a", "b"]).keys() == {"a", "b"}
    assert kept(tmp_path / "deep" / "measures.npz", lambda: {"c": np.ones(1)}, wanted=["c"]).keys() == {"c"}


def test_any_damage_is_measured_anew(tmp_path):
    whole = tmp_path / "whole.npz"
    expected = kept(whole, lambda: {"a": np.random.default_rng(0).random(40)})["a"]
    content = whole.read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path = tmp_path / "damaged.npz"
        path.write_bytes(damaged)
        found = kept(path, lambda: {"a": expected})
        if "a" in found:  # a name may be damaged too, which `wanted` is for
            np.testing.assert_array_equal(found["a"], expected)
