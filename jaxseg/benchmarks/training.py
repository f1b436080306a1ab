"""A training step beside the same one in PyTorch: the shortcut paper's U-Net, Dice loss, Adam, batch norm."""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.compilation_cache import compilation_cache

from jaxseg import models
from jaxseg.benchmarks import timing
from jaxseg.models import skeleton, weights
from jaxseg.training import losses, objectives, parallel, steps
from jaxseg.training.state import TrainState

NUM_CLASSES = 2
RATE = 1e-3  # of Adam


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
      width: channels of the top level; the levels have 1, 2, 4, 8 and 8 times as many.
      size: side of the images in pixels.
      batch: images per step.
      dtype: of the computation.
      steps: how many make one turn. On accelerators they are one program, and PyTorch's are waited for at their end.
    """

    width: int
    size: int
    batch: int
    dtype: str = "float32"
    steps: int = 1

    @property
    def features(self) -> tuple[int, ...]:
        """Channels per level."""
        return tuple(self.width * factor for factor in (1, 2, 4, 8, 8))

    @property
    def text(self) -> str:
        """What the table calls it."""
        return f"width {self.width}, {self.size} px, batch {self.batch}, {self.dtype}"


CPU = (Setting(16, 128, 8), Setting(64, 128, 4))
ACCELERATOR = (Setting(64, 256, 16, "bfloat16", 20), Setting(64, 256, 64, "bfloat16", 10))


def run(
    *,
    rounds: int = 5,
    settings: Sequence[Setting] | None = None,
    ways: Sequence[str] = ("eager", "compile"),
    matmul: int | None = None,
) -> dict[str, Any]:
    """All tables of this benchmark.

    On accelerators the steps of a turn are one program, `jax.lax.scan`, and a second table has what determinism and
    Python's loop cost. On CPU there is a call per step: convolutions inside a loop run on one core there.

    Args:
      rounds: how often the sides take turns.
      settings: the rows; None takes `CPU` or `ACCELERATOR`, whichever the default device is.
      ways: of running the PyTorch network, always channels last: `eager`, `compile` (`torch.compile`).
      matmul: side of the matrices whose product is the ceiling; None takes 2048 on CPU, 8192 elsewhere.

    Raises:
      InputError: PyTorch is not installed.
    """
    timing.pytorch()
    on_cpu = jax.default_backend() == "cpu"
    matmul = matmul or (2048 if on_cpu else 8192)
    tables = [_compare(setting, ways, rounds, matmul) for setting in settings or (CPU if on_cpu else ACCELERATOR)]
    result = {"machine": timing.machine(), "training": [row for row, _ in tables]}
    return result if on_cpu else result | {"one program of all steps": [costs for _, costs in tables]}


def _compare(setting: Setting, ways: Sequence[str], rounds: int, matmul: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of a setting, and on accelerators what determinism and the loop cost."""
    torch = timing.pytorch()
    on_cpu = jax.default_backend() == "cpu"
    torch.manual_seed(0)
    network = torch_unet(torch, setting.features)
    batch = example(setting)
    ours = OurSteps(setting, network, batch, scan=not on_cpu)
    others = (
        []
        if on_cpu
        else [OurSteps(setting, network, batch, scan=True, compiler_options=parallel.deterministic_options(True))]
    )
    others += [] if on_cpu else [OurSteps(setting, network, batch, scan=False)]
    theirs, failed = _working_ways(torch, setting, network, batch, ways)
    seconds = timing.turns([ours, *others, *theirs.values()], rounds=rounds)
    best = dict(zip(theirs, seconds[-len(theirs) :], strict=True))
    way = min(best, key=lambda name: statistics.median(best[name]))
    pair = timing.Comparison(seconds[0], best[way])
    images = setting.batch * setting.steps
    operations = step_operations(ours.state.params, setting) * setting.steps
    row = {
        "step": setting.text,
        "images_per_second": images / pair.best[0],
        "torch_images_per_second": images / pair.best[1],
        "torch_way": "; ".join([f"{way} of {', '.join(theirs)}", *failed]),
        "ratio": pair.speedup,
        "peak_megabytes": ours.memory / 1e6,
        "torch_peak_megabytes": theirs[way].memory / 1e6 if theirs[way].memory else "not measured",
        "first_step_seconds": ours.first_seconds,
        "torch_first_step_seconds": theirs[way].first_seconds,
        # convolutions from their shapes, over a matrix product of the same type
        "share_of_matmul": operations / pair.best[0] / timing.matmul_rate(matmul, setting.dtype),
        "loss_difference": abs(ours.first_loss - theirs[way].first_loss),
    }
    if on_cpu:
        return row, {}
    row["device_peak_megabytes"] = jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6  # of the rows so far
    deterministic, looped = (timing.Comparison(seconds[0], other).speedup for other in seconds[1:3])
    return row, {
        "step": setting.text,
        "cost_of_determinism": deterministic,  # seconds with the flag over seconds without
        "device_idle_in_loop": max(0.0, 1 - 1 / looped),  # what a step takes longer when Python calls it
    }


