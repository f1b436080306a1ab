"""What holds for every public function of analyses and metrics: any array that is one, every switch of JAX, no batch.

A new function joins by its name in `CALLS`; the first test asks for it.
"""

import importlib
import inspect
import pathlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseg.analysis
import jaxseg.metrics
from jaxseg.analysis import gradcam, hellinger, mahalanobis, position, prototypes, uncertainty, vog
from jaxseg.metrics import calibration, overlap, regions
from jaxseg.metrics.domain_ranking import Domains
from jaxseg.metrics.resampled_ranking import Observations

HELPERS = {"arrays", "draws", "layout", "pixels"}  # what the functions check their arguments and draw patients with
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((4, 6, 8, 3)).astype(np.float32)
MASK = RANDOM.uniform(size=(4, 12, 16)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, (4, 12, 16)).astype(np.int32)
PREDICTIONS = RANDOM.integers(0, 3, (4, 12, 16)).astype(np.int32)
PROBABILITIES = RANDOM.dirichlet(np.ones(3), (4, 12, 16)).astype(np.float32)
LOGITS = RANDOM.standard_normal((4, 12, 16, 3)).astype(np.float32)
OTHERS = RANDOM.standard_normal((4, 12, 16, 3)).astype(np.float32)
VECTORS = RANDOM.standard_normal((20, 3)).astype(np.float32)
IMAGES = RANDOM.standard_normal((4, 12, 16, 2)).astype(np.float32)
SCORES = RANDOM.integers(0, 6, 12) / 4
RISKS = RANDOM.integers(0, 8, 12) / 8
SCORE_ROWS, RISK_ROWS = np.stack([SCORES, SCORES[::-1]]), np.stack([RISKS, RISKS])
PATIENTS = np.arange(12) // 2
FOLDS = np.arange(4, dtype=np.int32) % 2
DOMAINS = Domains(("validation", "test", "b"), "validation", "test", ("b",))
OF_DOMAINS = np.array(DOMAINS.names)[np.arange(12) % 3]
OBSERVED = Observations(SCORE_ROWS, RISK_ROWS, np.array([0, 1]), ("SD", "PM"), OF_DOMAINS, PATIENTS)


def host(state):
    return jax.tree.map(np.asarray, state)


def twice(x):
    """Stands for the rest of a network."""
    return jnp.concatenate([x, -x], -1)


RANGE = host(hellinger.update_range(hellinger.init_range(3), VECTORS))
HISTOGRAMS = host(hellinger.update(hellinger.init(*RANGE, bins=8), VECTORS))
SHIFTED = host(hellinger.update(hellinger.init(*RANGE, bins=8), VECTORS[:11]))
PATIENT_COUNTS = np.stack([HISTOGRAMS.counts, SHIFTED.counts]), np.stack([SHIFTED.counts, SHIFTED.counts])
MOMENTS = host(mahalanobis.update(mahalanobis.init(3), VECTORS))
FITTED = host(mahalanobis.fit(VECTORS))
POSITIONS = host(position.update(position.init(3, folds=2), FEATURES, FOLDS))
GRADIENTS = host(vog.update(vog.init((4, 12, 16)), IMAGES))
COUNTS = host(overlap.class_counts(LABELS, PREDICTIONS, num_classes=3))
RELIABILITY = host(calibration.calibration_sums(PROBABILITIES, LABELS))
VALID = LABELS > 0
WINDOWS = RANDOM.uniform(size=(3, 12, 16)) < 0.5

