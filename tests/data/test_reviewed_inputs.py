"""What looked fine and was not: bombs, slips of the pen in masks, deep colour, folders around folders, signals."""

import csv
import gzip
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time
import zlib

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from jaxseg.data import builders, formats, pipeline
from jaxseg.data.builders import files
from jaxseg.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]


def write(folder: pathlib.Path, masks: list[np.ndarray]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", "image", "mask", "domain", "patient"])
        for i, mask in enumerate(masks):
            noise = np.random.default_rng(i).integers(0, 256, (*mask.shape, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"image{i}.png")
            Image.fromarray(mask).save(folder / f"mask{i}.png")
            table.writerow([f"case{i}", f"image{i}.png", f"mask{i}.png", "", f"patient{i}"])
    return folder


def masks_of(count: int, inside: int = 1) -> list[np.ndarray]:
    masks = [np.zeros((24, 20), np.uint8) for _ in range(count)]
    for i, mask in enumerate(masks):
        mask[4:12, 3 + i % 5 : 12] = inside
    return masks


@pytest.mark.parametrize("slip", [2, 47])
def test_a_number_in_one_mask_of_many_is_no_class(tmp_path, slip):
    masks = masks_of(12)
    masks[7][20, 18] = slip
    with pytest.raises(InputError) as error:
        builders.prepare("folder/x", data_dir=tmp_path / "data", manual_dir=write(tmp_path / "raw", masks))
    (line,) = str(error.value).splitlines()[1:]
    assert line == (
        f"{tmp_path}/raw/mask7.png: holds the value {slip}; the classes are 0 background, 1 class 1: set every pixel "
        "to one of them; or name it in classes.csv, if it is a class"
    )
    (tmp_path / "raw" / "classes.csv").write_text(f"value,name\n0,background\n1,cell\n{slip},nucleus\n")
    directory = builders.prepare("folder/x", data_dir=tmp_path / "data", manual_dir=tmp_path / "raw")
    assert pipeline.Split(directory, "train", size=None).class_names == ("background", "cell", "nucleus")


def test_a_number_in_two_masks_is_a_class(tmp_path):
    masks = masks_of(12)
    for i in (3, 7):
        masks[i][20, 18] = 2
    directory = builders.prepare("folder/x", data_dir=tmp_path / "data", manual_dir=write(tmp_path / "raw", masks))
    assert pipeline.Split(directory, "train", size=None).num_classes == 3


def test_empty_masks_have_no_part_in_what_the_numbers_mean(tmp_path):
    """Of 20 masks 12 are empty, 6 hold 255, and 2 a slip."""
    masks = [*(mask * 0 for mask in masks_of(12)), *masks_of(6, 255), *masks_of(2, 1)]
    with pytest.raises(InputError) as error:
        builders.prepare("folder/x", data_dir=tmp_path / "data", manual_dir=write(tmp_path / "raw", masks))
    lines = str(error.value).splitlines()[1:]
    assert [line.partition(";")[0] for line in lines] == [
        f"{tmp_path}/raw/mask{i}.png: holds the value 1" for i in (18, 19)
    ]


def test_a_gzip_bomb_behind_a_volume_is_refused_and_not_read(tmp_path):
    volume = nibabel.Nifti1Image(np.arange(600, dtype=np.int16).reshape(10, 12, 5), np.eye(4))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(volume.to_bytes()))
    np.testing.assert_array_equal(formats.read(path).array[..., 0], np.asarray(volume.dataobj).T)
    deflate = zlib.compressobj(wbits=31)
    with path.open("wb") as file:
        file.write(deflate.compress(volume.to_bytes()))
        for _ in range(64):
            file.write(deflate.compress(bytes(2**20)))
        file.write(deflate.flush())
    with pytest.raises(formats.Unusable, match="holds more after its image than a NIfTI file has"):
        formats.read(path)


def test_deep_colour_keeps_its_sixteen_bits(tmp_path):
    image = np.random.default_rng(0).integers(1000, 1201, (9, 7, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1])
    found = formats.read(tmp_path / "deep.png").array
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, image)


def test_channels_behind_a_tiff_are_no_pages(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 5), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array, image)
    stack = np.random.default_rng(0).integers(0, 256, (6, 48, 64), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", stack)
    np.testing.assert_array_equal(formats.read(tmp_path / "b.tif").array, stack[..., None])


@pytest.mark.parametrize("around", ["", "a", "ACDC/database", "a/b/c"])
def test_folders_around_a_folder(tmp_path, around):
    (tmp_path / around / "training").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "training").mkdir(parents=True)
    assert files.descend(tmp_path, "training") == tmp_path / around
    assert files.descend(tmp_path, "testing") == tmp_path


