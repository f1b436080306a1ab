"""The study's numbers, away from training: scores, windows, tables, the verdict."""

import dataclasses
import functools
import importlib.util
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data import augment, pipeline
from jaxseg.data.normalisation import MeanStd
from jaxseg.errors import InputError
from jaxseg.metrics import overlap, regions
from jaxseg.metrics.intervals import Estimate
from jaxseg.results.table import Row, table
from jaxseg.studies.base import run_folder
from jaxseg.studies.border_shortcut import claims, moving_window, tables
from jaxseg.studies.border_shortcut import experiment as study
from jaxseg.studies.border_shortcut import figures as study_figures
from jaxseg.studies.border_shortcut import page as study_page
from jaxseg.studies.border_shortcut.settings import Arm, Run, settings
from jaxseg.studies.border_shortcut.study import STUDY
from jaxseg.training import checks, runs

ROOT = pathlib.Path(__file__).parents[2]
ZERO, LEARNED, BARE = Arm("unet", "zero"), Arm("vit", "zero", "learned"), Arm("vit", "zero", "none")
LAYERS = {"unet": 10, "vit": 8}  # of the smallest size


def config(size="tiny"):
    spec = importlib.util.spec_from_file_location("border_shortcut_config", ROOT / "configs" / "border_shortcut.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(size)


@pytest.mark.parametrize("size", ["tiny", "demo", "cpu", "paper", "demo,padding", "paper,padding", "demo,transformer"])
def test_every_size_can_be_run(size):
    settings(config(size))


def test_unknown_sizes_are_named():
    with pytest.raises(ValueError, match="unknown size 'huge'; choose one of paper, cpu, demo, tiny"):
        config("huge")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("paddings", ("zero", "mirror"), r"config.paddings .* give some of zero, reflect"),
        ("paddings", ("zero", "zero"), "each once"),
        ("networks", ("unet", "nnunet"), r"config.networks .* give some of unet, vit, each once"),
        ("positions", ("learned", "learned"), "give some of learned, sinusoidal, relative, none, each once"),
        ("vit.heads", 3, "config.vit with config.paddings: width 16, depth 2 and heads 3: heads must divide the width"),
        ("vit.depth", 0, "config.vit.depth is 0; it must be at least 1"),
        ("paddings", ("zero", "valid"), "config.vit with config.paddings: padding 'valid' is for networks that see a"),
        ("views", ("original",), "config.views .* give original and quadrant, each once"),
        ("evaluation.grid", 100, "multiple of config.data.image_size"),
        ("evaluation.border_width", 200, "stay below half the grid"),
        ("evaluation.windows_per_side", 1, "at least 2"),
        ("evaluation.window_images", 0, "must be at least 1"),
        ("seed", -1, "config.seed is -1; it must be at least 0"),
        ("data.image_size", 2, "divisible by 4, got 2 x 2; the next sizes are 4 x 4"),
        ("data.source_size", 63, "even size"),
        ("model.name", "vnet", "config.model.name is 'vnet'; .* config.networks lists what is trained"),
        ("model.skips", (True,), "config.model"),
        ("model.dtype", "float16", "choose one of float32, bfloat16"),
        ("training.loss", "focal", "choose one of dice"),
        ("training.learning_rate", float("nan"), "must be above 0"),
        ("data.image_size", 0, "config.data.image_size is 0"),
        ("data.source_size", -2, "must be at least 1"),
        ("model.features", (4, 0, 8), "config.model"),
        ("training.epochs", 0, "config.training.epochs is 0; it must be at least 1"),
        ("training.learning_rate", -1.0, "must be above 0"),
    ],
)
def test_what_cannot_work_is_named_before_anything_runs(field, value, message):
    broken = config("tiny,transformer")
    broken.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
        settings(broken)


