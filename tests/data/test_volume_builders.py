"""Data sets of volumes: what is prepared is what the official files hold, in slices and whole; bad files are named."""

import itertools
import json
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import nibabel
import numpy as np
import pytest

from jaxseg.data import builders, pipeline, resizing
from jaxseg.errors import InputError

SIZE = (13, 10, 5)  # x, y, z
SPACING = (1.5, 1.25, 8.0)


def drawn(path: pathlib.Path) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(path.name.encode()))


def save(path: pathlib.Path, array: np.ndarray, spacing=SPACING, directions=(1, 1, 1)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.diag([*np.multiply(spacing, directions), 1.0]))
    image.header.set_zooms((*spacing, *[1.0] * (array.ndim - 3)))
    nibabel.save(image, path)


def save_image(path: pathlib.Path, size=SIZE, *, low=0, high=900, dtype=np.int16, **options) -> None:
    save(path, drawn(path).integers(low, high, size).astype(dtype), **options)


def save_mask(path: pathlib.Path, values, size=SIZE, dtype=np.uint8, **options) -> None:
    """Every value is there, each as often as another, in no order; one corner is background."""
    mask = drawn(path).choice([0, *values], size)
    mask[:2, :2] = 0
    mask[3 : 3 + len(values), 5, 1] = np.reshape(values, (-1, *[1] * (len(size) - 3)))
    save(path, mask.astype(dtype), **options)


class Wanted(NamedTuple):
    """A volume as it has to come out: `image` `[D,H,W,C]` before it is rounded, `labels` `[D,H,W]`."""

    image: np.ndarray
    labels: np.ndarray
    patient: str
    domain: str
    split: str | None
    spacing: tuple[float, ...] = SPACING[::-1]


def percentiles(array: np.ndarray) -> np.ndarray:
    low, high = np.percentile(array, [0.5, 99.5])
    return 255 * np.clip((array - low) / (high - low), 0, 1)