CALLS = {
    "cells.averaged": ((FEATURES, (2, 3)), {}),
    "cells.counted": ((LABELS > 0, (6, 5)), {}),
    "cells.shares": ((LABELS > 0, (6, 5)), {}),
    "distortion.autoencoder_loss": ((LOGITS, OTHERS, FEATURES, FEATURES + 1), {}),
    "distortion.distortion_map": ((LOGITS, OTHERS), {}),
    "distortion.segmentation_distortion": ((LOGITS, OTHERS), {}),
    "gradcam.gradcam": ((FEATURES, FEATURES[::-1].copy()), {"size": (12, 16)}),
    "gradcam.saliency_share": ((MASK, LABELS > 0), {}),
    "gradcam.score_gradients": ((twice, FEATURES), {"class_index": 1, "region": MASK[:, :6, :8].copy()}),
    "hellinger.compute": ((HISTOGRAMS, SHIFTED), {}),
    "hellinger.hellinger_distance": ((VECTORS, VECTORS[:11] + 1), {"bins": 8}),
    "hellinger.init": (tuple(RANGE), {}),
    "hellinger.init_range": ((3,), {}),
    "hellinger.layer_distance": ((MASK,), {}),
    "hellinger.merge": ((HISTOGRAMS, SHIFTED), {}),
    "hellinger.merge_range": ((RANGE, RANGE), {}),
    "hellinger.pool_vectors": ((FEATURES,), {"grid": (3, 4), "valid": VALID}),
    "hellinger.split_half_null": ((jax.random.key(0), FEATURES[:, :, 0]), {"splits": 2, "bins": 8}),
    "hellinger.symmetric_kl": ((HISTOGRAMS, SHIFTED), {}),
    "hellinger.update": ((HISTOGRAMS, VECTORS), {}),
    "hellinger.update_range": ((RANGE, VECTORS + 1), {}),
    "hellinger.wasserstein": ((HISTOGRAMS, SHIFTED), {}),
    "hellinger.weighted_distances": ((RANGE, *PATIENT_COUNTS, np.eye(2), np.array([[1.0, 2], [2, 0]])), {}),
    "mahalanobis.distance": ((FITTED, VECTORS), {}),
    "mahalanobis.finish": ((MOMENTS,), {}),
    "mahalanobis.fit": ((VECTORS,), {}),
    "mahalanobis.init": ((3,), {}),
    "mahalanobis.merge": ((MOMENTS, MOMENTS), {}),
    "mahalanobis.pool": ((FEATURES,), {"valid": VALID}),
    "mahalanobis.update": ((MOMENTS, VECTORS), {}),
    "position.border_distance": (((5, 7),), {}),
    "position.compute": ((POSITIONS,), {}),
    "position.init": ((3,), {"folds": 2}),
    "position.merge": ((POSITIONS, POSITIONS), {}),
    "position.position_r2": ((FEATURES,), {"folds": 2, "valid": VALID}),
    "position.update": ((POSITIONS, FEATURES, FOLDS), {}),
    "projection.principal_components": ((VECTORS,), {}),
    "prototypes.active_units": ((RISK_ROWS, SCORES[:2], 0.5), {}),
    "prototypes.class_probabilities": ((FEATURES, PROBABILITIES), {}),
    "prototypes.class_sa_scores": ((FEATURES, PROBABILITIES, LABELS), {}),
    "prototypes.mean_sa_score": (([FEATURES, LOGITS], MASK), {}),
    "prototypes.object_probability": ((FEATURES, MASK), {"region": MASK[::-1].copy()}),
    "prototypes.prototypes": ((FEATURES, MASK), {}),
    "prototypes.sa_difference": ((FEATURES + 1, MASK, FEATURES, MASK[::-1].copy(), LABELS), {}),
    "prototypes.sa_loss": (([FEATURES, LOGITS], MASK, LABELS), {}),
    "prototypes.sa_score": ((FEATURES, MASK, LABELS), {}),
    "prototypes.segmentation_gain": ((IMAGES, MASK, LABELS), {}),
    "prototypes.unit_heat_map": ((np.tile(FEATURES, 6), MASK), {}),
    "prototypes.unit_object_probability": ((FEATURES, MASK), {}),
    "prototypes.unit_sa_scores": ((FEATURES, MASK, LABELS), {}),
    "resampling.matrix": ((3, 5), {}),
    "resampling.upsample": ((FEATURES, (12, 16)), {}),
    "resampling.upsample_adjoint": ((LOGITS, (6, 8)), {}),
    "uncertainty.ensemble_entropy": ((PROBABILITIES,), {}),
    "uncertainty.entropy": ((PROBABILITIES,), {"valid": VALID}),
    "uncertainty.maximum_probability": ((PROBABILITIES,), {}),
    "uncertainty.mutual_information": ((PROBABILITIES,), {}),
    "uncertainty.pairwise_dice": ((np.stack([LABELS, PREDICTIONS, LABELS[::-1]]),), {"num_classes": 3}),
    "vog.compute": ((GRADIENTS,), {"valid": VALID}),
    "vog.init": (((4, 12, 16),), {}),
    "vog.input_gradients": ((twice, IMAGES), {"labels": LABELS}),
    "vog.merge": ((GRADIENTS, GRADIENTS), {}),
    "vog.update": ((GRADIENTS, IMAGES), {}),
    "vog.variance_of_gradients": ((np.stack([IMAGES, IMAGES[::-1]]),), {}),
    "calibration.brier": ((PROBABILITIES, LABELS), {"valid": VALID}),
    "calibration.calibration_error_from_sums": ((RELIABILITY,), {}),
    "calibration.calibration_sums": ((PROBABILITIES, LABELS), {}),
    "calibration.expected_calibration_error": ((PROBABILITIES, LABELS), {}),
    "domain_ranking.areas": ((OBSERVED, DOMAINS), {}),
    "domain_ranking.correlations": ((OBSERVED, DOMAINS), {}),
    "domain_ranking.detection": ((OBSERVED, DOMAINS, np.array([0.5, 1.0])), {}),
    "domain_ranking.thresholds": ((OBSERVED, DOMAINS, 0.95), {}),
    "intervals.bootstrap_contrast": (([(1.0, SCORES), (-1.0, RISKS)], PATIENTS), {"resamples": 20}),
    "intervals.bootstrap_mean": ((SCORES, PATIENTS), {"resamples": 20}),
    "intervals.check_options": ((0.95, 20), {}),
    "intervals.defined_mean": ((SCORES,), {}),
    "intervals.exact_interval": ((3, 10), {}),
    "intervals.interval": ((SCORES, 0.9), {}),
    "intervals.patient_names": ((PATIENTS,), {}),
    "overlap.absent_class_share": ((COUNTS,), {}),
    "overlap.area_ratio": ((COUNTS,), {}),
    "overlap.check_labels": ((LABELS, PREDICTIONS), {}),
    "overlap.class_counts": ((LABELS, PREDICTIONS), {"num_classes": 3}),
    "overlap.case_counts": ((LABELS, PREDICTIONS), {"num_classes": 3}),
    "overlap.class_mean_iou": ((COUNTS,), {"classes": (2,)}),
    "overlap.dice": ((LABELS, PREDICTIONS), {"num_classes": 3, "valid": VALID}),
    "overlap.dice_from_counts": ((COUNTS,), {}),
    "overlap.dice_from_sums": ((COUNTS[..., 0], COUNTS[..., 1]), {"empty": 1.0, "smooth": 0.0}),
    "overlap.iou_from_counts": ((COUNTS,), {}),
    "overlap.labelled_dice": ((COUNTS,), {}),
    "overlap.mean_iou": (([COUNTS, COUNTS[:2]],), {}),
    "ranking.auroc": ((SCORES, RISKS), {}),
    "ranking.bootstrap": ((lambda x, y: float(x @ y), {"x": SCORES, "y": RISKS}, PATIENTS), {"resamples": 20}),
    "ranking.coverage_table": ((SCORES, RISKS, PATIENTS), {"resamples": 20}),
    "ranking.fpr_at_95": ((SCORES, RISKS), {}),
    "ranking.kept_gain": ((SCORES, RISKS), {"coverage": 0.5}),
    "ranking.ood_accuracy": ((SCORES, RISKS, RISKS + 1), {}),
    "ranking.ranks": ((SCORES,), {}),
    "ranking.risk_coverage": ((SCORES, RISKS), {}),
    "ranking.spearman": ((SCORES, RISKS), {}),
    "ranking.spearman_estimate": ((SCORES, RISKS, PATIENTS), {"resamples": 20}),
    "regional.dice_from_region_sums": ((np.stack([SCORES, SCORES + RISKS], -1),), {}),
    "regional.foreground_dice": ((LABELS, PREDICTIONS), {"valid": VALID}),
    "regional.region_sums": ((LABELS, PREDICTIONS, LABELS < 2), {}),
    "regions.band_dice": ((LABELS, PREDICTIONS), {"width": 3}),
    "regions.band_index": (((12, 16), 3), {}),
    "regions.mask_centres": ((LABELS,), {}),
    "regions.outer_distances": (((12, 16), 3), {}),
    "regions.window_agreement": ((WINDOWS, WINDOWS[::-1].copy()), {}),
    "resampled_ranking.auroc_rows": ((SCORE_ROWS, RISK_ROWS), {}),
    "resampled_ranking.fpr_at_95_rows": ((SCORE_ROWS, RISK_ROWS), {}),
    "resampled_ranking.risk_areas": ((SCORE_ROWS, RISK_ROWS), {}),
    "resampled_ranking.spearman_rows": ((SCORE_ROWS, RISK_ROWS), {}),
    "surface.hausdorff95": ((LABELS, PREDICTIONS), {"num_classes": 3, "spacing": np.array([1.0, 2.0])}),
    "surface.surface_dice": (
        (LABELS, PREDICTIONS),
        {"num_classes": 3, "spacing": np.array([1.0, 2.0]), "tolerance": 1.0, "valid": VALID},
    ),
}


