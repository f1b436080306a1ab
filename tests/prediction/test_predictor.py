"""Networks whose answer is known, and the folder of a run: masks, scores, and what these are held against."""

import functools
import json
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder, train
from jaxseg import inference, models
from jaxseg.analysis import distortion, prototypes, uncertainty
from jaxseg.data import augment, builders, pipeline, resizing
from jaxseg.data.pipeline import Preparation
from jaxseg.data.windows import Tiling
from jaxseg.errors import InputError
from jaxseg.models import capture, tracing
from jaxseg.models.autoencoder import Autoencoder
from jaxseg.models.layers import over_image
from jaxseg.models.skeleton import Roles
from jaxseg.networks import of_linen
from jaxseg.prediction import network, predictor
from jaxseg.prediction.inputs import TrainedOn
from jaxseg.prediction.predictor import Predictor
from jaxseg.training import checks, contract, runs
from jaxseg.training import trained as trained_network
from jaxseg.training.checkpoints import Checkpoints

SHARPNESS = 40.0


class Identity(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x


class Threshold(nn.Module):
    """Object where the first channel is above the middle gray."""

    roles = Roles(None, (), (), ("conv_0", "conv_1"))

    @nn.compact
    def __call__(self, images, train=False):
        x = Identity(name="conv_1")(Identity(name="conv_0")(images))
        return jnp.concatenate([jnp.zeros_like(x[..., :1]), SHARPNESS * x[..., :1]], -1)


def fake_run(
    folder=pathlib.Path("nowhere"), *, size=16, rank=2, volumes=False, channels=1, members=1, geometry="squash"
):
    config = train.get_config("tiny").unlock()
    config.data.update(source_size=size, image_size=size, geometry=geometry)
    known = TrainedOn(("background", "object"), channels, rank, Preparation(None, None, volumes))
    network = of_linen(Threshold(), {}, image_size=(size,) * rank, channels=channels)
    made = trained_network.of_config(config.lock(), (network,) * members, known, name=str(folder), folder=folder)
    return made._replace(steps=(7,) * members)


@functools.cache
def asked(tiling=None, *, rank=2, volumes=False, batch=8):
    """A predictor of `fake_run`, whose programs are compiled once for all that is asked of it."""
    return Predictor(fake_run(rank=rank, volumes=volumes), tiling, batch=batch)


def noise(*size, channels=1):
    return np.random.default_rng(3).integers(0, 256, (*size, channels), np.uint8)


def stripes(*size):
    """Bright where the last axis says so, with edges at multiples of a quarter of it."""
    quarter = np.arange(size[-1]) * 4 // size[-1]
    return np.broadcast_to(np.where(quarter % 2, 230, 25), size)[..., None].astype(np.uint8)


def test_squashing_is_the_networks_answer_interpolated():
    image = noise(50, 41)
    found = asked().predict(image, (50, 41), probabilities=True)
    seen = resizing.resize(image, (16, 16)).astype(np.float64) / 127.5 - 1
    wanted = jax.image.resize((1 / (1 + np.exp(-SHARPNESS * seen)))[..., 0].astype(np.float32), (50, 41), "linear")
    np.testing.assert_allclose(found.probabilities[..., 1], wanted, atol=1e-5)
    clear = abs(np.asarray(wanted) - 0.5) > 1e-4
    np.testing.assert_array_equal(found.labels[clear], (np.asarray(wanted) > 0.5)[clear])
    assert found.labels.dtype == np.uint8 and clear.mean() > 0.99


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (40, 32), (7, 16)])
def test_masks_lie_over_images_whose_edges_the_network_can_see(size):
    image = stripes(*size)
    found = asked().predict(image, size)
    np.testing.assert_array_equal(found.labels, image[..., 0] > 127)


