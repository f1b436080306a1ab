"""Weights to start from: encoders from torchvision, files of networks, and the cache of published files."""

import functools
import hashlib
import http.server
import os
import socket
import threading
import urllib.parse

import flax.traverse_util
import jax
import numpy as np
import pytest

from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models import matching, pretrained, tracing, weights
from jaxseg.models.layouts import LAYOUTS


def torchvision_tensors(shapes):
    """What torchvision calls the encoder's tensors, with a classifier's beside them."""
    random = np.random.default_rng(0)
    tensors = {
        name.removeprefix("encoder."): random.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in shapes.items()
        if name.startswith("encoder.")
    }
    return tensors | {"fc.weight": np.zeros((1000, 512), np.float32), "fc.bias": np.zeros(1000, np.float32)}


def network(channels=3, **options):
    module = models.build("resnet_unet", 2, **options)
    shapes = tracing.variable_shapes(module, (1, 32, 32, channels))
    return module, jax.tree.map(lambda leaf: np.full(leaf.shape, 7.0, np.float32), shapes)


@pytest.fixture(scope="module")
def shapes():
    """PyTorch names and shapes of a ResNet18 U-Net, worked out from the layout that reads them."""
    module, variables = network()
    found = matching.shapes_of(variables)
    return {
        name: entry.accepted(found[entry.variable])[0]
        for entry in LAYOUTS[type(module)].entries(module)
        for name in entry.sources
    }


def test_an_encoder_from_torchvision_goes_in_and_the_decoder_stays(tmp_path, shapes):
    module, variables = network()
    tensors = torchvision_tensors(shapes)
    np.savez(tmp_path / "resnet.npz", **tensors)
    loaded = pretrained.load(module, variables, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))
    kernel = loaded["params"]["stage_1"]["block_0"]["conv_0"]["conv"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors["layer2.0.conv1.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(loaded["batch_stats"]["stem"]["norm"]["mean"], tensors["bn1.running_mean"])
    flat = flax.traverse_util.flatten_dict(loaded, sep="/")
    kept = {name.split("/")[1].split("_")[0] for name, leaf in flat.items() if (np.asarray(leaf) == 7).all()}
    assert kept == {"decoder", "head"}


@pytest.mark.parametrize(("channels", "factors"), [(1, [[1, 1, 1]]), (2, [[1.5, 0, 0], [0, 1.5, 0]]), (4, None)])
def test_other_numbers_of_channels_share_the_first_kernels(shapes, channels, factors):
    """A gray image copied to RGB would give the same first features as the sum of the kernels."""
    module, variables = network(channels)
    tensors = torchvision_tensors(shapes)
    loaded = weights.encoder_from_torchvision(module, variables, tensors)
    kernel = loaded["params"]["stem"]["conv"]["conv"]["kernel"]
    rgb = tensors["conv1.weight"].transpose(2, 3, 1, 0)
    factors = np.eye(3)[[0, 1, 2, 0]] * 0.75 if factors is None else np.array(factors)
    np.testing.assert_allclose(kernel, np.einsum("hwco,nc->hwno", rgb, factors), rtol=1e-6)


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.encoder."])
def test_a_prefix_and_a_decoder_of_another_make_do_not_matter_to_an_encoder(tmp_path, shapes, capsys, prefix):
    module, variables = network()
    tensors = torchvision_tensors(shapes)
    expected = weights.encoder_from_torchvision(module, variables, tensors)
    stored = {prefix + name: array for name, array in tensors.items()}
    decoder = {"decoder.aspp.0.weight": np.ones((2, 2, 1, 1), np.float32)} if prefix else {}
    np.savez(tmp_path / "resnet.npz", **stored, **decoder)
    loaded = pretrained.load(module, variables, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert capsys.readouterr().err.count("decoder.aspp.0.weight") == len(decoder)


def test_an_encoder_of_another_depth_is_named(tmp_path, shapes):
    module, variables = network(encoder="resnet34")
    np.savez(tmp_path / "resnet.npz", **torchvision_tensors(shapes))
    message = r"resnet.npz: these are the tensors of resnet18, .* resnet34; set config.model.encoder=resnet18$"
    with pytest.raises(InputError, match=message):
        pretrained.load(module, variables, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))


def test_an_encoder_that_lacks_a_tensor_is_refused_with_its_name(tmp_path, shapes):
    module, variables = network()
    tensors = torchvision_tensors(shapes)
    del tensors["layer3.1.conv2.weight"]
    np.savez(tmp_path / "resnet.npz", **tensors)
    with pytest.raises(InputError, match=r"the encoder of ResNetUNet: missing: layer3.1.conv2.weight$"):
        pretrained.load(module, variables, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))


def test_an_encoder_of_other_blocks_is_one_sentence(tmp_path, shapes):
    module, variables = network()
    tensors = torchvision_tensors(shapes)
    others = {name.replace("bn2", "bn3").replace("conv2", "conv3"): array for name, array in tensors.items()}
    np.savez(tmp_path / "resnet.npz", **tensors, **{name: others[name] for name in others.keys() - tensors.keys()})
    with pytest.raises(InputError, match=r"nearest known layouts.* are the encoder resnet18 of resnet_unet") as error:
        pretrained.load(module, variables, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))
    assert "left over" not in str(error.value)