def test_scores_are_dice_on_the_grid():
    evaluation = config().evaluation
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 2, (2, 5, 32, 32), dtype=np.int32)
    labels[0, :8] = labels[0, 8:, :6] = 0
    score = jax.jit(lambda a, b, valid=None: study.score(a, b, evaluation, valid=valid))
    scores = score(labels, predictions)
    a, b = (np.kron(x, np.ones((1, 8, 8), np.int32)) for x in (labels, predictions))

    @jax.jit
    def on_the_grid(labels, predictions, a, b):
        inner = a[:, 30:-30, 30:-30], b[:, 30:-30, 30:-30]
        return {
            "dice": overlap.dice(labels, predictions, num_classes=2)[:, 0],
            "bands": regions.band_dice(a, b, width=10)[1],
            "border": regions.band_dice(a, b, width=30)[1][:, -1],
            "interior": overlap.dice(*inner, num_classes=2)[:, 0],
        }

    for name, expected in on_the_grid(labels, predictions, a, b).items():
        np.testing.assert_allclose(scores[name], expected, rtol=1e-6)
    valid = random.random(labels.shape) < 0.7  # elsewhere is no foreground, in neither
    masked = score(labels, predictions, valid)
    for name, expected in score(labels * valid, predictions * valid).items():
        np.testing.assert_array_equal(masked[name], predictions if name == "predictions" else expected, err_msg=name)
    frame = np.ones((256, 256), bool)
    frame[30:-30, 30:-30] = False
    found = [(x & y & frame).sum() / (x & frame).sum() for x, y in zip(a > 0, b > 0, strict=True)]
    np.testing.assert_allclose(scores["border_recall"], found, rtol=1e-6)


def test_windows_come_back_to_where_they_were_cut():
    made = settings(config())
    starts = moving_window.window_starts(made)
    assert starts.min() == 0 and starts.max() == 32 and len(starts) == 9
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    @jax.jit
    def move(image):
        bright = moving_window.cut_windows(image, starts, 32)[..., 0] > 0
        masks, inside = moving_window.place_windows(bright, starts, 64)
        return masks, inside, regions.window_agreement(masks, inside)

    masks, inside, agreement = move(image)
    for mask, where, (y, x) in zip(masks, inside, starts, strict=True):
        expected = np.zeros((64, 64), bool)
        expected[y : y + 32, x : x + 32] = image[y : y + 32, x : x + 32, 0] > 127
        np.testing.assert_array_equal(mask, expected)
        assert where.sum() == 32 * 32 and where[y, x] and where[y + 31, x + 31]
    # a network that judges every pixel by itself agrees with itself wherever the window is
    assert agreement == 1
    np.testing.assert_array_equal(moving_window.diagonal_starts(made), [[0, 0], [16, 16], [32, 32]])


@functools.cache
def fake_splits(cases=40):
    random = np.random.default_rng(0)
    labels = np.zeros((cases, 64, 64), np.uint8)
    labels[:, 20:44, 22:40] = 1
    images = random.integers(0, 256, (cases, 64, 64, 3), dtype=np.uint8)
    names = tuple(f"case{i:03d}" for i in range(cases))
    memory = pipeline.InMemory(
        "fake/test", ("background", "lesion"), images, labels, names, names, *pipeline.nowhere(len(names))
    )
    return dict.fromkeys(("train", "validation", "test"), memory)


@functools.cache
def fake_centres():
    return study.mask_centres(settings(config()), fake_splits())


def tabulated(measured, made=None):
    made = made or settings(config())
    return tables.tabulate(made, fake_splits(), study.Measured(measured, fake_centres()))


