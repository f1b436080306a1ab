"""The analyses beside a plain transcription of what the papers' authors ran."""

import concurrent.futures
import functools
import resource
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models
from jaxseg.analysis import hellinger, prototypes
from jaxseg.benchmarks import timing
from jaxseg.models import capture

SIZE = 256  # pixels
BATCH = 2
WIDTHS = (64, 128, 256, 512, 1024)
# channels of the stages of a ResNet18 U-Net, encoder and decoder (Wilm et al. 2024)
STAGES = (64, 64, 128, 256, 512, 256, 128, 64, 32)
_CELLS = 64  # vectors per image of 256 px
_IMAGES_PER_BATCH = 50


def run(*, rounds: int = 5, size: int = SIZE, widths: tuple[int, ...] = WIDTHS) -> dict[str, Any]:
    """All tables of this benchmark.

    Args:
      rounds: how often the two sides take turns.
      size: side of the images in pixels.
      widths: channels of the U-Net per level, the last of the bottleneck.

    Raises:
      InputError: PyTorch is not installed.
    """
    # first, while the process is small, so that its growth shows
    streams = [streamed_hellinger(images, rounds=rounds) for images in (100, 1000)]
    layers = features(size, widths)
    return {
        "machine": timing.machine(),
        "hellinger": streams,
        "protoseg": protoseg(layers, size, rounds=rounds),
        "forward": forward(size, widths, rounds=rounds),
    }


def features(size: int, widths: tuple[int, ...]) -> list[np.ndarray]:
    """Random activations `[B,h,w,C]` in the shapes of the 18 layers, positive, and other inside a disc than outside."""
    random = np.random.default_rng(0)

    def layer(n: int, c: int) -> np.ndarray:
        signal = _disc(n)[..., None] * random.uniform(-0.5, 0.5, c)
        return np.maximum(random.standard_normal((BATCH, n, n, c), np.float32) + signal, 0).astype(np.float32)

    down = [(size >> level, width) for level, width in enumerate(widths)]
    shapes = [shape for shape in [*down, *down[-2::-1]] for _ in range(2)]
    return [layer(n, c) for n, c in shapes]


def _disc(size: int) -> np.ndarray:
    position = (np.arange(size) + 0.5) / size - 0.5
    return (np.hypot(*np.meshgrid(position, position)) < 0.3).astype(np.float32)


def protoseg(layers: list[np.ndarray], size: int, *, rounds: int) -> list[dict[str, Any]]:
    """One row per layer and one for all: the object probability, in JAX and as Algorithm 1 on up-sampled features."""
    torch = timing.pytorch()
    mask = (0.05 + 0.9 * _disc(size)[None] * np.ones((BATCH, 1, 1))).astype(np.float32)
    ours = jax.jit(prototypes.object_probability)
    bandwidth = timing.memory_bandwidth([jnp.asarray(layer) for layer in layers])
    rows: list[dict[str, Any]] = []
    for number, layer in enumerate(layers, 1):
        on_device = jnp.asarray(layer), jnp.asarray(mask)
        in_torch = torch.from_numpy(layer).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(mask)
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        theirs = torch_side(torch, *(tensor.to(device) for tensor in in_torch))
        pair = timing.compare(functools.partial(ours, *on_device), theirs, rounds=rounds)
        seconds, torch_seconds = pair.best
        rows.append(
            {
                "layer": number,
                "shape": "x".join(map(str, layer.shape)),
                "milliseconds": 1e3 * seconds,
                "torch_milliseconds": 1e3 * torch_seconds,
                "speedup": torch_seconds / seconds,
                "largest_difference": float(np.abs(np.asarray(ours(*on_device)) - theirs().cpu().numpy()).max()),
                # the prototypes read the features once, the probability once more
                "bandwidth_share": 2 * layer.nbytes / seconds / bandwidth,
                "memory_over_features": 1 + timing.memory_use(prototypes.object_probability, *on_device) / layer.nbytes,
            }
        )
    total = {name: sum(row[name] for row in rows) for name in ("milliseconds", "torch_milliseconds")}
    worst = {name: max(row[name] for row in rows) for name in ("largest_difference", "memory_over_features")}
    whole = {"speedup": total["torch_milliseconds"] / total["milliseconds"]}
    whole["bandwidth_share"] = 2e3 * sum(layer.nbytes for layer in layers) / total["milliseconds"] / bandwidth
    return [*rows, {"layer": "all", "shape": f"{len(layers)} layers"} | total | worst | whole]


def torch_side(torch: Any, layer: Any, mask: Any) -> Callable[[], Any]:
    """Algorithm 1 of He et al. 2022 as it stands: features `[B,C,h,w]` are up-sampled, then compared with centres."""

    def side() -> Any:
        f = torch.nn.functional.interpolate(layer, size=mask.shape[-2:], mode="bilinear", align_corners=False)
        b = mask[:, None]
        centre = lambda p: (f * p).sum((2, 3), keepdim=True) / p.sum((2, 3), keepdim=True)
        distance = lambda c: torch.pow(f - c, 2).sum(1)
        scores = torch.stack([-distance(centre(1 - b)), -distance(centre(b))], 1)
        result = torch.softmax(scores, 1)[:, 1]
        if result.is_cuda:
            torch.cuda.synchronize()
        return result

    return side


