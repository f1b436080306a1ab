"""Preparation: what comes out is what the raw files hold, and bad files are all named before anything is written."""

import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import builders, formats, pipeline, raw_cases, resizing
from jaxseg.data.builders import dermoscopy, isic2017, records
from jaxseg.data.synthetic.dermoscopy import render
from jaxseg.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
SIZES = ((30, 20), (64, 64), (41, 70))  # width, height
COUNTS = {"train": 5, "validation": 2, "test": 3}
IMAGE, MASK = (
    "ISIC-2017_Training_Data/ISIC_0000001.jpg",
    "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png",
)


def write_case(folder: pathlib.Path, split: str, number: int, size: tuple[int, int]) -> None:
    images, masks = (folder / name for name in isic2017.FOLDERS[split])
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(size)
    image.save(images / f"ISIC_{number:07d}.jpg", quality=90)
    mask = np.zeros(size[::-1], np.uint8)
    mask[size[1] // 4 : size[1] // 2, size[0] // 3 : size[0] // 2 + number] = 255
    Image.fromarray(mask).save(masks / f"ISIC_{number:07d}_segmentation.png")
    Image.fromarray(mask).save(images / f"ISIC_{number:07d}_superpixels.png")


@pytest.fixture
def raw(tmp_path) -> pathlib.Path:
    """The official layout in small, with the official extra files and what operating systems leave behind."""
    folder = tmp_path / "raw"
    number = 0
    for split, names in isic2017.FOLDERS.items():
        for name in names:
            (folder / name).mkdir(parents=True)
            (folder / name / ".DS_Store").write_bytes(b"x")
            (folder / name / "LICENSE.txt").write_text("CC-0")
        (folder / names[0] / "ISIC-2017_metadata.csv").write_text("image_id,age,sex\n")
        (folder / names[0] / "ISIC_metadata.csv").write_text("image_id,age,sex\n")
        for _ in range(COUNTS[split]):
            write_case(folder, split, number, SIZES[number % len(SIZES)])
            number += 1
    return folder


def prepare_isic(raw: pathlib.Path, config: str = "256", data_dir: pathlib.Path | None = None) -> pathlib.Path:
    return builders.prepare(f"isic2017/{config}", data_dir=data_dir or raw.parent / "data", manual_dir=raw)


def problems(raw: pathlib.Path) -> list[str]:
    """The lines that `prepare` complains with, the summary left out; nothing may have been written."""
    data_dir = raw.parent / "data"
    with pytest.raises(InputError) as info:
        prepare_isic(raw, data_dir=data_dir)
    assert list(data_dir.iterdir()) == []
    summary, *lines = str(info.value).split("\n")
    assert summary == f"{len(lines)} problem{'s' * (len(lines) > 1)} in {raw}; nothing was prepared:"
    return lines


def raw_records(directory: pathlib.Path, split: str) -> list[dict[str, bytes]]:
    import tensorflow_datasets as tfds

    skip = tfds.decode.SkipDecoding()
    builder: Any = tfds.builder_from_directory(directory)
    source = builder.as_data_source(split, decoders={"image": skip, "labels": skip})
    return [{**source[i], "spacing": str(source[i]["spacing"])} for i in range(len(source))]


def bits(directory: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# What comes out.


def test_isic2017_squashed_is_what_the_files_hold(raw, slow_resize):
    directory = prepare_isic(raw)
    assert directory == raw.parent / "data" / "isic2017" / "256" / "2.0.0"
    assert pipeline.split_sizes(directory) == COUNTS
    for split, (images, masks) in isic2017.FOLDERS.items():
        cases = pipeline.Split(directory, split, size=256)
        names = [case["case"] for case in cases]
        assert names == sorted(path.stem for path in (raw / images).glob("*.jpg"))  # the official order is kept
        for case in cases:
            assert case["patient"] == case["case"]
            image = slow_resize(np.asarray(Image.open(raw / images / f"{case['case']}.jpg")), 256, 256)
            mask = Image.open(raw / masks / f"{case['case']}_segmentation.png")
            mask = mask.resize((256, 256), Image.Resampling.NEAREST)
            np.testing.assert_allclose(case["image"], image, atol=1.0)
            np.testing.assert_array_equal(case["labels"], np.asarray(mask) // 255)


def test_isic2017_512_has_its_size(raw):
    cases = raw_records(prepare_isic(raw, "512"), "test")
    with Image.open(io.BytesIO(cases[0]["image"])) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (512, 512), "RGB")


def test_isic2017_full_keeps_the_official_bytes(raw):
    directory = prepare_isic(raw, "full")
    images, masks = isic2017.FOLDERS["train"]
    for record in raw_records(directory, "train"):
        case = record["case"].decode()
        assert record["image"] == (raw / images / f"{case}.jpg").read_bytes()
        with Image.open(raw / masks / f"{case}_segmentation.png") as mask:
            wanted = np.asarray(mask) // 255
        with Image.open(io.BytesIO(record["labels"])) as labels:
            np.testing.assert_array_equal(np.asarray(labels), wanted)


def test_class_names_survive_in_the_prepared_folder(raw):
    split = pipeline.Split(prepare_isic(raw), "train", size=32)
    assert split.class_names == ("background", "lesion")
    assert (split.num_classes, split.num_channels) == (2, 3)


def test_large_photographs_are_reduced_well(tmp_path, slow_resize):
    rng = np.random.default_rng(0)
    photograph = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((1200, 900))
    photograph.save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        exact = slow_resize(np.asarray(image), 64, 64)
    drafted = formats.read(tmp_path / "a.jpg", at_least=resizing.DRAFT * 64).array
    assert drafted.shape[0] < 900
    fast = resizing.resize(drafted, (64, 64))
    assert abs(fast - exact).max() < 3 and abs(fast - exact).mean() < 0.6


@pytest.mark.parametrize("config", ["256", "full"])
def test_shards_hold_every_case_in_order_and_twice_the_same_bits(raw, monkeypatch, config):
    one = prepare_isic(raw, config, raw.parent / "one")
    monkeypatch.setattr(records, "CASES_PER_SHARD", 2)
    several, again = (prepare_isic(raw, config, raw.parent / name) for name in ("several", "again"))
    assert len(list(several.glob("*-train.*"))) == 3 and len(list(one.glob("*-train.*"))) == 1
    assert raw_records(several, "train") == raw_records(one, "train")
    assert bits(several) == bits(again)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "LA"])
