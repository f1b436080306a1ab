"""The overlay study: marks, their removal, scores, tables, the verdict, the page. Training itself is stubbed."""

import csv
import dataclasses
import functools
import importlib.util
import itertools
import json
import pathlib
import types

import jax
import numpy as np
import pytest

from jaxseg.data import overlays, pipeline
from jaxseg.data.synthetic import ultrasound
from jaxseg.errors import InputError
from jaxseg.metrics.intervals import Estimate
from jaxseg.models import tracing
from jaxseg.results.table import Row
from jaxseg.results.table import records as records_of
from jaxseg.studies import base, runner
from jaxseg.studies.overlay_shortcut import claims, restoration, tables
from jaxseg.studies.overlay_shortcut import clips as frozen
from jaxseg.studies.overlay_shortcut import experiment as study
from jaxseg.studies.overlay_shortcut import figures as study_figures
from jaxseg.studies.overlay_shortcut import images as marked
from jaxseg.studies.overlay_shortcut.marker import COLOURS, Marker, away
from jaxseg.studies.overlay_shortcut.settings import NETWORKS, settings
from jaxseg.studies.overlay_shortcut.study import STUDY
from jaxseg.training import checks
from tests.drawings import assert_as_stored, kept

ROOT = pathlib.Path(__file__).parents[2]
SIZES = {"train": 4, "validation": 4, "test": 8}


