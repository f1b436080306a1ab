"""PyTorch tensors in: the authors' numbers out."""

import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models import layouts, matching, weights
from jaxseg.models.layouts import LAYOUTS


@pytest.fixture(scope="module")
def skinseg(oracles, drawn_state_dict):
    with np.load(oracles / "skinseg_unet.npz") as stored:
        data = dict(stored)
    shapes = json.loads((oracles / "parameter_shapes.json").read_text())["skinseg_unet"]
    return drawn_state_dict(shapes, int(data["seed"])), data["images"], data["logits"]


def test_the_shortcut_papers_unet_gives_its_logits(skinseg):
    state_dict, images, logits = skinseg
    module = models.build("unet", 2, upsample="bilinear_aligned")
    variables = weights.from_torch(module, state_dict, images.shape)
    ours = jax.jit(module.apply)(variables, images)
    assert np.abs(ours - logits).max() < 1e-3


def test_without_a_skip_it_is_the_network_whose_weights_for_the_skip_are_zero(skinseg):
    state_dict, images, _ = skinseg
    silenced = dict(state_dict)
    for name, channels in (("up4.conv.double_conv.0.weight", 64), ("up2.conv.double_conv.0.weight", 256)):
        silenced[name] = silenced[name].copy()
        silenced[name][:, :channels] = 0
    full = models.build("unet", 2, upsample="bilinear_aligned")
    cut = models.build("unet", 2, upsample="bilinear_aligned", skips=(False, True, False, True))
    expected = jax.jit(full.apply)(weights.from_torch(full, silenced, images.shape), images)
    ours = jax.jit(cut.apply)(weights.from_torch(cut, state_dict, images.shape), images)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def torch_shapes(features=(4, 6, 8), channels=2, classes=3):
    """Names and shapes of the PyTorch U-Net with transposed up-sampling."""
    shapes = {}

    def block(name, read, width):
        for i, (source, target) in enumerate(((read, width), (width, width))):
            shapes[f"{name}.double_conv.{3 * i}.weight"] = (target, source, 3, 3)
            shapes[f"{name}.double_conv.{3 * i}.bias"] = (target,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.double_conv.{3 * i + 1}.{part}"] = (target,)

    block("inc", channels, features[0])
    for i, (above, width) in enumerate(itertools.pairwise(features), 1):
        block(f"down{i}.maxpool_conv.1", above, width)
        up = len(features) - i
        shapes[f"up{up}.up.weight"] = (width, above, 2, 2)
        shapes[f"up{up}.up.bias"] = (above,)
        block(f"up{up}.conv", 2 * above, above)
    shapes["outc.conv.weight"], shapes["outc.conv.bias"] = (classes, features[0], 1, 1), (classes,)
    return shapes


@pytest.fixture
def small(drawn_state_dict):
    module = models.build("unet", 3, features=(4, 6, 8), upsample="transpose")
    return module, drawn_state_dict(torch_shapes(), 3)


def test_transposed_up_sampling_fills_every_variable(small):
    module, state_dict = small
    variables = weights.from_torch(module, state_dict, (1, 16, 16, 2))
    wanted = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 16, 16, 2), np.float32))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, wanted)
    kernel = variables["params"]["up_1"]["kernel"]  # [in, 2, 2, out] from PyTorch's [in, out, 2, 2]
    np.testing.assert_array_equal(kernel[3, 0, 1, 5], state_dict["up1.up.weight"][3, 5, 0, 1])


def test_counters_of_batches_are_ignored(small):
    module, state_dict = small
    extended = state_dict | {"inc.double_conv.1.num_batches_tracked": np.array(7)}
    weights.from_torch(module, extended, (1, 16, 16, 2))


def test_a_few_that_do_not_fit_are_named(small):
    module, state_dict = small
    broken = dict(state_dict)
    del broken["inc.double_conv.0.bias"]
    broken["fc.weight"] = np.zeros((5, 2), np.float32)
    broken["inc.double_conv.3.bias"] = np.zeros(1, np.float32)  # would broadcast
    broken["outc.conv.weight"] = np.zeros((7, 4, 1, 1), np.float32)
    broken["up2.conv.double_conv.0.weight"] = np.zeros((4, 5, 3, 3), np.float32)
    with pytest.raises(InputError) as error:
        weights.from_torch(module, broken, (1, 16, 16, 2))
    text = str(error.value)
    assert "missing: inc.double_conv.0.bias" in text
    assert "left over: fc.weight (5, 2)" in text
    assert "misshapen: inc.double_conv.3.bias (1,), the network takes (4,)" in text
    assert "misshapen: outc.conv.weight (7, 4, 1, 1), the network takes (3, 4, 1, 1)" in text
    assert "misshapen: up2.conv.double_conv.0.weight (4, 5, 3, 3), the network takes (4, 8, 3, 3)" in text


