"""Spoilt inputs: each ends as one line with the file's name and the remedy, and nothing is left behind.

What can be wrong with ISIC 2017 is in `test_builders.py`; this is what can be wrong with tables, with each format, with
masks, splits, classes, archives and places.
"""

import csv
import functools
import gzip
import io
import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest
import tifffile
from PIL import Image
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from jaxseg.data import builders
from jaxseg.data.builders import archives
from jaxseg.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
COLUMNS = ("case", "image", "mask", "domain", "patient")
CASES = range(4)
SIZE = (12, 16)  # rows, columns
DEPTH = 5

Make = Callable[[pathlib.Path], object]


# Data sets that are fine.


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)


def mask(number: int, inside: int = 255) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[3:9, 2 + number : 9 + number] = inside
    return labels


def volume(number: int) -> np.ndarray:
    """`[D,H,W]`"""
    return np.random.default_rng(number).integers(-50, 900, (DEPTH, *SIZE), np.int16)


def volume_mask(number: int) -> np.ndarray:
    return np.repeat(mask(number, 1)[None], DEPTH, 0)


def save_nifti(path: pathlib.Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    """`[D,H,W]`, in the order of our arrays."""
    nibabel.save(
        nibabel.Nifti1Image(array.transpose(), np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine), path
    )


def save_nifti_as_it_is(path: pathlib.Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def dicom(array: np.ndarray, z: float = 0.0, series: str = "1.2.3") -> pydicom.Dataset:
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(z)])
    file.SeriesInstanceUID = UID(series)
    file.Rows, file.Columns = array.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 1
    file.PixelSpacing = [0.5, 0.5]
    file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    file.PixelData = array.astype("<i2").tobytes()
    return file


def save_dicom(path: pathlib.Path, file: pydicom.Dataset) -> None:
    file.save_as(path, enforce_file_format=True)


SAVE: dict[str, Callable[[pathlib.Path, int], object]] = {
    "png": lambda path, number: Image.fromarray(picture(number)).save(path),
    "jpg": lambda path, number: Image.fromarray(picture(number)).save(path, quality=95),
    "bmp": lambda path, number: Image.fromarray(picture(number)).save(path),
    "tif": lambda path, number: tifffile.imwrite(path, picture(number)),
    "deflated.tif": lambda path, number: tifffile.imwrite(path, picture(number), compression="zlib"),
    "dcm": lambda path, number: save_dicom(path, dicom(volume(number)[0])),
    "nii": lambda path, number: save_nifti(path, volume(number)),
    "nii.gz": lambda path, number: save_nifti(path, volume(number)),
}


def write_table(folder: pathlib.Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS) -> None:
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@functools.cache
def of_format(ending: str) -> Make:
    """A folder whose images are of one format: `image0` and so on; the masks are PNG, of volumes NIfTI."""

    def make(folder: pathlib.Path) -> None:
        masks = "nii.gz" if ending.startswith("nii") else "png"
        for i in CASES:
            SAVE[ending](folder / f"image{i}.{ending}", i)
            if masks == "png":
                Image.fromarray(mask(i)).save(folder / f"mask{i}.png")
            else:
                save_nifti(folder / f"mask{i}.nii.gz", volume_mask(i))
        write_table(folder, [(f"case{i}", f"image{i}.{ending}", f"mask{i}.{masks}", "", "") for i in CASES])

    return make


pictures, volumes = of_format("png"), of_format("nii.gz")


def series(folder: pathlib.Path) -> None:
    """Folders of DICOM slices."""
    for i in CASES:
        (folder / f"series{i}").mkdir()
        for z, plane in enumerate(volume(i)):
            save_dicom(folder / f"series{i}" / f"{z}.dcm", dicom(plane, 2.0 * z, f"1.2.{i + 1}"))
        # DICOM runs to the left and to the back
        save_nifti(folder / f"mask{i}.nii.gz", volume_mask(i), np.diag([-0.5, -0.5, 2.0, 1.0]))
    write_table(folder, [(f"case{i}", f"series{i}", f"mask{i}.nii.gz", "", "") for i in CASES])


def with_splits(folder: pathlib.Path) -> None:
    pictures(folder)
    splits = ("train", "train", "validation", "test")
    rows = [(f"case{i}", f"image{i}.png", f"mask{i}.png", "", f"patient{i}", splits[i]) for i in CASES]
    write_table(folder, rows, (*COLUMNS, "split"))


def modalities(folder: pathlib.Path) -> None:
    pictures(folder)
    for i in CASES:
        Image.fromarray(picture(i)[..., 0]).save(folder / f"t1_{i}.png")
        Image.fromarray(picture(i)[..., 1]).save(folder / f"t2_{i}.png")
    write_table(folder, [(f"case{i}", f"t1_{i}.png;t2_{i}.png", f"mask{i}.png", "", "") for i in CASES])


def with_classes(folder: pathlib.Path) -> None:
    pictures(folder)
    for i in CASES:
        Image.fromarray(mask(i, 2)).save(folder / f"mask{i}.png")
    (folder / "classes.csv").write_text("value,name\n0,background\n1,nucleus\n2,cytoplasm\n")


def acdc(folder: pathlib.Path) -> None:
    for i in CASES:
        patient = folder / "training" / f"patient{i:03d}"
        patient.mkdir(parents=True)
        save_nifti(patient / f"patient{i:03d}_frame01.nii.gz", volume(i))
        save_nifti(patient / f"patient{i:03d}_frame01_gt.nii.gz", volume_mask(i))


def nothing(folder: pathlib.Path) -> None:
    del folder


# What is done to them.


class Spoilt(NamedTuple):
    """`wanted`: the file that each line starts with, and parts of the line, in this order."""

    make: Make
    damage: Make
    wanted: Sequence[tuple[str, ...]]
    name: str = "folder/mine"


def one(make: Make, damage: Make, *wanted: str, name: str = "folder/mine") -> Spoilt:
    return Spoilt(make, damage, [wanted], name)


def table(text: str | bytes) -> Make:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "cases.csv").write_bytes(content)


def entry(column: str, value: str, line: int = 2) -> Make:
    """Another value in a line of the table."""

    def damage(folder: pathlib.Path) -> None:
        with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        rows[line - 1][rows[0].index(column)] = value
        write_table(folder, rows[1:], rows[0])

    return damage


