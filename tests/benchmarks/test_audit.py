"""The benchmark of audits: what it draws, and what a row says; what is measured is not asserted."""

import types

import numpy as np
import pytest

from jaxseg.benchmarks import audit
from jaxseg.data import pipeline


class Here:
    """In place of a pool of one process."""

    def __init__(self, processes, context):
        assert (processes, context.get_start_method()) == (1, "spawn")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *given):
        return types.SimpleNamespace(result=lambda: function(*given))


def test_a_row_is_an_audit_of_so_many_images_of_one_data_set(monkeypatch):
    asked = []

    def audited(network, data, workdir, *, cases):
        asked.append((network.sides, network.num_classes, cases, workdir.name, pipeline.split_sizes(data)))

    ticks, peaks = iter((0.0, 3.0, 10.0, 16.0)), iter((2**30, 3 * 2**29))
    monkeypatch.setattr(audit, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(audit, "audit", audited)
    monkeypatch.setattr(audit, "_TRAINING", 3)
    monkeypatch.setattr(audit.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(audit.timing, "peak_memory", lambda: next(peaks))
    monkeypatch.setattr(audit.models, "build", lambda *_, **__: types.SimpleNamespace(init=lambda *_: {}))
    monkeypatch.setattr(
        audit, "of_linen", lambda *_, image_size, channels: types.SimpleNamespace(sides=image_size, num_classes=2)
    )
    rows = audit.run(counts=(4, 8), size=24, features=(2, 4))["audit"]
    assert rows == [
        {"images": 4, "seconds": 3, "peak_mb": 1024, "of_first": 1},
        {"images": 8, "seconds": 6, "peak_mb": 1536, "of_first": 1.5},
    ]
    assert [one[:4] for one in asked] == [((24, 24), 2, count, str(count)) for count in (4, 8)]
    assert all(one[4]["test"] == 8 and sum(one[4].values()) == 11 for one in asked)


@pytest.mark.parametrize(("number", "scanner"), [(0, "A"), (1, "A"), (2, "B"), (3, "B")])
def test_pictures_are_of_two_scanners_and_every_other_has_calipers(number, scanner):
    image, labels = audit._drawn(number, 64, scanner)
    marks = np.ptp(image.astype(int), axis=-1) > 40
    assert marks.any() == (number % 2 == 1)
    gray = image[..., 0][~marks].astype(float)
    inside = labels[~marks] > 0
    assert abs(gray[~inside].mean() - audit._SCANNERS[scanner]) < 2
    assert abs(gray[inside].mean() - audit._SCANNERS[scanner] - 110) < 6
    assert 0.03 < labels.mean() < 0.25