@pytest.mark.parametrize("tile", [16, 24, 51])
@pytest.mark.parametrize("size", [(100, 61), (10, 200)])
def test_tiles_give_the_threshold_itself(size, tile):
    image = noise(*size)
    found = asked(Tiling(tile, 0.4)).predict(image, size)
    np.testing.assert_array_equal(found.labels, image[..., 0] > 127)


@pytest.mark.parametrize("tiling", [None, Tiling(16, 0.5)])
def test_volumes_go_slice_by_slice_through_a_network_for_pictures(tiling):
    image = np.stack([stripes(32, 48), stripes(32, 48)[:, ::-1], np.zeros((32, 48, 1), np.uint8)] * 4)[:11]
    found = asked(tiling, volumes=True, batch=4).predict(image, (11, 32, 48), probabilities=True)
    np.testing.assert_array_equal(found.labels, image[..., 0] > 127)
    assert found.probabilities.shape == (11, 32, 48, 2)
    assert found.scores["mean_sa"] == 1  # of the slices that have an object
    assert math.isnan(asked(tiling).predict(image[2:3], (1, 32, 48)).scores["mean_sa"])


@pytest.mark.parametrize("tiling", [None, Tiling(16, 0.5)])
def test_a_network_for_volumes_sees_them_whole(tiling):
    image = np.moveaxis(stripes(40, 20, 32), 2, 0)  # slices differ
    found = asked(tiling, rank=3).predict(image, image.shape[:-1])
    np.testing.assert_array_equal(found.labels, image[..., 0] > 127)


def test_scores_of_two_gray_levels_in_closed_form():
    """Every unit maps the object exactly; the entropy is the mean of those of two probabilities."""
    image = np.where(stripes(16, 16) > 127, 136, 120).astype(np.uint8)
    scores = asked().predict(image, (16, 16)).scores
    assert list(scores) == ["mean_sa", "entropy"] and scores["mean_sa"] == 1
    p = 1 / (1 + np.exp(-SHARPNESS * (np.array([120, 136]) / 127.5 - 1)))
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    assert scores["entropy"] == pytest.approx(entropy, rel=1e-5)


def test_with_tiles_the_score_of_an_image_is_the_mean_over_them():
    image = noise(16, 40)
    found = asked(Tiling(16, 0.0)).predict(image, (16, 40)).scores
    starts = (0, 16, 32)
    mirrored = np.pad(image, ((0, 0), (0, 8), (0, 0)), "reflect")
    each = [asked().predict(mirrored[:, s : s + 16], (16, 16)).scores for s in starts]
    for name, value in found.items():
        assert value == pytest.approx(np.mean([one[name] for one in each]), rel=1e-5)


def test_padding_around_an_image_that_is_smaller_than_a_patch_counts_in_no_score():
    """The same scores as where it is padded to one size."""
    scores = []
    for geometry in ("keep", "patches"):
        predictor_of = Predictor(fake_run(size=16, geometry=geometry))
        scores.append(predictor_of.predict(noise(8, 8), (8, 8)).scores)
    whole, slid = scores
    assert whole.keys() == slid.keys() and whole["entropy"] > 0
    for name, value in whole.items():
        np.testing.assert_allclose(slid[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (Tiling(16, 1.5), "--tile: overlap is 1.5"),
        (Tiling(0), "size is 0"),
        (Tiling(8, 0.1, "cubic"), "blend is 'cubic'"),
    ],
)
def test_impossible_tiles_are_refused(tiling, message):
    with pytest.raises(InputError, match=message):
        Predictor(fake_run(), tiling)


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("unet", {"features": (4, 8, 8)}, ("decoder_0/conv_0", "decoder_0/conv_1")),
        ("unet", {"features": (4, 8), "padding": "valid"}, ("decoder_0/conv_0", "decoder_0/conv_1")),
        ("residual_unet", {"features": (4, 8)}, ("head/block/conv_0", "head/block/conv_1")),
        ("dtu_net", {"features": (4, 8, 8), "topology_features": (4, 8)}, None),
        ("resnet_unet", {}, ("decoder_4/conv_0", "decoder_4/conv_1")),
        ("nnunet", {"features": (4, 8), "padding": "valid"}, ("decoder_0/conv_0", "decoder_0/conv_1")),
    ],
)
def test_every_network_has_two_last_layers_which_cover_the_image(name, options, layers):
    module = models.build(name, 2, **options)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = tracing.variable_shapes(module, image.shape)
    found = network.quality_layers(of_linen(module, variables, image_size=32))
    assert len(found) == 2 and (layers is None or found == layers)

    def shapes(variables, image):
        activations = capture.capture(module, variables, image, found)[1]
        return [over_image(activations[layer], image.shape[1:-1]) for layer in found]

    assert {array.shape[1:-1] for array in jax.eval_shape(shapes, variables, image)} == {(32, 32)}


