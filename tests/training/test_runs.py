"""Configs of single runs: all networks in all sizes, what cannot work, where a run starts."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import train
from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models import skeleton
from jaxseg.training import checks, programs, runs, state

NETWORKS = ("unet", "resnet_unet", "residual_unet", "dtu_net")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_size_of_every_network_can_run(network):
    for size in ("tiny", "demo", "cpu", "paper"):
        config = train.get_config(f"{size},{network}")
        checks.check(config)
        assert config.model.name == network
        assert config.training.loss == ("dtu" if network == "dtu_net" else "dice")


def test_the_papers_dtu_net_is_the_default_one():
    model = train.get_config("paper,dtu_net").model
    assert model.features == (64, 128, 256, 512, 1024) and model.topology_features == (64, 128, 256, 512)


def test_unknown_networks_and_sizes_are_named():
    with pytest.raises(ValueError, match="unknown network 'vnet'; known are unet"):
        train.get_config("tiny,vnet")
    with pytest.raises(ValueError, match="huge"):
        train.get_config("huge")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("training.loss", "dtu", "config.training.loss 'dtu' is for dtu_net alone"),
        ("training.loss", "dize", "config.training.loss is 'dize'; choose one of dice, cross_entropy"),
        ("training.loss_options", {"alpha": 2.0}, "loss_options.alpha is unknown; dice has smooth"),
        ("training.loss_options", {"gamma": 3.0}, "loss_options.gamma is 3.0, but dice has no gamma; dice_focal has"),
        ("training.optimizer", "lion", "config.training.optimizer is 'lion'; choose one of adam, adamw, sgd"),
        (
            "training.accumulate",
            3,
            "batch_size is 16; for 1 device(s) and 3 parts it must be a multiple of 3, such as 15",
        ),
        ("training.selection", "loss", "config.training.selection is 'loss'; choose one of dice, miou"),
        ("training.ability_layers", ("encoder_7/conv_0",), "encoder_7/conv_0"),
        ("data.folds", 1, "config.data.folds is 1 and fold 0; give at least 2 folds"),
        ("data.fold", 2, "config.data.folds is 0 and fold 2"),
        ("data.augmentation", {"rotate": 200.0}, "config.data.augmentation.rotate is 200.0; it must be"),
        ("data.residence", "disk", "config.data.residence is 'disk'; choose one of auto, device, stream"),
        ("model.pretrained", "", "config.model.pretrained is empty"),
        ("parallel", "xmap", "config.parallel is 'xmap'; choose one of jit, pmap"),
        ("on_nonfinite", "ignore", "config.on_nonfinite is 'ignore'; choose one of stop, skip"),
        ("vary", "fold", "config.replicas is 2; to vary the fold it must be config.data.folds, 0"),
    ],
)
def test_what_cannot_work_is_named(field, value, message):
    config = train.get_config("tiny").unlock()
    if field == "vary":
        config.replicas = 2
    if field == "training.ability_layers":
        config.training.ability_weight = 1.0
    *section, name = field.split(".")
    with config.ignore_type():
        (config[section[0]] if section else config)[name] = value
    with pytest.raises(InputError, match=re.escape(message)) as error:
        checks.check(config)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def splits(tiny):
    return runs.Splits(tiny, train.get_config("tiny").data.source_size)


def started(monkeypatch, config, splits, folder):
    """The state that a run begins with, and its loop and compiler options.

    Every weight of a fresh state is 0.5: to draw those of a ResNet is long to compile.
    """
    seen = []
    create = state.create

    def filled(key, *arguments):
        shapes = jax.eval_shape(lambda key: create(key, *arguments), key).replace(key=())
        half = jax.tree.map(lambda x: jnp.full(x.shape, 0.5, x.dtype), shapes)
        return half.replace(key=key, step=jnp.int32(0))

    monkeypatch.setattr(runs.state, "create", filled)
    monkeypatch.setattr(runs, "fit", lambda loop, states, folders, values: seen.append((loop, states[0])))
    program = programs.Program

    def made(*arguments, compiler_options, **options):
        seen.append(compiler_options)
        return program(*arguments, compiler_options=compiler_options, **options)

    monkeypatch.setattr(runs.programs, "Program", made)
    runs.train(config, splits, folder)
    options, (loop, begun) = seen
    return loop, begun, options


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_starts_with_its_network(monkeypatch, splits, tmp_path, network):
    config = train.get_config(f"tiny,{network}")
    loop, fresh, options = started(monkeypatch, config, splits, tmp_path / "run")
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    image = np.zeros((1, *(config.data.image_size,) * 2, 3), np.float32)
    expected = jax.eval_shape(checks.build_model(config, 2).init, jax.random.key(0), image)
    assert shapes(fresh.params) == shapes(expected["params"])
    assert int(fresh.step) == 0 and loop.total_steps == 6 and loop.evaluate_every == 3
    assert options == skeleton.compiler_options(models.build("unet", 2))


def test_a_run_starts_from_a_file_and_goes_on_without_it(monkeypatch, splits, tmp_path):
    config = train.get_config("tiny,resnet_unet").unlock()
    config.model.remat = True
    _, fresh, _ = started(monkeypatch, config, splits, tmp_path / "fresh")
    encoder = torchvision_like(fresh)
    np.savez(tmp_path / "resnet.npz", **encoder)
    config.model.pretrained = str(tmp_path / "resnet.npz")
    _, begun, options = started(monkeypatch, config, splits, tmp_path / "run")
    assert "xla_disable_hlo_passes" in options  # so that remat saves memory on CPU
    stem = begun.params["stem"]["conv"]["conv"]["kernel"]
    np.testing.assert_array_equal(stem, encoder["conv1.weight"].transpose(2, 3, 1, 0))
    head = lambda begun: np.asarray(begun.params["head"]["conv"]["kernel"])
    np.testing.assert_array_equal(head(begun), head(fresh))
    pathlib.Path(config.model.pretrained).unlink()
    with pytest.raises(InputError, match=r"resnet.npz: cannot be read"):
        started(monkeypatch, config, splits, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "run" / "checkpoints" / "8").mkdir(parents=True)  # a checkpoint: the file is no longer asked for
    started(monkeypatch, config, splits, tmp_path / "run")


def torchvision_like(begun):
    """Random tensors under torchvision's names, in the shapes of the encoder of a state."""
    from jaxseg import models
    from jaxseg.models import matching
    from jaxseg.models.layouts import LAYOUTS

    shapes = matching.shapes_of(begun.variables)
    random, module = np.random.default_rng(0), models.build("resnet_unet", 2)
    return {
        name.removeprefix("encoder."): random.uniform(0.5, 1, entry.shape(shapes[entry.variable])).astype(np.float32)
        for entry in LAYOUTS[type(module)].entries(module)
        for name in entry.sources
        if name.startswith("encoder.")
    }
