"""How launchers are launched in tests, and the run that several of them use."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# two levels of 2 and 4 features on 16 px
SMALL = ("--config.model.features=(2,4)", "--config.model.skips=(True,)", "--config.data.image_size=16")


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """`(module, *arguments) -> CompletedProcess` of a process of its own, forked when all imports were made.

    With `sent` and `when`, it is sent that signal as soon as the function is true, and after five minutes SIGKILL.
    """
    folder = tmp_path_factory.mktemp("launch")
    said = [folder / name for name in ("stdout", "stderr")]

    def answered(deadline):
        return bool(select.select([server.stdout], [], [], max(0, deadline - time.monotonic()))[0])

    def call(module, *arguments, sent=None, when=None):
        request = {"module": f"launch.{module}", "arguments": list(map(str, arguments))}
        server.stdin.write(json.dumps(request | {path.name: str(path) for path in said}) + "\n")
        server.stdin.flush()
        process, deadline = int(server.stdout.readline()), time.monotonic() + 300
        if when:
            while not when() and not answered(time.monotonic() + 0.05) and time.monotonic() < deadline:
                pass
            if not answered(time.monotonic()):  # else it has ended by itself, and its number may be another's
                os.kill(process, sent)
        if not answered(deadline):
            os.kill(process, signal.SIGKILL)
        answer = subprocess.CompletedProcess(request, int(server.stdout.readline()), *(p.read_text() for p in said))
        for path in said:
            path.unlink()
        return answer

    with (folder / "imports").open("w+") as noise:
        command = [sys.executable, pathlib.Path(__file__).with_name("forking.py")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": noise}
        with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as server:
            yield call
            server.stdin.close()
        noise.seek(0)
        assert noise.read() == ""  # a launcher's one line is all that it says


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Flags that make the tiny size of a run, or of a study of the same network, smaller still."""
    return SMALL


@pytest.fixture(scope="session")
def launched_run(once, launch, drawn_data) -> pathlib.Path:
    """Folder of a run as `launch.train` leaves it; not to be changed."""

    def train(folder: pathlib.Path) -> None:
        data = f"--data_dir={drawn_data('dermoscopy/tiny')}"
        answer = launch("train", "--config=configs/train.py:tiny", f"--workdir={folder / 'run'}", data, *SMALL)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.split() == [str(folder / "run")]

    return once("launched_run", train) / "run"


@pytest.fixture(scope="session")
def one_line():
    """`(answer, message)`: the process says what a person can fix in one line, and ends with status 2."""

    def check(answer: subprocess.CompletedProcess, message: str) -> None:
        assert answer.returncode == 2, answer.stderr
        errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and message in errors[0], answer.stderr
        assert answer.stderr.strip().endswith(errors[0])
        assert "Traceback" not in answer.stderr

    return check
