"""nnU-Net's networks beside its forward pass in NumPy; layers in closed form; what cannot be built."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models import capture, layers, nnunet, weights
from tests.nnunet import forward, tensor_shapes, with_copies

# as nnU-Net's plans have them: the first axis is coarse, and lowered later
FLAT = {
    "encoder": "plain",
    "features": (3, 4, 5),
    "kernels": ((1, 3), (3, 3), (3, 3)),
    "strides": ((1, 1), (1, 2), (2, 2)),
    "depths": (2, 1, 2),
    "decoder_depths": (2, 1),
    "norm": "instance",
}
DEEP = FLAT | {
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "depths": (1, 1, 1),
    "decoder_depths": (1, 1),
}
NETWORKS = {
    "plain": FLAT,
    "plain, batch norm": FLAT | {"norm": "batch"},
    "residual": FLAT | {"encoder": "residual", "features": (3, 4, 4), "depths": (1, 2, 1)},
    "residual, batch norm": FLAT | {"encoder": "residual", "norm": "batch", "depths": (1, 2, 1)},
    "plain, 3-D": DEEP,
    "residual, 3-D": DEEP | {"encoder": "residual"},
}


@functools.cache
def images_of(rank):
    return np.random.default_rng(0).standard_normal((2, *(4, 8, 8)[-rank:], 2), np.float32)


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_logits_are_those_of_nnunets_forward_pass(options, drawn_state_dict):
    """Every tensor has its place: kernels, strides, norms, shortcuts, the order of what is concatenated."""
    images = images_of(len(options["kernels"][0]))
    tensors = drawn_state_dict(tensor_shapes(options, 2, 3), 0)
    expected = forward(tensors, images, options["strides"])
    module = models.build("nnunet", 3, **options)
    variables = weights.from_torch(module, with_copies(tensors), images.shape)
    logits = jax.jit(module.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert ("batch_stats" in variables) == (options["norm"] == "batch")


def test_a_network_without_a_skip_takes_the_tensors_of_the_whole_one(drawn_state_dict):
    """As if the kernels that read the skip, which comes last, were 0."""
    tensors = drawn_state_dict(tensor_shapes(FLAT, 2, 3), 0)
    module = models.build("nnunet", 3, **FLAT, skips=(False, True))
    logits = jax.jit(module.apply)(weights.from_torch(module, tensors, images_of(2).shape), images_of(2))
    kernel = tensors["decoder.stages.1.convs.0.conv.weight"]
    kernel[:, kernel.shape[1] // 2 :] = 0
    expected = forward(tensors, images_of(2), FLAT["strides"])
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_tensors_under_other_names_alone_are_read(drawn_state_dict):
    """Some formats keep one name of those that share their numbers, whichever it is."""
    tensors = drawn_state_dict(tensor_shapes(FLAT, 2, 3), 0)
    module = models.build("nnunet", 3, **FLAT)
    last = {id(value): name for name, value in with_copies(tensors).items()}
    others = {last[id(value)]: value for value in tensors.values()}
    assert others.keys() != tensors.keys()
    ours, theirs = (weights.from_torch(module, one, images_of(2).shape) for one in (tensors, others))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_what_does_not_fit_is_one_sentence_with_the_remedy(drawn_state_dict):
    tensors = with_copies(drawn_state_dict(tensor_shapes(NETWORKS["residual"], 2, 3), 0))
    sentence = r"set config.model.encoder=residual and config.model.depths=\(1,2,1\)$"
    with pytest.raises(InputError, match=sentence):
        weights.from_torch(models.build("nnunet", 3, **FLAT | {"features": (3, 4, 4)}), tensors, (1, 4, 8, 2))
    with pytest.raises(InputError, match=r"tensors of nnunet with encoder=residual, features=\(3,4,4\).*name=nnunet"):
        weights.from_torch(models.build("unet", 3, features=(4, 4)), tensors, (1, 4, 8, 2))
    del tensors["decoder.transpconvs.1.bias"]
    module = models.build("nnunet", 3, **NETWORKS["residual"])
    with pytest.raises(InputError, match=r"do not fit NNUNet: missing: decoder\.transpconvs\.1\.bias$"):
        weights.from_torch(module, tensors, (1, 4, 8, 2))


def test_the_first_kernel_is_summed_for_gray_images(drawn_state_dict):
    tensors = drawn_state_dict(tensor_shapes(FLAT, 3, 2), 0)
    gray = weights.for_gray(with_copies(tensors))
    assert gray.keys() == tensors.keys()
    name = "encoder.stages.0.0.convs.0.conv.weight"
    np.testing.assert_allclose(gray[name], tensors[name].sum(1, keepdims=True), rtol=1e-6)


def test_means_are_over_blocks():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3), np.float32)
    means = jax.jit(lambda x: layers.mean_pool(x, (2, 3)))(x)
    np.testing.assert_allclose(means, x.reshape(2, 2, 2, 2, 3, 3).mean((2, 4)), rtol=1e-5, atol=1e-6)


def test_a_residual_block_is_its_closed_form(drawn_variables):
    """One pixel wide kernels on an image of two pixels: each norm gives +s and -s about its bias."""
    block = nnunet.ResidualBlock(2, kernel=1, slope=0.1)
    images = np.array([[[[1.0, -2.0], [-3.0, 1.0]]]], np.float32)
    variables = drawn_variables(_Called(block), images)
    params = variables["params"]["block"]

    def normalised(x, of):
        half = (x[..., :1, :] - x[..., 1:, :]) / 2
        unit = half / np.sqrt(half**2 + 1e-5)
        return np.concatenate([unit, -unit], -2) * of["norm"]["scale"] + of["norm"]["bias"]

    kernel = lambda of: of["conv"]["conv"]["kernel"][0, 0]
    y = normalised(images @ kernel(params["conv_0"]), params["conv_0"])
    y = np.where(y > 0, y, 0.1 * y)
    y = images + normalised(y @ kernel(params["conv_1"]), params["conv_1"])
    expected = np.where(y > 0, y, 0.1 * y)
    assert (expected < 0).any() and (expected > 0).any()
    np.testing.assert_allclose(jax.jit(_Called(block).apply)(variables, images), expected, atol=1e-5)


class _Called(nnunet.nn.Module):
    """A block as a network of its own."""

    block: nnunet.nn.Module

    def __call__(self, images):
        return self.block(images, False)


@pytest.mark.parametrize("encoder", nnunet.ENCODERS)
def test_a_logit_reaches_as_far_as_is_said_and_no_farther(encoder, drawn_variables):
    """Along the wide axis, where strides and kernels are larger: the gradient of every logit of a coarse pixel."""
    module = models.build("nnunet", 2, **FLAT | {"encoder": encoder, "norm": "batch"})
    width = 128
    images = np.random.default_rng(0).standard_normal((1, 2, width, 1), np.float32)
    variables = drawn_variables(module, images)
    places = width // 2 + np.arange(4)
    gradient = jax.grad(lambda images, place: module.apply(variables, images)[0, 0, place, 0])
    found = np.asarray(jax.jit(jax.vmap(gradient, (None, 0)))(images, places))
    touched = np.abs(found[:, 0, :, :, 0]).max(1) > 0
    far = [np.abs(np.flatnonzero(row) - place).max() for row, place in zip(touched, places, strict=True)]
    assert max(far) == module.reach < width // 2


def test_layers_are_known_by_name_and_in_their_order():
    module = models.build("nnunet", 2, **FLAT | {"depths": (3, 1, 2)})
    images = jax.ShapeDtypeStruct((1, 4, 8, 1), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    names = capture.layer_names(module, variables, images)
    roles = module.roles
    assert roles.bottleneck == "stage_2" and roles.encoder == ("stage_0", "stage_1")
    assert roles.convolutions[:4] == ("stage_0/conv_0", "stage_0/conv_1", "stage_0/conv_2", "stage_1/conv_0")
    assert roles.convolutions[-3:] == ("decoder_1/conv_0", "decoder_0/conv_0", "decoder_0/conv_1")
    assert [name for name in names if name in roles.convolutions] == [*roles.convolutions]


def test_sizes_are_multiples_of_the_strides_by_axis():
    module = models.build("nnunet", 2, **DEEP)
    assert module.units(3) == (2, 4, 4) and module.rank == 3
    with pytest.raises(
        ValueError, match="divisible by 2 x 4 x 4, got 3 x 8 x 6; the next sizes are 2 or 4 x 8 x 4 or 8"
    ):
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 3, 8, 6, 1), jnp.float32))
    with pytest.raises(ValueError, match="kernels and strides are for 3 axes, the images have 2"):
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))


def test_options_that_a_file_gives_as_lists_are_the_same_network():
    stored = json.loads(json.dumps(DEEP))
    assert models.build("nnunet", 2, **stored) == models.build("nnunet", 2, **DEEP)
    usual = models.build("nnunet", 2, features=(3, 4))
    assert (usual.stage_strides, usual.stage_kernels, usual.stage_depths) == ((1, 2), (3, 3), (2, 2))
    assert usual.decoder_stage_depths == (2,) and usual.rank is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": (3, 4, 3)}, r"kernels is \(3, 4, 3\); give an odd whole number above 0 per stage, 3 of them"),
        ({"kernels": ((3, 3), (3, 3, 3), 3)}, r"are for \[2, 3\] axes; give 2 or 3 numbers"),
        ({"kernels": ((3,), 3, 3)}, r"are for \[1\] axes"),
        ({"strides": (1, 2)}, r"strides is \(1, 2\); give a whole number above 0 per stage, 3 of them for 3 features"),
        ({"strides": (2, 2, 2)}, "strides begin with 2; the first stage is at full resolution, 1"),
        ({"strides": (1, 3, 2), "padding": "valid"}, "padding 'valid' is for powers of two"),
        ({"depths": (2, 0, 2)}, r"depths is \(2, 0, 2\)"),
        ({"decoder_depths": (2, 2, 2)}, r"decoder_depths is \(2, 2, 2\).*2 of them for 3 features"),
        ({"norm": "group"}, "norm is 'group'; choose one of instance, batch"),
        ({"encoder": "resnet18"}, "encoder is 'resnet18'; choose one of plain, residual"),
        ({"skips": (True,)}, "names 1 levels, there are 2"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("nnunet", 2, features=(3, 4, 5), **options)


def test_one_logit_becomes_two(drawn_state_dict):
    """As of a network for one class: the softmax of [0, z] is the sigmoid of z."""
    tensors = drawn_state_dict(tensor_shapes(FLAT, 2, 1), 0)
    module = models.build("nnunet", 2, **FLAT)
    logits = jax.jit(module.apply)(weights.from_torch(module, tensors, images_of(2).shape), images_of(2))
    np.testing.assert_array_equal(logits[..., 0], 0)
    expected = forward(tensors, images_of(2), FLAT["strides"])
    np.testing.assert_allclose(logits[..., 1:], expected, atol=1e-5 * np.abs(expected).max())