def example(setting: Setting) -> dict[str, np.ndarray]:
    """A batch `{"images": [B,H,W,3], "labels": [B,H,W]}` in which a disc of its own brightness is class 1."""
    random = np.random.default_rng(0)
    position = (np.arange(setting.size) + 0.5) / setting.size - 0.5
    disc = np.hypot(*np.meshgrid(position, position)) < 0.3
    labels = np.broadcast_to(disc, (setting.batch, *disc.shape)).astype(np.int32)
    noise = random.standard_normal((*labels.shape, 3), np.float32)
    return {"images": np.clip(0.3 * noise + 0.3 * labels[..., None] - 0.15, -1, 1).astype(np.float32), "labels": labels}


def step_operations(params: Any, setting: Setting) -> int:
    """Floating-point operations of the convolutions of a step, from their shapes.

    The forward pass once and the backward pass twice that, but for the first convolution, whose input has no gradient.
    Normalisation, pooling and up-sampling are left out.
    """
    total = 0
    for name, kernel in flax.traverse_util.flatten_dict(params, sep="/").items():
        if not name.endswith("kernel"):
            continue
        block, _, number = name.split("/")[0].partition("_")
        level = len(setting.features) - 1 if block == "bottleneck" else int(number or 0)
        passes = 2 if name.startswith("encoder_0/conv_0/") else 3
        total += passes * 2 * kernel.size * setting.batch * (setting.size >> level) ** 2
    return total


class OurSteps:
    """`setting.steps` training steps per call, with the weights of a PyTorch network at first.

    Attributes:
      state: after the steps so far.
      first_seconds: from the call to trace and compile, without the persistent cache, to the first result.
      first_loss: of the first step.
      memory: bytes that the program holds at its peak, its arguments included.
    """

    def __init__(
        self,
        setting: Setting,
        network: Any,
        batch: dict[str, np.ndarray],
        *,
        scan: bool,
        compiler_options: dict[str, Any] | None = None,
    ) -> None:
        model = models.build("unet", NUM_CLASSES, features=setting.features, dtype=jnp.dtype(setting.dtype))
        optimizer = optax.adam(RATE)
        step = steps.make_train_step(
            objectives.supervised(model, losses.dice_loss), optimizer, lambda key, seen: dict(seen)
        )
        self.state = our_state(model, network, optimizer, batch["images"].shape)
        self._batch = jax.device_put({**batch, "index": np.arange(setting.batch, dtype=np.int32)})
        self._calls = 1 if scan else setting.steps
        program = functools.partial(_scanned, step, setting.steps) if scan else step
        options = skeleton.compiler_options(model) | (compiler_options or {})
        with _without_cache():
            began = time.perf_counter()
            with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to the power of an integer
                lowered = jax.jit(program, donate_argnums=0).lower(self.state, self._batch)
            self._program = lowered.compile(compiler_options=options)
            self.state, metrics = self._program(self.state, self._batch)
            self.first_loss = float(metrics["loss"][0] if scan else metrics["loss"])
            self.first_seconds = time.perf_counter() - began
        use: Any = self._program.memory_analysis()
        whole = use.temp_size_in_bytes + use.argument_size_in_bytes + use.output_size_in_bytes
        self.memory = whole - use.alias_size_in_bytes

    def __call__(self) -> jax.Array:
        for _ in range(self._calls):
            self.state, metrics = self._program(self.state, self._batch)
        return metrics["loss"]


def our_state(model: Any, network: Any, optimizer: optax.GradientTransformation, shape: tuple[int, ...]) -> TrainState:
    """A fresh state with the weights of the PyTorch `network`."""
    tensors = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    # its convolutions have no biases, those of the network that the layout knows have
    norms = [name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")]
    for norm in norms:
        block, _, number = norm.rpartition(".")
        tensors[f"{block}.{int(number) - 1}.bias"] = np.zeros_like(tensors[f"{norm}.bias"])
    variables = weights.from_torch(model, tensors, shape)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        key=jax.random.key(0),
    )