def test_masks_of_other_modes_are_read_as_they_look(tmp_path, mode):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 7:12] = 255
    Image.fromarray(mask).convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "mask.png").array[..., 0], mask)


def test_grey_photographs_become_colour(raw):
    Image.open(raw / IMAGE).convert("L").save(raw / IMAGE)
    for config in ("256", "full"):
        case = pipeline.Split(prepare_isic(raw, config), "train", size=48)[1]
        assert case["image"].shape == (48, 48, 3)
        assert (case["image"][..., 0] == case["image"][..., 2]).all()


def test_dermoscopy_is_embedded_and_its_splits_are_disjoint(tiny):
    splits = {name: list(pipeline.Split(tiny, name, size=64)) for name in ("train", "validation", "test")}
    assert {name: len(cases) for name, cases in splits.items()} == {"train": 48, "validation": 16, "test": 16}
    cases = [case for split in splits.values() for case in split]
    assert len({case["case"] for case in cases}) == len({case["image"].tobytes() for case in cases}) == 80
    for index in (0, 63, 79):
        image, labels = render(dermoscopy._SEED, index, 64)
        np.testing.assert_array_equal(cases[index]["image"], image)
        np.testing.assert_array_equal(cases[index]["labels"], labels)


def test_a_prepared_data_set_is_left_alone(raw, capfd):
    first = prepare_isic(raw)
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    assert builders.prepare("isic2017/256", data_dir=raw.parent / "data") == first  # the raw files are not needed
    assert builders.prepare("isic2017", data_dir=raw.parent / "data") == first  # the first config
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    output, errors = capfd.readouterr()
    assert output == "" and errors.startswith("isic2017/256: usable; ") and len(errors.splitlines()) == 1
    assert [path.name for path in (raw.parent / "data").iterdir()] == ["isic2017"]


