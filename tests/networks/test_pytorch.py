"""PyTorch modules as networks, beside PyTorch itself; skipped where it is not installed."""

import collections
import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import networks
from jaxseg.audit import audit
from jaxseg.data import builders
from jaxseg.errors import InputError
from jaxseg.networks import torch_padding
from tests import bright_squares

torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytestmark = pytest.mark.torch

torch.set_num_threads(1)  # networks are small, and the threads of several processes wait for each other
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 12, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(3, 8, 12, 2)).astype(np.float32)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Net(torch.nn.Module):
    """Down and up once; the ReLU writes into its input, and one block is called twice."""

    def __init__(self, channels=3, classes=2):
        super().__init__()
        self.stem = torch.nn.Conv2d(channels, 4, 3, padding=1)
        self.norm, self.relu = torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True)
        self.block = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.up = torch.nn.MaxPool2d(2), torch.nn.Upsample(scale_factor=2)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Conv2d(8, classes, 1)

    def forward(self, x):
        first = self.relu(self.norm(self.stem(x)))
        return self.rest(first)

    def rest(self, first):
        second = self.block(self.relu(self.block(self.pool(first))))
        return self.head(self.drop(torch.cat([first, self.up(second)], 1)))


class Wrapped(torch.nn.Module):
    """A module whose answer is made into something else."""

    def __init__(self, wrap, module=None):
        super().__init__()
        self.module, self.wrap = module or Net(), wrap

    def forward(self, x):
        return self.wrap(self.module(x))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return drawn(Net())