def fake_measures(border, interior, cases=40, seed=0, of="unet"):
    """A network that reaches the given mean Dice at the border and inside."""
    random = np.random.default_rng(seed)
    rings = len(tables.band_distances(config().evaluation))
    noise = lambda mean: np.clip(mean + 0.1 * random.standard_normal(cases), 0, 1)
    measures = {"step": np.array(6), "validation_dice": np.array(0.8), "position": np.linspace(0, 0.5, LAYERS[of])}
    for view in study.TEST_VIEWS:
        measures |= {
            f"{view}_dice": noise(interior),
            f"{view}_border": noise(border),
            f"{view}_interior": noise(interior),
            f"{view}_border_recall": noise(border),
            f"{view}_bands": np.stack([noise(border if ring > rings - 4 else interior) for ring in range(rings)], 1),
            f"{view}_predictions": np.zeros((cases, 32, 32), np.uint8),
        }
        measures[f"{view}_bands"][::5] = np.nan
        measures[f"{view}_bands_smooth1"] = np.nan_to_num(measures[f"{view}_bands"], nan=1.0)
    return measures | {"agreement": noise(0.7)[:4], "agreement_case": np.arange(4), "windows": np.zeros((3, 32, 32))}


@pytest.mark.parametrize(
    ("ori", "crop", "expected"),
    [
        ((0.3, 0.8), (0.8, 0.82), "yes"),
        ((0.5, 0.5), (0.8, 0.8), "partly"),
        ((0.8, 0.8), (0.8, 0.8), "no"),
        ((0.78, 0.8), (0.8, 0.8), "unclear"),
        ((0.8, 0.8), (0.3, 0.8), "no"),
        ((np.nan, 0.8), (np.nan, 0.8), "unclear"),
    ],
)
def test_the_verdict_follows_the_intervals(ori, crop, expected):
    measured = {Run(ZERO, "original"): fake_measures(*ori), Run(ZERO, "quadrant"): fake_measures(*crop, seed=1)}
    rows = tabulated(measured).border
    verdict = claims.verdict(config().evaluation, rows, ZERO)
    assert verdict.verdict == expected
    gap = rows.one(quantity=tables.GAP, tested_on="quadrant").estimate
    if not np.isnan(ori[0]):
        assert f"{gap.mean:.2f} [{gap.low:.2f}, {gap.high:.2f}]" in verdict.sentence


@pytest.mark.parametrize(
    ("low", "high", "excess_low", "expected"),
    [
        (0.0, 0.3, 0.1, "unclear"),
        (0.01, 0.3, 0.0, "partly"),
        (0.01, 0.05, 0.01, "yes"),
        (0.01, 0.049, 0.01, "no"),
    ],
)
def test_an_interval_that_ends_on_an_edge_does_not_lie_beyond_it(low, high, excess_low, expected):
    def row(quantity, low=0.1, high=0.3):
        return Row(
            {"network": ZERO.label, "tested_on": "quadrant", "quantity": quantity},
            Estimate(0.2, low, high, 9, 0, 9),
            "",
        )

    of_models = [f"{model} at the border" for model in ("M_ori", "M_crop")]
    others = [*of_models, "gap inside", *map(tables.found_by, ("M_ori", "M_crop"))]
    rows = table([row(tables.GAP, low, high), row(tables.EXCESS, excess_low), *map(row, others)])
    assert claims.verdict(config().evaluation, rows, ZERO).verdict == expected


def test_tables_say_what_they_left_out_and_agree_with_the_cases():
    measured = {Run(ZERO, "original"): fake_measures(0.3, 0.8), Run(ZERO, "quadrant"): fake_measures(0.8, 0.8, seed=1)}
    found = tabulated(measured)
    assert len(found.bands) == 2 * 2 * 2 * 13  # models, test views, conventions, bands
    assert all(row.convention and row.interval for rows in (found.dice, found.bands, found.border) for row in rows)
    undefined = {row.convention: row.estimate.undefined for row in found.bands}
    assert undefined[tables.DICE] == 8 and undefined[tables.SMOOTH] == 0
    for row in found.dice:
        of = (row["model"], row["tested_on"])
        cases = [case["dice"] for case in found.cases if (case["model"], case["tested_on"]) == of]
        assert row.estimate.mean == pytest.approx(np.mean(cases))
        assert row.estimate.n == len(cases) == 40
    whole = found.mask_centres.one(split="test", view="original")
    assert whole.estimate.mean == pytest.approx(1 / 32, rel=1e-3)  # the box's centre lies one pixel left of the middle


