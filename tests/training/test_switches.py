"""JAX's global switches (64 bits, rank promotion, dtype promotion) change no type, no number and no checkpoint."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import train
from jaxseg import inference, models
from jaxseg.data import augment
from jaxseg.data.augmentation.settings import INTENSITIES
from jaxseg.models import autoencoder
from jaxseg.training import checkpoints, loop, losses, objectives, optim, runs, state, steps, trained

SWITCHES = {"jax_enable_x64": True, "jax_numpy_rank_promotion": "raise", "jax_numpy_dtype_promotion": "strict"}
DEFAULTS = {"jax_enable_x64": False, "jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}
LEVELS = {"features": (4, 6)}
NETWORKS = [
    ("unet", LEVELS | {"norm": "group", "upsample": "transpose", "padding": "valid"}),
    ("unet", LEVELS | {"norm": "instance", "upsample": "bilinear_aligned", "padding": "reflect"}),
    ("resnet_unet", {"encoder": "resnet18"}),
    ("residual_unet", LEVELS),
    ("nnunet", LEVELS | {"encoder": "residual", "depths": (1, 2)}),
    ("dtu_net", {"features": (4, 6, 8), "topology_features": (4, 6), "fusion": "learned"}),
]


@contextlib.contextmanager
def switched(**switches):
    """For the whole process, as an environment variable does it: a library's threads have them too."""
    before = {name: getattr(jax.config, name) for name in DEFAULTS}
    for name, value in (DEFAULTS | switches).items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def wide(tree):
    """Arrays with types of 64 bits."""
    return [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if "64" in str(leaf.dtype)
    ]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_no_type_of_a_step_follows_the_switches(name, options):
    batch = {
        "image": jax.ShapeDtypeStruct((2, 64, 64, 1), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((2, 64, 64), jnp.uint8),
        "index": jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    with switched(**SWITCHES):
        module = models.build(name, 3, **options)
        optimizer = optim.make(
            optimizer="adamw",
            learning_rate=1e-3,
            schedule="cosine",
            steps_per_epoch=2,
            total_steps=8,
            clip_norm=1.0,
        )
        fresh = jax.eval_shape(lambda key: state.create(key, module, optimizer, (1, 32, 32, 1)), jax.random.key(0))
        supervised = objectives.supervised(module, losses.dice_bce_loss)
        changes = dict.fromkeys(INTENSITIES, 0.5) | {"rotate": 10.0, "flip_vertical": 0.5, "elastic": 0.5}
        view = augment.training_view("quadrant", size=32, augmentation=changes | {"interpolation": "cubic"})
        step = steps.make_train_step(
            objectives.dtu(module) if name == "dtu_net" else supervised, optimizer, view, accumulate=2
        )
        after = jax.eval_shape(step, fresh, batch)
    assert not wide((fresh, after))


@pytest.mark.parametrize("kind", autoencoder.KINDS)
def test_no_type_of_an_autoencoder_follows_the_switches(kind):
    x = jax.ShapeDtypeStruct((2, 8, 8, 6), jnp.float32)
    with switched(**SWITCHES):
        module = autoencoder.Autoencoder((8, 8, 6), latent=8, width=4, kind=kind)
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        apply = lambda variables, x: module.apply(
            variables, x, train=True, method="reconstruct", rngs={"noise": jax.random.key(0)}
        )
        assert not wide((variables, jax.eval_shape(apply, variables, x)))


def config():
    """Six steps with all that is drawn: a validation and a checkpoint after every second."""
    config = train.get_config("tiny").unlock()
    config.model.features, config.model.skips = (2, 4), (True,)
    config.data.image_size, config.data.augmentation.rotate = 8, 10.0
    config.data.augmentation.update(noise=0.5, gamma=0.5, low_resolution=0.5)
    config.training.epochs, config.training.save_every = 2, 2
    return config.lock()


def fit(directory, folder, **switches):
    with switched(**switches):
        runs.train(config(), runs.Splits(directory, config().data.source_size), folder)


def result(folder):
    """Checksums of the last state, and the log without its timings."""
    [*_, last] = sorted((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["steps_per_second"]
    return json.loads((last / "values" / "metadata").read_text())["checksums"], rows


class Killed(BaseException):
    """As if the process were gone."""


@pytest.mark.parametrize("network", ["shallow", pytest.param("unet", marks=pytest.mark.slow)])
def test_a_run_moves_between_the_switches_bit_for_bit(request, tiny, tmp_path, monkeypatch, network):
    if network == "shallow":
        request.getfixturevalue("shallow_runs")
    fit(tiny, tmp_path / "plain")
    save = loop._Trainer._save

    def until(self, state, step, scores):
        save(self, state, step, scores)
        if step == 4:
            raise Killed

    for name, first, then in (("begun_with_them", SWITCHES, {}), ("gone_on_with_under_them", {}, SWITCHES)):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(loop._Trainer, "_save", until)
            fit(tiny, tmp_path / name, **first)
        fit(tiny, tmp_path / name, **then)
        assert result(tmp_path / name) == result(tmp_path / "plain")
        assert not list((tmp_path / name / "checkpoints").glob("damaged*"))


def evaluated(tiny, run, **switches):
    with switched(**switches):
        return str(inference.evaluate(trained.of_run(run, lambda name: tiny), tiny, split="test", view="quadrant"))


@pytest.fixture(scope="module")
def expected(tiny, tiny_run):
    return evaluated(tiny, tiny_run)


@pytest.mark.parametrize("switches", [{name: value} for name, value in SWITCHES.items()] + [SWITCHES], ids=str)
def test_an_evaluation_is_the_same_under_each_switch(tiny, tiny_run, expected, switches):
    assert evaluated(tiny, tiny_run, **switches) == expected


def test_a_checksum_on_the_host_is_that_on_the_device():
    from jaxseg.training import stored

    with switched(jax_enable_x64=True):
        drawn = {
            "half": np.arange(5).astype(jnp.bfloat16),
            "wide": np.linspace(0, 1, 7),
            "words": np.random.default_rng(0).integers(0, 2**32, (3, 5), np.uint32),
            "truth": np.array([True, False, True]),
            "one": np.int32(-3),
        }
        arrays = jax.device_put(drawn)
        assert {name: array.dtype for name, array in arrays.items()} == {name: x.dtype for name, x in drawn.items()}
        found = checkpoints.checksums(arrays)
        assert found == {name: stored.checksum(jax.device_get(x)) for name, x in arrays.items()}
