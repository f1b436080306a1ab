"""How many programs each test file asks JAX to compile: most of its time. Those that ask for many are named."""

import collections

import jax
import pytest

MOST = 60  # of a file

_asked = 0


def _count(event: str, _: float, **__: object) -> None:
    global _asked
    _asked += event == "/jax/core/compile/backend_compile_duration"  # also of what the cache on disk then had


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    global _asked
    report = yield
    report.user_properties.append(("programs", _asked))
    _asked = 0
    return report


def pytest_terminal_summary(terminalreporter):
    programs = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            properties = dict(getattr(report, "user_properties", ()))
            programs[getattr(report, "location", [""])[0]] += properties.get("programs", 0)
    if many := {path: count for path, count in programs.items() if count > MOST}:
        terminalreporter.section(f"more than {MOST} programs (CONTRIBUTING: tests that are quick)")
        for path, count in sorted(many.items()):
            terminalreporter.line(f"{path}: {count}")