def drawn(module):
    """With running statistics that are not those of an untrained norm."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module


def make(module, **options):
    given = {"num_classes": 2, "image_size": (8, 12), "normalise": (MEAN, STD)}
    return networks.from_torch(module, **given | options)


def first(array):
    """Channels first, as a tensor."""
    return torch.from_numpy(np.moveaxis(np.array(array), -1, 1).copy())


def last(tensor):
    return np.moveaxis(tensor.detach().float().numpy(), 1, -1)


def normalised(images):
    return first((images + 1) / 2 - np.float32(MEAN)) / torch.tensor(STD)[:, None, None]


def own(module, images=IMAGES):
    """What the module itself says."""
    return last(module.eval()(normalised(images)))


def test_logits_are_the_modules_own_whatever_its_mode(module):
    network = make(module)
    module.train()
    module.block.eval()
    means = module.norm.running_mean.clone()
    logits = jax.jit(network.logits)(IMAGES)
    assert module.training and module.norm.training and not module.block.training
    assert torch.equal(module.norm.running_mean, means)
    np.testing.assert_allclose(logits, own(module), atol=1e-6)
    assert network.differentiable and network.notes == () and network.channels == 3 and network.sides == (8, 12)


def test_layers_are_convolutions_in_order_a_name_for_every_call(module):
    network = make(module, bottleneck="block#1")
    assert network.layers == ("stem", "block", "block#1", "head")
    assert network.roles == ("block#1", ("stem", "block"), ("head",), ("stem", "block", "block#1"))
    logits, found = jax.jit(network.captured, static_argnums=1)(IMAGES, network.layers)
    stem = module.eval().stem(normalised(IMAGES))
    np.testing.assert_allclose(found["stem"], last(stem), atol=1e-6)
    pooled = module.pool(torch.relu(module.norm(stem)))
    once = module.block(pooled)
    np.testing.assert_allclose(found["block"], last(once), atol=1e-6)  # before the ReLU that writes into it
    np.testing.assert_allclose(found["block#1"], last(module.block(torch.relu(once))), atol=1e-6)
    np.testing.assert_array_equal(found["head"], logits)
    chosen = make(module, layers=("relu", "norm"))
    assert chosen.layers == ("norm", "relu") and chosen.roles.convolutions == ()
    assert (np.asarray(chosen.activations(IMAGES)["norm"]) < 0).any()
    assert not any(part._forward_hooks for part in module.modules())


def test_replaced_layers_go_through_the_rest(module):
    network = make(module, layers=("relu", "block", "block#1"))
    logits, found = network.captured(IMAGES, network.layers)
    replaced = jax.jit(lambda given: network.replaced(IMAGES, given))
    np.testing.assert_allclose(replaced({"block": found["block"]}), logits, atol=1e-6)
    np.testing.assert_allclose(replaced(found), logits, atol=1e-6)
    other = np.random.default_rng(2).normal(size=(3, 8, 12, 4)).astype(np.float32)
    np.testing.assert_allclose(replaced({"relu": other}), last(module.eval().rest(first(other))), atol=1e-6)


def test_gradients_are_those_of_autograd(module):
    network = make(module, layers=("relu", "block"))
    activations = np.random.default_rng(2).normal(size=(3, 8, 12, 4)).astype(np.float32)

    @jax.jit
    def slopes(images, activations):
        through = jax.grad(lambda x: jnp.sum(network.replaced(images, {"relu": x}) * WEIGHTS))(activations)
        both = lambda x: network.captured(x, ("block",))
        of_both = lambda x: jnp.sum(both(x)[0] * WEIGHTS) + jnp.sum(both(x)[1]["block"] ** 2)
        return through, jax.grad(of_both)(images)

    through, of_images = slopes(IMAGES, activations)
    x = first(activations).requires_grad_()
    (module.eval().rest(x * 1) * first(WEIGHTS)).sum().backward()
    np.testing.assert_allclose(through, last(x.grad), atol=1e-5)
    x = first(IMAGES).requires_grad_()
    scaled = ((x + 1) / 2 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    block = module.block(module.pool(torch.relu(module.norm(module.stem(scaled)))))
    ((module(scaled) * first(WEIGHTS)).sum() + (block**2).sum()).backward()
    np.testing.assert_allclose(of_images, last(x.grad), atol=1e-3, rtol=1e-4)
    assert all(one.grad is None or one.grad.abs().sum() > 0 for one in module.parameters())


def test_vmap_and_batches_pass_images_on(module):
    network, sizes = make(module, batch_size=2), []
    module.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    np.testing.assert_allclose(network.logits(IMAGES), own(module), atol=1e-6)
    assert sizes[:2] == [2, 1]
    mapped = jax.jit(jax.vmap(network.logits))(np.stack([IMAGES, IMAGES[::-1]]))
    np.testing.assert_allclose(mapped[1], own(module)[::-1], atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: {"out": logits, "aux": logits + 1},
        lambda logits: [logits, torch.nn.functional.avg_pool2d(logits, 2), torch.nn.functional.avg_pool2d(logits, 4)],
        lambda logits: collections.OrderedDict(loss=torch.zeros(()), logits=logits),
        lambda logits: (logits, logits.mean((2, 3))),
        lambda logits: logits.softmax(1),
    ],
)
def test_answers_stand_where_libraries_put_them(wrap, module):
    network = make(Wrapped(wrap, module))
    found, expected = jax.nn.softmax(network.logits(IMAGES)), jax.nn.softmax(own(module))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_smaller_answers_are_resized_with_half_pixel_centres(module):
    quarter = lambda logits: torch.nn.functional.avg_pool2d(logits, 4)
    network = make(Wrapped(quarter, module))
    small = quarter(first(own(module)))
    resized = torch.nn.functional.interpolate(small, size=(8, 12), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(network.logits(IMAGES), last(resized), atol=1e-6)
    linear = jax.image.resize(last(small), (3, 8, 12, 2), "linear")
    np.testing.assert_allclose(network.logits(IMAGES), linear, atol=1e-5)
    assert network.notes == ("Its 2 x 3 answers are resized to the image's size.",)


def test_the_head_is_the_convolution_whose_output_is_the_answer(module):
    class Twofold(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.aux = module, torch.nn.Conv2d(2, 2, 1)

        def forward(self, x):
            logits = self.main(x)
            return {"out": logits, "aux": self.aux(logits)}

    network = make(Twofold())
    assert network.layers == ("main.stem", "main.block", "main.block#1", "main.head", "aux")
    assert network.roles.convolutions == ("main.stem", "main.block", "main.block#1")


def test_one_logit_is_the_foregrounds_and_a_mask_may_lack_its_axis():
    module = drawn(Net(classes=1))
    expected = own(module)
    for wrap in (lambda logits: logits, lambda logits: logits[:, 0]):
        logits = make(Wrapped(wrap, module), output="logits").logits(IMAGES)
        np.testing.assert_allclose(logits, np.concatenate([0 * expected, expected], -1), atol=1e-6)
    sigmoid = make(Wrapped(torch.sigmoid, module)).logits(IMAGES)
    np.testing.assert_allclose(jax.nn.softmax(sigmoid), jax.nn.softmax(logits), atol=1e-6)


def test_one_gray_channel_is_repeated_for_three(module):
    network = make(module, channels=1)
    gray = IMAGES[..., :1]
    np.testing.assert_allclose(network.logits(gray), own(module, np.repeat(gray, 3, -1)), atol=1e-6)
    assert network.notes == ("The one gray channel is repeated for a network of three.",) and network.channels == 1
    plain = networks.from_torch(Net(channels=1), num_classes=2, image_size=8, channels=1, output="logits")
    assert plain.notes == ()


def test_gray_levels_from_0_to_1_are_given_unless_it_is_said(module):
    network = make(module, normalise=(0.0, 1.0))
    np.testing.assert_allclose(network.logits(IMAGES), last(module.eval()(first((IMAGES + 1) / 2))), atol=1e-6)


def test_volumes_and_half_precision_go_the_same_way():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv3d(3, 2, 1))
    volumes = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4, 5, 1)).astype(np.float32)
    options = {"num_classes": 2, "image_size": (3, 4, 5), "channels": 1, "normalise": (0.5, 0.5), "output": "logits"}
    exact = np.asarray(networks.from_torch(module, **options).logits(volumes))
    np.testing.assert_allclose(exact, last(module(first(volumes))), atol=1e-6)
    network = networks.from_torch(module.bfloat16(), **options)
    found, layers = network.captured(volumes, ("0",))
    assert found.dtype == layers["0"].dtype == np.float32 and layers["0"].shape == (2, 3, 4, 5, 3)
    np.testing.assert_allclose(found, exact, atol=0.02)
    slopes = jax.grad(lambda x: jnp.sum(network.replaced(volumes, {"0": x})))(layers["0"])
    assert np.isfinite(slopes).all() and np.abs(slopes).max() > 0


def test_a_compiled_module_is_read_through(module):
    compiled = Wrapped(lambda logits: logits, module)  # as torch.compile's, which takes long to import
    compiled._orig_mod = module
    network = make(compiled)
    assert network.layers == ("stem", "block", "block#1", "head")


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
def test_other_padding_is_that_of_pytorch_and_the_module_stays_as_it_was(padding, module):
    network, before = make(module), own(module)
    assert network.padding == "zero"
    other = network.repadded(padding)
    found = other.logits(IMAGES)
    for convolution in (module.stem, module.block):
        convolution.padding_mode = padding
    assert other.padding == padding and np.abs(own(module) - before).max() > 1e-2
    np.testing.assert_allclose(found, own(module), rtol=1e-5, atol=1e-6)
    for convolution in (module.stem, module.block):
        convolution.padding_mode = "zeros"
    np.testing.assert_array_equal(network.logits(IMAGES), before)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_other_padding_of_maps_that_are_smaller_than_it_and_of_even_kernels():
    """What is wider than the map is mirrored again, as `np.pad` does; PyTorch's own modes refuse it."""
    torch.manual_seed(0)
    wide = torch.nn.Conv2d(3, 2, 4, padding="same", dilation=(9, 1), bias=False)
    widths = [(13, 14), (1, 2)]
    found = make(wide).repadded("reflect").logits(IMAGES)
    x = np.pad(last(normalised(IMAGES)), ((0, 0), *widths, (0, 0)), mode="reflect")
    wanted = sum(
        x[:, 9 * i : 9 * i + 8, j : j + 12] @ wide.weight.detach().numpy()[:, :, i, j].T
        for i in range(4)
        for j in range(4)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


class Strided(torch.nn.Module):
    """As encoders of TensorFlow are: what a stride needs of zeros, a module of its own has, and more of them behind."""

    def __init__(self, pad, last):
        super().__init__()
        self.pad, self.down = pad, torch.nn.Conv2d(3, 4, 3, stride=2)
        self.up, self.last = torch.nn.Upsample(scale_factor=2), last

    def forward(self, x):
        return self.last(self.up(self.down(self.pad(x))))


@pytest.mark.parametrize("kind", [torch.nn.ZeroPad2d, lambda widths: torch.nn.ConstantPad2d(widths, 0.0)])
def test_modules_that_pad_with_zeros_are_swapped_too(kind):
    torch.manual_seed(0)
    module = Strided(kind((0, 1, 2, 0)), torch.nn.Conv2d(4, 2, 3, padding=1))
    network, before = make(module), own(module)
    assert network.padding == "zero" and network.padding_seen == "" and not any("swap" in n for n in network.notes)
    found = network.repadded("reflect").logits(IMAGES)
    x = torch.from_numpy(np.pad(normalised(IMAGES), ((0, 0), (0, 0), (2, 0), (0, 1)), "reflect"))
    up = module.up(module.down(x))
    wanted = torch.nn.functional.conv2d(
        torch.nn.functional.pad(up, (1, 1, 1, 1), "reflect"), module.last.weight, module.last.bias
    )
    np.testing.assert_allclose(found, last(wanted), rtol=1e-5, atol=1e-5)
    assert module.pad.padding == (0, 1, 2, 0) and module.last.padding == (1, 1)
    np.testing.assert_array_equal(network.logits(IMAGES), before)


def test_padding_within_forward_is_not_claimed_to_be_swapped():
    class Inside(Strided):
        def forward(self, x):
            return self.last(self.up(self.down(torch.nn.functional.pad(x, (0, 1, 0, 1)))))

    some = make(Inside(None, torch.nn.Conv2d(4, 2, 3, padding=1)))
    assert some.padding == "zero" and some.padding_seen == "1 of the 2 convolutions wider than a pixel"
    assert some.notes == (
        "Of its 2 convolutions wider than a pixel, 1 are seen to be padded with zeros, and a swap of padding is "
        "theirs; whether the others are padded elsewhere is not known.",
    )
    none = make(Inside(None, torch.nn.Conv2d(4, 2, 1)))
    assert none.padding == "" and none.notes == () and none.repadded("reflect") is None
    for cut in (torch.nn.ZeroPad2d((-1, 1, 0, 0)), torch.nn.ConstantPad2d(1, 0.5)):  # no zeros around a map
        assert torch_padding.found(torch.nn.Sequential(cut)).parts == {}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["scripted", "traced", "within another"])
