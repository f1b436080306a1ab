"""The distortion study: which cases, which numbers, which verdict; and once from config to report page."""

import dataclasses
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxseg import models
from jaxseg.analysis import mahalanobis, prototypes
from jaxseg.data import builders, pipeline
from jaxseg.data.normalisation import MeanStd
from jaxseg.errors import InputError
from jaxseg.metrics import domain_ranking, overlap
from jaxseg.metrics.domain_ranking import MEAN, TOGETHER
from jaxseg.metrics.intervals import Estimate
from jaxseg.models import autoencoder, capture
from jaxseg.networks import of_linen
from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR
from jaxseg.results.table import Row
from jaxseg.scores.evidence import Asked, Known
from jaxseg.studies import runner
from jaxseg.studies.base import Data
from jaxseg.studies.distortion import claims, experiment, tables
from jaxseg.studies.distortion.cases import Cases, Gathered, gather, match_classes
from jaxseg.studies.distortion.settings import UNITS, known, settings
from jaxseg.studies.distortion.study import STUDY
from jaxseg.training import runs

ROOT = pathlib.Path(__file__).parents[2]
SIZES = ("tiny", "demo", "cpu", "cpu,lgg", "paper", "paper,mnms")
HEART = ("background", "right ventricle", "myocardium", "left ventricle")