def with_factors(**factors):
    """The tiny study with these networks, paddings and positions, and few resamples."""
    made = config("tiny,transformer")
    made.update_from_flattened_dict(factors | {"evaluation.resamples": 50})
    return made


@pytest.mark.parametrize(
    ("arm", "folder", "label"),
    [
        (ZERO, "unet_zero_quadrant", "U-Net, zero padding"),
        (LEARNED, "vit_learned_zero_quadrant", "ViT, learned positions, zero padding"),
        (BARE, "vit_none_zero_quadrant", "ViT, no positions, zero padding"),
    ],
)
def test_an_arm_has_a_folder_and_words(arm, folder, label, tmp_path):
    assert run_folder(tmp_path, Run(arm, "quadrant")) == tmp_path / "runs" / folder
    assert arm.label == label


def test_an_arm_is_trained_with_its_architecture_padding_and_positions():
    cfg = config("tiny,transformer")
    cfg.model.remat, cfg.model.pretrained = True, "unet.npz"
    made = settings(cfg)
    assert [str(arm) for arm in made.arms] == [
        *("unet_zero", "unet_reflect", "vit_learned_zero", "vit_sinusoidal_zero", "vit_relative_zero", "vit_none_zero"),
        *("vit_learned_reflect", "vit_sinusoidal_reflect", "vit_relative_reflect", "vit_none_reflect"),
    ]
    for arm, view in made.networks:
        run = made.of_run(Run(arm, view))
        model = checks.build_model(run, 2)
        assert (run.model.name, model.padding, model.remat, run.data.view) == (arm.network, arm.padding, True, view)
        if arm.network == "vit":
            assert (model.position, model.patch, model.width, model.depth, model.heads) == (arm.position, 4, 16, 2, 2)
            assert run.model.pretrained is None  # the file is the U-Net's
        else:
            assert model.features == (4, 8, 8)
        assert run.training == made.run.training


@pytest.mark.parametrize(
    ("factors", "references"),
    [
        (
            {"positions": ("learned", "none")},
            {
                **{"unet_zero": None, "unet_reflect": "unet_zero"},
                **{"vit_learned_zero": "vit_none_zero", "vit_none_zero": "unet_zero"},
                **{"vit_learned_reflect": "vit_none_reflect", "vit_none_reflect": "unet_zero"},
            },
        ),
        (
            {"positions": ("relative",), "paddings": ("reflect",)},
            {"unet_reflect": None, "vit_relative_reflect": "unet_reflect"},
        ),
        (
            {"networks": ("vit",), "positions": ("none", "learned"), "paddings": ("zero",)},
            {"vit_none_zero": None, "vit_learned_zero": "vit_none_zero"},
        ),
    ],
)
def test_positions_are_compared_with_none_and_what_else_there_is_with_the_first(factors, references):
    made = settings(with_factors(**factors))
    found = {str(arm): made.reference(arm) for arm in made.arms}
    assert {arm: of and str(of) for arm, of in found.items()} == references


