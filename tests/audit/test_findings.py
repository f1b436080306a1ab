"""What becomes a finding, in which order, what the page says where nothing was found; and the other probes' numbers."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import audit as audit_config
from configs import train as train_config
from jaxseg.audit import findings
from jaxseg.audit import run as audits
from jaxseg.audit.pictures import largest
from jaxseg.audit.probe import BORDER, OVERLAY, SCANNER, Candidate, Kind, weakest
from jaxseg.audit.probes import (
    ability,
    accuracy,
    calibration,
    distances,
    failures,
    gray_levels,
    padding,
    position,
    translation,
)
from jaxseg.audit.subject import evenly, of_trained, strip_width
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.metrics.intervals import Estimate, bootstrap_contrast, bootstrap_mean
from jaxseg.models import pretrained
from jaxseg.scores import registry
from jaxseg.training import contract, trained

KINDS = {kind.name: kind for kind in (BORDER, OVERLAY, SCANNER, accuracy.ACCURACY, calibration.CALIBRATION)}


def candidate(kind="border", mean=0.3, low=0.2, high=0.4, damage=0.3, probe="translation", margin=0.05):
    return Candidate(
        KINDS[kind],
        probe,
        f"Title of {kind}",
        f"{probe} says so.",
        f"{kind} number",
        Estimate(mean, low, high, 9, 1, 9),
        margin,
        damage,
        "Do something.",
    )


def of_patients(patients, **numbers):
    made = candidate(**numbers)
    return dataclasses.replace(made, estimate=dataclasses.replace(made.estimate, patients=patients))


def test_a_finding_lies_above_its_margin_with_its_whole_interval():
    assert candidate(low=0.051).found and not candidate(low=0.051).open
    assert not candidate(low=0.05).found and candidate(low=0.05).open
    assert not candidate(mean=0.0, low=-0.1, high=0.05).open
    nothing = candidate(mean=math.nan, low=math.nan, high=math.nan)
    assert not nothing.found and nothing.open  # as if nobody had asked


def test_a_number_that_should_be_high_is_a_finding_below_its_margin():
    dice = lambda **numbers: dataclasses.replace(candidate("accuracy", margin=0.7, **numbers), high_is_good=True)
    assert dice(mean=0.5, low=0.4, high=0.69).found and not dice(mean=0.5, low=0.4, high=0.69).open
    assert not dice(mean=0.6, low=0.5, high=0.7).found and dice(mean=0.6, low=0.5, high=0.7).open
    fine = dice(mean=0.9, low=0.7, high=0.95)
    assert not fine.found and not fine.open and fine.wanted == "at least 0.7" and candidate().wanted == "at most 0.05"


def test_a_finding_of_a_new_kind_is_one():
    new = dataclasses.replace(candidate(), kind=Kind("clothes", is_shortcut=True))
    assert [one.main for one in findings.choose([new], most=5)] == [new]
    assert findings.verdict([new]).verdict == "yes"


def test_a_shortcut_that_is_not_shown_is_said_all_the_same():
    given = [candidate("accuracy", damage=0.9), candidate("border", damage=0.1)]
    assert [one.main.kind.name for one in findings.choose(given, most=1)] == ["accuracy"]
    assert findings.verdict(given).verdict == "yes"


def test_findings_are_ordered_by_damage_joined_by_kind_and_at_most_so_many():
    given = [
        candidate("calibration", damage=math.nan),
        candidate("overlay", damage=0.1, probe="overlays_insertion"),
        candidate("border", damage=0.2),
        candidate("overlay", damage=0.4, probe="overlays_removal"),
        candidate("scanner", damage=0.9, low=0.0),
    ]
    found = findings.choose(given, most=5)
    assert [one.main.kind.name for one in found] == ["overlay", "border", "calibration"]
    assert found[0].text == "overlays_removal says so. overlays_insertion says so."
    assert [one.main.kind.name for one in findings.choose(given, most=1)] == ["overlay"]


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        ([candidate()], "yes", "Title of border."),
        ([candidate(), candidate("calibration")], "yes", "Also found: Title of calibration"),
        ([candidate(low=-0.1, mean=0, high=0.04)], "no", "found nothing: border number 0.00 [-0.10, 0.04]"),
        ([candidate(low=-0.1, mean=0, high=0.04), candidate("accuracy")], "no", "found no shortcut"),
        ([candidate(low=0.01)], "unclear", "too wide to exclude a shortcut (border number 0.30 [0.01, 0.40]: "),
        ([candidate(low=0.01)], "unclear", "[0.01, 0.40]: about 4 more patients like these would decide it)."),
        ([candidate("accuracy")], "unclear", "No shortcut could be asked for"),
        ([candidate(mean=math.nan, low=math.nan, high=math.nan)], "unclear", "Border number undefined: no case here"),
        (
            [of_patients(1, low=-0.1, mean=0, high=0.04)],
            "unclear",
            "[-0.10, 0.04] of 1 patients: about 4 more patients",
        ),
        ([of_patients(4)], "unclear", "0.30 [0.20, 0.40] of 4 patients: about 1 more patient like"),
        (
            [candidate(low=-0.1, mean=0.049, high=0.2)],
            "unclear",
            "Border number 0.05 [-0.10, 0.20] lies so close to its",
        ),
        (
            [candidate(low=-0.1, mean=0.049, high=0.2), candidate("overlay", low=0.01)],
            "unclear",
            "a shortcut (overlay number 0.30 [0.01, 0.40]: about 4 more patients like these would decide it). Border",
        ),
        ([of_patients(5)], "yes", "Title of border."),
    ],
)
def test_the_verdict_is_about_shortcuts_alone(given, verdict, words):
    said = findings.verdict(given)
    assert said.verdict == verdict and words in said.sentence
    assert ("too wide" in said.sentence) == ("would decide it" in said.sentence)


@pytest.mark.parametrize("mean", [0.02, 0.08])
def test_so_many_more_patients_as_are_needed_decide_a_number(mean):
    noise = np.random.default_rng(0).normal(size=100)
    noise = 0.2 * (noise - noise.mean()) / noise.std()
    of = lambda times: candidate_of(np.tile(noise, times) + mean, margin=0.05)
    few = of(1)
    assert few.open and 60 < few.needed < 80  # 100 x (1.96 x 0.02 / 0.03)^2 - 100 = 71
    assert not of(2).open and not of(2).needed  # nor are more needed


def candidate_of(values, margin):
    estimate = bootstrap_mean(values, np.arange(len(values)), resamples=2000)
    return dataclasses.replace(candidate(margin=margin), estimate=estimate)


def test_of_several_numbers_the_weakest_decides():
    of = lambda mean, low, high: Estimate(mean, low, high, 9, 0, 9)
    far, wide, none, nothing = of(0.5, 0.4, 0.6), of(0.3, 0.01, 0.6), of(0.0, -0.2, 0.04), of(*[math.nan] * 3)
    assert weakest([far, wide], 0.05) is wide
    assert weakest([wide, none, far], 0.05) is none  # one that is not there is enough
    assert weakest([of(0.0, -0.3, 0.2), none], 0.05) is none  # whichever interval begins lower
    assert weakest([nothing, far], 0.05) is far and weakest([nothing], 0.05) is nothing


def test_pictures_show_typical_cases_of_an_effect():
    assert largest(np.array([np.nan, 0.0, 4.0, 1.0, 2.0, 3.0]), 2).tolist() == [5, 3]  # 3 and 1 of 0 ... 4
    assert largest(np.array([np.nan, np.nan]), 2).size == 0
    effect = np.array([0.5, 0.1, 0.9, 0.3, 0.7])
    assert [largest(effect, count).tolist() for count in (0, 1, 3)] == [[], [0], [4, 0, 3]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("probes", ("accuracy", "luck"), "config.probes has 'luck'; choose from accuracy, gray levels"),
        ("cases", 0, "config.cases is 0; it must be at least 1"),
        ("margin", 1.5, "config.margin is 1.5; it must be above 0 and below 1"),
        ("border_share", 0.3, "config.border_share is 0.3; it must be above 0 and below 0.25"),
        ("position_folds", 1, "at least 2"),
        ("removal", "network", "choose one of black, noise, bilinear, fast_marching"),
        ("inks", ("yellow", "red"), "config.inks .* give some of yellow, green, white, light gray, gray, each once"),
        ("inks", (), "config.inks"),
        ("familiar_cases", 0, "config.familiar_cases is 0; it must be at least 1"),
        ("autoencoder_width", 0, "config.autoencoder_width is 0; it must be at least 1"),
        ("seed", -1, "config.seed is -1; it must be at least 0"),
        ("chroma", -1.0, "config.chroma is -1.0; it must be above 0 and at most 255"),
    ],
)
def test_settings_that_cannot_work_are_named(field, value, message):
    settings = audit_config.get_config().unlock()
    settings[field] = value
    with pytest.raises(InputError, match=message):
        audits.settings(settings)


def test_a_missing_setting_is_named():
    settings = audit_config.get_config().unlock()
    del settings.margin
    with pytest.raises(InputError, match=r"config.margin is missing; configs/audit.py shows"):
        audits.settings(settings)


def test_a_config_without_probes_is_none_of_an_audit():
    for config in ({"probes": ()}, None, ml_collections.ConfigDict({"cases": 3})):
        with pytest.raises(InputError, match=r"config.probes is missing; configs/audit.py shows every field"):
            audits.settings(config)
    with pytest.raises(InputError, match=r"config.probes is 'accuracy'; give a list of accuracy, gray levels"):
        audits.settings(ml_collections.ConfigDict({"probes": "accuracy"}))


def test_a_network_is_known_by_its_checksum(subject_of, squares):
    cases, model = squares(2), Layered()
    assert subject_of(model, cases).fingerprint == {"network": "00000000", "test": cases.fingerprint}
    subject = subject_of(model, cases, layered_variables(model))
    assert subject.fingerprint["network"] == subject.network.fingerprint != "00000000"


def test_tensors_are_loaded_at_the_size_that_their_config_names(squares, tmp_path, monkeypatch):
    config, asked = train_config.get_config("tiny").unlock(), []
    config.data.image_size, config.data.domains = 16, ("A", "B")
    monkeypatch.setattr(pretrained, "load_whole", lambda model, path, shape: asked.append(shape) or {"params": {}})
    taken = contract.TrainedOn(("background", "square"), 3, 2, pipeline.Preparation(None, None, False))
    made = of_trained(trained.of_weights(tmp_path / "w.pt", config, taken), squares(3), None)
    assert asked == [(1, 16, 16, 3)] and made.domains == ("A", "B") and made.rank == 2
    assert (made.sides, made.view, made.name) == ((16, 16), config.data.view, str(tmp_path / "w.pt"))
    config.data.image_size = 15
    with pytest.raises(InputError, match=r"config.data.image_size .*with config.model: "):
        trained.of_weights(tmp_path / "w.pt", config, taken)


@pytest.mark.parametrize(("share", "size", "wanted"), [(0.1, 64, 6), (0.01, 64, 2), (0.05, 50, 2), (0.2, 32, 6)])
def test_a_strip_is_a_share_of_the_side_but_two_pixels_at_least(networks, subject_of, squares, share, size, wanted):
    assert strip_width(subject_of(networks.Threshold(), squares(1, size=size)), share) == wanted


# The other probes.


def test_accuracy_finds_a_network_that_segments_nothing(networks, subject_of, answer, assert_stays):
    found, arrays = answer(accuracy.PROBE, subject_of(networks.Threshold(level=2.0)))
    np.testing.assert_array_equal(arrays["dice"], 0)
    (weak,) = found.candidates
    assert weak.kind == accuracy.ACCURACY and weak.found and not weak.kind.is_shortcut
    assert (weak.estimate.mean, weak.wanted) == (0.0, "at least 0.7") and weak.damage == pytest.approx(0.7)
    assert weak.sentence == "On 12 test cases the mean Dice is 0.00 [0.00, 0.00], wanted at least 0.70."
    good, _ = answer(accuracy.PROBE, subject_of(networks.Threshold()))
    assert_stays("accuracy", good)
    assert not good.candidates[0].found and good.rows[0].estimate.mean == 1.0
    bands = [row.estimate for row in good.rows if row["quantity"] == "Dice by band"]
    assert bands[-1].undefined == 12 and bands[0].mean == 1.0  # nothing lies near the border


def test_the_reference_domain_is_one_that_was_trained_on(networks, subject_of, squares):
    cases = squares(5, domains=("B", "B", "A", "A", "C"))
    assert accuracy.reference_domain(subject_of(networks.Threshold(), cases)) == "A"
    assert accuracy.reference_domain(subject_of(networks.Threshold(), cases, domains=("C",))) == "C"
    assert accuracy.reference_domain(subject_of(networks.Threshold(), squares(5))) is None


def test_a_gap_between_domains_is_that_of_their_means(networks, subject_of, squares, answer):
    cases = squares(10, domains=("A",) * 5 + ("B",) * 5)
    cases.images[5:] //= 3  # too dark for the threshold
    subject = subject_of(networks.Threshold(), cases)
    found, _ = answer(accuracy.PROBE, subject)
    gap = next(one for one in found.candidates if one.kind == accuracy.DOMAIN)
    assert gap.found and gap.estimate.mean == pytest.approx(1.0) and "may be harder" in gap.sentence
    assert "worst of" not in gap.sentence  # there is no other to pick
    assert gap.sentence.startswith("The mean Dice is 0.00 [0.00, 0.00] in the domain 'B' and 1.00 [1.00, 1.00] in 'A'")
    (told,) = (row for row in found.rows if row["quantity"] == "Dice lost in the other domain")
    assert "Bonferroni" not in told.interval


def test_the_worst_of_several_domains_is_allowed_for(networks, subject_of, squares, settings, assert_stays):
    names = np.array(("A", "B", "C") * 8)
    subject = subject_of(networks.Threshold(), squares(24, domains=tuple(names.tolist())))
    dice = np.random.default_rng(0).uniform(size=(24, 1))
    own = settings(accuracy.PROBE)
    answer = accuracy.PROBE.tabulate(
        subject, own, {"dice": dice, "bands": np.zeros((24, 0)), "outer": np.zeros(0, int)}
    )
    assert_stays("domains", answer)
    rows = {row["where"]: row for row in answer.rows if row["quantity"] == "Dice lost in the other domain"}
    assert set(rows) == {"A minus B", "A minus C"}
    for name in "BC":
        terms = [(1.0, np.where(names == "A", dice[:, 0], np.nan)), (-1.0, np.where(names == name, dice[:, 0], np.nan))]
        ends = lambda level, terms=terms: bootstrap_contrast(
            terms, subject.test.patients, level=level, resamples=own.resamples
        )
        told, alone = rows[f"A minus {name}"], ends(0.95)
        assert (told.estimate.low, told.estimate.high) == (ends(0.975).low, ends(0.975).high)
        assert told.estimate.low < alone.low < alone.high < told.estimate.high
        assert "2 gaps together" in told.interval
    gap = next(one for one in answer.candidates if one.kind == accuracy.DOMAIN)
    assert "worst of 2" in gap.sentence


def test_calibration_is_the_difference_of_confidence_and_accuracy(networks, subject_of, answer, assert_stays):
    subject = subject_of(networks.Threshold(level=2.0))  # sure of background everywhere
    found, _ = answer(calibration.PROBE, subject)
    assert_stays("calibration", found)
    share = (subject.test.labels > 0).mean()
    assert found.candidates[0].estimate.mean == pytest.approx(share, abs=1e-5)
    assert "100% sure of its pixels and right on 90%" in found.candidates[0].sentence


class Layered(nn.Module):
    """Two layers that add up the channels, with `layered_variables`."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(2, (1, 1), name="conv_0")(images)
        x = nn.Conv(2, (1, 1), name="conv_1")(x)
        return jnp.stack([jnp.zeros_like(x[..., 0]), x[..., 0]], -1)


