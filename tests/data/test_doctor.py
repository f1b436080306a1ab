"""The doctor: every finding with a data set that has it and a twin that has not, and its numbers in closed form."""

import functools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxseg import checkup
from jaxseg.data import builders, case_facts, diagnosis, doctor, overlays, pipeline
from jaxseg.data.raw_cases import Contents, FileProblems, Found, Loaded, RawCase

BINARY = Contents(("background", "object"), {0: 0, 1: 1}, channels=1)
THREE = Contents(("background", "nucleus", "cytoplasm"), {0: 0, 1: 1, 2: 2}, channels=1)
NOWHERE = (math.nan, math.nan)


def examine(
    loaded: Sequence[Loaded],
    *,
    contents: Contents = BINARY,
    patients: Sequence[str] = (),
    domains: Sequence[str] = (),
    splits: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> diagnosis.Report:
    """The report on cases that are in memory; without splits they are dealt out."""
    cases = [
        RawCase(
            f"case{i}",
            (pathlib.Path(f"image{i}.png"),),
            pathlib.Path(f"mask{i}.png"),
            patient=patients[i] if patients else f"patient{i}",
            domain=domains[i] if domains else "",
            split=splits[i] if splits else None,
            part=i,
        )
        for i in range(len(loaded))
    ]

    def load(case: RawCase, *, at_least: int | None = None) -> Loaded:
        del at_least
        return loaded[case.part]

    return doctor.examine("mine", Found(cases, problems, contents), load, pictures=3)


def found(report: diagnosis.Report, check: str) -> diagnosis.Finding | None:
    """The only finding of a check."""
    findings = [finding for finding in report.findings if finding.check == check]
    assert len(findings) <= 1
    return findings[0] if findings else None


@pytest.fixture(autouse=True, scope="module")
def an_image_is_searched_once():
    """Most images are the same in all tests, and the search for overlays takes longer than all the rest."""
    search = overlays.detect

    @functools.cache
    def remembered(pixels: bytes, shape: tuple[int, ...]) -> np.ndarray:
        return search(np.frombuffer(pixels, np.uint8).reshape(shape))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlays, "detect", lambda image: remembered(image.tobytes(), image.shape))
        yield


@pytest.fixture
def no_search(monkeypatch):
    """For many or large images of which something else is asked."""
    monkeypatch.setattr(doctor, "_OVERLAY_CASES", 0)


@functools.cache
def noise(number: int, size: int = 64) -> np.ndarray:
    """Gray, smooth, with a mean of about 100 and a standard deviation of about 20; not to be changed."""
    rough = np.random.default_rng(number).standard_normal((size, size))
    smooth = ndimage.gaussian_filter(rough, 2, mode="wrap")
    image = np.clip(100 + 20 * smooth / smooth.std(), 0, 255).astype(np.uint8)[..., None]
    image.flags.writeable = False
    return image


def disc(centre: tuple[float, float], radius: float, size: int = 64, *, wrap: bool = False) -> np.ndarray:
    """Pixels whose middle is less than `radius` from `centre`, (y, x) in pixels; `wrap`: as on a torus."""
    off = [np.arange(size) + 0.5 - c for c in centre]
    if wrap:
        off = [(d + size / 2) % size - size / 2 for d in off]
    return (np.hypot(off[0][:, None], off[1]) < radius).astype(np.uint8)


def anywhere(count: int = 40, size: int = 64, radius: float = 9) -> list[Loaded]:
    """A data set that has nothing: discs anywhere, on smooth noise."""
    rng = np.random.default_rng(0)
    return [
        Loaded(noise(i, size), disc(tuple(rng.uniform(0, size, 2)), radius, size, wrap=True), NOWHERE)
        for i in range(count)
    ]


def changed(loaded: Sequence[Loaded], numbers: Sequence[int], **fields: Any) -> list[Loaded]:
    return [case._replace(**fields) if i in numbers else case for i, case in enumerate(loaded)]


def test_a_data_set_that_has_nothing():
    report = examine(anywhere())
    assert report.findings == [] and report.verdict == "usable; nothing found"
    assert report.text().endswith("verdict: usable; nothing found")
    assert [report.numbers[name] for name in ("cases", "patients", "splits", "sizes")] == [
        40,
        40,
        {"train": 28, "validation": 4, "test": 8},
        {"64x64": 40},
    ]
    assert "domains" not in report.numbers


# Where masks lie.