def refused(module, state_dict, image_shape):
    with pytest.raises(InputError) as error:
        weights.from_torch(module, state_dict, image_shape)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_of_many_that_do_not_fit_the_first_are_named_and_the_others_counted(small):
    module, state_dict = small
    broken = {name: array[:1] if "double_conv.1.bias" in name else array for name, array in state_dict.items()}
    text = refused(module, broken, (1, 16, 16, 2))
    assert text.count("the network takes") == 3 and text.endswith("and 2 more misshapen")


SAME = {"upsample": "transpose", "features": (4, 6, 8)}


@pytest.mark.parametrize(
    ("shapes", "classes", "options", "image", "difference", "remedy"),
    [
        ({}, 3, SAME | {"norm": "group"}, (16, 16, 2), "norm=batch, and the network has norm=group", "norm=batch"),
        ({}, 3, SAME | {"features": (4, 6)}, (16, 16, 2), "features=(4,6,8), and", "config.model.features=(4,6,8)"),
        (
            {},
            3,
            SAME | {"upsample": "bilinear"},
            (16, 16, 2),
            "upsample=transpose, and",
            "config.model.upsample=transpose",
        ),
        ({}, 2, SAME, (16, 16, 2), "num_classes=3, and the network has num_classes=2", "a data set with 3 classes"),
        ({}, 3, SAME, (8, 8, 8, 2), "dimensions=2, and the network has dimensions=3", "a data set of images in 2-D"),
        ({}, 3, SAME, (16, 16, 5), "channels=2, and the network has channels=5", "a data set with 2 channels"),
        ({"channels": 1}, 3, SAME, (16, 16, 3), "channels=1, and the network has channels=3", "to gray before"),
        ({"channels": 3}, 3, SAME, (16, 16, 1), "channels=3, and the network has channels=1", "weights.for_gray("),
        (
            {"features": (5, 7)},
            2,
            SAME,
            (16, 16, 1),
            "features=(5,7), num_classes=3, channels=2, and the network has features=(4,6,8), num_classes=2",
            "set config.model.features=(5,7); choose a data set with 3 classes, the background counted; choose",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_explains_all_that_does_not_fit_is_named_with_the_remedy(
    drawn_state_dict, prefix, shapes, classes, options, image, difference, remedy
):
    state_dict = {prefix + name: array for name, array in drawn_state_dict(torch_shapes(**shapes), 3).items()}
    text = refused(models.build("unet", classes, **options), state_dict, (1, *image))
    assert f"these are the tensors of unet with {difference}" in text and remedy in text
    assert "missing" not in text and "misshapen" not in text


FOREIGN = {
    "nnU-Net": {
        "encoder.stages.0.0.convs.0.conv.weight": (32, 1, 3, 3),
        "encoder.stages.0.0.convs.0.norm.weight": (32,),
        "decoder.encoder.stages.0.0.convs.0.conv.weight": (32, 1, 3, 3),
        "decoder.seg_layers.0.weight": (2, 32, 1, 1),
    },
    "MONAI": {"model.0.conv.unit0.conv.weight": (16, 1, 3, 3), "model.2.0.conv.weight": (32, 2, 3, 3)},
    "torchvision": {"backbone.layer1.0.conv3.weight": (256, 64, 1, 1), "classifier.4.weight": (21, 256, 1, 1)},
    "another": {"encoder._conv_stem.weight": (32, 3, 3, 3), "segmentation_head.0.weight": (2, 16, 3, 3)},
}


@pytest.mark.parametrize("whose", FOREIGN)
@pytest.mark.parametrize("prefix", ["", "network."])
def test_another_architecture_is_one_sentence_with_the_three_nearest(whose, prefix):
    tensors = {prefix + name: np.zeros(shape, np.float32) for name, shape in FOREIGN[whose].items()}
    text = refused(models.build("unet", 2, features=(4, 6)), tensors, (1, 8, 8, 1))
    assert whose in text and f"{len(tensors)} tensors, such as {next(iter(tensors))} (" in text
    assert text.count(" of its ") == 3 and "missing" not in text and "left over" not in text
    if whose == "another":
        assert "are resnet_unet with resnet18 (1 of its 152), " in text


def test_without_any_tensors_the_first_missing_ones_are_named(small):
    assert "missing: down1.maxpool_conv.1.double_conv.0.weight; " in refused(small[0], {}, (1, 16, 16, 2))


def test_tensors_of_another_known_network_name_it(drawn_state_dict):
    module = models.build("residual_unet", 2, features=(3, 4))
    text = refused(module, drawn_state_dict(torch_shapes(), 3), (1, 16, 16, 2))
    assert "these are the tensors of unet with features=(4,6,8), upsample=transpose, norm=batch" in text
    assert text.endswith("and the network is residual_unet; set config.model.name=unet")


def same(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "network.", "unet.", "module.", "a.b.model.module.", "module.model."]
)
def test_a_common_prefix_is_no_part_of_the_names(small, capsys, prefix):
    module, state_dict = small
    expected = weights.from_torch(module, state_dict, (1, 16, 16, 2))
    same(weights.from_torch(module, {prefix + n: a for n, a in state_dict.items()}, (1, 16, 16, 2)), expected)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_loss_beside_the_network_is_left_out_with_a_word(small, capsys, prefix):
    module, state_dict = small
    expected = weights.from_torch(module, state_dict, (1, 16, 16, 2))
    beside = {
        name: np.ones(3, np.float32) for name in ("criterion.weight", "val_loss.w", "train_metrics.sum", "loss.weight")
    }
    same(weights.from_torch(module, {prefix + n: a for n, a in state_dict.items()} | beside, (1, 16, 16, 2)), expected)
    assert capsys.readouterr().err == (
        "left out, as it is not part of the network: criterion.weight, loss.weight, train_metrics.sum and 1 more\n"
    )


def test_other_tensors_behind_another_prefix_are_left_out_and_unknown_ones_within_the_network_are_not(small, capsys):
    module, state_dict = small
    state_dict = {f"model.{name}": array for name, array in state_dict.items()}
    weights.from_torch(module, state_dict | {"discriminator.conv.weight": np.ones((2, 2, 3, 3))}, (1, 16, 16, 2))
    assert "discriminator.conv.weight" in capsys.readouterr().err
    text = refused(module, state_dict | {"model.attention.weight": np.ones((2, 2, 3, 3))}, (1, 16, 16, 2))
    assert "left over: attention.weight (2, 2, 3, 3)" in text


def test_two_networks_behind_two_prefixes_are_not_chosen_from(small):
    module, state_dict = small
    both = {f"{prefix}.{name}": array for prefix in ("student", "teacher") for name, array in state_dict.items()}
    text = refused(module, both, (1, 16, 16, 2))
    assert "several networks, under student, teacher" in text and "FILE:student" in text


def test_convolutions_without_a_bias_are_as_those_with_zeros(small):
    module, state_dict = small
    is_bias = lambda name: name.endswith(("double_conv.0.bias", "double_conv.3.bias"))
    zeros = {name: 0 * array if is_bias(name) else array for name, array in state_dict.items()}
    none = {name: array for name, array in state_dict.items() if not is_bias(name)}
    same(*(weights.from_torch(module, tensors, (1, 16, 16, 2)) for tensors in (none, zeros)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_tensors_of_other_types_become_float32(small, dtype):
    module, state_dict = small
    stored = {name: array.astype(jnp.dtype(dtype)) for name, array in state_dict.items()}
    expected = weights.from_torch(module, {n: a.astype(np.float32) for n, a in stored.items()}, (1, 16, 16, 2))
    ours = weights.from_torch(module, stored, (1, 16, 16, 2))
    same(ours, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("file", "network", "name", "options"),
    [
        ("skinseg_unet", "skinseg_unet", "unet", {"upsample": "bilinear_aligned"}),
        ("smp_resnet18", "smp_resnet18", "resnet_unet", {}),
        ("damri_unet2d", "damri_unet2d", "residual_unet", {}),
    ],
)
def test_one_logit_becomes_two_whose_softmax_is_its_sigmoid(oracles, drawn_state_dict, file, network, name, options):
    """The authors' networks with the second of their classes alone, beside the authors' logits of it."""
    shapes = json.loads((oracles / "parameter_shapes.json").read_text())[network]
    with np.load(oracles / f"{file}.npz") as stored:
        tensors, images, logits = drawn_state_dict(shapes, int(stored["seed"])), stored["images"], stored["logits"]
    module = models.build(name, 2, **options)
    head = LAYOUTS[type(module)].head(module)
    one = {name: array[1:2] if name in head else array for name, array in tensors.items()}
    ours = jax.jit(module.apply)(weights.from_torch(module, one, images.shape), images)
    z = logits[..., 1].astype(np.float64)
    np.testing.assert_array_equal(ours[..., 0], 0)
    assert np.abs(ours[..., 1] - z).max() < 1e-3 * max(1, np.abs(z).max())
    sigmoid = scipy.special.expit(np.asarray(ours[..., 1], np.float64))
    np.testing.assert_allclose(jax.nn.softmax(ours)[..., 1], sigmoid, atol=1e-6)
    assert "num_classes=2" in refused(models.build(name, 3, **options), one, images.shape)


def test_half_a_head_of_one_logit_does_not_fit(small):
    _, state_dict = small
    module = models.build("unet", 2, **SAME)
    mixed = state_dict | {
        "outc.conv.weight": np.ones((2, 4, 1, 1), np.float32),
        "outc.conv.bias": np.ones(1, np.float32),
    }
    assert "misshapen: outc.conv.bias (1,), the network takes (2,)" in refused(module, mixed, (1, 16, 16, 2))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_network_for_colour_sees_gray_as_gray_repeated_three_times(drawn_state_dict, prefix):
    tensors = {prefix + name: a for name, a in drawn_state_dict(torch_shapes(channels=3), 3).items()}
    module = models.build("unet", 3, **SAME)
    gray = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    colour = np.repeat(gray, 3, -1)
    apply = jax.jit(module.apply)
    expected = apply(weights.from_torch(module, tensors, colour.shape), colour)
    ours = apply(weights.from_torch(module, weights.for_gray(tensors), gray.shape), gray)
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(InputError, match="a network for RGB"):
        weights.for_gray(weights.for_gray(tensors))


def test_tensors_of_a_skip_that_is_off_are_checked_too(drawn_state_dict):
    full = models.build("residual_unet", 2, features=(3, 4))
    wanted = jax.eval_shape(full.init, jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32))
    shapes = matching.shapes_of(wanted)
    tensors = {
        name: np.zeros(entry.shape(shapes[entry.variable]), np.float32)
        for entry in LAYOUTS[type(full)].entries(full)
        for name in entry.sources
    }
    cut = models.build("residual_unet", 2, features=(3, 4), skips=(False,))
    weights.from_torch(cut, tensors, (1, 4, 4, 1))
    tensors["shortcut0.weight"] = np.zeros((99, 1), np.float32)
    del tensors["out_path.1.layer.bias"]
    with pytest.raises(InputError) as error:
        weights.from_torch(cut, tensors, (1, 4, 4, 1))
    assert "misshapen: shortcut0.weight (99, 1), the network takes (3, 3, 1, 1)" in str(error.value)
    assert "missing: out_path.1.layer.bias" in str(error.value)


KERNEL, VARIANCE = "inc.double_conv.3.weight", "down1.maxpool_conv.1.double_conv.1.running_var"
NO_WEIGHTS = {
    "int8": (KERNEL, lambda a: (100 * a).astype(np.int8), "holds quantised numbers.*int8.*dequantise"),
    "uint8": (KERNEL, lambda a: np.abs(100 * a).astype(np.uint8), "holds quantised numbers.*uint8"),
    "bool": (KERNEL, lambda a: a > 0, "bool"),
    "complex": (KERNEL, lambda a: a + 0j, "holds no real numbers .complex64"),
    "objects": (KERNEL, lambda a: a.astype(object), "holds no real numbers .object"),
    "NaN": (KERNEL, lambda a: np.where(a == a.max(), np.nan, a), "of the 144 numbers in .* 1 that are NaN; .*finite"),
    "infinite": (VARIANCE, lambda a: a + np.array([np.inf, 0, 0, 0, 0, 0]), "1 that are infinite"),
    "both": (VARIANCE, lambda a: a + np.array([np.inf, np.nan, 0, 0, 0, 0]), "1 that are NaN and 1 that are infinite"),
    "large": (KERNEL, lambda a: a.astype(np.float64) * 0 + 1e300, "144 that are too large for float32"),
    "negative": (VARIANCE, lambda a: a * 0 - 0.25, "holds -0.25, and no variance is negative"),
}


@pytest.mark.parametrize(("name", "change", "words"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_numbers_that_are_no_weights_are_refused_and_their_tensor_named(small, prefix, name, change, words):
    module, state_dict = small
    if name == KERNEL and state_dict[KERNEL].size != 144:
        pytest.fail("the numbers above are of another kernel")
    broken = {f"{prefix}{n}": change(a) if n == name else a for n, a in state_dict.items()}
    text = refused(module, broken, (1, 16, 16, 2))
    assert name in text and re.search(words, text)


def test_the_first_kernel_is_checked_before_it_is_fitted_to_the_channels(drawn_state_dict):
    shapes = torch_shapes(channels=3)
    tensors = drawn_state_dict(shapes, 3)
    stem = "inc.double_conv.0.weight"
    for broken, words in (((100 * tensors[stem]).astype(np.int8), "quantised"), (tensors[stem] * np.nan, "NaN")):
        with pytest.raises(InputError, match=f"(?=.*{re.escape(stem)}).*{words}"):
            weights.for_gray({**tensors, stem: broken})
    kept = weights.for_gray({**tensors, "inc.double_conv.1.num_batches_tracked": np.array(7)})
    assert kept["inc.double_conv.1.num_batches_tracked"].dtype == np.int64


class OfAnotherLibrary:
    """A tensor that NumPy reads, unless it needs a gradient."""

    def __init__(self, array, grad=False):
        self.array, self.grad = array, grad

    def __array__(self, dtype=None, copy=None):
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach().")
        return self.array


@pytest.mark.parametrize("make", [lambda a: a.tolist(), jnp.asarray, OfAnotherLibrary])
def test_what_numpy_makes_arrays_of_are_tensors_and_other_things_are_passed_over(small, make):
    module, state_dict = small
    expected = weights.from_torch(module, state_dict, (1, 16, 16, 2))
    beside = {"mask_values": [0, 1], "epoch": 3, "name": "best", "args": {"lr": 0.1}, 5: None, "sizes": [[1], [2, 3]]}
    same(weights.from_torch(module, {n: make(a) for n, a in state_dict.items()} | beside, (1, 16, 16, 2)), expected)


def test_a_tensor_that_numpy_cannot_read_is_named(small):
    module, state_dict = small
    text = refused(module, state_dict | {KERNEL: OfAnotherLibrary(state_dict[KERNEL], grad=True)}, (1, 16, 16, 2))
    assert KERNEL in text and "requires grad" in text and "detach()" in text


@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_without_tensors_has_scale_1_and_bias_0(drawn_state_dict, norm, bias):
    features = (32, 32)
    module = models.build("unet", 3, features=features, upsample="transpose", norm=norm)
    tensors = {n: a for n, a in drawn_state_dict(torch_shapes(features), 3).items() if "running" not in n}
    is_norm = lambda name: ".double_conv.1." in name or ".double_conv.4." in name
    if not bias:
        tensors = {n: a for n, a in tensors.items() if is_norm(n) or not n.endswith((".0.bias", ".3.bias"))}
    identity = {n: np.full_like(a, n.endswith("weight")) if is_norm(n) else a for n, a in tensors.items()}
    none = {n: a for n, a in tensors.items() if not is_norm(n)}
    same(*(weights.from_torch(module, {f"net.{n}": a for n, a in t.items()}, (1, 16, 16, 2)) for t in (none, identity)))
    half = {n: a for n, a in tensors.items() if not is_norm(n) or n.endswith("weight")}
    refused(module, half, (1, 16, 16, 2))
    batch = models.build("unet", 3, features=features, upsample="transpose")
    assert "set config.model.norm=instance" in refused(batch, none, (1, 16, 16, 2))


@pytest.mark.parametrize("skip_first", [True, False])
def test_a_narrowed_kernel_reads_what_is_no_skip(skip_first):
    kernel = np.arange(3 * 3 * 5 * 2).reshape(3, 3, 5, 2)  # two channels of the skip, three others
    tensor = layouts.Narrowed("params/x", ("x",), np.asarray, lambda shape: shape, skip=2, skip_first=skip_first)
    others = kernel[:, :, 2:] if skip_first else kernel[:, :, :3]
    np.testing.assert_array_equal(tensor.narrow(kernel, (3, 3, 3, 2)), others)


def test_options_are_told_by_shapes():
    shapes = {"init_path.0.weight": (8, 2, 3, 3), "down1.1.weight": (16, 8, 3, 3), "down3.1.weight": (64, 32, 3, 3)}
    assert layouts._residual_unet_options(shapes) == {"features": ((8, 16),)}  # there is no second level
    for number, names in ((2, ("resnet18",)), (6, ("resnet34",)), (5, ())):
        blocks = {f"encoder.layer3.{j}.conv1.weight": (8, 8, 3, 3) for j in range(number)}
        assert layouts._resnet_unet_options(blocks) == {"encoder": names}
