"""Both sides of the training step compute the same; how fast they are is not asserted."""

import jax
import numpy as np
import pytest

from jaxseg.benchmarks import text, timing, training
from jaxseg.errors import InputError

torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytestmark = pytest.mark.torch

TINY = training.Setting(2, 32, 2)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return training.torch_unet(torch, TINY.features)


@pytest.fixture(scope="module")
def ours(network):
    return training.OurSteps(TINY, network, training.example(TINY), scan=False)


@pytest.fixture(scope="module")
def theirs(network):
    return training.TorchSteps(torch, "eager", TINY, network, training.example(TINY))


def test_both_networks_have_the_same_parameters(network, ours):
    count = sum(leaf.size for leaf in jax.tree.leaves(ours.state.params))
    assert count == sum(parameter.numel() for parameter in network.parameters())


def test_both_sides_have_the_same_loss_before_and_after_steps(ours, theirs):
    assert ours.first_loss == pytest.approx(theirs.first_loss, abs=1e-4)
    for _ in range(2):
        assert float(ours()) == pytest.approx(float(theirs()), abs=1e-3)
    assert ours.memory > 0 and ours.first_seconds > 0 and theirs.first_seconds > 0


def test_a_row_has_both_speeds_and_the_table_is_printed(monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    result = training.run(rounds=1, settings=[TINY], matmul=64)
    (row,) = result["training"]
    assert row["loss_difference"] < 1e-4 and row["ratio"] > 0 and row["share_of_matmul"] > 0
    assert row["torch_way"] == "eager of eager; compile failed: RuntimeError"
    assert "torch_way" in text(result)


def test_steps_in_one_program_are_the_steps_one_by_one(network, ours):
    setting = training.Setting(2, 32, 2, steps=2)
    scanned = training.OurSteps(setting, network, training.example(setting), scan=True)
    assert scanned.first_loss == pytest.approx(ours.first_loss, abs=1e-6)
    assert int(scanned.state.step) == 2
    assert scanned().shape == (2,) and int(scanned.state.step) == 4


def test_operations_are_counted_from_the_shapes_of_the_convolutions(network, ours):
    forward = first = 0

    def count(module, _, output):
        nonlocal forward, first
        operations = 2 * output.numel() * module.weight[0].numel()
        forward += operations
        first = first or operations

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    network(torch.from_numpy(np.moveaxis(training.example(TINY)["images"], -1, 1)))
    for hook in hooks:
        hook.remove()
    assert training.step_operations(ours.state.params, TINY) == 3 * forward - first


def test_without_pytorch_the_benchmark_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[torch\]'"):
        training.run(rounds=1)


def test_the_ceiling_is_a_rate():
    assert timing.matmul_rate(64, "bfloat16") > 1e6