def window(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: 255 * np.clip((array - low) / (high - low), 0, 1)


def reference(paths, mask, values, scale, *rest, frame=None) -> Wanted:
    """Reads, scales and turns in plain steps, slice by slice."""
    channels = []
    for path in paths:
        array = nibabel.load(path).get_fdata()
        films = [array] if array.ndim == 3 else [array[..., k] for k in range(array.shape[3])]
        channels += [scale(film) for film in (films if frame is None else films[frame : frame + 1])]
    numbers = nibabel.load(mask).get_fdata()
    numbers = numbers if frame is None else numbers[..., frame]
    labels = np.full(numbers.shape, 255)
    for value, k in values.items():
        labels[numbers == value] = k
    depth = range(numbers.shape[2])
    image = np.array([np.stack([channel[:, :, z].T for channel in channels], -1) for z in depth])
    return Wanted(image, np.array([labels[:, :, z].T for z in depth]), *rest)


# The official layouts in small. Each writer fills a folder and yields (case, what has to come out).

Volumes = Iterator[tuple[str, Wanted]]


def write_acdc(folder: pathlib.Path) -> Volumes:
    for number in range(1, 7):
        split, patient = "training" if number < 5 else "testing", f"patient{number:03d}"
        inside = folder / split / patient
        save_image(inside / f"{patient}_4d.nii.gz", (*SIZE, 3))
        (inside / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n")
        for frame in ("01", "12"):
            image, mask = inside / f"{patient}_frame{frame}.nii.gz", inside / f"{patient}_frame{frame}_gt.nii.gz"
            save_image(image)
            save_mask(mask, (1, 2, 3))
            (inside / f"._{image.name}").write_bytes(b"macOS")
            rest = (patient, "", "test" if split == "testing" else None)
            yield f"{patient}_frame{frame}", reference([image], mask, {k: k for k in range(4)}, percentiles, *rest)


MNMS = "OpenDataset/211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
MNMS_SUBJECTS = {  # code: folder, split, vendor, letter, centre, ED, ES
    "A0S9V9": ("Training/Labeled", "train", "Siemens", "A", 1, 0, 2),
    "B3F0V9": ("Training/Labeled", "train", "Philips", "B", 2, 3, 1),
    "B9E0Q1": ("Training/Labeled", "train", "Philips", "B", 3, 0, 1),
    "G1N6S6": ("Training/Unlabeled", "", "GE", "C", 4, 0, 1),
    "D1R0Y5": ("Validation", "validation", "Canon", "D", 5, 0, 2),
    "E3F5U2": ("Testing", "test", "GE", "C", 4, 1, 2),
    "A2E3W4": ("Testing", "test", "Siemens", "A", 6, 2, 3),
}


def write_mnms(folder: pathlib.Path) -> Volumes:
    root, lines = folder / "OpenDataset", [",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex"]
    for number, (code, (place, split, vendor, letter, centre, *frames)) in enumerate(MNMS_SUBJECTS.items()):
        lines.append(f'{number},{code},{vendor},{letter},{centre},{frames[0]},{frames[1]},41,"HCM, mild",M')
        image, mask = root / place / code / f"{code}_sa.nii.gz", root / place / code / f"{code}_sa_gt.nii.gz"
        save_image(image, (*SIZE, 4), dtype=np.float64)
        if not split:
            continue
        masks, rng = np.zeros((*SIZE, 4)), drawn(mask)
        for frame in frames:
            masks[..., frame] = rng.permuted(np.arange(np.prod(SIZE)) % 4).reshape(SIZE)
        save(mask, masks)
        for frame in frames:
            values = {0: 0, 1: 3, 2: 2, 3: 1}  # left ventricle, myocardium, right ventricle -> ACDC's order
            rest = (code, f"{vendor} {centre}", split)
            yield f"{code}_frame{frame:02d}", reference([image], mask, values, percentiles, *rest, frame=frame)
    (folder / MNMS).write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


CC359 = {
    "CC0001_philips_15_55_M": "Philips 1.5 T",
    "CC0061_philips_3_55_F": "Philips 3 T",
    "CC0121_siemens_15_61_M": "Siemens 1.5 T",
    "CC0181_siemens_3_36_F": "Siemens 3 T",
    "CC0241_ge_15_60_F": "GE 1.5 T",
    "CC0319_ge_3_45_M": "GE 3 T",
}


def write_cc359(folder: pathlib.Path, kind: str = "staple") -> Volumes:
    for name, domain in CC359.items():
        image = folder / "Original" / "Original" / f"{name}.nii.gz"
        mask = folder / "Silver-standard-STAPLE" / "STAPLE" / f"{name}_{kind}.nii.gz"
        save_image(image, spacing=(1.0, 1.0, 1.3))
        save_mask(mask, (1,), spacing=(1.0, 1.0, 1.3))
        save_mask(folder / "hippocampus_staple" / f"{name}_staple.nii.gz", (1,))
        save_mask(folder / "WM-GM-CSF" / f"{name}.nii.gz", (1, 2, 3))
        if kind == "staple":
            save_mask(folder / "Silver-standard-machine-learning" / f"{name}_ss.nii.gz", (1,))
        want = reference([image], mask, {0: 0, 1: 1}, percentiles, name[:6], domain, None, (1.3, 1.0, 1.0))
        yield name, want


SEQUENCES = ("flair", "t1", "t1ce", "t2")
TUMOUR = {0: 0, 1: 1, 2: 1, 4: 1}


def write_subject(
    inside: pathlib.Path, ending: str, mask: str | None = None
) -> tuple[list[pathlib.Path], pathlib.Path]:
    images = [inside / f"{inside.name}_{part}{ending}" for part in SEQUENCES]
    for factor, path in enumerate(images):
        save_image(path, high=100 * (factor + 1), spacing=(1.0, 1.0, 1.5))
    seg = inside / (mask or f"{inside.name}_seg{ending}")
    save_mask(seg, (1, 2, 4), spacing=(1.0, 1.0, 1.5))
    return images, seg


def write_brats18(folder: pathlib.Path) -> Volumes:
    root = folder / "MICCAI_BraTS_2018_Data_Training"
    subjects = {
        "HGG/Brats18_CBICA_AAB_1": "CBICA",
        "HGG/Brats18_TCIA01_131_1": "TCIA01",
        "HGG/Brats18_2013_2_1": "2013",
        "LGG/Brats18_TCIA10_103_1": "TCIA10",
        "LGG/Brats18_2013_0_1": "2013",
    }
    save_image(folder / "MICCAI_BraTS_2018_Data_Validation/Brats18_CBICA_AAM_1/Brats18_CBICA_AAM_1_t1.nii.gz")
    (root / "survival_data.csv").parent.mkdir()
    (root / "survival_data.csv").write_text("BraTS18ID,Age,Survival\n")
    for name, domain in subjects.items():
        images, mask = write_subject(root / name, ".nii.gz")
        patient = name[name.index("_") + 1 :]
        yield (root / name).name, reference(images, mask, TUMOUR, percentiles, patient, domain, None, (1.5, 1.0, 1.0))


BRATS20 = "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"
BRATS20_TABLE = """\
Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID
HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001
HGG,Brats17_TCIA_131_1,Brats18_TCIA01_131_1,TCGA-02-0006,BraTS19_TCIA01_131_1,BraTS20_Training_002
LGG,NA,Brats18_2013_0_1,NA,NA,BraTS20_Training_003
HGG,NA,NA,NA,BraTS19_TMC_06290_1,BraTS20_Training_004
HGG,NA,NA,NA,NA,BraTS20_Training_355
"""
BRATS20_SUBJECTS = {
    "001": ("CBICA_AAB_1", "CBICA", None),
    "002": ("TCIA01_131_1", "TCIA01", None),
    "003": ("2013_0_1", "2013", None),
    "004": ("TMC_06290_1", "TMC", "test"),
    "355": ("BraTS20_Training_355", "", "test"),
}


def write_brats20(folder: pathlib.Path) -> Volumes:
    root = folder / BRATS20
    for number, rest in BRATS20_SUBJECTS.items():
        inside = root / f"BraTS20_Training_{number}"
        images, mask = write_subject(inside, ".nii", "W39_1998.09.19_Segm.nii" if number == "355" else None)
        yield inside.name, reference(images, mask, TUMOUR, percentiles, *rest, (1.5, 1.0, 1.0))
    save_image(root / "BraTS20_Validation_001/BraTS20_Validation_001_t1.nii")
    (root / "name_mapping.csv").write_text(BRATS20_TABLE)


def write_msd(folder: pathlib.Path, task: str, values: dict[int, int]) -> Volumes:
    prostate = task == "Task05_Prostate"
    root, prefix = folder / task, "prostate" if prostate else "pancreas"
    names = [f"{prefix}_{number:02d}" for number in (0, 1, 4, 16, 47)]
    for name in names:
        image, mask = root / "imagesTr" / f"{name}.nii.gz", root / "labelsTr" / f"{name}.nii.gz"
        if prostate:
            save_image(image, (*SIZE, 2), dtype=np.float32)
        else:
            save_image(image, low=-1024, high=1500)
        save_mask(mask, (1, 2))
        for path in (image, mask):
            (path.parent / f"._{path.name}").write_bytes(b"macOS")
        yield name, reference([image], mask, values, percentiles if prostate else window(-160, 240), name, "", None)
    save_image(root / "imagesTs" / f"{prefix}_99.nii.gz")
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    (root / "dataset.json").write_text(json.dumps({"name": prefix.upper(), "training": pairs, "test": []}))


SCANS, INFECTIONS = "COVID-19-CT-Seg_20cases", "Infection_Mask"
NOWHERE = (np.nan,) * 3


def write_covid(folder: pathlib.Path, pictures: bool = True) -> Volumes:
    names = [*(f"coronacases_{k:03d}" for k in range(1, 5)), "radiopaedia_4_85506_1", "radiopaedia_10_85902_3"]
    for name in names:
        image, mask, source = folder / SCANS / f"{name}.nii.gz", folder / INFECTIONS / f"{name}.nii.gz", name[:11]
        gray = source == "radiopaedia"
        save_image(image, low=0 if gray else -1300, high=256 if gray else 900)
        save_mask(mask, (1,))
        scale = (lambda array: array) if gray else window(-1250, 250)
        yield name, reference([image], mask, {0: 0, 1: 1}, scale, name, source, None)
    if pictures:
        image, mask = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
        save_image(image, low=-1500, high=400, dtype=np.float32)
        save_mask(mask, (1, 2, 3), dtype=np.float32)
        name = "medicalsegmentation"
        scale, values = window(-1250, 250), {0: 0, 1: 1, 2: 1, 3: 1}
        yield name, reference([image], mask, values, scale, name, name, None)._replace(spacing=NOWHERE)


class Layout(NamedTuple):
    slices: str
    volumes: str
    write: Callable[[pathlib.Path], Volumes]
    classes: tuple[str, ...]


HEART = ("background", "right ventricle", "myocardium", "left ventricle")
LAYOUTS = {
    "acdc": Layout("acdc/slices", "acdc/volumes", write_acdc, HEART),
    "mnms": Layout("mnms/slices", "mnms/volumes", write_mnms, HEART),
    "cc359": Layout("cc359/slices", "cc359/volumes", write_cc359, ("background", "brain")),
    "brats18": Layout("brats/slices", "brats/volumes", write_brats18, ("background", "tumour")),
    "brats20": Layout("brats/slices", "brats/volumes", write_brats20, ("background", "tumour")),
    "prostate": Layout(
        "msd/prostate",
        "msd/prostate-volumes",
        lambda folder: write_msd(folder, "Task05_Prostate", {0: 0, 1: 1, 2: 1}),
        ("background", "prostate"),
    ),
    "zones": Layout(
        "msd/prostate-zones",
        "msd/prostate-zones-volumes",
        lambda folder: write_msd(folder, "Task05_Prostate", {0: 0, 1: 1, 2: 2}),
        ("background", "peripheral zone", "transition zone"),
    ),
    "pancreas": Layout(
        "msd/pancreas",
        "msd/pancreas-volumes",
        lambda folder: write_msd(folder, "Task07_Pancreas", {0: 0, 1: 1, 2: 1}),
        ("background", "pancreas"),
    ),
    "mass": Layout(
        "msd/pancreas-mass",
        "msd/pancreas-mass-volumes",
        lambda folder: write_msd(folder, "Task07_Pancreas", {0: 0, 1: 1, 2: 2}),
        ("background", "pancreas", "mass"),
    ),
    "covid": Layout("covid_ct/slices", "covid_ct/volumes", write_covid, ("background", "infection")),
}


Laid = Callable[[str, pathlib.Path], dict[str, Wanted]]


@pytest.fixture(scope="module")
def lay_out(tmp_path_factory) -> Laid:
    """`(kind, new folder) -> what has to come out`: the layout, which is written once, for a test to change."""
    root, wanted = tmp_path_factory.mktemp("layouts"), {}

    def copy(kind: str, folder: pathlib.Path) -> dict[str, Wanted]:
        if kind not in wanted:
            wanted[kind] = dict(LAYOUTS[kind].write(root / kind))
        shutil.copytree(root / kind, folder)
        return wanted[kind]

    return copy


def prepared(name: str, folder: pathlib.Path, *, size: int | None = None) -> dict[str, pipeline.Split]:
    directory = builders.prepare(name, data_dir=folder.parent / "data", manual_dir=folder)
    return {split: pipeline.Split(directory, split, size=size) for split in pipeline.split_sizes(directory)}


def all_cases(splits: dict[str, pipeline.Split]) -> dict[str, tuple[str, pipeline.Case]]:
    """Case name -> (split, case)."""
    return {case["case"]: (name, case) for name, split in splits.items() for case in split}


def check_patients(splits: dict[str, pipeline.Split]) -> None:
    patients = {name: {case["patient"] for case in split} for name, split in splits.items()}
    assert set(patients) == {"train", "validation", "test"}
    for one, other in itertools.combinations(patients.values(), 2):
        assert not one & other


# What comes out.


@pytest.mark.parametrize("kind", LAYOUTS)
def test_prepared_volumes_and_slices_are_what_the_files_hold(tmp_path, lay_out, kind):
    layout = LAYOUTS[kind]
    wanted = lay_out(kind, tmp_path / "raw")
    volumes, slices = prepared(layout.volumes, tmp_path / "raw"), prepared(layout.slices, tmp_path / "raw")
    whole, cut = all_cases(volumes), all_cases(slices)
    for splits in (volumes, slices):
        check_patients(splits)
        assert splits["train"].class_names == layout.classes
    assert set(cut) == {f"{name}_{z:03d}" for name in wanted for z in range(SIZE[2])}
    assert set(whole) == set(wanted) - {"medicalsegmentation"}
    for name, want in wanted.items():
        image, labels, patient, domain, split, spacing = want
        stacked = [cut[f"{name}_{z:03d}"] for z in range(SIZE[2])]
        if name in whole:
            place, case = whole[name]
            assert (case["patient"], case["domain"]) == (patient, domain)
            assert split is None or place == split
            np.testing.assert_allclose(case["image"], image, atol=0.501)
            np.testing.assert_array_equal(case["labels"], labels)
            np.testing.assert_allclose(case["spacing"], spacing, rtol=1e-6)
        assert len({place for place, _ in stacked}) == 1 and split in (None, stacked[0][0])
        for z, (_, case) in enumerate(stacked):
            assert (case["patient"], case["domain"]) == (patient, domain)
            np.testing.assert_allclose(case["image"], image[z], atol=0.501)
            np.testing.assert_array_equal(case["labels"], labels[z])
            np.testing.assert_allclose(case["spacing"], spacing[1:], rtol=1e-6)
            if name in whole:
                np.testing.assert_array_equal(case["image"], whole[name][1]["image"][z])
    assert {k for want in wanted.values() for k in np.unique(want.labels)} == set(range(len(layout.classes)))


def test_a_few_real_hearts(real_data, tmp_path):
    official = real_data / "acdc_half" / "training"
    patients = sorted(path.name for path in official.iterdir())[:60:10]
    (tmp_path / "raw" / "training").mkdir(parents=True)
    for patient in patients:
        (tmp_path / "raw" / "training" / patient).symlink_to(official / patient)
    volumes, slices = (prepared(f"acdc/{config}", tmp_path / "raw") for config in ("volumes", "slices"))
    check_patients(volumes)
    whole, cut = all_cases(volumes), all_cases(slices)
    assert {case["patient"] for _, case in whole.values()} == set(patients) and len(whole) == 12
    for name, (split, case) in whole.items():
        files = [official / case["patient"] / f"{name}{end}.nii.gz" for end in ("", "_gt")]
        want = reference(files[:1], files[1], {k: k for k in range(4)}, percentiles, "", "", None)
        np.testing.assert_allclose(case["image"], want.image, atol=0.501)
        np.testing.assert_array_equal(case["labels"], want.labels)
        np.testing.assert_array_equal(case["spacing"], [10, 3, 3])
        planes = [cut.pop(f"{name}_{z:03d}") for z in range(len(case["image"]))]
        assert {place for place, _ in planes} == {split}
        np.testing.assert_array_equal(np.stack([plane["image"] for _, plane in planes]), case["image"])
        np.testing.assert_array_equal(np.stack([plane["labels"] for _, plane in planes]), case["labels"])
    assert not cut


def test_masks_of_the_network_are_taken_where_there_is_no_consensus(tmp_path):
    wanted = dict(write_cc359(tmp_path / "raw", kind="ss"))
    for name, (_, case) in all_cases(prepared("cc359/volumes", tmp_path / "raw")).items():
        np.testing.assert_array_equal(case["labels"], wanted[name].labels)


def test_without_the_table_the_subjects_of_2020_are_dealt_out(tmp_path):
    names = sorted(dict(write_brats20(tmp_path / "raw")))
    (tmp_path / "raw" / BRATS20 / "name_mapping.csv").unlink()
    splits = prepared("brats/volumes", tmp_path / "raw")
    check_patients(splits)
    assert {name: len(split) for name, split in splits.items()} == {"train": 3, "validation": 1, "test": 1}
    assert sorted((case["patient"], case["domain"]) for _, case in all_cases(splits).values()) == [
        (name, "") for name in names
    ]


def test_sequences_of_a_slice_do_not_mix_when_it_is_resized(tmp_path):
    """Four channels are stored as a PNG whose last channel is named opacity; nothing may be multiplied by it."""
    list(write_brats18(tmp_path / "raw"))
    full, small = (prepared("brats/slices", tmp_path / "raw", size=size)["train"] for size in (None, 8))
    assert (full[0]["image"][..., 3] == 0).any()
    for one, other in zip(full, small, strict=True):
        for channel in range(4):
            alone = resizing.resize(one["image"][..., channel : channel + 1], (8, 8))
            np.testing.assert_array_equal(other["image"][..., channel], alone[..., 0])


def test_scans_that_are_gray_already_are_stored_as_they_are(tmp_path, lay_out):
    lay_out("covid", tmp_path / "raw")
    gray = tmp_path / "raw" / SCANS / "radiopaedia_4_85506_1.nii.gz"
    ramp = np.resize(np.arange(256), SIZE)
    assert set(np.unique(ramp)) == set(range(256))
    save(gray, ramp.astype(np.float64))
    _, case = all_cases(prepared("covid_ct/volumes", tmp_path / "raw"))["radiopaedia_4_85506_1"]
    np.testing.assert_array_equal(case["image"][..., 0], ramp.transpose(2, 1, 0))


def content(splits: dict[str, pipeline.Split]) -> dict[str, tuple[str, bytes, bytes]]:
    return {
        name: (split, case["image"].tobytes(), case["labels"].tobytes())
        for name, (split, case) in all_cases(splits).items()
    }


def test_the_tar_of_the_decathlon_is_read_with_what_macos_put_into_it(tmp_path):
    list(write_msd(tmp_path / "raw", "Task05_Prostate", {}))
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "Task05_Prostate.tar", "w") as archive:
        archive.add(tmp_path / "raw" / "Task05_Prostate", "Task05_Prostate")
    folder = prepared("msd/prostate", tmp_path / "raw")
    one = content(folder)
    for given in (tmp_path / "packed", tmp_path / "packed" / "Task05_Prostate.tar", tmp_path / "raw/Task05_Prostate"):
        directory = builders.prepare("msd/prostate", data_dir=tmp_path / f"data {given.name}", manual_dir=given)
        assert content({name: pipeline.Split(directory, name, size=None) for name in folder}) == one


def test_zip_files_of_scans_and_masks_with_the_same_names_are_kept_apart(tmp_path, lay_out):
    lay_out("covid", tmp_path / "raw")
    (tmp_path / "packed").mkdir()
    for name in (SCANS, INFECTIONS):
        with zipfile.ZipFile(tmp_path / "packed" / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / "raw" / name).iterdir()):
                archive.write(path, path.name)
    for name in ("tr_im.nii.gz", "tr_mask.nii.gz"):
        (tmp_path / "packed" / name).symlink_to(tmp_path / "raw" / name)
    one = content(prepared("covid_ct/slices", tmp_path / "raw"))
    directory = builders.prepare("covid_ct/slices", data_dir=tmp_path / "other", manual_dir=tmp_path / "packed")
    splits = {name: pipeline.Split(directory, name, size=None) for name in pipeline.split_sizes(directory)}
    assert content(splits) == one


