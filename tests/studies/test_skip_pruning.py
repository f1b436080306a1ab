"""The study's numbers, away from training: conditions, IoU, distances, tables, verdicts, the page."""

import csv
import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import hellinger
from jaxseg.data import augment, pipeline, shifts
from jaxseg.errors import InputError
from jaxseg.metrics import draws as resamples
from jaxseg.metrics.intervals import Estimate
from jaxseg.models import capture
from jaxseg.results import table
from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR
from jaxseg.results.table import Row
from jaxseg.studies import runner
from jaxseg.studies.base import Judgement, Report, changed
from jaxseg.studies.skip_pruning import claims as paper_claims
from jaxseg.studies.skip_pruning import conditions, distance_tables, distances, iou, paper, tables
from jaxseg.studies.skip_pruning import experiment as study
from jaxseg.studies.skip_pruning import figures as skip_pruning_figures
from jaxseg.studies.skip_pruning.conditions import Condition
from jaxseg.studies.skip_pruning.settings import Network, settings
from jaxseg.studies.skip_pruning.study import STUDY

ROOT = pathlib.Path(__file__).parents[2]
SIZES = ("tiny", "demo", "cpu", "cpu,wbc", "cpu,lgg", "paper", "paper,cct", "paper,mnms")


def config(size="tiny", **fields):
    spec = importlib.util.spec_from_file_location("skip_pruning_config", ROOT / "configs" / "skip_pruning.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_config(size).unlock()
    made.update_from_flattened_dict(fields)
    return made.lock()


def settings_of(size="tiny", **fields):
    return settings(config(size, **fields))


def cases(count=12, *, domain="A", prefix="p", size=32, seed=0, patients=None):
    """Smooth random images with a square of random size; every case is its own patient."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 220, (count, size // 4, size // 4, 3))
    images = np.repeat(np.repeat(coarse, 4, 1), 4, 2).astype(np.uint8)
    labels = np.zeros((count, size, size), np.uint8)
    for mask in labels:
        mask[4 : random.integers(8, size - 4), 6 : random.integers(10, size - 4)] = 1
    names = tuple(f"{prefix}{i:02d}" for i in range(count))
    whom = tuple(patients) if patients else names
    return pipeline.InMemory(
        "fake/test", ("background", "cell"), images, labels, names, whom, (domain,) * count, np.ones((count, 2))
    )


class Splits(dict):
    """As `runs.Splits`, of cases that are there."""

    @property
    def pool(self):
        return pipeline.joined([self["train"], self["validation"]])


# ------------------------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize("size", ["tiny", "demo", "cpu,wbc", "paper"])
def test_sizes_can_be_run(size):
    settings_of(size)


def test_every_size_removes_skips_from_the_top_and_nothing_else():
    for size in SIZES:
        stored = config(size)
        assert stored.size == size and stored.replicas == stored.data.folds and stored.vary == "fold"
        made, baseline = settings(stored), None
        for network in made.networks:
            run = made.of_run(network).to_dict()
            levels = len(stored.model.skips)
            assert run["model"].pop("skips") == (False,) * network.pruned + (True,) * (levels - network.pruned)
            baseline = run if network.pruned == 0 else baseline
            assert run == baseline
    with pytest.raises(ValueError, match="unknown size 'cpu,x'; choose one of paper, paper,cct"):
        config("cpu,x")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoders": ("resnet18",)}, "config.encoders are for resnet_unet, config.model.name is 'unet'"),
        ({"pruned": (0, 2)}, "rising numbers of removed skips, up to 2, with 0 .the baseline. and 1"),
        ({"pruned": (0, 1, 3)}, "up to 2"),
        ({"shifts.brightness": (11.0,)}, "strength of brightness is 11.0; it must be a number in 0 to 10"),
        ({"shifts.contrast": (1.5, 1.5)}, "config.shifts.contrast .* each strength once"),
        ({"shifts.uniform_noise": (0.1,)}, "config.shifts.uniform_noise .* of a shift without chance"),
        ({"pruned": (1, 0)}, "config.pruned is .1, 0.; give rising numbers"),
        ({"evaluation.distance_strength": 0.6}, "'brightness' with distance_strength 0.6 is none of config.shifts"),
        ({"evaluation.bins": 0}, "config.evaluation.bins is 0; it must be at least 1"),
        ({"data.folds": 1}, "config.data.folds is 1"),
        ({"training.epochs": 0}, "config.training.epochs is 0"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(fields, message):
    with pytest.raises(InputError, match=message):
        settings_of(**fields)


def test_a_network_without_skips_is_refused():
    made = config().unlock()
    del made.model.skips
    with pytest.raises(InputError, match=r"config.model.skips is missing; configs/skip_pruning.py shows"):
        settings(made.lock())


def test_encoders_are_known_and_given_once():
    made = config("cpu").unlock()
    for encoders in (("resnet18", "resnet18"), ("resnet19",)):
        made.encoders = encoders
        with pytest.raises(InputError, match=r"config.encoders is .*; give some of resnet18, resnet34, each once"):
            settings(made)


def test_one_patient_is_refused_and_so_is_a_class_that_is_not_there():
    made = settings_of()
    alone = cases(3, patients=("p",) * 3)
    with pytest.raises(InputError, match="fake/test shows one patient, who gives no interval; give more cases"):
        conditions.conditions(made, Splits(train=cases(4), validation=cases(4), test=alone), Splits())
    names = ("background", "cell", "dirt")
    assert iou.class_numbers(("dirt",), names) == (2,) and iou.class_numbers((), names) == (1, 2)
    with pytest.raises(InputError, match=r"config.evaluation.classes has 'background'; choose from cell, dirt"):
        iou.class_numbers(("background",), names)


def test_a_study_without_any_shift_is_refused():
    made = config().unlock()
    made.shifts = {}
    with pytest.raises(InputError, match=r"there is no shift: fill config.shifts, or name in config.data.domains"):
        settings(made.lock())


# ---------------------------------------------------------------------------------------------------------- conditions


def test_conditions_are_the_test_set_its_shifts_and_the_domains_of_unseen_patients():
    made = settings_of(**{"data.domains": ("A",)})
    parts = {name: cases(4, prefix=name[:2], seed=i) for i, name in enumerate(("train", "validation", "test"))}
    # the first sample of the training set was scanned by B too; of C there is one patient
    foreign = cases(3, domain="B", prefix="b", patients=("tr00", "b1", "b2"))
    single = cases(2, domain="C", prefix="c", patients=("c", "c"))
    everything = parts | {"validation": pipeline.joined([parts["validation"], foreign, single])}
    tested = conditions.conditions(made, Splits(parts), Splits(everything))
    assert [c.name for c in tested] == [
        "in-domain A", "brightness 0.5", "brightness 0.75", "contrast 1.5", "saturation 0", "domain B", "domain C"
    ]  # fmt: skip
    assert tested[5].cases.cases == ("b01", "b02")
    np.testing.assert_array_equal(tested[5].cases.images, foreign.images[1:])
    assert tested[5].has_interval and not tested[6].has_interval
    assert [c.name for c in conditions.compared(made.evaluation, tested)] == ["brightness 0.75", "domain B"]
    assert tables.places(tested)[tables.SHIFTED] == tuple(c.name for c in tested[1:6])
    with pytest.raises(InputError, match=r"has no domain but config.data.domains"):
        conditions.conditions(made, Splits(parts), Splits(parts))


def test_stored_images_are_shifted_and_every_case_comes_once():
    stored = cases(10)
    shifter = conditions.Shifter(4)
    batches = list(shifter.batches(Condition("brightness", "0.5", stored, ("brightness", 0.5))))
    seen = np.concatenate([np.asarray(batch["image"])[batch["real"]] for batch in batches])
    np.testing.assert_array_equal(seen, jax.jit(lambda images: shifts.brightness(images, 0.5))(stored.images))
    assert sum(batch["real"].sum() for batch in batches) == 10
    np.testing.assert_array_equal(
        next(shifter.batches(Condition("in-domain", "A", stored)))["image"], stored.images[:4]
    )


def test_the_example_has_the_median_area():
    stored = cases(9)
    shown = conditions.example_cases([Condition("in-domain", "A", stored), Condition("domain", "B", stored)])
    areas = stored.labels.sum((1, 2))
    assert [c.cases.labels.sum() for c in shown] == [np.median(areas)] * 2


def test_patients_are_drawn_within_their_domains_and_alike_for_all_conditions():
    both = cases(5, domain="A", prefix="s"), cases(5, domain="B", prefix="s")  # five samples on two scanners
    alone = cases(7, domain="C", prefix="c", patients=("x", "x", "y", "z", "z", "z", "u"))
    tested = [Condition("in-domain", "A", both[0]), Condition("domain", "B", both[1]), Condition("domain", "C", alone)]
    draws = conditions.patient_draws(tested, 200)
    first, second, third = (draws.of_patients(c.cases.patients) for c in tested)
    np.testing.assert_array_equal(first, second)
    assert (first.sum(1) == 5).all() and (third.sum(1) == 4).all()
    assert third.shape == (200, 4) and first.std() > 0.5
    np.testing.assert_array_equal(draws.of_cases(alone.patients)[:, [0, 2, 3, 6]], third[:, [1, 2, 3, 0]])
    np.testing.assert_array_equal(draws.of_cases(alone.patients)[:, 3], draws.of_cases(alone.patients)[:, 5])


# ------------------------------------------------------------------------------------------------------------------ IoU


# ----------------------------------------------------------------------------------------------------------- distances


@pytest.fixture(scope="module")
def network(drawn_variables):
    """A drawn U-Net with one pooling, in two members."""
    module = models.build("unet", 2, features=(4, 8))
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return module, [drawn_variables(module, image, seed) for seed in range(2)]


def test_distances_are_those_of_all_vectors_at_once(network):
    module, members = network
    made = settings_of()
    stored = cases(10, patients=[f"p{i // 2}" for i in range(10)])  # 10 is no multiple of the batch size
    shifted = Condition("brightness", "0.75", stored, ("brightness", 0.75))
    tested = [Condition("in-domain", "original", stored), shifted]
    measured = distances.measure(made, module, members, tested, conditions.Shifter(4))
    assert measured["layers"].tolist() == ["encoder_0", "bottleneck", "decoder_0"]
    assert measured["brightness 0.75/drawn"].shape == (2, 3, 20)
    names = measured["layers"].tolist()

    @jax.jit
    def at_once(variables, image, labels):
        both = jnp.concatenate([image, shifts.brightness(image, 0.75)])
        seen = augment.whole({"image": both, "labels": jnp.concatenate([labels, labels])}, size=32)["images"]
        found = capture.capture(module, variables, seen, names)[1]
        # 16 x 16 cells, the size of the bottleneck
        pool = lambda array: hellinger.pool_vectors(array, grid=(16, 16))
        halves = {name: jnp.split(array, 2) for name, array in found.items()}
        return {name: hellinger.hellinger_distance(pool(p), pool(q)) for name, (p, q) in halves.items()}

    for f, variables in enumerate(members):
        for name, expected in at_once(variables, stored.images, stored.labels).items():
            # batches of another size round activations differently, and a few cross the edge of a bin
            np.testing.assert_allclose(measured[f"brightness 0.75/distance/{name}"][f], expected, atol=0.01)


def test_images_that_are_not_shifted_have_no_distance(network):
    module, members = network
    stored = cases(6)
    made = settings_of(**{"shifts.brightness": (1.0,), "evaluation.distance_strength": 1.0})
    tested = [Condition("in-domain", "original", stored), Condition("brightness", "1", stored, ("brightness", 1.0))]
    measured = distances.measure(made, module, members[:1], tested, conditions.Shifter(4))
    for name in measured["layers"]:
        assert not measured[f"brightness 1/distance/{name}"].any()
    assert not measured["brightness 1/drawn"].any()  # the same patients are drawn on both sides
    assert (measured["brightness 1/null"] > 0).all()


def test_drawn_patients_and_halves_are_sums_of_their_histograms():
    random = np.random.default_rng(0)
    p, q = random.standard_normal((5, 30, 2)).astype(np.float32), random.standard_normal((5, 30, 2)).astype(np.float32)

    def beside(sets):
        """With a vector that does not count in every image."""
        return np.concatenate([sets, np.full_like(sets[:, :1], 99)], 1), np.arange(31) < np.full((5, 1), 30)

    joint = distances._ranges([(None, {"layer": beside(p)}), (None, {"layer": beside(q)})])["layer"]
    np.testing.assert_array_equal(joint, [f(np.concatenate([p, q]), (0, 1)) for f in (np.min, np.max)])

    def histograms(sets):
        return np.asarray(distances._image_histograms({"layer": beside(sets)}, {"layer": joint}, bins=10)["layer"])

    drawn = np.array([[2, 0, 1, 1, 1], [0, 0, 5, 0, 0]], float)
    channels, layer, null, constant = distances._distances(
        {"layer": histograms(p)}, {"layer": histograms(q)}, {"layer": joint}, drawn, drawn, 4
    )["layer"]

    def slow(a, b):
        """Over the joint range, by numpy."""
        total = []
        for d in range(2):
            edges = (float(joint.low[d]), float(joint.high[d]))
            f, g = (np.histogram(x[..., d], 10, edges)[0] / x[..., d].size for x in (a, b))
            total.append(math.sqrt(max(1 - np.sum(np.sqrt(f * g)), 0)))
        return np.array(total)

    np.testing.assert_allclose(channels, slow(p, q), atol=1e-6)
    repeated = [slow(*(np.repeat(x, row.astype(int), 0) for x in (p, q))).mean() for row in drawn]
    np.testing.assert_allclose(layer, repeated, atol=1e-6)
    first, second = resamples.halves(5, 4, 0)
    assert (first.sum(1) == 2).all() and (second.sum(1) == 2).all() and not (first * second).any()
    halves = [slow(p[a > 0], p[b > 0]).mean() for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(null, halves, atol=1e-6)
    assert constant == 0


# -------------------------------------------------------------------------------------------------------------- tables


def fake_tested(made, count=30):
    stored = cases(count)
    return conditions.conditions(made, Splits(train=cases(4), validation=cases(4), test=stored), Splits())


def fake_measures(tested, in_domain, shifted, layers, *, seed=0, size=200):
    """Two folds with about the given IoU, and layers with about the given distances."""
    random = np.random.default_rng(seed)
    counts = []
    for condition in tested:
        iou = np.clip((shifted if condition.shift else in_domain) + 0.05 * random.standard_normal((2, 30)), 0, 1)
        labelled = np.full((2, 30), size)
        both = np.rint(2 * size * iou / (1 + iou)).astype(int)  # label and prediction are of one size
        counts.append(
            np.stack([np.stack([labelled, labelled, labelled], -1), np.stack([both, labelled, labelled], -1)], 2)
        )
    measures = {
        "counts": np.concatenate(counts, 1).astype(np.int32),
        "step": np.array([6, 9]),
        "validation_miou": np.array([0.6, 0.7]),
        "layers": np.array(list(layers)),
        "examples": np.zeros((5, 32, 32), np.uint8),
    }
    name = "brightness 0.75"
    for layer, value in layers.items():
        measures[f"{name}/distance/{layer}"] = np.clip(value + 0.02 * random.standard_normal((2, 6)), 0, 1)
    means = np.stack([measures[f"{name}/distance/{layer}"].mean(1) for layer in layers], 1)
    # a bootstrap of distances lies above the estimate
    measures[f"{name}/drawn"] = means[..., None] + 0.1 + 0.01 * random.standard_normal((2, len(layers), 20))
    measures[f"{name}/null"] = np.full((2, len(layers), 10), 0.05)
    measures[f"{name}/constant"] = np.zeros((2, len(layers)), int)
    return measures


LAYERS = ("encoder_0", "encoder_1", "bottleneck", "decoder_1", "decoder_0")
SHALLOW = dict(zip(LAYERS, (0.6, 0.4, 0.2, 0.3, 0.3), strict=True))
FLAT = dict.fromkeys(LAYERS, 0.3)


def study_of(l1, distance=(SHALLOW, FLAT, FLAT)):
    return _study_of(l1, tuple(tuple(layers.items()) for layers in distance))


@functools.cache  # several tests look at the same study
def _study_of(l1, distance):
    baseline, l2 = (0.8, 0.5), (0.6, 0.3)
    made = settings_of(pruned=(0, 1, 2))
    tested = fake_tested(made)
    measured = {
        Network("unet", pruned): fake_measures(tested, *iou, dict(layers), seed=pruned)
        for pruned, (iou, layers) in enumerate(zip((baseline, l1, l2), distance, strict=True))
    }
    examples = study.examples(32, tested)
    measured = study.Measured(measured, examples)
    return made, tested, measured, tables.tabulate(made, study.Cases({}, tested), measured)


@pytest.mark.parametrize(
    ("l1", "expected", "in_domain", "shifted"),
    [
        ((0.85, 0.6), "yes", HOLDS, HOLDS),
        ((0.85, 0.4), "partly", HOLDS, FAILS),
        ((0.7, 0.4), "no", FAILS, FAILS),
        ((0.79, 0.5), "unclear", UNCLEAR, UNCLEAR),
    ],
)
def test_the_verdict_follows_the_intervals(l1, expected, in_domain, shifted):
    *_, results = study_of(l1)
    claims = paper_claims.claims(results, "unet", 2)
    answers = {claim.claim: claim.answer for claim in claims}
    assert (answers[paper_claims.AS_GOOD], answers[paper_claims.BETTER]) == (in_domain, shifted)
    assert answers[paper_claims.MORE_HURTS] == HOLDS
    found = paper_claims.verdict(claims, "unet")
    assert found.verdict == expected
    for place in ("in-domain", tables.SHIFTED):
        row = results.differences.one(difference="L1-pruned minus baseline", place=place, measure=iou.SET)
        mean, low, high = row.numbers
        assert f"{mean:z.3f} [{low:z.3f}, {high:z.3f}]" in found.sentence
        assert low <= mean <= high


@pytest.mark.parametrize(
    ("distance", "early", "top", "all_skips"),
    [
        ((SHALLOW, FLAT, {**FLAT, "decoder_1": 0.1, "decoder_0": 0.1}), HOLDS, None, HOLDS),
        ((SHALLOW, {**FLAT, "decoder_0": 0.1}, FLAT), HOLDS, HOLDS, None),
        ((dict(zip(LAYERS, (0.1, 0.3, 0.3, 0.3, 0.3), strict=True)), SHALLOW, FLAT), FAILS, None, None),
        (({**FLAT, "encoder_0": 0.31}, {**FLAT, "decoder_0": 0.6}, FLAT), None, FAILS, None),
    ],
)
def test_claims_on_layers_follow_the_intervals(distance, early, top, all_skips):
    *_, results = study_of((0.8, 0.5), distance=distance)
    answers = {claim.claim: claim.answer for claim in paper_claims.claims(results, "unet", 2)}
    for claim, expected in (
        (paper_claims.EARLY_LARGEST, early), (paper_claims.SHRINKS_TOP, top), (paper_claims.SHRINKS_ALL, all_skips)
    ):  # fmt: skip
        assert expected in (None, answers[claim]), claim


@pytest.mark.parametrize(
    ("low", "high", "lowest_fold", "highest_fold", "expected"),
    [
        (0.1, 0.3, 0.1, 0.2, HOLDS),
        (0.1, 0.3, -0.1, 0.5, UNCLEAR),  # folds disagree
        (-0.3, -0.1, -0.2, -0.1, FAILS),
        (-0.3, -0.1, -0.5, 0.1, UNCLEAR),
        (-0.1, 0.3, 0.1, 0.1, UNCLEAR),
        (math.nan, math.nan, 0.1, 0.1, UNCLEAR),
    ],
)
def test_interval_and_folds_have_to_agree(low, high, lowest_fold, highest_fold, expected):
    folds = {"lowest_fold": lowest_fold, "highest_fold": highest_fold}
    row = Row({}, Estimate(0.2, low, high, 9, 0, 9), "mean", more=folds)
    assert paper_claims._claim("unet", paper_claims.BETTER, row, what="IoU").answer == expected
    opposite = {HOLDS: FAILS, FAILS: HOLDS}
    turned = paper_claims._claim("unet", paper_claims.BETTER, paper_claims._reversed(row), what="IoU")
    assert turned.answer == opposite.get(expected, expected)


@pytest.mark.parametrize(
    ("low", "high", "lowest_fold", "highest_fold", "expected"),
    [
        (0.0, 0.3, 0.1, 0.2, UNCLEAR),
        (0.1, 0.3, 0.0, 0.2, UNCLEAR),
        (-0.3, 0.0, -0.2, -0.1, FAILS),
        (-0.3, -0.1, -0.2, 0.0, FAILS),
    ],
)
def test_what_ends_on_0_is_not_above_it(low, high, lowest_fold, highest_fold, expected):
    folds = {"lowest_fold": lowest_fold, "highest_fold": highest_fold}
    row = Row({}, Estimate(0.2, low, high, 9, 0, 9), "mean", more=folds)
    assert paper_claims._claim("unet", paper_claims.BETTER, row, what="IoU").answer == expected


def test_tables_agree_with_cases_and_say_what_they_left_out():
    _, tested, measured, results = study_of((0.85, 0.6))
    for name in ("iou", "differences", "distances", "distance_differences", "folds"):
        for row in table.records(getattr(results, name)):
            assert row["convention"] and row["interval"] and {"n", "undefined"} <= row.keys(), name
    assert len(results.iou) == 3 * 2 * len(tested) and len(results.cases) == 30 * len(tested)
    for row in table.records(results.iou):
        if row["measure"] == iou.CASE:
            values = [
                case[f"unet {row['architecture']}"]
                for case in results.cases
                if (case["group"], case["condition"]) == (row["group"], row["condition"])
            ]
            assert row["mean"] == pytest.approx(np.mean(values)) and row["n"] == 30
        else:
            folds = [f for f in results.folds if f["architecture"] == row["architecture"]]
            values = [f[f"{row['group']} {row['condition']}"] for f in folds]
            assert row["mean"] == pytest.approx(np.mean(values))
            assert (row["lowest_fold"], row["highest_fold"]) == pytest.approx((min(values), max(values)))
    for row in table.records(results.distances):
        values = measured.of_networks[Network("unet", 0)][f"brightness 0.75/distance/{row['layer']}"]
        if row["architecture"] == "baseline":
            assert row["mean"] == pytest.approx(values.mean(), rel=1e-6)
            assert row["low"] < row["mean"] < row["high"] and row["high"] - row["low"] < 0.06
            assert row["part"] == ("decoder" if row["layer"].startswith("decoder") else "encoder")
    early = results.distance_differences.one(networks="baseline", quantity=distance_tables.EARLY)
    layers = {row["layer"]: row.estimate.mean for row in results.distances.where(architecture="baseline")}
    assert early.estimate.mean == pytest.approx(layers["encoder_0"] - np.mean([layers[name] for name in LAYERS[1:]]))


def test_which_networks_are_compared():
    assert tables.pairs(config("demo").pruned) == [(1, 0), (2, 0), (3, 0), (4, 0), (2, 1), (3, 2), (4, 3), (4, 1)]
    assert tables.pairs(config().pruned) == [(1, 0)]


# ------------------------------------------------------------------------------------------------- the paper's numbers


def test_networks_have_as_many_parameters_as_in_table_2():
    rows = [row for row in tables.parameter_records(settings_of(), cases()) if row["networks"] == "the paper's"]
    assert len(rows) == 10
    for row in rows:
        assert row["parameters"] == row["paper"], row


def test_the_papers_values_stand_beside_ours():
    cct = config("paper,cct").data.dataset
    wanted = {
        (("resnet18", 1), "cs2"): 0.73,
        (("resnet34", 4), "gt450"): 0.65,
        (("resnet34", 2), "gt450"): None,
    }
    for (network, domain), value in wanted.items():
        assert paper.iou(cct, Network(*network), domain=domain) == value
    brightness = ("brightness", 0.75)
    assert paper.iou(cct, Network("resnet18", 1), shift=brightness) is None
    assert paper.iou("mnms/slices", Network("resnet34", 4), domain="Philips 3") == 0.63
    smear = config("cpu").data.dataset
    assert paper.iou(smear, Network("resnet18", 2), shift=brightness) == 0.86
    assert paper.iou(smear, Network("resnet18", 2), shift=("brightness", 0.5)) is None
    assert paper.iou(smear, Network("resnet18", 1), shift=brightness) is None
    assert paper.iou(config("cpu,wbc").data.dataset, Network("resnet18", 1), domain="lab2") is None
    *_, results = study_of((0.85, 0.6))
    row = next(r for r in results.paper_domains if r["data"].startswith("MV-MR") and r["encoder"] == "resnet18")
    assert (row["in_domain"], row["shifted"]) == (0.05, 0.06)  # 0.77 - 0.72; mean of 0.02, 0.13 and 0.03
    ours = [r for r in results.paper_domains if r["data"].endswith("here")]
    assert [r["difference"] for r in ours] == ["L1-pruned minus baseline", "L2-pruned minus baseline"]
    assert ours[0]["in_domain"] == pytest.approx(0.05, abs=0.02) and ours[0]["shifted"] == pytest.approx(0.1, abs=0.02)


# ---------------------------------------------------------------------------------------------------------------- page


def test_page_tables_and_verdicts_say_the_same(tmp_path):
    made, tested, measured, results = study_of((0.85, 0.6))
    claims = paper_claims.claims(results, "unet", 2)
    verdicts = [paper_claims.verdict(claims, "unet")]
    origin = {"command": "python -m launch.study", "data": "fake", "config": {"study": "skip_pruning"}}
    made_of = Report(
        tmp_path, "tiny", made, study.Cases({}, tested), measured, results, Judgement(verdicts, claims), origin
    )
    path = runner.write(STUDY, made_of)
    assert {figure.name for figure in (tmp_path / "figures").iterdir()} == {
        "differences.png", "iou_unet.png", "distances_unet_0.png", "examples_unet.png"
    }  # fmt: skip
    stored = json.loads((tmp_path / "results.json").read_text())
    text = path.read_text()
    assert stored["verdicts"][0]["sentence"] in text and stored["verdicts"][0]["verdict"] == "yes"
    for claim in stored["claims"]:
        assert claim["sentence"] in text
    with (tmp_path / "tables" / "iou.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == pytest.approx([row["mean"] for row in stored["iou"]], rel=1e-5)


def test_a_page_says_how_many_networks_there_are(tmp_path):
    made, tested, measured, results = study_of((0.85, 0.6))
    of = study.Cases(Splits(train=cases(4), validation=cases(5)), tested)

    def told(networks):
        run = changed(made.run, {"replicas": networks})
        judged = STUDY.judge(made, results)
        settings_ = dataclasses.replace(made, run=run)
        return STUDY.page(Report(tmp_path, "tiny", settings_, of, measured, results, judged, {"data": "fake"})).sections

    assert "Trained: 2 networks per architecture, one per fold (fake)" in told(2)[0].text[0]
    assert "Trained: one run (fake)" in told(1)[0].text[0]


def test_domains_have_a_figure_of_their_own(tmp_path):
    stored = config(**{"data.domains": ("A",)}).unlock()
    stored.shifts = {}
    made = settings(stored.lock())
    parts = {name: cases(30, prefix=name[:2]) for name in ("train", "validation", "test")}
    foreign = {"test": pipeline.joined([parts["test"], cases(30, domain="B", prefix="b")])}
    tested = conditions.conditions(made, Splits(parts), Splits(parts | foreign))
    measured = {}
    for pruned in (0, 1):
        measures = fake_measures(tested, 0.8, 0.8, SHALLOW, seed=pruned)
        renamed = {name.replace("brightness 0.75", "domain B"): value for name, value in measures.items()}
        measured[Network("unet", pruned)] = renamed | {"examples": np.zeros((2, 32, 32), np.uint8)}
    measured, of = study.Measured(measured, study.examples(32, tested)), study.Cases({}, tested)
    results = tables.tabulate(made, of, measured)
    skip_pruning_figures.draw(Report(tmp_path, "tiny", made, of, measured, results, Judgement([]), {}))
    assert {figure.name for figure in (tmp_path / "figures").iterdir()} == {
        "differences.png", "domains_unet.png", "distances_unet_0.png", "examples_unet.png"
    }  # fmt: skip
    claims = paper_claims.claims(results, "unet", 1)
    assert [claim.claim for claim in claims] == [
        paper_claims.AS_GOOD, paper_claims.BETTER, paper_claims.EARLY_LARGEST, paper_claims.SHRINKS_TOP
    ]  # fmt: skip


def test_a_report_of_made_up_measures_stays_as_it_is(assert_stays):
    made, tested, measured, _ = study_of((0.85, 0.6))
    of = study.Cases(Splits(train=cases(4), validation=cases(5)), tested)
    assert_stays("skip_pruning", STUDY, made, of, measured, config(pruned=(0, 1, 2)))


def test_a_report_of_made_up_domains_stays_as_it_is(assert_stays):
    cfg = config(**{"data.domains": ("A",), "pruned": (0, 1, 2), "evaluation.resamples": 20}).unlock()
    cfg.shifts = {}
    made = settings(cfg.lock())
    parts = {name: cases(30, prefix=name[:2]) for name in ("train", "validation", "test")}
    others = [parts["test"], *(cases(30, domain=name, prefix=name) for name in "BC")]
    tested = conditions.conditions(made, Splits(parts), Splits(parts | {"test": pipeline.joined(others)}))
    measured = {}
    for pruned in (0, 1, 2):
        measures = fake_measures(tested, 0.8 - 0.1 * pruned, 0.7, SHALLOW, seed=pruned)
        of_b = {name: value for name, value in measures.items() if name.startswith("brightness 0.75")}
        named = {name.replace("brightness 0.75", f"domain {k}"): v for name, v in of_b.items() for k in "BC"}
        measured[Network("unet", pruned)] = measures | named | {"examples": np.ones((3, 32, 32), np.uint8)}
    of = study.Cases(Splits(parts), tested)
    assert_stays("skip_pruning_domains", STUDY, made, of, study.Measured(measured, study.examples(32, tested)), cfg)


def test_the_original_stands_where_the_factor_is_one():
    tested = fake_tested(settings_of("demo"))
    by_group = {k: list(v) for k, v in itertools.groupby(tested, lambda c: c.group)}
    labels = {k: [c.label for c in skip_pruning_figures._with_original(v, tested[0])] for k, v in by_group.items()}
    assert labels["brightness"] == ["0.5", "0.75", "original", "1.25", "1.5", "1.75"]
    assert labels["saturation"] == ["0", "0.25", "0.5", "0.75", "original"]


# ------------------------------------------------------------------------------------------------------------ measures


class Threshold(nn.Module):
    """Cell where the first channel is above a level."""

    @nn.compact
    def __call__(self, images, train=False):
        level = self.param("level", nn.initializers.zeros, ())
        return jnp.stack([jnp.zeros_like(images[..., 0]), images[..., 0] - level], -1)


def test_every_fold_is_counted_on_every_condition_and_the_first_one_is_shown(monkeypatch, tmp_path):
    made = settings_of()
    tested, asked, levels = fake_tested(made, 5), [], {"a": 0.0, "b": 0.2}

    def load_best(run, folder, shape, num_classes):
        asked.append((folder.name, shape, num_classes))
        return Threshold(), {"params": {"level": np.float32(levels[folder.name])}}, {"step": len(asked), "miou": 0.5}

    monkeypatch.setattr(study.runs, "member_runs", lambda run, folder: [(run, folder / name) for name in levels])
    monkeypatch.setattr(study.runs, "load_best", load_best)
    monkeypatch.setattr(study.distances, "measure", lambda *_: {"layers": np.array(["x"])})
    shifter = conditions.Shifter(2)
    found = study.measure(made, made.of_run(made.networks[0]), tmp_path, tested, shifter)
    assert asked == [(name, (5, 32, 32, 3), 2) for name in levels]
    assert found["step"].tolist() == [1, 2] and found["layers"].tolist() == ["x"]
    position = 0
    for condition in tested:
        stored = condition.cases
        shifted = np.concatenate([np.asarray(b["image"])[np.asarray(b["real"])] for b in shifter.batches(condition)])
        for i in range(len(stored)):
            for fold, level in enumerate(levels.values()):
                predicted = shifted[i, ..., 0].astype(np.float32) / 127.5 - 1 > level
                for k, (a, b) in enumerate(((stored.labels[i] == 0, ~predicted), (stored.labels[i] == 1, predicted))):
                    wanted = [(a & b).sum(), a.sum(), b.sum()]
                    np.testing.assert_array_equal(found["counts"][fold, position, k], wanted)
            position += 1
    assert found["counts"].shape == (2, position, 2, 3)
    shown = conditions.example_cases(tested)
    assert found["examples"].shape == (len(shown), 32, 32)
    assert [one.name.partition(":")[0] for one in study.examples(32, tested)] == [c.name for c in shown]
    first = np.flatnonzero(np.array(tested[0].cases.cases) == shown[0].cases.cases[0])[0]
    np.testing.assert_array_equal(found["examples"][0], tested[0].cases.images[first, ..., 0] > 127)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.slow
def test_a_study_is_trained_measured_reported_and_not_repeated(tmp_path):
    """The tiny size from config to page, in this process; called again, it reads what is there."""
    places = {"workdir": tmp_path / "work", "data_dir": tmp_path / "data", "manual_dir": None, "command": "command"}
    with jax.numpy_dtype_promotion("standard"):
        page = runner.run(config(), **places)
        first = json.loads((tmp_path / "work" / "results.json").read_text())
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").rglob("*") if path.is_file()}
        runner.run(config(), **places)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").rglob("*") if path.is_file()}
    assert after == before
    again = json.loads((tmp_path / "work" / "results.json").read_text())
    assert again["iou"] == first["iou"] and again["distances"] == first["distances"]
    assert {path.name for path in (tmp_path / "work" / "runs").iterdir()} == {"unet_L0", "unet_L1"}
    assert all((tmp_path / "work" / "runs" / "unet_L1" / f"replica_{i}").is_dir() for i in range(2))
    for verdict in first["verdicts"]:
        assert verdict["sentence"] in page.read_text()
    # the folds' networks differ, and so do their numbers
    assert any(row["lowest_fold"] < row["highest_fold"] for row in first["iou"])