def content(name: str, data: bytes) -> Make:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, share: float) -> Make:
    def damage(folder: pathlib.Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return damage


def both(*damages: Make) -> Make:
    return lambda folder: [damage(folder) for damage in damages]


def png(name: str, array: np.ndarray) -> Make:
    return lambda folder: Image.fromarray(array).save(folder / name)


def nifti(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Make:
    return lambda folder: save_nifti(folder / name, array, affine)


def classes(text: str) -> Make:
    return lambda folder: (folder / "classes.csv").write_text(text, encoding="utf-8")


HEADER = ",".join(COLUMNS) + "\n"

TABLES = {
    "no table": one(
        pictures, lambda folder: (folder / "cases.csv").unlink(), "cases.csv", "no such file", "write a table"
    ),
    "an empty table": one(pictures, table(""), "cases.csv", "lacks the columns case, image, mask", "must be"),
    "a table without cases": one(pictures, table(HEADER), "cases.csv", "has no line below the first", "name a case"),
    "no header": one(
        pictures, table("case0,image0.png,mask0.png,,\n"), "cases.csv", "lacks the columns case", "must be"
    ),
    "a missing column": one(
        pictures, table("case,image,patient\n"), "cases.csv", "lacks the column mask", "must be case,image"
    ),
    "bars": one(pictures, table(HEADER.replace(",", "|")), "cases.csv", "lacks the columns", "separated by commas"),
    "a column twice": one(
        pictures, table("case,image,mask,domain,patient,mask\n"), "cases.csv", "has the column mask twice", "rename one"
    ),
    "a field too many": one(
        pictures,
        table(HEADER + 3 * "\n" + "case9,image0.png,mask0.png,,,,\n"),
        "cases.csv",
        "line 5 has 7 fields, the first line 5",
        "fix it",
    ),
    "an open quote": one(
        pictures,
        table(HEADER + 'case0,"image0.png,mask0.png,,\ncase1,image1.png,mask1.png,,\n'),
        "cases.csv",
        "line 2 opens a quote that is not closed in it",
        "close or remove it",
    ),
    "a line break in a name": one(
        pictures, entry("case", "a\nb", 3), "cases.csv", "line 3 has a line break, or the like, in case", "remove it"
    ),
    "line breaks before a mistake": Spoilt(
        pictures,
        both(entry("domain", "a\n\nb"), entry("image", "lost.png", 3)),
        [("cases.csv", "line 2 has a line break", "in domain"), ("lost.png", "is not there", "in line 5", "add it")],
    ),
    "an endless field": one(
        pictures,
        table(HEADER + "case0," + "x" * 200_000 + ",mask0.png,,\n"),
        "cases.csv",
        "field larger than",
        "save it as CSV",
    ),
    "Latin 1": one(
        pictures, table(HEADER.encode() + "Müller".encode("latin1")), "cases.csv", "not UTF-8 text", "save it"
    ),
    "UTF-16 of Excel": one(pictures, table(HEADER.encode("utf-16")), "cases.csv", "not UTF-8 text", "save it"),
    "UTF-16 without its mark": one(
        pictures, table(HEADER.encode("utf-16-le")), "cases.csv", "not UTF-8 text", "save it"
    ),
    "NUL bytes": one(
        pictures, table(HEADER + "case0,image0.png\0,mask0.png,,\n"), "cases.csv", "not UTF-8 text", "save it"
    ),
    "a spreadsheet called CSV": one(
        pictures, table(b"PK\x03\x04\x14\0\xff\xfe"), "cases.csv", "not UTF-8 text", "save"
    ),
    "no case name": one(
        pictures, entry("case", ""), "cases.csv", "line 2 has no case", "fill it in or remove the line"
    ),
    "no image and no mask": one(
        pictures,
        both(entry("image", " "), entry("mask", "")),
        "cases.csv",
        "line 2 has no image and no mask",
        "fill it in",
    ),
    "a case name twice": one(
        pictures, entry("case", "case0", 3), "image1.png", "the same case", "image0.png (case0)", "a name of its own"
    ),
    "a file that is not there": one(
        pictures, entry("image", "lost.png"), "lost.png", "is not there, cases.csv names it in line 2", "add it"
    ),
    "a mask that is not there": one(
        pictures, lambda folder: (folder / "mask2.png").unlink(), "mask2.png", "is not there", "line 4", "add it"
    ),
    "a name that no disk takes": one(
        pictures, entry("image", 300 * "x" + ".png"), 300 * "x" + ".png", "is not there", "line 2", "add it"
    ),
    "a separator at the end": one(
        pictures, entry("image", "image0.png;"), "cases.csv", "line 2 has an empty name among its images", "remove"
    ),
    "an unknown format": one(
        pictures,
        both(content("image0.gif", b"GIF89a"), entry("image", "image0.gif")),
        "image0.gif",
        "is of no known format",
        "use one of .bmp, .dcm",
    ),
    "a pipe": one(
        pictures,
        both(lambda folder: os.mkfifo(folder / "pipe.png"), entry("image", "pipe.png")),
        "pipe.png",
        "is neither a file nor a folder",
        "line 2",
        "name a file",
    ),
    "a folder without DICOM": one(
        pictures,
        both(lambda folder: (folder / "empty").mkdir(), entry("image", "empty")),
        "empty",
        "is a folder without DICOM files",
        "name a file",
    ),
}

SPLITS = {
    "an unknown split": one(
        with_splits,
        entry("split", "holdout"),
        "cases.csv",
        "line 2 has the split 'holdout'",
        "use one of train, valid",
    ),
    "a split for some": one(
        with_splits,
        entry("split", ""),
        "cases.csv",
        "some lines have a split and some have none",
        "fill in all, or none",
    ),
    "two patients": one(
        pictures,
        both(*(entry("patient", f"p{i % 2}", i + 2) for i in CASES)),
        "",
        "there are 2 patients",
        "give at least 3",
    ),
    "one patient in two splits": Spoilt(
        with_splits,
        entry("patient", "patient0", 5),
        [("image3.png", "shows patient0, who is in train too (", "image0.png", "keep a patient")],
    ),
    "an image in two splits": one(
        with_splits,
        lambda folder: shutil.copy(folder / "image0.png", folder / "image3.png"),
        "image3.png",
        "the same pixels as",
        "image0.png",
        "another mask",
        "one is in test, one in train",
        "leave one of them out",
    ),
    "one patient to train and validate on": one(
        with_splits,
        both(entry("split", "train", 4), *(entry("patient", "patient0", line) for line in (3, 4))),
        "",
        "there is 1 patient,",
        "name the split of each case",
    ),
}


def damaged_formats() -> dict[str, Spoilt]:
    """Every format: an empty file, a web page in its place, and the beginning of a file, of several lengths."""
    found = {}
    for ending in SAVE:
        image = f"image1.{ending}"
        for kind, damage in {
            "empty": content(image, b""),
            "a web page": content(image, b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>" * 20),
            **{f"{share:.0%} of it": cut(image, share) for share in (0.02, 0.3, 0.6, 0.95)},
        }.items():
            found[f"{ending}: {kind}"] = one(of_format(ending), damage, image, "fetch it again")
    return found


def flipped(name: str) -> Make:
    def damage(folder: pathlib.Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 255
        (folder / name).write_bytes(bytes(data))

    return damage


def image_of(ending: str, damage: Callable[[pathlib.Path], object]) -> Make:
    return lambda folder: damage(folder / f"image1.{ending}")


def nan_tiff(path: pathlib.Path) -> None:
    array = picture(1).astype(np.float32)
    array[0, 0, 0] = np.nan
    tifffile.imwrite(path, array, photometric="rgb")


def infinite_nifti(path: pathlib.Path) -> None:
    array = volume(1).astype(np.float32)
    array[0, 0, 0] = np.inf
    save_nifti(path, array)


def huge_header(path: pathlib.Path) -> None:
    """A PNG that claims 30000 x 30000 pixels."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 30000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(bytes(data))


IMAGES = {
    "png: a byte changed": one(pictures, flipped("image1.png"), "image1.png", "cannot be read as an image", "fetch it"),
    "nii.gz: a byte changed": one(
        volumes, flipped("image1.nii.gz"), "image1.nii.gz", "cannot be read", "fetch it again"
    ),
    "deflated.tif: a byte changed": one(
        of_format("deflated.tif"), flipped("image1.deflated.tif"), "image1.deflated.tif", "cannot be read", "fetch it"
    ),
    "jpg: PNG data": one(
        of_format("jpg"),
        image_of("jpg", lambda path: Image.fromarray(picture(1)).save(path, "PNG")),
        "image1.jpg",
        "holds PNG data",
        "convert it to JPEG",
    ),
    "png: WebP data": one(
        pictures,
        image_of("png", lambda path: Image.fromarray(picture(1)).save(path, "WEBP")),
        "image1.png",
        "holds WEBP data",
        "convert it to PNG",
    ),
    "png: a picture as large as a house": one(
        pictures, image_of("png", huge_header), "image1.png", "900000000 pixels", "split it into parts"
    ),
    "tif: PNG data": one(
        of_format("tif"),
        image_of("tif", lambda path: Image.fromarray(picture(1)).save(path, "PNG")),
        "image1.tif",
        "cannot be read as an image (not a TIFF file",
        "fetch it again",
    ),
    "tif: a stack where others are pictures": one(
        of_format("tif"),
        image_of("tif", lambda path: tifffile.imwrite(path, np.zeros((2, 3, *SIZE), np.uint8), imagej=True)),
        "mask1.png",
        "is 16x12, its image is 16x12x2",
        "use the mask",
    ),
    "tif: time and depth": one(
        of_format("tif"),
        image_of(
            "tif",
            lambda path: tifffile.imwrite(
                path, np.zeros((2, 3, *SIZE), np.uint8), imagej=True, metadata={"axes": "TZYX"}
            ),
        ),
        "image1.tif",
        "has the axes TZYX (2, 3, 12, 16)",
        "save one picture or one stack",
    ),
    "tif: two channels, the others three": one(
        of_format("tif"),
        image_of("tif", lambda path: tifffile.imwrite(path, picture(1)[..., :2], metadata={"axes": "YXS"})),
        "image1.tif",
        "has 2 channels, the data set has 3",
        "convert it or leave it out",
    ),
    "tif: not a number": one(
        of_format("tif"), image_of("tif", nan_tiff), "image1.tif", "values that are not finite", "rep"
    ),
    "tif: complex numbers": one(
        of_format("tif"),
        image_of("tif", lambda path: tifffile.imwrite(path, np.ones(SIZE, np.complex64))),
        "image1.tif",
        "holds complex64 numbers",
        "save real ones",
    ),
    "nii: infinite": one(of_format("nii"), image_of("nii", infinite_nifti), "image1.nii", "not finite", "replace them"),
    "nii: beyond what is computed with": one(
        of_format("nii"),
        image_of("nii", lambda path: save_nifti(path, np.full((DEPTH, *SIZE), 1e300))),
        "image1.nii",
        "not finite",
        "replace them",
    ),
    "nii: five axes": one(
        of_format("nii"),
        image_of("nii", lambda path: save_nifti_as_it_is(path, np.zeros((16, 12, 5, 1, 3), np.int16))),
        "image1.nii",
        "has 5 axes (16, 12, 5, 1, 3)",
        "two to four",
    ),
    "nii: nothing in it": one(
        of_format("nii"),
        image_of("nii", lambda path: save_nifti_as_it_is(path, np.zeros((16, 12, 0), np.int16))),
        "image1.nii",
        "has no pixels",
        "fetch it again",
    ),
    "nii: colours in one number": one(
        of_format("nii"),
        image_of(
            "nii",
            lambda path: save_nifti_as_it_is(path, np.zeros((16, 12, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        ),
        "image1.nii",
        "holds RGB numbers",
        "save real ones",
    ),
    "nii: a picture among volumes": Spoilt(
        volumes,
        both(nifti("image1.nii.gz", volume(1)[0]), nifti("mask1.nii.gz", mask(1, 1))),
        [("image1.nii.gz", "holds a picture, the others hold volumes", "prepare them as two data sets")],
    ),
    "nii: frames where others have one": one(
        volumes,
        lambda folder: save_nifti_as_it_is(folder / "image1.nii.gz", np.zeros((16, 12, 5, 2), np.int16)),
        "image1.nii.gz",
        "has 2 channels, the data set has 1",
        "convert it",
    ),
    "nii.gz: not compressed": one(
        volumes,
        lambda folder: (folder / "image1.nii.gz").write_bytes(gzip.decompress((folder / "image1.nii.gz").read_bytes())),
        "image1.nii.gz",
        "is not compressed",
        "call it .nii",
    ),
    "nii: compressed": one(
        of_format("nii"),
        lambda folder: (folder / "image1.nii").write_bytes(gzip.compress((folder / "image1.nii").read_bytes())),
        "image1.nii",
        "is compressed",
        "call it .nii.gz",
    ),
    "modalities of two sizes": one(
        modalities, png("t2_1.png", picture(1)[1:, :, 0]), "t2_1.png", "is 16x11, t1_1.png is 16x12", "registered"
    ),
    "a modality too few": one(
        modalities, entry("image", "t1_1.png", 3), "t1_1.png", "has 1 channel, the data set has 2", "leave it out"
    ),
}


def change_dicom(**values: Any) -> Make:
    def damage(folder: pathlib.Path) -> None:
        file = dicom(volume(1)[0])
        for name, value in values.items():
            if value is None:
                delattr(file, name)
            else:
                setattr(file, name, value)
        save_dicom(folder / "image1.dcm", file)

    return damage


def transfer_syntax(uid: str) -> Make:
    def damage(folder: pathlib.Path) -> None:
        file = dicom(volume(1)[0])
        file.PixelData = pydicom.encaps.encapsulate([b"\1" * 40])
        file["PixelData"].is_undefined_length = True
        file.file_meta.TransferSyntaxUID = UID(uid)
        file.preamble = bytes(128)
        file.save_as(folder / "image1.dcm", implicit_vr=False, little_endian=True)

    return damage


def slice_of(number: int, z: float, name: str, array: np.ndarray | None = None, uid: str = "1.2.2") -> Make:
    array = volume(number)[0] if array is None else array
    return lambda folder: save_dicom(folder / f"series{number}" / name, dicom(array, z, uid))


DICOM = {
    "dcm: no pixels": one(
        of_format("dcm"),
        change_dicom(PixelData=None),
        "image1.dcm",
        "is a DICOM file without pixels; fetch it again",
        "leave it out",
    ),
    "dcm: fewer pixels than it says": one(
        of_format("dcm"), change_dicom(Rows=100), "image1.dcm", "cannot be read as an image", "fetch it again"
    ),
    "dcm: no size": one(
        of_format("dcm"), change_dicom(Rows=None), "image1.dcm", "cannot be read as an image", "fetch it"
    ),
    "dcm: JPEG 2000 that is none": one(
        of_format("dcm"),
        transfer_syntax("1.2.840.10008.1.2.4.90"),
        "image1.dcm",
        "is compressed as JPEG 2000 Image Compression (Lossless Only)",
        "decompress it",
    ),
    "dcm: a video": one(
        of_format("dcm"),
        transfer_syntax("1.2.840.10008.1.2.4.102"),
        "image1.dcm",
        "is compressed as MPEG-4",
        "decompress",
    ),
    "dcm: an unknown compression": one(
        of_format("dcm"),
        transfer_syntax("1.3.6.1.4.1.5962.300.1"),
        "image1.dcm",
        "is compressed as 1.3.6.1.4.1.5962.300.1",
        "decompress it",
    ),
    "series: two of them": one(
        series, slice_of(1, 10.0, "5.dcm", uid="1.2.77"), "series1", "holds 2 DICOM series", "a folder of its own"
    ),
    "series: a slice is missing": one(
        series,
        lambda folder: (folder / "series1/2.dcm").unlink(),
        "series1",
        "lacks DICOM slices: they lie 2 to 4 mm",
        "fetch",
    ),
    "series: a slice is there twice": one(
        series,
        lambda folder: shutil.copy(folder / "series1/2.dcm", folder / "series1/copy.dcm"),
        "series1",
        "slices of the same place, such as 2.dcm and copy.dcm",
        "leave one of them out",
    ),
    "series: a smaller slice": one(
        series,
        slice_of(1, 10.0, "5.dcm", volume(1)[0, 1:]),
        "series1",
        "DICOM slices of the sizes 16x11, 16x12",
        "leave out",
    ),
    "series: a damaged slice": one(
        series, cut("series1/3.dcm", 0.7), "series1", "cannot be read as a series: 3.dcm", "fetch it again"
    ),
    "series: a slice that is a web page": one(
        series,
        content("series1/3.dcm", b"<html>404</html>"),
        "series1",
        "cannot be read as a series: 3.dcm",
        "fetch it again",
    ),
    "series: a report in it": one(
        series,
        lambda folder: save_dicom(folder / "series1/report.dcm", without_pixels()),
        "series1",
        "holds report.dcm, which is a DICOM file without pixels",
        "leave it out",
    ),
    "series: a slice too few for the mask": one(
        series,
        lambda folder: (folder / "series1/4.dcm").unlink(),
        "mask1.nii.gz",
        "is 16x12x5 of",
        "its image is 16x12x4 of",
        "use the mask",
    ),
}


def without_pixels() -> pydicom.Dataset:
    file = dicom(volume(1)[0], 10.0, "1.2.2")
    del file.PixelData
    return file


MASKS = {
    "soft": one(
        pictures,
        png("mask1.png", np.tile(np.arange(16, dtype=np.uint8) * 17, (12, 1))),
        "mask1.png",
        "holds the values 17, 34, 51 and 11 more",
        "threshold it at 128",
    ),
    "0 and 1 where others have 255": one(
        pictures, png("mask1.png", mask(1, 1)), "mask1.png", "holds the value 1; a mask is 0", "set every pixel"
    ),
    "JPEG": one(
        pictures,
        both(
            lambda folder: Image.fromarray(mask(1)).save(folder / "mask1.jpg", quality=30),
            entry("mask", "mask1.jpg", 3),
        ),
        "mask1.jpg",
        "holds the values 1, ",
        "more; a mask is 0 outside",
        "threshold it at 128",
    ),
    "coloured": one(
        pictures, png("mask1.png", np.dstack([mask(1), mask(1), mask(0)])), "mask1.png", "is coloured", "8-bit grey"
    ),
    "transparent": one(
        pictures,
        png("mask1.png", np.dstack([*[mask(0)] * 3, mask(1)])),
        "mask1.png",
        "partly transparent",
        "8-bit grey",
    ),
    "a palette of colours with other numbers": one(
        pictures,
        lambda folder: palette(folder / "mask1.png"),
        "mask1.png",
        "holds the value 7; a mask is 0",
        "set every",
    ),
    "another size": one(
        pictures, png("mask1.png", mask(1)[1:]), "mask1.png", "is 16x11, its image is 16x12", "use the mask"
    ),
    "turned": one(
        pictures, png("mask1.png", mask(1).T.copy()), "mask1.png", "is 12x16, its image is 16x12", "use the mask"
    ),
    "of a volume, for a picture": one(
        pictures,
        both(nifti("mask1.nii", volume_mask(1)), entry("mask", "mask1.nii", 3)),
        "mask1.nii",
        "is 16x12x5, its image is 16x12",
        "use the mask",
    ),
    "of a picture, for a volume": one(
        volumes,
        both(png("mask1.png", mask(1, 1)), entry("mask", "mask1.png", 3)),
        "mask1.png",
        "is 16x12, its image is 16x12x5",
        "use the mask",
    ),
    "fractions": one(
        volumes,
        nifti("mask1.nii.gz", volume_mask(1) * np.float32(0.5)),
        "mask1.nii.gz",
        "holds the value 0.5",
        "nearest",
    ),
    "not a number": one(
        volumes,
        nifti("mask1.nii.gz", np.where(volume_mask(1), np.nan, 0).astype(np.float32)),
        "mask1.nii.gz",
        "not finite",
        "replace them",
    ),
    "infinite": one(
        volumes,
        nifti("mask1.nii.gz", np.where(volume_mask(1), np.inf, 0).astype(np.float32)),
        "mask1.nii.gz",
        "not finite",
        "replace them",
    ),
    "beyond all integers": one(
        volumes, nifti("mask1.nii.gz", volume_mask(1) * 1e20), "mask1.nii.gz", "holds the value 1e+20", "whole numbers"
    ),
    "negative": one(
        volumes,
        nifti("mask1.nii.gz", volume_mask(1).astype(np.int16) * -1),
        "mask1.nii.gz",
        "holds the value -1; the classes are 0 background, 1 class 1",
        "set every pixel",
    ),
    "above the classes": one(
        volumes,
        nifti("mask1.nii.gz", volume_mask(1) * np.uint8(200)),
        "mask1.nii.gz",
        "holds the value 200",
        "set every",
    ),
    "an image in its place": one(
        volumes, entry("mask", "image1.nii.gz", 3), "image1.nii.gz", "and ", "more; the classes are", "resample"
    ),
    "mirrored": one(
        volumes,
        nifti("mask1.nii.gz", volume_mask(1), np.diag([-1.0, 1.0, 2.0, 1.0])),
        "mask1.nii.gz",
        "mm to LAS",
        "its image is",
        "mm to RAS",
    ),
    "a class of no name": one(
        with_classes,
        png("mask1.png", mask(1, 3)),
        "mask1.png",
        "holds the value 3; the classes are 0 background, 1 nucleus, 2 cytoplasm",
        "set every pixel",
    ),
    "the same file twice for an image and its mask": one(
        pictures, entry("mask", "image1.png", 3), "image1.png", "is coloured", "8-bit grey"
    ),
}


def palette(path: pathlib.Path) -> None:
    image = Image.fromarray(np.where(mask(1) > 0, 7, 0).astype(np.uint8), "P")
    image.putpalette([k for i in range(256) for k in (i, 255 - i, 0)])
    image.save(path)


CLASSES = {
    "no number": one(
        with_classes, classes("value,name\n0,a\none,b\n"), "classes.csv", "line 3 is not a class", "a whole number"
    ),
    "half a number": one(
        with_classes, classes("value,name\n0,a\n1.5,b\n"), "classes.csv", "line 3 is not a class", "a whole"
    ),
    "a number below 0": one(
        with_classes, classes("value,name\n0,a\n-1,b\n"), "classes.csv", "line 3 is not a class", "a whole"
    ),
    "a number twice": one(
        with_classes, classes("value,name\n0,a\n0,b\n2,c\n"), "classes.csv", "line 3 is not a class", "own"
    ),
    "a number like ²": one(
        with_classes, classes("value,name\n0,a\n²,b\n"), "classes.csv", "line 3 is not a class", "a whole"
    ),
    "a number without end": one(
        with_classes,
        classes(f"value,name\n0,a\n{'9' * 5000},b\n"),
        "classes.csv",
        "line 3 is not a class",
        "a whole number",
    ),
    "no name": one(
        with_classes, classes("value,name\n0,a\n1,\n"), "classes.csv", "line 3 is not a class", "and a name"
    ),
    "one class": one(with_classes, classes("value,name\n0,a\n"), "classes.csv", "names one class", "at least one more"),
    "no columns": one(
        with_classes, classes("0,a\n1,b\n"), "classes.csv", "lacks the columns value, name", "first line must be"
    ),
}


# Archives: one that is bad beside the pictures stops everything.


def zipped(name: str, data: bytes = b"x", *, mode: int = 0o644, kind: int = stat.S_IFREG) -> Make:
    """An archive with one member of this name, which Python's own `ZipFile.write` would not give it."""

    def pack(folder: pathlib.Path) -> None:
        member = zipfile.ZipInfo(name)
        member.external_attr, member.compress_type = (kind | mode) << 16, zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(folder / "more.zip", "w") as archive:
            archive.writestr(member, data)

    return pack


def tarred(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", file: str = "more.tar") -> Make:
    def pack(folder: pathlib.Path) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = 5 if kind == tarfile.REGTYPE else 0
        with tarfile.open(folder / file, "w:gz" if file.endswith("gz") else "w") as archive:
            archive.addfile(member, io.BytesIO(b"12345"))

    return pack


def archive_of(file: str, *, size: int = 20_000) -> Make:
    """A good archive of one file that does not shrink, and one behind it."""

    def pack(folder: pathlib.Path) -> None:
        noise = np.random.default_rng(0).bytes(size)
        if file.endswith(".zip"):
            with zipfile.ZipFile(folder / file, "w") as archive:
                archive.writestr("more/a.bin", noise)
                archive.writestr("more/b.bin", noise)
            return
        with tarfile.open(folder / file, "w" if file.endswith(".tar") else "w:gz") as archive:
            for name in ("more/a.bin", "more/b.bin"):
                member = tarfile.TarInfo(name)
                member.size = size
                archive.addfile(member, io.BytesIO(noise))

    return pack


def changed_bytes(file: str, old: bytes, new: bytes) -> Make:
    def damage(folder: pathlib.Path) -> None:
        data = (folder / file).read_bytes()
        assert old in data
        (folder / file).write_bytes(data.replace(old, new))

    return damage


def cut_at(file: str, length: int) -> Make:
    return lambda folder: os.truncate(folder / file, length)


def encrypted(folder: pathlib.Path) -> None:
    """Its only member is marked as encrypted, in the member's own header and in the directory."""
    zipped("a.png")(folder)
    data = bytearray((folder / "more.zip").read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    (folder / "more.zip").write_bytes(data)


def deflate64(folder: pathlib.Path) -> None:
    """What Windows makes of large files, and Python does not read."""
    zipped("a.png")(folder)
    data = bytearray((folder / "more.zip").read_bytes())
    for signature, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        data[data.index(signature) + method] = 9
    (folder / "more.zip").write_bytes(data)


def lying_bomb(folder: pathlib.Path) -> None:
    zipped("bomb.bin", bytes(4_000_000))(folder)
    changed_bytes("more.zip", struct.pack("<I", 4_000_000), struct.pack("<I", 10))(folder)


def file_that_is_a_folder(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("more", b"x")
        archive.writestr("more/a.png", b"x")


def bomb_behind_its_end(folder: pathlib.Path) -> None:
    """A tar.gz whose only file is small, and zeros without end behind what tar reads."""
    tarred("a.png", file="more.tar.gz")(folder)
    data = gzip.decompress((folder / "more.tar.gz").read_bytes()) + bytes(4_000_000)
    (folder / "more.tar.gz").write_bytes(gzip.compress(data))


OUTSIDE = ("would write outside of its folder", "do not use it")
LINK = ("which could lead anywhere", "do not use it")
ARCHIVES = {
    "zip: ../": one(pictures, zipped("../a.png"), "more.zip", *OUTSIDE),
    "zip: a/../../b": one(pictures, zipped("a/../../b.png"), "more.zip", *OUTSIDE),
    "zip: an absolute name": one(pictures, zipped("/tmp/a.png"), "more.zip", *OUTSIDE),
    "zip: ..\\": one(pictures, zipped("..\\a.png"), "more.zip", *OUTSIDE),
    "zip: a drive": one(pictures, zipped("C:\\a.png"), "more.zip", *OUTSIDE),
    "zip: a link": one(pictures, zipped("a", b"/etc", kind=stat.S_IFLNK), "more.zip", "holds a link (a)", *LINK),
    "zip: a name that no disk takes": one(
        pictures, zipped("x" * 300), "more.zip", "holds a name of more than 255 bytes (xxx", "unpack it by hand"
    ),
    "zip: a file that is a folder too": one(pictures, file_that_is_a_folder, "more.zip", "more", "is there already"),
    "zip: what lies beside it": one(
        pictures, zipped("image0.png"), "more.zip", "holds image0.png", "there already", "move one"
    ),
    "zip: no name": one(pictures, zipped("."), "more.zip", "a file and a folder of one name", "fetch it again"),
    "zip: encrypted": one(pictures, encrypted, "more.zip", "is encrypted (a.png)", "unpack it with its password"),
    "zip: an unknown compression": one(pictures, deflate64, "more.zip", "compression method", "unpack it by hand"),
    "zip: none": one(
        pictures, content("more.zip", b"<html>404</html>"), "more.zip", "not a zip file", "fetch it again"
    ),
    "zip: empty": one(pictures, content("more.zip", b""), "more.zip", "not a zip file", "fetch it again"),
    "zip: half of it": one(
        pictures, both(archive_of("more.zip"), cut("more.zip", 0.5)), "more.zip", "not a zip file", "fetch it again"
    ),
    "zip: a byte changed": one(
        pictures,
        both(archive_of("more.zip"), flipped("more.zip")),
        "more.zip",
        "cannot be unpacked (",
        "fetch it again",
    ),
    "zip: a bomb": one(pictures, zipped("bomb.bin", bytes(4_000_000)), "more.zip", "grows to more than 200", "by hand"),
    "zip: a bomb that says it is small": one(
        pictures, lying_bomb, "more.zip", "cannot be unpacked (", "fetch it again"
    ),
    "tar: ../": one(pictures, tarred("../a.png"), "more.tar", *OUTSIDE),
    "tar: an absolute name": one(pictures, tarred("/tmp/a.png"), "more.tar", *OUTSIDE),
    "tar: a link": one(
        pictures, tarred("a", kind=tarfile.SYMTYPE, link="/etc"), "more.tar", "a link or device (a)", *LINK
    ),
    "tar: a hard link": one(
        pictures, tarred("a", kind=tarfile.LNKTYPE, link="/etc/passwd"), "more.tar", "a link or device (a)", *LINK
    ),
    "tar: a device": one(pictures, tarred("a", kind=tarfile.CHRTYPE), "more.tar", "a link or device (a)", *LINK),
    "tar: a pipe": one(pictures, tarred("a", kind=tarfile.FIFOTYPE), "more.tar", "a link or device (a)", *LINK),
    "tar: what lies beside it": one(
        pictures, tarred("image0.png"), "more.tar", "holds image0.png", "there already", "move one"
    ),
    "tar: none": one(
        pictures, content("more.tar", b"<html>404</html>" * 99), "more.tar", "is not a tar archive", "fetch it"
    ),
    "tar: ends in a file": one(
        pictures,
        both(archive_of("more.tar"), cut_at("more.tar", 30_000)),
        "more.tar",
        "cannot be unpacked",
        "fetch it again",
    ),
    "tar: ends between two files": one(
        pictures,
        both(archive_of("more.tar"), cut_at("more.tar", 512 + 20_480)),
        "more.tar",
        "lacks its end",
        "fetch it",
    ),
    "tar: ends in a header": one(
        pictures,
        both(archive_of("more.tar"), cut_at("more.tar", 512 + 20_480 + 99)),
        "more.tar",
        "lacks its end",
        "fetch it",
    ),
    "tar: a damaged header": one(
        pictures,
        both(archive_of("more.tar"), changed_bytes("more.tar", b"more/b.bin", b"more/c.bin")),
        "more.tar",
        "lacks its end",
        "fetch it again",
    ),
    "tar.gz: a bomb": one(pictures, bomb_behind_its_end, "more.tar.gz", "grows to more than 200", "by hand"),
    "tar.gz: half of it": one(
        pictures,
        both(archive_of("more.tar.gz"), cut("more.tar.gz", 0.5)),
        "more.tar.gz",
        "cannot be unpacked",
        "fetch it",
    ),
    "tgz: without its last bytes": one(
        pictures,
        both(archive_of("more.tgz"), cut("more.tgz", 0.9998)),
        "more.tgz",
        "cannot be unpacked",
        "fetch it again",
    ),
    "tar.gz: a byte changed": one(
        pictures,
        both(archive_of("more.tar.gz"), flipped("more.tar.gz")),
        "more.tar.gz",
        "cannot be unpacked",
        "fetch it",
    ),
    "tar.gz: none": one(
        pictures, content("more.tar.gz", b"<html>" * 99), "more.tar.gz", "is not a tar archive", "fetch it"
    ),
}

P0 = "training/patient000/patient000_frame01"
ACDC = {
    "no training folder": one(
        acdc,
        lambda folder: (folder / "training").rename(folder / "train"),
        "training",
        "no such folder",
        "unpack ACDC",
        name="acdc",
    ),
    "no mask": one(
        acdc, lambda folder: (folder / f"{P0}_gt.nii.gz").unlink(), f"{P0}.nii.gz", "has no mask", "add it", name="acdc"
    ),
    "no image": Spoilt(
        acdc,
        lambda folder: (folder / f"{P0}.nii.gz").unlink(),
        [
            ("training/patient000", "holds no frame", "fetch it again"),
            (f"{P0}_gt.nii.gz", "has no image patient000_frame01.nii.gz", "move the mask away"),
        ],
        name="acdc",
    ),
    "an empty patient": one(
        acdc,
        lambda folder: (folder / "training/patient009").mkdir(),
        "training/patient009",
        "holds no frame",
        "fetch it",
        name="acdc/volumes",
    ),
    "a class too many": one(
        acdc,
        nifti(f"{P0}_gt.nii.gz", volume_mask(0) * np.uint8(4)),
        f"{P0}_gt.nii.gz",
        "holds the value 4; the classes are",
        "3 left ventricle",
        "set every pixel",
        name="acdc",
    ),
}

SPOILT: dict[str, Spoilt] = {
    f"{topic}, {kind}": spoilt
    for topic, group in {
        "table": TABLES,
        "splits": SPLITS,
        "format": damaged_formats(),
        "image": IMAGES,
        "DICOM": DICOM,
        "mask": MASKS,
        "classes": CLASSES,
        "archive": ARCHIVES,
        "ACDC": ACDC,
    }.items()
    for kind, spoilt in group.items()
}


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch):
    monkeypatch.setattr(archives, "_ALWAYS_FINE", 100_000)


def spoil(tmp_path: pathlib.Path, spoilt: Spoilt) -> pathlib.Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    spoilt.make(raw)
    spoilt.damage(raw)
    return raw


def complaint(call: Callable[[], object], place: pathlib.Path) -> list[str]:
    """The lines that are complained with, the summary left out."""
    with pytest.raises(InputError) as info:
        call()
    return without_summary(str(info.value), place)


def without_summary(message: str, place: pathlib.Path) -> list[str]:
    first, *lines = message.split("\n")
    if not lines:  # an archive, which is looked at before there is anything to list
        return [first]
    assert first == f"{len(lines)} problem{'s' * (len(lines) > 1)} in {place}; nothing was prepared:"
    return lines


def check_lines(lines: Sequence[str], raw: pathlib.Path, wanted: Sequence[tuple[str, ...]]) -> None:
    assert len(lines) == len(wanted), lines
    for line, (file, *parts) in zip(lines, wanted, strict=True):
        assert line.startswith((f"{raw / file}: ", f"{raw / file}: line ")), line
        place = 0
        for part in parts:
            assert part in line[place:], (part, line)
            place = line.index(part, place) + len(part)


def test_there_are_many():
    assert len(SPOILT) >= 60
    assert len({(spoilt.make, *spoilt.wanted) for spoilt in SPOILT.values()}) >= 60  # that say different things


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_input_is_one_line(tmp_path, kind):
    spoilt = SPOILT[kind]
    raw, data_dir = spoil(tmp_path, spoilt), tmp_path / "data"
    before = {path: path.lstat().st_mtime_ns for path in raw.rglob("*")}
    lines = complaint(lambda: builders.prepare(spoilt.name, data_dir=data_dir, manual_dir=raw), raw)
    check_lines(lines, raw, spoilt.wanted)
    assert list(data_dir.iterdir()) == []
    assert {path: path.lstat().st_mtime_ns for path in raw.rglob("*")} == before


@pytest.mark.parametrize("make", dict.fromkeys(spoilt.make for spoilt in SPOILT.values()))
def test_what_is_spoilt_was_fine(tmp_path, make):
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw")
    name = "acdc" if make is acdc else "folder/mine"
    report = builders.check(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "raw")
    assert report.errors == []
    assert not (tmp_path / "data").exists()


# Places.


def test_a_manual_dir_that_is_no_folder(tmp_path):
    (tmp_path / "cases.csv").write_text(HEADER)
    (line,) = complaint(
        lambda: builders.prepare("folder/mine", data_dir=tmp_path / "data", manual_dir=tmp_path / "cases.csv"), tmp_path
    )
    assert line.startswith(
        f"{tmp_path}/cases.csv: is neither a folder nor an archive (.zip, .tar, .tar.gz, .tgz); unpack"
    )
    assert not (tmp_path / "data").exists()


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    """Whatever runs the tests may read everything, so the error is made here."""
    pictures(tmp_path)

    def denied(path: pathlib.Path, *args: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "read_text", denied)
    for function in (builders.check, builders.prepare):
        call = functools.partial(function, "folder/mine", data_dir=tmp_path / "data", manual_dir=tmp_path)
        (line,) = complaint(call, tmp_path)
        assert line == f"{tmp_path}/cases.csv: cannot be read (Permission denied); check its permissions"


def test_an_empty_folder(tmp_path):
    (tmp_path / "raw").mkdir()
    (line,) = complaint(
        lambda: builders.prepare("folder/mine", data_dir=tmp_path / "data", manual_dir=tmp_path / "raw"),
        tmp_path / "raw",
    )
    assert line.startswith(f"{tmp_path}/raw/cases.csv: no such file; write a table with the columns case,image,mask")


@pytest.mark.parametrize(
    "name", ["folder", "folder/", "folder/a b", "folder/../mine", "folder/-volumes", "folder/.hidden"]
)
def test_a_folder_wants_a_name(tmp_path, name):
    with pytest.raises(InputError, match=r"^unknown data set 'folder/.*'; give your folder a name of letters, digits"):
        builders.prepare(name, data_dir=tmp_path / "data", manual_dir=tmp_path)


def test_problems_in_an_archive_are_named_as_a_person_knows_it(tmp_path):
    raw = spoil(tmp_path, MASKS["soft"])
    given = pathlib.Path(shutil.make_archive(str(tmp_path / "mine"), "zip", raw))
    lines = complaint(lambda: builders.prepare("folder/mine", data_dir=tmp_path / "data", manual_dir=given), given)
    check_lines(lines, given, MASKS["soft"].wanted)


def test_all_problems_are_named_at_once(tmp_path):
    raw = spoil(tmp_path, MASKS["soft"])
    cut("image0.png", 0.5)(raw)
    entry("image", "lost.png", 5)(raw)
    lines = complaint(lambda: builders.prepare("folder/mine", data_dir=tmp_path / "data", manual_dir=raw), raw)
    check_lines(lines, raw, [("lost.png", "is not there"), ("image0.png", "cannot be read"), *MASKS["soft"].wanted])


# The launcher.

LAUNCHED = (
    "table, a mask that is not there",
    "format, png: 60% of it",
    "format, deflated.tif: 60% of it",
    "DICOM, series: a slice that is a web page",
    "mask, mirrored",
    "archive, tar: ../",
)


# A launch is importing most of the time, so the launches are forks of one process that has imported. JAX starts no
# threads before it is used.
FORKED = """
import gc, json, os, sys
import cv2, nibabel, pydicom.pixels, tifffile
from jaxseg.data import doctor
from jaxseg.data.builders import folder
from launch import cli, prepare
gc.disable()
gc.freeze()  # what was imported no fork has to look through at its end
for place, *arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(f"{place}/{name}", os.O_WRONLY | os.O_CREAT), number)
        sys.argv[1:] = arguments
        sys.exit(cli.run(prepare.main, cleans_up=True))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def flags(folder: pathlib.Path, *more: str) -> list[str]:
    return ["--dataset=folder/mine", f"--manual_dir={folder / 'raw'}", f"--data_dir={folder / 'data'}", *more]


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def check_complaint(folder: pathlib.Path, kind: str, status: int, output: str, errors: str) -> None:
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and errors.endswith("\n") and "Traceback" not in errors
    raw = folder / "raw"
    check_lines(without_summary(errors[len("error: ") : -1], raw), raw, SPOILT[kind].wanted)
    assert list((folder / "data").iterdir()) == []


def test_the_launcher_says_the_same(tmp_path):
    spoil(tmp_path, SPOILT[LAUNCHED[0]])
    result = python("-m", "launch.prepare", *flags(tmp_path))
    check_complaint(tmp_path, LAUNCHED[0], result.returncode, result.stdout, result.stderr)


def test_the_launcher_says_and_checks_the_same_of_all_kinds(tmp_path):
    folders = {kind: tmp_path / str(i) for i, kind in enumerate((*LAUNCHED, "text", "json"))}
    for kind, folder in folders.items():
        folder.mkdir()
        spoil(folder, SPOILT.get(kind, MASKS["soft"]))
    checks = {"text": ["--check"], "json": ["--check", "--json"]}
    launches = [[str(folder), *flags(folder, *checks.get(kind, ()))] for kind, folder in folders.items()]
    statuses = python("-c", FORKED, json.dumps(launches)).stdout.split()
    said = {
        kind: (int(status), (folder / "output").read_text(), (folder / "errors").read_text())
        for (kind, folder), status in zip(folders.items(), statuses, strict=True)
    }
    for kind in LAUNCHED:
        check_complaint(folders[kind], kind, *said[kind])
    check_text(folders["text"], *said["text"])
    check_json(folders["json"], *said["json"])


def check_text(folder: pathlib.Path, status: int, output: str, errors: str) -> None:
    assert (status, errors) == (2, "")
    lines = output.splitlines()
    assert lines[0] == "folder/mine"
    assert lines[-1].startswith("verdict: not usable: 1 problem to fix first")
    (said,) = [
        line.removeprefix(9 * " " + "- ") for line in lines if line.startswith(9 * " " + "- ") and "values" in line
    ]
    check_lines([said], folder / "raw", MASKS["soft"].wanted)
    assert not (folder / "data").exists()


def check_json(folder: pathlib.Path, status: int, output: str, errors: str) -> None:
    assert (status, errors) == (2, "")
    said = json.loads(output)
    (error,) = [finding for finding in said["findings"] if finding["level"] == "error"]
    check_lines(error["lines"], folder / "raw", MASKS["soft"].wanted)
    assert said["verdict"].startswith("not usable: 1 problem to fix first")
    assert not (folder / "data").exists()
