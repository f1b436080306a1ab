"""A training step beside that of PyTorch, which NumPy plays here: the same first loss, and what a row says of both."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import models
from jaxseg.benchmarks import timing, training
from tests.benchmarks import numpy_torch

SHALLOW = types.SimpleNamespace(features=(2, 3), size=8, batch=2, dtype="float32", steps=2)


def test_settings_and_examples():
    assert training.Setting(3, 32, 2).features == (3, 6, 12, 24, 24)
    batch = training.example(training.Setting(2, 40, 3))
    places = (np.arange(40) + 0.5) / 40 - 0.5
    disc = places[:, None] ** 2 + places**2 < 0.3**2
    np.testing.assert_array_equal(batch["labels"], np.broadcast_to(disc, (3, 40, 40)))
    images = batch["images"]
    for where, level in ((disc, 0.15), (~disc, -0.15)):
        assert images[:, where].mean() == pytest.approx(level, abs=0.01)
        assert images[:, where].std() == pytest.approx(0.3, abs=0.01)
    assert abs(images).max() == 1 and images.shape == (3, 40, 40, 3)


def test_operations_are_those_of_every_convolution_forward_and_twice_back():
    kernel = lambda *shape: {"kernel": np.zeros(shape), "bias": np.zeros(shape[-1])}
    params = {
        "encoder_0": {"conv_0": kernel(3, 3, 3, 2)},
        "encoder_1": {"conv_0": kernel(3, 3, 2, 5)},
        "bottleneck": {"conv_1": kernel(3, 3, 5, 7)},
        "decoder_1": {"conv_0": kernel(3, 3, 12, 5)},
        "head": kernel(1, 1, 5, 2),
    }
    setting = types.SimpleNamespace(features=(2, 5, 7), size=16, batch=3)
    sizes = {16: (2 * 54, 3 * 10), 8: (3 * 90, 3 * 540), 4: (3 * 315,)}
    wanted = sum(2 * 3 * side**2 * sum(of) for side, of in sizes.items())
    assert training.step_operations(params, setting) == wanted


def test_both_networks_have_the_same_layers_however_deep():
    setting = types.SimpleNamespace(features=(2, 3, 4, 6))
    network = training.torch_unet(numpy_torch.module(), setting.features)
    model = models.build("unet", training.NUM_CLASSES, features=setting.features)
    state = training.our_state(model, network, optax.identity(), (1, 16, 16, 3))  # refuses other names and shapes
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == sum(x.size for x in network.parameters())
    kernel = np.asarray(network.state_dict()["up2.conv.double_conv.3.weight"])
    assert kernel.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(
        state.params["decoder_1"]["conv_1"]["conv"]["conv"]["kernel"], kernel.transpose(2, 3, 1, 0)
    )


def memory_of(steps):
    use = steps._program.memory_analysis()
    held = [getattr(use, f"{name}_size_in_bytes") for name in ("temp", "argument", "output")]
    return sum(held) - use.alias_size_in_bytes


def test_both_sides_begin_with_the_same_loss(stand_in, ticking):
    network = training.torch_unet(stand_in, SHALLOW.features)
    batch = training.example(SHALLOW)
    ticking(3.0)
    ours = training.OurSteps(SHALLOW, network, batch, scan=False)
    ticking(2.0)
    theirs = training.TorchSteps(stand_in, "compile", SHALLOW, network, batch)
    assert (ours.first_seconds, theirs.first_seconds) == (3.0, 2.0)
    assert ours.first_loss == pytest.approx(theirs.first_loss, abs=1e-5)
    assert ours.memory == memory_of(ours) > 0 == theirs.memory and "compile" in stand_in.calls
    assert int(ours.state.step) == 1
    assert ours().shape == () and int(ours.state.step) == 3
    assert theirs() == theirs.first_loss and theirs._optimizer.taken == 3
    assert ("autocast", "cpu", False) in stand_in.calls and "synchronize" not in stand_in.calls


def test_steps_of_one_program_are_taken_in_every_call(stand_in, monkeypatch):
    def make(*_):  # in place of a step that takes longer to compile
        def step(state, batch):
            return state.replace(step=state.step + 1), {"loss": state.step.astype(jnp.float32) + 0.5}

        return step

    monkeypatch.setattr(training.steps, "make_train_step", make)
    network = training.torch_unet(stand_in, SHALLOW.features)
    scanned = training.OurSteps(SHALLOW, network, training.example(SHALLOW), scan=True)
    assert scanned.first_loss == 0.5 and int(scanned.state.step) == 2
    np.testing.assert_array_equal(scanned(), [2.5, 3.5])
    assert int(scanned.state.step) == 4 and scanned.memory == memory_of(scanned)


def test_on_a_gpu_memory_is_counted_and_steps_are_waited_for(stand_in, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(numpy_torch, "GPU", True)
    reduced = types.SimpleNamespace(**vars(SHALLOW) | {"dtype": "bfloat16"})
    network = training.torch_unet(stand_in, SHALLOW.features)
    steps = training.TorchSteps(stand_in, "eager", reduced, network, training.example(SHALLOW))
    assert steps.memory == 3000 and stand_in.backends.cudnn.benchmark and stand_in.calls.count("reset") == 1
    assert ("autocast", "cuda", True) in stand_in.calls and "compile" not in stand_in.calls
    steps()
    assert stand_in.calls.count("synchronize") == 1


def test_pytorchs_dice_loss_is_ours():
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((2, 3, 4, 5)).astype(np.float32), random.integers(0, 3, (2, 4, 5))
    found = training.torch_dice_loss(numpy_torch.module(), numpy_torch.tensor(logits), numpy_torch.tensor(labels))
    powers = np.exp(logits)
    dice = []
    for b in range(2):
        for k in (1, 2):
            p, t = (powers[b, k] / powers[b].sum(0)), labels[b] == k
            dice.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    assert float(found) == pytest.approx(1 - np.mean(dice), rel=1e-5)


def test_a_way_that_does_not_work_is_told_but_for_the_plain_one(stand_in, monkeypatch):
    def broken(torch, way, *_):
        if way != "eager":
            raise RuntimeError("no compiler")
        return way

    monkeypatch.setattr(training, "TorchSteps", broken)
    assert training._working_ways(stand_in, SHALLOW, None, {}, ("eager", "compile")) == (
        {"eager": "eager"},
        ["compile failed: RuntimeError"],
    )
    monkeypatch.setattr(training, "TorchSteps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training._working_ways(stand_in, SHALLOW, None, {}, ("eager",))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_row_has_both_speeds_memory_and_the_share_of_a_product(stand_in, monkeypatch, backend):
    """Ours takes 2 s a turn, with the flag of determinism 3 s, one by one 4 s; PyTorch 9 s, compiled 5 s."""
    setting = training.Setting(2, 32, 6, "float32", 10)
    made = []

    def ours(given, network, batch, *, scan, compiler_options=None):
        assert given is setting and batch["images"].shape == (6, 32, 32, 3)
        made.append((scan, bool(compiler_options)))
        state = types.SimpleNamespace(params={"head": {"kernel": np.zeros((1, 1, 2, 2))}})
        return types.SimpleNamespace(state=state, memory=7_000_000, first_seconds=11.0, first_loss=0.75)

    def theirs(torch, way, *_):
        memory = {"eager": 1_000_000, "compile": 3_000_000}[way] if backend == "gpu" else 0
        return types.SimpleNamespace(memory=memory, first_seconds={"eager": 1.0, "compile": 2.0}[way], first_loss=0.5)

    def turns(sides, rounds):
        assert rounds == 2 and len(sides) == (5 if backend == "gpu" else 3)
        of_ours = [(2.0, 3.0), (3.0, 4.5), (4.0, 6.0)] if backend == "gpu" else [(2.0, 3.0)]
        return [*of_ours, (9.0, 9.0), (5.0, 6.0)]

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    device = types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 8_000_000})
    monkeypatch.setattr(jax, "devices", lambda: [device])
    for name, value in (("OurSteps", ours), ("TorchSteps", theirs)):
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(timing, "machine", lambda: "here")
    monkeypatch.setattr(timing, "turns", turns)
    sides = []
    monkeypatch.setattr(timing, "matmul_rate", lambda side, dtype: sides.append((side, dtype)) or 1e4)
    result = training.run(rounds=2, settings=[setting])
    [row] = result["training"]
    assert (row["images_per_second"], row["torch_images_per_second"]) == (60 / 2, 60 / 5)
    assert row["ratio"] == 2.25 and row["torch_way"] == "compile of eager, compile"  # of 5/2 and 6/3 the median
    assert (row["peak_megabytes"], row["first_step_seconds"], row["torch_first_step_seconds"]) == (7, 11, 2)
    assert row["loss_difference"] == 0.25
    operations = 3 * 2 * 4 * 6 * 32**2
    assert row["share_of_matmul"] == pytest.approx(10 * operations / 2 / 1e4)
    assert ("seed", 0) in stand_in.calls
    if backend == "cpu":
        assert made == [(False, False)] and sides == [(2048, "float32")] and len(result) == 2
        assert row["torch_peak_megabytes"] == "not measured" and "device_peak_megabytes" not in row
        return
    assert made == [(True, False), (True, True), (False, False)] and sides == [(8192, "float32")]
    assert row["torch_peak_megabytes"] == 3 and row["device_peak_megabytes"] == 8
    [costs] = result["one program of all steps"]
    assert costs["cost_of_determinism"] == 1.5 and costs["device_idle_in_loop"] == pytest.approx(0.5)
