"""Configs of single runs: all networks in all sizes, what cannot work, where a run starts."""

import pathlib

import numpy as np
import pytest

from configs import train
from jaxseg.data import builders
from jaxseg.errors import InputError
from jaxseg.training import runs

NETWORKS = ("unet", "resnet_unet", "residual_unet", "dtu_net")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_size_of_every_network_can_run(network):
    for size in ("tiny", "demo", "cpu", "paper"):
        config = train.get_config(f"{size},{network}")
        runs.check(config)
        assert config.model.name == network
        assert config.training.loss == ("dtu" if network == "dtu_net" else "dice")
        runs.build_objective(config, runs.build_model(config, 2))


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
        ("training.loss_options", {"gamma": 2.0}, "loss_options.gamma is unknown; dice has smooth"),
        ("model.pretrained", "", "config.model.pretrained is empty"),
    ],
)
def test_what_cannot_work_is_named(field, value, message):
    config = train.get_config("tiny").unlock()
    section, name = field.split(".")
    with config.ignore_type():
        config[section][name] = value
    with pytest.raises(InputError, match=message):
        runs.check(config)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    config = train.get_config("tiny")
    directory = builders.prepare(config.data.dataset, data_dir=tmp_path_factory.mktemp("data"), manual_dir=None)
    return runs.Splits(directory, config.data.source_size)


def started(monkeypatch, config, splits, folder):
    """The state and the loop that a run begins with."""
    seen = []
    monkeypatch.setattr(runs, "fit", lambda loop, state, folder: seen.append((loop, state)))
    runs.train(config, splits, folder)
    return seen[0]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_starts_with_its_network(monkeypatch, splits, tmp_path, network):
    config = train.get_config(f"tiny,{network}")
    loop, state = started(monkeypatch, config, splits, tmp_path / "run")
    assert int(state.step) == 0 and loop.total_steps > 0
    assert loop.compiler_options == {}


def test_a_run_starts_from_a_file_and_goes_on_without_it(monkeypatch, splits, tmp_path):
    config = train.get_config("tiny,resnet_unet").unlock()
    config.model.remat = True
    _, fresh = started(monkeypatch, config, splits, tmp_path / "fresh")
    encoder = torchvision_like(fresh)
    np.savez(tmp_path / "resnet.npz", **encoder)
    config.model.pretrained = str(tmp_path / "resnet.npz")
    loop, state = started(monkeypatch, config, splits, tmp_path / "run")
    assert loop.compiler_options  # so that remat saves memory on CPU
    stem = state.params["stem"]["conv"]["conv"]["kernel"]
    np.testing.assert_array_equal(stem, encoder["conv1.weight"].transpose(2, 3, 1, 0))
    head = lambda state: np.asarray(state.params["head"]["conv"]["kernel"])
    np.testing.assert_array_equal(head(state), head(fresh))
    pathlib.Path(config.model.pretrained).unlink()
    with pytest.raises(InputError, match=r"resnet.npz: cannot be read"):
        started(monkeypatch, config, splits, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "run" / "checkpoints" / "8").mkdir(parents=True)  # a checkpoint: the file is no longer asked for
    started(monkeypatch, config, splits, tmp_path / "run")


def torchvision_like(state):
    """Random tensors under torchvision's names, in the shapes of the encoder in `state`."""
    from jaxseg import models
    from jaxseg.models import weights

    shapes = weights._shapes(state.variables)
    random = np.random.default_rng(0)
    return {
        name.removeprefix("encoder."): random.uniform(0.5, 1, entry.shape(shapes[entry.variable])).astype(np.float32)
        for entry in weights._resnet_unet(models.build("resnet_unet", 2))
        for name in entry.sources
        if name.startswith("encoder.")
    }