def test_torchscript_is_a_network_without_layers(how, tmp_path):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 2, 1)).eval()
    made = torch.jit.trace(plain, torch.zeros(1, 3, 8, 12)) if how == "traced" else torch.jit.script(plain)
    torch.jit.save(made, tmp_path / "module.pt")
    loaded = torch.jit.load(tmp_path / "module.pt")
    module = torch.nn.Sequential(loaded) if how == "within another" else loaded
    network = make(module, output="logits")
    np.testing.assert_allclose(jax.jit(network.logits)(IMAGES), own(plain), atol=1e-6)
    assert network.layers == () and network.padding == "" and network.repadded("reflect") is None
    slope = jax.grad(lambda images: jnp.sum(network.logits(images) * WEIGHTS))(IMAGES)
    x = first(IMAGES).requires_grad_()
    scaled = ((x + 1) / 2 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    (plain(scaled) * first(WEIGHTS)).sum().backward()
    assert network.differentiable
    np.testing.assert_allclose(slope, last(x.grad), atol=1e-5)
    name = "0.0" if how == "within another" else "0"
    sentence = rf"is TorchScript, which shows no layers \(give the module .*; it has no layer {name} that returns a map"
    for asked in ({"layers": (name,)}, {"bottleneck": name}):
        with pytest.raises(InputError, match=sentence):
            make(module, output="logits", **asked)


@pytest.mark.parametrize(
    ("normalise", "sentence"),
    [
        (
            ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)),
            r"the mean 123.7, 116.3, 103.5; .* divide what is meant for 0 to 255",
        ),
        ((0.5, 0.0), "the standard deviation 0, which must be above 0"),
        ((0.5, -0.2), "the standard deviation -0.2, which must be above 0"),
        ((0.0, 255.0), "the standard deviation 255, .* divide what is meant for 0 to 255 by 255"),
        ((float("nan"), 1.0), "the mean nan; they are of gray levels from 0 to 1"),
        (((-0.2, 0.5, 0.5), 1.0), "the mean -0.2, 0.5, 0.5"),
        (None, r"normalise is None; give the mean and the standard deviation of gray levels from 0 to 1"),
        (0.5, "normalise is 0.5; give the mean"),
        ((0.5,), r"normalise is \(0.5,\); give the mean"),
        (("a", 1.0), r"normalise is \('a', 1.0\); give the mean"),
        ((((0.5, 0.5), (0.5, 0.5)), 1.0), "normalise has 4 numbers for 3 channels"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(normalise, sentence, module):
    with pytest.raises(InputError, match=sentence) as error:
        make(module, normalise=normalise)
    assert "\n" not in str(error.value)


def test_what_becomes_of_gray_levels_is_said_in_words(module):
    assert make(module).normalisation == "gray levels from 0 to 1, minus 0.4, 0.5, 0.6, divided by 0.2, 0.25, 0.3"
    assert make(module, normalise=(0, 1)).normalisation == "gray levels from 0 to 1"
    assert make(module, normalise=(0.5, 0.5)).normalisation == "gray levels from 0 to 1, minus 0.5, divided by 0.5"
    assert make(module, normalise=(0, 1 / 255)).normalisation == "gray levels from 0 to 1, divided by 0.00392157"


def test_a_module_that_pads_no_zeros_says_so():
    without = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), torch.nn.Conv2d(4, 2, 1))
    network = make(without)
    assert network.padding == "" and network.repadded("reflect") is None