def test_an_encoder_is_not_a_whole_network(tmp_path, shapes):
    module, _ = network()
    np.savez(tmp_path / "resnet.npz", **torchvision_tensors(shapes))
    with pytest.raises(
        InputError, match=r"nearest known layouts.* the encoder resnet18 of resnet_unet \(100 of its 100\)"
    ):
        pretrained.load_whole(module, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))


def test_tensors_of_another_shape_do_not_count_as_fitting(tmp_path, shapes):
    module, _ = network()
    tensors = torchvision_tensors(shapes)
    name = "layer1.0.conv1.weight"
    np.savez(tmp_path / "resnet.npz", **(tensors | {name: tensors[name][:, :-1]}))
    with pytest.raises(InputError, match=r"the encoder resnet18 of resnet_unet \(99 of its 100\)"):
        pretrained.load_whole(module, str(tmp_path / "resnet.npz"), (1, 32, 32, 3))


def test_behind_a_colon_stands_which_of_several_networks(tmp_path, shapes):
    module, variables = network()
    tensors = torchvision_tensors(shapes)
    both = {f"{name}.{key}": factor * a for name, factor in (("ema", 2), ("last", 1)) for key, a in tensors.items()}
    np.savez(tmp_path / "both.npz", **both)
    load = lambda source: pretrained.load(module, variables, f"{tmp_path}/{source}", (1, 32, 32, 3))
    for key, factor in (("ema", 2), ("last", 1)):
        kernel = load(f"both.npz:{key}")["params"]["stem"]["conv"]["conv"]["kernel"]
        np.testing.assert_array_equal(kernel, factor * tensors["conv1.weight"].transpose(2, 3, 1, 0))
    with pytest.raises(InputError, match=r"both.npz: holds several networks, under ema, last; .* FILE:ema$"):
        load("both.npz")
    with pytest.raises(InputError, match=r"both.npz: has no tensors under 'best'; there are some under ema, last$"):
        load("both.npz:best")
    np.savez(tmp_path / "root.npz", **tensors, **{f"ema.{name}": 2 * a for name, a in tensors.items()})
    with pytest.raises(InputError, match=r"the file itself, ema; .* FILE:ema, with nothing after the colon for the f"):
        load("root.npz")
    for key, factor in (("ema", 2), ("", 1)):
        kernel = load(f"root.npz:{key}")["params"]["stem"]["conv"]["conv"]["kernel"]
        np.testing.assert_array_equal(kernel, factor * tensors["conv1.weight"].transpose(2, 3, 1, 0))
    (tmp_path / "both.npz").rename(tmp_path / "a:b.npz")
    assert load("a:b.npz:ema")
    with pytest.raises(InputError, match=r"a:c.npz: cannot be read"):
        load("a:c.npz")