def public():
    found = {}
    for package in (jaxseg.analysis, jaxseg.metrics):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name in HELPERS:
                continue
            loaded = importlib.import_module(f"{package.__name__}.{module.name}")
            for name, member in vars(loaded).items():
                own = getattr(member, "__module__", None) == loaded.__name__
                if own and inspect.isroutine(inspect.unwrap(member)) and not name.startswith("_"):
                    found[f"{module.name}.{name}"] = member
    return found


FUNCTIONS = public()


def run(name, change=lambda array: array, only=None):
    """The function's result when `change` was made to its arrays, or to those with the numbers `only`."""
    leaves, tree = jax.tree.flatten(CALLS[name])
    places = [i for i, leaf in enumerate(leaves) if is_numbers(leaf)]
    for i in places if only is None else [places[number] for number in only]:
        leaves[i] = change(leaves[i])
    args, kwargs = jax.tree.unflatten(tree, leaves)
    return FUNCTIONS[name](*args, **kwargs)


def is_numbers(leaf):
    return isinstance(leaf, np.ndarray) and leaf.ndim > 0


def own_arrays(name):
    """The arrays that are arguments themselves, not parts of a state, by their number among all."""
    args, kwargs = CALLS[name]
    states = tuple(type(x) for x in (RANGE, HISTOGRAMS, MOMENTS, FITTED, POSITIONS, GRADIENTS))
    marked = jax.tree.map(
        lambda x: jax.tree.map(lambda _: isinstance(x, np.ndarray), x),
        (args, kwargs),
        is_leaf=lambda x: isinstance(x, states),
    )
    flags = [
        mark for mark, leaf in zip(*map(jax.tree.leaves, (marked, (args, kwargs))), strict=True) if is_numbers(leaf)
    ]
    return [i for i, flag in enumerate(flags) if flag]