def test_the_fingerprint_is_that_of_the_state(module):
    before = make(module).fingerprint
    assert make(module).fingerprint == before
    module.norm.running_mean[0] += 1
    assert make(module).fingerprint != before


def test_the_fingerprint_is_that_of_all_that_changes_answers(module):
    """One state throughout: what is said beside it, what parts do with it, and what `forward` does."""
    mirrored = copy.deepcopy(module)
    mirrored.stem.padding_mode = "reflect"
    same = [make(module), make(module, batch_size=2), make(copy.deepcopy(module))]
    other = [
        make(module, normalise=(0.5, STD)),
        make(module, normalise=(MEAN, 0.5)),
        make(module, image_size=(8, 16)),
        make(module, layers=("stem", "block")),
        make(module, bottleneck="block"),
        make(mirrored),
        *(make(Wrapped(wrap, module), output="logits") for wrap in (lambda x: x, lambda x: x + 1, lambda x: x * 1.1)),
        make(Wrapped(lambda x: x.softmax(1), module), output="logits"),
        make(Wrapped(lambda x: x.softmax(1), module)),
    ]
    assert len({one.fingerprint for one in same}) == 1
    assert len({one.fingerprint for one in (*same, *other)}) == 1 + len(other)


def test_a_module_without_a_gradient_says_so(module):
    network = make(Wrapped(lambda logits: logits.detach(), module))
    assert not network.differentiable
    stem = network.activations(IMAGES, ("module.stem",))
    np.testing.assert_allclose(network.replaced(IMAGES, stem), own(module), atol=1e-6)
    with pytest.raises(InputError, match="the module Wrapped has no gradient"):
        jax.eval_shape(jax.grad(lambda images: jnp.sum(network.logits(images))), IMAGES)