def _scanned(
    step: steps.TrainStep, count: int, state: TrainState, batch: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
    return jax.lax.scan(lambda state, _: step(state, batch), state, length=count)


@contextmanager
def _without_cache() -> Iterator[None]:
    """Compiles anew what the persistent compilation cache has."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # it remembers whether it is on
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def torch_unet(torch: Any, features: Sequence[int]) -> Any:
    """The U-Net `[B,3,H,W] -> [B,K,H,W]` in PyTorch, with the names that `weights.from_torch` knows."""

    class DoubleConv(torch.nn.Module):
        def __init__(self, *channels: int) -> None:
            super().__init__()
            layers = []
            for read, written in itertools.pairwise(channels):
                layers += [
                    torch.nn.Conv2d(read, written, 3, padding=1, bias=False),
                    torch.nn.BatchNorm2d(written),
                    torch.nn.ReLU(True),
                ]
            self.double_conv = torch.nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            return self.double_conv(x)

    class Down(torch.nn.Module):
        def __init__(self, read: int, width: int) -> None:
            super().__init__()
            self.maxpool_conv = torch.nn.Sequential(torch.nn.MaxPool2d(2), DoubleConv(read, width, width))

        def forward(self, x: Any) -> Any:
            return self.maxpool_conv(x)

    class Up(torch.nn.Module):
        def __init__(self, below: int, width: int, written: int) -> None:
            super().__init__()
            self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.conv = DoubleConv(width + below, width, written)

        def forward(self, x: Any, skip: Any) -> Any:
            return self.conv(torch.cat([skip, self.up(x)], 1))

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(features[0], NUM_CLASSES, 1)

        def forward(self, x: Any) -> Any:
            return self.conv(x)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inc, self.outc = DoubleConv(3, features[0], features[0]), Head()
            self.levels = len(features) - 1
            for level in range(1, self.levels + 1):
                self.add_module(f"down{level}", Down(features[level - 1], features[level]))
            below = features[-1]
            for level in reversed(range(self.levels)):
                written = features[max(level - 1, 0)]
                self.add_module(f"up{self.levels - level}", Up(below, features[level], written))
                below = written

        def forward(self, x: Any) -> Any:
            x = self.inc(x)
            skips = []
            for level in range(1, self.levels + 1):
                skips.append(x)
                x = self.get_submodule(f"down{level}")(x)
            for number in range(1, self.levels + 1):
                x = self.get_submodule(f"up{number}")(x, skips.pop())
            return self.outc(x)

    return Net()


def torch_dice_loss(torch: Any, logits: Any, labels: Any) -> Any:
    """`losses.dice_loss` in PyTorch: logits `[B,K,H,W]`, labels `[B,H,W]`."""
    probabilities = torch.softmax(logits.float(), 1)[:, 1:]
    truth = torch.nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].float()
    both = (probabilities * truth).sum((2, 3))
    total = probabilities.sum((2, 3)) + truth.sum((2, 3))
    return 1 - ((2 * both + 1) / (total + 1)).mean()


class TorchSteps:
    """`setting.steps` training steps per call of a copy of a PyTorch network, channels last.

    Attributes:
      first_seconds: from the call to compile, if it is compiled, to the first result.
      first_loss: of the first step.
      memory: bytes allocated at the peak on a GPU; 0 on CPU, where PyTorch does not count them.
    """

    def __init__(self, torch: Any, way: str, setting: Setting, network: Any, batch: dict[str, np.ndarray]) -> None:
        self._torch, self._setting = torch, setting
        self._device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        on_gpu = self._device == "cuda"
        held = torch.cuda.memory_allocated() if on_gpu else 0
        if on_gpu:
            torch.backends.cudnn.benchmark = True
            torch.cuda.reset_peak_memory_stats()
        copied = torch_unet(torch, setting.features)
        copied.load_state_dict(network.state_dict())
        copied = copied.to(self._device, memory_format=torch.channels_last)
        images = torch.from_numpy(batch["images"]).to(self._device).permute(0, 3, 1, 2)  # channels last as it is
        labels = torch.from_numpy(batch["labels"]).to(self._device).long()
        self._optimizer = torch.optim.Adam(copied.parameters(), lr=RATE, fused=True)
        reduced = setting.dtype == "bfloat16"

        def loss() -> Any:
            with torch.autocast(self._device, torch.bfloat16, enabled=reduced):
                return torch_dice_loss(torch, copied(images), labels)

        began = time.perf_counter()
        self._loss: Callable[[], Any] = torch.compile(loss) if way == "compile" else loss
        self.first_loss = float(self._step())
        self.first_seconds = time.perf_counter() - began
        self.memory = torch.cuda.max_memory_allocated() - held if on_gpu else 0

    def _step(self) -> Any:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def __call__(self) -> Any:
        for _ in range(self._setting.steps):
            loss = self._step()
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        return loss


def _working_ways(
    torch: Any, setting: Setting, network: Any, batch: dict[str, np.ndarray], ways: Sequence[str]
) -> tuple[dict[str, TorchSteps], list[str]]:
    """The ways that work here, and a remark on each that does not; `eager` must."""
    working, failed = {}, []
    for way in ways:
        try:
            working[way] = TorchSteps(torch, way, setting, network, batch)
        except Exception as error:  # a missing C++ compiler has many: what is compiled decides which
            if way == "eager":
                raise
            failed.append(f"{way} failed: {type(error).__name__}")
    return working, failed