def test_only_one_network_has_imagenet_weights():
    with pytest.raises(InputError, match=r"resnet_unet alone; set config.model.pretrained = None"):
        pretrained.load(models.build("unet", 2), {}, "imagenet", (1, 32, 32, 3))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server on this machine in the place of the real one; `files` are what it has, `asked` what was asked for."""
    files, asked = {"/net.pth": b"weights"}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            data = files.get(urllib.parse.urlparse(self.path).path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/net.pth"
        digest = hashlib.sha256(b"weights").hexdigest()
        table = {
            "whole": pretrained.Published("net.pth", url, digest),
            "prefix": pretrained.Published("net.pth", url, digest[:8]),
            "wrong": pretrained.Published("net.pth", url, "0" * 64),
        }
        monkeypatch.setattr(pretrained, "IMAGENET", table)
        yield files, asked
        server.shutdown()
        thread.join()


def not_had(encoder, cache, *words):
    with pytest.raises(InputError) as error:
        pretrained.imagenet(encoder, cache=cache)
    text = str(error.value)
    assert "\n" not in text
    for word in ("net.pth", pretrained.IMAGENET[encoder].url, str(cache), "config.model.pretrained = None", *words):
        assert word in text


@pytest.mark.parametrize("encoder", ["whole", "prefix"])
def test_a_file_is_fetched_once(tmp_path, published, encoder):
    _, asked = published
    cache = tmp_path / "new" / "cache"
    path = pretrained.imagenet(encoder, cache=cache)
    assert path == cache / "net.pth" and path.read_bytes() == b"weights"
    assert pretrained.imagenet(encoder, cache=cache) == path
    assert asked == ["/net.pth"]
    assert os.listdir(cache) == ["net.pth"]


def test_a_download_with_another_checksum_leaves_nothing(tmp_path, published):
    not_had("wrong", tmp_path, "SHA-256")
    assert os.listdir(tmp_path) == []


def test_a_refused_download_leaves_nothing(tmp_path, published):
    published[0].clear()
    not_had("whole", tmp_path, "404")
    assert os.listdir(tmp_path) == []


def test_without_a_network_the_remedies_are_named(tmp_path, published, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/net.pth"
        monkeypatch.setitem(pretrained.IMAGENET, "whole", pretrained.Published("net.pth", url, "00"))
        not_had("whole", tmp_path, "refused")
    assert os.listdir(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_fetched(tmp_path, published):
    (tmp_path / "file").write_text("")
    not_had("whole", tmp_path / "file")
    assert published[1] == []


def test_a_cached_file_with_another_checksum_is_to_be_removed(tmp_path, published):
    (tmp_path / "net.pth").write_bytes(b"other")
    with pytest.raises(InputError, match="move it away") as error:
        pretrained.imagenet("whole", cache=tmp_path)
    assert str(tmp_path / "net.pth") in str(error.value)
    assert published[1] == []


def test_a_safetensors_file_put_there_by_hand_is_taken(tmp_path, published):
    (tmp_path / "net.safetensors").write_bytes(b"any")
    assert pretrained.imagenet("whole", cache=tmp_path) == tmp_path / "net.safetensors"
    assert published[1] == []


def test_where_the_cache_is(tmp_path, published, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAXSEG_CACHE", raising=False)
    assert pretrained.imagenet("whole") == tmp_path / "home" / ".cache" / "jaxseg" / "net.pth"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert pretrained.imagenet("whole") == tmp_path / "shared" / "jaxseg" / "net.pth"
    monkeypatch.setenv("JAXSEG_CACHE", "~/own")
    assert pretrained.imagenet("whole") == tmp_path / "home" / "own" / "net.pth"


def test_the_table_is_consistent():
    for published in pretrained.IMAGENET.values():
        assert published.url.endswith(f"/{published.file}")
        assert published.sha256.startswith(published.file.split("-")[1].removesuffix(".pth"))
    with pytest.raises(InputError, match="resnet18, resnet34"):
        pretrained.imagenet("vgg")