# What the doctor says.

SPLITS_OF_5 = {"train": 3, "validation": 1, "test": 1}
NUMBERS = {
    "acdc": {"cases": 12, "patients": 6, "splits": {"train": 6, "validation": 2, "test": 4}},
    "mnms": {
        "cases": 12,
        "patients": 6,
        "splits": {"train": 6, "validation": 2, "test": 4},
        "domains": dict.fromkeys(("Canon 5", "GE 4", "Philips 2", "Philips 3", "Siemens 1", "Siemens 6"), 2),
    },
    "cc359": {
        "cases": 6,
        "patients": 6,
        "splits": {"train": 4, "validation": 1, "test": 1},
        "domains": dict.fromkeys(sorted(CC359.values()), 1),
    },
    "brats18": {
        "cases": 5,
        "patients": 5,
        "splits": SPLITS_OF_5,
        "domains": {"2013": 2, "CBICA": 1, "TCIA01": 1, "TCIA10": 1},
    },
    "brats20": {
        "cases": 5,
        "patients": 5,
        "splits": {"train": 2, "validation": 1, "test": 2},
        "domains": {"": 1, "2013": 1, "CBICA": 1, "TCIA01": 1, "TMC": 1},
    },
    "prostate": {"cases": 5, "patients": 5, "splits": SPLITS_OF_5},
    "mass": {"cases": 5, "patients": 5, "splits": SPLITS_OF_5},
    "covid": {"cases": 7, "patients": 7, "domains": {"coronacases": 4, "medicalsegmentation": 1, "radiopaedia": 2}},
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_the_doctor_finds_the_official_layout_usable(tmp_path, lay_out, kind):
    lay_out(kind, tmp_path / "raw")
    report = builders.check(LAYOUTS[kind].slices, data_dir=tmp_path / "data", manual_dir=tmp_path / "raw")
    assert not report.errors and report.verdict.startswith("usable; ")
    assert {name: report.numbers.get(name) for name in NUMBERS[kind]} == NUMBERS[kind]
    assert ("domains" in report.numbers) == ("domains" in NUMBERS[kind])
    assert report.numbers["sizes"] == {"13x10x5": report.numbers["cases"]}
    # noise has its classes everywhere: of all warnings, one mask for all may fit; some come without all three splits
    assert {finding.check for finding in report.warnings} <= {"position", "splits"}


def subject(code: str) -> str:
    return f"OpenDataset/{MNMS_SUBJECTS[code][0]}/{code}/{code}_sa"


def more_brains(raw: pathlib.Path) -> None:
    """Five of each of two scanners; those of the second are half black."""
    for number in range(1, 11):
        name = f"CC{1000 + number}_{'ge' if number > 5 else 'philips'}_3_40_F"
        image = drawn(raw / name).integers(0, 900, SIZE).astype(np.int16)
        image[: 7 if number > 5 else 1] = 0
        save(raw / "Original" / f"{name}.nii.gz", image)
        save_mask(raw / "STAPLE" / f"{name}_staple.nii.gz", (1,))


def warnings_of(name: str, raw: pathlib.Path) -> dict[str, tuple[str, ...]]:
    report = builders.check(name, data_dir=raw.parent / "data", manual_dir=raw)
    assert not report.errors
    return {finding.check: finding.lines for finding in report.warnings}


def test_the_doctor_sees_that_intensities_tell_scanners_apart(tmp_path):
    more_brains(tmp_path / "raw")
    lines = warnings_of("cc359/slices", tmp_path / "raw")["intensity"]
    assert len(lines) == 2 and all(line.startswith("GE 3 T: ") and "AUROC 1.00" in line for line in lines)


def test_the_doctor_sees_headers_that_disagree(tmp_path, lay_out):
    raw = tmp_path / "raw"
    lay_out("mnms", raw)
    turned, stretched = (raw / f"{subject(code)}.nii.gz" for code in ("A0S9V9", "D1R0Y5"))
    for path in (turned, turned.with_name("A0S9V9_sa_gt.nii.gz")):
        save(path, np.asarray(nibabel.load(path).dataobj), directions=(-1, -1, 1))
    for path in (stretched, stretched.with_name("D1R0Y5_sa_gt.nii.gz")):
        save(path, np.asarray(nibabel.load(path).dataobj), spacing=(3.6, 3.25, 8.0))
    found = warnings_of("mnms/slices", raw)
    assert found["orientation"] == (f"{turned}: SPL",) * 2 and "spacing" in found


def test_the_doctor_sees_one_heart_under_two_names(tmp_path, lay_out):
    raw = tmp_path / "raw"
    lay_out("mnms", raw)
    for end in (".nii.gz", "_gt.nii.gz"):
        twin = raw / f"{subject('E3F5U2')}{end}"
        twin.write_bytes((raw / f"{subject('B3F0V9')}{end}").read_bytes())  # frame 1 of both is stored
    report = builders.check("mnms/slices", data_dir=tmp_path / "data", manual_dir=raw)
    (finding,) = report.errors
    assert (finding.check, len(finding.lines)) == ("leaks", 1)
    assert finding.lines[0].startswith(f"{raw / subject('E3F5U2')}.nii.gz: shows the same pixels as {raw}")


# Bad files.

Damage = Callable[[pathlib.Path], object]
Lines = list[tuple[str, ...]]  # of each: the file, and what else is in it


def remove(*names: str) -> Damage:
    return lambda raw: [(raw / name).unlink() for name in names]


def rename(name: str, new: str) -> Damage:
    return lambda raw: (raw / name).rename(raw / new)


def write(name: str, text: str) -> Damage:
    return lambda raw: (raw / name).write_text(text)


def cut_short(name: str) -> Damage:
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[: (raw / name).stat().st_size // 2])


def image(name: str, size: tuple[int, ...], **options) -> Damage:
    return lambda raw: save_image(raw / name, size, **options)


def mask(name: str, values, size=SIZE, **options) -> Damage:
    return lambda raw: save_mask(raw / name, values, size, **options)


def replace(name: str, old: str, new: str) -> Damage:
    def damage(raw: pathlib.Path) -> None:
        text = (raw / name).read_text(encoding="utf-8-sig")
        assert old in text
        (raw / name).write_text(text.replace(old, new))

    return damage


def infinite(raw: pathlib.Path) -> None:
    array = np.ones(SIZE, np.float32)
    array[3, 4, 2] = np.inf
    save(raw / HEART_IMAGE, array)


HEART_IMAGE, HEART_MASK = (f"training/patient002/patient002_frame12{end}.nii.gz" for end in ("", "_gt"))
BRAIN, BRAIN_MASK = (
    "Original/Original/CC0061_philips_3_55_F.nii.gz",
    "Silver-standard-STAPLE/STAPLE/CC0061_philips_3_55_F_staple.nii.gz",
)
HGG = "MICCAI_BraTS_2018_Data_Training/HGG/Brats18_CBICA_AAB_1"
PROSTATE, PROSTATE_MASK = (f"Task05_Prostate/{part}/prostate_04.nii.gz" for part in ("imagesTr", "labelsTr"))
SCAN = "coronacases_002.nii.gz"
BAD: dict[str, list[tuple[str, Damage, Lines]]] = {
    "acdc": [
        ("no mask", remove(HEART_MASK), [(HEART_IMAGE, "has no mask patient002_frame12_gt.nii.gz; add it")]),
        ("no image", remove(HEART_IMAGE), [(HEART_MASK, "has no image patient002_frame12.nii.gz; add it")]),
        (
            "an empty folder",
            lambda raw: [path.unlink() for path in (raw / HEART_IMAGE).parent.iterdir()],
            [("training/patient002", "holds no frame (patient002_frameNN.nii.gz); fetch it again")],
        ),
        ("no folder", rename("training", "train"), [("training", "no such folder; unpack ACDC")]),
        ("half an image", cut_short(HEART_IMAGE), [(HEART_IMAGE, "cannot be read as an image (", "; fetch it again")]),
        ("half a mask", cut_short(HEART_MASK), [(HEART_MASK, "cannot be read as an image (", "; fetch it again")]),
        ("no gzip", write(HEART_MASK, "<html>"), [(HEART_MASK, "cannot be read as an image (", "; fetch it again")]),
        ("a film", image(HEART_IMAGE, (*SIZE, 3)), [(HEART_IMAGE, "has 3 channels, the data set has 1; convert it")]),
        (
            "a film of masks",
            mask(HEART_MASK, (1, 2, 3), (*SIZE, 3)),
            [(HEART_MASK, "has 3 frames or channels; a mask has one number for every voxel")],
        ),
        (
            "another size",
            mask(HEART_MASK, (1, 2, 3), (13, 10, 4)),
            [(HEART_MASK, "is 13x10x4 of 1.5x1.25x8 mm to RAS from (0, 0, 0), its image is 13x10x5 of")],
        ),
        (
            "a class too many",
            mask(HEART_MASK, (1, 2, 7)),
            [(HEART_MASK, "holds the value 7; the classes are 0 background, 1 right ventricle, 2 myocardium, 3 left")],
        ),
        (
            "half a class",
            mask(HEART_MASK, (1, 1.5), dtype=np.float32),
            [(HEART_MASK, "holds the value 1.5; a mask is whole numbers: resample it by nearest neighbours")],
        ),
        (
            "mirrored",
            mask(HEART_MASK, (1, 2, 3), directions=(-1, 1, 1)),
            [(HEART_MASK, "is 13x10x5 of 1.5x1.25x8 mm to LAS from (0, 0, 0), its image is 13x10x5 of")],
        ),
        ("not finite", infinite, [(HEART_IMAGE, "holds values that are not finite; replace them")]),
    ],
    "mnms": [
        (
            "no mask",
            remove(f"{subject('D1R0Y5')}_gt.nii.gz"),
            [(subject("D1R0Y5")[:-10], "lacks D1R0Y5_sa_gt.nii.gz;")],
        ),
        ("no image", remove(f"{subject('D1R0Y5')}.nii.gz"), [(subject("D1R0Y5")[:-10], "lacks D1R0Y5_sa.nii.gz;")]),
        (
            "no table",
            remove(MNMS),
            [("OpenDataset", "holds no table named *M&Ms*nformation*.csv; it needs the official")],
        ),
        (
            "two tables",
            lambda raw: (raw / MNMS.replace("211230", "201014")).write_bytes((raw / MNMS).read_bytes()),
            [("OpenDataset", "holds 2 tables named *M&Ms*nformation*.csv; it needs the official")],
        ),
        ("no column", replace(MNMS, ",ES,", ",Systole,"), [(MNMS, "lacks the column ES; its first line must be")]),
        ("an empty table", write(MNMS, ""), [(MNMS, "lacks the columns External code, VendorName, Centre, ED, ES;")]),
        ("no text", lambda raw: (raw / MNMS).write_bytes(b"\xff\xfe\x00"), [(MNMS, "is not UTF-8 text; save it")]),
        (
            "no number",
            replace(MNMS, "Canon,D,5,0,2", "Canon,D,5,-1,?"),
            [(MNMS, "line 6 has ED '-1' and ES '?'; give the numbers of the frames, from 0")],
        ),
        (
            "no such frame",
            replace(MNMS, "Canon,D,5,0,2", "Canon,D,5,0,4"),
            [
                (f"{subject('D1R0Y5')}{end}.nii.gz", "has 4 frames and no number 4; check which file is meant")
                for end in ("", "_gt")
            ],
        ),
        (
            "no line",
            replace(MNMS, "D1R0Y5", "D1R0Y6"),
            [(subject("D1R0Y5")[:-10], "the table has no subject D1R0Y5; add its line or move the folder away")],
        ),
        (
            "a torn line",
            replace(MNMS, "A,6,2,3,41", "A,6,2"),
            [
                (MNMS, "line 8 has 8 fields, the first line 10; fix it"),
                (subject("A2E3W4")[:-10], "the table has no subject A2E3W4; add its line or move the folder away"),
            ],
        ),
        ("no folder", rename("OpenDataset/Testing", "OpenDataset/Test"), [("OpenDataset/Testing", "no such folder;")]),
        (
            "no film",
            mask(f"{subject('D1R0Y5')}_gt.nii.gz", (1, 2, 3)),
            [(f"{subject('D1R0Y5')}_gt.nii.gz", "has 1 frames and no number 2; check which file is meant")],
        ),
    ],
    "cc359": [
        ("no mask", remove(BRAIN_MASK), [(BRAIN, "has no mask CC0061_philips_3_55_F_staple.nii.gz; add it")]),
        ("no image", remove(BRAIN), [(BRAIN_MASK, "has no image; add it or move the mask away")]),
        ("misnamed", rename(BRAIN, BRAIN.replace("philips", "hitachi")), [(BRAIN_MASK, "has no image; add it")]),
        (
            "two masks",
            mask(f"more/{pathlib.Path(BRAIN_MASK).name}", (1,)),
            [(BRAIN, "has 2 masks, ", BRAIN_MASK, "; keep that of the brain")],
        ),
        (
            "255",
            mask(BRAIN_MASK, (255,), spacing=(1.0, 1.0, 1.3)),
            [(BRAIN_MASK, "holds the value 255; the classes are 0 background, 1 brain:")],
        ),
        (
            "no images",
            rename("Original", ".hidden"),
            [(".", "holds no image like CC0001_philips_15_55_M.nii.gz; fetch Original.zip and ")]
            + [(f"Silver-standard-STAPLE/STAPLE/{name}_staple.nii.gz", "has no image; add it") for name in CC359],
        ),
    ],
    "brats18": [
        (
            "no contrast",
            remove(f"{HGG}/Brats18_CBICA_AAB_1_t1ce.nii.gz"),
            [(HGG, "lacks Brats18_CBICA_AAB_1_t1ce.nii.gz;")],
        ),
        ("no mask", remove(f"{HGG}/Brats18_CBICA_AAB_1_seg.nii.gz"), [(HGG, "lacks Brats18_CBICA_AAB_1_seg.nii.gz;")]),
        (
            "another size",
            image(f"{HGG}/Brats18_CBICA_AAB_1_t2.nii.gz", (13, 11, 5), spacing=(1.0, 1.0, 1.5)),
            [
                (
                    f"{HGG}/Brats18_CBICA_AAB_1_t2.nii.gz",
                    "is 13x11x5 of 1x1x1.5 mm to RAS from (0, 0, 0), Brats18_CBICA_AAB_1_flair.nii.gz is 13x10x5 of "
                    "1x1x1.5 mm to RAS from (0, 0, 0); use files that are registered",
                )
            ],
        ),
        (
            "a film",
            image(f"{HGG}/Brats18_CBICA_AAB_1_t1.nii.gz", (*SIZE, 2), spacing=(1.0, 1.0, 1.5)),
            [(f"{HGG}/Brats18_CBICA_AAB_1_flair.nii.gz", "has 5 channels, the data set has 4; convert it")],
        ),
        (
            "necrosis of 2015",
            mask(f"{HGG}/Brats18_CBICA_AAB_1_seg.nii.gz", (1, 2, 3, 4), spacing=(1.0, 1.0, 1.5)),
            [(f"{HGG}/Brats18_CBICA_AAB_1_seg.nii.gz", "holds the value 3; the classes are 0 background, 1 tumour, ")],
        ),
    ],
    "brats20": [
        (
            "no line",
            replace(f"{BRATS20}/name_mapping.csv", "BraTS20_Training_002", "BraTS20_Training_102"),
            [
                (
                    f"{BRATS20}/name_mapping.csv",
                    "has no subject BraTS20_Training_002; add its line or move the folder away",
                )
            ],
        ),
        (
            "no column",
            replace(f"{BRATS20}/name_mapping.csv", "BraTS_2018_subject_ID", "2018"),
            [(f"{BRATS20}/name_mapping.csv", "lacks the column BraTS_2018_subject_ID; its first line must be")],
        ),
        (
            "no mask",
            remove(f"{BRATS20}/BraTS20_Training_355/W39_1998.09.19_Segm.nii"),
            [(f"{BRATS20}/BraTS20_Training_355", "lacks BraTS20_Training_355_seg.nii.gz; fetch it again")],
        ),
    ],
    "prostate": [
        ("no mask", remove(PROSTATE_MASK), [(PROSTATE, "has no mask ", PROSTATE_MASK, "; add it")]),
        ("no image", remove(PROSTATE), [(PROSTATE_MASK, "has no image ", PROSTATE, "; add it")]),
        (
            "neither",
            remove(PROSTATE, PROSTATE_MASK),
            [(PROSTATE, "is not there, dataset.json names it; fetch it again")],
        ),
        (
            "no list",
            write("Task05_Prostate/dataset.json", '{"training": 5}'),
            [("Task05_Prostate/dataset.json", "names no training cases with image and label; fetch it again")],
        ),
        (
            "half a list",
            cut_short("Task05_Prostate/dataset.json"),
            [("Task05_Prostate/dataset.json", "cannot be read as JSON (", "; fetch it again")],
        ),
        ("one channel", image(PROSTATE, SIZE), [(PROSTATE, "has 1 channel, the data set has 2; convert it")]),
        ("half a scan", cut_short(PROSTATE), [(PROSTATE, "cannot be read as an image (", "; fetch it again")]),
    ],
    "pancreas": [
        (
            "another task",
            rename("Task07_Pancreas", "Task05_Prostate"),
            [(".", "holds no Task07_Pancreas; fetch Task07_Pancreas.tar of the Medical Segmentation Decathlon")],
        ),
    ],
    "covid": [
        ("no mask", remove(f"{INFECTIONS}/{SCAN}"), [(f"{SCANS}/{SCAN}", "has no mask ", f"{INFECTIONS}/{SCAN}; add")]),
        ("no scan", remove(f"{SCANS}/{SCAN}"), [(f"{INFECTIONS}/{SCAN}", "has no image ", f"{SCANS}/{SCAN}; add")]),
        (
            "no masks",
            rename(INFECTIONS, "Lung_Mask"),
            [(INFECTIONS, "no such folder; fetch Infection_Mask.zip from where the scans are")],
        ),
        ("no mask of slices", remove("tr_mask.nii.gz"), [("tr_im.nii.gz", "has no mask tr_mask.nii.gz; add it")]),
        ("no slices", remove("tr_im.nii.gz"), [("tr_mask.nii.gz", "has no image tr_im.nii.gz; add it")]),
        ("half a scan", cut_short(f"{SCANS}/{SCAN}"), [(f"{SCANS}/{SCAN}", "cannot be read as an image (", "; fetch")]),
    ],
}


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind, bad in BAD.items() for what, _, _ in bad])
def test_a_bad_file_is_one_line(tmp_path, lay_out, kind, what):
    damage, wanted = next(rest for name, *rest in BAD[kind] if name == what)
    raw = tmp_path / "raw"
    lay_out(kind, raw)
    damage(raw)
    lines = problems(LAYOUTS[kind].slices, raw)
    assert len(lines) == len(wanted), lines
    for line, (file, *parts) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{raw / file}: ")
        assert all(part in line for part in parts), line