def test_dermoscopy_has_the_shortcut_of_position_and_border(tmp_path, tiny):
    report = builders.check("dermoscopy/tiny", data_dir=tmp_path)
    assert [finding.check for finding in report.findings] == ["position", "border"]
    assert "2 warnings, of which 2 that a network may take as a shortcut (position, border)" in report.verdict
    splits = [pipeline.Split(tiny, split, size=64) for split in ("train", "validation", "test")]
    labels = np.concatenate([pipeline.in_memory(split).labels for split in splits])
    # the same numbers from whole masks, in loops
    middle = np.ones((64, 64), bool)
    middle[8:-8, 8:-8] = False
    frequency = labels.mean(0)
    touching = [mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any() for mask in labels]
    offsets = []
    for mask in labels:
        y, x = np.nonzero(mask)
        offsets.append(math.hypot((y.mean() + 0.5) / 32 - 1, (x.mean() + 0.5) / 32 - 1))
    numbers = report.numbers
    assert numbers["foreground"] == pytest.approx(labels.mean(), rel=1e-6)
    assert numbers["touch the border"] == pytest.approx(np.mean(touching))
    assert numbers["density at the border"] == pytest.approx(frequency[middle].mean() / frequency.mean(), rel=1e-5)
    assert numbers["median offset"] == pytest.approx(np.median(offsets), abs=2e-3)  # of cells of 2 x 2 pixels
    best = max(
        np.mean([2 * (mask & fixed).sum() / (mask.sum() + fixed.sum()) for mask in labels])
        for fixed in (frequency >= level for level in np.unique(frequency)[1:])
    )
    assert numbers["blind Dice"] == pytest.approx(best, abs=0.01)


def test_discs_anywhere_have_no_position(no_search):
    numbers = examine(anywhere(400, radius=16)).numbers
    assert numbers["density at the border"] == pytest.approx(1, abs=0.1)
    # the best fixed mask is then nearly the whole image: 2 a / (1 + a) of masks with an area of a = 0.196
    assert numbers["blind Dice"] == pytest.approx(2 * 0.196 / 1.196, abs=0.05)


def test_position_without_border():
    """Masks that fill the left half: the border has as much of it as the rest, but where is known."""
    half = np.zeros((64, 64), np.uint8)
    half[:, :32] = 1
    report = examine([Loaded(noise(i), half, NOWHERE) for i in range(10)])
    assert [finding.check for finding in report.findings] == ["position"]
    assert report.numbers["blind Dice"] == pytest.approx(1)
    assert report.numbers["median offset"] == pytest.approx(0.5)
    assert report.numbers["touch the border"] == 1
    assert report.numbers["density at the border"] == pytest.approx(1)


def test_border_without_position():
    """Small discs anywhere but near the border."""
    rng = np.random.default_rng(0)
    masks = [disc(tuple(rng.uniform(13, 51, 2)), 4) for _ in range(40)]
    report = examine([Loaded(noise(i), mask, NOWHERE) for i, mask in enumerate(masks)])
    assert [finding.check for finding in report.findings] == ["border"]
    assert report.numbers["density at the border"] == report.numbers["touch the border"] == 0


@pytest.mark.parametrize("centre", [(32.0, 32.0), (20.0, 32.0), (40.0, 18.0)])
def test_the_offset_of_a_disc_is_that_of_its_middle(centre):
    numbers = examine([Loaded(noise(i), disc(centre, 10), NOWHERE) for i in range(5)]).numbers
    assert numbers["median offset"] == pytest.approx(math.hypot(centre[0] / 32 - 1, centre[1] / 32 - 1), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_blind_dice_is_the_best_threshold_of_the_mean(seed):
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, 1, (6, 5, 5)) * (rng.uniform(0, 1, (6, 5, 5)) < 0.5)
    mean = maps.mean(0)
    best = 0.0
    for level in np.unique(mean):
        total = 0.0
        for one in maps:
            inside = sum(one[i, j] for i in range(5) for j in range(5) if mean[i, j] >= level)
            total += 2 * inside / ((mean >= level).sum() + one.sum())
        best = max(best, total / len(maps))
    assert doctor._blind_dice(maps, mean) == pytest.approx(best, rel=1e-12)


def test_cells_are_means_of_blocks():
    plane = np.random.default_rng(0).uniform(size=(64, 96))
    np.testing.assert_allclose(case_facts.cells(plane), plane.reshape(32, 2, 32, 3).mean((1, 3)), rtol=1e-6)
    for shape in ((1, 1), (5, 40), (33, 100), (70, 31)):
        np.testing.assert_allclose(case_facts.cells(np.full(shape, 0.3)), 0.3, rtol=1e-6)
        whole = case_facts.cells(np.ones(shape) * (np.arange(shape[1]) >= shape[1] - 1))
        assert (whole[:, -1] > 0).all()  # no pixel is left out


def test_of_volumes_the_plane_counts():
    ball = np.zeros((6, 64, 64), np.uint8)
    ball[2:4] = disc((20, 44), 8)
    contents = BINARY._replace(volumes=True)
    image = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 1), np.uint8)
    report = examine([Loaded(np.roll(image, i, 1), ball, (2.0, 1.0, 1.0)) for i in range(5)], contents=contents)
    assert report.numbers["median offset"] == pytest.approx(math.hypot(20 / 32 - 1, 44 / 32 - 1), abs=1e-4)
    assert report.numbers["foreground"] == pytest.approx(ball.mean())
    assert report.numbers["sizes"] == {"64x64x6": 5}