def test_the_gap_is_compared_with_that_of_the_reference():
    cfg = with_factors(networks=("unet", "vit"), paddings=("zero",), positions=("learned", "none"))
    border = {ZERO: 0.5, LEARNED: 0.2, BARE: 0.6}  # Dice of M_ori
    measured = {
        Run(arm, view): fake_measures(border[arm] if view == "original" else 0.8, 0.8, seed=2 * i + j, of=arm.network)
        for i, arm in enumerate(border)
        for j, view in enumerate(("original", "quadrant"))
    }
    rows = tabulated(measured, settings(cfg)).border
    expected = {
        (
            "ViT, learned positions, zero padding",
            "gap at the border, minus that of ViT, no positions, zero padding",
        ): 0.4,
        ("ViT, no positions, zero padding", "gap at the border, minus that of U-Net, zero padding"): -0.1,
    }
    changes = [row for row in rows if "minus that of" in row["quantity"] and row["tested_on"] == "quadrant"]
    assert {(row["network"], row["quantity"]) for row in changes} == set(expected)
    gap = lambda label: rows.one(network=label, quantity=tables.GAP, tested_on="quadrant").estimate.mean
    for row in changes:
        assert row.estimate.mean == pytest.approx(expected[row["network"], row["quantity"]], abs=0.08)
        assert row.estimate.low < row.estimate.mean < row.estimate.high
    assert changes[0].estimate.mean == pytest.approx(gap(LEARNED.label) - gap(BARE.label))
    assert changes[1].estimate.mean == pytest.approx(gap(BARE.label) - gap(ZERO.label))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.3, "larger than"),
        (-0.3, -0.01, "smaller than"),
        (0.0, 0.3, "not distinguishable from"),
        (-0.3, 0.0, "not distinguishable from"),
    ],
)
def test_a_gap_is_larger_or_smaller_if_its_whole_interval_is(low, high, words):
    said = study_page._compared(rows_of_gaps({LEARNED: (low, high)}), LEARNED, BARE)
    assert said == f"{words} that of ViT, no positions, zero padding (difference 0.02 [{low:.2f}, {high:.2f}])"
    assert study_page._compared(rows_of_gaps({}), ZERO, None) == ""


def rows_of_gaps(differences):
    """A border table of these arms' gaps, and of the intervals by which they differ from the arm without positions."""
    row = lambda arm, quantity, low, high: Row(
        {"network": arm.label, "tested_on": "quadrant", "quantity": quantity}, Estimate(0.02, low, high, 9, 0, 9), ""
    )
    gaps = [row(arm, tables.GAP, 0.0, 0.1) for arm in (ZERO, BARE, *differences)]
    return table([*gaps, *(row(arm, tables.minus_that_of(BARE), *ends) for arm, ends in differences.items())])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.3, "holds"),
        (0.0, 0.3, "unclear"),
        (0.01, 0.05, "holds"),
        (0.01, 0.049, "does not hold"),  # above 0, and none
        (-0.3, 0.049, "does not hold"),
        (-0.01, 0.05, "unclear"),
        (np.nan, np.nan, "unclear"),
    ],
)
def test_positions_carry_the_shortcut_if_the_gap_is_larger_with_them(low, high, expected):
    made = settings(with_factors(paddings=("zero",), positions=("learned", "none")))
    (claim,) = claims.claims(made, rows_of_gaps({LEARNED: (low, high)}))
    assert claim.answer == expected and claim.of == {"positions": "learned", "padding": "zero"}
    assert claim.record()["low"] is low and claim.claim == claims.CARRIED


def test_of_a_transformer_the_page_says_what_its_positions_tell():
    made = settings(with_factors(paddings=("zero",)))
    ends = {"learned": (0.1, 0.3), "sinusoidal": (-0.1, 0.3), "relative": (0.1, 0.2)}
    arms = {LEARNED._replace(position=position): interval for position, interval in ends.items()}
    (text,) = study_page._transformer_text(made, claims.claims(made, rows_of_gaps(arms)))
    with_zero = lambda position: f"{position} positions with zero padding"
    carried = f"holds for {with_zero('learned')}, {with_zero('relative')}; unclear for {with_zero('sinusoidal')}. "
    assert f"That it does, by the gaps here: {carried}" in text
    made = settings(with_factors(positions=("learned",)))
    (text,) = study_page._transformer_text(made, claims.claims(made, rows_of_gaps({})))
    assert text.endswith("That shows only beside a network without positions, which was not run.")
    assert study_page._transformer_text(settings(config()), []) == []


