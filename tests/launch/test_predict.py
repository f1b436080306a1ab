"""A run of the smallest size, used on new files from the command line."""

import csv
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxseg.data.synthetic import dermoscopy


@pytest.fixture(scope="module")
def run(tmp_path_factory, launched_run):
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(launched_run, folder / "run")
    (folder / "nothing").mkdir()
    scans = folder / "scans"
    scans.mkdir()
    for index in range(4):
        image = Image.fromarray(dermoscopy.render(99, index, 96)[0])
        image.resize((96, 64)).save(scans / f"scan_{index}.png")
    return folder


def test_new_files_are_predicted_and_a_damaged_one_is_named(run, launch, drawn_data):
    arguments = (f"--workdir={run / 'run'}", f"--inputs={run / 'scans'}", f"--output={run / 'out'}")
    answer = launch("predict", *arguments, f"--data_dir={drawn_data('dermoscopy/tiny')}", "--coverage=0")
    assert answer.returncode == 0, answer.stderr
    first, table, sheet = answer.stdout.splitlines()
    assert first == "4 predicted, 4 of them flagged; 0 could not be"
    assert pathlib.Path(sheet).is_file()
    with open(table) as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        assert row["file"] == str(run / "scans" / f"scan_{index}.png")
        with Image.open(run / "out" / row["mask"]) as image:
            mask = np.asarray(image)
        assert mask.shape == (64, 96) and set(np.unique(mask)) <= {0, 1}
        assert int(row["pixels_lesion"]) == np.count_nonzero(mask)
        assert 0 <= float(row["entropy_percentile"]) <= 100

    # elsewhere, without the data set: the run's folder has what is needed
    (run / "scans" / "scan_9.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    again = launch("predict", *arguments, f"--data_dir={run / 'nowhere'}")
    assert again.returncode == 3, again.stderr
    assert again.stdout.startswith("4 predicted, ") and again.stdout.splitlines()[0].endswith("; 1 could not be")
    lines = [line for line in re.split(r"[\r\n]", again.stderr) if "scan_9.png" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{run / 'scans' / 'scan_9.png'}: cannot be read as an image")
    assert not (run / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inputs={run}/scans", "--output={run}/x"], "give one of --workdir, --weights, --network, --nnunet"),
        (["--workdir={run}/run", "--output={run}/x"], "--inputs is missing"),
        (["--workdir={run}/run", "--inputs={run}/scan", "--output={run}/x"], "--inputs={run}/scan: no such file"),
        (
            ["--workdir={run}/nothing", "--inputs={run}/scans", "--output={run}/x"],
            "{run}/nothing holds no training run",
        ),
        (
            ["--workdir={run}/run", "--inputs={run}/scans", "--output={run}/x", "--overlap=0.3"],
            "--overlap: says how a window slides; give --tile too",
        ),
        (["--workdir={run}/run", "--inputs={run}/scans", "--output={run}/x", "--blend=cubic"], "blend"),
    ],
)
def test_misuse_is_answered_with_one_line(run, launch, arguments, message):
    answer = launch("predict", *[argument.format(run=run) for argument in arguments])
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("error: ") and message.format(run=run) in answer.stderr
    assert not (run / "x").exists()
