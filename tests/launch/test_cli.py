"""A wrong flag, how launchers end, where compiled programs are kept, and what flags that name places mean."""

import pathlib
import pwd
import signal
import subprocess
import sys

import pytest

from jaxseg import paths
from jaxseg.errors import InputError, LostProcess, Preempted
from launch import cli

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["audit", "benchmark", "evaluate", "predict", "prepare", "study", "train"])
def test_a_wrong_flag_ends_every_launcher_with_one_line(name):
    command = [sys.executable, "-m", f"launch.{name}", "--wordir=x"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: Unknown command line flag 'wordir'") and answer.stderr.count("\n") == 1


@pytest.fixture
def ended(monkeypatch):
    """`(error, **options) -> status` with which a launcher ends whose work raises the error."""

    class Ended(BaseException):
        pass

    def end(status):
        raise Ended(status)

    def status(error, **options):
        def work(*_, **__):
            raise error

        monkeypatch.setattr(cli.app, "run", work)
        try:
            cli.run(lambda: None, **options)
        except (Ended, SystemExit) as last:
            return last.args[0]
        return 0

    monkeypatch.setattr(cli.os, "_exit", end)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    return status


@pytest.mark.parametrize(
    ("error", "options", "status", "said"),
    [
        (LostProcess("another has ended"), {"resumes": True}, 75, "error: another has ended\n"),
        (Preempted("saved at step 3"), {"resumes": True}, 0, "saved at step 3\n"),
        (InputError("no such run"), {}, 2, "error: no such run\n"),
        (InputError("no such run"), {"resumes": True}, 2, "error: no such run\n"),
        (cli._Stopped(signal.SIGTERM), {"cleans_up": True}, 143, "\nstopped; nothing is left behind\n"),
        (cli._Stopped(signal.SIGINT), {"cleans_up": True}, 130, "\nstopped; nothing is left behind\n"),
    ],
)
def test_the_status_says_whether_the_same_command_goes_on(ended, capsys, error, options, status, said):
    """75 is EX_TEMPFAIL of sysexits.h, by which clusters tell what to start again from what a person has to fix."""
    assert ended(error, **options) == status
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(("handler", "status"), [(cli._interrupted, 130), (cli._stopped, 0)])
def test_a_signal_ends_what_resumes_at_once(monkeypatch, handler, status):
    ends, said = [], []
    monkeypatch.setattr(cli.os, "_exit", ends.append)
    monkeypatch.setattr(cli.os, "write", lambda stream, text: said.append((stream, text)))
    handler(signal.SIGTERM, None)
    [(stream, text)] = said
    assert ends == [status] and stream == 2 and b"the same command resumes" in text


def nobody(number):
    raise KeyError(number)


def test_without_a_home_nothing_is_kept(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert cli._cache() is None


def test_compiled_programs_are_kept_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli._cache().parent == tmp_path / "cache" / "jaxseg"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no such place")
    monkeypatch.setattr(cli.os, "access", lambda *_: False)  # as for anyone but root
    assert cli._cache() is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/runs", "/home/someone/runs"),
        ("~", "/home/someone"),
        ("~nobody of that name/runs", "~nobody of that name/runs"),
        ("runs/~1", "runs/~1"),
        ("-x", "-x"),
        ("run[lr=0.001]", "run[lr=0.001]"),
    ],
)
def test_a_home_is_expanded_and_nothing_else(monkeypatch, given, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.expanded(given) == pathlib.Path(expected)


@pytest.mark.parametrize("name", ["plain", "with space", "[a-z]", "*", "a?b", "{a,b}", "%41", "a@3", "~", "ä漢"])
def test_a_folder_for_libraries_is_the_same_folder_under_a_harmless_name(tmp_path, name):
    (tmp_path / name).mkdir()
    place = paths.Literal(tmp_path / name)
    (place.path / "file").write_text("here")
    assert (tmp_path / name / "file").read_text() == "here"
    assert place.outside(place.path / "file") == tmp_path / name / "file"
    assert not set("[]*?{}%@~") & set(str(place.path))


def test_an_open_folder_is_closed_with_its_name(tmp_path):
    (tmp_path / "[0]").mkdir()
    place = paths.Literal(tmp_path / "[0]")
    descriptor = place.path
    assert descriptor.samefile(tmp_path / "[0]")
    del place
    assert not descriptor.exists() or not descriptor.samefile(tmp_path / "[0]")