def layered_variables(model):
    like = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    fill = {"kernel": np.ones, "bias": np.zeros}
    return jax.tree_util.tree_map_with_path(lambda path, x: fill[path[-1].key](x.shape, np.float32), like)


def test_distances_and_profiles_of_a_network_with_layers(subject_of, squares, answer, assert_stays):
    cases = squares(8, domains=("A",) * 4 + ("B",) * 4)  # just enough for two halves
    cases.images[4:] = 0
    model = Layered()
    variables = layered_variables(model)
    subject = subject_of(model, cases, variables)
    assert subject.layers == ("conv_0", "conv_1")
    found, arrays = answer(distances.PROBE, subject)
    assert_stays("distances", found, arrays)
    assert arrays["distance"].shape == (1, 2)
    assert (arrays["distance"] > 0.99).all() and (arrays["null"] < 0.9).all()  # no gray level in common
    assert [row["where"] for row in found.rows] == ["conv_0", "conv_1"] * 2
    bright = dataclasses.replace(subject, test=evenly(squares(12), 8))
    of_layers, arrays = answer(ability.PROBE, bright)
    scores = arrays["scores"]
    assert_stays("ability", of_layers)
    np.testing.assert_allclose(scores, 1.0)  # two gray levels are two prototypes
    of_layers, arrays = answer(position.PROBE, bright)
    r2 = arrays["r2"]
    assert_stays("position", of_layers)
    assert (r2 > 0.2).all() and (r2 < 0.9).all()  # squares lie in the middle, and that is all there is to know


