"""The worlds, the counting and the verdict; and the whole study in its smallest size."""

import json
import math
import shutil

import jax
import numpy as np
import pytest

from configs import planted_shortcuts as study_config
from jaxseg.data.synthetic import dermoscopy, ultrasound
from jaxseg.errors import InputError
from jaxseg.metrics.intervals import Estimate
from jaxseg.results.table import Row, table
from jaxseg.studies import runner
from jaxseg.studies.planted_shortcuts import claims, experiment, tables, worlds
from jaxseg.studies.planted_shortcuts.settings import ARMS, Network, settings
from jaxseg.studies.planted_shortcuts.study import STUDY


def config(**fields):
    made = study_config.get_config("tiny").unlock()
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made.lock()


@pytest.mark.parametrize("size", ["tiny", "demo"])
def test_every_size_can_be_run(size):
    settings(study_config.get_config(size))


def test_unknown_sizes_are_named():
    with pytest.raises(ValueError, match="unknown size 'huge'; choose one of demo, tiny"):
        study_config.get_config("huge")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kinds", ("border", "luck"), "config.kinds .* give some of border, overlay, each once"),
        ("seeds", (1, 1), "config.seeds .* give numbers of at least 0, each once"),
        ("seeds", (), "config.seeds .* give numbers of at least 0, each once"),
        ("seeds", (-1,), "config.seeds .* give numbers of at least 0, each once"),
        ("data.source_size", 64, "so give the same"),
        ("worlds.border.epochs", 0, "config.worlds.border.epochs is 0; it must be at least 1"),
        ("worlds.overlay.test", 0, "config.worlds.overlay.test is 0; it must be at least 1"),
        ("worlds.difficulty", 1.5, "config.worlds.difficulty is 1.5; it must be at least 0 and at most 1"),
        ("audit.margin", 0.0, "config.margin is 0.0"),
        ("model.name", "vnet", "unknown network 'vnet'"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    with pytest.raises(InputError, match=message):
        settings(config(**{field.replace(".", "__"): value}))


def test_a_twin_has_the_same_scenes_without_the_cue():
    made = settings(config())
    overlay = worlds.draw(made, "overlay", 3)
    planted, twin = (overlay[arm]["train"] for arm in ARMS)
    np.testing.assert_array_equal(planted.labels, twin.labels)
    differ = (planted.images != twin.images).any(-1)
    assert differ.any((1, 2)).all() and 0.02 < differ.mean() < 0.5  # marks on every image, and nothing else
    border = worlds.draw(made, "border", 3)
    planted, twin = (border[arm]["train"] for arm in ARMS)
    assert planted.cases == twin.cases and not np.array_equal(planted.images, twin.images)
    scenes = [worlds.draw(made, "border", seed)["planted"]["test"] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(scenes[0].images, scenes[1].images)
    assert not np.array_equal(scenes[0].images, scenes[2].images)
    assert not set(border["planted"]["train"].cases) & set(border["planted"]["test"].cases)


def test_objects_are_placed_uniformly_over_the_image():
    size = 20
    labels = np.zeros((size, size), np.uint8)
    labels[9:11, 9:11] = 1
    image = np.arange(size * size, dtype=np.uint8).reshape(size, size, 1)
    random = np.random.default_rng(0)
    placed = [worlds.place_anywhere(random, image, labels) for _ in range(400)]
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


def test_worlds_are_the_rendered_scenes_one_after_the_other():
    made = settings(config())
    size, sizes = made.run.data.image_size, made.worlds.of["border"]
    world = worlds.draw(made, "border", 3)["planted"]
    first = {"train": 0, "validation": sizes.train, "test": sizes.train + sizes.validation}
    for split, start in first.items():
        assert len(world[split]) == getattr(sizes, split)
        assert world[split].cases[0] == f"scene{start:05d}"
        image, labels = dermoscopy.render(1003, start, size)
        np.testing.assert_array_equal(world[split].images[0], image)
        np.testing.assert_array_equal(world[split].labels[0], labels)
    twin = worlds.draw(made, "overlay", 3)["twin"]["train"]
    frame = ultrasound.render(3003, 1, size, plane="head", difficulty=made.worlds.difficulty)
    clean, labels = worlds.place_anywhere(
        np.random.default_rng([3, 1]), frame.clean, (frame.labels > 0).astype(np.uint8)
    )
    np.testing.assert_array_equal(twin.images[1], clean)
    np.testing.assert_array_equal(twin.labels[1], labels)


@pytest.mark.parametrize("empty", [False, True])
def test_a_moved_image_is_mirrored_where_there_is_none(empty):
    size = 9
    image, labels = np.arange(size * size, dtype=np.uint8).reshape(size, size, 1), np.zeros((size, size), np.uint8)
    if not empty:
        labels[1:4, 2:8] = 1
    centre = [(size - 1) / 2] * 2 if empty else [2.0, 4.5]

    def mirrored(place):
        while not 0 <= place < size:
            place = -1 - place if place < 0 else 2 * size - 1 - place
        return place

    for seed in range(12):
        wanted = np.random.default_rng(seed).uniform(0, size, 2) - 0.5
        down, right = (round(to - at) for to, at in zip(wanted, centre, strict=True))
        moved, where = worlds.place_anywhere(np.random.default_rng(seed), image, labels)
        for y in range(size):
            for x in range(size):
                of = mirrored(y - down), mirrored(x - right)
                assert (moved[y, x], where[y, x]) == (image[of], labels[of])


def test_an_empty_mask_moves_as_its_image():
    image, labels = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.uint8)
    moved, where = worlds.place_anywhere(np.random.default_rng(0), image, labels)
    assert moved.shape == image.shape and not where.any()


def outcome(kind, arm, seed, *found, dice=0.9, numbers=()):
    return experiment.Outcome(Network(kind, arm, seed), dice, found, table(numbers))


def tabulated(outcomes, seeds=10):
    made = settings(config(kinds=("border",), seeds=tuple(range(seeds))))
    return tables.tabulate(made, None, outcomes)


def test_detections_count_by_kind_and_any_shortcut_of_a_twin_is_an_alarm():
    outcomes = [outcome("border", "planted", seed, "border", "calibration") for seed in range(9)]
    outcomes += [outcome("border", "planted", 9, "overlay", dice=0.6)]
    outcomes += [outcome("border", "twin", seed, *(["overlay"] if seed == 0 else ["accuracy"])) for seed in range(10)]
    results = tabulated(outcomes)
    planted, twin = results.counts
    assert (planted["found"], planted["silent"], planted.estimate.n, planted.estimate.mean) == (9, 1, 10, 0.9)
    assert (planted["learned"], planted["least_dice"], planted["other_findings"]) == (9, 0.6, 10)
    assert (twin["found"], twin["silent"], twin["other_findings"]) == (1, 9, 9)
    answer = claims.verdict(results.counts)
    assert answer.verdict == "yes"  # 0.55 lies above 0.45
    wanted = "border: found in 9 of 10 networks with the planted cue [0.55, 1.00], any shortcut in 1 of 10 twins ["
    assert answer.sentence.startswith(f"{wanted}0.00, 0.45]")
    last = results.networks[9]
    assert (last["planted_kind_found"], last["other_findings"], last["learned"]) == (False, "overlay", False)


def test_a_silent_network_is_unclear_where_an_interval_reaches_beyond_the_margin():
    def number(high, kind="border"):
        estimate = Estimate(0.03, 0.01, high, 8, 0, 8)
        return Row({"found_kind": kind, "quantity": "Dice lost"}, estimate, "Dice lost", more={"margin": 0.05})

    highs = [0.04, 0.06, math.nan, 0.2]
    numbers = [[number(high)] for high in highs]
    numbers[0].append(number(0.2, "calibration"))  # no shortcut
    outcomes = [
        outcome("border", "twin", i, *(["border"] if i == 3 else []), numbers=own) for i, own in enumerate(numbers)
    ]
    counted = tabulated([*outcomes, outcome("border", "planted", 0)], seeds=4).counts[1]
    assert (counted["silent"], counted["unclear"]) == (3, 1)


@pytest.mark.parametrize(("planted", "twin", "wanted"), [(10, 0, "yes"), (8, 1, "no"), (0, 0, "no")])
def test_the_verdict_asks_for_intervals_that_lie_apart(planted, twin, wanted):
    outcomes = [outcome("border", "planted", s, *["border"] * (s < planted)) for s in range(10)]
    outcomes += [outcome("border", "twin", s, *["border"] * (s < twin)) for s in range(10)]
    assert claims.verdict(tabulated(outcomes).counts).verdict == wanted


def test_a_report_of_made_up_outcomes_stays_as_it_is(assert_stays):
    of = config(seeds=(3, 4, 5))
    learned = settings(of).learned

    def made_up(i, kind, arm, seed):
        found = {("border", "planted"): ["border"], ("overlay", "planted"): ["overlay"] * (seed > 3)}.get(
            (kind, arm), []
        )
        numbers = [
            Row(
                {"kind": kind, "arm": arm, "seed": seed, "found_kind": other, "quantity": f"{other} {quantity}"},
                Estimate(0.1 * i, 0.1 * i - 0.02, 0.1 * i + 0.03 * quantity, 8, 0, 8),
                "Dice lost",
                more={"margin": 0.05, "found": True},
            )
            for other in ("border", "overlay")
            for quantity in (2, 1)
        ]
        dice = [learned, learned + 0.01, learned - 0.01][seed - 3]  # learned is above it
        return outcome(kind, arm, seed, *found, *["accuracy"] * (i % 2), dice=dice, numbers=numbers)

    networks = [(kind, arm, seed) for kind in ("border", "overlay") for arm in ARMS for seed in (3, 4, 5)]
    outcomes = [made_up(i, *network) for i, network in enumerate(networks)]
    assert_stays("planted_shortcuts", STUDY, settings(of), None, outcomes, of)


def test_intervals_that_touch_do_not_lie_apart():
    def row(arm, low, high):
        estimate = Estimate(0.5, low, high, 10, 0, 10)
        return Row({"kind": "border", "arm": arm}, estimate, "", more={"found": 5})

    verdict = lambda twin_high: claims.verdict(table([row("planted", 0.4, 0.9), row("twin", 0.0, twin_high)])).verdict
    assert [verdict(high) for high in (0.39, 0.4, 0.41)] == ["yes", "no", "no"]


def test_a_number_at_its_margin_is_not_beyond_it():
    def number(high):
        estimate = Estimate(0.03, 0.01, high, 8, 0, 8)
        return Row({"found_kind": "border", "quantity": "Dice lost"}, estimate, "Dice lost", more={"margin": 0.05})

    outcomes = [outcome("border", "twin", i, numbers=[number(high)]) for i, high in enumerate((0.049, 0.05, 0.051))]
    assert tabulated([*outcomes, outcome("border", "planted", 0)], seeds=3).counts[1]["unclear"] == 1


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """`run -> training images`; the first run is trained, and the twin, which would be in the same way, is its copy."""
    train, seen, first = experiment.runs.train, {}, tmp_path / "first"

    def train_the_first(config, splits, folder):
        if seen:
            shutil.copytree(first, folder, dirs_exist_ok=True)
        else:
            train(config, splits, folder)
            shutil.copytree(folder, first)
        seen[folder.name] = splits["train"].images

    monkeypatch.setattr(experiment.runs, "train", train_the_first)
    return seen


def test_the_smallest_study_ends_with_its_page_and_is_not_repeated(trained, tmp_path):
    of = config(kinds=("border",), audit__probes=("accuracy",), model__features=(2, 4))
    work = tmp_path / "work"
    places = {"workdir": work, "data_dir": tmp_path, "manual_dir": None, "command": "python -m launch.study"}
    with jax.numpy_dtype_promotion("standard"):
        page = runner.run(of, **places)
    drawn = worlds.draw(settings(of), "border", 0)
    assert set(trained) == {f"border_{arm}_0" for arm in ARMS}
    for arm in ARMS:
        np.testing.assert_array_equal(trained[f"border_{arm}_0"], drawn[arm]["train"].images)
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