def drawn_measures(border, interior, seed, of="unet"):
    """The same with features, windows and masks that can be seen."""
    random = np.random.default_rng(seed)
    made = fake_measures(border, interior, seed=seed, of=of)
    made["quadrant_predictions"][:, 8:, seed : 20 + seed] = 1
    made["windows"][:, 4 : 12 + seed, 6:] = 1
    return made | {"projection": random.normal(size=(20, 2)), "projection_distance": random.random(20)}


DICE_OF_M_ORI = {"zero": (0.2, 0.8), "valid": (0.6, 0.8), "reflect": (0.1, 0.75)}


def made_up(arms):
    """What networks of these arms reach, at the border and inside."""
    dice = lambda run: DICE_OF_M_ORI[run.arm.padding] if run.view == "original" else (0.8, 0.8)
    networks = [Run(arm, view) for arm in arms for view in ("original", "quadrant")]
    measured = {run: drawn_measures(*dice(run), i, of=run.arm.network) for i, run in enumerate(networks)}
    return study.Measured(measured, fake_centres())


def test_a_report_of_made_up_measures_stays_as_it_is(assert_stays):
    cfg = with_factors(networks=("unet",), paddings=("zero", "valid", "reflect"))
    made = settings(cfg)
    assert_stays("border_shortcut", STUDY, made, fake_splits(), made_up(made.arms), cfg)


def test_a_report_of_a_transformer_has_its_claims(written):
    cfg = with_factors(paddings=("zero",), positions=("learned", "none"))
    made = settings(cfg)
    found = written(STUDY, made, fake_splits(), made_up(made.arms), cfg)
    shown = {section["title"]: section for section in found["page"]["sections"]}["Network and padding as factors"]
    assert [title for title, *_ in shown["tables"]] == ["Answers", "Claims", "Gaps"]
    assert len(shown["text"]) == 2  # of the paper, of the transformer
    assert "claims" in found and "figure networks" in found


def test_figures_show_gray_levels_in_any_units(monkeypatch, tmp_path):
    """Quadrants and windows have the size that the network sees, so they are cut from the stored images."""
    made, shown = settings(config()), []
    measured = {Run(ZERO, "original"): fake_measures(0.3, 0.8), Run(ZERO, "quadrant"): fake_measures(0.8, 0.8, seed=1)}
    monkeypatch.setattr(study_figures.figures, "strip", lambda path, rows, titles: shown.extend(rows["window"]))
    units, memory = MeanStd(mean=(100, 90, 80), std=(50, 60, 40)), fake_splits()["test"]
    scales = np.stack([np.stack(units.scale(image)) for image in memory.images])
    cases = dataclasses.replace(memory, images=np.stack([units(one) for one in memory.images]), scales=scales)
    study_figures._draw_windows(tmp_path, made, {"test": cases}, measured)
    image = memory.images[moving_window.pick_case(memory.labels)]
    for (window, _), start in zip(shown, (0, 16, 32), strict=True):
        assert window.dtype == np.uint8
        assert abs(window.astype(int) - image[start : start + 32, start : start + 32]).max() <= 1
    rows = study_figures._examples(made, {"test": cases}, measured)
    assert len(rows) == made.evaluation.examples
    for name, levels, *_ in rows:
        case = memory.cases.index(name.partition(":")[0])
        y, x = np.array(divmod(augment.case_corners([memory.cases[case]])[0], 2)) * 32
        assert abs(levels.astype(int) - memory.images[case, y : y + 32, x : x + 32]).max() <= 1


