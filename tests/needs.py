"""What some tests need that is not in the repository, and which tests may be skipped for want of it."""

import os
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_EXPECTED = _ROOT / "tests" / "expected_skips.txt"

PYTORCH = "needs PyTorch (make test-torch)"


@pytest.fixture(scope="session")
def torch():
    """PyTorch; the test is skipped where there is none."""
    return pytest.importorskip("torch", reason=PYTORCH)


@pytest.fixture(scope="session")
def oracles() -> pathlib.Path:
    """Folder of numbers that the papers' own code gave; the test is skipped where there is none."""
    return _folder("JAXSEG_ORACLES", "oracles", "reference numbers")


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder of real images; the test is skipped where there is none."""
    return _folder("JAXSEG_REAL_DATA", "data", "real images")


def _folder(variable: str, name: str, what: str) -> pathlib.Path:
    folder = pathlib.Path(os.environ.get(variable, _ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"needs {what} ({variable})")
    return folder


def pytest_addoption(parser):
    parser.addoption("--expected-skips", action="store_true", help=f"fail when a skip is not in {_EXPECTED.name}")


def pytest_collection_modifyitems(items):
    for item in items:
        if "torch" in item.fixturenames:
            item.add_marker(pytest.mark.torch)
        if {"oracles", "real_data"} & set(item.fixturenames):
            item.add_marker(pytest.mark.given)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and session.config.getoption("expected_skips") and _unexpected(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("expected_skips") and (unexpected := _unexpected(terminalreporter)):
        terminalreporter.section(f"skipped, and not in {_EXPECTED.relative_to(_ROOT)}", red=True)
        for line in unexpected:
            terminalreporter.line(line)


def _unexpected(reporter) -> list[str]:
    expected = set(_EXPECTED.read_text().splitlines())
    found = {
        f"{report.nodeid.partition('::')[0]}: {report.longrepr[2].removeprefix('Skipped: ')}"
        for report in reporter.stats.get("skipped", ())
    }
    return sorted(found - expected)