def config(size="tiny"):
    spec = importlib.util.spec_from_file_location("distortion_config", ROOT / "configs" / "distortion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(size)


# --------------------------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize("size", SIZES)
def test_every_size_can_be_run(size):
    settings(config(size))


def test_the_paper_sizes_have_the_papers_numbers():
    brain, heart = config("paper"), config("paper,mnms")
    for each in (brain, heart):
        assert (each.replicas, each.evaluation.ensemble_size, each.evaluation.keep) == (10, 5, 0.95)
        assert (each.training.optimizer, each.training.learning_rate) == ("adam", 1e-3)
        assert each.model.name == "residual_unet" and each.evaluation.unit == "subject"
    assert (brain.autoencoder.latent, heart.autoencoder.latent) == (64, 128)
    assert brain.data.augmentation.rotate == 0 and heart.data.augmentation.rotate > 0


def test_unknown_sizes_are_named():
    with pytest.raises(ValueError, match="unknown size 'demo,lgg'; choose one of paper; paper,mnms; cpu"):
        config("demo,lgg")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.domains", (), "none is out-of-distribution; name those to train on"),
        ("data.view", "quadrant", "the study is of 'original' alone"),
        ("data.folds", 5, "config.data.folds is 5"),
        ("vary", "fold", "config.vary is 'fold'|config.replicas is 2; to vary the fold"),
        ("shifted.classes", "colour", "config.shifted.classes is 'colour'; choose one of name, order"),
        ("shifted.splits", (), "config.shifted.splits is empty"),
        ("shifted.domain_words", -1, "domain_words is -1; it must be at least 0"),
        ("layer", "down_9", r"config.layer names no layer \['down_9'\]; the network has"),
        ("evaluation.ability_layers", ("up_7",), "ability_layers names no layer"),
        ("evaluation.unit", "voxel", "choose one of slice, subject"),
        ("evaluation.ensemble_size", 1, "ensemble_size is 1; it must be at least 2"),
        ("evaluation.least_patients", 1, "least_patients is 1; it must be at least 2"),
        ("evaluation.resamples", 0, "resamples is 0"),
        ("evaluation.keep", 1.5, "config.evaluation.keep is 1.5; it must be above 0 and at most 1"),
        ("evaluation.vog_every", 0, "config.evaluation.vog_every is 0"),
        ("evaluation.vog_every", 2, "config.evaluation.vog_every is 2 of 2 epochs; a variance needs two checkpoints"),
        ("autoencoder_training.epochs", 0, "config.training.epochs is 0"),
        ("replicas", 0, "config.replicas is 0"),
        ("model.name", "vnet", "unknown network 'vnet'"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    broken = config()
    broken.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
        settings(broken)


@pytest.mark.parametrize("name", ["shifted", "evaluation", "layer", "autoencoder", "autoencoder_training", "training"])
def test_what_is_missing_is_named(name):
    broken = config().unlock()
    del broken[name]
    with pytest.raises(InputError, match=rf"config.{name}[a-z_.]* is missing; configs/[a-z]+.py shows every field"):
        settings(broken.lock())


def test_raw_files_may_move_and_nothing_else():
    moved = config()
    moved.shifted.manual_dir = "/elsewhere"
    assert known(moved) == known(config())
    moved.shifted.dataset = "folder/other"
    assert known(moved) != known(config())


# ---------------------------------------------------------------------------------------------------------------- cases


def test_classes_are_matched_by_name_or_by_order():
    by_name = match_classes(HEART, ("background", "left ventricle", "right ventricle"), "name", "other/test")
    np.testing.assert_array_equal(by_name, [0, 3, 1])
    unnamed = ("background", "class 1", "class 2")
    np.testing.assert_array_equal(match_classes(HEART, unnamed, "order", "other/test"), [0, 1, 2])
    as_many = match_classes(HEART[:3], unnamed, "order", "other/test")
    np.testing.assert_array_equal(as_many, [0, 1, 2])
    with pytest.raises(InputError, match=r"other/test has the class 'class 1'.*classes.csv.*'order'"):
        match_classes(HEART, unnamed, "name", "other/test")
    with pytest.raises(InputError, match=r"has 3 classes, the network 2 \(background, brain\)"):
        match_classes(("background", "brain"), unnamed, "order", "other/test")


def write_folder(folder, patients, domain_of, class_names=None, channels=1):
    """A folder data set of squares, three slices a patient."""
    from PIL import Image

    folder.mkdir()
    lines = ["case,image,mask,domain,patient"]
    random = np.random.default_rng(0)
    for patient in range(patients):
        for z in range(3):
            case = f"p{patient}_{z}"
            mask = np.zeros((16, 16), np.uint8)
            mask[4 : 8 + z, 5:9] = 1 + z % 2
            shape = (16, 16) if channels == 1 else (16, 16, channels)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{case}.png")
            Image.fromarray(mask).save(folder / f"{case}_mask.png")
            lines.append(f"{case},{case}.png,{case}_mask.png,{domain_of(patient)},p{patient}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    if class_names:
        rows = [f"{value},{name}" for value, name in enumerate(class_names)]
        (folder / "classes.csv").write_text("\n".join(["value,name", *rows]) + "\n")
    return folder


def gathered(tmp_path, own, other=None, **shifted):
    """Cases of a study whose data sets are folders."""
    data = tmp_path / "data"
    cfg = config()
    cfg.data.dataset, cfg.data.domains, cfg.data.source_size = "folder/own", () if other else ("GE",), 16
    if other:
        cfg.shifted.update(dataset="folder/other", manual_dir=str(other), splits=("train", "validation", "test"))
    cfg.shifted.update(shifted)
    cfg.training.batch_size = cfg.autoencoder_training.batch_size = 4
    splits, cases = gather(settings(cfg), Data(data, str(own)))
    return cases, splits


def test_shifted_cases_are_those_of_other_domains_of_the_same_data(tmp_path):
    own = write_folder(tmp_path / "own", 20, lambda i: ("GE", "Siemens 3 T", "Siemens 1.5 T")[i % 3])
    splits_of = {"splits": ("train", "validation", "test")}
    cases, splits = gathered(tmp_path, own, **splits_of)
    domains = cases.by_domain(3)
    assert domains.names == ("GE (validation)", "GE (test)", "Siemens 1.5 T", "Siemens 3 T")
    assert domains.counted == cases.of_role("shifted") == ("Siemens 1.5 T", "Siemens 3 T")
    assert (domains.validation, domains.inside) == ("GE (validation)", "GE (test)")
    counts = {name: int((cases.domains == name).sum()) for name in domains.names}
    assert (
        counts["Siemens 1.5 T"] == counts["Siemens 3 T"] - 3 == 18
    )  # all patients of those scanners, three slices each
    assert counts["GE (validation)"] == len(splits["validation"]) and counts["GE (test)"] == len(splits["test"])
    assert not set(cases.patients) & set(splits["train"].patients)
    merged, _ = gathered(tmp_path, own, domain_words=1, **splits_of)
    assert merged.by_domain(3).names == ("GE (validation)", "GE (test)", "Siemens")


def test_a_patient_that_was_trained_on_is_no_shifted_one(tmp_path):
    own = write_folder(tmp_path / "own", 20, lambda i: "GE")
    table = (own / "cases.csv").read_text().splitlines()
    again = [line.replace(",GE,", ",Philips,").replace("_", "_again_", 1) for line in table[1:]]
    again = [
        ",".join((a.split(",")[0], *b.split(",")[1:3], *a.split(",")[3:]))
        for a, b in zip(again, table[1:], strict=True)
    ]
    (own / "cases.csv").write_text("\n".join(table + again) + "\n")
    with pytest.raises(InputError, match=r"has patients that were trained on, such as p\d+; give \('test',\)"):
        gathered(tmp_path, own, splits=("train", "test"))
    assert gathered(tmp_path, own, splits=("test",))[0].of_role("shifted") == ("Philips",)


def test_another_data_set_is_brought_to_the_networks_classes(tmp_path):
    own = write_folder(tmp_path / "own", 10, lambda i: "", ("background", "ring", "pool"))
    other = write_folder(tmp_path / "other", 4, lambda i: "", ("background", "pool", "ring"))
    cases, _ = gathered(tmp_path, own, other)
    assert cases.by_domain(3).names == ("folder (validation)", "folder (test)", "folder/other")
    np.testing.assert_array_equal(
        cases.annotated["folder/other"], [4, 8]
    )  # ring: one slice in three, the other way round
    assert all(p.startswith("folder/other: ") for p in cases.patients[cases.roles == "shifted"])
    by_order, _ = gathered(tmp_path, own, other, classes="order")
    np.testing.assert_array_equal(by_order.annotated["folder/other"], [8, 4])


def test_another_data_set_that_does_not_match_is_named(tmp_path):
    own = write_folder(tmp_path / "own", 10, lambda i: "", ("background", "ring", "pool"))
    other = write_folder(tmp_path / "other", 4, lambda i: "", ("background", "pool", "wall"))
    with pytest.raises(InputError, match=r"folder/other/train has the class 'wall', the network knows ring, pool"):
        gathered(tmp_path, own, other)
    (tmp_path / "data" / "folder" / "other").rename(tmp_path / "gone")
    colour = write_folder(tmp_path / "colour", 4, lambda i: "", channels=3)
    with pytest.raises(InputError, match="has 3 channels and rank 2, folder/own/train has 1 and 2"):
        gathered(tmp_path, own, colour, classes="order")
    few = write_folder(tmp_path / "few", 3, lambda i: ("x", "y")[i % 2])
    (tmp_path / "data" / "folder" / "other").rename(tmp_path / "gone three")
    with pytest.raises(InputError, match=r"no shifted domain \(x, y\) has 3 patients or more"):
        gathered(tmp_path, own, few, classes="order")
    with pytest.raises(InputError, match="has no other domain than GE"):
        own = write_folder(tmp_path / "lonely", 10, lambda i: "GE")
        (tmp_path / "data" / "folder" / "own").rename(tmp_path / "gone too")
        gathered(tmp_path, own)


def test_slices_of_another_scanner_lack_the_right_ventricle(tmp_path, real_data):
    """Real GE slices: nobody drew the right ventricle, and the myocardium in one of two domains alone."""
    own = write_folder(tmp_path / "own", 10, lambda i: "", HEART)
    cases, _ = gathered(tmp_path, own, real_data / "sunnybrook_ge", classes="order")
    shifted = cases.of_role("shifted")
    assert shifted == ("ge_lv_only", "ge_with_myo")
    assert [int((cases.domains == name).sum()) for name in shifted] == [50, 46]
    annotated = np.stack([cases.annotated[name] > 0 for name in shifted])
    np.testing.assert_array_equal(annotated, [[False, False, True], [False, True, True]])


# --------------------------------------------------------------------------------------------------------------- scores


def random_cases(count, seed):
    random = np.random.default_rng(seed)
    return pipeline.InMemory(
        "random",
        ("background", "ring", "pool"),
        random.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8),
        random.integers(0, 3, (count, 8, 8), dtype=np.uint8),
        *(tuple(f"{name}{i}" for i in range(count)) for name in "cpd"),
        np.full((count, 2), np.nan, np.float32),
    )


def test_scores_are_what_the_network_does_step_by_step(drawn_variables):
    """With numbers of cases that no batch divides, against the network taken apart by hand."""
    cfg = config()
    with cfg.unlocked():
        cfg.data.image_size, cfg.training.batch_size = 8, 4
    train, cases = random_cases(6, 0), random_cases(6, 1)
    network = models.build("unet", 3, features=(2, 4), skips=(True,))
    familiar, seen = (part.images.astype(np.float32) / 127.5 - 1.0 for part in (train, cases))
    members = [drawn_variables(network, seen, seed) for seed in range(2)]
    encode, decode = (functools.partial(network.apply, method=method) for method in ("encode", "decode"))
    bottleneck = jax.eval_shape(lambda images: encode(members[0], images)[0], seen)
    coder = autoencoder.for_activations(bottleneck, latent=3, width=4)
    coded = drawn_variables(coder, bottleneck, 9)
    made = dataclasses.replace(settings(config()), run=cfg)
    asked = Asked(cfg.evaluation.ability_layers, "bottleneck", coder)
    of_any = [of_linen(network, one, image_size=8, channels=seen.shape[-1]) for one in members]
    found = experiment.of_network(made, asked, Known((of_any[0],), coded), train, cases)

    @jax.jit
    def by_hand(members, coded, familiar, images):
        logits = jax.lax.map(lambda member: network.apply(member, images), members)
        first = jax.tree.map(lambda x: x[0], members)
        both, skips = encode(first, jnp.concatenate([images, familiar]))
        x, own = jnp.split(both, 2)
        skips = jax.tree.map(lambda skip: jnp.split(skip, 2)[0], skips)
        vectors = functools.partial(coder.apply, coded, method="encode")
        layers = capture.capture(network, first, images, tuple(cfg.evaluation.ability_layers))[1]
        return {
            "logits": logits,
            "after": decode(first, coder.apply(coded, x), skips),
            "pooled": mahalanobis.distance(mahalanobis.fit(own), x),
            "latent": mahalanobis.distance(mahalanobis.fit(vectors(own)), vectors(x)),
            "ability": prototypes.mean_sa_score(list(layers.values()), 1 - jax.nn.softmax(logits[0])[..., 0]),
        }

    parts = by_hand(jax.tree.map(lambda *values: np.stack(values), *members), coded, familiar, seen)
    before, after = parts["logits"][0], parts["after"]
    dice = jax.jit(functools.partial(overlap.dice, num_classes=3))
    labels, classes_of = cases.labels.astype(np.int32), lambda z: np.asarray(z).argmax(-1).astype(np.int32)
    softmax = lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    p, q = softmax(np.float64(before)), softmax(np.float64(after))
    np.testing.assert_allclose(found["distortion"], ((p - q) ** 2).mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found["entropy"], -(p * np.log(p)).sum(-1).mean((1, 2)), rtol=1e-4)
    for key, part in (("mahalanobis", "pooled"), ("latent_mahalanobis", "latent")):
        # near 0 a distance is a difference of larger numbers
        np.testing.assert_allclose(found[key], parts[part], rtol=2e-3, atol=1e-5)
    for key, logits in (("dice", before), ("dice_after", after)):
        np.testing.assert_allclose(found[key], dice(labels, classes_of(logits)), rtol=1e-6)
    np.testing.assert_allclose(found["mean_sa"], parts["ability"], rtol=1e-4)

    together = experiment.of_ensemble(made, of_any, cases)
    each = softmax(np.float64(parts["logits"]))
    mean, classes = each.mean(0), classes_of(each)
    np.testing.assert_allclose(together["ensemble_entropy"], -(mean * np.log(mean)).sum(-1).mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(together["dice"], dice(labels, classes_of(mean)), rtol=1e-6)
    of_pair = np.asarray(dice(classes[0], classes[1]))
    np.testing.assert_allclose(together["ensemble_dice"], np.nanmean(of_pair, 1), rtol=1e-5)


# --------------------------------------------------------------------------------------------------- tables and verdict


def fake_cases(patients=24, slices=3, unannotated=True):
    """Two foreign domains of the same patients; in one the second class is not annotated."""
    names = ("A (validation)", "A (test)", "B", "C")
    count = len(names) * patients * slices
    domain = np.repeat(names, patients * slices)
    patient = np.tile(np.repeat(np.arange(patients), slices), len(names))
    labels = np.zeros((count, 8, 8), np.uint8)
    labels[:, 2:4, 2:4], labels[:, 5:7, 5:7] = 1, 2
    if unannotated:
        labels[domain == "C", 5:7, 5:7] = 0
    roles = np.array([{"A (validation)": "validation", "A (test)": "test"}.get(d, "shifted") for d in domain])
    patients_ = np.array([f"{'v' if d == names[0] else 'p'}{p}" for d, p in zip(domain, patient, strict=True)])
    stored = pipeline.InMemory(
        "fake",
        ("background", "ring", "pool"),
        np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8),
        labels,
        tuple(f"case{i}" for i in range(count)),
        tuple(patients_),
        tuple(domain),
        np.full((count, 2), np.nan, np.float32),
    )
    return Cases(stored, roles, domain, patients_)


def fake_measured(cases, sd, pm, entropy, foreign_pm=3.0, networks=2, lost=0.01):
    """Scores that follow the risk as closely as they are told: 0 not at all, large exactly."""
    random = np.random.default_rng(0)
    count = len(cases.domains)
    difficulty = random.random(count)

    def follows(closeness, shift=0.0):
        noise = random.standard_normal(count)
        return (closeness * difficulty + noise + shift * (cases.roles == "shifted")).astype(np.float32)

    gradients = (difficulty + np.random.default_rng(1).standard_normal(count)).astype(np.float32)

    def network():
        dice = np.clip(1 - difficulty + 0.02 * random.standard_normal(count), 0, 1)
        both = np.stack([dice, dice], 1)
        both[cases.domains == "C", 1] = 0.0  # the network finds there what is not annotated
        both[::40, 0] = np.nan
        shared = {
            "distortion": follows(sd),
            "mahalanobis": follows(pm, foreign_pm),
            "latent_mahalanobis": follows(pm),
        }
        return {
            "dice": both,
            "dice_after": both - lost,
            **shared,
            "entropy": follows(entropy),
            "mean_sa": 1 - follows(1),
            "vog": gradients,
        }

    ensemble = {"dice": network()["dice"], "ensemble_entropy": follows(entropy), "ensemble_dice": 1 - follows(1)}
    training = tuple({"network": i, "convention": "none"} for i in range(networks))
    return experiment.Measured(tuple(network() for _ in range(networks)), (ensemble,), training)


def tabulated_of(cases, measured):
    cfg = config()
    cfg.evaluation.resamples = 30
    made = settings(cfg)
    return made, tables.tabulate(made, Gathered(None, cases), measured)


@functools.cache
def tabulated(**closeness):
    cases = fake_cases()
    made, found = tabulated_of(cases, fake_measured(cases, **closeness))
    return made, found, claims.claims(found)


@pytest.mark.parametrize(
    ("closeness", "expected"),
    [
        ({"sd": 20, "pm": 0, "entropy": 0}, "yes"),
        ({"sd": 20, "pm": 0, "entropy": 20}, "partly"),
        ({"sd": 0, "pm": 20, "entropy": 0}, "no"),
        ({"sd": 1.3, "pm": 1.0, "entropy": 1.0}, "unclear"),
    ],
)
def test_the_verdict_follows_the_intervals(closeness, expected):
    made, found, decided = tabulated(**closeness)
    answer = claims.verdict(made.evaluation.unit, found, decided)
    assert answer.verdict == expected
    assert answer.of["unit"] == made.evaluation.unit == "slice"
    answers = {claim.claim: claim.answer for claim in decided if claim.of["unit"] == "slice"}
    sides = answer.sentence.partition("(it is ")[2].partition(")")[0].split(", ")
    for score in ("PM", "LM", "entropy", "ensemble entropy"):
        words = {HOLDS: "above", FAILS: "not above", UNCLEAR: "undecided against"}
        said = words[answers[claims.predicts_better(score)]]
        assert [side for side in sides if score in side.removeprefix(said + " ").split(" and ")] == [
            side for side in sides if side.startswith(said + " ")
        ]
    detection = found.detection.where(quantity=tables.FLAGGED)
    for score, rows in (("SD", found.correlation), ("PM", found.correlation), ("PM", detection)):
        assert rows.one(unit="slice", domain=MEAN, score=score).text() in answer.sentence


def test_claims_agree_with_the_tables():
    _, found, decided = tabulated(sd=20, pm=0, entropy=0)
    of = {(claim.of["unit"], claim.claim): claim for claim in decided}
    assert len(of) == len(decided) == 2 * 5 + 1
    for unit in UNITS:
        differences = found.differences.where(unit=unit, domain=MEAN)
        correlation = lambda score, unit=unit: found.correlation.one(unit=unit, domain=MEAN, score=score).estimate.mean
        for score in ("PM", "LM", "entropy", "ensemble entropy"):
            row = of[unit, claims.predicts_better(score)].row
            assert row == differences.one(quantity=tables.CORRELATION, score=score)
            assert row.estimate.mean == pytest.approx(correlation("SD") - correlation(score))
        flags, row = of[unit, claims.FLAGS_MORE], differences.one(quantity=tables.FLAGGED, score="PM")
        assert flags.row.numbers == row.negative().numbers and flags.answer == HOLDS
        assert flags.row.convention == "PM minus SD: share above the threshold"
    lost = of["slice", claims.LOWERED]
    assert lost.row.estimate.mean == pytest.approx(0.01) and lost.answer == HOLDS
    for claim in decided:
        low, high = claim.row.numbers[1:]
        assert claim.answer == (HOLDS if low > 0 else FAILS if high < 0.05 else UNCLEAR) or claim == lost
        assert claim.record()["low"] == low and claim.row.text() in claim.sentence


def test_an_advantage_within_the_negligible_or_without_an_interval():
    def decide(low, high, least):
        row = Row({}, Estimate(0.01, low, high, 9, 0, 9), "mean")
        return claims._decided("", "slice", row, "", least).answer

    assert decide(-0.02, 0.04, 0.05) == FAILS
    assert decide(-0.02, 0.04, 0.0) == UNCLEAR
    assert decide(np.nan, np.nan, 0.05) == UNCLEAR
    assert decide(0.0, 0.1, 0.05) == decide(-0.1, 0.05, 0.05) == decide(-0.1, 0.0, 0.0) == UNCLEAR  # on an edge


def test_a_class_that_is_not_annotated_is_not_scored():
    cases = fake_cases()
    measured = fake_measured(cases, sd=1, pm=1, entropy=1)
    dice = cases.case_dice(measured.of_networks("dice"))
    raw = measured.networks[0]["dice"]
    in_c = cases.domains == "C"
    np.testing.assert_array_equal(dice[0, in_c], raw[in_c, 0])  # not halved by the 0 of what is not annotated
    np.testing.assert_allclose(dice[0, ~in_c], np.nanmean(raw[~in_c], 1))
    _, found, _ = tabulated(sd=1, pm=1, entropy=1)
    assert not found.dice.where(domain="C", quantity="Dice of pool")
    assert [(r["class"], r["scored"]) for r in found.classes if r["domain"] == "C"] == [("ring", True), ("pool", False)]
    together = found.dice.one(domain=TOGETHER, quantity="Dice of pool").estimate
    in_b = cases.domains == "B"
    assert together.n == in_b.sum()
    assert together.mean == pytest.approx(np.mean([run["dice"][in_b, 1].mean() for run in measured.networks]))


def test_a_typical_case_is_the_median_of_its_domain():
    cases = fake_cases()
    dice = fake_measured(cases, sd=1, pm=1, entropy=1).networks[0]["dice"]
    of_case = cases.case_dice(dice)
    typical = experiment.typical_cases(cases, dice)
    assert tuple(typical) == cases.by_domain(3).names
    for name, case in typical.items():
        own = of_case[(cases.domains == name) & ~np.isnan(of_case)]
        assert cases.domains[case] == name and of_case[case] == np.sort(own)[len(own) // 2]
    undefined = np.where((cases.domains == "B")[:, None], np.nan, dice)
    assert "B" not in experiment.typical_cases(cases, undefined)


def test_tables_say_what_stands_behind_them():
    _, found, decided = tabulated(sd=1, pm=1, entropy=1)
    for name in ("dice", "correlation", "differences", "detection", "risk_coverage"):
        rows = getattr(found, name)
        assert rows and all(row.convention and row.interval and row["paper"] for row in rows)
    assert all({"convention", "interval", "n", "undefined", "patients", "paper"} <= c.record().keys() for c in decided)
    assert set(found.correlation.values("score")) == {score.name for score in tables.SCORES}
    cases = fake_cases()
    dice = found.dice.one(domain="C", quantity="Dice").estimate
    undefined = (cases.domains == "C") & (np.arange(len(cases.domains)) % 40 == 0)
    assert (dice.undefined, dice.patients) == (undefined.sum(), 24) and undefined.sum() > 0
    assert len(found.cases) == len(cases.domains)
    flagged = found.detection.where(quantity=tables.FLAGGED)
    ranked, detected = (
        rows.one(unit="slice", domain="C", score="SD").estimate for rows in (found.correlation, flagged)
    )
    # a score needs no Dice to be above a threshold
    assert (ranked.undefined, detected.undefined) == (undefined.sum(), 0)


def test_deviations_are_those_of_the_networks():
    cases = fake_cases()
    measured = fake_measured(cases, sd=1, pm=1, entropy=1)
    _, found, _ = tabulated(sd=1, pm=1, entropy=1)
    of_networks = cases.case_dice(measured.of_networks("dice"))[:, cases.domains == "B"]
    deviation = lambda quantity: found.dice.one(domain="B", quantity=quantity)["runs_std"]
    assert deviation(tables.BEFORE) == pytest.approx(np.std(np.nanmean(of_networks, 1), ddof=1))
    assert np.isnan([deviation(tables.LOST), deviation(tables.OF_ENSEMBLE)]).all()  # a difference; one ensemble


def test_a_domain_of_few_patients_has_no_interval_and_no_say():
    cases = fake_cases()
    keep = (cases.domains != "C") | np.isin(cases.patients, ("p0", "p1"))
    fewer = Cases(cases.stored.take(np.flatnonzero(keep)), cases.roles[keep], cases.domains[keep], cases.patients[keep])
    assert fewer.by_domain(3).counted == ("B",) and fewer.by_domain(2).counted == ("B", "C")
    _, found = tabulated_of(fewer, fake_measured(fewer, sd=3, pm=0, entropy=0))
    rows = found.correlation.where(unit="slice", score="SD")
    alone = rows.one(domain="C")
    assert np.isnan(alone.estimate.low) and alone.interval == "none: too few patients"
    assert rows.one(domain=MEAN).estimate.mean == rows.one(domain="B").estimate.mean


@pytest.mark.parametrize("unit", UNITS)
def test_a_report_of_made_up_measures_stays_as_it_is(assert_stays, unit):
    """Of a domain with too few patients for an interval, and one in which a class is not annotated."""
    cfg = config().unlock()
    cfg.evaluation.update(resamples=20, least_patients=6, unit=unit)
    cases = fake_cases(patients=8, slices=2)
    few = ~((cases.domains == "B") & ~np.isin(cases.patients, ("p0", "p1")))
    foreign = np.where(cases.domains == "A (test)", "D", cases.domains)  # a third foreign domain, of all patients
    places = np.concatenate([np.flatnonzero(few), np.flatnonzero(foreign == "D")])
    domains = np.concatenate([cases.domains[few], foreign[foreign == "D"]])
    roles = np.where(domains == "D", "shifted", cases.roles[places])
    cases = Cases(cases.stored.take(places), roles, domains, cases.patients[places])
    measured = fake_measured(cases, sd=20, pm=0, entropy=2)
    random = np.random.default_rng(0)
    examples = {
        name: {
            "images": random.uniform(-1, 1, (8, 8, 1 + 2 * (name == "C"))).astype(np.float32),
            "labels": cases.stored.labels[i].astype(int),
            "classes": np.roll(cases.stored.labels[i], 1, 0).astype(int),
        }
        for name, i in experiment.typical_cases(cases, measured.networks[0]["dice"]).items()
    }
    splits = {name: cases.stored.take(np.arange(4)) for name in ("train", "validation")}
    measured = dataclasses.replace(measured, examples=examples)
    assert_stays(f"distortion_{unit}", STUDY, settings(cfg.lock()), Gathered(splits, cases), measured, cfg)


def test_examples_show_gray_levels_in_any_units(monkeypatch):
    cases, units = fake_cases(patients=2), MeanStd(mean=(100,), std=(50,))
    gray = cases.stored.images
    scales = np.stack([np.stack(units.scale(image)) for image in gray])
    seen = np.stack([units(image) for image in gray])
    chosen, found = [5, 2], {}
    monkeypatch.setattr(experiment, "load", lambda *_: (None, None))
    monkeypatch.setattr(experiment, "_seen", lambda settings, cases: (cases,))
    monkeypatch.setattr(experiment.compute, "score_cases", lambda *given, further: {"images": given[3].images})
    for name, images, scale in (("levels", gray / 127.5 - 1, None), ("units", seen.astype(np.float32), scales)):
        stored = dataclasses.replace(cases.stored, images=images, scales=scale)
        gathered = Gathered(None, dataclasses.replace(cases, stored=stored))
        found[name] = experiment._examples(settings(config()), gathered, None, chosen)["images"]
    np.testing.assert_allclose(found["units"], found["levels"], atol=2e-3)
    np.testing.assert_allclose(found["levels"], gray[chosen] / 127.5 - 1)


def test_ensembles_are_of_networks_that_follow_each_other_and_all_is_kept(monkeypatch, tmp_path):
    cfg = config().unlock()
    cfg.replicas, cfg.evaluation.ensemble_size = 5, 2
    made, cases, loaded = settings(cfg.lock()), fake_cases(), []
    numbers = iter(range(100))
    model = models.build("unet", 3, features=(2, 4), skips=(True,))
    number_of = lambda folder: int(folder.name.rpartition("_")[2])

    def leave(folder, **summary):
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(summary))

    def train(run, splits, folder, **options):
        assert options == {"keep_every": made.evaluation.vog_every}
        selection = f"best_validation_{made.run.training.selection}"
        for number, (_, place) in enumerate(runs.member_runs(run, folder)):
            leave(place, **{"best_step": 10 + number, selection: number / 10})

    def train_autoencoder(run, splits, folder):
        assert number_of(pathlib.Path(run.network)) == number_of(folder)
        leave(folder, best_step=20 + number_of(folder), best_validation_loss=number_of(folder) / 5)

    def of_network(settings, asked, known, familiar, scored):
        dice = fake_measured(cases, sd=1, pm=1, entropy=1, networks=1).networks[0]["dice"]
        return {"dice": dice, "network": np.array(known.members[0].variables)}

    def load_best(run, folder, shape, num_classes):
        loaded.append(shape)
        return model, number_of(folder), {}

    class Splits(dict):
        num_classes = 3

        def open(self, split):
            return cases.stored

    of_number = lambda number: of_linen(model, number, image_size=8)
    chosen = lambda *_, further: {name: np.arange(4) + len(name) for name in ("images", "labels", "classes")}
    monkeypatch.setattr(experiment.runs, "train", train)
    monkeypatch.setattr(experiment.runs, "load_best", load_best)
    monkeypatch.setattr(experiment.autoencoders, "train", train_autoencoder)
    monkeypatch.setattr(experiment, "load", lambda s, p, one: (Asked(()), Known((of_number(one.number),))))
    monkeypatch.setattr(experiment, "of_network", of_network)
    monkeypatch.setattr(
        experiment, "of_ensemble", lambda s, members, scored: {"members": np.array([m.variables for m in members])}
    )
    monkeypatch.setattr(experiment.vog, "checkpoints", lambda *_: next(numbers))
    monkeypatch.setattr(experiment.vog, "variance_of_gradients", lambda at, stored, **_: np.array(at))
    monkeypatch.setattr(experiment.compute, "score_cases", chosen)
    monkeypatch.setattr(experiment, "kept", lambda path, make, wanted: make())
    found = experiment.train_and_measure(made, Gathered(Splits(train=cases.stored), cases), tmp_path)
    assert [int(one["network"]) for one in found.networks] == [int(one["vog"]) for one in found.networks] == [*range(5)]
    assert [one["members"].tolist() for one in found.ensembles] == [[0, 1], [2, 3]]  # the fifth is in none
    assert loaded == [(1, *(made.run.data.image_size,) * 2, 1)] * 4
    assert [(one["network"], one["best_step"], one["autoencoder_best_step"]) for one in found.training] == [
        (i, 10 + i, 20 + i) for i in range(5)
    ]
    assert [one["validation_score"] for one in found.training] == [i / 10 for i in range(5)]
    assert [one["seed"] - made.run.seed for one in found.training] == [*range(5)]
    assert {name: int(one["labels"]) - 6 for name, one in found.examples.items()} == {
        name: i for i, name in enumerate(("A (validation)", "A (test)", "B", "C"))
    }
    folders = experiment.run_folders(made, tmp_path)
    assert len(folders) == 10 and all((folder / "summary.json").exists() for folder in folders)


# ------------------------------------------------------------------------------------------------------ the whole thing


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    places = {"workdir": folder / "work", "data_dir": folder / "data", "manual_dir": None, "command": "python -m x"}
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))  # as the launcher does
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        page = runner.run(config(), **places)
    yield places, page
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.mark.slow
def test_the_study_ends_with_its_report(finished):
    places, page = finished
    work = places["workdir"]
    found = json.loads((work / "results.json").read_text())
    assert found["size"] == "tiny" and found["verdicts"][0]["sentence"] in page.read_text()
    assert {path.name for path in (work / "figures").iterdir()} == {
        "correlation.png", "correlation_domains.png", "detection.png", "dice_domains.png", "rejection.png",
        "examples.png",
    }  # fmt: skip
    assert {path.stem for path in (work / "tables").iterdir()} == {
        "claims",
        *tables.Tables.__dataclass_fields__,
    }
    domains = ["A (validation)", "A (test)", "B", "C", "D", TOGETHER]
    assert [row["domain"] for row in found["dice"] if row["quantity"] == "Dice"] == domains
    assert {row["score"] for row in found["correlation"]} == {score.name for score in tables.SCORES}
    distances = [row["PM"] for row in found["cases"]]
    assert min(distances) > 0 and np.isfinite(distances).all()
    assert all(0 <= row["SD"] <= 2 / 4 and 0 <= row["entropy"] <= np.log(4) for row in found["cases"])


