"""Configs of single runs: all networks in all sizes, what cannot work, where a run starts."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import train
from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models import skeleton
from jaxseg.training import checks, programs, runs, state

NETWORKS = ("unet", "resnet_unet", "residual_unet", "dtu_net", "nnunet", "vit")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_size_of_every_network_can_run(network):
    for size in ("tiny", "demo", "cpu", "paper"):
        config = train.get_config(f"{size},{network}")
        checks.check(config)
        assert config.model.name == network
        assert config.training.loss == ("dtu" if network == "dtu_net" else "dice")


def test_a_network_that_names_three_axes_is_checked_on_volumes():
    config = train.get_config("tiny,nnunet").unlock()
    config.model.kernels, config.model.strides = ((1, 3, 3), 3, 3), (1, (1, 2, 2), 2)
    checks.check(config)
    config.model.strides = (1, (1, 2), 2)
    with pytest.raises(InputError, match=r"config.model: kernels and strides are for \[2, 3\] axes"):
        checks.check(config)
    config.model.strides = (1, (1, 2, 2), 64)
    with pytest.raises(InputError, match="divisible by 64 x 128 x 128, got 32 x 32 x 32"):
        checks.check(config)


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
        ("data.residence", "disk", "config.data.residence is 'disk'; choose one of auto, device, sharded, stream"),
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


def test_a_run_goes_by_the_lengths_in_its_config(monkeypatch, splits, tmp_path):
    config = train.get_config("tiny").unlock()
    config.training.update(epochs=7, evaluate_every=2, save_every=5, patience=4, batch_size=8, selection="miou")
    loop, _, _ = started(monkeypatch, config, splits, tmp_path / "run")
    epoch = len(splits["train"]) // 8
    assert (loop.total_steps, loop.evaluate_every, loop.save_every, loop.patience) == (7 * epoch, 2 * epoch, 5, 4)
    assert loop.selection == ("miou", 1) and loop.steps_per_call == 1 and loop.keep_every == 0
    assert loop.name == "run" and not loop.skip_nonfinite and loop.tensors[0] == "the loss"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config.on_nonfinite = "skip"
    loop, _, _ = started(monkeypatch, config, splits, tmp_path / "elsewhere")
    assert loop.steps_per_call == 32 and loop.skip_nonfinite
    config.training.steps_per_call = 3
    assert started(monkeypatch, config, splits, tmp_path / "third")[0].steps_per_call == 3


def test_replicas_vary_the_seed_or_the_fold(tmp_path):
    config = train.get_config("tiny").unlock()
    assert runs.member_runs(config, tmp_path) == [(config, tmp_path)]
    config.update(replicas=3, seed=5)
    members = runs.member_runs(config, tmp_path)
    assert [(one.seed, one.data.fold, one.replicas) for one, _ in members] == [(5, 0, 1), (6, 0, 1), (7, 0, 1)]
    assert [place.name for _, place in members] == ["replica_0", "replica_1", "replica_2"]
    config.vary = "fold"
    assert [(one.seed, one.data.fold) for one, _ in runs.member_runs(config, tmp_path)] == [(5, 0), (5, 1), (5, 2)]


@pytest.mark.parametrize(
    ("data", "memory", "resident"),
    [
        ({}, 40, True),  # 4 and 6 bytes are a quarter of them
        ({}, 39, False),
        ({"residence": "device"}, 1, True),
        ({"residence": "stream"}, 1000, False),
        ({"folds": 2}, 1, True),
        ({"replicas": 2}, 1, True),
    ],
)
def test_cases_are_on_the_device_where_there_is_room(monkeypatch, data, memory, resident):
    class Source:
        fingerprint, num_channels, num_bytes, labels = "abc", 3, 4, np.zeros((32, 2, 2), np.uint8)
        name, patients = "drawn", [str(i) for i in range(32)]

        def __len__(self):
            return 32

    class Splits:
        pool = Source()

        def open(self, split):
            found = Source()
            found.num_bytes = {"train": 4, "validation": 6}[split]
            return found

        def __getitem__(self, split):
            return Source()

    monkeypatch.setattr(runs.parallel, "device_memory", lambda: memory)
    config = train.get_config("tiny").unlock()
    config.replicas = data.pop("replicas", 1)
    config.data.update(data)
    found = runs.Data(config, Splits())
    names = ["train", "validation"] if resident else ["records of train", "records of validation"]
    assert list(found.fingerprints) == names and set(found.fingerprints.values()) == {"abc"}
    assert found.steps_per_epoch == (16 if config.data.folds else 32) // 16


def test_names_of_validation_cases_are_read_where_they_decide_what_is_seen(splits):
    config = train.get_config("tiny").unlock()
    assert runs.Data(config, splits).validation_names == ()
    config.data.view = "quadrant"
    assert runs.Data(config, splits).validation_names == splits["validation"].cases
    config.data.folds = 2
    assert runs.Data(config, splits).validation_names == splits.pool.cases


def test_a_batch_is_no_larger_than_there_are_cases(splits):
    config = train.get_config("tiny").unlock()
    count = len(splits["train"])
    config.training.batch_size = count
    assert runs.Data(config, splits).steps_per_epoch == 1
    config.training.batch_size = count + 1
    message = rf"batch_size is {count + 1}, .* has {count} cases to train on; it can be at most that"
    with pytest.raises(InputError, match=message):
        runs.Data(config, splits)


def test_dice_of_a_validation_is_the_mean_of_what_is_defined():
    """Two cases, three classes: counts of both, of the annotation, of the prediction."""
    counts = np.array([[[8, 9, 9], [2, 4, 3], [0, 0, 0]], [[9, 10, 9], [0, 3, 0], [1, 2, 4]]], np.int32)
    found = runs.overlaps(counts)
    assert found["dice"] == pytest.approx(np.mean([4 / 7, 0, 2 / 6]), rel=1e-6)
    nothing = runs.overlaps(np.zeros((2, 3, 3), np.int32))
    assert np.isnan(nothing["dice"])


def test_a_folder_belongs_to_its_config_and_data(tmp_path):
    config = train.get_config("tiny")
    runs.claim(tmp_path, config)
    assert not (tmp_path / "config.json").exists()  # asked alone
    runs.claim(tmp_path, config, data={"train": "a", "network": "n"})
    runs.claim(tmp_path, config, data={"records of train": "b", "network": "n"})
    for data, wanted in (
        ({"train": "b"}, "other data: train differs; .*the same --data_dir$"),
        ({"network": "m"}, "another network; .*the same network$"),
    ):
        with pytest.raises(InputError, match=f"was made with {wanted}"):
            runs.claim(tmp_path, config, data=data)
    other = config.copy_and_resolve_references().unlock()
    other.training.epochs = 9
    with pytest.raises(InputError, match=r"another config: config.training.epochs is 2 there and 9 here; choose"):
        runs.claim(tmp_path, other)
    other = config.copy_and_resolve_references().unlock()
    other.network = "elsewhere"  # a place
    runs.claim(tmp_path, other)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json: cannot be read here"):
        runs.claim(tmp_path, config)
    with pytest.raises(InputError, match=r"config.json: cannot be read here"):
        runs.read_config(tmp_path)


def test_pictures_in_memory_alone_are_no_files():
    splits = runs.InMemorySplits({})
    with pytest.raises(ValueError, match=r"train is in memory alone; train with config.data.residence 'device'"):
        splits.open("train")
    assert splits.rank == 2


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


def test_a_run_from_before_an_augmentation_came_is_that_of_a_config_that_leaves_it_at_its_default(tmp_path):
    earlier = {"flip_horizontal": 0.0, "rotate": 0.0, "scale": (1.0, 1.0), "fill": "reflect"}
    config = train.get_config("tiny").unlock()
    now = config.data.augmentation.to_dict()
    with config.ignore_type():
        config.data.augmentation = ml_collections.ConfigDict(earlier)
    runs.claim(tmp_path, config, data={})
    assert set(json.loads((tmp_path / "config.json").read_text())["data"]["augmentation"]) == set(earlier)
    stored = runs.read_config(tmp_path)  # with what came after it
    assert stored.data.augmentation.gamma == 0.0
    checks.check_common(stored)
    config.data.augmentation = ml_collections.ConfigDict(now)
    runs.claim(tmp_path, config, data={})
    config.data.augmentation.gamma = 0.3
    with pytest.raises(InputError, match=r"config\.data\.augmentation\.gamma is 0\.0 there and 0\.3 here"):
        runs.claim(tmp_path, config, data={})