# The folders of a run and of an autoencoder of its network, with drawn weights: training has tests of its own.


@pytest.fixture(scope="module")
def prepare(drawn_data):
    return lambda name: builders.prepare(name, data_dir=drawn_data(name))


def write_run(folder, config, module, shape, seed):
    runs.claim(folder, config, data={})
    random = np.random.default_rng(seed)
    drawn = lambda leaf: np.float32(
        random.uniform(-0.5, 0.5, leaf.shape) ** 2 + 0.2 * random.standard_normal(leaf.shape)
    )
    variables = jax.tree.map(
        lambda leaf: abs(drawn(leaf)) if leaf.ndim == 1 else drawn(leaf),
        tracing.variable_shapes(module, (1, *shape)),
    )
    (folder / "checkpoints").mkdir()
    with Checkpoints(folder / "checkpoints") as store:
        store.save(variables, {}, step=3, score=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("run"), train.get_config("tiny").unlock()
    config.data.image_size = 16
    config.model.update(features=(4, 8), skips=(True,))
    write_run(folder / "run", config, checks.build_model(config, 2), (16, 16, 3), 0)
    coder = autoencoder.get_config("tiny").unlock()
    coder.data.image_size = 16
    coder.network = str(folder / "run")
    write_run(folder / "autoencoder", coder, Autoencoder((8, 8, 8), latent=8, width=4), (8, 8, 8), 1)
    return folder / "run", folder / "autoencoder"


@pytest.fixture(scope="module")
def loaded(trained, prepare):
    run = trained_network.of_run(trained[0], prepare)
    return run, network.load_repair(trained[1], run)


@pytest.fixture(scope="module")
def with_repair(loaded):
    return Predictor(loaded[0], repair=loaded[1])


def test_predictions_and_scores_are_those_of_the_library(loaded, with_repair, prepare):
    run, repair = loaded
    layers = ("decoder_0/conv_0", "decoder_0/conv_1")

    @jax.jit
    def by_hand(member, batch):
        seen = augment.whole(batch, size=16)["images"]
        logits, activations = capture.capture(member.model, member.variables, seen, (*layers, repair.layer))
        probabilities = jax.nn.softmax(logits)
        familiar = repair.module.apply(repair.variables, activations[repair.layer])
        after = capture.replace(member.model, member.variables, seen, {repair.layer: lambda _: familiar})
        scores = {
            "mean_sa": prototypes.mean_sa_score([activations[name] for name in layers], 1 - probabilities[..., 0]),
            "entropy": uncertainty.entropy(probabilities),
            "distortion": distortion.segmentation_distortion(logits, after),
        }
        return inference.predict(member, seen), probabilities, scores

    split = pipeline.Split(prepare("dermoscopy/tiny"), "test", size=64)
    for case in (split[0], split[5]):
        found = with_repair.predict(case["image"], (16, 16), probabilities=True)
        batch = {name: case[name][None] for name in ("image", "labels")}
        labels, probabilities, scores = by_hand(run.members[0], batch)
        np.testing.assert_array_equal(found.labels, labels[0])
        np.testing.assert_allclose(found.probabilities, probabilities[0], atol=1e-5)
        for name, value in found.scores.items():
            assert value == pytest.approx(float(scores[name][0]), rel=1e-3, abs=1e-9, nan_ok=True)


def test_what_a_run_takes_is_kept_in_its_folder(loaded, trained):
    def never(name):
        raise AssertionError(f"{name} was asked for")

    again = trained_network.of_run(trained[0], never)
    assert again.trained_on == loaded[0].trained_on
    assert again.trained_on == TrainedOn(("background", "lesion"), 3, 2, Preparation(None, 64, False))
    (trained[0] / "trained_on.json").write_text("{")
    with pytest.raises(AssertionError, match="dermoscopy/tiny was asked for"):
        trained_network.of_run(trained[0], never)


def test_the_scores_of_the_validation_cases_are_computed_once(loaded, with_repair, prepare, trained):
    run, _ = loaded
    asked = []

    def counted(name):
        asked.append(name)
        return prepare(name)

    first = predictor.reference(with_repair, counted)
    again = predictor.reference(with_repair, counted)
    assert asked == ["dermoscopy/tiny"]
    assert list(first.cases) == ["mean_sa", "entropy", "distortion"] and len(first.cases["entropy"]) == 16
    for name, values in first.cases.items():
        np.testing.assert_array_equal(values, again.cases[name])
    split = pipeline.Split(prepare("dermoscopy/tiny"), "validation", size=None)
    scores = with_repair.predict(split[3]["image"], (64, 64)).scores
    assert first.cases["entropy"][3] == pytest.approx(scores["entropy"], rel=1e-5)
    predictor.reference(Predictor(run, Tiling(16)), counted)  # of tiles: others
    (path,) = trained[0].glob(f"quality_step{run.steps[0]}_squashed_*.json")
    path.write_text(path.read_text()[:-40])  # damaged
    predictor.reference(with_repair, counted)
    stored = json.loads(path.read_text())
    del stored["scores"]["entropy"]  # as of a version without this score
    path.write_text(json.dumps(stored))
    assert len(predictor.reference(with_repair, counted).cases["entropy"]) == 16
    assert len(asked) == 4
    assert len(list(trained[0].glob("quality_*"))) == 2
    assert len(json.loads(path.read_text())["cases"]) == 16


def test_slices_of_the_validation_cases_are_held_against_slices_and_volumes_against_volumes(tmp_path, monkeypatch):
    run = fake_run(tmp_path, volumes=True)
    cases = [
        {"case": f"p{v}_{z:03d}", "image": noise(8, 8), "labels": np.zeros((8, 8)), "spacing": (1.0, 1.0)}
        for v in (1, 2)
        for z in (0, 1)
    ]
    monkeypatch.setattr(predictor, "_validation_cases", lambda *_: cases)
    found = predictor.reference(Predictor(run), lambda name: tmp_path)
    assert len(found.cases["entropy"]) == 4 and len(found.volumes["entropy"]) == 2
    np.testing.assert_allclose(found.volumes["entropy"], found.cases["entropy"].reshape(2, 2).mean(1))
    del cases[1:]  # a single one
    (path,) = tmp_path.glob("quality_*")
    path.unlink()
    again = predictor.reference(Predictor(run), lambda name: tmp_path)
    assert again.cases["entropy"] == again.volumes["entropy"] == found.cases["entropy"][:1]


def test_of_a_cross_validation_the_fold_that_was_held_out_is_the_reference(tmp_path, prepare):
    config = train.get_config("tiny").unlock()
    config.data.update(folds=4, fold=1)
    splits = runs.Splits(prepare("dermoscopy/tiny"), config.data.source_size)
    run = fake_run(tmp_path, size=64, channels=3)._replace(config=config.lock())
    cases = predictor._validation_cases(Predictor(run), prepare("dermoscopy/tiny"))
    held_out = runs.Data(config, splits).member(config).validation
    assert [case["case"] for case in cases] == [splits.pool.cases[i] for i in held_out.index] and len(cases) == 16


def test_replicas_are_one_ensemble(tmp_path):
    """Two members, of which each decides half of the probability."""

    class Constant(nn.Module):
        roles = Roles(None, (), (), ("conv_0", "conv_1"))

        @nn.compact
        def __call__(self, images, train=False):
            logit = self.param("logit", nn.initializers.zeros, ())
            x = Identity(name="conv_1")(Identity(name="conv_0")(images))
            return jnp.concatenate([jnp.zeros_like(x), logit + jnp.zeros_like(x)], -1)

    variables = [{"params": {"logit": jnp.float32(value)}} for value in (-1.0, 3.0)]
    members = tuple(of_linen(Constant(), one, image_size=16, channels=1) for one in variables)
    run = fake_run(tmp_path)._replace(members=members)
    found = Predictor(run).predict(noise(16, 16), (16, 16), probabilities=True)
    wanted = (1 / (1 + np.exp(1)) + 1 / (1 + np.exp(-3))) / 2
    np.testing.assert_allclose(found.probabilities[..., 1], wanted, rtol=1e-6)
    entropy = -(wanted * np.log(wanted) + (1 - wanted) * np.log(1 - wanted))
    assert found.scores["entropy"] == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(("count", "seen"), [(1, 1), (2, 4), (3, 4), (4, 4)])
def test_few_images_are_filled_up_to_a_batch_and_one_is_not(monkeypatch, count, seen):
    batches = []
    whole = augment.whole

    def noted(batch, size):
        batches.append(batch["image"].shape)
        return whole(batch, size=size)

    monkeypatch.setattr(network.augment, "whole", noted)
    run = network.compiled((of_linen(Threshold(), {}, image_size=4, channels=1),), image_size=4, batch=4)
    images = noise(count, 4, 4)
    probabilities, scores = run(images)
    assert batches == [(seen, 4, 4, 1)]
    np.testing.assert_array_equal(probabilities.argmax(-1), images[..., 0] > 127)
    assert [len(values) for values in scores.values()] == [count, count]


def test_folders_that_hold_something_else_are_named(trained, loaded, tmp_path, prepare):
    run, _ = loaded
    with pytest.raises(InputError, match="holds no training run"):
        trained_network.of_run(tmp_path, prepare)
    with pytest.raises(InputError, match="holds no autoencoder"):
        network.load_repair(trained[0], run)
    with pytest.raises(InputError, match="holds no autoencoder"):
        network.load_repair(tmp_path, run)
    other = jax.tree.map(lambda x: np.asarray(x) + np.ones_like(x), run.members[0])  # of its variables
    with pytest.raises(InputError, match=r"was fitted to the network of .*run, not to that of"):
        network.load_repair(trained[1], run._replace(members=(other,)))
    with pytest.raises(InputError, match="an autoencoder belongs to one network"):
        network.load_repair(trained[1], run._replace(members=run.members * 2))
    with pytest.raises(InputError, match="--tile_size=64: the autoencoder is made for 16"):
        Predictor(run, Tiling(64), network.load_repair(trained[1], run))
    with pytest.raises(InputError, match="--tile: 1 halvings need image sizes divisible by 2"):
        Predictor(run, Tiling(31))
    config = run.config.copy_and_resolve_references().unlock()
    config.update(replicas=2, vary="fold")
    folds = run._replace(config=config, members=run.members * 2)
    with pytest.raises(InputError, match=r"its replicas share no validation cases; name one, as .*replica_0"):
        predictor.reference(Predictor(folds), prepare)


def test_a_folder_that_cannot_be_written_to_costs_time_alone(tmp_path):
    (tmp_path / "file").touch()
    contract.keep(tmp_path / "file" / "there.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
