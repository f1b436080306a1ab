"""Archives: what is prepared from them is what is prepared from the folder, and nothing of them stays."""

import csv
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import builders
from jaxseg.data.builders import archives, files
from jaxseg.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]


def write(folder: pathlib.Path) -> pathlib.Path:
    """A table, a folder of images, a folder of masks."""
    rows = [("case", "image", "mask", "domain", "patient")]
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (20, 30), np.uint8)).save(folder / f"images/{i}.png")
        Image.fromarray(255 * np.eye(20, 30, i, dtype=np.uint8)).save(folder / f"masks/{i}.png")
        rows.append((f"case{i}", f"images/{i}.png", f"masks/{i}.png", "", ""))
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture
def raw(tmp_path) -> pathlib.Path:
    return write(tmp_path / "raw")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict[str, bytes]:
    """What is prepared from the folder."""
    folder = tmp_path_factory.mktemp("wanted")
    return prepared(write(folder / "raw"), folder / "data")


def pack(folder: pathlib.Path, target: pathlib.Path, *, inside: str = "") -> pathlib.Path:
    """Everything in a folder as an archive; in it, it lies in the folder `inside`."""
    paths = [(path, str(pathlib.Path(inside) / path.relative_to(folder))) for path in sorted(folder.rglob("*"))]
    if target.name.lower().endswith(".zip"):
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in paths:
                archive.write(path, name)
    else:
        with tarfile.open(target, "w" if target.name.endswith(".tar") else "w:gz") as archive:
            for path, name in paths:
                archive.add(path, name, recursive=False)
    return target


def prepared(given: pathlib.Path, data_dir: pathlib.Path) -> dict[str, bytes]:
    """The bits of the prepared data set; what the doctor said names places and is left out."""
    directory = builders.prepare("folder/mine", data_dir=data_dir, manual_dir=given)
    assert [path.name for path in data_dir.iterdir()] == ["folder"]
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "doctor.json"}