def test_real_images(real_data, tmp_path):
    official = real_data / "isic2017_256"
    for pair in isic2017.FOLDERS.values():
        for name in pair:
            (tmp_path / "raw" / name).mkdir(parents=True)
            for path in sorted((official / name).iterdir())[:12]:
                (tmp_path / "raw" / name / path.name).symlink_to(path.resolve())
    directory = prepare_isic(tmp_path / "raw")
    for split, (images, masks) in isic2017.FOLDERS.items():
        cases = list(pipeline.Split(directory, split, size=256))
        assert len(cases) == 12
        for case in cases:
            with Image.open(official / images / f"{case['case']}.jpg") as image:
                np.testing.assert_array_equal(case["image"], np.asarray(image))
            with Image.open(official / masks / f"{case['case']}_segmentation.png") as mask:
                np.testing.assert_array_equal(case["labels"], np.asarray(mask) // 255)


# Bad files.


def truncate(path: pathlib.Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


def save_mask(path: pathlib.Path, values: tuple[int, ...], size: tuple[int, int] = (64, 64)) -> None:
    mask = np.zeros(size[::-1], np.uint8)
    mask.flat[: len(values)] = values
    Image.fromarray(mask).save(path)


def half_downloaded(raw: pathlib.Path) -> None:
    """A large JPEG whose second half is zeros: decoders fill it up without a word."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(noise).save(raw / IMAGE, quality=95)
    save_mask(raw / MASK, (255,), (512, 512))
    data = (raw / IMAGE).read_bytes()
    (raw / IMAGE).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def save_any_mask(path: pathlib.Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def repeat_case(raw: pathlib.Path) -> None:
    (images, masks), _, (test_images, test_masks) = isic2017.FOLDERS.values()
    name = pathlib.Path(IMAGE).stem
    shutil.copy(raw / images / f"{name}.jpg", raw / test_images)
    shutil.copy(raw / masks / f"{name}_segmentation.png", raw / test_masks)


TRANSPARENT = np.full((64, 64, 4), 255, np.uint8)
TRANSPARENT[:32, :, 3] = 0
COLOURED = np.full((64, 64, 3), 255, np.uint8)
COLOURED[..., 2] = 254
BAD = {
    "16-bit mask": (
        lambda raw: save_any_mask(raw / MASK, np.full((64, 64), 256, np.uint16)),
        [(MASK, "holds the value 256; a mask is 0")],
    ),
    "transparent mask": (lambda raw: save_any_mask(raw / MASK, TRANSPARENT), [(MASK, "is partly transparent; save")]),
    "coloured mask": (lambda raw: save_any_mask(raw / MASK, COLOURED), [(MASK, "is coloured; save the mask as")]),
    "download filled with zeros": (
        half_downloaded,
        [(IMAGE, "lacks the end of a JPEG, as after a broken download; fetch it again")],
    ),
    "a case in two splits": (
        repeat_case,
        [("ISIC-2017_Test_v2_Data/ISIC_0000001.jpg", "the same case is in", IMAGE, "; keep it in one split")],
    ),
    "image without mask": (lambda raw: (raw / MASK).unlink(), [(IMAGE, "has no mask ", MASK, "; add it")]),
    "mask without image": (lambda raw: (raw / IMAGE).unlink(), [(MASK, "has no image ", IMAGE, "; add it")]),
    "sizes differ": (
        lambda raw: save_mask(raw / MASK, (255,), (64, 63)),
        [(MASK, "is 64x63, its image is 64x64; use the mask")],
    ),
    "mask of 0 and 1": (lambda raw: save_mask(raw / MASK, (1,)), [(MASK, "holds the value 1; a mask is 0")]),
    "mask of many values": (
        lambda raw: save_mask(raw / MASK, (3, 9, 27, 81, 255)),
        [(MASK, "holds the values 3, 9, 27 and 1 more; a mask is 0")],
    ),
    "half an image": (lambda raw: truncate(raw / IMAGE, 0.5), [(IMAGE, "cannot be read as an image (", "fetch it")]),
    "most of an image": (lambda raw: truncate(raw / IMAGE, 0.98), [(IMAGE, "cannot be read as an image (", "fetch")]),
    "half a mask": (lambda raw: truncate(raw / MASK, 0.5), [(MASK, "cannot be read as an image (", "fetch it again")]),
    "most of a mask": (lambda raw: truncate(raw / MASK, 0.85), [(MASK, "cannot be read as an image (", "fetch it")]),
    "damaged mask": (lambda raw: flip(raw / MASK), [(MASK, "cannot be read as an image (", "; fetch it again")]),
    "no image": (
        lambda raw: (raw / IMAGE).write_text("<html>404</html>"),
        [(IMAGE, "cannot be read as an image (no known image format); fetch it again")],
    ),
    "empty file": (lambda raw: (raw / MASK).write_bytes(b""), [(MASK, "no known image format); fetch it again")]),
    "dangling link": (
        lambda raw: ((raw / IMAGE).unlink(), (raw / IMAGE).symlink_to("nowhere.jpg")),
        [(IMAGE, "cannot be read as an image ([Errno 2] No such file or directory")],
    ),
    "PNG called JPEG": (
        lambda raw: Image.open(raw / IMAGE).save(raw / IMAGE, "PNG"),
        [(IMAGE, "holds PNG data; convert it to JPEG")],
    ),
    "wrong extension of an image": (
        lambda raw: (raw / IMAGE).rename((raw / IMAGE).with_suffix(".jpeg")),
        [(IMAGE[:-3] + "jpeg", "wrong name; images are named ISIC_*.jpg: convert or rename it")],
    ),
    "wrong extension of a mask": (
        lambda raw: (raw / MASK).rename((raw / MASK).with_suffix(".bmp")),
        [(MASK[:-3] + "bmp", "wrong name; masks are named ISIC_*_segmentation.png: convert or rename it")],
    ),
    "missing folder": (
        lambda raw: (raw / "ISIC-2017_Test_v2_Data").rename(raw / "Test"),
        [("ISIC-2017_Test_v2_Data", "no such folder; unpack the official archive")],
    ),
    "empty folder": (
        lambda raw: [path.unlink() for path in (raw / MASK).parent.iterdir()],
        [(os.path.dirname(MASK), "holds no file named ISIC_*_segmentation.png; unpack the official archive")],
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line(raw, kind):
    damage, wanted = BAD[kind]
    damage(raw)
    lines = problems(raw)
    assert len(lines) == len(wanted), lines
    for line, (file, *parts) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{raw / file}: ")
        assert all(part in line for part in parts), line


def test_all_bad_files_are_named_at_once(raw):
    images, masks = isic2017.FOLDERS["train"]
    (raw / masks / "ISIC_0000000_segmentation.png").unlink()
    save_mask(raw / MASK, (7,), (10, 10))
    truncate(raw / images / "ISIC_0000002.jpg", 0.5)
    (raw / isic2017.FOLDERS["validation"][0]).rename(raw / "lost")
    truncate(raw / isic2017.FOLDERS["test"][1] / "ISIC_0000009_segmentation.png", 0.3)
    assert [pathlib.Path(line.partition(": ")[0]).name for line in problems(raw)] == [
        "ISIC_0000000.jpg",
        "ISIC-2017_Validation_Data",
        "ISIC_0000001_segmentation.png",
        "ISIC_0000002.jpg",
        "ISIC_0000009_segmentation.png",
    ]


# Bad arguments and bad places.


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("isic2018", "unknown data set 'isic2018'; choose one of dermoscopy/demo, dermoscopy/tiny, isic2017/256"),
        ("isic2017/128", "unknown data set 'isic2017/128'; choose one of isic2017/256, isic2017/512, isic2017/full"),
        ("isic2017/256/", "unknown data set 'isic2017/256/'; choose one of isic2017/256"),
        ("", "unknown data set ''"),
    ],
)
def test_unknown_names(tmp_path, name, wanted):
    with pytest.raises(InputError) as info:
        builders.prepare(name, data_dir=tmp_path)
    assert str(info.value).startswith(wanted) and "\n" not in str(info.value)


@pytest.mark.parametrize("manual_dir", [None, "nowhere"])
def test_manual_dir_says_what_belongs_there(tmp_path, manual_dir):
    with pytest.raises(InputError) as info:
        builders.prepare("isic2017/256", data_dir=tmp_path / "data", manual_dir=manual_dir)
    assert "\n" not in str(info.value) and "manual_dir" in str(info.value)
    assert all(name in str(info.value) for pair in isic2017.FOLDERS.values() for name in pair)
    assert not (tmp_path / "data").exists()


def test_data_dir_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(InputError, match=r"^\S+: cannot write there \(\w[^\n]*choose another data folder$"):
            builders.prepare("dermoscopy/tiny", data_dir=data_dir)


def test_target_is_no_data_set(tmp_path):
    (tmp_path / "dermoscopy/tiny/2.0.0").mkdir(parents=True)
    with pytest.raises(InputError, match="exists but holds no prepared data set; choose another data folder"):
        builders.prepare("dermoscopy/tiny", data_dir=tmp_path)


def test_raw_file_vanishes_while_it_is_prepared(raw, monkeypatch):
    store = records.Builder.store

    def late(self, case):
        (raw / IMAGE).unlink(missing_ok=True)
        return store(self, case)

    monkeypatch.setattr(records.Builder, "store", late)
    wanted = r"ISIC_0000001.jpg: cannot be read as an image \(.*No such file.*\).*; it could be read a moment ago"
    with pytest.raises(InputError, match=wanted):
        prepare_isic(raw)
    assert list((raw.parent / "data").iterdir()) == []


def test_errors_of_ours_are_not_hidden(raw, monkeypatch):
    def fail(self, case):
        raise RuntimeError("a bug")

    monkeypatch.setattr(records.Builder, "store", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        prepare_isic(raw)
    assert list((raw.parent / "data").iterdir()) == []


def run_python(code: str, *arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


FULL_DISK = """
import resource, sys
from jaxseg.data import builders
from jaxseg.errors import InputError
builders.prepare("dermoscopy/tiny", data_dir=sys.argv[1] + "/before")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # writing more fails, as on a full disk
try:
    builders.prepare("dermoscopy/tiny", data_dir=sys.argv[1] + "/after")
except InputError as error:
    print(error)
print("tensorflow" in sys.modules)
"""


def test_another_process_without_tensorflow_and_with_a_full_disk(tmp_path, tiny):
    process = run_python(FULL_DISK, tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    message, tensorflow = output.splitlines()
    assert message.startswith(f"{tmp_path}/after: cannot write there (write() failed: File too large); free it")
    assert tensorflow == "False"
    assert list((tmp_path / "after").iterdir()) == []
    # the same bits in another process
    assert bits(tiny) == bits(tmp_path / "before/dermoscopy/tiny/2.0.0")


SLOW = """
import pathlib, sys, time
from jaxseg.data import builders
from jaxseg.data.builders import records
records.CASES_PER_SHARD = 2
store = records.Builder.store
def slow(self, case):
    if case.case == "ISIC_0000003":
        pathlib.Path(sys.argv[3]).touch()
        time.sleep(600)
    return store(self, case)
records.Builder.store = slow
builders.prepare("isic2017/256", data_dir=sys.argv[1], manual_dir=sys.argv[2])
"""


def test_killed_preparation_leaves_nothing_behind(raw, tmp_path):
    data_dir = tmp_path / "data"
    process = run_python(SLOW, data_dir, raw, tmp_path / "halfway")
    deadline = time.monotonic() + 60
    while not (tmp_path / "halfway").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    (work,) = data_dir.iterdir()
    assert list(work.rglob("*train.array_record*"))  # it was writing
    prepare_isic(raw, "full", data_dir)
    assert work.exists()  # its owner lives
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert work.exists() and not (data_dir / "isic2017/256").exists()
    directory = prepare_isic(raw, data_dir=data_dir)
    assert pipeline.split_sizes(directory) == COUNTS
    assert [path.name for path in data_dir.iterdir()] == ["isic2017"]


def test_two_at_once_end_with_one_data_set(raw, monkeypatch):
    store, others = records.Builder.store, []

    def overtaken(self, case):
        if not others:
            others.append(case)
            monkeypatch.setattr(records.Builder, "store", store)
            others.append(prepare_isic(raw))
        return store(self, case)

    monkeypatch.setattr(records.Builder, "store", overtaken)
    assert prepare_isic(raw) == others[1]
    assert [path.name for path in (raw.parent / "data").iterdir()] == ["isic2017"]


LIGHT = """
import sys, jaxseg.data.builders, jaxseg.data.pipeline
print([name for name in ("tensorflow_datasets", "jax", "grain") if name in sys.modules])
"""


def test_importing_the_package_stays_light():
    output, errors = run_python(LIGHT).communicate(timeout=60)
    assert output.strip() == "[]", errors


def test_a_set_that_is_prepared_otherwise_is_no_substitute(drawn_data, tiny):
    root, like = drawn_data("dermoscopy/tiny"), pipeline.Split(tiny, "train", size=None).preparation
    assert builders.prepare("dermoscopy/tiny", data_dir=root, like=like) == tiny
    with pytest.raises(InputError, match="is already prepared, but differently"):
        builders.prepare("dermoscopy/tiny", data_dir=root, like=like._replace(scaling=("window", 0.0, 99.0)))


def test_numbers_of_files_become_classes():
    labels = np.array([[0, 3], [7, 3]])
    np.testing.assert_array_equal(raw_cases.classes(labels, {0: 0, 3: 2, 7: 1}), [[0, 2], [1, 2]])
    with pytest.raises(ValueError, match=r"labels hold \[3, 7\], known are \[0, 9\]"):
        raw_cases.classes(labels, {0: 0, 9: 1})
