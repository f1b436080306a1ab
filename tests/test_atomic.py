"""Rows and values survive the way into files."""

import csv
import dataclasses
import json
import math
import os
import pathlib

import numpy as np
import pytest

from jaxseg import atomic
from jaxseg.results.text import estimate_text

NAN = float("nan")


def test_csv_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / "scores.csv"
    rows = [
        {"case": 'a,"b"\nc', "dice": 0.123456789, "n": 3},
        {"case": "ä", "dice": NAN, "known": np.bool_(True)},
        {"dice": np.float32(1e-7), "n": np.int64(1234567), "known": None},
    ]
    atomic.write_csv(path, rows)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        read = list(reader)
    assert reader.fieldnames == ["case", "dice", "n", "known"]
    assert [row["case"] for row in read] == ['a,"b"\nc', "ä", ""]
    assert [row["dice"] for row in read] == ["0.123457", "", "1e-07"]
    assert [row["n"] for row in read] == ["3", "", "1234567"]
    assert [row["known"] for row in read] == ["", "true", ""]


def test_csv_of_no_rows_is_readable(tmp_path):
    atomic.write_csv(tmp_path / "empty.csv", [])
    assert (tmp_path / "empty.csv").read_text().strip() == ""


@dataclasses.dataclass(frozen=True)
class Estimate:
    mean: float
    n: int


def test_json_holds_plain_values(tmp_path):
    value = {
        "z": [NAN, math.inf, -math.inf, np.float64(NAN), 0.1],
        "array": np.array([[1.0, NAN]], np.float32),
        "scalar": np.int32(7),
        1: (True, None, "ü"),
        "estimate": Estimate(NAN, 2),
        "path": pathlib.PurePosixPath("a/b"),
    }
    atomic.write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "z": [None, None, None, None, 0.1],
        "array": [[1.0, None]],
        "scalar": 7,
        "1": [True, None, "ü"],
        "estimate": {"mean": None, "n": 2},
        "path": "a/b",
    }
    assert text.index('"z"') < text.index('"array"') and '\n  "z"' in text


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "value.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        atomic.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        atomic.replace(tmp_path / "folder", b"a folder is in the way")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "value.json"]


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    atomic.write_json(tmp_path / "written", 1)
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.42, 0.37, 0.471), "0.42 [0.37, 0.47]"),
        ((-0.001, -0.5, 0.5), "0.00 [-0.50, 0.50]"),
        ((NAN, NAN, NAN), "undefined"),
        ((0.42, NAN, NAN), "0.42 [undefined, undefined]"),
    ],
)
def test_estimate_text(arguments, expected):
    assert estimate_text(*arguments) == expected


def test_more_digits():
    assert estimate_text(0.1234, 0.1, 0.2, digits=3) == "0.123 [0.100, 0.200]"


def test_a_file_name_that_is_no_utf_8_is_written(tmp_path):
    name = os.fsdecode(b"b\xff.png")
    atomic.write_csv(tmp_path / "a.csv", [{"file": name}])
    atomic.write_json(tmp_path / "a.json", {"file": name})
    assert (tmp_path / "a.csv").read_text() == "file\nb\\udcff.png\n"
    assert json.loads((tmp_path / "a.json").read_text())["file"] == name
