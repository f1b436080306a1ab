"""What a person writes into `cases.csv` and means: separators, spellings of names, splits, and how files are scaled."""

import itertools
import os
import pathlib
import re
import unicodedata
from collections.abc import Sequence

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg.data import builders, case_facts, diagnosis, pipeline, raw_cases
from jaxseg.data.builders import case_table, looks
from jaxseg.data.inputs import gray_levels
from jaxseg.errors import InputError
from jaxseg.prediction import inputs

NUMBERS = range(4)
NFC, NFD = (unicodedata.normalize(form, "Müller_é") for form in ("NFC", "NFD"))


def write_files(place: pathlib.Path, *, name: str = "image{}.png", mask: str = "mask{}.png") -> None:
    for i in NUMBERS:
        for path in (place / name.format(i), place / mask.format(i)):
            path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (12, 16), np.uint8)
        Image.fromarray(noise).save(place / name.format(i))
        labels = np.zeros((12, 16), np.uint8)
        labels[3:9, 2 + i : 9 + i] = 255
        Image.fromarray(labels).save(place / mask.format(i))


def table_text(name: str = "image{}.png", mask: str = "mask{}.png", separator: str = ",", end: str = "\n") -> str:
    rows = [("case", "image", "mask"), *((f"c{i}", name.format(i), mask.format(i)) for i in NUMBERS)]
    return "".join(separator.join(row) + end for row in rows)


def read(place: pathlib.Path, content: str | bytes) -> tuple[list[raw_cases.RawCase], list[str]]:
    (place / "cases.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return case_table.read(place / "cases.csv")


# Tables.


@pytest.mark.parametrize(
    "content",
    [
        table_text(),
        table_text(separator=";"),
        table_text(separator="\t"),
        table_text(separator=";", end="\r\n"),
        table_text(end="\r"),
        "\ufeff" + table_text(separator=";"),
        "sep=;\r\n" + table_text(separator=";", end="\r\n"),
        table_text(separator=";") + ";;\n",
        table_text().replace("case,image,mask", "Case, Image ,MASK"),
        table_text('"image{}.png"', '"mask{}.png"'),
        table_text('"image{}.png"', separator=";").replace("case;", '"case";'),
        table_text("image{}.png  ", "  ./mask{}.png"),
        table_text(separator=",").replace("mask\n", "mask,weight;kg\n").replace("png\n", "png,70\n"),
    ],
)
def test_a_table_is_read_as_any_spreadsheet_writes_it(tmp_path, content):
    write_files(tmp_path)
    found, problems = read(tmp_path, content)
    assert problems == []
    assert [(case.case, case.images[0].name, case.mask.name, case.patient, case.domain) for case in found] == [
        (f"c{i}", f"image{i}.png", f"mask{i}.png", f"c{i}", "") for i in NUMBERS
    ]


def test_lines_are_counted_from_the_first_one_of_the_file(tmp_path):
    write_files(tmp_path)
    for start in ("", "sep=,\n"):
        _, problems = read(tmp_path, start + table_text().replace("image2.png", "lost.png"))
        line = 4 + bool(start)
        assert problems == [f"{tmp_path}/lost.png: is not there, cases.csv names it in line {line}; add it"]


def test_several_images_are_separated_by_semicolons_in_a_table_of_semicolons_too(tmp_path):
    write_files(tmp_path)
    found, problems = read(tmp_path, table_text('"image{0}.png;mask{0}.png"', separator=";"))
    assert problems == [] and [path.name for path in found[1].images] == ["image1.png", "mask1.png"]


# Names.

SPELLINGS = {
    "composed in the table, decomposed on the disk": (NFC + "{}.png", NFD + "{}.png"),
    "decomposed in the table, composed on the disk": (NFD + "{}.png", NFC + "{}.png"),
    "in a folder of that name": (f"{NFC}/{NFD}{{}}.png", f"{NFD}/{NFC}{{}}.png"),
    "backslashes": ("images\\sub\\a{}.png", "images/sub/a{}.png"),
    "backslashes and accents": (f".\\{NFC}\\a{{}}.png", f"{NFD}/a{{}}.png"),
    "a backslash in the name of the file": ("images\\a{}.png", "images\\a{}.png"),
    "a folder up": ("sub/../image{}.png", "image{}.png"),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_name_means_the_file_that_a_person_sees(tmp_path, kind):
    written, stored = SPELLINGS[kind]
    (tmp_path / "sub").mkdir()
    write_files(tmp_path, name=stored)
    found, problems = read(tmp_path, table_text(written))
    assert problems == []
    assert [case.images[0].resolve() for case in found] == [tmp_path / stored.format(i) for i in NUMBERS]


def test_of_two_spellings_in_one_folder_the_one_that_is_written_is_meant(tmp_path):
    write_files(tmp_path, name=NFC + "{}.png")
    write_files(tmp_path, name=NFD + "{}.png")
    for name in (NFC, NFD):
        found, problems = read(tmp_path, table_text(name + "{}.png"))
        assert problems == [] and [case.images[0].name for case in found] == [f"{name}{i}.png" for i in NUMBERS]
    half = unicodedata.normalize("NFC", "Müller_") + unicodedata.normalize("NFD", "é")
    _, problems = read(tmp_path, table_text(half + "{}.png"))
    assert len(problems) == 4 and all(
        "may be 'Mu\\u0308ller" in p and p.endswith("rename one of them") for p in problems
    )


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("Image{}.PNG", "is there as image2.png, cases.csv names it in line 4; write it so"),
        ("IMAGES\\a.{}.png", "is there as images/A.2.png, cases.csv names it in line 4; write it so"),
        (
            "D:\\scans\\image{}.png",
            "is not there, cases.csv names it in line 4; name it by its place below the table's",
        ),
        ("/scans/image{}.png", "is not there, cases.csv names it in line 4; name it by its place below the table's"),
        ("a{{b}}%s{}.png", "is not there, cases.csv names it in line 4; add it"),
        ("image{}/x.png", "is not there, cases.csv names it in line 4; add it"),
    ],
)
def test_a_name_that_a_person_would_not_take_for_the_files_is_said(tmp_path, written, wanted):
    write_files(tmp_path)
    write_files(tmp_path, name="images/A.{}.png")
    found, problems = read(tmp_path, table_text(written))
    assert found == [] and len(problems) == 4 and wanted in problems[2], problems