# Marks.


def marked(numbers: Sequence[int], *, outline: bool, empty: Sequence[int] = (), count: int = 20) -> list[Loaded]:
    """Discs on smooth noise, some of them with calipers: at the ends of their diameter, or anywhere else."""
    rng, loaded = np.random.default_rng(1), []
    for i in range(count):
        y, x = rng.uniform(36, 92, 2)
        elsewhere = rng.uniform(10, 118, (2, 2))
        image, labels = noise(i, 128), disc((y, x), 18, 128)
        if i in numbers:
            points = np.array([(y, x - 18), (y, x + 18)]) if outline else elsewhere
            image = overlays.draw_calipers(image, points, colour=(255, 255, 255))[0]
        loaded.append(Loaded(image, np.zeros_like(labels) if i in empty else labels, NOWHERE))
    return loaded


def test_overlays_that_mark_the_outline():
    finding = found(examine(marked(range(20), outline=True)), "overlays")
    assert finding.summary.startswith("marks or text in 20 of 20 images; they mark the outline: ")
    assert "go with" not in finding.summary
    assert [line.partition(":")[0] for line in finding.lines] == [f"image{i}.png" for i in range(20)]


def test_the_page_shows_what_was_found(tmp_path, monkeypatch):
    """A few of the marked images, evenly over them, with the strokes that were drawn; none where nothing was found."""
    loaded = marked(range(5, 20), outline=True)
    report = examine(loaded)
    assert [one.name for one in report.pictured] == ["case5", "case12", "case19"]
    for one, i in zip(report.pictured, (5, 12, 19), strict=True):
        drawn = (loaded[i].image != noise(i, 128)).any(-1)
        assert one.marks[drawn].all() and not one.marks[~ndimage.binary_dilation(drawn, iterations=2)].any()
        np.testing.assert_array_equal(one.image, loaded[i].image)
    sheets = []
    monkeypatch.setattr(checkup.contact_sheet, "write", lambda path, cells, names: sheets.append((path, cells, names)))
    monkeypatch.setattr(checkup.page, "write", lambda path, page, provenance: sheets.append(page))
    checkup.write(tmp_path / "a.html", report, {})
    (_, cells, names), told = sheets
    assert names == ("", "found marks") and [cell.captions for cell in cells] == [("case5",), ("case12",), ("case19",)]
    assert all((cell.labels > 0).mean() == pytest.approx(one.marks.mean(), rel=0.3)
               for cell, one in zip(cells, report.pictured, strict=True))  # fmt: skip
    (section,) = [one for one in told.sections if one.figures]
    assert section.title == "Warning: overlays" and section.text[0].startswith("Marks or text in 15 of 20 images")
    assert told.verdict == "partly" and told.facts[0] == ("cases", "20") and len(section.tables[0].rows) == 15
    assert examine(marked((), outline=True)).pictured == ()


def test_the_page_of_a_data_set_that_cannot_be_used(tmp_path):
    report = examine([], problems=["image7.png: has no mask"])
    checkup.write(tmp_path / "a.html", report, {"command": "python -m launch.prepare"})
    text = (tmp_path / "a.html").read_text("utf-8")
    assert 'class="verdict bad"' in text and "image7.png: has no mask" in text and "<figure" not in text
    assert "Error: files" in text and "python -m launch.prepare" in text


def test_overlays_that_do_not():
    report = examine(marked(range(20), outline=False))
    assert found(report, "overlays").summary == "marks or text in 20 of 20 images"
    assert "overlays" in report.verdict


def test_no_overlays():
    report = examine(marked((), outline=True))
    assert not found(report, "overlays") and not found(report, "possible overlays")


def test_a_few_overlays_that_go_with_nothing_are_possible_ones():
    report = examine(marked((3, 11), outline=False))
    assert found(report, "possible overlays").summary.startswith("marks or text, or thin bright anatomy, in 2 of 20")
    assert not found(report, "overlays") and "overlays" not in report.verdict


@pytest.mark.parametrize("linked", [True, False])
def test_overlays_that_go_with_the_label(linked):
    empty = range(10, 20)
    drawn = range(10) if linked else range(0, 20, 2)
    finding = found(examine(marked(drawn, outline=False, empty=empty)), "overlays")
    assert finding.summary.startswith("marks or text in 10 of 20 images")
    assert ("they go with the foreground: with 100%, without 0%" in finding.summary) == linked


@pytest.mark.parametrize("linked", [True, False])
def test_overlays_that_go_with_the_domain(linked):
    drawn = range(10) if linked else range(0, 20, 2)
    report = examine(marked(drawn, outline=False), domains=["one"] * 10 + ["two"] * 10)
    finding = found(report, "overlays")
    assert ("they go with the domain: one 100%, two 0%" in finding.summary) == linked


