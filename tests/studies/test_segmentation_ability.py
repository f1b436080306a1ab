"""The study's numbers, away from training: what is asked of a network, tables, claims, the page."""

import csv
import dataclasses
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import prototypes, vog
from jaxseg.data import augment, pipeline, shifts
from jaxseg.data.normalisation import MeanStd
from jaxseg.errors import InputError
from jaxseg.metrics import overlap, ranking
from jaxseg.models import capture, tracing
from jaxseg.models.pruning import LAST_LAYER, prune_last_layer
from jaxseg.networks import of_linen
from jaxseg.results import table
from jaxseg.scores import vog as difficulty
from jaxseg.studies import base, runner
from jaxseg.studies.segmentation_ability import claims as claimed
from jaxseg.studies.segmentation_ability import experiment as study
from jaxseg.studies.segmentation_ability import figures as study_figures
from jaxseg.studies.segmentation_ability import quality, scores
from jaxseg.studies.segmentation_ability import tables as study_tables
from jaxseg.studies.segmentation_ability.settings import NETWORKS, settings
from jaxseg.studies.segmentation_ability.study import STUDY
from jaxseg.training import checks

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16
WHERE = {"size": SIZE, "batch_size": 4}


def config(size="tiny", **fields):
    spec = importlib.util.spec_from_file_location(
        "segmentation_ability_config", ROOT / "configs" / "segmentation_ability.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_config(size).unlock()
    made.update_from_flattened_dict(fields)
    return made.lock()


def cases(count=10, *, size=32, seed=0, prefix="p"):
    """Smooth random images with a darker square of random size; every case is its own patient."""
    random = np.random.default_rng(seed)
    coarse = random.integers(120, 220, (count, size // 4, size // 4, 3))
    images = np.repeat(np.repeat(coarse, 4, 1), 4, 2).astype(np.uint8)
    labels = np.zeros((count, size, size), np.uint8)
    for mask in labels:
        mask[4 : random.integers(8, size - 4), 6 : random.integers(10, size - 4)] = 1
    images[labels > 0] -= 90
    names = tuple(f"{prefix}{i:02d}" for i in range(count))
    return pipeline.InMemory(
        "fake/test", ("background", "lesion"), images, labels, names, names, ("",) * count, np.ones((count, 2))
    )


def drawn(model, seed):
    """Variables drawn by numpy: compiling the real draw takes longer than the test."""
    like = tracing.variable_shapes(model, (1, SIZE, SIZE, 3))
    random = np.random.default_rng(seed)
    scale = lambda x: (2 / np.prod(x.shape[:-1])) ** 0.5 if x.ndim > 1 else 0.3
    made = jax.tree.map(lambda x: random.normal(0, scale(x), x.shape).astype(np.float32), like)
    for kind, least in (("scale", 1.0), ("var", 0.5)):  # few dead units
        made = jax.tree_util.tree_map_with_path(
            lambda path, x, kind=kind, least=least: np.abs(x) + np.float32(least) if path[-1].key == kind else x, made
        )
    # neither all object nor all background
    made["params"]["head"]["conv"] = {"kernel": np.zeros((1, 1, 4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    made["params"]["head"]["conv"]["kernel"][..., 1] = 1.0, -1.2, 0.8, -0.7
    return made


@pytest.fixture(scope="module")
def network():
    model = checks.build_model(config(), 2)
    return model, drawn(model, 0)


# ------------------------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize("size", ["tiny", "demo", "cpu", "paper"])
def test_every_size_can_be_run_and_its_networks_differ_in_the_loss_alone(size):
    made = config(size)
    of = settings(made)
    assert made.size == size and made.training.loss == "cross_entropy" and made.training.batch_size == 10
    offline, online = (of.of_run(network).to_dict() for network in NETWORKS)
    assert (offline["training"].pop("ability_weight"), online["training"].pop("ability_weight")) == (0.0, 1.0)
    assert offline == online


def test_volumes_are_refused(tmp_path):
    class Volumes:
        rank = 3

    with pytest.raises(InputError, match="dermoscopy/tiny has volumes; this study is of pictures"):
        study.train_and_measure(settings(config()), Volumes(), tmp_path)


def test_the_paper_s_network_has_18_layers_and_its_groups():
    made = settings(config("paper"))
    assert len(made.layers) == 18
    groups = {name: [i + 1 for i in members] for name, members in made.layer_groups.items()}
    assert groups == {"early": [1, 2, 3, 4], "abstract": list(range(5, 15)), "late": [15, 16, 17, 18]}
    with pytest.raises(ValueError, match="unknown size 'huge'; choose one of paper, cpu, demo, tiny"):
        config("huge")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"online_weight": 0.0},
            "config.online_weight is 0.0; it must be above 0",
        ),
        ({"training.ability_weight": 1.0}, "ability_weight is 1.0; it must be 0, as the networks differ in it"),
        ({"replicas": 2}, "config.replicas is 2; it must be at least 1 and at most 1"),
        ({"model.norm": "group"}, "config.model must be a unet of at least two poolings without group norm"),
        ({"model.features": (4, 8), "model.skips": (True,)}, "at least two poolings"),
        ({"model.padding": "valid"}, "padding='valid' cover more than the image"),
        ({"evaluation.noise_levels": (0.1, 0.1)}, "config.evaluation.noise_levels is .0.1, 0.1.; give numbers above 0"),
        ({"evaluation.noise_levels": (1.5,)}, "up to 1, once"),
        ({"evaluation.coverages": (0.0, 1.0)}, "config.evaluation.coverages"),
        ({"evaluation.inert_below": 0.3}, "inert_below is 0.3; it must be one of inert_sweep"),
        ({"evaluation.vog_every": 2}, "vog_every is 2 of 2 epochs; a variance needs two checkpoints"),
        (
            {"evaluation.vog_every": 3, "training.evaluate_every": 2},
            "must be a multiple of training.evaluate_every .2.",
        ),
        ({"evaluation.resamples": 0}, "config.evaluation.resamples is 0; it must be at least 1"),
        ({"training.batch_size": 0}, "config.training.batch_size is 0"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(fields, message):
    with pytest.raises(InputError, match=message):
        settings(config(**fields))


# ------------------------------------------------------------------------------------------------ numbers of a network


def test_a_unit_is_inert_by_its_score_over_the_cases():
    units = np.array([[0.9, 0.1, np.nan, 0.5], [0.7, 0.3, np.nan, np.nan]])
    dice = np.array([0.8, np.nan])
    # 0.8, 0.2, none, 0.5 to 0.48
    assert prototypes.active_units(units, dice, 0.6).tolist() == [True, False, False, True]
    assert prototypes.active_units(units, dice, 0.65).tolist() == [True, False, False, False]
    assert prototypes.active_units(units, dice, 2.0).tolist() == [True, False, False, False]  # the best stays
    assert prototypes.active_units(units, np.full(2, np.nan), 0.1).tolist() == [True, False, False, False]


@pytest.mark.parametrize("all_count", [True, False])
def test_scores_are_those_of_each_question_asked_by_itself(network, monkeypatch, all_count):
    model, variables = network
    stored, read, valid = cases(), pipeline.epoch, None
    if not all_count:
        valid = np.ones(stored.labels.shape, bool)
        valid[:, :, : valid.shape[2] // 4] = False
        told = lambda *args, **options: (batch | {"valid": valid[batch["index"]]} for batch in read(*args, **options))
        monkeypatch.setattr(pipeline, "epoch", told)
    means = np.linspace(0.1, 0.4, 4).astype(np.float32)
    keep = np.array([[True] * 4, [True, False, True, False], [False, True, False, False]])
    found = scores.examine(model, variables, stored, **WHERE, keep=keep, means=means)

    @jax.jit
    def reference(variables, batch):
        """The whole set as one batch."""
        seen = augment.whole(batch, size=SIZE)
        images, truth, valid = seen["images"], seen["labels"], seen.get("valid")
        inside = {"region": valid}
        counts = jnp.ones(truth.shape, bool) if valid is None else valid
        logits, layers = capture.capture(model, variables, images, model.numbered_layers)
        mask = jax.nn.softmax(logits)[..., 1]
        units = [prototypes.unit_sa_scores(layers[name], mask, truth, **inside) for name in model.numbered_layers[-2:]]
        own = (mask > 0.5).astype(jnp.int32)
        against_own = [
            prototypes.unit_sa_scores(layers[name], mask, own, **inside) for name in model.numbered_layers[-2:]
        ]
        dice = lambda logits: overlap.dice(truth, jnp.argmax(logits, -1), num_classes=2, valid=valid)[:, 0]
        held = lambda kept: capture.replace(model, variables, images, {LAST_LAYER: lambda x: jnp.where(kept, x, means)})
        return {
            "sa": jnp.stack(
                [prototypes.sa_score(layers[name], mask, truth, **inside) for name in model.numbered_layers], 1
            ),
            "units": units[-1],
            "unit_means": layers[LAST_LAYER].mean((1, 2), where=counts[..., None]),
            "dice": dice(logits),
            "mean_sa": jnp.nanmean(jnp.concatenate(against_own, 1), 1),
            "separableness": prototypes.sa_score(images, mask, truth, **inside),
            "masked_dice": jax.lax.map(lambda kept: dice(held(kept)), jnp.asarray(keep)).T,
        }

    whole = {"image": stored.images, "labels": stored.labels} | ({} if valid is None else {"valid": valid})
    expected = reference(variables, whole)
    assert found["sa"].shape == (10, 10) and found["masked_dice"].shape == (10, 3)
    for name, value in expected.items():
        # a pixel at the edge of two prototypes may fall to the other side in a batch of another size
        np.testing.assert_allclose(found[name], value, atol=0.02, err_msg=name)
    np.testing.assert_allclose(found["gain"], found["dice"] - found["separableness"], atol=1e-6)
    np.testing.assert_allclose(found["masked_dice"][:, 0], found["dice"], atol=1e-6)
    assert np.nanmean(found["dice"]) > 0.05 and np.ptp(found["masked_dice"], axis=1).max() > 0.05


def test_the_network_without_units_is_the_one_that_holds_them(network):
    model, variables = network
    stored = cases(6)
    keep, means = np.array([True, False, True, False]), np.array([0.3, 0.2, 0.1, 0.4], np.float32)
    held = scores.examine(model, variables, stored, **WHERE, keep=np.stack([keep] * 3), means=means)["masked_dice"][
        :, 0
    ]
    narrow, pruned = prune_last_layer(model, variables, keep, means)
    np.testing.assert_allclose(scores.output_dice(narrow, pruned, stored, **WHERE), held, atol=0.01)
    cost = scores.cost([(model, variables), (narrow, pruned)], (1, SIZE, SIZE, 3), rounds=1)
    assert cost["parameters"][0] - cost["parameters"][1] == 2 * (9 * 4 + 2 + 2)
    # twice the products: per pixel 9 x 4 of the convolution (fewer at the border) and 2 of the head, for two units
    products = 2 * 2 * 4 * (3 * SIZE - 2) ** 2 + 2 * 2 * 2 * SIZE**2
    assert 0 < cost["flops"][0] - cost["flops"][1] - products < 0.2 * products
    assert (cost["seconds"] > 0).all()


def test_noise_of_a_case_depends_on_neither_network_nor_batch(network):
    model, variables = network
    stored = cases(6)
    found = scores.noisy_abilities(model, variables, stored, **WHERE, levels=(0.7,), seed=3)
    clean = scores.examine(model, variables, stored, **WHERE, keep=np.ones((3, 4), bool), means=np.zeros(4))["sa"]

    @jax.jit
    def difference(variables, image, labels):
        seen = augment.whole({"image": image, "labels": labels}, size=SIZE)
        noisy = shifts.uniform_noise(jax.random.fold_in(jax.random.key(3), 0), seen["images"], 0.7)
        both = jnp.concatenate([noisy, seen["images"]])  # the network takes them as one batch
        logits, layers = capture.capture(model, variables, both, model.numbered_layers)
        noisy_mask, mask = jnp.split(jax.nn.softmax(logits)[..., 1], 2)
        halves = [jnp.split(layers[name], 2) for name in model.numbered_layers]
        differences = [
            prototypes.sa_difference(noisy, noisy_mask, clean, mask, seen["labels"]) for noisy, clean in halves
        ]
        return jnp.stack(differences, 1)

    np.testing.assert_allclose(found[:, 0] - clean, difference(variables, stored.images, stored.labels), atol=0.03)


def test_noise_is_a_share_of_the_gray_levels_in_any_units():
    stored, units = cases(4), MeanStd(mean=(100, 90, 80), std=(50, 60, 40))
    scales = np.stack([np.stack(units.scale(image)) for image in stored.images])
    spoil, index = scores._spoiler(SIZE, 0.3), np.arange(4, dtype=np.int32)
    batch = {"image": stored.images, "labels": stored.labels, "index": index}
    gray, *_ = spoil(jax.random.key(3), batch, None)
    other, *_ = spoil(jax.random.key(3), batch | {"image": np.stack([units(one) for one in stored.images])}, scales)
    found, wanted = (np.asarray(images, float) for images in (other, gray))
    np.testing.assert_allclose(found * units.std + units.mean, (wanted + 1) * 127.5, atol=0.1)


def test_the_variance_of_gradients_is_that_of_all_checkpoints_at_once(network):
    model, variables = network
    stored = cases(5)
    checkpoints = [variables, drawn(model, 1), drawn(model, 2)]
    made = [of_linen(model, one, image_size=SIZE, channels=stored.num_channels) for one in checkpoints]
    found = difficulty.variance_of_gradients(made, stored, **WHERE)

    @jax.jit
    def at_once(checkpoints, image, labels):
        images = augment.whole({"image": image, "labels": labels}, size=SIZE)["images"]
        gradients = lambda variables: vog.input_gradients(lambda x: model.apply(variables, x), images)
        return vog.variance_of_gradients(jax.lax.map(gradients, checkpoints))

    stacked = jax.tree.map(lambda *values: np.stack(values), *checkpoints)
    np.testing.assert_allclose(found, at_once(stacked, stored.images, stored.labels), rtol=1e-3)


# -------------------------------------------------------------------------------------------------------------- tables


def fake_measures(
    made, seed=0, *, late=0.8, dice=0.8, sa_follows=1.0, vog_follows=0.0, noise=0.1, active=1, pruned=0.0, n=40
):
    """Measures of a network whose layers but the late ones have an ability of 0.5, with a difficulty per case."""
    random = np.random.default_rng(seed)
    hard = np.linspace(-0.15, 0.15, n)
    jitter = lambda *shape: random.normal(0, 0.01, shape)
    groups, layers = made.layer_groups, len(made.layers)
    level = np.full(layers, 0.5)
    level[list(groups["late"][1:])] = late  # the first of them is the decoder's first, in a network this small
    loss = np.zeros(layers)
    loss[[*groups["early"], *groups["late"]]] = noise
    keep = np.zeros((len(made.evaluation.inert_sweep), 4), bool)
    keep[:, :active] = True
    sa, own = level + jitter(n, layers), dice - hard + jitter(n)
    return {
        "sa": sa,
        "dice": own,
        "gain": own - 0.6,
        "separableness": np.full(n, 0.6) + jitter(n),
        "mean_sa": 0.6 - sa_follows * hard + jitter(n),
        "vog": 2.0 + vog_follows * hard + jitter(n),
        "units": np.linspace(0.9, 0.2, 4) + jitter(n, 4),
        "masked_dice": np.repeat(own[:, None], len(keep), 1) + pruned,
        "pruned_dice": own + pruned,
        "noise_sa": (sa - loss)[:, None] + jitter(n, len(made.evaluation.noise_levels), 1),
        "validation_units": np.where(np.arange(4) < active, 0.8, 0.1) + jitter(n, 4),
        "validation_output": np.full(n, 0.8),
        "keep": keep,
        "parameters": np.array([100, 100 - 8 * (4 - active)]),
        "flops": np.array([1000.0, 700.0]),
        "seconds": np.array([0.01, 0.008]),
        "vog_checkpoints": np.array(2),
        "step": np.array(8),
        "validation_dice": np.array(0.8),
    }


def tabulated(offline=None, online=None):
    made = settings(config(**{"evaluation.resamples": 40}))  # the made-up numbers lie far from every edge
    measured = {
        network: fake_measures(made, seed, **(fields or {}))
        for seed, (network, fields) in enumerate({"offline": offline, "online": online}.items())
    }
    splits = {name: cases(40) for name in base.SPLITS}
    return made, study_tables.tabulate(made, splits, study.Measured(measured, {})), measured


AS_IN_THE_PAPER = {"late": 0.85, "dice": 0.805, "active": 2}


def answers(offline=None, online=None):
    return _answers(*(tuple(sorted((fields or {}).items())) for fields in (offline, online)))


@functools.cache  # a few claims are asked of the same networks
def _answers(offline, online):
    _, tables, _ = tabulated(dict(offline), AS_IN_THE_PAPER | dict(online))
    found = claimed.claims(tables)
    return {(claim.of["network"], claim.claim): claim.answer for claim in found}, claimed.verdict(found)


def test_every_claim_holds_where_the_numbers_are_as_in_the_paper():
    found, verdict = answers()
    assert set(found.values()) == {claimed.HOLDS}
    assert {claim for _, claim in found} == {
        claimed.LATE, claimed.RISE, claimed.RAISED, claimed.RAISED_LAST, claimed.NO_COST, claimed.OVER_OUTPUT,
        claimed.ORDERS, claimed.BEATS_VOG, claimed.COVERAGE, claimed.GAIN, claimed.EARLY_NOISE, claimed.LATE_NOISE,
        claimed.FEW_ACTIVE, claimed.PRUNE,
    }  # fmt: skip
    assert verdict.verdict == "yes"


@pytest.mark.parametrize(
    ("online", "claim", "answer"),
    [
        ({"late": 0.4}, claimed.LATE, claimed.FAILS),
        ({"late": 0.5}, claimed.LATE, claimed.UNCLEAR),
        ({"late": 0.4}, claimed.RISE, claimed.FAILS),
        ({"late": 0.7}, claimed.RAISED, claimed.FAILS),
        ({"late": 0.8}, claimed.RAISED_LAST, claimed.UNCLEAR),
        ({"dice": 0.785}, claimed.NO_COST, claimed.HOLDS),  # a loss of 0.015 is within the margin
        ({"dice": 0.78}, claimed.NO_COST, claimed.UNCLEAR),
        ({"dice": 0.7}, claimed.NO_COST, claimed.FAILS),
        ({"dice": 0.9}, claimed.OVER_OUTPUT, claimed.FAILS),
        ({"sa_follows": -1.0}, claimed.ORDERS, claimed.FAILS),
        ({"sa_follows": 0.0}, claimed.ORDERS, claimed.UNCLEAR),
        ({"vog_follows": 1.0}, claimed.BEATS_VOG, claimed.UNCLEAR),
        ({"sa_follows": 0.02, "vog_follows": 1.0}, claimed.BEATS_VOG, claimed.FAILS),
        ({"sa_follows": -1.0}, claimed.COVERAGE, claimed.FAILS),
        ({"dice": 0.4}, claimed.GAIN, claimed.FAILS),
        ({"noise": -0.1}, claimed.EARLY_NOISE, claimed.FAILS),
        ({"noise": -0.1}, claimed.LATE_NOISE, claimed.FAILS),
        ({"active": 3}, claimed.FEW_ACTIVE, claimed.FAILS),
        ({"active": 4}, claimed.PRUNE, claimed.UNCLEAR),  # nothing to take out
        ({"pruned": -0.005}, claimed.PRUNE, claimed.HOLDS),
        ({"pruned": -0.05}, claimed.PRUNE, claimed.FAILS),
    ],
)
def test_each_claim_follows_its_interval(online, claim, answer):
    found, _ = answers(online=online)
    network = study_tables.BOTH if (study_tables.BOTH, claim) in found else "online"
    assert found[network, claim] == answer


@pytest.mark.parametrize(
    ("name", "claim", "low", "high", "expected"),
    [
        ("differences", claimed.NO_COST, -0.02, 0.1, claimed.UNCLEAR),
        ("differences", claimed.NO_COST, -0.019, 0.1, claimed.HOLDS),
        ("differences", claimed.NO_COST, -0.1, -0.02, claimed.FAILS),
        ("differences", claimed.RAISED, 0.0, 0.1, claimed.UNCLEAR),
        ("differences", claimed.RAISED, -0.1, 0.0, claimed.FAILS),
        ("active", claimed.FEW_ACTIVE, 0.2, 0.5, claimed.HOLDS),
        ("active", claimed.FEW_ACTIVE, 0.5, 0.7, claimed.UNCLEAR),
        ("active", claimed.FEW_ACTIVE, 0.51, 0.7, claimed.FAILS),
        ("pruning", claimed.PRUNE, -0.01, 0.1, claimed.UNCLEAR),
        ("noise_groups", claimed.EARLY_NOISE, -0.1, 0.0, claimed.UNCLEAR),
        ("noise_groups", claimed.EARLY_NOISE, 0.0, 0.1, claimed.FAILS),
    ],
)
def test_an_interval_that_ends_on_the_bound(name, claim, low, high, expected):
    _, tables, _ = tabulated({}, AS_IN_THE_PAPER)
    rows = tuple(
        dataclasses.replace(row, estimate=dataclasses.replace(row.estimate, low=low, high=high))
        for row in getattr(tables, name)
    )
    found = claimed.claims(dataclasses.replace(tables, **{name: table.table(rows)}))
    assert {one.answer for one in found if one.claim == claim} == {expected}


def test_the_verdict_counts_the_core_claims():
    assert answers(online={"dice": 0.7})[1].verdict == "partly"
    worst = {"late": 0.4, "dice": 0.7, "sa_follows": -1.0}
    assert answers(offline={"late": 0.45}, online=worst | {"vog_follows": 1.0})[1].verdict == "no"
    unclear = {"late": 0.5, "dice": 0.78, "sa_follows": 0.0}
    assert answers(offline={"late": 0.5}, online=unclear)[1].verdict == "unclear"


def test_sentences_say_the_numbers_of_the_tables():
    _, tables, _ = tabulated({}, AS_IN_THE_PAPER)
    found = {(claim.of["network"], claim.claim): claim.sentence for claim in claimed.claims(tables)}
    mean, low, high = tables.differences.one(network=study_tables.BOTH, quantity=study_tables.OUTPUT).numbers
    assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in found[study_tables.BOTH, claimed.NO_COST]
    assert found["online", claimed.PRUNE].startswith("2 of 4 units taken out (84 instead of 100 parameters, 70% of")
    noise = next(iter(tables.noise_groups.where(network="online", noise="all"))).estimate
    assert f"{-noise.mean:.3f} [{-noise.high:.3f}" in found["online", claimed.EARLY_NOISE]


def test_tables_are_means_of_the_cases_and_have_the_paper_s_numbers():
    made, tables, measured = tabulated({}, AS_IN_THE_PAPER)
    for row in tables.performance:
        name = "dice" if row["segmentation"] == "output" else f"sa_{len(made.layers)}"
        values = [case[name] for case in tables.cases if case["network"] == row["network"]]
        assert row.estimate.mean == pytest.approx(np.mean(values)) and row["std"] == pytest.approx(np.std(values))
        assert row.estimate.low < row.estimate.mean < row.estimate.high and row.estimate.n == 40
    paper = {(r["network"], r["segmentation"]): (r["paper"], r["paper_std"]) for r in tables.performance}
    assert paper["online", "last layer"] == (0.8445, 0.16)
    assert {r["coverage"]: r["paper"] for r in tables.coverage if r["paper"]} == {
        1.0: 0.8353, 0.9: 0.8457, 0.7: 0.8421, 0.5: 0.8551
    }  # fmt: skip
    assert [r["paper"] for r in tables.separableness if r["network"] == "online"] == [0.667, 0.835, 0.168]
    differences = {(r["network"], r["quantity"]): r for r in tables.differences}
    assert differences["online", study_tables.OVER_OUTPUT]["paper"] == pytest.approx(0.0092)
    assert differences["online", study_tables.LATE].estimate.mean == pytest.approx(0.75 * 0.35, abs=0.01)
    assert differences["online", study_tables.RISE].estimate.mean == pytest.approx(0.35, abs=0.01)
    for field in ("layers", "units", "pruning", "quality", "buckets", "coverage_gains", "noise", "noise_groups"):
        rows = getattr(tables, field)
        assert len(rows) and all(row.convention and row.interval for row in rows)
    change = measured["online"]["noise_sa"][:, 1, 2] - measured["online"]["sa"][:, 2]
    row = next(r for r in tables.noise if (r["network"], r["noise"], r["layer"]) == ("online", 1.0, 3))
    assert row.estimate.mean == pytest.approx(change.mean())
    units = [r for r in tables.units if r["network"] == "online"]
    assert [r["unit"] for r in units] == [3, 2, 1, 0] and [r["active"] for r in units] == [False, False, True, True]


def test_quality_is_a_slow_count_of_the_kept_cases():
    _, tables, measured = tabulated({}, {"vog_follows": 1.0})
    m = measured["online"]
    for score, order in ((quality.MEAN_SA, np.argsort(-m["mean_sa"])), (quality.VOG, np.argsort(m["vog"]))):
        for row in (r for r in tables.coverage_gains if (r["network"], r["score"]) == ("online", score)):
            kept = order[: int(np.ceil(row["coverage"] * 40))]
            assert row.estimate.mean == pytest.approx(m["dice"][kept].mean() - m["dice"].mean())
            assert row.estimate.low <= row.estimate.mean <= row.estimate.high and row.estimate.mean > 0
    buckets = [r for r in tables.buckets if (r["network"], r["score"]) == ("online", quality.VOG)]
    parts = np.argsort(m["vog"]).reshape(4, 10)
    assert [r.estimate.mean for r in buckets] == pytest.approx([m["dice"][part].mean() for part in parts])
    assert [r["up_to_percentile"] for r in buckets] == [25, 50, 75, 100]
    assert np.isnan(ranking.kept_gain(np.zeros(0), np.zeros(0), coverage=0.5))


@pytest.mark.parametrize("coverage", [0.07, 0.29, 0.5, 0.57, 0.58])
def test_a_share_of_all_cases_is_not_rounded_up_by_the_way_numbers_are_stored(coverage):
    """0.07 * 100 is 7.000000000000001: 7 cases are kept."""
    dice = np.random.default_rng(0).random(100)
    found = ranking.kept_gain(np.arange(100.0), dice, coverage=coverage)
    assert found == pytest.approx(dice[: round(100 * coverage)].mean() - dice.mean())


def test_cases_without_a_score_are_left_out_and_counted():
    made = settings(config())
    measured = {name: fake_measures(made) for name in NETWORKS}
    measured["online"]["mean_sa"][:3] = np.nan
    measured["online"]["sa"][5] = np.nan
    splits = {name: cases(40) for name in base.SPLITS}
    tables = study_tables.tabulate(made, splits, study.Measured(measured, {}))
    row = next(r for r in tables.quality if (r["network"], r["score"]) == ("online", quality.MEAN_SA))
    assert (row.estimate.n, row.estimate.undefined) == (37, 3)
    assert sum(r.estimate.n for r in tables.buckets if (r["network"], r["score"]) == ("online", quality.MEAN_SA)) == 37
    assert {r.estimate.undefined for r in tables.layers if r["network"] == "online"} == {1}


def test_shown_cases_stand_at_even_quantiles():
    values = np.array([5, np.nan, 1, 4, 2, 3, np.nan])
    assert study.quantiles(values, 2) == [4, 3]  # the second and the fourth of five
    assert study.quantiles(values, 9) == [2, 4, 5, 3, 0]
    assert study.quantiles(np.full(3, np.nan), 2) == [0, 2]  # any


# -------------------------------------------------------------------------------------------------- from config to page


def test_a_painted_case_shows_mask_and_annotation():
    image, mask = np.full((16, 16, 3), 100, np.uint8), np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1
    shown = study_figures.painted(image, mask, mask, "#0072B2")
    assert shown.shape == (256, 256, 3) and (shown[5, 5] == 100).all()
    np.testing.assert_allclose(shown[128, 128], 0.55 * 100 + 0.45 * np.array([0, 114, 178]), atol=1)
    assert (shown[64, 128] == 255).all()  # the annotation's outline lies on that of the mask
    assert (study_figures.painted(image, mask, None, "")[128, 128] == 100).all()


def shown_cases(made, side=12):
    """What figures show of five cases, made up: images, and a disc for every mask."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    disc = lambda i: np.hypot(x - 4, y - 3 - i % 6) < 3
    shown = {"examples": np.array([3, 30]), "ranked": np.array([1, 20, 39]), "separable": np.array([0, 5, 9])}
    for k, network in enumerate(NETWORKS):
        heat = random.random((8, side, side))
        heat[:, :3, 8:] = np.nan
        shown[f"{network}_seen"] = random.integers(0, 256, (8, side, side, 3), dtype=np.uint8)
        shown[f"{network}_annotation"] = np.stack([disc(i) for i in range(8)])
        shown[f"{network}_maps"] = np.stack(
            [np.stack([disc(i + j + k) for j in range(len(made.layers))]) for i in range(8)]
        )
        shown[f"{network}_heat"] = heat
        shown[f"{network}_output"] = np.stack([disc(i + 1 + k) for i in range(8)])
        shown[f"{network}_colour_map"] = np.stack([disc(i + 2) for i in range(8)])
    return shown


def test_a_report_of_made_up_measures_stays_as_it_is(assert_stays):
    cfg = config(**{"evaluation.resamples": 20})
    made = settings(cfg)
    measured = {
        "offline": fake_measures(made, 0, active=3, vog_follows=0.5),
        "online": fake_measures(made, 1, **AS_IN_THE_PAPER),
    }
    measured["online"]["validation_output"][3] = np.nan
    measured["offline"]["mean_sa"][:2] = np.nan
    splits = {name: cases(40) for name in base.SPLITS}
    assert_stays("segmentation_ability", STUDY, made, splits, study.Measured(measured, shown_cases(made)), cfg)


@pytest.fixture
def untrained(monkeypatch):
    """Networks as they are drawn, in place of trained ones, on cases that are made up."""

    def load_best(run, folder, shape, num_classes):
        model = checks.build_model(run, num_classes)
        return model, drawn(model, NETWORKS.index(folder.name)), {"step": 8, "validation_dice": 0.5}

    class Splits(dict):
        num_classes, rank = 2, 2

        def __init__(self, *_, **__):
            super().__init__({name: cases(10 if name != "test" else 12, seed=i) for i, name in enumerate(base.SPLITS)})

        def open(self, split):
            return self[split]

    monkeypatch.setattr(study.runs, "train", lambda run, splits, folder, **_: folder.mkdir(parents=True))
    monkeypatch.setattr(study.runs, "load_best", load_best)
    kept = lambda folder, like, every: {8: like, 4: jax.tree.map(lambda x: 0.5 * x, like)}
    monkeypatch.setattr(study.runs, "restore_kept", kept)
    monkeypatch.setattr(study.runs, "Splits", Splits)
    monkeypatch.setattr(base.builders, "prepare", lambda *_, **__: pathlib.Path("nowhere"))


def run(cfg, tmp_path):
    places = {"workdir": tmp_path / "work", "data_dir": tmp_path, "manual_dir": None}
    page = runner.run(cfg, **places, command="python -m launch.study")
    return page, json.loads((tmp_path / "work" / "results.json").read_text())


def test_a_study_ends_with_tables_figures_and_a_page_that_agree(untrained, tmp_path, monkeypatch):
    changed = {"data.residence": "device", "data.image_size": SIZE, "training.batch_size": 4}
    cfg = config(**changed, **{"evaluation.inert_sweep": (0.7, 0.8, 0.9)})
    page, results = run(cfg, tmp_path)
    text = page.read_text()
    [verdict] = results["verdicts"]
    for sentence in (verdict["sentence"], *(claim["sentence"] for claim in results["claims"])):
        assert sentence.replace("'", "&#39;") in text
    assert len(results["noise"]) == 2 * 2 * 10 and len(results["cases"]) == 2 * 12
    assert {path.stem for path in (tmp_path / "work" / "figures").iterdir()} == {
        "layers", "maps_0", "maps_1", "heat", "units", "pruning", "quality", "buckets", "coverage", "ranked",
        "separable", "separableness", "noise",
    }  # fmt: skip
    for name in ("performance", "differences", "coverage_gains", "pruning"):
        with (tmp_path / "work" / "tables" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["mean"]) for row in rows] == pytest.approx([r["mean"] for r in results[name]], rel=1e-5)
    rows = {(r["network"], r["quantity"]): r for r in results["differences"]}
    core = next(c for c in results["claims"] if c["claim"] == claimed.NO_COST)
    mean, low, high = (rows[study_tables.BOTH, study_tables.OUTPUT][name] for name in ("mean", "low", "high"))
    assert f"{mean:z.3f} [{low:z.3f}, {high:z.3f}]" in core["sentence"]
    # a second call trains and measures nothing again
    monkeypatch.setattr(study.runs, "train", lambda *_, **__: None)
    monkeypatch.setattr(study, "measure", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(study.scores, "explain", lambda *_, **__: pytest.fail("shown again"))
    monkeypatch.setattr(study_figures, "draw", lambda *_: None)  # the figures are there
    repeated = run(cfg, tmp_path)[1]
    assert {**repeated, "provenance": None} == {**results, "provenance": None}


@pytest.mark.slow
def test_trained_networks_leave_the_checkpoints_of_the_variance(tmp_path):
    cfg = config()
    with jax.numpy_dtype_promotion("standard"):
        _, results = run(cfg, tmp_path)
    assert [row["best_step"] in (4, 8) for row in results["training"]] == [True, True]
    assert "VoG: over 2 checkpoints" in next(r for r in results["quality"] if r["score"] == quality.VOG)["convention"]
    assert {row["ability_weight"] for row in results["training"]} == {0.0, 1.0}
