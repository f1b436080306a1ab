"""The worlds, the counting and the verdict; and the whole study in its smallest size."""

import json
import math
import shutil

import jax
import numpy as np
import pytest

from configs import planted_shortcuts as study_config
from jaxseg.errors import InputError
from jaxseg.studies import runner
from jaxseg.studies.planted_shortcuts import experiment as study


def config(**fields):
    made = study_config.get_config("tiny").unlock()
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made.lock()


@pytest.mark.parametrize("size", ["tiny", "demo"])
def test_every_size_can_be_run(size):
    study.check(study_config.get_config(size))


def test_unknown_sizes_are_named():
    with pytest.raises(ValueError, match="unknown size 'huge'; choose one of demo, tiny"):
        study_config.get_config("huge")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("study", "other", "is not this study's"),
        ("kinds", ("border", "luck"), "config.kinds .* give some of border, overlay, each once"),
        ("seeds", (1, 1), "config.seeds .* give numbers, each once"),
        ("seeds", (-1,), "seeds are at least 0"),
        ("data.source_size", 64, "so give the same"),
        ("worlds.border.epochs", 0, "config.worlds.border.epochs is 0; it must be at least 1"),
        ("model.name", "vnet", "unknown network 'vnet'"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    with pytest.raises(InputError, match=message):
        study.check(config(**{field.replace(".", "__"): value}))


def test_a_twin_has_the_same_scenes_without_the_cue():
    overlay = study.draw(config(), "overlay", 3)
    planted, twin = (overlay[arm]["train"] for arm in study.ARMS)
    np.testing.assert_array_equal(planted.labels, twin.labels)
    differ = (planted.images != twin.images).any(-1)
    assert differ.any((1, 2)).all() and 0.02 < differ.mean() < 0.5  # marks on every image, and nothing else
    border = study.draw(config(), "border", 3)
    planted, twin = (border[arm]["train"] for arm in study.ARMS)
    assert planted.cases == twin.cases and not np.array_equal(planted.images, twin.images)
    scenes = [study.draw(config(), "border", seed)["planted"]["test"] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(scenes[0].images, scenes[1].images)
    assert not np.array_equal(scenes[0].images, scenes[2].images)
    assert not set(border["planted"]["train"].cases) & set(border["planted"]["test"].cases)


def test_objects_are_placed_uniformly_over_the_image():
    size = 20
    labels = np.zeros((size, size), np.uint8)
    labels[9:11, 9:11] = 1
    image = np.arange(size * size, dtype=np.uint8).reshape(size, size, 1)
    random = np.random.default_rng(0)
    placed = [study.place_anywhere(random, image, labels) for _ in range(400)]
    centres = []
    for moved, where in placed:
        y, x = np.argwhere(where > 0).min(0)
        assert where.sum() <= 8  # at most doubled by the mirror at a border
        if 0 < y < size - 2 and 0 < x < size - 2:
            np.testing.assert_array_equal(moved[y : y + 2, x : x + 2], image[9:11, 9:11])
        centres.append((y, x))
    middle = np.mean(centres, 0)
    assert abs(middle - (size / 2 - 1)).max() < 1.0  # uniform: a standard error of 0.3
    assert {int(c) for c in np.ravel(centres)} >= set(range(size - 1))


def test_an_empty_mask_moves_as_its_image():
    image, labels = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.uint8)
    moved, where = study.place_anywhere(np.random.default_rng(0), image, labels)
    assert moved.shape == image.shape and not where.any()


def outcome(kind, arm, seed, *found, dice=0.9):
    return {"kind": kind, "arm": arm, "seed": seed, "dice": dice, "found": list(found), "candidates": []}


def test_detections_count_by_kind_and_any_shortcut_of_a_twin_is_an_alarm():
    outcomes = [outcome("border", "planted", seed, "border", "calibration") for seed in range(9)]
    outcomes += [outcome("border", "planted", 9, "overlay", dice=0.6)]
    outcomes += [outcome("border", "twin", seed, *(["overlay"] if seed == 0 else ["accuracy"])) for seed in range(10)]
    of = config(kinds=("border",), seeds=tuple(range(10)))
    results = study.tabulate(of, outcomes)
    planted, twin = results.counts
    assert (planted["found"], planted["silent"], planted["n"], planted["mean"]) == (9, 1, 10, 0.9)
    assert (planted["learned"], planted["least_dice"], planted["other_findings"]) == (9, 0.6, 10)
    assert (twin["found"], twin["silent"], twin["other_findings"]) == (1, 9, 9)
    answer = study.verdict(of, results.counts)
    assert answer.verdict == "yes"  # 0.55 lies above 0.45
    wanted = "border: found in 9 of 10 networks with the planted cue [0.55, 1.00], any shortcut in 1 of 10 twins ["
    assert answer.sentence.startswith(f"{wanted}0.00, 0.45]")


def test_a_silent_network_is_unclear_where_an_interval_reaches_beyond_the_margin():
    number = {"kind": "border", "quantity": "Dice lost", "margin": 0.05, "low": 0.01}
    highs = [0.04, 0.06, None, 0.2]
    outcomes = [
        outcome("border", "twin", i) | {"candidates": [number | {"high": high}]} for i, high in enumerate(highs)
    ]
    outcomes[3]["found"] = ["border"]
    outcomes[0]["candidates"].append(number | {"kind": "calibration", "high": 0.2})  # no shortcut
    outcomes += [outcome("border", "planted", 0)]
    counted = study.tabulate(config(kinds=("border",), seeds=(0, 1, 2, 3)), outcomes).counts[1]
    assert (counted["silent"], counted["unclear"]) == (3, 1)


@pytest.mark.parametrize(("planted", "twin", "wanted"), [(10, 0, "yes"), (8, 1, "no"), (0, 0, "no")])
def test_the_verdict_asks_for_intervals_that_lie_apart(planted, twin, wanted):
    of = config(kinds=("border",), seeds=tuple(range(10)))
    outcomes = [outcome("border", "planted", s, *["border"] * (s < planted)) for s in range(10)]
    outcomes += [outcome("border", "twin", s, *["border"] * (s < twin)) for s in range(10)]
    assert study.verdict(of, study.tabulate(of, outcomes).counts).verdict == wanted


def test_the_exact_interval_is_that_of_clopper_and_pearson():
    # no success: 1 - (1 - p)^n = 0.975 at the upper end; all: the mirror image
    low, high = study.exact_interval(0, 10)
    assert low == 0 and high == pytest.approx(1 - 0.025**0.1)
    assert study.exact_interval(10, 10) == pytest.approx((1 - high, 1.0))
    low, high = study.exact_interval(3, 10)
    tail = lambda p, counts: sum(math.comb(10, k) * p**k * (1 - p) ** (10 - k) for k in counts)
    assert tail(low, range(3, 11)) == pytest.approx(0.025) and tail(high, range(4)) == pytest.approx(0.025)


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """`run -> training images`; the first run is trained, and the twin, which would be in the same way, is its copy."""
    train, seen, first = study.runs.train, {}, tmp_path / "first"

    def train_the_first(config, splits, folder):
        if seen:
            shutil.copytree(first, folder, dirs_exist_ok=True)
        else:
            train(config, splits, folder)
            shutil.copytree(folder, first)
        seen[folder.name] = splits["train"].images

    monkeypatch.setattr(study.runs, "train", train_the_first)
    return seen


def test_the_smallest_study_ends_with_its_page_and_is_not_repeated(trained, tmp_path):
    of = config(kinds=("border",), audit__probes=("accuracy",), model__features=(2, 4))
    work = tmp_path / "work"
    places = {"workdir": work, "data_dir": tmp_path, "manual_dir": None, "command": "python -m launch.study"}
    with jax.numpy_dtype_promotion("standard"):
        page = runner.run(of, **places)
    worlds = study.draw(of, "border", 0)
    assert set(trained) == {f"border_{arm}_0" for arm in study.ARMS}
    for arm in study.ARMS:
        np.testing.assert_array_equal(trained[f"border_{arm}_0"], worlds[arm]["train"].images)
    results = json.loads((work / "results.json").read_text())
    assert results["verdicts"][0]["sentence"] in page.read_text().replace("&#39;", "'")
    assert [(r["kind"], r["arm"], r["n"]) for r in results["counts"]] == [
        ("border", "planted", 1),
        ("border", "twin", 1),
    ]
    for row in results["counts"]:
        own = [r for r in results["networks"] if r["arm"] == row["arm"]]
        assert row["found"] == sum(r["planted_kind_found"] for r in own) and row["least_dice"] == own[0]["dice"]
    stamps = {path: path.stat().st_mtime_ns for path in (work / "runs").rglob("*") if path.is_file()}
    runner.run(of, **places)
    assert {path: path.stat().st_mtime_ns for path in (work / "runs").rglob("*") if path.is_file()} == stamps
