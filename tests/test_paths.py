"""Places that cannot be reached, or that no file system can have, are said in one line wherever they are given."""

import contextlib
import os
import pathlib
import tempfile

import pytest

from configs import train
from jaxseg import paths
from jaxseg.data import builders, pipeline
from jaxseg.data.builders import folder as _  # noqa: F401 - imported while there are rights to
from jaxseg.errors import InputError
from jaxseg.models import pretrained
from jaxseg.prediction import inputs
from jaxseg.prediction import page as predictions
from jaxseg.training import checkpoints, runs

NOBODY = 65534
DATA = "/nowhere"  # nothing is prepared there


@contextlib.contextmanager
def without_rights():
    """As a user whom rights hold back."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def tmp_path():
    """pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        folder.chmod(0o777)
        yield folder


@pytest.fixture
def locked(tmp_path):
    folder = tmp_path / "locked"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("")
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


def test_what_is_there_is_told_from_what_is_not(tmp_path, locked):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    named = [tmp_path, *(tmp_path / name for name in ("file", "link", "nowhere", "gone", "file/below"))]
    assert [paths.exists(path) for path in named] == [True, True, True, False, False, False]
    assert [paths.is_folder(path) for path in named] == [True, False, False, False, False, False]
    assert [paths.is_file(path) for path in named] == [False, True, True, False, False, False]
    assert paths.children(tmp_path) == [tmp_path / name for name in ("file", "link", "locked", "nowhere")]


GIVEN = {
    "checkpoints": checkpoints.Checkpoints,
    "checkpoints that are read": lambda place: checkpoints.Checkpoints(place, read_only=True),
    "whether a run has begun": checkpoints.has_steps,
    "folder of a run": lambda place: runs.claim(place, train.get_config("tiny")),
    "output of a prediction": lambda place: predictions._check(predictions.Options(), place),
    "input of a prediction": lambda place: inputs.find([place]),
    "data folder": lambda place: builders.prepare("folder/a", data_dir=place),
    "whether it is prepared": lambda place: builders.prepared("folder/a", data_dir=place),
    "prepared data": lambda place: pipeline.Split(place, "train", size=8),
    "raw files": lambda place: builders.prepare("folder/a", data_dir=DATA, manual_dir=place),
    "raw files to check": lambda place: builders.check("folder/a", data_dir=DATA, manual_dir=place),
    "weights": lambda place: pretrained._read(f"{place}:key"),
}


@pytest.mark.parametrize("given", GIVEN)
def test_a_place_that_cannot_be_reached_is_named_with_the_reason(locked, given):
    with without_rights(), pytest.raises(InputError, match="Permission denied") as error:
        GIVEN[given](locked / "inner")
    assert str(locked / "inner") in str(error.value) and "\n" not in str(error.value)
    assert "rights" in str(error.value) and "remove" not in str(error.value)


@pytest.mark.parametrize("given", GIVEN)
def test_a_name_that_no_file_can_have_is_named_with_the_reason(tmp_path, given):
    place = tmp_path / "folder" / ("x" * 300)
    place.parent.mkdir()
    with pytest.raises(InputError, match="File name too long") as error:
        GIVEN[given](place)
    assert "choose a shorter name" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["whether a run has begun", "output of a prediction", "raw files to check"])
def test_a_folder_that_cannot_be_listed_is_named_with_the_reason(locked, given):
    with without_rights(), pytest.raises(InputError, match=r"locked: cannot be (reached|read) \(Permission") as error:
        GIVEN[given](locked)
    assert "\n" not in str(error.value)