# two preparations that take long, forked off a process that has imported; they end with it
SLOW = """
import ctypes, os, pathlib, signal, sys, time
from jaxseg.data import doctor
from jaxseg.data.builders import records
from launch import cli, prepare
doctor._OVERLAY_CASES = 0
def slow(self, case):
    (folder / "halfway").touch()
    time.sleep(600)
records.Builder.store = slow
children = []
for folder in map(pathlib.Path, sys.argv[1:]):
    children.append(os.fork())
    if not children[-1]:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv[1:] = ["--dataset=dermoscopy/tiny", f"--data_dir={folder / 'data'}"]
        sys.exit(cli.run(prepare.main, cleans_up=True))
print(*children, flush=True)
for child in children:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_asked_to_stop_it_leaves_nothing_behind(tmp_path):
    signals = {signal.SIGINT: tmp_path / "interrupted", signal.SIGTERM: tmp_path / "terminated"}
    for folder in signals.values():
        folder.mkdir()
    command = [sys.executable, "-c", SLOW, *signals.values()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            children = [int(child) for child in process.stdout.readline().split()]
            for (number, folder), child in zip(signals.items(), children, strict=True):
                deadline = time.monotonic() + 60
                while not (folder / "halfway").exists() and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert process.poll() is None and os.listdir(folder / "data")
                os.kill(child, number)
            statuses, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    for (number, folder), status in zip(signals.items(), statuses.split(), strict=True):
        assert int(status) == 128 + number
        errors = (folder / "errors").read_text()
        assert errors.splitlines()[-1] == "stopped; nothing is left behind" and "Traceback" not in errors
        assert os.listdir(folder / "data") == []


def test_a_palette_of_colours_is_colours_in_an_image_and_classes_in_a_mask(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 3), dtype=np.uint8)
    numbers = np.random.default_rng(1).integers(0, 20, (9, 12), dtype=np.uint8)
    image = Image.fromarray(numbers, "P")
    image.putpalette(colours.tobytes())
    for name, options in (("plain.png", {}), ("clear.png", {"transparency": 3}), ("old.bmp", {})):
        image.save(tmp_path / name, **options)
        np.testing.assert_array_equal(formats.read(tmp_path / name).array, colours[numbers])
        assert formats.colour_channels(tmp_path / name) == 3
        np.testing.assert_array_equal(formats.read_mask(tmp_path / name).array[..., 0], numbers)
    image.putpalette(np.repeat(colours[:, :1], 3, 1).tobytes())
    image.save(tmp_path / "gray.png")
    np.testing.assert_array_equal(formats.read(tmp_path / "gray.png").array[..., 0], colours[numbers, 0])
    assert formats.colour_channels(tmp_path / "gray.png") == 1


@pytest.mark.parametrize("number", range(1, 9))
def test_a_picture_is_turned_as_a_viewer_turns_it(tmp_path, number):
    seen = np.zeros((16, 24, 3), np.uint8)
    seen[:8, :8], seen[8:, 16:] = (250, 0, 0), (0, 250, 0)  # no two of the eight look alike
    turned = {1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.swapaxes(0, 1),
              6: np.rot90(seen), 7: seen[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(seen, -1)}[number]  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / name, exif=exif, quality=95, subsampling=0)
        found = formats.read(tmp_path / name)
        assert found.size == (16, 24)
        assert np.abs(found.array.astype(int) - seen).mean() < 8
        assert (formats.unchanged_bytes(tmp_path / name) is None) == (number > 1)
    assert formats.read(tmp_path / "a.jpg", at_least=8).size == (16, 24)


def test_gray_with_opacity_keeps_its_sixteen_bits(tmp_path):
    gray = np.random.default_rng(0).integers(0, 1 << 16, (9, 12), dtype=np.uint16)
    samples = np.stack([gray, np.full_like(gray, 65535)], -1).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in samples)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 12, 9, 16, 4, 0, 0, 0)), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    np.testing.assert_array_equal(formats.read(tmp_path / "a.png").array[..., 0], gray)
    assert formats.read(tmp_path / "a.png").array.shape == (9, 12, 1)


def test_the_opacity_of_a_tiff_is_no_channel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array, image[..., :3])
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="rgb", extrasamples=["unspecified"])
    assert formats.read(tmp_path / "b.tif").array.shape == (9, 12, 4)