PROFILES = (accuracy, calibration, ability, distances, position)


def test_probes_are_of_the_pixels_that_count(subject_of, squares, settings, monkeypatch):
    cases = squares(12, domains=("A",) * 6 + ("B",) * 6)
    model = Layered()
    subject = subject_of(model, cases, layered_variables(model))
    valid = np.zeros(cases.labels.shape, bool)
    valid[:, 4:28, :18] = True
    valid[3] = False  # of which nothing is known
    spoilt = dataclasses.replace(cases, images=np.where(valid[..., None], cases.images, 255))
    cases.labels[~valid] = 0
    measured = lambda probe, cases: probe.measure(dataclasses.replace(subject, test=cases), settings(probe))
    everything = measured(accuracy.PROBE, spoilt)["dice"]
    read = pipeline.epoch
    told = lambda *args, **options: (batch | {"valid": valid[batch["index"]]} for batch in read(*args, **options))
    monkeypatch.setattr(pipeline, "epoch", told)
    for probe in (one.PROBE for one in PROFILES):
        own, others = measured(probe, cases), measured(probe, spoilt)
        for name, values in own.items():
            np.testing.assert_array_equal(others[name], values, err_msg=name)
            assert values.dtype.kind != "f" or np.isfinite(np.delete(values, 3, 0) if len(values) > 3 else values).any()
            if values.dtype.kind == "f" and len(values) == 12:
                assert np.isnan(values[3]).all() or name == "sums"
        assert probe is not accuracy.PROBE or (np.delete(own["dice"] - everything, 3) > 0.1).all()
    # pictures are shown whole
    for probe, names in ((translation.PROBE, ("found", "called", "dice")), (gray_levels.PROBE, ("own",))):
        own, others = measured(probe, cases), measured(probe, spoilt)
        for name in names:
            assert np.isfinite(own[name]).any(), name
            np.testing.assert_array_equal(others[name], own[name], err_msg=name)