def state(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("inside", ["", "mine"])
@pytest.mark.parametrize("name", ["all.zip", "all.tar", "all.tar.gz", "all.tgz", "ALL.ZIP"])
def test_an_archive_gives_what_the_folder_gives(raw, tmp_path, wanted, name, inside):
    (tmp_path / "packed").mkdir()
    archive = pack(raw, tmp_path / "packed" / name, inside=inside)
    assert prepared(archive, tmp_path / "one") == wanted
    assert prepared(tmp_path / "packed", tmp_path / "two") == wanted  # the folder that holds it
    assert [path.name for path in (tmp_path / "packed").iterdir()] == [name]


@pytest.mark.parametrize("name", ["masks.zip", "masks.tar", "masks.tgz"])
def test_archives_beside_folders(raw, tmp_path, wanted, name):
    pack(raw / "masks", raw / name, inside="masks")
    shutil.rmtree(raw / "masks")
    before = state(raw)
    assert prepared(raw, tmp_path / "data") == wanted
    assert state(raw) == before


def test_an_archive_that_has_been_unpacked_is_not_opened(raw, tmp_path, wanted):
    (raw / "masks.zip").write_text("not even a zip file")
    assert not archives.needs_room(raw)
    assert prepared(raw, tmp_path / "data") == wanted


def test_what_macos_packs_along_is_no_folder_around_everything(raw, tmp_path, wanted):
    archive = pack(raw, tmp_path / "mine.zip", inside="mine")
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("__MACOSX/cases.csv", "what a viewer knows")
        more.writestr("mine/.DS_Store", "x")
    assert prepared(archive, tmp_path / "data") == wanted


def test_a_folder_around_everything(raw, tmp_path):
    around = tmp_path / "around"
    shutil.copytree(raw, around / "mine")
    assert files.descend(around, "cases.csv") == around / "mine"
    assert files.descend(raw, "cases.csv") == raw
    assert files.descend(around, "nowhere.csv") == around
    shutil.copytree(raw, around / "yours")  # now it could be either
    assert files.descend(around, "cases.csv") == around


# What is unpacked, and for how long.


def test_all_that_is_unpacked_goes_away(raw, tmp_path):
    archive = pack(raw, tmp_path / "all.zip")
    room = tmp_path / "room"
    with archives.unpacked(archive, room) as folder:
        assert folder == room
        assert {str(path.relative_to(room)): path.read_bytes() for path in room.rglob("*") if path.is_file()} == {
            str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()
        }
    assert not room.exists()
    with pytest.raises(ZeroDivisionError), archives.unpacked(archive, room):
        _ = 1 / 0
    assert not room.exists() and archive.exists()


def test_links_to_what_lies_beside_an_archive_are_removed_and_not_what_they_lead_to(raw, tmp_path):
    pack(raw / "masks", raw / "more.zip", inside="more")
    before = state(raw)
    with archives.unpacked(raw, tmp_path / "room") as room:
        assert sorted(path.name for path in room.iterdir()) == ["cases.csv", "images", "masks", "more"]
        assert (room / "images").is_symlink() and not (room / "more").is_symlink()
    assert not (tmp_path / "room").exists() and state(raw) == before


def test_nothing_to_unpack_needs_no_room(raw, tmp_path):
    for given in (raw, None):
        with archives.unpacked(given, tmp_path / "room") as folder:
            assert folder == given and not (tmp_path / "room").exists()


def test_rights_of_members_are_not_taken_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("run")
        member.mode = 0o6777
        archive.addfile(member)
    with archives.unpacked(tmp_path / "a.tar", tmp_path / "room") as room:
        assert (room / "run").stat().st_mode & 0o7111 == 0


def test_two_archives_with_files_of_the_same_name_are_kept_apart(tmp_path):
    """As zip files of images and of their masks are, without a folder."""
    (tmp_path / "given").mkdir()
    for name in ("images", "masks"):
        with zipfile.ZipFile(tmp_path / f"given/{name}.zip", "w") as archive:
            archive.writestr("1.png", name)
    with archives.unpacked(tmp_path / "given", tmp_path / "room") as room:
        assert {name: (room / name / "1.png").read_text() for name in ("images", "masks")} == {
            "images": "images",
            "masks": "masks",
        }


def test_how_much_an_archive_may_grow(tmp_path, monkeypatch):
    """200 times its size, and always what is harmless; counted over all of its files."""
    monkeypatch.setattr(archives, "_ALWAYS_FINE", 3000)
    path = tmp_path / "a.zip"

    def grow(sizes: list[int]) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for i, size in enumerate(sizes):
                archive.writestr(f"{i}", bytes(size))

    grow([1000] * 3)
    monkeypatch.setattr(archives, "_MOST_TIMES", 1)
    with archives.unpacked(path, tmp_path / "room") as room:
        assert sum(file.stat().st_size for file in room.iterdir()) == 3000
    grow([1000] * 3 + [1])
    with (
        pytest.raises(InputError, match="grows to more than 1 times its size"),
        archives.unpacked(path, tmp_path / "room"),
    ):
        pass
    assert not (tmp_path / "room").exists()
    monkeypatch.setattr(archives, "_MOST_TIMES", 200)
    with archives.unpacked(path, tmp_path / "room") as room:
        assert len(list(room.iterdir())) == 4


@pytest.mark.parametrize("name", ["all.zip", "all.tar"])
def test_how_many_files_an_archive_may_have(raw, tmp_path, name, monkeypatch):
    archive = pack(raw / "images", tmp_path / name)
    monkeypatch.setattr(archives, "_MOST_FILES", 5)
    with archives.unpacked(archive, tmp_path / "room"):
        pass
    monkeypatch.setattr(archives, "_MOST_FILES", 4)
    with (
        pytest.raises(InputError, match="holds more than 4 files; unpack it by hand"),
        archives.unpacked(archive, tmp_path / "room"),
    ):
        pass
    assert not (tmp_path / "room").exists()


def test_a_full_disk_is_no_damaged_archive(raw, tmp_path, monkeypatch):
    archive = pack(raw, tmp_path / "all.zip")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives._Budget, "write", full)
    with pytest.raises(InputError, match=r"/data: cannot write there \(No space left on device\); free it or choose"):
        builders.prepare("folder/mine", data_dir=tmp_path / "data", manual_dir=archive)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("function", [builders.prepare, builders.check])
def test_failure_leaves_nothing_behind(raw, tmp_path, function: Callable):
    (raw / "masks/3.png").unlink()
    archive = pack(raw, tmp_path / "all.zip")
    if function is builders.check:
        (line,) = function("folder/mine", data_dir=tmp_path / "data", manual_dir=archive).errors[0].lines
        assert line.startswith(f"{archive}/masks/3.png: is not there")
    else:
        with pytest.raises(InputError, match=f"{archive}/masks/3.png: is not there"):
            function("folder/mine", data_dir=tmp_path / "data", manual_dir=archive)
    assert list((tmp_path / "data").iterdir()) == []


SLOW = """
import pathlib, sys, time
from jaxseg.data import builders
from jaxseg.data.builders import archives
write = archives._Budget.write
def slow(self, file, target):
    write(self, file, target)
    if target.name == "2.png":
        pathlib.Path(sys.argv[3]).touch()
        time.sleep(600)
archives._Budget.write = slow
getattr(builders, sys.argv[4])("folder/mine", data_dir=sys.argv[1], manual_dir=sys.argv[2])
"""


@pytest.mark.parametrize("function", ["prepare", "check"])
def test_killed_while_unpacking_leaves_nothing_behind(raw, tmp_path, wanted, function):
    archive, data_dir, halfway = pack(raw, tmp_path / "all.tgz"), tmp_path / "data", tmp_path / "halfway"
    command = [sys.executable, "-c", SLOW, *map(str, (data_dir, archive, halfway, function))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not halfway.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    (work,) = data_dir.iterdir()
    assert list(work.rglob("2.png"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert work.exists()
    assert prepared(archive, data_dir) == wanted  # and nothing else is there