def test_overlays_are_not_looked_for_in_photographs():
    colours = [
        Loaded(np.concatenate([case.image, case.image // 2, case.image // 4], -1), *case[1:])
        for case in marked(range(20), outline=True)
    ]
    report = examine(colours, contents=BINARY._replace(channels=3))
    assert not found(report, "overlays") and not found(report, "possible overlays")


# Domains.

TWO = ["one"] * 20 + ["two"] * 20


@pytest.mark.parametrize("brighter", [0, 60])
def test_intensity_that_tells_the_domain(brighter):
    loaded = [case._replace(image=case.image + np.uint8(brighter * (i >= 20))) for i, case in enumerate(anywhere())]
    report = examine(loaded, domains=TWO)
    assert report.numbers["domains"] == {"one": 20, "two": 20}
    finding = found(report, "intensity")
    if not brighter:
        assert finding is None
        return
    (line,) = finding.lines  # the spread is the same
    assert line == "one: mean 100, elsewhere 160 (AUROC 1.00)"


def test_contrast_that_tells_the_domain():
    loaded = [case._replace(image=case.image // (1 + (i >= 20))) for i, case in enumerate(anywhere())]
    lines = found(examine(loaded, domains=TWO), "intensity").lines
    assert [line.split(",")[0] for line in lines] == ["one: mean 100", "one: spread 20"]


def test_of_three_domains_each_is_named():
    shifts = (0, 50, 100)
    loaded = [case._replace(image=case.image + np.uint8(shifts[i % 3])) for i, case in enumerate(anywhere(42))]
    lines = found(examine(loaded, domains=[f"d{i % 3}" for i in range(42)]), "intensity").lines
    # the one in the middle is neither brighter nor darker than the rest
    assert [line.partition(" mean ")[0] for line in lines] == ["d0:", "d2:"]


def test_small_domains_are_not_compared():
    loaded = [case._replace(image=case.image + np.uint8(60 * (i >= 36))) for i, case in enumerate(anywhere())]
    assert not found(examine(loaded, domains=["one"] * 36 + ["two"] * 4), "intensity")


@pytest.mark.parametrize("lacking", [True, False])
def test_a_class_that_one_domain_lacks(lacking):
    loaded = anywhere()
    for i in range(20 if lacking else 40):
        labels = loaded[i].labels.copy()
        labels[:2, :2] = 2
        loaded[i] = loaded[i]._replace(labels=labels)
    report = examine(loaded, contents=THREE, domains=TWO)
    finding = found(report, "classes of domains")
    assert (finding and finding.lines) == (("two: no mask has cytoplasm",) if lacking else None)
    assert not found(report, "classes")


def test_a_class_that_no_mask_has():
    report = examine(anywhere(), contents=THREE, domains=TWO)
    assert found(report, "classes").summary.startswith("no mask has the class 2 cytoplasm: a network cannot")
    assert not found(report, "classes of domains")


def test_classes_that_a_split_lacks():
    """Of seven classes, the test cases have the first alone."""
    many = Contents(("background", *"abcdefg"), {k: k for k in range(8)}, channels=1)
    cases = anywhere()
    for i, case in enumerate(cases):
        labels = np.zeros((64, 64), np.uint8)
        labels[5:13, 5 + i % 40 : 20 + i % 40] = np.arange(1, 9)[:, None] % 8 if i < 30 else 1
        cases[i] = case._replace(labels=labels)
    report = examine(cases, contents=many, splits=("train",) * 20 + ("validation",) * 10 + ("test",) * 10)
    (finding,) = report.spoken
    assert finding.check == "classes of test"
    assert finding.summary == "no test mask has the classes 2 b, 3 c, 4 d, 5 e, 6 f and 1 more: Dice is undefined there"
    assert examine(cases[:30], contents=many).spoken == []


def test_a_case_that_nothing_was_prepared_for_is_one_line(monkeypatch):
    of_case = case_facts.of_case

    def fail(case, *arguments, **options):
        if case.part == 3:
            raise MemoryError("Unable to allocate 8 GiB\nfor an array")
        return of_case(case, *arguments, **options)

    monkeypatch.setattr(case_facts, "of_case", fail)
    (finding,) = examine(anywhere()).errors
    wanted = "image3.png: cannot be examined (MemoryError: Unable to allocate 8 GiB); leave it out"
    assert finding.lines == (wanted,)


# Splits.

DEALT = ("train",) * 20 + ("validation",) * 10 + ("test",) * 10


@pytest.mark.parametrize("same_mask", [True, False])
@pytest.mark.parametrize("other", [1, 25])
def test_duplicates(same_mask, other):
    loaded = anywhere()
    loaded[other] = loaded[0] if same_mask else loaded[other]._replace(image=loaded[0].image)
    report = examine(loaded, splits=DEALT)
    mask = "the same mask" if same_mask else "another mask"
    leaks, duplicates = found(report, "leaks"), found(report, "duplicates")
    if other == 1:
        assert leaks is None and duplicates.level == "warning"
        assert duplicates.lines == (f"image1.png: shows the same pixels as image0.png, with {mask}; both are in train",)
    else:
        assert duplicates is None and leaks.level == "error" and report.cases == ()
        place = f"image25.png: shows the same pixels as image0.png, with {mask}"
        assert leaks.lines == (f"{place}, one is in validation, one in train; leave one of them out",)


@pytest.mark.parametrize(("twins", "level"), [(1, "warning"), (2, "error")])
def test_one_leak_in_a_hundred_is_to_be_known(no_search, twins, level):
    rng = np.random.default_rng(0)
    loaded = [Loaded(rng.integers(0, 256, (8, 8, 1), np.uint8), np.eye(8, dtype=np.uint8), NOWHERE) for _ in range(300)]
    for i in range(twins):
        loaded[299 - i] = loaded[i]
    report = examine(loaded, splits=["train"] * 100 + ["validation"] * 100 + ["test"] * 100)
    leak = found(report, "leaks")
    assert (leak.level, len(leak.lines)) == (level, twins)
    assert bool(report.errors) == (level == "error")


@pytest.mark.parametrize("number", [5, 25])
def test_one_patient_in_two_splits(number):
    patients = [f"patient{0 if i == number else i}" for i in range(40)]
    finding = found(examine(anywhere(), splits=DEALT, patients=patients), "patients")
    if number == 5:
        assert finding is None
    else:
        assert finding.level == "error"
        assert finding.lines == (
            "image25.png: shows patient0, who is in train too (image0.png); keep a patient in one split",
        )


def test_one_patient_in_all_splits_is_named_twice():
    patients = [f"patient{0 if i in (25, 35) else i}" for i in range(40)]
    finding = found(examine(anywhere(), splits=DEALT, patients=patients), "patients")
    assert [line.partition(":")[0] for line in finding.lines] == ["image25.png", "image35.png"]


def test_the_same_image_of_several_patients_stays_in_one_split_when_splits_are_dealt_out():
    loaded = anywhere(60)
    # 0 = 20 = 40 and, through patient 21, who has two images, 41
    for i in (20, 40):
        loaded[i] = loaded[i]._replace(image=loaded[0].image)
    loaded[41] = loaded[41]._replace(image=loaded[21].image)
    patients = [f"patient{20 if i == 21 else i}" for i in range(60)]
    report = examine(loaded, patients=patients)
    assert report.errors == [] and len(found(report, "duplicates").lines) == 3
    split = {case.case: case.split for case in report.cases}
    assert len({split[f"case{i}"] for i in (0, 20, 40, 21, 41)}) == 1
    assert {case.patient for case in report.cases} == set(patients)  # they keep their names
    assert set(split.values()) == {"train", "validation", "test"}


def test_patients_stay_whole_when_splits_are_dealt_out():
    patients = [f"patient{i // 3}" for i in range(39)] + ["patient0"]
    report = examine(anywhere(), patients=patients)
    assert report.errors == []
    for patient in set(patients):
        assert len({case.split for case in report.cases if case.patient == patient}) == 1


def test_blank_images_are_no_duplicates():
    loaded = changed(anywhere(), (0, 25), image=np.full((64, 64, 1), 7, np.uint8))
    report = examine(loaded, splits=DEALT)
    assert not found(report, "leaks")
    assert found(report, "blank images").lines == ("image0.png", "image25.png")
    assert found(report, "blank images").summary.startswith("2 of 40 images have one value everywhere")


def test_blank_images_of_two_domains_are_not_told_apart():
    loaded = [case._replace(image=np.full((64, 64, 1), 7, np.uint8)) for case in anywhere()]
    assert not found(examine(loaded, domains=TWO), "intensity")


# Masks and headers.


@pytest.mark.parametrize(("value", "check"), [(0, "empty masks"), (1, "full masks")])
def test_masks_of_one_value(value, check):
    report = examine(changed(anywhere(), (3, 8), labels=np.full((64, 64), value, np.uint8)))
    assert found(report, check).lines == ("mask3.png", "mask8.png")
    assert found(report, check).summary.startswith("2 of 40 masks ")
    assert not found(examine(anywhere()), check)


def test_no_mask_has_any_foreground():
    report = examine([case._replace(labels=np.zeros((64, 64), np.uint8)) for case in anywhere()])
    assert {finding.check for finding in report.findings} == {"empty masks", "classes"}
    assert report.numbers["foreground"] == 0 and "blind Dice" not in report.numbers
    json.dumps(report.as_json(), allow_nan=False)


@pytest.mark.parametrize(("size", "wanted"), [((0.9, 0.9), None), ((2.5, 2.5), "pixels are 1 to 2.5 mm large")])
def test_pixels_of_other_sizes(size, wanted):
    loaded = [case._replace(spacing=(1.0, 1.0)) for case in anywhere()]
    finding = found(examine(changed(loaded, (4,), spacing=size)), "spacing")
    assert finding is None if wanted is None else finding.summary.startswith(wanted)


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        ((1.0, 1.005), None),  # headers are rounded
        ((1.0, 1.1), ("mask4.png: (1.0, 1.1), its image (1.0, 1.0)",)),
        (NOWHERE, None),  # a mask in a format that does not tell
    ],
)
def test_masks_whose_pixels_have_another_size(mask, wanted):
    loaded = [case._replace(spacing=(1.0, 1.0), mask_spacing=(1.0, 1.0)) for case in anywhere()]
    finding = found(examine(changed(loaded, (4,), mask_spacing=mask)), "spacing")
    assert (finding and finding.lines) == wanted


def test_pixels_without_a_size():
    loaded = changed([case._replace(spacing=(1.0, 1.0)) for case in anywhere()], (4,), spacing=(0.0, 1.0))
    lines = [finding.lines for finding in examine(loaded).findings if finding.check == "spacing"]
    assert ("image4.png: (0.0, 1.0)",) in lines


TO_THE_LEFT, TO_THE_RIGHT = np.eye(4)[[2, 1, 0, 3]] * [[-1], [1], [1], [1]], np.eye(4)[[2, 1, 0, 3]]


def test_orientation():
    loaded = [case._replace(affine=TO_THE_LEFT) for case in anywhere()]
    assert not found(examine(loaded), "orientation")
    report = examine(changed(loaded, (4,), affine=TO_THE_RIGHT))
    assert found(report, "orientation").lines == ("image4.png: AR",) and not report.errors
    report = examine(changed(loaded, (4,), affine=None))
    assert found(report, "orientation").lines == ("image4.png: does not tell",) and not report.errors


@pytest.mark.parametrize(
    ("affines", "wanted"),
    [
        ((TO_THE_RIGHT,), "1 images are not oriented AL like most: pictures are taken as they lie"),
        ((None,), "1 images are not oriented AL like most, or do not tell: pictures are taken as they lie"),
        (
            (TO_THE_RIGHT, None),
            "2 images are not oriented AL like most, or do not tell: pictures are taken as they lie",
        ),
    ],
)
def test_pictures_that_run_otherwise_are_taken_as_they_lie(affines, wanted):
    loaded = [case._replace(affine=TO_THE_LEFT) for case in anywhere()]
    for i, affine in enumerate(affines):
        loaded[i] = loaded[i]._replace(affine=affine)
    assert found(examine(loaded), "orientation").summary == wanted


def test_pictures_of_which_few_tell_how_they_run():
    summary = found(examine(changed(anywhere(), (4, 7), affine=TO_THE_LEFT)), "orientation").summary
    assert summary == ("most images do not tell their orientation, 2 do: pictures are taken as they lie")


@pytest.mark.parametrize(
    ("affines", "wanted"),
    [
        ((TO_THE_RIGHT,), "1 images are not oriented SAL like most: they are turned to match"),
        ((None,), "1 images are not oriented SAL like most, or do not tell: they are taken as they lie"),
        (
            (TO_THE_RIGHT, None),
            "2 images are not oriented SAL like most, or do not tell: those that tell are turned to match, the others "
            "taken as they lie",
        ),
    ],
)
def test_volumes_that_run_otherwise_are_turned_where_they_tell(affines, wanted):
    loaded = [
        case._replace(image=case.image[None], labels=case.labels[None], spacing=(1.0,) * 3, affine=TO_THE_LEFT)
        for case in anywhere()
    ]
    for i, affine in enumerate(affines):
        loaded[i] = loaded[i]._replace(affine=affine)
    report = examine(loaded, contents=BINARY._replace(volumes=True))
    assert found(report, "orientation").summary == wanted and report.orientation == "SAL"


# Objects whose levels scaling would lose.

MR = BINARY._replace(scaling=("percentiles", 0.5, 99.5))


def deep(low: float, high: float, pixels: int = 36) -> Loaded:
    """Noise about 10,000 and an object of levels from `low` to `high`; 36 pixels are 1 in 20,000 of the image's."""
    image = np.random.default_rng(pixels).normal(10_000, 1_000, (840, 840, 1))
    labels = np.zeros((840, 840), np.uint8)
    labels.flat[30_000 : 30_000 + pixels] = 1
    image[labels > 0] = np.linspace(low, high, pixels)[:, None]
    return Loaded(np.rint(image).astype(np.int32), labels, NOWHERE)


def share_of_clipped(case: Loaded, contents: Contents) -> float:
    name = RawCase("a", (pathlib.Path("a.png"),), None, "p")
    return case_facts.of_case(name, case, contents, search=False).clipped


def test_how_much_of_the_foreground_is_clipped():
    assert share_of_clipped(deep(20_000, 60_000), MR) == 1
    assert share_of_clipped(deep(-60_000, -20_000), MR) == 1
    assert share_of_clipped(deep(60_000, 60_000), MR) == 0  # nothing differs
    assert share_of_clipped(deep(20_000, 60_000, 360), MR) < 0.25  # no outliers any more
    assert share_of_clipped(deep(9_000, 11_000), MR) == 0


def test_a_window_clips_on_purpose():
    assert share_of_clipped(deep(20_000, 60_000), BINARY._replace(scaling=("window", 0.0, 80.0))) == 0


def test_files_of_8_bits_are_not_scaled_and_nothing_is_clipped():
    image = np.full((64, 64, 1), 100, np.uint8)
    labels = disc((20, 20), 5)
    image[labels > 0] = 255
    for dtype in (np.uint8, np.int16):
        assert share_of_clipped(Loaded(image.astype(dtype), labels, NOWHERE), BINARY) == 0


def test_an_object_that_is_taken_for_outliers_is_said_with_its_file(no_search):
    good, lost = [deep(5_000, 15_000, 40 + i) for i in range(5)], deep(20_000, 60_000)
    assert examine(good, contents=MR).spoken == []
    report = examine([*good, lost], contents=MR)
    (finding,) = report.spoken
    assert finding.check == "clipped foreground" and finding.lines == ("image5.png: 100% of the foreground",)
    assert finding.summary == (
        "in 1 of 6 images most of the foreground comes out all black or all white, though its intensities differ; "
        "scale the images to 0 to 255 yourself and save them with 8 bits: image5.png"
    )


def test_what_readers_and_grids_had_to_say_is_passed_on():
    report = examine(changed(anywhere(), (4,), notes=("mask4.nii: lies up to 0.20 of a pixel off its image",)))
    assert found(report, "geometry").lines == ("mask4.nii: lies up to 0.20 of a pixel off its image",)


def test_channels():
    colour = BINARY._replace(channels=3)
    loaded = [case._replace(image=np.repeat(case.image, 3, -1)) for case in anywhere()]
    assert not found(examine(loaded, contents=colour), "channels")
    report = examine(changed(loaded, (4,), image=noise(4)), contents=colour)
    assert found(report, "channels").lines == ("image4.png: 1",)
    assert not report.errors  # gray becomes colour
    (error,) = examine(changed(loaded, (4,), image=np.repeat(noise(4), 2, -1)), contents=colour).errors
    assert error.lines == ("image4.png: has 2 channels, the data set has 3; convert it or leave it out",)


# The report.


def test_errors_come_first_and_no_case_is_usable():
    loaded = changed(anywhere(), (3,), labels=np.zeros((64, 64), np.uint8))
    loaded = changed(loaded, (8,), labels=np.full((64, 64), 9, np.uint8))
    report = examine(loaded, problems=("a.png: is lost; find it",))
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels) and levels == ["error", "error", "warning"]
    assert [line for finding in report.errors for line in finding.lines] == [
        "a.png: is lost; find it",
        "mask8.png: holds the value 9; the classes are 0 background, 1 object: set every pixel to one of them",
    ]
    assert report.verdict == "not usable: 2 problems to fix first; 1 warning" and report.cases == ()


def test_files_that_cannot_be_read_are_lines_and_too_few_patients_are_none_then():
    def load(case: RawCase, *, at_least: int | None = None) -> Loaded:
        raise FileProblems(f"{case.place}: is lost; find it", f"{case.mask}: is lost; find it")

    cases = [RawCase(f"{i}", (pathlib.Path(f"{i}.png"),), pathlib.Path(f"m{i}.png"), f"{i}") for i in range(4)]
    report = doctor.examine("mine", Found(cases, (), BINARY), load)
    assert [finding.check for finding in report.findings] == ["contents of files"]
    assert len(report.findings[0].lines) == 8
    json.dumps(report.as_json(), allow_nan=False)


def test_no_case_at_all():
    (finding,) = examine([]).findings
    assert (finding.level, finding.summary) == (
        "error",
        "there is no case at all; name the folder that holds the files",
    )


def test_too_few_patients():
    (error,) = examine(anywhere(10), patients=["one", "two"] * 5).errors
    assert error.summary.startswith("there are 2 patients, and splits never divide one; give at least 3")


def test_the_text_ends_with_the_verdict_and_has_some_examples_of_each_finding():
    report = examine(changed(anywhere(), range(8), labels=np.zeros((64, 64), np.uint8)))
    lines = report.text().splitlines()
    assert lines[0] == "mine"
    assert lines[-1] == f"verdict: {report.verdict}" == "verdict: usable; 1 warning"
    start = next(i for i, line in enumerate(lines) if line.startswith("warning  empty masks  8 of 40 masks"))
    assert [line.strip() for line in lines[start + 1 : -2]] == [*(f"- mask{i}.png" for i in range(5)), "- and 3 more"]
    for name, value in report.numbers.items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        if isinstance(value, float):
            assert float(line.removeprefix(f"  {name} ").split()[0]) == pytest.approx(value, abs=6e-4)


def test_as_json_has_everything():
    report = examine(changed(anywhere(), (1,), labels=np.zeros((64, 64), np.uint8)), domains=TWO)
    said = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert said["name"] == "mine" and said["verdict"] == report.verdict
    assert said["findings"] == [
        {
            "level": "warning",
            "check": "empty masks",
            "summary": "1 of 40 masks have no foreground: Dice is undefined there",
            "lines": ["mask1.png"],
        }
    ]
    assert said["numbers"] == report.numbers


def test_check_writes_nothing_and_preparing_keeps_what_it_says(tmp_path):
    raw, data = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    rows = ["case,image,mask,domain,patient"]
    for i, case in enumerate(anywhere(10)):
        Image.fromarray(case.image[..., 0]).save(raw / f"{i}.png")
        Image.fromarray(255 * case.labels * (i > 0)).save(raw / f"{i}_mask.png")
        rows.append(f"case{i},{i}.png,{i}_mask.png,,")
    (raw / "cases.csv").write_text("\n".join(rows))
    before = sorted(tmp_path.rglob("*"))
    report = builders.check("folder/mine", data_dir=data, manual_dir=raw)
    assert sorted(tmp_path.rglob("*")) == before
    directory = builders.prepare("folder/mine", data_dir=data, manual_dir=raw)
    assert json.loads((directory / "doctor.json").read_text()) == report.as_json()
    assert found(report, "empty masks").lines == (str(raw / "0_mask.png"),)
    assert {case.split for case in report.cases} == {"train", "validation", "test"}
    for split in pipeline.split_sizes(directory):
        said = {case.case for case in report.cases if case.split == split}
        assert set(pipeline.Split(directory, split, size=None).cases) == said


# Files that differ from their neighbours.


def test_eight_bits_among_sixteen_are_an_error():
    deep = [case._replace(image=case.image.astype(np.uint16) * 9) for case in anywhere()]
    assert found(examine(deep), "bit depth") is None
    finding = found(examine([*anywhere()[:2], *deep[2:]]), "bit depth")
    assert finding is not None and finding.level == "error"
    assert finding.lines == tuple(f"image{i}.png: has 8 bits, most have more; save all alike" for i in range(2))


def test_ranges_of_the_files_are_compared_before_they_are_scaled():
    contents = BINARY._replace(scaling=("percentiles", 0.5, 99.5))
    domains = ["a", "b"] * 20
    wide = [
        case._replace(image=case.image.astype(np.uint16) * (60 if domain == "b" else 1))
        for case, domain in zip(anywhere(), domains, strict=True)
    ]
    report = examine(wide, contents=contents, domains=domains)
    assert found(report, "intensity") is None  # scaled, they are alike
    finding = found(report, "intensity ranges")
    assert finding is not None and len(finding.lines) == 2
    assert found(examine(anywhere(), domains=domains), "intensity ranges") is None


def test_a_split_that_is_dealt_out_is_said():
    finding = found(examine(anywhere(), splits=["train"] * 40), "splits")
    assert finding is not None and finding.summary == "only train came with the data: 12 cases of train were reassigned"
    finding = found(examine(anywhere(), splits=["train"] * 20 + ["test"] * 20), "splits")
    assert finding is not None and "only test and train came with the data: 2 cases" in finding.summary
    whole = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    assert found(examine(anywhere(), splits=whole), "splits") is None


def test_marks_at_the_same_place_everywhere_are_the_machines_own():
    def with_logo(case: Loaded) -> Loaded:
        image, _ = overlays.draw_text(case.image, "ABC", (4, 4))
        return case._replace(image=image)

    report = examine([with_logo(case) for case in anywhere()])
    finding = found(report, "fixed marks")
    assert finding is not None and "in 40 of 40 images" in finding.summary
    assert found(report, "overlays") is None and found(report, "possible overlays") is None
    # but not if they come and go with the domain
    some = [with_logo(case) if i % 2 else case for i, case in enumerate(anywhere())]
    report = examine(some, domains=["a", "b"] * 20)
    assert found(report, "fixed marks") is None
    finding = found(report, "overlays")
    assert finding is not None and "they go with the domain: a 0%, b 100%" in finding.summary


def test_slices_of_other_distances():
    volumes = [
        Loaded(np.repeat(case.image[None], 3, 0), np.repeat(case.labels[None], 3, 0), (1.0 + 9 * (i % 2), 1.0, 1.0))
        for i, case in enumerate(anywhere(8))
    ]
    report = examine(volumes, contents=BINARY._replace(volumes=True))
    finding = found(report, "spacing")
    assert finding is not None and finding.summary.startswith("slices lie 1 to 10 mm apart")


def test_every_number_of_a_report_has_its_convention():
    report = examine(anywhere())
    said = report.as_json()["conventions"]
    assert {name for name, value in report.numbers.items() if isinstance(value, float)} <= said.keys()
    for name, text in said.items():
        assert f"({text})" in next(line for line in report.text().splitlines() if line.startswith(f"  {name} "))
