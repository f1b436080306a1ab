"""The worlds, the counting and the verdict; and the whole study in its smallest size."""

import json
import shutil

import jax
import ml_collections
import numpy as np
import pytest
from scipy import ndimage

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
    if fields.pop("nulls", None) == {}:
        made.nulls = ml_collections.ConfigDict()
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
        (
            "kinds",
            ("border", "luck"),
            "config.kinds .* give some of border, calipers, gray_calipers, text, scanner, each once",
        ),
        ("seeds", (1, 1), "config.seeds .* give numbers of at least 0, each once"),
        ("seeds", (), "config.seeds .* give numbers of at least 0, each once"),
        ("seeds", (-1,), "config.seeds .* give numbers of at least 0, each once"),
        ("data.source_size", 64, "so give the same"),
        ("null_seeds", (2, 2), "config.null_seeds .* give numbers of at least 0, each once"),
        ("world.epochs", 0, "config.world.epochs is 0; it must be at least 1"),
        ("world.test", 0, "config.world.test is 0; it must be at least 1"),
        ("world.difficulty", 1.5, "config.world.difficulty is 1.5; it must be at least 0 and at most 1"),
        ("nulls.circular.images", "none", "config.images is 'none'|config.nulls.circular.images is 'none'"),
        ("nulls.circular.kind", "luck", "config.nulls.circular.kind is 'luck'"),
        ("nulls.circular.model.name", "vnet", "unknown network 'vnet'"),
        ("audit.margin", 0.0, "config.margin is 0.0"),
        ("model.name", "vnet", "unknown network 'vnet'"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    with pytest.raises(InputError, match=message):
        settings(config(**{field.replace(".", "__"): value}))


@pytest.mark.parametrize("kind", ["calipers", "gray_calipers", "text"])
def test_a_twin_has_the_same_scenes_with_marks_elsewhere(kind):
    made = settings(config())
    drawn = worlds.draw(made, kind, 3)
    planted, twin = (drawn[arm]["train"] for arm in ARMS)
    np.testing.assert_array_equal(planted.labels, twin.labels)
    bare = np.stack([unmarked(made, 3, scene).image for scene in range(len(planted))])
    covered = [(one.images != bare).any(-1) for one in (planted, twin)]
    assert covered[0].any((1, 2)).mean() > 0.8 and 0.01 < covered[0].mean() < 0.4
    inks = np.concatenate([one.images[where] for one, where in zip((planted, twin), covered, strict=True)]).astype(int)
    chroma = np.ptp(inks, axis=-1)
    assert {"calipers": chroma.min() >= 40, "gray_calipers": chroma.max() == 0, "text": chroma.max() > 100}[kind]
    differ = (planted.images != twin.images).any((1, 2, 3))
    assert differ.mean() > 0.8
    there = planted.labels > 0
    if kind == "text":  # beside the object, and over it by chance
        over = [(where & there).sum() / where.sum() for where in covered]
        assert over[0] < 0.5 * over[1]
    else:
        away = [ndimage.distance_transform_edt(~one) for one in there]
        distance = [np.mean([d[w].mean() for d, w in zip(away, where, strict=True) if w.any()]) for where in covered]
        assert distance[0] < 0.7 * distance[1]


def unmarked(made, seed, scene):
    frame = worlds._scan(made, seed, scene)
    return worlds._moved(worlds.Picture(frame.clean, (frame.labels > 0).astype(np.uint8)), seed, scene)


def test_one_machine_scans_what_is_trained_on_and_two_what_is_tested():
    drawn = worlds.draw(settings(config()), "scanner", 3)
    planted, twin = (drawn[arm] for arm in ARMS)
    assert set(planted["train"].domains) == set(planted["validation"].domains) == {"machine A"}
    assert set(planted["test"].domains) == set(twin["train"].domains) == {"machine A", "machine B"}
    np.testing.assert_array_equal(planted["test"].images, twin["test"].images)
    lighter = np.array(twin["train"].domains) == "machine B"
    np.testing.assert_array_equal(planted["train"].images[~lighter], twin["train"].images[~lighter])
    dark, light = planted["train"].images[lighter].astype(float), twin["train"].images[lighter]
    np.testing.assert_array_equal(light, np.rint(60 + 195 * np.sqrt(dark / 255)))


def test_a_lesion_is_in_the_middle_or_anywhere():
    made = settings(config())
    border = worlds.draw(made, "border", 3)
    planted, twin = (border[arm]["train"] for arm in ARMS)
    assert planted.cases == twin.cases and not np.array_equal(planted.images, twin.images)
    scenes = [worlds.draw(made, "border", seed)["planted"]["test"] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(scenes[0].images, scenes[1].images)
    assert not np.array_equal(scenes[0].images, scenes[2].images)
    assert not set(border["planted"]["train"].cases) & set(border["planted"]["test"].cases)


def test_networks_of_other_makes_are_trained_on_a_world_of_theirs():
    made = settings(study_config.get_config("demo"))
    nulls = [one for one in made.networks if one.arm in made.nulls]
    assert len(nulls) == len(made.null_seeds) * len(made.nulls) and len(made.networks) == 200 + len(nulls)
    arms = {name: (made.images(Network("border", name, 0)), made.of_run(Network("border", name, 0)).model) for name in
            made.nulls}  # fmt: skip
    assert {name: images for name, (images, _) in arms.items()} == {
        **{"circular": "planted", "valid": "planted"}, **{"residual_unet": "twin", "dtu_net": "twin", "nnunet": "twin"}
    }  # fmt: skip
    assert all(model.padding == name for name, (_, model) in arms.items() if name in ("circular", "valid"))
    assert all(model.name == name for name, (_, model) in arms.items() if name not in ("circular", "valid"))
    only_text = settings(config(kinds=("text",)))
    assert {one.arm for one in only_text.networks} == set(ARMS)


def test_objects_are_placed_uniformly_over_the_image():
    size = 20
    labels = np.zeros((size, size), np.uint8)
    labels[9:11, 9:11] = 1
    image = np.arange(size * size, dtype=np.uint8).reshape(size, size, 1)
    random = np.random.default_rng(0)
    placed = [worlds.place_anywhere(random, image, labels) for _ in range(400)]
    centres = []
    for moved, where, _ in placed:
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
    size, sizes = made.run.data.image_size, made.world
    world = worlds.draw(made, "border", 3)["planted"]
    first = {"train": 0, "validation": sizes.train, "test": sizes.train + sizes.validation}
    for split, start in first.items():
        assert len(world[split]) == getattr(sizes, split)
        assert world[split].cases[0] == f"scene{start:05d}"
        image, labels = dermoscopy.render(1003, start, size)
        np.testing.assert_array_equal(world[split].images[0], image)
        np.testing.assert_array_equal(world[split].labels[0], labels)
    for scene, plane in ((0, "head"), (1, "abdomen")):
        frame = ultrasound.render(
            3003, scene, size, plane=plane, difficulty=made.world.difficulty, calipers=False, text=False
        )
        found = worlds._scan(made, 3, scene)
        np.testing.assert_array_equal(found.clean, frame.clean)
        np.testing.assert_array_equal(found.labels, frame.labels)


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
        moved, where, _ = worlds.place_anywhere(np.random.default_rng(seed), image, labels)
        for y in range(size):
            for x in range(size):
                of = mirrored(y - down), mirrored(x - right)
                assert (moved[y, x], where[y, x]) == (image[of], labels[of])


def test_an_empty_mask_moves_as_its_image():
    image, labels = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.uint8)
    moved, where, _ = worlds.place_anywhere(np.random.default_rng(0), image, labels)
    assert moved.shape == image.shape and not where.any()


def outcome(kind, arm, seed, *found, dice=0.9, numbers=()):
    return experiment.Outcome(Network(kind, arm, seed), dice, found, table(numbers))


def tabulated(outcomes, seeds=10):
    made = settings(config(kinds=("border",), seeds=tuple(range(seeds)), nulls={}))
    return tables.tabulate(made, None, outcomes)


def test_detections_count_by_kind_and_any_shortcut_of_a_twin_is_an_alarm():
    outcomes = [outcome("border", "planted", seed, "border", "calibration") for seed in range(9)]
    outcomes += [outcome("border", "planted", 9, "overlay", dice=0.6, numbers=[number(0.01)])]
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
    missed, alarm = results.misses
    assert (missed["arm"], missed["seed"], missed["miss"]) == ("planted", 9, "not found")
    assert missed["number"] == "Dice lost 0.04 [0.01, 0.07], margin 0.05"
    assert (alarm["arm"], alarm["seed"], alarm["miss"]) == ("twin", 0, "false alarm: overlay")
    assert "in all 10 networks without a shortcut, 1 false alarms [0.00, 0.45]" in answer.sentence


def number(low, kind="border", margin=0.05, **more):
    """A number of the audit with an interval of 0.06."""
    estimate = Estimate(low + 0.03, low, low + 0.06, 8, 0, 8)
    told = {"margin": margin, "found": low > margin, "open": low <= margin < low + 0.06} | more
    return Row({"found_kind": kind, "quantity": "Dice lost"}, estimate, "Dice lost", more=told)


def test_the_number_that_comes_closest_to_a_finding_decides():
    own = [number(0.01), number(0.04, margin=0.5), number(-0.2), number(0.3, "overlay")]
    (closest,) = outcome("border", "planted", 0, numbers=own).deciding("border")
    assert closest.estimate.low == 0.01
    assert not len(outcome("border", "planted", 0).deciding("border"))


def test_a_network_of_another_make_is_silent_or_a_false_alarm():
    made = settings(config(kinds=("border",), seeds=(0, 1), null_seeds=(0, 1)))
    outcomes = [outcome("border", arm, seed, *["border"] * (arm == "planted")) for arm in ARMS for seed in (0, 1)]
    outcomes += [outcome("border", "circular", 0), outcome("border", "circular", 1, "overlay")]
    results = tables.tabulate(made, None, outcomes)
    counted = results.counts.one(kind="border", arm="circular")
    assert (counted["found"], counted.estimate.n) == (1, 2)
    assert [one["miss"] for one in results.misses] == ["false alarm: overlay"]
    assert "in all 4 networks without a shortcut, 1 false alarms" in claims.verdict(results.counts).sentence


def test_a_silent_network_is_unclear_where_a_number_is_open():
    lows = [-0.02, 0.0, 0.2, -0.02]
    numbers = [[number(low)] for low in lows]
    numbers[0].append(number(0.04, "calibration"))  # no shortcut
    numbers[3].append(number(-0.5, "overlay", open=True))  # which nothing can decide
    outcomes = [
        outcome("border", "twin", i, *(["border"] if i == 2 else []), numbers=own) for i, own in enumerate(numbers)
    ]
    counted = tabulated([*outcomes, outcome("border", "planted", 0)], seeds=4).counts[1]
    assert (counted["silent"], counted["unclear"]) == (3, 2)


@pytest.mark.parametrize(("planted", "twin", "wanted"), [(10, 0, "yes"), (8, 1, "no"), (0, 0, "no")])
def test_the_verdict_asks_for_intervals_that_lie_apart(planted, twin, wanted):
    outcomes = [outcome("border", "planted", s, *["border"] * (s < planted)) for s in range(10)]
    outcomes += [outcome("border", "twin", s, *["border"] * (s < twin)) for s in range(10)]
    assert claims.verdict(tabulated(outcomes).counts).verdict == wanted


def test_a_report_of_made_up_outcomes_stays_as_it_is(assert_stays):
    of = config(kinds=("border", "text"), seeds=(3, 4, 5), null_seeds=(3, 4, 5))
    learned = settings(of).learned

    def made_up(i, kind, arm, seed):
        found = {("border", "planted"): ["border"], ("text", "planted"): ["overlay"] * (seed > 3)}.get((kind, arm), [])
        numbers = [
            Row(
                {"kind": kind, "arm": arm, "seed": seed, "found_kind": other, "quantity": f"{other} {quantity}"},
                Estimate(0.1 * i, 0.1 * i - 0.02, 0.1 * i + 0.03 * quantity, 8, 0, 8),
                "Dice lost",
                more={"margin": 0.05, "found": True, "open": False},
            )
            for other in ("border", "overlay")
            for quantity in (2, 1)
        ]
        dice = [learned, learned + 0.01, learned - 0.01][seed - 3]  # learned is above it
        return outcome(kind, arm, seed, *found, *["accuracy"] * (i % 2), dice=dice, numbers=numbers)

    networks = [(kind, arm, seed) for kind in ("border", "text") for arm in ARMS for seed in (3, 4, 5)]
    networks += [("border", "circular", seed) for seed in (3, 4, 5)]
    outcomes = [made_up(i, *network) for i, network in enumerate(networks)]
    assert_stays("planted_shortcuts", STUDY, settings(of), None, outcomes, of)


def test_intervals_that_touch_do_not_lie_apart():
    def row(arm, low, high):
        estimate = Estimate(0.5, low, high, 10, 0, 10)
        return Row({"kind": "border", "arm": arm}, estimate, "", more={"found": 5})

    verdict = lambda twin_high: claims.verdict(table([row("planted", 0.4, 0.9), row("twin", 0.0, twin_high)])).verdict
    assert [verdict(high) for high in (0.39, 0.4, 0.41)] == ["yes", "no", "no"]


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
    of = config(kinds=("border",), audit__probes=("accuracy",), model__features=(2, 4), nulls={})
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
