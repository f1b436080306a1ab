"""What an earlier version left, with JAX_ENABLE_X64 and without it, opens, is evaluated and resumes."""

import json
import pathlib
import zipfile

import pytest

from jaxseg import inference
from jaxseg.data import pipeline
from jaxseg.training import runs, trained

# `old_work.zip`: a prepared data set of twelve squares and two runs of six steps on it, stopped at step 4, as the code
# before seals, read-back and named types left them (without tensorboard); in run_x64, norms are stored in float64
LAST_ROW = {"loss": 0.7785, "grad_norm": 0.1805, "validation_dice": 0.1714, "validation_miou": 0.0968}  # of step 6


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(pathlib.Path(__file__).with_name("old_work.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["run", "run_x64"])
def test_old_work_is_evaluated_and_goes_on(old, name):
    directory, folder = old / "data" / "folder" / "cells" / "1.0.0", old / name
    config = runs.read_config(folder)
    asked = lambda: trained.of_run(folder, lambda name: directory)
    evaluated = lambda: inference.evaluate(asked(), directory, split="test", view="original")
    _, estimates = evaluated()
    assert estimates["class 1"].mean == pytest.approx(0.105, abs=0.002)
    runs.train(config, runs.Splits(directory, config.data.source_size), folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {key: rows[-1][key] for key in LAST_ROW} == pytest.approx(LAST_ROW, abs=1e-3)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["2", "4", "6"]
    assert evaluated()[1] == estimates  # step 2 is still the best


def test_an_old_prepared_data_set_is_read(old):
    split = pipeline.Split(old / "data" / "folder" / "cells" / "1.0.0", "train", size=16)
    case = split[0]
    assert len(split) == 8 and case["image"].shape == (16, 16, 3) and int(case["labels"].sum()) == 25