def config(size="tiny", **fields):
    spec = importlib.util.spec_from_file_location("overlay_shortcut_config", ROOT / "configs" / "overlay_shortcut.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_config(size)
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made


def settings_of(size="tiny", **fields):
    return settings(config(size, **fields))


# Config.


@pytest.mark.parametrize("size", ["tiny", "demo", "cpu", "paper"])
def test_every_size_can_be_run(size):
    settings_of(size)


def test_unknown_sizes_are_named():
    with pytest.raises(ValueError, match="unknown size 'huge'; choose one of paper, cpu, demo, tiny"):
        config("huge")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("overlays.source", "painted", "config.overlays.source is 'painted'; choose one of world, drawn, burnt_in"),
        ("removal.method", "magic", "choose one of black, noise, bilinear, fast_marching, network"),
        ("removal.crop", 128, r"must be at most config.data.source_size \(64\) and divisible by 2"),
        ("removal.crop", 31, "divisible by 2"),
        ("removal.features", (), r"config.removal.features is \(\); give a number of features for every level"),
        ("removal.features", (4, 0), "give a number of features for every level"),
        ("data.folds", 2, "trains on whole images in memory"),
        ("replicas", 2, "trains on whole images in memory"),
        ("removal.gray_share", 1.5, "must be at least 0 and at most 1"),
        ("removal.steps", 0, "config.removal.steps is 0; it must be at least 1"),
        ("removal.learning_rate", float("nan"), "config.removal.learning_rate is nan"),
        ("evaluation.clip_frames", 1, "must be at least 2"),
        ("evaluation.saliency_layer", "encoder_9", "the network has .*bottleneck/conv_1"),
        ("data.domains", ("clean",), "config.data.domains must be empty"),
        ("data.view", "quadrant", "trains on whole images"),
        ("data.residence", "stream", "trains on whole images in memory"),
        ("training.epochs", 0, "config.training.epochs is 0"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    with pytest.raises(InputError, match=message):
        settings_of(**{field.replace(".", "__"): value})


def test_a_crop_of_the_whole_image_and_a_single_feature_will_do():
    made = settings_of(removal__features=(1, 1), removal__crop=64)
    assert (made.removal.crop, made.run.data.source_size) == (64, 64)


def test_each_network_is_trained_on_its_own_images():
    made = settings_of()
    runs = {name: made.of_run(name).data.domains for name in made.networks}
    assert runs == {"baseline": ("annotated",), "mitigation": ("cleaned",), "reference": ("clean",)}
    assert settings_of("paper").networks == ("baseline", "mitigation")  # nobody knows the clean images


# Images.


def cases_of(images, labels, names, patients, class_names=ultrasound.CLASS_NAMES):
    return pipeline.InMemory("fake/split", class_names, images, labels, names, patients, *pipeline.nowhere(len(names)))


@pytest.fixture(scope="module")
def frames():
    """Scans of all four planes for every split, at 64 px."""
    number, made = 0, {}
    for split, count in SIZES.items():
        made[split] = [ultrasound.render(3, number + i, 64, plane=ultrasound.PLANES[i % 4]) for i in range(count)]
        number += count
    return made


def stored_splits(frames):
    """In place of `runs.Splits` of a prepared data set: `splits(directory, size, domains)`."""

    def splits(directory, size, domains):
        del directory, size
        made = {}
        for split, drawn in frames.items():
            names = tuple(f"scan{frame.source[1]:02d}" for frame in drawn)
            images = np.stack([frame.clean if "clean" in domains else frame.image for frame in drawn])
            made[split] = cases_of(images, np.stack([frame.labels for frame in drawn]), names, names)
        return _Splits(made)

    return splits


class _Splits(dict):
    rank = 2


@pytest.fixture
def data_set(frames, monkeypatch):
    monkeypatch.setattr(study.runs, "Splits", stored_splits(frames))


class Filling:
    """In place of a trained network: fills holes with one gray level."""

    losses = np.zeros(3, np.float32)

    def __init__(self, level=128):
        self.value = level / 127.5 - 1

    def __call__(self, images, masks):
        return np.where(masks[..., None], np.float32(self.value), images)


@pytest.fixture
def filling(monkeypatch):
    asked = []

    def train(key, images, *, known_overlays, **options):
        asked.append((images, known_overlays, options))
        return Filling()

    monkeypatch.setattr(marked.inpainting, "train_inpainter", train)
    return asked


@pytest.fixture(scope="module")
def prepared(frames, tmp_path_factory):
    """Scans, images without their marks, clips and measures of the removal; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.runs, "Splits", stored_splits(frames))
        patch.setattr(marked.inpainting, "train_inpainter", lambda *_, **__: Filling())
        scans = marked.load(settings_of(), pathlib.Path("nowhere"))
        images = marked.clean_up(settings_of(), scans, folder)
        clips = frozen.make_clips(settings_of(), images)
        removal = restoration.measure(images, folder)
    return types.SimpleNamespace(folder=folder, scans=scans, images=images, clips=clips, removal=removal)


def test_a_world_has_marks_where_its_domains_differ(data_set, frames):
    scans = marked.load(settings_of(), pathlib.Path("nowhere"))
    for split, drawn in frames.items():
        np.testing.assert_array_equal(scans[split].annotated.images, [frame.image for frame in drawn])
        np.testing.assert_array_equal(scans[split].clean.images, [frame.clean for frame in drawn])
        truly = np.stack([frame.overlay for frame in drawn])
        assert not (scans[split].marks & ~truly).any()
        assert scans[split].marks.sum() > 0.97 * truly.sum()  # ink of the gray level that it covers changes nothing
    unknown = marked.load(settings_of(overlays__source="burnt_in"), pathlib.Path("nowhere"))
    assert unknown["test"].clean is None and unknown["test"].marks is None


def test_a_world_without_pairs_is_refused(data_set, monkeypatch):
    whole = study.runs.Splits
    lame = lambda directory, size, domains: _Splits(
        {split: part if "clean" not in domains else dataclasses.replace(part, patients=part.patients[::-1])
         for split, part in whole(directory, size, domains).items()}
    )  # fmt: skip
    monkeypatch.setattr(study.runs, "Splits", lame)
    with pytest.raises(InputError, match="needs every scan once in each of both domains"):
        marked.load(settings_of(), pathlib.Path("nowhere"))


def test_a_batch_larger_than_all_cases_is_named(data_set):
    scans = marked.load(settings_of(), pathlib.Path("nowhere"))
    with pytest.raises(InputError, match=r"batch_size is 16, fake/split has 4 cases to train on"):
        marked.check_batch(16, scans)
    marked.check_batch(4, scans)


def test_cleaning_changes_what_was_found_and_nothing_else(data_set, filling, tmp_path):
    scans = marked.load(settings_of(), pathlib.Path("nowhere"))
    images = marked.clean_up(settings_of(), scans, tmp_path)
    [(seen, hidden, options)] = filling
    np.testing.assert_array_equal(seen, scans["train"].annotated.images)  # never the clean ones
    assert options == {"steps": 10, "batch_size": 4, "crop": 32, "features": (4, 8), "learning_rate": 2e-3}
    for split in SIZES:
        annotated, cleaned = scans[split].annotated.images, images.cleaned[split].images
        found = np.stack([overlays.detect(image, gray_share=0.8) for image in annotated])
        np.testing.assert_array_equal(images.found[split], found)
        region = np.stack([overlays.removed_region(mask, method="network", margin=1) for mask in found])
        assert (cleaned[region] == 128).all()
        np.testing.assert_array_equal(cleaned[~region], annotated[~region])
        if split == "train":
            np.testing.assert_array_equal(hidden, region)
    # what was made is read back; what is damaged is made again
    again = marked.clean_up(settings_of(), scans, tmp_path)
    np.testing.assert_array_equal(again.cleaned["train"].images, images.cleaned["train"].images)
    assert len(filling) == 1
    (tmp_path / "runs" / "inpainting.npz").write_bytes(b"PK")
    marked.clean_up(settings_of(), scans, tmp_path)
    assert len(filling) == 2


def test_another_removal_makes_the_images_of_the_mitigated_network(data_set, filling, tmp_path):
    chosen = settings_of(removal__method="fast_marching")
    scans = marked.load(chosen, pathlib.Path("nowhere"))
    images = marked.clean_up(chosen, scans, tmp_path)
    i = 3
    expected = overlays.remove(
        scans["test"].annotated.images[i], images.found["test"][i], method="fast_marching", margin=1
    )
    np.testing.assert_array_equal(images.cleaned["test"].images[i], expected)
    np.testing.assert_array_equal(images.restored("fast_marching", "found", i), expected)
    assert (images.restored("network", "true", i)[scans["test"].marks[i]] == 128).all()
    np.testing.assert_array_equal(images.restored(marked.NOTHING, "true", i), scans["test"].annotated.images[i])


def test_removals_are_measured_against_the_clean_images(prepared):
    scans, images, measures = prepared.scans, prepared.images, prepared.removal
    annotated, clean, marks = scans["test"].annotated.images, scans["test"].clean.images, scans["test"].marks
    for i in range(len(marks)):
        left = np.abs(annotated[i].astype(float) - clean[i])
        assert measures["none true marks mae"][i] == pytest.approx(left[marks[i]].mean())
        assert measures["none true image mae"][i] == pytest.approx(left.mean())
        gray = np.abs(128.0 - clean[i][marks[i]]).mean()
        assert measures["network true marks mae"][i] == pytest.approx(gray)
        square = np.mean((128.0 - clean[i][marks[i]]) ** 2)
        assert measures["network true marks psnr"][i] == pytest.approx(10 * np.log10(255**2 / square))
        found = images.found["test"][i]
        assert measures["recall"][i] == pytest.approx((found & marks[i]).sum() / marks[i].sum())
        assert measures["precision"][i] == (
            pytest.approx((found & marks[i]).sum() / found.sum()) if found.any() else pytest.approx(np.nan, nan_ok=True)
        )
        assert measures["removed"][i] >= measures["recall"][i]
    assert measures["fast_marching true marks mae"].mean() < 0.3 * measures["none true marks mae"].mean()
    stored = restoration.measure(
        dataclasses.replace(images, scans=scans, found={}), prepared.folder
    )  # not measured again
    np.testing.assert_array_equal(stored["recall"], measures["recall"])


# Marks on clean heads.


def head(name="case7", side=96):
    y, x = np.mgrid[:side, :side]
    labels = (((x - 40) / 30) ** 2 + ((y - 44) / 22) ** 2 <= 1).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 120, (side, side, 1), dtype=np.uint8).repeat(3, -1)
    spacing = np.array([0.5, 0.5], np.float32)
    return {"case": name, "image": image, "labels": labels, "spacing": spacing}


@pytest.mark.parametrize("name", ["case1", "case2", "case3", "case7"])
def test_frames_of_a_drawn_clip_gain_marks_one_by_one(name):
    case = head(name)
    frames, labels, changed = frozen._drawn_clip(case)
    np.testing.assert_array_equal(labels, case["labels"])
    assert len(frames) == 6
    np.testing.assert_array_equal(frames[0], case["image"])
    np.testing.assert_array_equal(frames[-1], changed["all marks"])
    covered = (frames != case["image"]).any(-1)
    assert (np.diff(covered.sum((1, 2))) > 0).all()
    for before, after in itertools.pairwise(covered):
        assert not (before & ~after).any()
    ends = np.concatenate(overlays.ellipse_axes(case["labels"]))
    for count, (y, x) in enumerate(np.rint(ends).astype(int)):
        assert covered[count + 2, y, x] and not covered[count + 1, y, x]
    calipers, text = ((changed[kind] != case["image"]).any(-1) for kind in ("calipers only", "text only"))
    np.testing.assert_array_equal(calipers | text, covered[-1])
    assert not (calipers & text).any()
    assert text[60:].sum() == text.sum() and not text[:, :40].any()  # in the lower right corner
    other, moved = (
        (changed[kind] != changed["all marks"]).any(-1) for kind in ("other plane's text", "calipers moved")
    )
    assert other[text | (np.indices(text.shape)[0] > 40)].any() and not other[calipers & ~other].any()
    # a quarter of the side towards the farther borders: the organ is left of and above the middle
    y, x = np.rint(ends[0] + 24).astype(int)
    assert moved[y, x] and (changed["calipers moved"][y, x] != case["image"][y, x]).any()


def test_marks_belong_to_the_case_and_its_head():
    first, again, other = (Marker(head(name)) for name in ("case1", "case1", "case9"))
    np.testing.assert_array_equal(first.draw()[0], again.draw()[0])
    looks = {Marker(head(f"case{i}"))._chance for i in range(60)}
    assert {style for style, _ in looks} == set(overlays.CALIPER_STYLES)
    assert {colour for _, colour in looks} == set(COLOURS)
    assert first._text(False).startswith("HEAD\nBPD 2.19 cm\nOFD 3.00 cm\nHC 8.20 cm")
    assert other._text(True) == "ABDOMEN\nAPD 2.19 cm\nTAD 3.00 cm\nAC 8.20 cm"


@pytest.mark.parametrize(
    ("place", "wanted"), [((10, 20), (12, 12)), ((30, 20), (-12, 12)), ((10, 24), (12, -12)), ((23, 23), (12, 12))]
)
def test_away_is_a_quarter_of_the_side_towards_the_farther_borders(place, wanted):
    labels = np.zeros((48, 48), np.uint8)
    labels[place] = 1
    assert away(labels) == wanted
    labels = np.zeros((49, 49), np.uint8)
    labels[24, 24] = 1  # exactly in the middle
    assert away(labels) == (-12, -12)


@pytest.mark.parametrize("name", ["case1", "case2", "case3"])
def test_marks_of_all_sizes_and_styles_stay_as_they_are(request, name):
    found = {}
    for side in (60, 96, 310):
        case = head(name, side)
        case["spacing"] = np.array([0.5, np.nan if side == 96 else 0.7], np.float32)
        marker = Marker(case)
        pictures = {"marks": marker.draw()[0], "other": marker.draw(other=True)[0], "text": marker.text}
        pictures |= {f"{count} calipers": marker.calipers(count) for count in range(5)}
        pictures["moved"] = marker.move(case["image"], (5, -7))
        flat = {key: np.asarray(picture, float).reshape(side * side, -1).mean(1) for key, picture in pictures.items()}
        found[str(side)] = {key: kept([{"": value} for value in values[::3]]) for key, values in flat.items()}
    assert_as_stored(request.path.parent / "drawn" / f"marks_{name}.json", found)


def test_gray_images_become_colour_and_empty_masks_are_named():
    case = head()
    gray = cases_of(case["image"][None, ..., :1], case["labels"][None], ("a",), ("p",), ("background", "head"))
    assert marked._in_colour(gray).images.shape == (1, 96, 96, 3)
    with pytest.raises(InputError, match="has 4 channels; marks are for pictures with 1 or 3"):
        marked._in_colour(dataclasses.replace(gray, images=np.zeros((1, 96, 96, 4), np.uint8)))
    annotated = marked._annotate(marked._in_colour(gray))
    assert 0.005 < (annotated.images != gray.images).any(-1).mean() < 0.2
    with pytest.raises(InputError, match="a has an empty mask, so there is nothing to mark"):
        marked._annotate(dataclasses.replace(gray, labels=0 * gray.labels))


def test_marks_drawn_on_real_heads_are_found(real_data):
    from jaxseg.data import formats

    folder = real_data / "hc18_half" / "training_set"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    recall = []
    for path in sorted(folder.glob("*HC.png"))[:6]:
        image = formats.read(path).array[..., :1].repeat(3, -1)
        mask = formats.read_mask(path.with_name(f"{path.stem}_Annotation.png")).array[..., 0] > 0
        case = {"case": path.stem, "image": image, "labels": mask, "spacing": np.full(2, np.nan)}
        annotated = Marker(case).draw()[0]
        marks = (annotated != image).any(-1)
        region = overlays.removed_region(overlays.detect(annotated), method="network", margin=1)
        recall.append((marks & region).sum() / marks.sum())
    assert np.mean(recall) > 0.9


def test_clips_of_the_world_are_of_new_scans_of_all_planes(prepared):
    scans, images, clips = prepared.scans, prepared.images, prepared.clips
    assert clips.frames.shape == (8, 4, 64, 64, 3)
    np.testing.assert_array_equal(marked.planes_of_labels(clips.labels), [1, 2, 3, 4, 1, 2, 3, 4])
    np.testing.assert_array_equal(clips.frames[:, 0], clips.changed["no marks"])
    np.testing.assert_array_equal(clips.frames[:, -1], clips.changed["all marks"])
    clean = clips.changed["no marks"]
    differs = {name: (changed != clean).any((1, 2, 3)) for name, changed in clips.changed.items()}
    assert all(differs[name].all() for name in frozen.CHANGES if name != "no marks")
    for i, name in ((0, "calipers only"), (5, "text only")):
        frame = ultrasound.render(
            110, i, 64, plane=ultrasound.PLANES[i % 4], calipers=name != "text only", text=name == "text only"
        )
        np.testing.assert_array_equal(clips.changed[name][i], frame.image)
    unknown = dataclasses.replace(
        images, scans={split: marked.Scans(both.annotated, None, None) for split, both in scans.items()}
    )
    found = frozen.make_clips(settings_of(overlays__source="burnt_in"), unknown)
    assert not found.changed and found.frames.shape[:2] == (8, 2)
    np.testing.assert_array_equal(found.frames[:, 0], images.cleaned["test"].images)


# Scores.


def test_agreement_is_that_with_the_last_frame_and_asks_for_the_same_organ():
    a = np.zeros((3, 4, 4), int)
    b = a.copy()
    a[0, :2], b[0, 1:3] = 1, 1  # 8 pixels each, 4 shared
    a[1, :2], b[1, :2] = 1, 2  # the same place under another name
    np.testing.assert_array_equal(study.agreement_with_last(np.stack([b, a], 1)), [[0.5, 1], [0, 1], [np.nan] * 2])


def test_planes_are_the_largest_organs():
    labels = np.zeros((3, 5, 5), np.uint8)
    labels[0, 0], labels[0, 1:3] = 1, 2
    labels[1, 0, 0] = 1
    np.testing.assert_array_equal(marked.planes_of_labels(labels), [2, 1, 0])


# Tables and the verdict.


def fake_counts(labels, dice):
    """Counts of predictions as large as the organ that overlap it by the Dice."""
    planes = marked.planes_of_labels(labels)
    counts = np.zeros((len(labels), 5, 3))
    for i, plane in enumerate(planes):
        size = (labels[i] == plane).sum()
        counts[i, plane] = dice[i] * size, size, size
    return counts


def fake_measures(images, clips, *, dice, clip=0.9, share=0.1, seed=0):
    """A network that reaches these Dice: kind or removal -> mean over the cases."""
    random = np.random.default_rng(seed)
    labels, n = images.scans["test"].annotated.labels, 8
    noise = 0.01 * random.standard_normal(n)
    measures = {"step": np.array(4), "validation_dice": np.array(0.7), "cover": np.full(n, 0.05, np.float32)}
    names = [*images.kinds, *(f"{method} {which}" for method in overlays.REMOVALS for which in marked.MASKS)]
    for name in names:
        measures[f"{name}_counts"] = fake_counts(labels, dice.get(name, dice["annotated"]) + noise)
        measures[f"{name}_predictions"] = np.zeros((n, 32, 32), np.uint8)
    for change in clips.changed:
        measures[f"{change}_counts"] = fake_counts(clips.labels, dice.get(change, dice["annotated"]) + noise)
        measures[f"{change}_predictions"] = np.zeros((n, 32, 32), np.uint8)
    predictions = np.zeros((n, 4, 100), np.uint8)
    predictions[:, :, :50] = 1
    predictions[:, 0] = np.roll(predictions[:, 0], round(50 * (1 - clip)), -1)
    measures["clip_predictions"] = predictions.reshape(n, 4, 10, 10)
    measures["clip_counts"] = np.stack([fake_counts(clips.labels, np.full(n, 0.8))] * 4, 1)
    for kind, times in (("annotated", 1.0), ("clean", 0.5)):
        measures[f"share_{kind}"] = (times * share + 0 * noise).astype(np.float32)
        measures[f"saliency_{kind}"] = np.zeros((n, 32, 32), np.float16)
    return measures


@pytest.fixture(scope="module")
def tabulated(prepared):
    """`baseline's Dice by images -> tables`."""
    images, clips = prepared.images, prepared.clips

    @functools.cache
    def of(**dice):
        measured = {
            "baseline": fake_measures(images, clips, dice=dice, clip=0.6, share=0.2),
            "mitigation": fake_measures(images, clips, dice={"annotated": 0.8}, seed=1),
            "reference": fake_measures(
                images, clips, dice={"annotated": 0.7, "clean": 0.9, "black found": 0.6, "network found": 0.88}, seed=2
            ),
        }
        agreement = {name: study.agreement_with_last(m["clip_predictions"]) for name, m in measured.items()}
        every = study.Measured(images, clips, measured, agreement, prepared.removal)
        return tables.tabulate(settings_of(), prepared.scans, every)

    return of


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({"annotated": 0.9, "cleaned": 0.7, "clean": 0.72}, "yes"),
        ({"annotated": 0.9, "cleaned": 0.7, "clean": 0.9}, "partly"),  # what removal leaves behind is to blame
        ({"annotated": 0.9, "cleaned": 0.89, "clean": 0.89}, "no"),
        ({"annotated": 0.9, "cleaned": 0.95, "clean": 0.95}, "no"),
    ],
)
def test_the_verdict_follows_the_intervals(tabulated, dice, expected):
    results = tabulated(**dice)
    verdict = claims.verdict(results)
    assert verdict.verdict == expected
    drop = results.drops.one(network="baseline", drop_to="cleaned", plane=tables.ALL)
    assert drop.estimate.mean == pytest.approx(dice["annotated"] - dice["cleaned"])
    assert f"a drop of {drop.text()}" in verdict.sentence
    assert "agree to 0.60 [0.60, 0.60], those of the mitigated network to 0.90" in verdict.sentence


@pytest.mark.parametrize(
    ("low", "mean", "high", "truly_low", "expected"),
    [
        (0.03, 0.05, 0.07, 0.01, "yes"),
        (0.03, 0.05, 0.07, -0.01, "partly"),
        (0.03, 0.05, 0.07, None, "yes"),
        (0.01, 0.05, 0.07, 0.01, "partly"),
        (0.001, 0.01, 0.019, 0.01, "no"),
        (0.001, 0.01, 0.02, 0.01, "partly"),
        (0.0, 0.05, 0.07, 0.01, "unclear"),
        (0.02, 0.05, 0.07, 0.01, "partly"),
        (0.03, 0.05, 0.07, 0.0, "partly"),
        (0.03, float("nan"), 0.07, 0.01, "unclear"),
        (-0.01, 0.05, 0.07, 0.01, "unclear"),
        (float("nan"), float("nan"), float("nan"), None, "unclear"),
    ],
)
def test_the_rules_of_the_verdict(low, mean, high, truly_low, expected):
    row = lambda *numbers: Row({}, Estimate(*numbers, 8, 0, 8), "mean")
    truly = None if truly_low is None else row(0.1, truly_low, 0.2)
    assert claims._answer(row(mean, low, high), truly)[0] == expected


def test_tables_agree_with_the_cases_and_have_the_papers_numbers(tabulated):
    results = tabulated(annotated=0.9, cleaned=0.7, clean=0.72)
    for name in ("dice", "drops", "stability", "clip_frames", "saliency", "changes", "reconstruction", "downstream"):
        for row in records_of(getattr(results, name)):
            assert {"mean", "low", "high", "n", "undefined", "convention", "interval"} <= row.keys()
    for row in records_of(results.dice):
        cases = [
            c[f"{row['network']} on {row['tested_on']}"] for c in results.cases if row["plane"] in ("all", c["plane"])
        ]
        assert row["mean"] == pytest.approx(np.mean(cases))
        assert row["n"] == len(cases) == (8 if row["plane"] == "all" else 2)
    dice = results.dice.where(network="baseline")
    assert dice.one(plane="femur", tested_on="cleaned")["paper_mean"] == 0.9184
    assert dice.one(plane="femur", tested_on="cleaned")["paper_sd"] == 0.0487
    assert np.isnan(dice.one(plane="all", tested_on="annotated")["paper_mean"])
    assert all(np.isnan(row["paper_mean"]) for row in results.dice.where(network="mitigation"))
    drops = results.drops.where(plane="head")
    assert drops.one(network="baseline", drop_to="cleaned")["paper_mean"] == pytest.approx(0.0612)
    assert np.isnan(drops.one(network="baseline", drop_to="clean")["paper_mean"])
    assert np.isnan(drops.one(network="mitigation", drop_to="cleaned")["paper_mean"])
    stable = lambda network, plane: results.stability.one(network=network, plane=plane)
    assert stable("baseline", "cervix")["paper_mean"] == pytest.approx(0.8242)
    assert stable(tables.MORE_STABLE, "cervix")["paper_mean"] == pytest.approx(0.97 - 0.8242)
    assert stable(tables.MORE_STABLE, "all").estimate.mean == pytest.approx(0.3)


def test_saliency_is_compared_with_the_share_of_the_image_and_with_the_same_places(tabulated):
    saliency = tabulated(annotated=0.9).saliency.where(network="baseline")
    mean = lambda kind, quantity: saliency.one(tested_on=kind, quantity=quantity).estimate.mean
    assert mean("annotated", tables.SHARE) == pytest.approx(0.2)
    assert mean("annotated", tables.ENRICHMENT) == pytest.approx(4)
    assert mean("clean", tables.ENRICHMENT) == pytest.approx(2)
    assert mean("annotated, clean", tables.EXCESS) == pytest.approx(2)


def test_removals_are_compared_by_what_they_cost_a_network(tabulated):
    results = tabulated(annotated=0.9)
    downstream = results.downstream.where(network="reference")
    mean = lambda *keys: downstream.one(**dict(zip(("method", "mask", "quantity"), keys, strict=True))).estimate.mean
    assert mean("none", "true", tables.LOSS) == pytest.approx(-0.2)
    assert mean("black", "found", tables.LOSS) == pytest.approx(-0.3)
    assert mean("network", "found", tables.LOSS) == pytest.approx(-0.02)
    assert mean("black", "found", tables.AGAINST_NETWORK) == pytest.approx(-0.28)
    assert not downstream.where(method="network", quantity=tables.AGAINST_NETWORK)
    sentence = claims.verdict(results).of["removal"]
    assert "by network -0.020 [-0.020, -0.020]; noise -0.200" in sentence
    assert "noise, bilinear, fast marching, black worse than it" in sentence
    errors = results.reconstruction.where(mask="found", region="marks", metric="mae")
    nearest = min(errors, key=lambda row: row.estimate.mean)
    assert f"under the marks is {nearest['method'].replace('_', ' ')} (" in sentence


def test_changed_marks_are_compared_with_all_marks(tabulated):
    changes = tabulated(**{"annotated": 0.9, "calipers moved": 0.4}).changes.where(network="baseline")
    mean = lambda quantity: changes.one(marks="calipers moved", quantity=quantity).estimate.mean
    assert mean("Dice") == pytest.approx(0.4, abs=0.02)
    assert mean("Dice, minus that with all marks") == pytest.approx(-0.5)
    assert mean("area") == 1 and mean("misnamed") == 0
    assert not changes.where(marks="all marks", quantity="Dice, minus that with all marks")


# From config to page.


def test_figures_show_the_part_with_most_marks_and_cases_at_even_quantiles():
    marks = np.random.default_rng(0).random((12, 12)) < 0.2
    y, x = study_figures._most_marks(marks)
    sums = {(i, j): marks[i : i + 6, j : j + 6].sum() for i in range(7) for j in range(7)}
    assert (y.stop - y.start, x.stop - x.start) == (6, 6)
    assert sums[y.start, x.start] == max(sums.values())
    values = np.array([5, np.nan, 1, 4, 2, 3, np.nan])
    assert base.at_even_quantiles(values, 2) == [4, 3]  # the second and the fourth of five
    assert base.at_even_quantiles(values, 9) == [2, 4, 5, 3, 0]
    assert base.at_even_quantiles(np.full(3, np.nan), 2) == []


def test_a_report_of_made_up_measures_stays_as_it_is(assert_stays, prepared):
    images, clips = prepared.images, prepared.clips
    dice = {
        "baseline": {"annotated": 0.9, "cleaned": 0.7, "clean": 0.72, "calipers moved": 0.5},
        "mitigation": {"annotated": 0.8, "cleaned": 0.08},  # not learned
        "reference": {"annotated": 0.7, "clean": 0.9, "black found": 0.6, "network found": 0.88},
    }
    measured = {}
    for k, (network, of) in enumerate(dice.items()):
        made = fake_measures(images, clips, dice=of, clip=0.6 + 0.15 * k, share=0.2 - 0.05 * k, seed=k)
        made["share_annotated"] = np.linspace(0.1, 0.4, 8) - 0.05 * k
        made["saliency_annotated"][:, 4 : 20 + k, 8:] = 0.6
        made["saliency_clean"][:, : 8 + k, 4:] = 0.3
        made["clip_predictions"][3, 0] = 0
        for name in clips.changed:
            made[f"{name}_predictions"][:, 8 : 20 + k, 4:24] = 1
        measured[network] = made
    agreement = {name: study.agreement_with_last(m["clip_predictions"]) for name, m in measured.items()}
    cfg = config(evaluation__resamples=20)
    every = study.Measured(images, clips, measured, agreement, prepared.removal)
    assert_stays("overlay_shortcut", STUDY, settings(cfg), prepared.scans, every, cfg)


@pytest.fixture
def untrained(monkeypatch):
    """Networks as they are drawn, in place of trained ones; each of its own seed."""

    def load_best(run, folder, shape, num_classes):
        model = checks.build_model(run, num_classes)
        seed = list(NETWORKS).index(folder.name)
        like = tracing.variable_shapes(model, (1, 32, 32, shape[-1]))
        random = np.random.default_rng(seed)  # compiling the real draw takes most of a minute
        variables = jax.tree.map(lambda x: abs(random.normal(0, x.size**-0.25, x.shape)).astype(np.float32), like)
        return model, variables, {"step": 3, "validation_dice": 0.5}

    monkeypatch.setattr(study.runs, "train", lambda run, splits, folder: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(study.runs, "load_best", load_best)
    monkeypatch.setattr(base.builders, "prepare", lambda *_, **__: pathlib.Path("nowhere"))


SMALLEST = {"training__batch_size": 4, "model__features": (2, 4), "model__skips": (True,)}


def run(cfg, tmp_path):
    places = {
        "workdir": tmp_path / "work",
        "data_dir": tmp_path,
        "manual_dir": None,
        "command": "python -m launch.study",
    }
    page = runner.run(cfg, **places)
    return page, json.loads((tmp_path / "work" / "results.json").read_text())


def test_a_study_ends_with_tables_figures_and_a_page_that_agree(data_set, filling, untrained, tmp_path, monkeypatch):
    cfg = config(**SMALLEST, evaluation__clips=4)
    page, results = run(cfg, tmp_path)
    [verdict] = results["verdicts"]
    drop = next(
        r for r in results["drops"] if (r["network"], r["plane"], r["drop_to"]) == ("baseline", "all", "cleaned")
    )
    assert f"a drop of {drop['mean']:z.2f} [{drop['low']:z.2f}, {drop['high']:z.2f}]" in verdict["sentence"]
    text = page.read_text()
    for sentence in (verdict["sentence"], verdict["removal"]):
        assert sentence.replace("'", "&#39;") in text
    names = {"drops", "clips", "clip_example", "saliency", "changes", "changes_example", "removals", "reconstruction"}
    figures = {path.stem for path in (tmp_path / "work" / "figures").iterdir()}
    assert figures == names | {"downstream_reference", "downstream_baseline"}
    with (tmp_path / "work" / "tables" / "downstream.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == pytest.approx([r["mean"] for r in results["downstream"]], rel=1e-5)
    # the saliency's share is that of the map that is stored
    with np.load(tmp_path / "work" / "runs" / "baseline" / "measures.npz") as stored:
        maps, share = stored["saliency_annotated"].astype(float), stored["share_annotated"]
        predicted = stored["annotated_predictions"]
    assert maps.any()
    scans = marked.load(settings(cfg), pathlib.Path("nowhere"))
    for i, plane in enumerate(marked.planes_of_labels(scans["test"].annotated.labels)):
        marks = np.asarray(jax.image.resize(scans["test"].marks[i].astype(np.float32), (32, 32), "linear"))
        if maps[i].sum() == 0:
            assert np.isnan(share[i])
        else:
            assert (predicted[i] == plane).any()
            assert share[i] == pytest.approx((maps[i] * marks).sum() / maps[i].sum(), rel=0.02)
    # a second call measures nothing again
    monkeypatch.setattr(study_figures, "draw", lambda *_: None)  # the figures are there
    monkeypatch.setattr(study, "measure", lambda *_: pytest.fail("measured again"))
    assert run(cfg, tmp_path)[1]["dice"] == results["dice"]


def test_images_with_marks_burnt_in_are_studied_without_the_truth(data_set, filling, untrained, tmp_path):
    page, results = run(config(**SMALLEST, overlays__source="burnt_in"), tmp_path)
    assert {row["network"] for row in results["dice"]} == {"baseline", "mitigation"}
    assert {row["tested_on"] for row in results["dice"]} == {"annotated", "cleaned"}
    assert results["downstream"] == results["reconstruction"] == results["changes"] == []
    assert "removals cannot be compared" in results["verdicts"][0]["removal"]
    assert {path.stem for path in (tmp_path / "work" / "figures").iterdir()} == {
        "drops", "clips", "clip_example", "saliency"
    }  # fmt: skip
    assert "How marks are best removed" not in page.read_text()
