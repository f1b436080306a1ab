"""Training and evaluating one run from the command line."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def run(tmp_path_factory, launched_run, drawn_data):
    """A run that may be changed, and the flag of its data set's folder, in which others can be prepared."""
    folder = tmp_path_factory.mktemp("train")
    shutil.copytree(launched_run, folder / "run")
    shutil.copytree(drawn_data("dermoscopy/tiny"), folder / "data")
    return folder / "run", f"--data_dir={folder / 'data'}"


def test_the_table_has_every_case_and_another_view_gives_other_numbers(run, launch):
    folder, data = run
    answers = [launch("evaluate", f"--workdir={folder}", data, *more) for more in ([], ["--view=quadrant"])]
    assert all(answer.returncode == 0 for answer in answers), answers
    with (folder / "cases_dermoscopy_tiny_test_original.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["case"] for row in rows}) == 16
    mean = np.nanmean([float(row["dice_lesion"] or "nan") for row in rows])
    assert f"Dice of lesion: {mean:.2f} [" in answers[0].stdout
    assert answers[0].stdout.splitlines()[0] != answers[1].stdout.splitlines()[0]


def write_pictures(folder, inside):
    """A data set whose cases are all for testing, without the columns that are not needed."""
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"image{i}.png")
        labels = np.zeros((64, 64), np.uint8)
        for k, value in enumerate(inside):
            labels[8 + 20 * k : 24 + 20 * k, 10 + i : 40 + i] = value
        Image.fromarray(labels).save(folder / f"mask{i}.png")
    rows = [f"case{i},image{i}.png,mask{i}.png,test" for i in range(3)]
    (folder / "cases.csv").write_text("\n".join(["case,image,mask,split", *rows]))
    return folder


def test_an_external_test_set_is_evaluated(run, tmp_path, launch):
    folder, data = run
    arguments = (f"--workdir={folder}", data, "--dataset=folder/external")
    asked = launch("evaluate", *arguments)
    assert asked.returncode == 2 and asked.stderr.count("\n") == 1
    directory = data.removeprefix("--data_dir=")
    assert asked.stderr.startswith(
        f"error: folder/external is not prepared in {directory} (there is dermoscopy/tiny); "
    )
    assert asked.stderr.strip().endswith(
        f"python -m launch.prepare --dataset=folder/external --manual_dir=FOLDER --data_dir={directory}"
    )
    answer = launch("evaluate", *arguments, f"--manual_dir={write_pictures(tmp_path / 'raw', [255])}")
    assert answer.returncode == 0, answer.stderr
    assert "(n = 3, 0 undefined" in answer.stdout


def test_a_data_set_of_other_classes_than_the_network_is_no_damage(run, tmp_path, launch):
    folder, data = run
    raw = write_pictures(tmp_path / "raw", [1, 2])
    answer = launch("evaluate", f"--workdir={folder}", data, "--dataset=folder/other", f"--manual_dir={raw}")
    assert answer.returncode == 2
    wanted = "has the classes background, class 1, class 2, and the network tells background, lesion apart; name these"
    assert wanted in answer.stderr.splitlines()[-1]


def test_the_config_of_a_study_is_no_run(tmp_path, launch):
    answer = launch("train", "--config=configs/border_shortcut.py:tiny", f"--workdir={tmp_path}")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "the config is that of a study, not of a run; give it to python -m launch.study" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split=holdout"], "choose one of"),
        (["--view=half"], "view is 'half'; choose one of original, quadrant"),
        (["--dataset=nothing"], "unknown data set 'nothing'"),
        (["--workdir={tmp}", "--split=train"], "holds no training run; make one with python -m launch.train"),
    ],
)
def test_misuse_is_answered_with_one_line(run, arguments, message, tmp_path, launch):
    folder, data = run
    answer = launch("evaluate", f"--workdir={folder}", data, *[a.format(tmp=tmp_path) for a in arguments])
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ") and message in answer.stderr and len(answer.stderr.splitlines()) == 1


def test_a_benchmark_is_named_by_a_command(tmp_path, launch):
    for arguments, message in (
        ([], "a command is missing; choose one of analyses"),
        (["speed"], "unknown command 'speed'; choose one of analyses"),
        (["analyses", "twice"], "unexpected argument 'twice'"),
    ):
        answer = launch("benchmark", *arguments)
        assert answer.returncode == 2
        assert answer.stderr.splitlines()[-1].startswith(f"error: {message}")