def test_an_absolute_name_that_is_there_is_taken(tmp_path):
    write_files(tmp_path / "elsewhere", name=NFD + "{}.png")
    write_files(tmp_path)
    found, problems = read(tmp_path, table_text(f"{tmp_path}/elsewhere/{NFC}{{}}.png"))
    assert problems == [] and found[3].images == (tmp_path / "elsewhere" / f"{NFD}3.png",)


def test_a_patient_is_the_same_however_the_accents_are_stored(tmp_path):
    write_files(tmp_path)
    rows = [f"c{i},image{i}.png,mask{i}.png,{(NFC, NFD)[i % 2]}" for i in NUMBERS]
    found, _ = read(tmp_path, "\n".join(["case,image,mask,patient", *rows]))
    assert {case.patient for case in found} == {NFC}


def with_columns(header: str, *values: str) -> str:
    rows = [f"c{i},image{i}.png,mask{i}.png,{value}" for i, value in enumerate(values)]
    return "\n".join([f"case,image,mask,{header}", *rows])


def test_a_patient_that_is_not_given_is_none_that_is(tmp_path):
    write_files(tmp_path)
    for given, wanted in {
        ("c1", "", "c1", ""): ("c1", "c1~", "c1", "c3"),
        ("c1", "", "c1~", "c1~~"): ("c1", "c1~~~", "c1~", "c1~~"),
        ("", "", "", ""): ("c0", "c1", "c2", "c3"),
    }.items():
        found, problems = read(tmp_path, with_columns("patient", *given))
        assert problems == [] and tuple(case.patient for case in found) == wanted
    table = with_columns("patient", "c~", "", "c", "").replace("\nc1,", "\nc,").replace("\nc3,", "\nc~,")
    patients = [case.patient for case in read(tmp_path, table)[0]]
    assert len(set(patients)) == 4 and patients[::2] == ["c~", "c"]


