"""The benchmark of bits in its smallest size: what it reads; how fast that is is not asserted."""

import numpy as np

from jaxseg.benchmarks import depths
from jaxseg.data import pipeline


def test_every_row_reads_the_same_slices_in_its_own_bits(monkeypatch):
    opened = []
    split = pipeline.Split

    def kept(*given, **options):
        opened.append(split(*given, **options))
        return opened[-1]

    monkeypatch.setattr(depths.pipeline, "Split", kept)
    monkeypatch.setattr(depths.timing, "turns", lambda sides, rounds: [(side() / 64, 9.0) for side in sides])
    settings = [one for one in depths.SETTINGS if "1.5" not in one.geometry]
    rows = depths.run(rounds=1, settings=settings, patients=10, side=24)["depths"]
    assert [part.preparation.dtype for part in opened] == ["uint8", "uint16", "uint8", "uint16", "float16"]
    for row, part in zip(rows, opened, strict=True):
        # slices are read whole batches at a time, each slice once
        assert len(part) in range(1, 80) and row["of_first"] == 1
        assert row["images_per_second"] == len(part) / (-(-len(part) // 16) * 16 / 64)
        # of 256 x 256 pixels; an intensity is 1 byte or 2, a label 1, and, where it is padded, whether it counts 1
        assert row["kb_in_memory"] == 65.536 * (2 if "range" in row["read"] else 4)
        assert row["growth_mb"] >= 0
    assert rows[0]["kb_on_disk"] == rows[2]["kb_on_disk"] > 0 < rows[1]["kb_on_disk"] == rows[3]["kb_on_disk"]


def test_files_hold_more_levels_than_a_byte_where_they_have_the_bits():
    gray = np.random.default_rng(0).uniform(0, 255, 5000)
    made = {bits: make(gray) for bits, make in depths._FILES.items()}
    assert [array.dtype for array in made.values()] == [np.uint8, np.uint16, np.float32]
    assert [len(np.unique(array)) for array in made.values()] > [200, 2000, 4000]
    assert made["16"].max() > 255 and made["float"].min() < 0
    for array, back in zip(made.values(), (1, 1 / 16, 7), strict=True):
        assert abs((array + (3 if back == 7 else 0)) * back - gray).max() < 0.51