def forward(size: int, widths: tuple[int, ...], *, rounds: int) -> dict[str, Any]:
    """The U-Net's forward pass with the SA scores of all its layers, beside the plain one."""
    module = models.build("unet", 2, features=widths, upsample="transpose")
    images = jax.random.normal(jax.random.key(0), (BATCH, size, size, 3))
    variables = jax.jit(module.init)(jax.random.key(1, impl="rbg"), images)
    labels = (images[..., 0] > 0).astype(jnp.int32)

    def scored(variables: Any, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        logits, activations = capture.capture(module, variables, images, module.numbered_layers)
        mask = jax.nn.softmax(logits)[..., 1]
        return logits, [prototypes.sa_score(activations[name], mask, labels) for name in module.numbered_layers]

    plain, scored = jax.jit(module.apply), jax.jit(scored)
    pair = timing.compare(
        functools.partial(scored, variables, images), functools.partial(plain, variables, images), rounds=rounds
    )
    seconds, plain_seconds = pair.best
    return {"seconds": seconds, "plain_seconds": plain_seconds, "cost": 1 / pair.speedup}


def streamed_hellinger(images: int, *, rounds: int, stages: tuple[int, ...] = STAGES) -> dict[str, Any]:
    """Distances of two domains for the stages of a network, streamed, beside a loop of `numpy.histogram`.

    Both sides count within ranges that are known; the stream has a thread per domain. One batch per domain and stage
    stands for all: the stream repeats it.
    """
    random = np.random.default_rng(2)
    shape = lambda channels: (_IMAGES_PER_BATCH * _CELLS, channels)
    domains = [[random.gamma(2.0, 1.0 + shift, shape(c)).astype(np.float32) for c in stages] for shift in (0.0, 0.1)]
    ranges = [hellinger.init_range(channels) for channels in stages]
    for domain in domains:
        ranges = [hellinger.update_range(r, jnp.asarray(x)) for r, x in zip(ranges, domain, strict=True)]
    batches, peak = images // _IMAGES_PER_BATCH, _peak_kilobytes()

    def update_all(states: list[hellinger.Histograms], batch: list[jax.Array]) -> list[hellinger.Histograms]:
        return [hellinger.update(*pair) for pair in zip(states, batch, strict=True)]

    update = jax.jit(update_all, donate_argnums=0)
    compute = jax.jit(lambda p, q: [hellinger.compute(*pair) for pair in zip(p, q, strict=True)])
    on_device = [[jnp.asarray(layer) for layer in domain] for domain in domains]

    def stream(batch: list[jax.Array]) -> list[hellinger.Histograms]:
        states = [hellinger.init(*r) for r in ranges]
        for _ in range(batches):
            states = update(states, batch)
        return jax.block_until_ready(states)

    def streamed() -> list[jax.Array]:
        return compute(*domains_at_once.map(stream, on_device))

    def looped() -> list[np.ndarray]:
        return [_numpy_hellinger(p, q, batches) for p, q in zip(*domains, strict=True)]

    # the domains do not depend on each other, and XLA on CPU runs a scatter on one core
    with concurrent.futures.ThreadPoolExecutor(len(domains)) as domains_at_once:
        pair = timing.compare(streamed, looped, rounds=rounds)
        differences = [np.abs(np.asarray(a) - b).max() for a, b in zip(streamed(), looped(), strict=True)]
    seconds, numpy_seconds = pair.best
    states = [hellinger.init(*r) for r in ranges]
    return {
        "images": images,
        "layers": len(stages),
        "seconds": seconds,
        "numpy_seconds": numpy_seconds,
        "speedup": pair.speedup,
        "largest_difference": float(max(differences)),
        "program_megabytes": timing.memory_use(update_all, states, on_device[0]) / 1e6,
        "process_growth_megabytes": (_peak_kilobytes() - peak) / 1e3,
    }


def _peak_kilobytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _numpy_hellinger(p: np.ndarray, q: np.ndarray, repeats: int) -> np.ndarray:
    distances = []
    for channel in range(p.shape[1]):
        low, high = (f([p[:, channel], q[:, channel]]) for f in (np.min, np.max))
        frequencies = []
        for x in (p, q):
            counts = np.zeros(100)
            for _ in range(repeats):
                counts += np.histogram(x[:, channel], 100, (low, high))[0]
            frequencies.append(counts / counts.sum())
        distances.append(np.sqrt(max(0.0, 1 - np.sqrt(frequencies[0] * frequencies[1]).sum())))
    return np.array(distances)