def problems(name: str, raw: pathlib.Path) -> list[str]:
    """The lines that `prepare` complains with, the summary left out; nothing may have been written."""
    with pytest.raises(InputError) as info:
        builders.prepare(name, data_dir=raw.parent / "data", manual_dir=raw)
    assert list((raw.parent / "data").iterdir()) == []
    summary, *lines = str(info.value).split("\n")
    assert summary == f"{len(lines)} problem{'s' * (len(lines) > 1)} in {raw}; nothing was prepared:"
    return lines


def test_bad_files_of_all_kinds_are_named_at_once(tmp_path, lay_out):
    raw = tmp_path / "raw"
    lay_out("mnms", raw)
    image = raw / f"{subject('B3F0V9')}.nii.gz"
    for damage in (
        cut_short(f"{subject('B3F0V9')}.nii.gz"),
        remove(f"{subject('D1R0Y5')}_gt.nii.gz"),
        replace(MNMS, "Siemens,A,6,2,3", "Siemens,A,6,2,x"),
        mask(f"{subject('E3F5U2')}_gt.nii.gz", (1, 9), (*SIZE, 4)),
    ):
        damage(raw)
    table, folder, *contents = problems("mnms/slices", raw)
    assert table.startswith(f"{raw / MNMS}: line 8 has ES 'x'") and folder.startswith(f"{raw}/OpenDataset/Validation/")
    assert [line.partition(": ")[0] for line in contents] == [  # two frames of each
        *[str(image)] * 2,
        *[str(raw / f"{subject('E3F5U2')}_gt.nii.gz")] * 2,
    ]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("acdc/slices", "training: no such folder; unpack ACDC"),
        ("mnms/slices", "Training/Labeled: no such folder; unpack the M&Ms OpenDataset"),
        ("cc359/slices", "raw: holds no image like CC0001_philips_15_55_M.nii.gz; fetch Original.zip"),
        ("brats/slices", "raw: holds no training subject; unpack the training data of one BraTS challenge"),
        ("msd/prostate", "raw: holds no Task05_Prostate; fetch Task05_Prostate.tar"),
        ("msd/pancreas-mass-volumes", "raw: holds no Task07_Pancreas; fetch Task07_Pancreas.tar"),
        (
            "covid_ct/slices",
            "raw: holds no COVID-19-CT-Seg_20cases and no tr_im.nii.gz; fetch COVID-19-CT-Seg_20cases.zip",
        ),
        ("covid_ct/volumes", "raw: holds no COVID-19-CT-Seg_20cases; fetch COVID-19-CT-Seg_20cases.zip"),
    ],
)
def test_an_empty_folder_says_what_belongs_there(tmp_path, name, wanted):
    (tmp_path / "raw").mkdir()
    assert any(wanted in line for line in problems(name, tmp_path / "raw"))