# Columns.


@pytest.mark.parametrize(
    "name", ["patient_id", "Patient-ID", "patient id", "PatientID", "PATIENT.ID", "Patient:", "Subject", "subject-id"]
)
def test_a_column_that_can_only_be_the_patient_is_named(tmp_path, name):
    write_files(tmp_path)
    _, problems = read(tmp_path, with_columns(name, *"aabc"))
    assert problems == [
        f"{tmp_path}/cases.csv: has the column {name.casefold()} but none called patient; rename it, or leave it out"
    ]
    assert read(tmp_path, with_columns(f"{name},Patient", *("1,a", "1,a", "1,b", "1,b")))[1] == []


@pytest.mark.parametrize("name", ["set", "Subset", "fold", "partition", "usage", "Data set"])
def test_a_column_of_splits_is_named_whatever_it_is_called(tmp_path, name):
    write_files(tmp_path)
    _, problems = read(tmp_path, with_columns(name, "Train", "tr", "val", "TEST"))
    assert problems == [
        f"{tmp_path}/cases.csv: has the column {name.casefold()} but none called split; rename it, or leave it out"
    ]
    assert read(tmp_path, with_columns(f"{name},split", "train,train", "test,train", "val,val", "val,test"))[1] == []


@pytest.mark.parametrize(
    ("name", "values"),
    [("fold", "0123"), ("set", ("train", "A", "test", "B")), ("notes", ("", "", "", "")), ("patient age", "5678")],
)
def test_other_columns_are_left_alone(tmp_path, name, values):
    write_files(tmp_path)
    found, problems = read(tmp_path, with_columns(name, *values))
    assert problems == [] and [case.split for case in found] == [None] * 4


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    write_files(tmp_path, name=NFD + "{}.png")
    listed = []
    monkeypatch.setattr(os, "listdir", lambda place, list_=os.listdir: listed.append(place) or list_(place))
    assert read(tmp_path, table_text(NFC + "{}.png"))[1] == []
    assert listed.count(tmp_path) == 1


# Splits.


def with_splits(place: pathlib.Path, splits: Sequence[str], inside: Sequence[int] = (255,) * 4) -> pathlib.Path:
    write_files(place)
    for i, value in enumerate(inside):
        with Image.open(place / f"mask{i}.png") as image:
            labels = np.asarray(image)
        Image.fromarray(np.where(labels, value, 0).astype(np.uint8)).save(place / f"mask{i}.png")
    rows = [f"c{i},image{i}.png,mask{i}.png,{split}" for i, split in enumerate(splits)]
    (place / "cases.csv").write_text("\n".join(["case,image,mask,split", *rows]))
    return place


def prepare(raw: pathlib.Path, name: str = "folder/mine") -> pathlib.Path:
    return builders.prepare(name, data_dir=raw.parent / "data", manual_dir=raw)


def test_splits_are_obeyed_in_every_spelling(tmp_path):
    directory = prepare(with_splits(tmp_path / "raw", ["Training", "train", "VAL", "Test"]))
    assert pipeline.split_sizes(directory) == {"train": 2, "validation": 1, "test": 1}
    assert pipeline.Split(directory, "validation", size=None).cases == ("c2",)


@pytest.mark.parametrize("splits", [["test"] * 4, ["valid"] * 4, ["test", "validation"] * 2])
def test_a_set_without_training_cases_is_prepared_as_it_is(tmp_path, splits, capsys):
    directory = prepare(with_splits(tmp_path / "raw", splits))
    known = {"valid": "validation"}
    named = [known.get(split, split) for split in splits]
    assert pipeline.split_sizes(directory) == {
        split: named.count(split) for split in dict.fromkeys(sorted(named)[::-1])
    }
    assert "networks can be evaluated on them, not trained" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"has no split 'train'; train on another data set, and evaluate on"):
        pipeline.Split(directory, "train", size=None)


