"""Builders of pictures: what is prepared is what the files of a miniature in the official layout hold.

What can be wrong with a folder of one's own is in `test_spoilt_inputs.py`; here it is what comes out of one.
"""

import csv
import functools
import json
import math
import pathlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy import ndimage

from jaxseg.data import builders, doctor, formats, pipeline
from jaxseg.data.builders import bbbc041, hc18, ms_cct
from jaxseg.data.synthetic import smear, smear_drawn
from jaxseg.errors import InputError

SPLITS = ("train", "validation", "test")
COLUMNS = ("case", "image", "mask", "domain", "patient")


def save(path: pathlib.Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def prepare(name: str, raw: pathlib.Path) -> pathlib.Path:
    return builders.prepare(name, data_dir=raw.parent / "data", manual_dir=raw)


def prepared(name: str, raw: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Name -> case, with its split; no case is twice there, and no patient in two splits."""
    directory = prepare(name, raw)
    found: dict[str, dict[str, Any]] = {}
    where = defaultdict(set)
    for split in pipeline.split_sizes(directory):
        for case in pipeline.Split(directory, split, size=None):
            assert case["case"] not in found
            found[case["case"]] = case | {"split": split}
            where[case["patient"]].add(split)
    assert all(len(splits) == 1 for splits in where.values())
    return found


def problems(name: str, raw: pathlib.Path) -> list[str]:
    """The lines of the complaint, without the summary; nothing may have been written."""
    with pytest.raises(InputError) as info:
        prepare(name, raw)
    assert list((raw.parent / "data").iterdir()) == []
    summary, *lines = str(info.value).split("\n")
    assert summary == f"{len(lines)} problem{'s' * (len(lines) > 1)} in {raw}; nothing was prepared:"
    return lines


def assert_lines(lines: Sequence[str], raw: pathlib.Path, *wanted: tuple[str, ...]) -> None:
    """Each line begins with a file and holds the other words."""
    assert len(lines) == len(wanted), lines
    for line, (file, *parts) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{raw / file}: ") and all(part in line for part in parts), line


# HC18.

HEADS = ("001_HC", "004_HC", "010_HC", "010_2HC", "010_3HC", "023_HC", "031_HC")
SHAPE = (54, 80)
PIXEL_SIZES = {name: 0.1 + 0.01 * i for i, name in enumerate(HEADS)}
ELLIPSE = ((42.0, 27.0), (50.0, 36.0), 20.0)


def ellipse(thickness: int, box: Any = ELLIPSE, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    drawing = np.zeros(shape, np.uint8)
    cv2.ellipse(drawing, box, 255, thickness)
    return drawing


def flooded(outline: np.ndarray) -> np.ndarray:
    """Reference: all that cannot be reached from outside without crossing the outline."""
    outside = np.zeros(np.add(outline.shape, 2), bool)
    free = np.pad(outline == 0, 1, constant_values=True)
    todo = [(0, 0)]
    while todo:
        row, column = todo.pop()
        inside = 0 <= row < free.shape[0] and 0 <= column < free.shape[1]
        if inside and free[row, column] and not outside[row, column]:
            outside[row, column] = True
            todo += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return ~outside[1:-1, 1:-1]


def write_spacings(raw: pathlib.Path, rows: dict[str, Any], column: str = "pixel size(mm)") -> None:
    lines = [f"filename,{column},head circumference (mm)", *(f"{name}.png,{size},170.5" for name, size in rows.items())]
    (raw / "training_set_pixel_size_and_HC.csv").write_text("\n".join(lines))


@pytest.fixture
def heads(tmp_path) -> pathlib.Path:
    raw = tmp_path / "raw"
    for i, name in enumerate(HEADS):
        save(raw / "training_set" / f"{name}.png", noise(*SHAPE, seed=i))
        save(raw / "training_set" / f"{name}_Annotation.png", ellipse(-1 if i == 0 else 1 + i % 2))
    write_spacings(raw, PIXEL_SIZES)
    save(raw / "test_set" / "000_HC.png", noise(*SHAPE))
    (raw / "training_set" / "._001_HC.png").write_bytes(b"left by macOS")
    return raw


def test_hc18_holds_the_official_files(heads):
    found = prepared("hc18/full", heads)
    assert found.keys() == set(HEADS)
    for name, case in found.items():
        with Image.open(heads / "training_set" / f"{name}.png") as image:
            np.testing.assert_array_equal(case["image"][..., 0], np.asarray(image))
        with Image.open(heads / "training_set" / f"{name}_Annotation.png") as mask:
            np.testing.assert_array_equal(case["labels"], flooded(np.asarray(mask)))
        assert case["patient"] == name[:3] and case["domain"] == ""
        np.testing.assert_allclose(case["spacing"], PIXEL_SIZES[name], rtol=1e-6)
    area = math.pi * 25 * 18  # and half the line that is drawn around it
    assert abs(found["001_HC"]["labels"].sum() - area) < 0.5 * math.pi * 43


def test_hc18_squashed_has_the_spacing_of_what_is_stored(heads):
    (heads / "training_set_pixel_size_and_HC.csv").rename(heads / "training_set" / "training_set_pixel_size_and_HC.csv")
    case = prepared("hc18/256", heads)["004_HC"]
    np.testing.assert_allclose(case["spacing"], 0.11 * np.array(SHAPE) / 256, rtol=1e-6)
    assert case["image"].shape == (256, 256, 1)


def test_hc18_without_the_table_knows_no_spacing(heads):
    (heads / "training_set_pixel_size_and_HC.csv").unlink()
    assert all(np.isnan(case["spacing"]).all() for case in prepared("hc18", heads).values())


@pytest.mark.parametrize("thickness", [1, 3])
@pytest.mark.parametrize(
    ("middle", "axes", "turn"),
    [
        ((150.0, 15.0), (220.0, 150.0), 10.0),  # cut above
        ((150.0, 100.0), (400.0, 140.0), 0.0),  # on two sides
        ((20.0, 30.0), (220.0, 170.0), 40.0),  # a corner lies inside
        ((150.0, 95.0), (420.0, 260.0), 5.0),  # four corners lie outside, all sides are cut
    ],
)
def test_an_outline_that_the_border_cuts_is_filled_as_the_ellipse_it_is(middle, axes, turn, thickness):
    box, shape = (middle, axes, turn), (200, 300)
    wanted = (ellipse(-1, box, shape) | ellipse(thickness, box, shape)) > 0
    outline = ellipse(thickness, box, shape) > 0
    assert not np.array_equal(ndimage.binary_fill_holes(outline), wanted)
    region = hc18.filled(outline)
    assert region is not None and region.dtype == bool
    assert (region != wanted).mean() < 0.003


def test_a_drawing_that_is_no_ellipse_and_open_is_refused():
    zigzag = np.zeros((100, 100), bool)
    for row in range(100):
        zigzag[row, 50 + 30 * (1 if row // 20 % 2 else -1)] = True
    assert hc18.filled(zigzag) is None
    assert hc18.filled(np.zeros((9, 9), bool)).sum() == 0


@pytest.mark.parametrize(
    ("radius", "off", "is_ellipse"), [(80, 2, True), (80, 5, False), (400, 10, True), (400, 16, False)]
)
def test_an_open_outline_may_lie_three_pixels_or_per_cent_off_its_ellipse(radius, off, is_ellipse):
    outline = np.zeros((radius + 120, 2 * radius + 60), np.uint8)
    cv2.circle(outline, (radius + 30, 20), radius, 1, 1)  # cut above
    outline[20 + radius + off, radius + 30] = 1
    assert (hc18.filled(outline > 0) is not None) == is_ellipse


def half_open(raw: pathlib.Path) -> None:
    zigzag = np.zeros(SHAPE, np.uint8)
    for row in range(SHAPE[0]):
        zigzag[row, 40 + 30 * (1 if row // 9 % 2 else -1)] = 255
    save(raw / "training_set" / "004_HC_Annotation.png", zigzag)


BAD_HEADS: dict[str, tuple[Callable[[pathlib.Path], Any], list[tuple[str, ...]]]] = {
    "image without mask": (
        lambda raw: (raw / "training_set/010_2HC_Annotation.png").unlink(),
        [("training_set/010_2HC.png", "has no mask 010_2HC_Annotation.png; add it")],
    ),
    "mask without image": (
        lambda raw: (raw / "training_set/004_HC.png").unlink(),
        [("training_set/004_HC_Annotation.png", "has no image 004_HC.png; add it")],
    ),
    "misnamed": (
        lambda raw: [
            path.rename(path.with_name(path.name.replace("001_HC", "head1")))
            for path in list((raw / "training_set").glob("001_HC*"))
        ],
        [
            ("training_set/head1.png", "wrong name; images are named NNN_HC.png"),
            ("training_set/head1_Annotation.png", "wrong name"),
        ],
    ),
    "no folder": (
        lambda raw: (raw / "training_set").rename(raw / "train"),
        [("training_set", "no such folder; unpack HC18 (https://zenodo.org/records/1327317)")],
    ),
    "no pictures": (
        lambda raw: [path.unlink() for path in (raw / "training_set").iterdir()],
        [("training_set", "holds no file named NNN_HC.png; unpack")],
    ),
    "no column": (
        lambda raw: write_spacings(raw, PIXEL_SIZES, "pixel size"),
        [("training_set_pixel_size_and_HC.csv", "lacks the column pixel size(mm); its first line must be")],
    ),
    "no line": (
        lambda raw: write_spacings(raw, {name: size for name, size in PIXEL_SIZES.items() if name != "023_HC"}),
        [("training_set/023_HC.png", "training_set_pixel_size_and_HC.csv does not name it; add its pixel size")],
    ),
    "no number": (
        lambda raw: write_spacings(raw, PIXEL_SIZES | {"001_HC": "n/a", "004_HC": -0.1}),
        [
            ("training_set_pixel_size_and_HC.csv", "line 2 has the pixel size 'n/a'; give a number of mm"),
            ("training_set_pixel_size_and_HC.csv", "line 3 has the pixel size '-0.1'"),
        ],
    ),
    "open outline": (half_open, [("training_set/004_HC_Annotation.png", "is neither filled nor a closed outline")]),
    "gray mask": (
        lambda raw: save(raw / "training_set/004_HC_Annotation.png", ellipse(1) // 2),
        [("training_set/004_HC_Annotation.png", "holds the value 127; a mask is 0")],
    ),
}


@pytest.mark.parametrize("kind", BAD_HEADS)
def test_bad_files_of_hc18_are_lines(heads, kind):
    damage, wanted = BAD_HEADS[kind]
    damage(heads)
    assert_lines(problems("hc18", heads), heads, *wanted)


def linked(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file.resolve())


def test_real_heads_keep_their_masks(real_data, tmp_path):
    official = real_data / "hc18_half" / "training_set"
    linked(tmp_path / "raw" / "training_set", sorted(official.iterdir())[:40])
    found = prepared("hc18", tmp_path / "raw")
    assert len(found) == 20 and {case["split"] for case in found.values()} == set(SPLITS)
    for name, case in found.items():
        with Image.open(official / f"{name}_Annotation.png") as mask:  # filled already
            np.testing.assert_array_equal(case["labels"], np.asarray(mask) // 255)
        with Image.open(official / f"{name}.png") as image:
            np.testing.assert_array_equal(case["image"][..., 0], np.asarray(image))
        assert np.isnan(case["spacing"]).all()


def test_outlines_of_real_heads_give_the_filled_masks_again(real_data):
    for path in sorted((real_data / "hc18_half" / "training_set").glob("*_Annotation.png"))[:10]:
        with Image.open(path) as mask:
            head = np.asarray(mask) > 0
        outline = head & ~ndimage.binary_erosion(head)
        np.testing.assert_array_equal(hc18.filled(outline), head)
        bottom = np.flatnonzero(head.any(1))[-1]  # the image ends where a quarter of the head is still to come
        cut = slice(0, bottom - np.count_nonzero(head.any(1)) // 4)
        region = hc18.filled(outline[cut])
        assert 2 * (region & head[cut]).sum() / (region.sum() + head[cut].sum()) > 0.99


# BUSI.


def lesion(row: int, column: int) -> np.ndarray:
    mask = np.zeros((40, 50), np.uint8)
    mask[row : row + 9, column : column + 12] = 255
    return mask


@pytest.fixture
def breasts(tmp_path) -> pathlib.Path:
    raw = tmp_path / "raw"
    folder = raw / "Dataset_BUSI_with_GT"
    for i in range(1, 7):
        for k, kind in enumerate(("benign", "malignant", "normal")):
            gray = noise(40, 50, seed=10 * k + i)
            image = gray if i == 2 else np.stack([gray] * 3, -1)
            if i == 3:
                image[:3, :9] = (255, 230, 0)  # a coloured mark
            save(folder / kind / f"{kind} ({i}).png", image)
            mask = np.zeros((40, 50), np.uint8) if kind == "normal" else lesion(3 * i, 2 * i + k)
            save(folder / kind / f"{kind} ({i})_mask.png", mask)
    for name, place in (("_1", (2, 30)), ("_2", (30, 12))):
        save(folder / "benign" / f"benign (4)_mask{name}.png", lesion(*place))
    (raw / "__MACOSX" / "benign").mkdir(parents=True)
    return raw


def test_busi_holds_the_official_files_and_unites_the_masks(breasts):
    found = prepared("busi/full", breasts)
    assert len(found) == 18
    assert Counter(case["domain"] for case in found.values()) == {"benign": 6, "malignant": 6, "normal": 6}
    assert {case["domain"] for case in found.values() if case["split"] == "train"} == {"benign", "malignant", "normal"}
    for name, case in found.items():
        kind, number = name.split("_")
        folder = breasts / "Dataset_BUSI_with_GT" / kind
        assert case["patient"] == name and case["domain"] == kind and np.isnan(case["spacing"]).all()
        with Image.open(folder / f"{kind} ({number}).png") as image:
            np.testing.assert_array_equal(case["image"], np.asarray(image.convert("RGB")))
        wanted = np.zeros((40, 50), bool)
        for path in folder.glob(f"{kind} ({number})_mask*.png"):
            with Image.open(path) as mask:
                wanted |= np.asarray(mask) > 0
        np.testing.assert_array_equal(case["labels"], wanted)
    assert ndimage.label(found["benign_4"]["labels"])[1] == 3
    assert all(not case["labels"].any() for case in found.values() if case["domain"] == "normal")


BAD_BREASTS: dict[str, tuple[Callable[[pathlib.Path], Any], list[tuple[str, ...]]]] = {
    "image without mask": (
        lambda raw: (raw / "benign/benign (2)_mask.png").unlink(),
        [("benign/benign (2).png", "has no mask benign (2)_mask.png; add it")],
    ),
    "masks without image": (
        lambda raw: (raw / "benign/benign (4).png").unlink(),
        [(f"benign/benign (4)_mask{end}.png", "has no image benign (4).png; add it") for end in ("", "_1", "_2")],
    ),
    "in the wrong folder": (
        lambda raw: (raw / "benign/benign (2).png").rename(raw / "normal/benign (2).png"),
        [
            ("benign/benign (2)_mask.png", "has no image benign (2).png"),
            ("normal/benign (2).png", "wrong name; files are named normal (N).png"),
        ],
    ),
    "no folder": (
        lambda raw: (raw / "malignant").rename(raw / "cancer"),
        [("malignant", "no such folder; unpack BUSI")],
    ),
    "sizes differ": (
        lambda raw: save(raw / "benign/benign (4)_mask_1.png", lesion(1, 1)[1:]),
        [("benign/benign (4)_mask_1.png", "is 50x39, its image is 50x40")],
    ),
    "second mask of other values": (
        lambda raw: save(raw / "benign/benign (4)_mask_2.png", lesion(30, 30) // 255),
        [("benign/benign (4)_mask.png", "holds the value 1; a mask is 0")],
    ),
}


@pytest.mark.parametrize("kind", BAD_BREASTS)
def test_bad_files_of_busi_are_lines(breasts, kind):
    damage, wanted = BAD_BREASTS[kind]
    raw = breasts / "Dataset_BUSI_with_GT"
    damage(raw)
    lines = [line.replace(str(raw), str(breasts)) for line in problems("busi", breasts)]
    assert_lines(lines, breasts, *wanted)


def test_busi_may_lack_the_normal_ones(breasts):
    folder = breasts / "Dataset_BUSI_with_GT" / "normal"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert len(prepared("busi", breasts)) == 12


# BBBC041 and other smears with boxes.

GLASS, PINK, VIOLET = (225, 220, 215), (205, 150, 170), (90, 50, 140)
Discs = list[tuple[int, int, int]]  # row, column, radius
SMEAR = (120, 160)


def discs(places: Discs) -> np.ndarray:
    rows, columns = np.ogrid[: SMEAR[0], : SMEAR[1]]
    return np.any([np.hypot(rows - r, columns - c) <= radius for r, c, radius in places], axis=0)


def smear_of(places: Discs, seed: int) -> np.ndarray:
    """Pink cells with a pale middle and a dark parasite, and a white cell at the right."""
    image = np.where(discs(places)[..., None], PINK, GLASS)
    image[discs([(r, c, radius // 3) for r, c, radius in places])] = GLASS
    image[discs([(r + radius // 2, c, radius // 5) for r, c, radius in places])] = VIOLET
    image[discs([(60, 140, 15)])] = VIOLET
    return np.clip(image + np.random.default_rng(seed).normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def box_of(row: int, column: int, radius: int) -> tuple[int, int, int, int]:
    top, left = max(row - radius - 2, 0), max(column - radius - 2, 0)
    return top, left, min(row + radius + 3, SMEAR[0]), min(column + radius + 3, SMEAR[1])


def entry(name: str, places: Discs, names: Sequence[str]) -> dict[str, Any]:
    boxes = [(box_of(*place), kind) for place, kind in zip(places, names, strict=True)]
    return {
        "image": {
            "checksum": "0",
            "pathname": f"/images/{name}",
            "shape": {"r": SMEAR[0], "c": SMEAR[1], "channels": 3},
        },
        "objects": [
            {
                "bounding_box": {"minimum": {"r": top, "c": left}, "maximum": {"r": bottom, "c": right}},
                "category": kind,
            }
            for (top, left, bottom, right), kind in boxes
        ],
    }


PLACES: list[Discs] = [[(30, 30 + i, 14), (80, 60, 12 + i % 3), (118, 105, 14), (60, 140, 15)] for i in range(14)]
KINDS = ("red blood cell", "trophozoite", "ring", "leukocyte")


def write_json(path: pathlib.Path, content: Any) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def drawn_malaria(tmp_path_factory) -> pathlib.Path:
    raw = tmp_path_factory.mktemp("malaria") / "raw"
    entries = []
    for i, places in enumerate(PLACES):
        name = f"{i:04x}-smear.{'png' if i < 11 else 'jpg'}"
        save(raw / "malaria" / "images" / name, smear_of(places, i), **({} if i < 11 else {"quality": 95}))
        entries.append(entry(name, places, KINDS))
    save(raw / "malaria" / "images" / "in_no_table.png", smear_of(PLACES[0], 99))
    write_json(raw / "malaria" / "training.json", entries[:11])
    write_json(raw / "malaria" / "test.json", entries[11:])
    return raw


@pytest.fixture
def malaria(tmp_path, drawn_malaria) -> pathlib.Path:
    return shutil.copytree(drawn_malaria, tmp_path / "raw")


def test_bbbc041_cuts_cells_out_of_their_boxes(malaria):
    found = prepared("bbbc041/full", malaria)
    assert Counter(case["split"] for case in found.values()) == {"train": 9, "validation": 2, "test": 3}
    assert {name for name, case in found.items() if case["split"] == "test"} == {f"{i:04x}-smear" for i in (11, 12, 13)}
    for name, case in found.items():
        number = int(name[:4], 16)
        path = next((malaria / "malaria" / "images").glob(f"{name}.*"))
        with Image.open(path) as image:
            np.testing.assert_array_equal(case["image"], np.asarray(image))
        truth = discs(PLACES[number][:3])  # whole discs, parasites and pale middles included, and no white cell
        labels = case["labels"].astype(bool)
        assert 2 * (labels & truth).sum() / (labels.sum() + truth.sum()) > 0.98
        boxed = np.zeros(SMEAR, bool)
        for place in PLACES[number][:3]:
            top, left, bottom, right = box_of(*place)
            boxed[top:bottom, left:right] = True
        assert not (labels & ~boxed).any()


def test_boxes_are_those_of_the_tables(malaria):
    annotated, lines = bbbc041.boxes(malaria)
    assert lines == [] and [item.split for item in annotated] == ["train"] * 11 + ["test"] * 3
    for item, places in zip(annotated, PLACES, strict=True):
        assert item.image.is_file() and item.size == SMEAR and item.names == KINDS
        np.testing.assert_array_equal(item.boxes, [box_of(*place) for place in places])


def test_cells_of_synthetic_smears_are_their_labels():
    templates = smear_drawn.drawn_templates(1)
    image, labels, scene = smear.render(3, 2, smear.CANVAS, templates=templates)
    boxes = []
    for template, row, column in scene.cells:
        mask = templates.cells[template].mask
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        corner = np.array((row - mask.shape[0] // 2, column - mask.shape[1] // 2))
        ends = np.array(((rows[0], columns[0]), (rows[-1] + 1, columns[-1] + 1))) + corner
        boxes.append(np.clip(ends, 0, smear.CANVAS).ravel())
    boxes = [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
    found = bbbc041.cells(image, np.array(boxes))
    assert 2 * (found & (labels > 0)).sum() / (found.sum() + labels.sum()) > 0.985


def test_no_box_gives_no_cell():
    assert not bbbc041.cells(smear_of(PLACES[0], 0), np.zeros((0, 4), int)).any()


def voc(stem: str, boxes: Sequence[tuple[str, Sequence[float]]], doctype: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for name, (top, left, bottom, right) in boxes
    )
    size = f"<size><width>{SMEAR[1]}</width><height>{SMEAR[0]}</height><depth>3</depth></size>"
    return f"{doctype}<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"


@pytest.fixture(params=["beside", "in two folders"])
def bccd(tmp_path, request) -> pathlib.Path:
    raw = tmp_path / "raw"
    images, tables = ("JPEGImages", "Annotations") if request.param == "in two folders" else ("", "")
    (raw / tables).mkdir(parents=True)
    for i, places in enumerate(PLACES[:5]):
        save(raw / images / f"Blood_{i}.jpg", smear_of(places, i), quality=95)
        boxes = [(kind, box_of(*place)) for place, kind in zip(places, ("RBC", "RBC", "RBC", "WBC"), strict=True)]
        (raw / tables / f"Blood_{i}.xml").write_text(voc(f"Blood_{i}", boxes))
    return raw


def test_voc_boxes_are_read_and_their_images_dealt_out(bccd):
    annotated, lines = bbbc041.boxes(bccd)
    assert lines == [] and [item.split for item in annotated] == [None] * 5
    for item, places in zip(annotated, PLACES[:5], strict=True):
        np.testing.assert_array_equal(item.boxes, [box_of(*place) for place in places])
        assert item.names == ("RBC", "RBC", "RBC", "WBC")
    found = prepared("bbbc041/full", bccd)
    assert {case["split"] for case in found.values()} == set(SPLITS)
    for name, case in found.items():
        truth = discs(PLACES[int(name[-1])][:3])
        assert 2 * (case["labels"] & truth).sum() / (case["labels"].sum() + truth.sum()) > 0.97


BOMB = (
    '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(8))
    + "]>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_voc_file_with_entities_is_refused_before_they_grow(tmp_path, encoding):
    raw = tmp_path / "raw"
    save(raw / "a.jpg", smear_of(PLACES[0], 0))
    (raw / "a.xml").write_text(voc("a", [("&i;", (1, 1, 9, 9))], BOMB), encoding=encoding)
    annotated, lines = bbbc041.boxes(raw)
    assert annotated == []
    assert_lines(lines, raw, ("a.xml", "declares a DOCTYPE", "remove it"))


def changed(raw: pathlib.Path, change: Callable[[Any], Any]) -> None:
    path = raw / "malaria" / "training.json"
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


BAD_SMEARS: dict[str, tuple[Callable[[pathlib.Path], Any], list[tuple[str, ...]]]] = {
    "image is missing": (
        lambda raw: (raw / "malaria/images/0003-smear.png").unlink(),
        [("malaria/images/0003-smear.png", "is not there, training.json names it; add it")],
    ),
    "damaged JSON": (
        lambda raw: (raw / "malaria/training.json").write_text("[{"),
        [("malaria/training.json", "cannot be read as JSON (", "; fetch it again")],
    ),
    "JSON of another kind": (
        lambda raw: write_json(raw / "malaria/training.json", {"images": []}),
        [("malaria/training.json", "is not a list of images")],
    ),
    "no test.json": (
        lambda raw: (raw / "malaria/test.json").unlink(),
        [("malaria/test.json", "no such file; unpack the official archive")],
    ),
    "an image of another kind": (
        lambda raw: changed(raw, lambda content: content[2]["image"].pop("shape")),
        [("malaria/training.json", "image 3 is not as in BBBC041 (no 'shape'); fetch it again")],
    ),
    "a size in words": (
        lambda raw: changed(raw, lambda content: content[1]["image"]["shape"].update(r="many")),
        [("malaria/training.json", "image 2 is not as in BBBC041 (invalid literal")],
    ),
    "box outside": (
        lambda raw: changed(raw, lambda content: content[0]["objects"][1]["bounding_box"]["minimum"].update(r=120)),
        [
            (
                "malaria/images/0000-smear.png",
                "the box (120, ",
                "of a trophozoite",
                "is empty or outside of the 120 x 160",
            )
        ],
    ),
    "unknown class": (
        lambda raw: changed(raw, lambda content: content[0]["objects"][0].update(category="erythrocyte")),
        [("malaria/images/0000-smear.png", "training.json names a 'erythrocyte'; known are red blood cell, ring,")],
    ),
    "image of another size": (
        lambda raw: save(raw / "malaria/images/0001-smear.png", smear_of(PLACES[1], 1)[:100]),
        [("malaria/images/0001-smear.png", "is 160x100, its boxes are for 160x120")],
    ),
    "damaged image": (
        lambda raw: (raw / "malaria/images/0001-smear.png").write_bytes(b"\x89PNG"),
        [("malaria/images/0001-smear.png", "cannot be read as an image (")],
    ),
}


@pytest.mark.parametrize("kind", BAD_SMEARS)
def test_bad_files_of_bbbc041_are_lines(malaria, kind):
    damage, wanted = BAD_SMEARS[kind]
    damage(malaria)
    assert_lines(problems("bbbc041", malaria), malaria, *wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<annotation><size>", "is not a VOC file ("),
        ("<annotation/>", "is not a VOC file (no size/height)"),
        (voc("a", [("RBC", (1, 1, math.nan, 9))]), "is not a VOC file (cannot convert float NaN"),
        (voc("a", [("RBC", (1, 1, 1, 9))]), "the box (1, 1, 1, 9) of a RBC in a.xml is empty or outside"),
        (voc("a", [("RBC", (200, 1, 210, 9))]), "the box (200, 1, 210, 9) of a RBC in a.xml is empty or outside"),
    ],
)
def test_a_bad_voc_file_is_one_line(tmp_path, text, wanted):
    raw = tmp_path / "raw"
    save(raw / "a.jpg", smear_of(PLACES[0], 0))
    (raw / "a.xml").write_text(text)
    _, lines = bbbc041.boxes(raw)
    assert len(lines) == 1 and wanted in lines[0] and lines[0].startswith(f"{raw}/a.")


def test_a_folder_without_boxes_says_what_is_missing(tmp_path):
    assert_lines(bbbc041.boxes(tmp_path)[1], tmp_path.parent, (tmp_path.name, "holds no training.json and no VOC file"))


def test_boxes_of_real_smears(real_data, tmp_path):
    annotated, lines = bbbc041.boxes(real_data / "bccd_smear")
    assert lines == [] and len(annotated) == 5
    for item in annotated:
        with Image.open(item.image) as image:
            assert image.size == item.size[::-1]
            pixels = np.asarray(image).astype(int)
        is_cell = np.isin(item.names, smear.CELL_NAMES)
        assert 8 < is_cell.sum() < 25
        inside = bbbc041.cells(pixels.astype(np.uint8), item.boxes[is_cell])
        boxed = np.zeros(item.size, bool)
        for top, left, bottom, right in item.boxes[is_cell]:
            boxed[top:bottom, left:right] = True
            assert inside[top:bottom, left:right].mean() > 0.3
        assert np.median(pixels[boxed & ~inside, 1]) - np.median(pixels[inside, 1]) > 25  # glass, cells
    linked(tmp_path / "raw", sorted((real_data / "bccd_smear").iterdir()))
    assert {case["split"] for case in prepared("bbbc041", tmp_path / "raw").values()} == set(SPLITS)


# MS-CCT.

SLIDE = (530, 800)
SAMPLES = (1, 2, 3, 7)  # train, train, validation, test
CODES = ("cs2", "nz210")
CATEGORIES = ("Bone", "Cartilage", "Dermis", "Epidermis", "Subcutis", "Inflamm/Necrosis", "Melanoma", "SCC")
DERMIS = (60, 40, 700, 480)  # left, top, right, bottom
TUMOR = (300, 120, 640, 440)
NECROSIS = (420, 200, 520, 300)  # inside of the tumour, and after it in the table
RING = ((20, 20, 50, 300), (26, 60, 44, 200))  # epidermis with a hole


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


@functools.cache
def slide(sample: int, scanner: str) -> np.ndarray:
    """White glass, tissue that reaches beyond what is outlined, and black where nothing was scanned."""
    tint = np.array((30, 0, 10)) * CODES.index(scanner)
    image = np.full((*SLIDE, 3), 243 - CODES.index(scanner))
    left, top, right, bottom = DERMIS
    image[top:bottom, left : right + 60] = np.array((215, 150, 190)) - tint
    image[TUMOR[1] : TUMOR[3], TUMOR[0] : TUMOR[2]] = np.array((150, 90, 160)) - tint
    image[100:130, 100:140] = 243  # a tear in the outlined dermis
    image[500:, 700:] = 0
    grain = np.random.default_rng([sample, CODES.index(scanner)]).normal(0, 3, image.shape)
    return np.where(image == 0, 0, np.clip(image + grain, 1, 255)).astype(np.uint8)


def class_of(row: int, column: int, image: np.ndarray, white: float) -> int:
    """Reference for one pixel."""

    def lies_in(box: tuple[int, int, int, int]) -> bool:
        return box[0] <= column <= box[2] and box[1] <= row <= box[3]

    in_ring = lies_in(RING[0]) and not (RING[1][0] < column < RING[1][2] and RING[1][1] < row < RING[1][3])
    for box, value in ((NECROSIS, 1), (TUMOR, 2), (DERMIS, 1)):
        if lies_in(box) and not in_ring:
            return value
    if in_ring:
        return 1
    gray = image[row, column] @ np.array((0.299, 0.587, 0.114))
    return 0 if round(gray) > white or round(gray) == 0 else 1


def otsu(values: np.ndarray) -> int:
    """Reference: the threshold with the largest variance between what is up to it and what is above."""
    best, threshold = -1.0, 0
    for t in range(255):
        low, high = values[values <= t], values[values > t]
        if low.size and high.size:
            between = low.size * high.size * (low.mean() - high.mean()) ** 2
            if between > best * (1 + 1e-9):
                best, threshold = between, t
    return threshold


def annotations(image_id: int) -> list[dict[str, Any]]:
    outlines: list[tuple[str, Any]] = [
        ("Dermis", rectangle(*DERMIS)),  # as in the authors' tables, without a list around
        ("SCC", [rectangle(*TUMOR)]),
        ("Inflamm/Necrosis", rectangle(*NECROSIS)),
        ("Epidermis", [rectangle(*RING[0]), rectangle(*RING[1])]),
    ]
    return [
        {"image_id": image_id, "category_id": CATEGORIES.index(name) + 1, "segmentation": ring, "iscrowd": 0}
        for name, ring in outlines
    ]


@pytest.fixture(scope="module")
def drawn_slides(tmp_path_factory) -> pathlib.Path:
    raw = tmp_path_factory.mktemp("slides") / "raw"
    (raw / "slides").mkdir(parents=True)
    images, outlines = [], []
    for sample in SAMPLES:
        for scanner in CODES:
            name = f"scc_{sample:02d}_{scanner}.tif"
            options = {"tile": (128, 128), "compression": "zlib"} if scanner == "cs2" else {"rowsperstrip": 64}
            tifffile.imwrite(
                raw / "slides" / name, slide(sample, scanner), photometric="rgb", resolution=(2500, 2000),
                resolutionunit="CENTIMETER", metadata=None, **options,
            )  # fmt: skip
            number = len(images) + 1
            images.append({"id": number, "file_name": name, "width": SLIDE[1], "height": SLIDE[0]})
            outlines += annotations(number)
    images.append({"id": 99, "file_name": "scc_01_gt450.tif", "width": 9, "height": 9})  # a scanner that is left out
    categories = [{"id": i, "name": name} for i, name in enumerate(CATEGORIES, 1)]
    write_json(raw / "scc.json", {"categories": categories, "images": images, "annotations": outlines})
    return raw


@pytest.fixture
def slides(tmp_path, drawn_slides) -> pathlib.Path:
    return shutil.copytree(drawn_slides, tmp_path / "raw")


def found_in(slides: pathlib.Path, side: int = 256) -> list[Any]:
    found = ms_cct.MsCct.find(slides, ms_cct.MsCct.config(str(side)))
    assert found.problems == []
    return list(found.cases)


def test_patches_of_slides_hold_their_pixels_and_classes(slides, monkeypatch):
    monkeypatch.setattr(ms_cct, "_PATCHES", 6)
    monkeypatch.setattr(doctor, "_OVERLAY_CASES", 0)  # the search takes longer than all the rest
    cases = {case.case: case for case in found_in(slides)}
    found = prepared("ms_cct/256", slides)
    assert found.keys() == cases.keys()
    assert {case["domain"] for case in found.values()} == set(CODES)
    splits = {1: "train", 2: "train", 3: "validation", 7: "test"}
    rng = np.random.default_rng(0)
    whole = {(sample, scanner): slide(sample, scanner) for sample in SAMPLES for scanner in CODES}
    white = {
        key: otsu(np.where((gray := cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) == 0, 255, gray)[::8, ::8])
        for key, image in whole.items()
    }
    for name, case in found.items():
        _, sample, scanner, _ = name.split("_")
        assert case["patient"] == f"scc_{sample}" and case["domain"] == scanner
        assert case["split"] == splits[int(sample)]
        image, patch = whole[int(sample), scanner], cases[name].part
        part = np.s_[patch.top : patch.top + 256, patch.left : patch.left + 256]
        np.testing.assert_array_equal(case["image"], image[part])
        np.testing.assert_allclose(case["spacing"], (0.005, 0.004), rtol=1e-5)
        for row, column in rng.integers(0, 256, (30, 2)):
            wanted = class_of(patch.top + row, patch.left + column, image, white[int(sample), scanner])
            assert case["labels"][row, column] == wanted


def test_training_patches_have_the_shares_of_the_paper(slides):
    counts = defaultdict(Counter)
    for case in found_in(slides):
        if case.split != "test":
            counts[case.images[0].name][case.split] += 1
    assert {name: dict(count) for name, count in counts.items()} == {
        f"scc_{sample:02d}_{code}.tif": {"validation" if sample == 3 else "train": 32}
        for sample in (1, 2, 3)
        for code in CODES
    }
    seen = np.full((60, 90), 255, np.uint8)  # lattice points that nobody looked at must not be a centre
    seen[5:20, 5:40], seen[25:50, 30:60], seen[5:50, 70:80] = 1, 2, 0
    shares = Counter()
    for seed in range(50):
        corners = list(ms_cct._sampled(seen, (480, 720), 64, np.random.default_rng(seed)))
        centres = Counter(int(seen[(top + 32) // 8, (left + 32) // 8]) for top, left in corners)
        assert len(set(corners)) == 32 and centres.keys() == {0, 1, 2}
        assert all(abs(centres[k] - share) < 1 for k, share in enumerate((3.2, 14.4, 14.4)))
        assert all(0 <= top <= 480 - 64 and 0 <= left <= 720 - 64 for top, left in corners)
        shares.update(centres)
    assert abs(shares[1] / shares[2] - 1) < 0.02 and abs(shares[0] / 1600 - 0.1) < 0.01


def test_a_class_that_a_slide_lacks_gives_its_patches_to_the_others():
    seen = np.full((60, 60), 1, np.uint8)
    seen[:, 30:] = 2
    corners = list(ms_cct._sampled(seen, (480, 480), 64, np.random.default_rng(0)))
    assert Counter(left + 32 >= 240 for _, left in corners) == {False: 16, True: 16}
    assert list(ms_cct._sampled(np.full((9, 9), 255), (72, 72), 8, np.random.default_rng(0))) == []


def test_patches_for_testing_are_the_grid_where_most_is_tissue(slides):
    corners = {(case.part.top, case.part.left) for case in found_in(slides) if case.split == "test"}
    wanted = set()
    for top in (0, 256):
        for left in (0, 256, 512):
            tissue = np.zeros(SLIDE, bool)
            tissue[DERMIS[1] : DERMIS[3], DERMIS[0] : DERMIS[2] + 60] = True
            tissue[RING[0][1] : RING[0][3], RING[0][0] : RING[0][2]] = True
            if tissue[top : top + 256, left : left + 256].mean() > 0.5:
                wanted.add((top, left))
    assert corners == wanted and (0, 0) in wanted and len(wanted) == 6


def test_patches_are_the_same_whatever_else_is_there(slides):
    before = {case.case: case.part[1:] for case in found_in(slides)}
    for path in (slides / "slides").glob("*_cs2.tif"):
        path.unlink()
    after = {case.case: case.part[1:] for case in found_in(slides)}
    assert after == {name: part for name, part in before.items() if "nz210" in name}


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (64, 96), "compression": "jpeg"},
        {"tile": (64, 64), "compression": "lzw", "predictor": True},
        {"tile": (64, 64)},
        {"rowsperstrip": 17, "compression": "zlib"},
        {},
    ],
)
def test_a_part_of_a_slide_is_that_part_of_the_whole(tmp_path, options):
    image = np.asarray(Image.fromarray(noise(20, 30, 3)).resize((250, 190)))
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", metadata=None, **options)
    whole = tifffile.imread(tmp_path / "a.tif")
    for corner, size in (((0, 0), (190, 250)), ((63, 95), (66, 98)), ((150, 1), (40, 40)), ((64, 96), (64, 96))):
        part = np.s_[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
        np.testing.assert_array_equal(ms_cct._region(tmp_path / "a.tif", corner, size), whole[part])


@pytest.mark.parametrize("resolution", [(72, 72), None])
def test_a_resolution_that_no_scanner_has_is_unknown(tmp_path, resolution):
    tifffile.imwrite(tmp_path / "a.tif", noise(80, 80, 3), photometric="rgb", resolution=resolution, metadata=None)
    _, opened = ms_cct._open(tmp_path / "a.tif", ())
    assert np.isnan(opened.spacing).all() and opened.size == (80, 80)


def outlines_changed(raw: pathlib.Path, change: Callable[[Any], Any]) -> None:
    content = json.loads((raw / "scc.json").read_text())
    change(content)
    write_json(raw / "scc.json", content)


BAD_SLIDES: dict[str, tuple[Callable[[pathlib.Path], Any], list[tuple[str, ...]]]] = {
    "unknown scanner": (
        lambda raw: (raw / "slides/scc_02_cs2.tif").rename(raw / "slides/scc_02_cs3.tif"),
        [
            ("slides/scc_02_cs3.tif", "wrong name; slides are named scc_NN_SCANNER.tif with one of cs2, nz210,"),
            ("scc_02_cs2.tif", "is not there, scc.json names it; add it, or leave out all slides of its scanner"),
        ],
    ),
    "a slide in no table": (
        lambda raw: outlines_changed(raw, lambda content: content["images"][0].update(file_name="scc_05_gt450.tif")),
        [("slides/scc_01_cs2.tif", "scc.json does not name it; use the table that belongs to the slides")],
    ),
    "no table": (lambda raw: (raw / "scc.json").unlink(), [("scc.json", "no such file")]),
    "damaged table": (
        lambda raw: (raw / "scc.json").write_text('{"images": ['),
        [("scc.json", "cannot be read as JSON (", "; fetch it again")],
    ),
    "table without annotations": (
        lambda raw: outlines_changed(raw, lambda content: content.pop("annotations")),
        [("scc.json", "is not as MS COCO tables are (no 'annotations')")],
    ),
    "unknown tissue": (
        lambda raw: outlines_changed(raw, lambda content: content["annotations"][3].update(category_id=7)),
        [("scc.json", "is not as MS COCO tables are (annotation 4 has the unknown category 7)")],
    ),
    "outline of two points": (
        lambda raw: outlines_changed(raw, lambda content: content["annotations"][0].update(segmentation=[1, 2, 3, 4])),
        [("scc.json", "is not as MS COCO tables are (an outline of 2 points)")],
    ),
    "empty outline": (
        lambda raw: outlines_changed(raw, lambda content: content["annotations"][0].update(segmentation=[])),
        [("scc.json", "is not as MS COCO tables are (")],
    ),
    "endless outline": (
        lambda raw: outlines_changed(
            raw, lambda content: content["annotations"][0].update(segmentation=rectangle(0, 0, 9, math.nan))
        ),
        [("scc.json", "is not as MS COCO tables are (an outline without an end)")],
    ),
    "outline outside": (
        lambda raw: outlines_changed(
            raw, lambda content: content["annotations"][1].update(segmentation=rectangle(900, 10, 950, 20))
        ),
        [("slides/scc_01_cs2.tif", "an outline in scc.json lies outside of its 800x530 pixels (at 900, 10)")],
    ),
    "no outline": (
        lambda raw: outlines_changed(raw, lambda content: content.update(annotations=content["annotations"][4:])),
        [("slides/scc_01_cs2.tif", "scc.json has no outline in it; leave it out")],
    ),
    "another size": (
        lambda raw: outlines_changed(raw, lambda content: content["images"][1].update(width=1600, height=1060)),
        [("slides/scc_01_nz210.tif", "is 800x530, scc.json says 1600x1060; use the slides that belong")],
    ),
    "half a slide": (
        lambda raw: (raw / "slides/scc_01_cs2.tif").write_bytes((raw / "slides/scc_01_cs2.tif").read_bytes()[:5000]),
        [("slides/scc_01_cs2.tif", "cannot be read as a slide (", "; fetch it again")],
    ),
    "a gray slide": (
        lambda raw: tifffile.imwrite(raw / "slides/scc_01_cs2.tif", slide(1, "cs2")[..., 0]),
        [("slides/scc_01_cs2.tif", "cannot be read as a slide (uint8 (530, 800), slides are RGB of 8 bits)")],
    ),
    "no slides": (
        lambda raw: [path.unlink() for path in (raw / "slides").iterdir()],
        [("", "holds no slide (scc_NN_SCANNER.tif)")],
    ),
}


@pytest.mark.parametrize("kind", BAD_SLIDES)
def test_bad_files_of_ms_cct_are_lines(slides, kind):
    damage, wanted = BAD_SLIDES[kind]
    damage(slides)
    found = ms_cct.MsCct.find(slides, ms_cct.MsCct.config("256"))
    assert_lines(found.problems, slides, *wanted)


def test_a_slide_smaller_than_a_patch_is_one_line(slides):
    for path in (slides / "slides").glob("scc_0[237]*"):
        path.unlink()
    small = slide(1, "cs2")[:300, :700]
    for code in CODES:
        tifffile.imwrite(slides / "slides" / f"scc_01_{code}.tif", small, photometric="rgb")
    outlines_changed(slides, lambda content: content.update(images=content["images"][:2], annotations=annotations(1)))
    outlines_changed(slides, lambda content: [image.update(width=700, height=300) for image in content["images"]])
    lines = ms_cct.MsCct.find(slides, ms_cct.MsCct.config("512")).problems
    assert_lines(
        lines,
        slides,
        ("slides/scc_01_nz210.tif", "scc.json has no outline in it"),
        ("slides/scc_01_cs2.tif", "is 700x300, smaller than a patch of 512x512"),
    )


# A folder of one's own.

FLAT = (14, 18)  # rows, columns
DEEP = (5, *FLAT)
NAMES = [f"case{i}" for i in range(5)]
Arrays = dict[str, np.ndarray]


def write_cases(
    raw: pathlib.Path, image: str, mask: str, *, columns: Sequence[str] = COLUMNS, more: Sequence[str] = ()
) -> None:
    """A line for every case; `{}` is its name."""
    raw.mkdir(exist_ok=True)
    with (raw / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for i, name in enumerate(NAMES):
            row = (name, image.replace("{}", name), mask.replace("{}", name), f"site{i % 2}", f"patient{i}")
            table.writerow((*row, *more[i : i + 1]))


def masks_of(raw: pathlib.Path, inside: int = 255) -> Arrays:
    found = {}
    for i, name in enumerate(NAMES):
        found[name] = np.zeros(FLAT, np.uint8)
        found[name][2 + i : 9, 3 : 9 + i] = inside
        save(raw / "masks" / f"{name}.png", found[name])
    return found


def spread(*shape: int, seed: int, kind: Any = np.uint16, high: int = 4000) -> np.ndarray:
    """Skewed, so that percentiles are not the ends."""
    return (np.random.default_rng(seed).random(shape) ** 4 * high).astype(kind)


def dicom(array: np.ndarray, number: int, z: float | None, *, series: str, **attributes: Any) -> pydicom.Dataset:
    """A slice of an axial series, whose rows run to the left and whose columns run to the back."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    file.SeriesInstanceUID, file.InstanceNumber = UID(series), number
    file.Rows, file.Columns = array.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8 * array.itemsize
    file.HighBit, file.PixelRepresentation = 8 * array.itemsize - 1, 0
    file.PixelSpacing = [0.7, 0.6]
    if z is not None:
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    file.PixelData = array.tobytes()
    for name, value in attributes.items():
        setattr(file, name, value)
    return file


def write_dicom(path: pathlib.Path, file: pydicom.Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def write_nifti(path: pathlib.Path, array: np.ndarray, zooms: Sequence[float] = (-0.6, -0.7, 2.5)) -> None:
    """An array `[D,H,W]`; negative sizes run to the left and to the back, as in `dicom`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(), np.diag((*zooms, 1.0))), path)


SAVED: dict[str, tuple[Callable[[pathlib.Path, np.ndarray], Any], bool]] = {  # and whether it has colour
    "png": (save, True),
    "bmp": (save, True),
    "tif": (lambda path, array: tifffile.imwrite(path, array, photometric="rgb", compression="zlib"), True),
    "tiff": (lambda path, array: tifffile.imwrite(path, array, compression="lzw"), False),
    "dcm": (lambda path, array: write_dicom(path, dicom(array, 1, 0.0, series="1.2.3")), False),
}


@pytest.mark.parametrize("ending", SAVED)
def test_pictures_of_8_bits_stay_as_they_are(tmp_path, ending):
    raw = tmp_path / "raw"
    write, colour = SAVED[ending]
    masks = masks_of(raw)
    images = {name: noise(*FLAT, *[3] * colour, seed=i) for i, name in enumerate(NAMES)}
    for name, image in images.items():
        write(raw / f"{name}.{ending}", image)
    write_cases(raw, f"{{}}.{ending}", "masks/{}.png")
    found = prepared("folder/mine", raw)
    assert list(found) and {case["split"] for case in found.values()} == set(SPLITS)
    for i, name in enumerate(NAMES):
        case = found[name]
        np.testing.assert_array_equal(case["image"].squeeze(), images[name])
        np.testing.assert_array_equal(case["labels"], masks[name] > 0)
        assert (case["domain"], case["patient"]) == (f"site{i % 2}", f"patient{i}")
        np.testing.assert_allclose(case["spacing"], (0.7, 0.6) if ending == "dcm" else (math.nan,) * 2, rtol=1e-6)


def test_jpegs_are_read_as_pillow_reads_them_and_gray_ones_become_colour(tmp_path):
    raw = tmp_path / "raw"
    masks_of(raw)
    for i, name in enumerate(NAMES):
        save(raw / f"{name}.jpg", noise(*FLAT, *[3] * (i != 2), seed=i), quality=90)
    write_cases(raw, "{}.jpg", "masks/{}.png")
    for name, case in prepared("folder/mine", raw).items():
        with Image.open(raw / f"{name}.jpg") as image:
            np.testing.assert_array_equal(case["image"], np.asarray(image.convert("RGB")))


def scaled(array: np.ndarray) -> np.ndarray:
    """Reference for one channel: the percentiles 0.5 and 99.5 become 0 and 255."""
    low, high = np.percentile(array.astype(np.float32), (0.5, 99.5))
    return np.rint(np.clip((array.astype(np.float32) - low) / (high - low), 0, 1) * 255)


@pytest.mark.parametrize("ending", ["png", "tif", "dcm"])
def test_pictures_of_16_bits_are_scaled_by_percentiles(tmp_path, ending):
    raw = tmp_path / "raw"
    masks_of(raw)
    write = {"png": save, "tif": tifffile.imwrite, "dcm": SAVED["dcm"][0]}[ending]
    images = {name: spread(*FLAT, seed=i) for i, name in enumerate(NAMES)}
    for name, image in images.items():
        write(raw / f"{name}.{ending}", image)
    write_cases(raw, f"{{}}.{ending}", "masks/{}.png")
    for name, case in prepared("folder/mine", raw).items():
        assert np.abs(case["image"][..., 0] - scaled(images[name])).max() <= 1  # float32 may round the other way
        assert {0, 255} <= set(np.unique(case["image"]))


def test_dicom_intensities_are_rescaled_and_monochrome1_is_white_where_low(tmp_path):
    array = np.array([[100, 250], [200, 150]], np.uint8)
    write_dicom(tmp_path / "a.dcm", dicom(array, 1, 0.0, series="1.2", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(formats.read(tmp_path / "a.dcm").array[..., 0], [[155, 5], [55, 105]])
    write_dicom(tmp_path / "b.dcm", dicom(array, 1, 0.0, series="1.2", RescaleSlope=2, RescaleIntercept=-1024))
    picture = formats.read(tmp_path / "b.dcm")
    np.testing.assert_array_equal(picture.array[..., 0], 2.0 * array - 1024)
    assert picture.orientation == "PL"


def shuffled_series(raw: pathlib.Path, volumes: Arrays, **options: Any) -> None:
    """File names, instance numbers and places in three orders; places are 2.5 mm apart."""
    for i, (name, volume) in enumerate(volumes.items()):
        rng = np.random.default_rng(i)
        files, numbers = rng.permutation(len(volume)), rng.permutation(len(volume))
        for z, plane in enumerate(volume):
            file = dicom(plane, int(numbers[z]) + 1, 2.5 * z, series=f"1.2.{i + 1}", **options)
            write_dicom(raw / "series" / name / f"IM{files[z]:03d}.dcm", file)


def volume_masks(raw: pathlib.Path) -> Arrays:
    found = {}
    for i, name in enumerate(NAMES):
        found[name] = np.zeros(DEEP, np.uint8)
        found[name][1:4, 2 + i : 9, 3:10] = 1
        found[name][2, 5:7, 5 : 7 + i] = 2
        write_nifti(raw / "masks" / f"{name}.nii.gz", found[name])
    return found


@pytest.mark.parametrize("kind", ["dicom", "nifti", "tiff"])
def test_volumes_are_kept_whole_or_cut_into_slices(tmp_path, kind):
    raw = tmp_path / "raw"
    masks = volume_masks(raw)
    volumes = {name: spread(*DEEP, seed=i) for i, name in enumerate(NAMES)}
    if kind == "dicom":
        shuffled_series(raw, volumes)
    for name, volume in volumes.items():
        if kind == "nifti":
            write_nifti(raw / f"{name}.nii", volume)
        elif kind == "tiff":
            tifffile.imwrite(raw / f"{name}.tif", volume, photometric="minisblack")
            tifffile.imwrite(raw / "masks" / f"{name}.tif", masks[name], photometric="minisblack")
    image, mask = {
        "dicom": ("series/{}", "masks/{}.nii.gz"),
        "nifti": ("{}.nii", "masks/{}.nii.gz"),
        "tiff": ("{}.tif", "masks/{}.tif"),
    }[kind]
    write_cases(raw, image, mask)
    whole, slices = prepared("folder/mine-volumes", raw), prepared("folder/mine", raw)
    assert whole.keys() == set(NAMES)
    assert slices.keys() == {f"{name}_{z:03d}" for name in NAMES for z in range(DEEP[0])}
    for name in NAMES:
        wanted = scaled(volumes[name])
        assert np.abs(whole[name]["image"][..., 0] - wanted).max() <= 1
        np.testing.assert_array_equal(whole[name]["labels"], masks[name])
        spacing = np.full(3, math.nan) if kind == "tiff" else (2.5, 0.7, 0.6)
        np.testing.assert_allclose(whole[name]["spacing"], spacing, rtol=1e-6)
        for z in range(DEEP[0]):
            case = slices[f"{name}_{z:03d}"]
            np.testing.assert_array_equal(case["image"], whole[name]["image"][z])
            np.testing.assert_array_equal(case["labels"], masks[name][z])
            assert (case["patient"], case["split"]) == (whole[name]["patient"], whole[name]["split"])
            np.testing.assert_allclose(case["spacing"], spacing[1:], rtol=1e-6)


def test_a_series_without_places_is_in_the_order_of_its_numbers(tmp_path):
    for number, value in ((3, 30), (1, 10), (2, 20)):
        plane = np.full(FLAT, value, np.uint8)
        file = dicom(plane, number, None, series="1.2", SpacingBetweenSlices=4.5)
        write_dicom(tmp_path / f"{9 - number}.dcm", file)
    picture = formats.read(tmp_path)
    assert picture.array[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert picture.spacing == (4.5, 0.7, 0.6) and picture.orientation == ""


@pytest.mark.parametrize(
    ("direction", "orientation"),
    [
        ([1, 0, 0, 0, 1, 0], "SPL"),
        ([0, 1, 0, 0, 0, -1], "RIP"),  # sagittal: right is the normal, rows follow each other downwards
        ([1, 0, 0, 0, 0, -1], "PIL"),
        ([0.9, 0.1, 0.1, -0.1, 0.9, -0.3], "SPL"),
    ],
)
def test_orientation_of_dicom_is_that_of_the_same_nifti(tmp_path, direction, orientation):
    row, column = np.reshape(np.array(direction, float), (2, 3))
    row, column = (axis / np.linalg.norm(axis) for axis in (row, column - row * (row @ column) / (row @ row)))
    normal = np.cross(row, column)
    for z in range(3):
        file = dicom(np.zeros(FLAT, np.uint8), z + 1, 0.0, series="1.2")
        file.ImageOrientationPatient = [f"{value:.6f}" for value in (*row, *column)]
        file.ImagePositionPatient = [f"{value:.6f}" for value in 3 * z * normal]
        write_dicom(tmp_path / "series" / f"{z}.dcm", file)
    affine = np.eye(4)
    affine[:3, :3] = np.diag((-1, -1, 1)) @ np.stack([row, column, normal], 1)  # NIfTI's x and y run the other way
    nibabel.save(nibabel.Nifti1Image(np.zeros(DEEP, np.uint8), affine), tmp_path / "a.nii")
    assert formats.read(tmp_path / "series").orientation == formats.read(tmp_path / "a.nii").orientation == orientation


def test_a_mask_that_is_turned_against_its_dicom_series_is_one_line(tmp_path):
    raw = tmp_path / "raw"
    masks = volume_masks(raw)
    shuffled_series(raw, {name: spread(*DEEP, seed=i) for i, name in enumerate(NAMES)})
    write_nifti(raw / "masks" / "case1.nii.gz", masks["case1"], (0.6, 0.7, 2.5))
    write_cases(raw, "series/{}", "masks/{}.nii.gz")
    assert_lines(
        problems("folder/mine", raw),
        raw,
        ("masks/case1.nii.gz", "mm to RAS from (0, 0, 0), its image is", "mm to LPS from"),
    )


@pytest.mark.parametrize("named", [False, True])
def test_class_numbers_and_their_names(tmp_path, named):
    raw = tmp_path / "raw"
    masks = masks_of(raw, inside=3)
    for i, name in enumerate(NAMES):
        masks[name][0, : i + 1] = 1
        save(raw / "masks" / f"{name}.png", masks[name])
        save(raw / f"{name}.png", noise(*FLAT, seed=i))
    write_cases(raw, "{}.png", "masks/{}.png")
    if named:
        (raw / "classes.csv").write_text("name,value\nnothing,0\nnucleus,3\ncytoplasm,1\n")
    directory = prepare("folder/mine", raw)
    names = pipeline.Split(directory, "train", size=None).class_names
    assert names == (("nothing", "nucleus", "cytoplasm") if named else ("background", "class 1", "class 2", "class 3"))
    table = np.array((0, 2, 255, 1)) if named else np.arange(4)
    for split in SPLITS:
        for case in pipeline.Split(directory, split, size=None):
            np.testing.assert_array_equal(case["labels"], table[masks[case["case"]]])


MODALITIES: dict[str, tuple[str, ...]] = {  # endings; `rgb` has three channels, `16` has 16 bits
    "four": ("1.png", "2.png", "3.png", "4.png"),
    "five": ("1.png", "2.png", "3.png", "4.png", "5.png"),
    "two": ("1.png", "2.png"),
    "colour and gray": ("rgb.png", "1.png"),
    "gray and colour": ("1.png", "rgb.png"),
    "8 and 16 bits": ("1.png", "16.png"),
}


@pytest.mark.parametrize("kind", MODALITIES)
def test_modalities_become_channels(tmp_path, kind):
    raw = tmp_path / "raw"
    masks = masks_of(raw)
    wanted = {}
    for i, name in enumerate(NAMES):
        parts = []
        for j, ending in enumerate(MODALITIES[kind]):
            part = noise(*FLAT, *[3] * ending.startswith("rgb"), seed=10 * i + j)
            part = spread(*FLAT, seed=i) if ending.startswith("16") else part
            save(raw / f"{name}_{ending}", part)
            parts.append(np.atleast_3d(part))
        wanted[name] = np.concatenate(parts, -1)
    write_cases(raw, "; ".join(f"{{}}_{ending}" for ending in MODALITIES[kind]), "masks/{}.png")
    directory = prepare("folder/mine", raw)
    assert pipeline.Split(directory, "train", size=None).num_channels == wanted["case0"].shape[-1]
    for split in SPLITS:
        for case in pipeline.Split(directory, split, size=None):
            image = wanted[case["case"]]
            if image.dtype == np.uint16:
                image = np.stack([scaled(image[..., c]) for c in range(image.shape[-1])], -1)
            assert np.abs(case["image"] - image.astype(float)).max() <= (image.dtype != np.uint8)
            np.testing.assert_array_equal(case["labels"], masks[case["case"]] > 0)
    small = pipeline.Split(directory, "train", size=8)[0]
    assert small["image"].shape == (8, 8, wanted["case0"].shape[-1])


def test_the_split_column_is_obeyed(tmp_path):
    raw = tmp_path / "raw"
    masks_of(raw)
    splits = ("test", "train", "validation", "train", "test")
    for i, name in enumerate(NAMES):
        save(raw / f"{name}.png", noise(*FLAT, seed=i))
    write_cases(raw, "{}.png", "masks/{}.png", columns=(*COLUMNS, "split"), more=splits)
    found = prepared("folder/mine", raw)
    assert tuple(found[name]["split"] for name in NAMES) == splits


def table_changed(old: str, new: str) -> Callable[[pathlib.Path], None]:
    def change(raw: pathlib.Path) -> None:
        text = (raw / "cases.csv").read_text()
        assert old in text
        (raw / "cases.csv").write_text(text.replace(old, new, 1))

    return change


BAD_TABLES: dict[str, tuple[Callable[[pathlib.Path], Any], list[tuple[str, ...]]]] = {
    "no table": (lambda raw: (raw / "cases.csv").unlink(), [("cases.csv", "no such file; write a table with")]),
    "no column": (table_changed("mask", "labels"), [("cases.csv", "lacks the column mask")]),
    "another name for the patient": (
        table_changed("patient", "Patient_ID"),
        [("cases.csv", "has the column patient_id but none called patient; rename it, or leave it out")],
    ),
    "field too many": (
        table_changed("patient1", "patient1,9"),
        [("cases.csv", "line 3 has 6 fields, the first line 5")],
    ),
    "no image": (table_changed("case2.png", ""), [("cases.csv", "line 4 has no image; fill it in")]),
    "missing": (table_changed("case2.png", "x.png"), [("x.png", "is not there, cases.csv names it in line 4")]),
    "endless name": (
        table_changed("case2.png", "x" * 300),
        [("x" * 300, "is not there, cases.csv names it in line 4")],
    ),
    "unknown format": (table_changed("case2.png", "cases.csv"), [("cases.csv", "is of no known format; use one of")]),
    "channels differ": (
        table_changed("case2.png", "case2.png;case3.png"),
        [("case2.png", "has 2 channels, the data set has 1; convert it")],
    ),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_table_is_one_line(tmp_path, kind):
    raw = tmp_path / "raw"
    masks_of(raw)
    for i, name in enumerate(NAMES):
        save(raw / f"{name}.png", noise(*FLAT, seed=i))
    write_cases(raw, "{}.png", "masks/{}.png")
    damage, wanted = BAD_TABLES[kind]
    damage(raw)
    assert_lines(problems("folder/mine", raw), raw, *wanted)


@pytest.mark.parametrize("name", ["wbc_two_labs", "sunnybrook_ge", "lgg_sites_128", "busi_text"])
def test_real_folders_hold_what_pillow_reads(real_data, tmp_path, name):
    with (real_data / name / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patients = list(dict.fromkeys(row["patient"] for row in rows))
    chosen = set(patients[:: max(1, len(patients) // 12)])
    rows = [row for row in rows if row["patient"] in chosen][:60]
    raw = tmp_path / "raw"
    raw.mkdir()
    for folder in ("images", "masks"):
        (raw / folder).symlink_to((real_data / name / folder).resolve())
    with (raw / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({column: row[column] for column in COLUMNS} for row in rows)
    found = prepared(f"folder/{name}", raw)
    assert found.keys() == {row["case"] for row in rows}
    for row in rows:
        case = found[row["case"]]
        assert (case["domain"], case["patient"]) == (row["domain"], row["patient"])
        with Image.open(raw / row["image"]) as image:
            mode = {1: "L", 3: "RGB"}[case["image"].shape[-1]]
            np.testing.assert_array_equal(case["image"].squeeze(), np.asarray(image.convert(mode)))
        with Image.open(raw / row["mask"]) as mask:
            values = np.asarray(mask)
        np.testing.assert_array_equal(case["labels"], values // 255 if 255 in values else values)