def test_the_share_that_changes_is_of_a_place_in_every_image():
    random = np.random.default_rng(0)
    changed, place = random.random((3, 6, 6)) < 0.5, random.random((1, 6, 6)) < 0.5
    share = jax.jit(padding._share)
    np.testing.assert_allclose(share(changed, place), [one[place[0]].mean() for one in changed], rtol=1e-6)
    some = place & (random.random((3, 6, 6)) < 0.5)
    expected = [one[where].mean() for one, where in zip(changed, some, strict=True)]
    np.testing.assert_allclose(share(changed, some), expected, rtol=1e-6)


def test_there_are_as_many_folds_as_patients_at_most(subject_of, squares, answer):
    model = Layered()
    subject = subject_of(model, squares(3), layered_variables(model))
    few, enough = (answer(position.PROBE, subject, position_folds=folds)[1]["r2"] for folds in (7, 3))
    assert np.isfinite(few).all()
    np.testing.assert_array_equal(few, enough)


def test_evenly_keeps_the_first_and_the_last(squares):
    few = evenly(squares(12), 4)
    assert few.cases == ("case0", "case4", "case7", "case11") and few.images.shape[0] == 4


def test_a_quadrant_belongs_to_its_case_wherever_it_stands(networks, subject_of, squares):
    subject = subject_of(networks.Threshold(), view="quadrant", resized=16)
    ask = subject.asks(lambda network, seen: {"images": seen["images"]})
    everything, few = ask(subject.test)["images"], evenly(subject.test, 3)
    np.testing.assert_array_equal(ask(few)["images"], everything[[subject.test.cases.index(c) for c in few.cases]])


