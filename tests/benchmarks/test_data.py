"""The files that are read on both sides, how both read them, and what a row says of it."""

import resource

import numpy as np
from PIL import Image

from jaxseg.benchmarks import data, timing


def test_files_are_scenes_flipped_and_darkened(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_DRAWN", 3)
    drawn = []
    render = data.dermoscopy.render
    monkeypatch.setattr(data.dermoscopy, "render", lambda *given: drawn.append(given) or render(*given))
    folder = data._write(tmp_path / "deep" / "raw", data.Setting(40, 24), 8)
    assert drawn == [(0, 0, 40), (0, 1, 40), (0, 2, 40)]
    rows = (folder / "cases.csv").read_text().splitlines()
    assert rows[0] == "case,image,mask,domain,patient" and len(rows) == 9
    assert rows[4] == "case0003,images/case0003.jpg,masks/case0003.png,,case0003"
    for i in range(8):
        image, labels = (array[:24, :40] for array in render(0, i % 3, 40))
        turn = i // 3
        flip = slice(None, None, -1 if turn == 1 else 1)
        read = lambda kind, i=i: np.asarray(Image.open(next((folder / kind).glob(f"case{i:04d}.*"))), float)
        np.testing.assert_array_equal(read("masks"), 255 * labels[flip])
        wanted = np.maximum(image[flip].astype(float) - turn, 0)
        assert abs(read("images") - wanted).mean() < 12 and abs((read("images") - wanted).mean()) < 0.4
    assert len(drawn) == 3
    few = data._write(tmp_path / "few", data.Setting(32, 32), 2)
    assert len(list((few / "images").iterdir())) == 2


def test_rows_have_images_per_second_and_growth(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_DRAWN", 2)
    memory = iter([3 * 2**20, 10 * 2**20])
    monkeypatch.setattr(timing, "peak_memory", lambda: next(memory))
    epochs = []
    epoch = data.pipeline.epoch
    monkeypatch.setattr(data.pipeline, "epoch", lambda *a, **k: epochs.append(k) or epoch(*a, **k))

    def compare(read, load, rounds):
        assert rounds == 3 and len(epochs) == 4
        assert read() == 16 and 0 < load() < 12  # the last batch is filled up
        return timing.Comparison((0.5, 1.0), (2.0, 2.0))

    monkeypatch.setattr(timing, "compare", compare)
    [row] = data.run(rounds=3, settings=(data.Setting(32, 16, 8),), cases=12)["data"]
    count = row["images_per_second"] * 0.5
    assert count in range(1, 12) and row["images_per_second_pytorch"] == count / 2
    assert (row["jpeg"], row["read_at"], row["ratio"], row["growth_mb"]) == ("32x16", 8, 3.0, 7.0)


def test_a_file_is_read_as_research_code_does(stand_in, tmp_path):
    folder = data._write(tmp_path / "raw", data.Setting(16, 12), 2)
    files = data._Files([folder / "images" / "case0001.jpg"], 6)
    image, labels = files[0]
    assert len(files) == 1 and image.shape == (6, 6, 3)
    with Image.open(folder / "images" / "case0001.jpg") as file:
        np.testing.assert_array_equal(image, file.convert("RGB").resize((6, 6), Image.Resampling.BILINEAR))
    with Image.open(folder / "masks" / "case0001.png") as file:
        np.testing.assert_array_equal(labels, np.asarray(file.resize((6, 6), Image.Resampling.NEAREST)) / 255)


def test_the_peak_is_the_processes_in_bytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 1024 * peak <= timing.peak_memory() < 1.1 * 1024 * peak
