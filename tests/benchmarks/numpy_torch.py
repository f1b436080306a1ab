"""As much of PyTorch as the benchmarks ask for, on NumPy and without gradients: a forward pass, and who asks for what.

Parameters are drawn; an optimiser's step leaves them as they are.
"""

import contextlib
import types

import jax
import numpy as np

GPU = False  # whether there is one


class Tensor(np.ndarray):
    """An array with the methods of a tensor that the benchmarks call."""

    is_cuda = False

    def to(self, device):
        return _on(self, device)

    def detach(self):
        return self

    cpu = contiguous = detach

    def numpy(self):
        return np.asarray(self)

    def permute(self, *axes):
        return self.transpose(axes)

    def movedim(self, source, target):
        return np.moveaxis(self, source, target)

    def float(self):
        return self.astype(np.float32)

    def long(self):
        return self.astype(np.int64)

    def sum(self, axes, keepdim=False):
        return tensor(np.sum(np.asarray(self), axes, keepdims=keepdim))

    def mean(self):
        return tensor(np.mean(np.asarray(self)))

    def backward(self):
        pass


def tensor(array):
    return np.asarray(array).view(Tensor)


class Module:
    """Modules within modules, by the names of their attributes; `counts` has how often each class was called."""

    def __init__(self):
        self.__dict__["parts"] = {}

    def __setattr__(self, name, value):
        if isinstance(value, Module | Tensor):
            self.parts[name] = value
        super().__setattr__(name, value)

    def add_module(self, name, module):
        setattr(self, name, module)

    def get_submodule(self, name):
        return self.parts[name]

    def __call__(self, *arguments):
        return self.forward(*arguments)

    def state_dict(self):
        found = {}
        for name, part in self.parts.items():
            found |= (
                {name: part} if isinstance(part, Tensor) else {f"{name}.{k}": v for k, v in part.state_dict().items()}
            )
        return found

    def load_state_dict(self, tensors):
        own = self.state_dict()
        assert own.keys() == tensors.keys()
        for name, value in tensors.items():
            own[name][...] = value

    def parameters(self):
        return [value for name, value in self.state_dict().items() if "running" not in name]

    def to(self, device, memory_format):
        assert memory_format == "channels_last"
        return _on(self, device)


def _on(what, device):
    assert device == ("cuda" if GPU else "cpu")
    return what


class Sequential(Module):
    def __init__(self, *modules):
        super().__init__()
        for number, module in enumerate(modules):
            self.add_module(str(number), module)

    def forward(self, x):
        for part in self.parts.values():
            x = part(x)
        return x


class Conv2d(Module):
    """Of stride 1, with zeros around."""

    def __init__(self, read, written, kernel, padding=0, bias=True):
        super().__init__()
        random = np.random.default_rng([read, written, kernel])
        self.padding = padding
        drawn = random.standard_normal((written, read, kernel, kernel)) * np.sqrt(2 / (read * kernel**2))
        self.weight = tensor(drawn.astype(np.float32))
        if bias:
            self.bias = tensor(random.standard_normal(written).astype(np.float32))

    def forward(self, x):
        p, k = self.padding, self.weight.shape[-1]
        padded = np.pad(np.asarray(x), ((0, 0), (0, 0), (p, p), (p, p)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (2, 3))
        made = np.einsum("bihwkl,oikl->bohw", windows, np.asarray(self.weight), optimize=True)
        return tensor(made + (np.asarray(self.bias)[:, None, None] if "bias" in self.parts else 0))


class BatchNorm2d(Module):
    """As in training, without noting the statistics."""

    def __init__(self, width):
        super().__init__()
        random = np.random.default_rng(width)
        self.weight = tensor(random.uniform(0.5, 1.5, width).astype(np.float32))
        self.bias = tensor(random.uniform(-0.5, 0.5, width).astype(np.float32))
        self.running_mean, self.running_var = tensor(np.zeros(width, np.float32)), tensor(np.ones(width, np.float32))

    def forward(self, x):
        x = np.asarray(x)
        normal = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        return tensor(normal * np.asarray(self.weight)[:, None, None] + np.asarray(self.bias)[:, None, None])


class ReLU(Module):
    def __init__(self, inplace):
        super().__init__()

    def forward(self, x):
        return np.maximum(x, 0)


class MaxPool2d(Module):
    def __init__(self, size):
        super().__init__()
        assert size == 2

    def forward(self, x):
        return tensor(np.max([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 0))


class Upsample(Module):
    def __init__(self, *, scale_factor, mode, align_corners):
        super().__init__()
        self.options = {"mode": mode, "align_corners": align_corners}
        self.scale = scale_factor

    def forward(self, x):
        return interpolate(x, size=[self.scale * side for side in x.shape[-2:]], **self.options)


def interpolate(x, *, size, mode, align_corners):
    assert (mode, align_corners) == ("bilinear", False) and len(size) == 2
    return tensor(jax.image.resize(np.asarray(x), (*x.shape[:2], *size), "linear", antialias=False))


def softmax(x, axis):
    powers = np.exp(np.asarray(x) - np.max(np.asarray(x), axis, keepdims=True))
    return tensor(powers / powers.sum(axis, keepdims=True))


class Adam:
    def __init__(self, parameters, **options):
        assert len(parameters) and options == {"lr": 1e-3, "fused": True}
        self.taken = 0

    def zero_grad(self, set_to_none):
        assert set_to_none

    def step(self):
        self.taken += 1


class DataLoader:
    """In this process, in order."""

    def __init__(self, cases, batch_size, **options):
        assert options == {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}
        self.cases, self.size = cases, batch_size

    def __iter__(self):
        for start in range(0, len(self.cases), self.size):
            held = [self.cases[i] for i in range(start, min(start + self.size, len(self.cases)))]
            yield tuple(np.stack(part) for part in zip(*held, strict=True))


def compile_with(calls):
    def compiled(function):
        calls.append("compile")
        return function

    return compiled


def module():
    """A stand-in for the module `torch`; `calls` has what was asked of it beside the computation."""
    calls = []
    autocast = lambda device, dtype, enabled: calls.append(("autocast", device, enabled)) or contextlib.nullcontext()
    cuda = types.SimpleNamespace(
        memory_allocated=lambda: 1000,
        max_memory_allocated=lambda: 4000,
        reset_peak_memory_stats=lambda: calls.append("reset"),
        synchronize=lambda: calls.append("synchronize"),
    )
    functional = types.SimpleNamespace(
        interpolate=interpolate, one_hot=lambda labels, count: tensor(np.eye(count, dtype=np.int64)[labels])
    )
    layers = (Module, Sequential, Conv2d, BatchNorm2d, ReLU, MaxPool2d, Upsample)
    return types.SimpleNamespace(
        calls=calls,
        nn=types.SimpleNamespace(functional=functional, **{layer.__name__: layer for layer in layers}),
        backends=types.SimpleNamespace(cudnn=types.SimpleNamespace(benchmark=False)),
        optim=types.SimpleNamespace(Adam=Adam),
        utils=types.SimpleNamespace(data=types.SimpleNamespace(DataLoader=DataLoader)),
        cuda=cuda,
        autocast=autocast,
        bfloat16="bfloat16",
        channels_last="channels_last",
        compile=compile_with(calls),
        manual_seed=lambda seed: calls.append(("seed", seed)),
        from_numpy=lambda array: tensor(array.copy()),
        cat=lambda parts, axis: tensor(np.concatenate(parts, axis)),
        stack=lambda parts, axis: tensor(np.stack(parts, axis)),
        pow=lambda x, power: tensor(np.asarray(x) ** power),
        softmax=softmax,
    )