@pytest.mark.parametrize(
    ("wrap", "options", "sentence"),
    [
        (lambda x: x * float("nan"), {}, "the module Wrapped gave NaN; look at its weights"),
        (
            lambda x: x,
            {"num_classes": 3},
            r"gave \(1, 2, 8, 12\) for 8 x 12 images, and none of 3 channels; give num_cl",
        ),
        (lambda x: x[..., 2:-2, 2:-2], {}, "gave 4 x 8 answers for 8 x 12 images, neither of their size nor smaller"),
        (lambda x: (x, x + 1), {}, "gave 2 answers alike, 0, 1; give a module that returns the one that counts"),
        (
            lambda x: x / 0 if False else 1 / 0,
            {},
            r"failed on images \(1, 3, 8, 12\): division by zero; give image_size",
        ),
        (lambda x: x.sigmoid(), {}, "2 channels between 0 and 1 that do not sum to 1; if these are independent yes or"),
        (lambda x: x, {"channels": 2, "normalise": (0, 1)}, "its first convolution takes 3 channels"),
        (lambda x: x, {"image_size": 7}, r"failed on images \(1, 3, 7, 7\): Sizes of tensors must match"),
        (
            lambda x: x,
            {"layers": ("module.stem", "relu")},
            "has no layer relu that returns a map; it has module.stem, ",
        ),
        (lambda x: x, {"bottleneck": "middle"}, "has no layer middle that returns a map"),
        (lambda x: x, {"normalise": ((0.5, 0.5), 1.0)}, "normalise has 2 numbers for 3 channels; give one, or one per"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(wrap, options, sentence, module):
    with pytest.raises(InputError, match=sentence) as error:
        make(Wrapped(wrap, module), **options)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="got a function; see from_function"):
        make(wrap)
    assert not any(part._forward_hooks for part in module.modules())


class Surrounded(torch.nn.Module):
    """One logit as it is, by a convolution that is padded within `forward`."""

    def __init__(self):
        super().__init__()
        self.same = torch.nn.Conv2d(1, 1, 3, bias=False)
        with torch.no_grad():
            self.same.weight.fill_(0.0)
            self.same.weight[0, 0, 1, 1] = 1.0

    def forward(self, x):
        return self.same(torch.nn.functional.pad(x, (1, 1, 1, 1)))


def test_a_module_is_audited_from_a_data_set_to_the_page(tmp_path):
    """A convolution that is a threshold; probes by gradients, layers and other padding are among them."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 1))
    module.append(Surrounded())
    with torch.no_grad():
        for part in (module[0], module[2]):
            part.weight.fill_(0.0), part.bias.fill_(0.0)
        module[0].weight[0, 0, 1, 1] = module[2].weight[0, 0] = 9.0
        module[2].bias.fill_(-40.0)
    network = networks.from_torch(
        module, num_classes=2, image_size=24, layers=("0", "1"), bottleneck="1", output="logits"
    )
    raw = tmp_path / "raw"
    raw.mkdir()
    bright_squares.write(raw, 24)
    folder = builders.prepare("folder/squares", data_dir=tmp_path / "data", manual_dir=raw)
    quick = {"resamples": 100, "examples": 1, "autoencoder_steps": 2, "autoencoder_width": 2, "latent": 2}
    quick["probes"] = ("translation", "padding", "failures", "ability")
    result = audit(network, folder, tmp_path / "audit", known_dice=1.0, name="a threshold", **quick)
    assert result.verdict == "no" and not result.findings
    rows = json.loads((tmp_path / "audit" / "results.json").read_text())["numbers"]
    league = [row["where"] for row in rows if row["quantity"] == "rank correlation"]
    assert league == ["mean SA", "entropy", "SD", "PM", "LM"]
    swapped = {row["quantity"]: row["mean"] for row in rows if row["probe"] == "padding"}
    assert (
        swapped["Dice, zero padding"] == 1.0 and swapped["changed by the swap"] == 0.0
    )  # the pixels beside count nothing
    conventions = {row["convention"] for row in rows if row["probe"] == "padding"}
    assert any(
        "from zero to reflect in 1 of the 2 convolutions wider than a pixel of the tra" in c for c in conventions
    )
    ability = {row["where"]: row["mean"] for row in rows if row["probe"] == "ability"}
    assert ability == {"0": pytest.approx(1.0)}  # a convolution, but not the head
    words = result.page.read_text()
    assert network.fingerprint in words and "Range, which the network is given as gray levels from 0 to 1" in words
