"""The launcher as a person uses it: one command, killed, interrupted, repeated, misused. Processes of their own."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TINY = "--config=configs/border_shortcut.py:tiny"
GRID = (
    *("--config.evaluation.grid=64", "--config.evaluation.band_width=4", "--config.evaluation.border_width=8"),
    *(
        "--config.evaluation.windows_per_side=2",
        "--config.evaluation.window_images=2",
        "--config.evaluation.examples=2",
    ),
)

# what `python -m launch.study` does, and which modules were there at its begin and its end
WATCHED = """
import runpy, sys
import jaxseg
loaded = [[*sys.modules]]
try:
    runpy.run_module("launch.study", run_name="__main__", alter_sys=True)
finally:
    import json, os
    with open(os.environ["LOADED"], "w") as file:
        json.dump([*loaded, [*sys.modules]], file)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, launch, small):
    """A study that was killed behind its first checkpoint, interrupted in its second run, and then called again."""
    folder = tmp_path_factory.mktemp("study")
    runs = folder / "work" / "runs"
    arguments = [TINY, *small, *GRID, f"--workdir={folder / 'work'}", f"--data_dir={folder / 'data'}"]
    checkpoints, metrics = runs / "unet_zero_original" / "checkpoints", runs / "unet_zero_quadrant" / "metrics.jsonl"
    killed = launch("study", *arguments, sent=signal.SIGKILL, when=lambda: [*checkpoints.glob("[0-9]")])
    assert killed.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "work" / "report.html").exists()
    begun = lambda: metrics.exists() and metrics.read_text()
    interrupted = launch("study", *arguments, sent=signal.SIGINT, when=begun)
    assert not (folder / "work" / "report.html").exists()
    again = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        cwd=ROOT,
        env=os.environ | {"LOADED": str(folder / "loaded.json")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert again.returncode == 0, again.stderr
    return folder, arguments, interrupted, again


def test_a_stopped_study_goes_on_and_ends_with_its_report(finished):
    folder, *_, again = finished
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


def test_an_interrupt_ends_with_one_line(finished):
    interrupted = finished[2]
    assert interrupted.returncode == 130
    assert interrupted.stderr.rstrip().endswith("interrupted; the same command resumes where it stopped")
    assert "Traceback" not in interrupted.stderr


def test_import_is_light_and_tensorflow_never_comes_in(finished):
    first, last = json.loads((finished[0] / "loaded.json").read_text())
    assert "jax" not in first
    assert "tensorflow_datasets" in last and "tensorflow" not in last


def test_every_step_was_logged_once(finished):
    folder, *_ = finished
    for run in ("unet_zero_original", "unet_zero_quadrant"):
        lines = (folder / "work" / "runs" / run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [3, 6]
        assert {"loss", "grad_norm", "validation_dice", "steps_per_second"} <= json.loads(lines[-1]).keys()


def test_a_killed_run_learned_what_an_undisturbed_one_learns(finished, launched_run):
    """The same network trained by itself, without a kill, to the last bit."""
    folder, *_ = finished
    rows = []
    for run in (launched_run, folder / "work" / "runs" / "unet_zero_original"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows.append([{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines])
    assert rows[0] == rows[1]


def test_of_a_finished_study_what_is_damaged_is_measured_again_and_nothing_else_is_run(finished, tmp_path, launch):
    folder, arguments, *_ = finished
    work = tmp_path / "work"
    shutil.copytree(folder / "work", work)
    damaged = work / "runs" / "unet_zero_quadrant" / "measures.npz"
    damaged.write_bytes(b"PK")
    times = lambda: {path: path.stat().st_mtime_ns for path in (work / "runs").rglob("*") if path.is_file()}
    before = times()
    answer = launch("study", *arguments, f"--workdir={work}")
    assert answer.returncode == 0, answer.stderr
    assert {path for path, time in times().items() if before.get(path) != time} == {damaged}
    results = [json.loads((place / "results.json").read_text()) for place in (work, folder / "work")]
    for name in ("dice", "border"):
        assert results[0][name] == results[1][name]


def test_a_work_directory_of_another_config_is_refused_and_untouched(finished, launch, one_line):
    folder, arguments, *_ = finished
    answer = launch("study", *arguments, "--config.training.epochs=3")
    one_line(answer, "config.training.epochs is 2 there and 3 here; choose another work directory")
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
def test_misuse_is_answered_with_one_line(arguments, message, tmp_path, launch, one_line):
    answer = launch("study", *[argument.format(tmp=tmp_path / "work") for argument in arguments])
    one_line(answer, message)
    assert not (tmp_path / "work" / "runs").exists()


def test_cases_of_another_data_set_are_refused(finished, tmp_path, launch, one_line):
    folder, arguments, *_ = finished
    work = tmp_path / "work"
    shutil.copytree(folder / "work", work)
    for path in work.rglob("data.json"):
        path.write_text(path.read_text().replace('"test": "', '"test": "0'))
    answer = launch("study", *arguments, f"--workdir={work}")
    one_line(answer, "was made with other data: test differs")


def test_a_batch_too_large_for_the_cases_leaves_the_folder_free(drawn_data, tmp_path, launch, one_line):
    data = f"--data_dir={drawn_data('dermoscopy/tiny')}"
    answer = launch("study", TINY, f"--workdir={tmp_path / 'work'}", data, "--config.training.batch_size=64")
    one_line(answer, "config.training.batch_size is 64, dermoscopy/tiny/train has 48 cases")
    assert not (tmp_path / "work").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(drawn_data, tmp_path, launch, one_line, small):
    data = f"--data_dir={drawn_data('dermoscopy/tiny')}"
    answer = launch(
        "study", TINY, *small, f"--workdir={tmp_path / 'work'}", data, "--config.training.learning_rate=1e38"
    )
    one_line(answer, "not finite at step")