def test_one_padding_is_compared_with_none_and_without_a_defined_case_none_is_shown(written):
    cfg = config()
    with cfg.unlocked():
        cfg.evaluation.resamples = 20
    measured = {Run(ZERO, view): drawn_measures(0.5, 0.8, seed) for seed, view in enumerate(("original", "quadrant"))}
    measured[Run(ZERO, "original")]["quadrant_border"][:] = np.nan
    found = written(STUDY, settings(cfg), fake_splits(), study.Measured(measured, fake_centres()), cfg)
    assert not {"figure networks", "figure examples"} & found.keys() and "figure bands" in found
    sections = {section["title"]: section for section in found["page"]["sections"]}
    assert (
        sections["Network and padding as factors"]["figures"]
        == sections["Network and padding as factors"]["tables"]
        == []
    )
    assert [title for title, *_ in sections["By distance from the centre"]["figures"]] == ["The same, case by case"]


class Threshold(nn.Module):
    """Lesion where the first channel is bright, pixel by pixel."""

    @nn.compact
    def __call__(self, images, train=False):
        return jnp.stack([jnp.zeros_like(images[..., 0]), images[..., 0]], -1)


def test_a_network_is_measured_on_both_views_and_in_all_windows(monkeypatch, tmp_path):
    made, splits, asked = settings(config()), fake_splits(), []

    def load_best(run, folder, shape, num_classes):
        asked.append((folder, shape, num_classes))
        return Threshold(), {}, {"step": 7, "validation_dice": 0.5}

    monkeypatch.setattr(study.runs, "load_best", load_best)
    monkeypatch.setattr(study.features, "measure", lambda *_: {"position": np.arange(3)})
    found = study.measure(made, made.of_run(Run(ZERO, "original")), tmp_path, OfTwoClasses(splits))
    test = splits["test"]
    assert asked == [(tmp_path, test.images.shape, 2)]
    assert (found["step"], found["validation_dice"], list(found["position"])) == (7, 0.5, [0, 1, 2])
    for name in study.TEST_VIEWS:
        seen = augment.testing_view(name, size=32, cases=test.cases)
        stored = {"image": test.images, "labels": test.labels, "index": np.arange(len(test))}
        seen = {key: np.asarray(value) for key, value in jax.jit(seen)(stored).items()}
        predicted = seen["images"][..., 0] > 0
        np.testing.assert_array_equal(found[f"{name}_predictions"], predicted)
        labels = seen["labels"] > 0
        dice = 2 * (labels & predicted).sum((1, 2)) / (labels.sum((1, 2)) + predicted.sum((1, 2)))
        np.testing.assert_allclose(found[f"{name}_dice"], dice, rtol=1e-6)
    # pixels that are judged by themselves do not change when the window moves
    cases = np.linspace(0, len(test) - 1, made.evaluation.window_images).astype(int)
    np.testing.assert_array_equal(found["agreement_case"], cases)
    np.testing.assert_array_equal(found["agreement"], np.ones(len(cases)))
    shown = test.images[moving_window.pick_case(test.labels)]
    for window, start in zip(found["windows"], (0, 16, 32), strict=True):
        np.testing.assert_array_equal(window > 0, shown[start : start + 32, start : start + 32, 0] > 127)


class OfTwoClasses(dict):
    num_classes = 2


def test_a_folder_keeps_its_config(tmp_path):
    cfg = config()
    runs.claim(tmp_path / "a", cfg)  # looks, and writes nothing
    assert not (tmp_path / "a").exists()
    runs.claim(tmp_path / "a", cfg, data={"train": "1f"})
    runs.claim(tmp_path / "a", config(), data={"train": "1f"})
    with pytest.raises(InputError, match=r"was made with other data: train differs; choose another work directory"):
        runs.claim(tmp_path / "a", cfg, data={"train": "2e"})
    assert json.loads((tmp_path / "a" / "config.json").read_text())["training"]["epochs"] == cfg.training.epochs
    other = config()
    other.training.epochs = 7
    with pytest.raises(InputError, match=r"another config: config.training.epochs is 2 there and 7 here"):
        runs.claim(tmp_path / "a", other)
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(InputError, match="choose another work directory"):
        runs.claim(tmp_path / "a", cfg)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another work directory"):
        runs.claim(tmp_path / "file", cfg, data={})