def assert_same(ours, theirs, **tolerance):
    pairs = zip(jax.tree.leaves(plain(ours)), jax.tree.leaves(plain(theirs)), strict=True)
    for ours, theirs in pairs:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.dtype == theirs.dtype
        if ours.dtype.kind in "fiub":
            np.testing.assert_allclose(ours, theirs, **{"rtol": 0, "atol": 0} | tolerance)


def plain(result):
    """Dataclasses as dictionaries, so that all numbers are leaves."""
    rows = result if isinstance(result, tuple) and not hasattr(result, "_fields") else (result,)
    return [vars(row) if hasattr(row, "__dataclass_fields__") else row for row in rows]


def long(array):
    return array.astype({"f": np.float64, "i": np.int64}.get(array.dtype.kind, array.dtype))


def worded(*args):
    """Whether `run` ended in an error that this project worded; False where it gave a result.

    The arrays are concrete, but what is computed from them is only traced: that tells shapes and types apart, and
    compiles nothing.
    """
    try:
        jax.eval_shape(lambda: [run(*args)][:0])
    except (ValueError, TypeError) as error:
        frames = error.__traceback__
        while frames.tb_next:
            frames = frames.tb_next
        where = pathlib.Path(frames.tb_frame.f_code.co_filename)
        assert where.parent.name in ("analysis", "metrics"), f"{where}: {error}"
        assert where.parent.parent.name == "jaxseg", f"{where}: {error}"
        return True
    return False