def test_a_class_that_a_split_lacks_is_said(tmp_path, capsys):
    splits = ["train", "train", "validation", "test"]
    prepare(with_splits(tmp_path / "raw", splits, inside=[1, 1, 1, 2]))
    lines = [line for line in capsys.readouterr().err.splitlines() if "mask has" in line]
    assert [line.removeprefix("folder/mine: no ") for line in lines] == [
        "train mask has the class 2 class 2: a network cannot learn that, and Dice measures nothing there",
        "validation mask has the class 2 class 2: that has no part in choosing the best checkpoint",
        "test mask has the class 1 class 1: Dice is undefined there",
    ]


def test_a_class_that_was_never_trained_is_known_of_the_prepared_set(tmp_path):
    directory = prepare(with_splits(tmp_path / "raw", ["train", "train", "validation", "test"], inside=[1, 1, 1, 2]))
    assert builders.prepared("folder/mine", data_dir=tmp_path / "data") == directory
    assert builders.prepared("folder/other", data_dir=tmp_path / "data") is None
    assert builders.prepared("unknown", data_dir=tmp_path / "data") is None
    (line,) = diagnosis.untrained(directory)
    assert line.startswith("no train mask has the class 2 class 2: a network cannot learn that, and Dice measures")
    (directory / "doctor.json").write_text("{}")  # of another version
    assert diagnosis.untrained(directory) == []


def test_what_is_not_prepared_is_said_with_what_is_and_the_command(tmp_path):
    root = tmp_path / "my data"
    call = lambda: builders.prepare("folder/mine", data_dir=root)
    command = f"python -m launch.prepare --dataset=folder/mine --manual_dir=FOLDER --data_dir='{root}'"
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(
        f"folder/mine is not prepared in {root} (no data set is); write a table cases.csv"
    )
    assert str(error.value).endswith(command) and not root.exists()
    for place in ("dermoscopy/tiny/1.0.0", "folder/mine-volumes/1.0.0", "folder/mine/0.9.0", "folder/half/1.0.0"):
        (root / place).mkdir(parents=True)
        if "half" not in place:
            (root / place / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError) as error:
        call()
    there = "but as version 0.9.0, which differs (there are dermoscopy/tiny, folder/mine-volumes)"
    assert f"folder/mine is not prepared in {root} {there}; write" in str(error.value)


# Classes.


def test_no_more_classes_than_can_be_stored(tmp_path):
    raw = with_splits(tmp_path / "raw", ["train", "train", "validation", "test"], inside=[1, 2, 1, 2])
    rows = [f"{i},class {i}" for i in range(256)]
    (raw / "classes.csv").write_text("\n".join(["value,name", *rows]))
    with pytest.raises(InputError, match=r"classes.csv: names 256 classes, of which 255 can be stored; give classes"):
        prepare(raw)
    (raw / "classes.csv").write_text("\n".join(["value,name", *rows[:-1]]))
    assert pipeline.Split(prepare(raw), "train", size=None).num_classes == 255


def test_numbers_of_classes_may_be_larger_than_what_is_stored(tmp_path):
    raw = with_splits(tmp_path / "raw", ["train", "train", "validation", "test"])
    for i in NUMBERS:
        labels = np.zeros((12, 16), np.uint16)
        labels[2:5], labels[6:9] = 300, 65535
        tifffile.imwrite(raw / f"mask{i}.tif", labels)
    (raw / "cases.csv").write_text(re.sub(r"(mask\d).png", r"\1.tif", (raw / "cases.csv").read_text()))
    (raw / "classes.csv").write_text("value,name\n0,background\n300,a\n65535,b\n")
    labels = pipeline.Split(prepare(raw), "test", size=None)[0]["labels"]
    assert [labels[0, 0], labels[3, 0], labels[7, 0]] == [0, 1, 2]


# Scaling: the same tissue has the same gray level, whichever case comes first.


