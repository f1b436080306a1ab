"""The launcher as a person uses it: one command, killed, repeated, misused. Real processes."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TINY = "--config=configs/border_shortcut.py:tiny"


def command(*arguments):
    return [sys.executable, "-m", "launch.study", *map(str, arguments)]


def launch(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was killed by SIGKILL after its first checkpoint and then called again."""
    folder = tmp_path_factory.mktemp("study")
    arguments = [TINY, f"--workdir={folder / 'work'}", f"--data_dir={folder / 'data'}"]
    with subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as victim:
        checkpoints = folder / "work" / "runs" / "zero_original" / "checkpoints"
        deadline = time.monotonic() + 240
        while not list(checkpoints.glob("[0-9]")) and time.monotonic() < deadline and victim.poll() is None:
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "work" / "report.html").exists()
    again = launch(*arguments)
    assert again.returncode == 0, again.stderr
    return folder, arguments, again


def test_a_killed_study_goes_on_and_ends_with_its_report(finished):
    folder, _, again = finished
    work = folder / "work"
    assert again.stdout.strip().endswith("report.html")
    results = json.loads((work / "results.json").read_text())
    assert results["size"] == "tiny"
    assert {row["model"] for row in results["bands"]} == {"M_ori", "M_crop"}
    assert results["provenance"]["command"].startswith(
        "python -m launch.study --config=configs/border_shortcut.py:tiny"
    )
    for row in results["dice"] + results["bands"] + results["border"]:
        assert {"mean", "low", "high", "n", "undefined", "convention", "interval"} <= row.keys()
        assert row["mean"] is None or row["low"] <= row["mean"] <= row["high"]
    page = (work / "report.html").read_text()
    assert results["verdicts"][0]["sentence"] in page
    assert {path.name for path in (work / "figures").iterdir()} == {
        "bands.png", "band_boxes.png", "examples.png", "moving_window.png", "mask_centres.png", "position.png",
        "border_features.png",
    }  # fmt: skip
    with (work / "tables" / "dice.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == pytest.approx([row["mean"] for row in results["dice"]], rel=1e-5)


def test_every_step_was_logged_once(finished):
    folder, *_ = finished
    for run in ("zero_original", "zero_quadrant"):
        lines = (folder / "work" / "runs" / run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [3, 6]
        assert {"loss", "grad_norm", "validation_dice", "steps_per_second"} <= json.loads(lines[-1]).keys()


def test_a_killed_run_learned_what_an_undisturbed_one_learns(finished, tmp_path):
    """The same network trained by itself, without a kill, to the last bit."""
    folder, *_ = finished
    alone = subprocess.run(
        [
            *(sys.executable, "-m", "launch.train", "--config=configs/train.py:tiny"),
            *(f"--workdir={tmp_path / 'run'}", f"--data_dir={folder / 'data'}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    rows = []
    for run in (tmp_path / "run", folder / "work" / "runs" / "zero_original"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows.append([{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines])
    assert rows[0] == rows[1]


def test_a_finished_study_is_not_run_again(finished):
    folder, arguments, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "work" / "runs").rglob("*") if path.is_file()}
    results = json.loads((folder / "work" / "results.json").read_text())
    third = launch(*arguments)
    assert third.returncode == 0, third.stderr
    after = {path: path.stat().st_mtime_ns for path in (folder / "work" / "runs").rglob("*") if path.is_file()}
    assert after == before
    repeated = json.loads((folder / "work" / "results.json").read_text())
    assert repeated["dice"] == results["dice"]


def test_a_work_directory_of_another_config_is_refused_and_untouched(finished):
    folder, arguments, _ = finished
    answer = launch(*arguments, "--config.training.epochs=3")
    assert_one_line(answer, "config.training.epochs is 2 there and 3 here; choose another work directory")
    assert (folder / "work" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY, "--wordir=x"], "wordir"),
        ([TINY, "--workdir={tmp}", "stray"], "unexpected argument 'stray'"),
        ([TINY], "--workdir is missing"),
        (["--workdir={tmp}"], "--config is missing"),
        (["--config=configs/border_shortcut.py:huge", "--workdir={tmp}"], "unknown size 'huge'"),
        (["--config=configs/nothing.py", "--workdir={tmp}"], "configs/nothing.py"),
        ([TINY, "--workdir={tmp}", "--config.training.epoch=3"], "no field epoch; did you mean epochs?"),
        ([TINY, "--workdir={tmp}", "--config.bogus.x=3"], "no field bogus"),
        ([TINY, "--workdir={tmp}", "--config.model=3"], "--config.model=3"),
        (["--config=configs", "--workdir={tmp}"], "configs"),
        (["--config=configs/train.py:tiny", "--workdir={tmp}"], "the config is not a study's"),
        ([TINY, "--workdir={tmp}", "--config.training.epochs=many"], "--config.training.epochs=many: invalid literal"),
        ([TINY, "--workdir={tmp}", "--config.training.epochs=-1"], "config.training.epochs is -1"),
        ([TINY, "--workdir={tmp}", "--config.paddings=('mirror',)"], "give some of zero"),
        ([TINY, "--workdir={tmp}", "--config.data.dataset=isic2017/256", "--data_dir={tmp}/d"], "isic2017"),
        ([TINY, "--workdir=/proc/nowhere", "--data_dir={tmp}/d"], "/proc/nowhere"),
    ],
)
def test_misuse_is_answered_with_one_line(arguments, message, tmp_path):
    answer = launch(*[argument.format(tmp=tmp_path / "work") for argument in arguments])
    assert_one_line(answer, message)
    assert not (tmp_path / "work" / "runs").exists()


def test_an_interrupt_ends_with_one_line_and_the_run_goes_on(finished, tmp_path):
    folder, *_ = finished
    arguments = [TINY, f"--workdir={tmp_path / 'work'}", f"--data_dir={folder / 'data'}", "--config.training.epochs=4"]
    with subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        metrics = tmp_path / "work" / "runs" / "zero_original" / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.decode().rstrip().endswith("interrupted; the same command goes on where it was")
    assert b"Traceback" not in error


def test_cases_of_another_data_set_are_refused(finished, tmp_path):
    folder, arguments, _ = finished
    work = tmp_path / "work"
    shutil.copytree(folder / "work", work)
    for path in work.rglob("data.json"):
        path.write_text(path.read_text().replace('"test": "', '"test": "0'))
    answer = launch(TINY, f"--workdir={work}", arguments[-1])
    assert_one_line(answer, "was made with other data: test differs")


def test_a_batch_too_large_for_the_cases_leaves_the_folder_free(finished, tmp_path):
    folder, *_ = finished
    data = f"--data_dir={folder / 'data'}"
    answer = launch(TINY, f"--workdir={tmp_path / 'work'}", data, "--config.training.batch_size=64")
    assert_one_line(answer, "config.training.batch_size is 64, dermoscopy/tiny/train has 48 cases")
    assert not (tmp_path / "work").exists()


def test_damaged_measures_are_measured_again(finished, tmp_path):
    folder, arguments, _ = finished
    work = tmp_path / "work"
    shutil.copytree(folder / "work", work)
    (work / "runs" / "zero_quadrant" / "measures.npz").write_bytes(b"PK")
    answer = launch(TINY, f"--workdir={work}", arguments[-1])
    assert answer.returncode == 0, answer.stderr
    results = [json.loads((place / "results.json").read_text())["border"] for place in (work, folder / "work")]
    assert results[0] == results[1]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(finished, tmp_path):
    folder, *_ = finished
    answer = launch(
        TINY, f"--workdir={tmp_path / 'work'}", f"--data_dir={folder / 'data'}", "--config.training.learning_rate=1e38"
    )
    assert_one_line(answer, "not finite at step")


def test_import_is_light_and_tensorflow_never_comes_in(finished):
    _, arguments, _ = finished
    code = (
        "import sys, jaxseg; assert 'jax' not in sys.modules\n"
        "import runpy\n"
        "try: runpy.run_module('launch.study', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert answer.returncode == 0, answer.stderr


def assert_one_line(answer, message):
    assert answer.returncode == 2, answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], answer.stderr
    assert answer.stderr.strip().endswith(errors[0])
    assert "Traceback" not in answer.stderr
