"""The distortion study: which cases, which numbers, which verdict; and once from config to report page."""

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
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.metrics import overlap, ranking
from jaxseg.models import autoencoder, capture
from jaxseg.scores import cases as distortion_scores
from jaxseg.scores.cases import SCORES
from jaxseg.studies import runner
from jaxseg.studies.distortion import experiment as study
from jaxseg.studies.distortion import numbers
from jaxseg.studies.distortion import tables as results
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
    study.check(config(size))


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
        ("study", "other", "is not a study's"),
        ("data.domains", (), "none is foreign; name those to train on"),
        ("data.view", "quadrant", "the study is of 'original' alone"),
        ("data.folds", 5, "config.data.folds is 5"),
        ("shifted.classes", "colour", "config.shifted.classes is 'colour'; choose one of name, order"),
        ("shifted.splits", (), "config.shifted.splits is empty"),
        ("shifted.domain_words", -1, "domain_words is -1; it must be at least 0"),
        ("layer", "down_9", r"config.layer names no layer \['down_9'\]; the network has"),
        ("evaluation.ability_layers", ("up_7",), "ability_layers names no layer"),
        ("evaluation.unit", "voxel", "choose one of slice, subject"),
        ("evaluation.ensemble_size", 1, "ensemble_size is 1; it must be at least 2"),
        ("evaluation.resamples", 0, "resamples is 0"),
        ("evaluation.keep", 1.5, "config.evaluation.keep is 1.5"),
        ("autoencoder_training.epochs", 0, "config.training.epochs is 0"),
        ("replicas", 0, "config.replicas is 0"),
        ("model.name", "vnet", "unknown network 'vnet'"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    broken = config()
    broken.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
        study.check(broken)


def test_raw_files_may_move_and_nothing_else():
    moved = config()
    moved.shifted.manual_dir = "/elsewhere"
    assert study.claimed(moved) == study.claimed(config())
    moved.shifted.dataset = "folder/other"
    assert study.claimed(moved) != study.claimed(config())


# ---------------------------------------------------------------------------------------------------------------- cases


def test_classes_are_matched_by_name_or_by_order():
    by_name = study.match_classes(HEART, ("background", "left ventricle", "right ventricle"), "name", "other/test")
    np.testing.assert_array_equal(by_name, [0, 3, 1])
    unnamed = ("background", "class 1", "class 2")
    np.testing.assert_array_equal(study.match_classes(HEART, unnamed, "order", "other/test"), [0, 1, 2])
    with pytest.raises(InputError, match=r"other/test has the class 'class 1'.*classes.csv.*'order'"):
        study.match_classes(HEART, unnamed, "name", "other/test")
    with pytest.raises(InputError, match=r"has 3 classes, the network 2 \(background, brain\)"):
        study.match_classes(("background", "brain"), unnamed, "order", "other/test")


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
    from jaxseg.data import builders

    data = tmp_path / "data"
    cfg = config()
    cfg.data.dataset, cfg.data.domains, cfg.data.source_size = "folder/own", () if other else ("GE",), 16
    if other:
        cfg.shifted.update(dataset="folder/other", manual_dir=str(other), splits=("train", "validation", "test"))
    cfg.shifted.update(shifted)
    directory = builders.prepare(cfg.data.dataset, data_dir=data, manual_dir=own)
    splits = runs.Splits(directory, cfg.data.source_size, cfg.data.domains)
    return study.gather(cfg, splits, directory, data), splits


def test_shifted_cases_are_those_of_other_domains_of_the_same_data(tmp_path):
    own = write_folder(tmp_path / "own", 20, lambda i: ("GE", "Siemens 3 T", "Siemens 1.5 T")[i % 3])
    splits_of = {"splits": ("train", "validation", "test")}
    cases, splits = gathered(tmp_path, own, **splits_of)
    assert cases.names == ("GE (validation)", "GE (test)", "Siemens 1.5 T", "Siemens 3 T")
    assert cases.shifted == ("Siemens 1.5 T", "Siemens 3 T")
    counts = {name: int((cases.domains == name).sum()) for name in cases.names}
    assert (
        counts["Siemens 1.5 T"] == counts["Siemens 3 T"] - 3 == 18
    )  # all patients of those scanners, three slices each
    assert counts["GE (validation)"] == len(splits["validation"]) and counts["GE (test)"] == len(splits["test"])
    assert not set(cases.patients) & set(splits["train"].patients)
    merged, _ = gathered(tmp_path, own, domain_words=1, **splits_of)
    assert merged.names == ("GE (validation)", "GE (test)", "Siemens")


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
    assert gathered(tmp_path, own, splits=("test",))[0].shifted == ("Philips",)


def test_another_data_set_is_brought_to_the_networks_classes(tmp_path):
    own = write_folder(tmp_path / "own", 10, lambda i: "", ("background", "ring", "pool"))
    other = write_folder(tmp_path / "other", 4, lambda i: "", ("background", "pool", "ring"))
    cases, _ = gathered(tmp_path, own, other)
    assert cases.names == ("folder (validation)", "folder (test)", "folder/other")
    np.testing.assert_array_equal(cases.drawn["folder/other"], [4, 8])  # ring: one slice in three, the other way round
    assert all(p.startswith("folder/other: ") for p in cases.patients[cases.roles == "shifted"])
    by_order, _ = gathered(tmp_path, own, other, classes="order")
    np.testing.assert_array_equal(by_order.drawn["folder/other"], [8, 4])


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
    assert cases.shifted == ("ge_lv_only", "ge_with_myo")
    assert [int((cases.domains == name).sum()) for name in cases.shifted] == [50, 46]
    drawn = np.stack([cases.drawn[name] > 0 for name in cases.shifted])
    np.testing.assert_array_equal(drawn, [[False, False, True], [False, True, True]])


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
    fitted = distortion_scores.Fitted(network, coder, "bottleneck", members[0], coded)
    found = distortion_scores.of_network(cfg, fitted, train, cases)

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
    for key in ("pooled", "latent"):
        # near 0 a distance is a difference of larger numbers
        np.testing.assert_allclose(found[key], parts[key], rtol=2e-3, atol=1e-5)
    for key, logits in (("dice", before), ("dice_after", after)):
        np.testing.assert_allclose(found[key], dice(labels, classes_of(logits)), rtol=1e-6)
    np.testing.assert_allclose(found["inability"], 1 - parts["ability"], rtol=1e-4)

    together = distortion_scores.of_ensemble(cfg, network, members, cases)
    each = softmax(np.float64(parts["logits"]))
    mean, classes = each.mean(0), classes_of(each)
    np.testing.assert_allclose(together["ensemble_entropy"], -(mean * np.log(mean)).sum(-1).mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(together["dice"], dice(labels, classes_of(mean)), rtol=1e-6)
    of_pair = np.asarray(dice(classes[0], classes[1]))
    np.testing.assert_allclose(together["disagreement"], 1 - np.nanmean(of_pair, 1), rtol=1e-5)


# -------------------------------------------------------------------------------------------------------------- numbers


def observations(count=60, seed=0):
    """Two networks and an ensemble; some numbers undefined; ties; a patient in two domains."""
    random = np.random.default_rng(seed)
    scores, risks = random.integers(0, 12, (5, count)) / 4, random.random((5, count))
    scores[0, 3] = scores[3, 10] = risks[1, 5] = risks[4, 7] = np.nan
    domains = np.array(["in (validation)", "in (test)", "b", "c"])[np.arange(count) % 4]
    roles = np.array([{"in (validation)": "validation", "in (test)": "test"}.get(d, "shifted") for d in domains])
    patients = np.array([f"p{i // 8}" for i in range(count)])
    return numbers.Observations(scores, risks, np.array([0, 0, 1, 1, 2]), ("SD", "PM", "E"), domains, roles, patients)


NAMES, COUNTED = ("in (validation)", "in (test)", "b", "c"), ("b", "c")


def test_rows_of_correlations_are_those_of_ranking():
    of = observations()
    expected = [ranking.spearman(s, r) for s, r in zip(of.scores, of.risks, strict=True)]
    np.testing.assert_allclose(numbers.spearman_rows(of.scores, of.risks), expected, rtol=1e-12)
    assert np.isnan(numbers.spearman_rows(np.ones((1, 5)), np.arange(5.0)[None])).all()
    assert np.isnan(numbers.spearman_rows(np.zeros((2, 0)), np.zeros((2, 0)))).all()


def test_correlations_are_within_domains_and_their_mean():
    of = observations()
    found = numbers.correlations(of, NAMES, COUNTED, np.arange(60))
    for q, name in enumerate(NAMES):
        where = of.domains == name
        expected = [ranking.spearman(of.scores[p, where], of.risks[p, where]) for p in range(5)]
        np.testing.assert_allclose(found[q], expected)
    np.testing.assert_allclose(found[4], (found[2] + found[3]) / 2)
    where = np.isin(of.domains, COUNTED)
    np.testing.assert_allclose(found[5], [ranking.spearman(of.scores[p, where], of.risks[p, where]) for p in range(5)])


def test_intervals_are_those_of_ranking_where_there_is_one_run():
    of = observations()
    drawn = numbers.draw(lambda cases: numbers.correlations(of, NAMES, COUNTED, cases), of, resamples=200)
    where = of.domains == "b"
    kept = np.where(where, of.risks[4], np.nan)
    expected = ranking.spearman_estimate(of.scores[4], kept, of.patients, resamples=200)
    found = drawn.estimate(2, 2, of, where)
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (found.n, found.undefined) == (expected.n, 0)


def test_detection_is_that_of_ranking():
    of = observations()
    threshold = numbers.thresholds(of, 0.95)
    found = numbers.detection(of, NAMES, COUNTED, threshold, np.arange(60)).reshape(3, 5, 5)
    for p in range(5):
        inside = {role: of.scores[p, of.roles == role] for role in ("validation", "test")}
        for d, name in ((2, "b"), (3, "c")):
            outside = of.scores[p, of.domains == name]
            ood = ranking.ood_accuracy(inside["validation"], inside["test"], outside)
            assert threshold[p] == ood.threshold
            expected = ood.detected, ranking.auroc(inside["test"], outside), ranking.fpr_at_95(inside["test"], outside)
            np.testing.assert_allclose(found[:, d, p], expected)
        assert found[0, 1, p] == pytest.approx(1 - ood.kept)
    np.testing.assert_allclose(found[:, 4], found[:, 2:4].mean(1))
    assert np.isnan(found[1:, :2]).all()


def test_rows_of_detection_leave_out_what_is_undefined():
    random = np.random.default_rng(1)
    inside, outside = random.integers(0, 9, (4, 30)) / 8, random.integers(2, 12, (4, 21)) / 8
    inside[0, 3], outside[1, :5], outside[2, :], inside[3, :] = np.nan, np.nan, np.nan, np.nan
    for rows, one in ((numbers.auroc_rows, ranking.auroc), (numbers.false_positive_rows, ranking.fpr_at_95)):
        for kept in (slice(0, 2), slice(0, 4)):  # with and without a row that has nothing
            expected = [one(a, b) for a, b in zip(inside[kept], outside[kept], strict=True)]
            np.testing.assert_allclose(rows(inside[kept], outside[kept]), expected)


def test_risk_areas_are_of_the_shifted_domains_together():
    of = observations()
    found = numbers.risk_areas(of, COUNTED, np.arange(60))
    where = np.isin(of.domains, COUNTED)
    for p in range(5):
        curve = ranking.risk_coverage(of.scores[p, where], of.risks[p, where])
        assert tuple(found[:, p]) == (curve.aurc, curve.excess_aurc)


def test_means_and_deviations_over_runs():
    of = observations()
    values = np.array([1.0, 4.0, np.nan, 2.0, np.nan])
    np.testing.assert_allclose(of.mean_over_runs(values), [2.5, 2.0, np.nan])
    np.testing.assert_allclose(of.deviation_over_runs(values), [np.std([1, 4], ddof=1), np.nan, np.nan])


def test_subjects_are_means_over_their_slices_in_one_domain():
    of = observations()
    subjects = of.by_subject()
    assert len(subjects.patients) == len(set(zip(of.domains, of.patients, strict=True)))
    for i in range(len(subjects.patients)):
        own = (of.domains == subjects.domains[i]) & (of.patients == subjects.patients[i])
        assert set(of.roles[own]) == {subjects.roles[i]}
        np.testing.assert_allclose(subjects.scores[:, i], np.nanmean(of.scores[:, own], 1))
        np.testing.assert_allclose(subjects.risks[:, i], np.nanmean(of.risks[:, own], 1))


# --------------------------------------------------------------------------------------------------- tables and verdict


def fake_cases(patients=24, slices=3, undrawn=True):
    """Two foreign domains of the same patients; in one nobody drew the second class."""
    names = ("A (validation)", "A (test)", "B", "C")
    count = len(names) * patients * slices
    domain = np.repeat(names, patients * slices)
    patient = np.tile(np.repeat(np.arange(patients), slices), len(names))
    labels = np.zeros((count, 8, 8), np.uint8)
    labels[:, 2:4, 2:4], labels[:, 5:7, 5:7] = 1, 2
    if undrawn:
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
    return study.Cases(stored, roles, domain, patients_, names)


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
        both[cases.domains == "C", 1] = 0.0  # the network finds there what nobody drew
        both[::40, 0] = np.nan
        shared = {"distortion": follows(sd), "pooled": follows(pm, foreign_pm), "latent": follows(pm)}
        return {
            "dice": both,
            "dice_after": both - lost,
            **shared,
            "entropy": follows(entropy),
            "inability": follows(1),
            "gradients": gradients,
        }

    ensemble = {"dice": network()["dice"], "ensemble_entropy": follows(entropy), "disagreement": follows(1)}
    training = tuple({"network": i, "convention": "none"} for i in range(networks))
    return study.Measured(tuple(network() for _ in range(networks)), (ensemble,), training)


@functools.cache
def tabulated(**closeness):
    cfg = config()
    cfg.evaluation.resamples = 30
    cases = fake_cases()
    return cfg, results.tabulate(cfg, cases, fake_measured(cases, **closeness))


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
    cfg, found = tabulated(**closeness)
    answer = results.verdict(cfg, found)
    assert answer.verdict == expected
    assert answer.of["unit"] == cfg.evaluation.unit == "slice"
    decided = {row["claim"].rpartition("than ")[2]: row["verdict"] for row in found.claims if row["unit"] == "slice"}
    for score in ("PM", "LM", "entropy", "ensemble entropy"):
        said = {"holds": "above", "does not hold": "not above", "unclear": "undecided against"}[decided[score]]
        sides = answer.sentence.partition("(it is ")[2].partition(")")[0].split(", ")
        assert [side for side in sides if score in side.removeprefix(said + " ").split(" and ")] == [
            side for side in sides if side.startswith(said + " ")
        ]
    for score, table in (("SD", found.correlation), ("PM", found.correlation), ("PM", found.detection)):
        row = next(
            r
            for r in table
            if (r["unit"], r["domain"], r["score"]) == ("slice", numbers.MEAN, score)
            and r.get("quantity", results.DETECTED) == results.DETECTED
        )
        assert f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in answer.sentence


def test_claims_agree_with_the_tables():
    _, found = tabulated(sd=20, pm=0, entropy=0)
    rows = {(r["unit"], r["quantity"], r["score"]): r for r in found.differences if r["domain"] == numbers.MEAN}
    correlation = {(r["unit"], r["score"]): r["mean"] for r in found.correlation if r["domain"] == numbers.MEAN}
    claims = {(c["unit"], c["claim"]): c for c in found.claims}
    assert len(claims) == 2 * 5 + 1
    for unit in study.UNITS:
        for score in ("PM", "LM", "entropy", "ensemble entropy"):
            claim = claims[unit, f"SD goes with errors more closely than {score}"]
            assert claim["mean"] == rows[unit, results.CORRELATION, score]["mean"]
            assert claim["mean"] == pytest.approx(correlation[unit, "SD"] - correlation[unit, score])
        foreign, row = claims[unit, results.FOREIGN], rows[unit, results.DETECTED, "PM"]
        assert (foreign["mean"], foreign["low"], foreign["high"]) == (-row["mean"], -row["high"], -row["low"])
        assert foreign["verdict"] == "holds"
    lost = claims["slice", results.LOWERED]
    assert lost["mean"] == pytest.approx(0.01) and lost["verdict"] == "holds"
    for claim in found.claims:
        decided = "holds" if claim["low"] > 0 else "does not hold" if claim["high"] < 0.05 else "unclear"
        assert claim["verdict"] == decided or claim["claim"] == results.LOWERED


def test_an_advantage_within_the_negligible_or_without_an_interval():
    row = dict.fromkeys(("n", "undefined", "patients", "interval", "convention"), 0) | {"mean": 0.01}
    decide = lambda low, high, least: results._decided("", "slice", row | {"low": low, "high": high}, "", least).verdict
    assert decide(-0.02, 0.04, 0.05) == "does not hold"
    assert decide(-0.02, 0.04, 0.0) == "unclear"
    assert decide(np.nan, np.nan, 0.05) == "unclear"


def test_a_class_that_nobody_drew_is_not_scored():
    cases = fake_cases()
    measured = fake_measured(cases, sd=1, pm=1, entropy=1)
    dice = results.case_dice(cases, measured.networks)
    raw = measured.networks[0]["dice"]
    in_c = cases.domains == "C"
    np.testing.assert_array_equal(dice[0, in_c], raw[in_c, 0])  # not halved by the 0 of what nobody drew
    np.testing.assert_allclose(dice[0, ~in_c], np.nanmean(raw[~in_c], 1))
    _, found = tabulated(sd=1, pm=1, entropy=1)
    assert not any((r["domain"], r["quantity"]) == ("C", "Dice of pool") for r in found.dice)
    assert [(r["class"], r["scored"]) for r in found.classes if r["domain"] == "C"] == [("ring", True), ("pool", False)]
    together = next(r for r in found.dice if (r["domain"], r["quantity"]) == (numbers.TOGETHER, "Dice of pool"))
    in_b = cases.domains == "B"
    assert together["n"] == in_b.sum()
    assert together["mean"] == pytest.approx(np.mean([run["dice"][in_b, 1].mean() for run in measured.networks]))


def test_tables_say_what_stands_behind_them():
    _, found = tabulated(sd=1, pm=1, entropy=1)
    for name in ("claims", "dice", "correlation", "differences", "detection", "risk_coverage"):
        rows = getattr(found, name)
        assert rows and all(
            {"convention", "interval", "n", "undefined", "patients", "paper"} <= row.keys() for row in rows
        )
    assert {row["score"] for row in found.correlation} == {score.name for score in SCORES}
    cases = fake_cases()
    row = next(r for r in found.dice if (r["domain"], r["quantity"]) == ("C", "Dice"))
    undefined = (cases.domains == "C") & (np.arange(len(cases.domains)) % 40 == 0)
    assert (row["undefined"], row["patients"]) == (undefined.sum(), 24) and undefined.sum() > 0
    assert len(found.cases) == len(cases.domains)
    ranked, detected = (
        next(r for r in table if (r["unit"], r["domain"], r["score"]) == ("slice", "C", "SD"))
        for table in (found.correlation, found.detection)
    )
    assert (ranked["undefined"], detected["undefined"]) == (undefined.sum(), 0)  # a score needs no Dice to be foreign


def test_a_domain_of_few_patients_has_no_interval_and_no_say():
    cfg = config()
    cfg.evaluation.resamples = 30
    cases = fake_cases()
    keep = (cases.domains != "C") | np.isin(cases.patients, ("p0", "p1"))
    fewer = study.Cases(
        cases.stored.take(np.flatnonzero(keep)),
        cases.roles[keep],
        cases.domains[keep],
        cases.patients[keep],
        cases.names,
    )
    assert study.counted_domains(cfg, fewer) == ("B",)
    found = results.tabulate(cfg, fewer, fake_measured(fewer, sd=3, pm=0, entropy=0))
    rows = {r["domain"]: r for r in found.correlation if (r["unit"], r["score"]) == ("slice", "SD")}
    assert np.isnan(rows["C"]["low"]) and rows["C"]["interval"] == "none: too few patients"
    assert rows[numbers.MEAN]["mean"] == rows["B"]["mean"]


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
    assert {path.stem for path in (work / "tables").iterdir()} == set(results.Tables.__dataclass_fields__)
    domains = ["A (validation)", "A (test)", "B", "C", "D", numbers.TOGETHER]
    assert [row["domain"] for row in found["dice"] if row["quantity"] == "Dice"] == domains
    assert {row["score"] for row in found["correlation"]} == {score.name for score in SCORES}
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
    cfg = config()
    directory = places["data_dir"] / "cardiac" / "tiny" / "1.0.0"
    splits = runs.Splits(directory, cfg.data.source_size, cfg.data.domains)
    fitted = study.load(cfg, splits, places["workdir"], 0)
    scores = distortion_scores.of_network(cfg, fitted, splits["train"], splits["train"])
    latent = cfg.autoencoder.latent
    # shrinking the covariance towards its mean variance keeps the trace, and changes the distance a little
    assert 0.5 * latent < scores["latent"].mean() < 2.5 * latent
    assert scores["dice"].shape == (48, 3)