ARRAYS = [name for name in CALLS if any(is_numbers(leaf) for leaf in jax.tree.leaves(CALLS[name]))]
TAKING = [(name, i) for name in ARRAYS for i in own_arrays(name)]
ANY_SHAPE = {"overlap.dice_from_sums", "hellinger.layer_distance", "regional.dice_from_region_sums"}
SECOND_AXIS = {"uncertainty.pairwise_dice", "vog.variance_of_gradients"}  # is that of the batch
AS_GIVEN = {"gradcam.score_gradients", "vog.input_gradients"}  # the result has the type of what is given
PATIENT_COLUMNS = {"intervals", "ranking"}  # where an array may also be names


def test_every_public_function_is_held_to_this():
    assert sorted(CALLS) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_other_byte_orders_and_layouts_give_the_same_numbers(name):
    expected = run(name)
    swapped = lambda array: array.astype(array.dtype.newbyteorder("S"))

    def field(array):
        record = np.zeros(array.shape, [("other", "u1"), ("it", array.dtype.newbyteorder("S"))])
        record["it"] = array
        return record["it"]

    def frozen(array):
        array = np.asfortranarray(array)
        array.flags.writeable = False
        return array

    backwards = lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if name not in AS_GIVEN:
        assert_same(run(name, long, own_arrays(name)), expected)
    for change in (swapped, field, frozen, backwards, np.ma.masked_array):
        assert_same(run(name, change), expected)


@pytest.mark.parametrize("name", ARRAYS)
def test_results_do_not_depend_on_the_switches_of_jax(name):
    expected = run(name)
    switches = jax.enable_x64(True), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict")
    with switches[0], switches[1], switches[2]:
        assert_same(run(name), expected, rtol=2e-6, atol=2e-6)
        if name not in AS_GIVEN:
            assert_same(run(name, long, own_arrays(name)), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("name", "i"), TAKING)
def test_what_is_no_array_of_numbers_is_refused_in_words(name, i):
    masked = lambda array: np.ma.masked_array(array, np.arange(array.size).reshape(array.shape) == 0)
    changes = [masked, lambda array: array.astype(complex), lambda array: array.astype(object)]
    if name.partition(".")[0] in PATIENT_COLUMNS and i == len(own_arrays(name)) - 1:
        return  # patients: any names
    for change in changes:
        assert worded(name, change, [i])


@pytest.mark.parametrize(("name", "i"), TAKING)
def test_a_wrong_rank_is_an_error_in_words(name, i):
    scalar = lambda array: array.ravel()[0]
    assert worded(name, scalar, [i]) or name == "overlap.dice_from_sums"
    for change in (lambda array: array[0], lambda array: array[None]):
        worded(name, change, [i])  # raises what is not worded; some functions take any rank


@pytest.mark.parametrize("name", ARRAYS)
def test_no_batch_is_no_result_or_an_error_in_words(name):
    own = own_arrays(name)
    worded(name, lambda array: array[:0], own)
    if any(leaf.ndim > 2 for leaf in jax.tree.leaves(CALLS[name]) if is_numbers(leaf)) and own:
        rows = lambda array: array[:, :0] if array.ndim > 2 else array
        assert worded(name, rows, own) or name in ANY_SHAPE | SECOND_AXIS


def test_batches_of_no_images_have_as_many_scores():
    no = lambda array: array[:0]
    distances, scores = regions.band_dice(no(LABELS), no(PREDICTIONS), width=3)
    assert scores.shape == (0, len(distances)) and len(distances) == 2
    assert regions.mask_centres(no(LABELS)).shape == (0, 2)
    assert overlap.dice(no(LABELS), no(PREDICTIONS), num_classes=3).shape == (0, 2)
    assert calibration.calibration_sums(no(PROBABILITIES), no(LABELS), bins=5).shape == (0, 5, 3)
    assert calibration.expected_calibration_error(no(PROBABILITIES), no(LABELS)).shape == (0,)
    assert calibration.brier(no(PROBABILITIES), no(LABELS)).shape == (0,)
    assert gradcam.gradcam(no(FEATURES), no(FEATURES)).shape == (0, 6, 8)
    with pytest.raises(ValueError, match="empty"):
        uncertainty.entropy(no(PROBABILITIES))
    with pytest.raises(ValueError, match="empty"):
        prototypes.sa_score(no(FEATURES), no(MASK), no(LABELS))
