"""Reports that were made elsewhere: those in the folders of `JAXSEG_REPORTS`, as `make demos` sets it."""

import os
import pathlib

from tests.drawings import drawings  # noqa: F401


def pytest_generate_tests(metafunc):
    place = os.environ.get("JAXSEG_REPORTS")
    given = sorted(path.parent.resolve() for path in pathlib.Path(place).glob("*/results.json")) if place else []
    if "given_report" in metafunc.fixturenames:
        metafunc.parametrize("given_report", given, ids=lambda path: path.name)
    if "any_report" in metafunc.fixturenames:
        reports = {"built": None} | {path.name: path / "report.html" for path in given}
        metafunc.parametrize("any_report", reports.values(), ids=reports, indirect=True)