def tissue(number: int, dtype: type, hot: int = 0) -> np.ndarray:
    """`[D,H,W]` of 70 and 230, and in the corner a few that are no tissue."""
    values = np.full((5, 12, 16), 70, dtype)
    values[:, 3:9, 2 + number : 9 + number] = 230
    values[0, 0, : bool(hot)] = hot
    values[0, 11, 0] = number  # no two are the same
    return values


def volumes(place: pathlib.Path, arrays: Sequence[np.ndarray]) -> pathlib.Path:
    place.mkdir()
    for i, array in enumerate(arrays):
        for name, values in (("image", array), ("mask", (array == 230).astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(values.transpose(), np.eye(4)), place / f"{name}{i}.nii.gz")
    (place / "cases.csv").write_text(table_text("image{}.nii.gz", "mask{}.nii.gz"))
    return place


@pytest.mark.parametrize("order", [*sorted(set(itertools.permutations("bbds")))[::3], tuple("bsss"), tuple("sssb")])
def test_volumes_of_other_depths_are_refused_in_every_order(tmp_path, order):
    """b: 8 bits; d, s: 16 bits, with more than 255 levels."""
    kinds = {"b": (np.uint8, 0), "d": (np.int16, 30_000), "s": (np.uint16, 900)}
    raw = volumes(tmp_path / "raw", [tissue(i, *kinds[kind]) for i, kind in enumerate(order)])
    with pytest.raises(InputError) as error:
        prepare(raw, "folder/mine-volumes")
    rare = [i for i, kind in enumerate(order) if (kind == "b") == (order.count("b") == 1)]
    has, most = ("8 bits", "more") if order.count("b") == 1 else ("more than 8 bits", "8")
    wanted = [f"{raw}/image{i}.nii.gz: has {has}, most have {most}; save all alike" for i in rare]
    assert str(error.value).splitlines()[1:] == wanted


@pytest.mark.parametrize("order", ["bsss", "sssb", "sbsb"])
def test_levels_of_0_to_255_are_the_same_in_8_and_in_16_bits(tmp_path, order):
    arrays = [tissue(i, np.uint8 if kind == "b" else np.int16) for i, kind in enumerate(order)]
    directory = prepare(volumes(tmp_path / "raw", arrays), "folder/mine-volumes")
    for split in pipeline.split_sizes(directory):
        for case in pipeline.Split(directory, split, size=None):
            number = int(case["case"][1])
            np.testing.assert_array_equal(case["image"][..., 0], arrays[number])
            known = inputs.TrainedOn(("a", "b"), 1, 3, pipeline.Split(directory, split, size=None).preparation)
            new = inputs.load(tmp_path / "raw" / f"image{number}.nii.gz", known, gray_levels(16))
            np.testing.assert_array_equal(new.image, case["image"])  # so does a prediction see it


def test_volumes_of_16_bits_alone_are_scaled_by_their_own_percentiles(tmp_path):
    arrays = [tissue(i, np.int16) for i in NUMBERS]
    directory = prepare(volumes(tmp_path / "raw", arrays), "folder/mine-volumes")
    split = pipeline.Split(directory, "train", size=None)
    assert split.preparation.scaling == ("percentiles", 0.5, 99.5)
    assert set(np.unique(split[0]["image"][:, 1:-1])) == {0, 255}


def look(**fields) -> looks.Look:
    return looks.Look(**{"eight_bits": True, "gray_levels": True, "volume": False, "channels": 1, "images": 1} | fields)


def test_no_single_case_decides_what_the_files_have_in_common():
    deep = look(eight_bits=False, gray_levels=False)
    for order in itertools.permutations([look(), deep, deep]):
        assert looks.scaling(order) == ("percentiles", 0.5, 99.5)
    volume, colour, frames = look(volume=True), look(channels=3), look(volume=True, channels=3)
    for order in itertools.permutations([volume, volume, look(), frames]):
        assert looks.are_volumes(order) and looks.channels(order) == 1
    for order in itertools.permutations([look(), look(), colour]):
        assert looks.channels(order) == 3 and not looks.are_volumes(order)  # gray becomes colour
    for order in itertools.permutations([look(channels=2), look(channels=2), look(channels=5)]):
        assert looks.channels(order) == 2
    assert (looks.channels([]), looks.are_volumes([])) == (1, False)


@pytest.mark.parametrize("place", [0, 3])
def test_a_damaged_case_or_one_of_another_kind_decides_nothing(tmp_path, place):
    arrays = [tissue(i, np.int16) for i in NUMBERS]
    raw = volumes(tmp_path / "raw", arrays)
    (raw / f"image{place}.nii.gz").write_bytes(b"")
    with pytest.raises(InputError) as error:
        prepare(raw)
    (line,) = str(error.value).splitlines()[1:]
    assert line.startswith(f"{raw}/image{place}.nii.gz: ")
    nibabel.save(nibabel.Nifti1Image(arrays[0][0].transpose(), np.eye(4)), raw / f"image{place}.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image((arrays[0][0] == 230).transpose().astype(np.uint8), np.eye(4)), raw / f"mask{place}.nii.gz"
    )
    with pytest.raises(InputError) as error:
        prepare(raw)
    (line,) = str(error.value).splitlines()[1:]
    assert line.startswith(f"{raw}/image{place}.nii.gz: holds a picture, the others hold volumes")


# Percentiles, and what is beyond them.

MR = ("percentiles", 0.5, 99.5)


def background(kind: str, size: int = 256) -> np.ndarray:
    random = np.random.default_rng(0)
    return {
        "constant": np.zeros((size, size, 1)),
        "noise": random.integers(90, 110, (size, size, 1)),
        "tissue": random.normal(250, 80, (size, size, 1)).clip(0, 500).round(),
    }[kind].astype(np.uint16)


@pytest.mark.parametrize("kind", ["constant", "noise"])
@pytest.mark.parametrize("side", [3, 7])
def test_levels_of_a_small_object_stay_apart(kind, side):
    """Objects of 5 levels that are 0.07 and 0.37 % of the pixels."""
    image, levels = background(kind), [1_000, 5_000, 20_000, 40_000, 60_000]
    for i, level in enumerate(levels):
        image[10 : 10 + side, 20 * i : 20 * i + side] = level
    found = [int(raw_cases.as_uint8(image, MR)[11, 20 * i + 1, 0]) for i in range(5)]
    np.testing.assert_allclose(found, np.array(levels) / 60_000 * 255, atol=2)
    assert raw_cases.as_uint8(image, MR)[200, 200, 0] <= 1


@pytest.mark.parametrize("kind", ["constant", "noise"])
def test_dark_levels_of_a_small_object_stay_apart(kind):
    image = 65_535 - background(kind)
    for i, level in enumerate((0, 20_000, 40_000)):
        image[10:17, 20 * i : 20 * i + 7] = level
    stored = raw_cases.as_uint8(image, MR)
    np.testing.assert_allclose([stored[11, 20 * i + 1, 0] for i in range(3)], [0, 78, 156], atol=2)
    assert stored[200, 200, 0] >= 254


@pytest.mark.parametrize("size", [24, 64, 256])
def test_hot_and_dead_pixels_are_clipped(size):
    image = background("tissue", size).astype(np.int32)
    plain = raw_cases.as_uint8(image, MR)
    hot = image.copy()
    hot[3, 4] = 65_535
    np.testing.assert_allclose(
        np.delete(raw_cases.as_uint8(hot, MR), 3, 0), np.delete(plain, 3, 0), atol=8 if size < 64 else 1
    )
    dead = image.copy()
    dead[3, 4] = -65_535
    np.testing.assert_allclose(
        np.delete(raw_cases.as_uint8(dead, MR), 3, 0), np.delete(plain, 3, 0), atol=8 if size < 64 else 1
    )


# What the object has, in a background of which mean and standard deviation are given.
OBJECTS = {
    "bright": ((2_000, 600), (5_000, 10_000, 20_000)),
    "little brighter": ((500, 150), (1_000, 2_000, 3_000, 4_000)),
    "dark": ((30_000, 3_000), (0, 5_000, 10_000, 15_000)),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("count", [131, 184, 262])  # of 65,536 pixels; 0.28 % are less than the percentile cuts off
def test_levels_of_a_small_object_stay_apart_in_tissue(kind, count):
    moments, levels = OBJECTS[kind]
    image = np.random.default_rng(1).normal(*moments, (256 * 256, 1)).clip(0, 65_535).astype(np.uint16)
    image[5_000 : 5_000 + count, 0] = np.array(levels)[np.arange(count) * len(levels) // count]
    stored = raw_cases.as_uint8(image, MR)[:, 0].astype(int)
    found = [stored[image[:, 0] == level].mean() for level in levels]
    steps = np.diff(found) / np.diff(levels)
    np.testing.assert_allclose(steps, steps[0], rtol=0.02)  # none is clipped
    assert {found[0], found[-1]} & {0, 255} and steps[0] * np.ptp(levels) > 90


def with_a_tail(reach: float) -> np.ndarray:
    """Of 10,000 pixels 40 lie `reach` distances of the percentiles, which are 100 apart, beyond the upper one."""
    values = np.repeat(np.arange(101.0), 98)[:9_860]
    return np.concatenate([np.full(100, 0.0), values, np.full(40, 100 + reach * 100)])[:, None].astype(np.float32)


def test_what_lies_within_the_usual_reach_is_scaled_by_percentiles():
    """Vessels twice as bright as the rest are clipped, as ever."""
    low, high = np.percentile(with_a_tail(0.99), (0.5, 99.5))
    wanted = np.rint(np.clip((with_a_tail(0.99) - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(raw_cases.as_uint8(with_a_tail(0.99), MR), wanted)


def test_an_end_moves_without_a_leap():
    reaches = np.linspace(0.9, 1.3, 81)
    tops = np.array([raw_cases.span(with_a_tail(reach), 0.5, 99.5)[1][0] for reach in reaches])
    assert (np.diff(tops) >= -1e-3).all() and np.diff(tops).max() < 12
    np.testing.assert_allclose(tops[reaches <= 1], tops[0])
    np.testing.assert_allclose(tops[reaches > 1.15], 100 + 100 * reaches[reaches > 1.15], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("odd", [256, 30_000, -1, -30_000])
def test_a_few_pixels_beyond_255_do_not_decide(dtype, odd):
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 1)).astype(dtype)
    few, many = image.copy(), image.copy()
    few[5, 7], many[5, 7:9] = odd, odd  # 0.6 and 1.2 in 10,000
    np.testing.assert_array_equal(raw_cases.as_uint8(image, None), image)
    np.testing.assert_array_equal(raw_cases.as_uint8(few, None), few.clip(0, 255))
    assert raw_cases.are_gray_levels(few) and not raw_cases.are_gray_levels(many)
    np.testing.assert_array_equal(raw_cases.as_uint8(many, None), raw_cases.as_uint8(many, MR))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (3, 1, 2), (1, 5, 5, 1)])
@pytest.mark.parametrize("values", [(7, 7), (-1e38, 1e38)])
def test_the_smallest_images_are_scaled_without_a_word(shape, values):
    image = np.resize(np.array(values, np.float32), shape)
    stored = raw_cases.as_uint8(image, MR)
    assert stored.shape == shape and set(np.unique(stored)) <= {0, 255}


def test_ranges_of_domains_are_compared_where_the_object_is_small():
    """The 99th percentile of both is background."""
    image, brighter = background("constant"), background("constant")
    image[:4, :9], brighter[:4, :9] = 1_000, 30_000
    tops = [
        case_facts.of_case(
            raw_cases.RawCase("a", (pathlib.Path("a"),), None, "p"),
            raw_cases.Loaded(one, np.zeros((256, 256), np.uint8), (np.nan, np.nan)),
            raw_cases.Contents(("a", "b"), {0: 0, 1: 1}, 1, MR),
            search=False,
        ).top
        for one in (image, brighter)
    ]
    assert tops == [1_000, 30_000]