def test_scores_that_need_no_training_cases_are_asked_of_any_network(subject_of, squares, answer, assert_stays):
    cases = squares(12)
    cases.images[::2] //= 4  # half of the squares are too dark
    model = Layered()
    variables = layered_variables(model)
    found, arrays = answer(failures.PROBE, subject_of(model, cases, variables))
    assert_stays("failures", found, arrays)
    assert set(arrays) == {"dice", "entropy", "mean_sa", "lacking", "why"}
    assert [row["where"] for row in found.rows if row["quantity"] == "rank correlation"] == ["mean SA", "entropy"]
    reasons = {row["where"]: row.convention for row in found.not_asked}
    assert reasons["SD"] == "not asked: the network does not say which layer is its bottleneck"
    row = next(row for row in found.rows if row["quantity"] == "rank correlation")
    numbers = {"distortion": (0.1, 0.3), "mahalanobis": (0.2, 0.5), "entropy": (-0.1, 0.9)}
    league = {
        registry.SCORES[key]: dataclasses.replace(row, estimate=Estimate(mean, low, 1.0, 9, 0, 9))
        for key, (low, mean) in numbers.items()
    }
    assert failures.best_score(league) == registry.SCORES["mahalanobis"]
    del league[registry.SCORES["distortion"]], league[registry.SCORES["mahalanobis"]]
    assert failures.best_score(league) is None
    at_0 = {score: dataclasses.replace(row, estimate=Estimate(0.5, 0.0, 1.0, 9, 0, 9)) for score in league}
    assert failures.best_score(at_0) is None