@pytest.mark.slow
def test_a_second_call_trains_and_measures_nothing(finished):
    places, page = finished
    before = {path: path.stat().st_mtime_ns for path in (places["workdir"] / "runs").rglob("*") if path.is_file()}
    found = json.loads((page.parent / "results.json").read_text())
    with jax.numpy_dtype_promotion("standard"):
        runner.run(config(), **places)
    after = {path: path.stat().st_mtime_ns for path in (places["workdir"] / "runs").rglob("*") if path.is_file()}
    assert after == before
    assert json.loads((page.parent / "results.json").read_text())["claims"] == found["claims"]


@pytest.mark.slow
def test_distances_are_small_where_activations_are_those_of_training(finished):
    """Of the training cases themselves, the mean squared distance is about the dimension, as of any fitted Gaussian."""
    places, _ = finished
    made = settings(config())
    directory = builders.prepared("cardiac/tiny", data_dir=places["data_dir"])
    splits = runs.Splits(directory, made.run.data.source_size, made.run.data.domains)
    asked, known = experiment.load(made, splits, experiment.networks(made, places["workdir"])[0])
    scores = experiment.of_network(made, asked, known, splits["train"], splits["train"])
    latent = made.autoencoder.latent
    # shrinking the covariance towards its mean variance keeps the trace, and changes the distance a little
    assert 0.5 * latent < scores["latent_mahalanobis"].mean() < 2.5 * latent
    assert scores["dice"].shape == (48, 3)


def test_rows_of_detection_are_those_of_their_domain_and_score():
    made, found, _ = tabulated(sd=2.0, pm=1.0, entropy=0.5)
    cases = fake_cases()
    of = tables.observe(cases, fake_measured(cases, sd=2.0, pm=1.0, entropy=0.5))
    domains = cases.by_domain(made.evaluation.least_patients)
    threshold = domain_ranking.thresholds(of, domains, made.evaluation.keep)
    expected = domain_ranking.detection(of, domains, threshold)
    expected = of.mean_over_runs(expected).reshape(3, len(domains.names) + 1, len(of.names))
    for m, quantity in enumerate((tables.FLAGGED, tables.AUROC, tables.FPR)):
        for row in found.detection.where(unit="slice", quantity=quantity):
            place = [*domains.names, MEAN].index(row["domain"]), of.names.index(row["score"])
            assert row.estimate.mean == pytest.approx(expected[m][place], nan_ok=True)
