"""Weights to start from: a file with a network's or an encoder's tensors, or the published ImageNet encoders."""

import hashlib
import http.client
import os
import pathlib
import shutil
import urllib.error
import urllib.request
import uuid
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxseg import paths
from jaxseg.errors import InputError
from jaxseg.models import weight_files, weights
from jaxseg.models.resnet_unet import ResNetUNet


def load(module: nn.Module, variables: Any, source: str, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Variables of `module` that start from `source`.

    Args:
      module: built by `jaxseg.models.build`.
      variables: newly initialised; what the source lacks keeps its values.
      source: `imagenet`, for `resnet_unet`; or the path of a file that `weight_files.read` reads, with the tensors of
        the whole PyTorch network or, for `resnet_unet`, of a torchvision ResNet. After a colon may follow the key of
        one of several state dicts in it, as in `model.ckpt:state_dict_ema`; nothing after the colon means that at the
        root.
      image_shape: `[B,H,W,C]` or `[B,D,H,W,C]`.

    Raises:
      InputError: there is no such file, or it does not fit.
    """
    encoder = module.encoder if isinstance(module, ResNetUNet) else None
    if source == "imagenet" and encoder is None:
        raise InputError("ImageNet weights exist for resnet_unet alone; set config.model.pretrained = None")
    if source == "imagenet" and encoder:
        source = str(imagenet(encoder))
    path, tensors = _read(source)
    try:
        if isinstance(module, ResNetUNet) and weights.is_encoder(tensors):
            return weights.encoder_from_torchvision(module, variables, tensors)
        return weights.from_torch(module, tensors, image_shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def load_whole(module: nn.Module, source: str, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Variables of `module`, all of them from a file, as in `load`.

    Raises:
      InputError: there is no such file, or it does not fit.
    """
    path, tensors = _read(source)
    try:
        return weights.from_torch(module, tensors, image_shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(source: str) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """The tensors of `FILE`, or of `FILE:KEY` where no file has that name."""
    path = paths.expanded(source)
    file, colon, key = str(path).rpartition(":")
    if colon and not paths.exists(path) and paths.is_file(file):
        return pathlib.Path(file), weight_files.read(file, key=key)
    return path, weight_files.read(path)


class Published(NamedTuple):
    """A file that can be downloaded.

    Attributes:
      file: its name, in the cache too.
      url: where it is.
      sha256: hexadecimal digits that its SHA-256 begins with; all 64 where they are known.
    """

    file: str
    url: str
    sha256: str

    def is_in(self, path: pathlib.Path) -> bool:
        """Whether `path` holds it, by the checksum."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(self.sha256)


_BASE = "https://download.pytorch.org/models"
IMAGENET: dict[str, Published] = {
    "resnet18": Published(
        "resnet18-f37072fd.pth",
        f"{_BASE}/resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    # only the eight digits in the name are published, which torch.hub compares too
    "resnet34": Published("resnet34-b627a593.pth", f"{_BASE}/resnet34-b627a593.pth", "b627a593"),
}


def imagenet(encoder: str, *, cache: pathlib.Path | None = None) -> pathlib.Path:
    """The file with an encoder's ImageNet weights, downloaded if the cache has none.

    A `.safetensors` file of the same stem in the cache is taken as it is: there is no published checksum of one.

    Args:
      encoder: a name in `IMAGENET`.
      cache: folder; `$JAXSEG_CACHE` if None, else `$XDG_CACHE_HOME/jaxseg`, else `~/.cache/jaxseg`.

    Returns:
      Path for `read`; a `.pth` file has the published checksum.

    Raises:
      InputError: an unknown encoder, a file that cannot be downloaded, or one in the cache with another checksum.
    """
    if encoder not in IMAGENET:
        raise InputError(f"no ImageNet weights are known for {encoder!r}; there are some for {', '.join(IMAGENET)}")
    wanted, folder = IMAGENET[encoder], cache or _cache_folder()
    path = folder / wanted.file
    by_hand = path.with_suffix(".safetensors")
    try:
        if path.is_file():
            if wanted.is_in(path):
                return path
            raise InputError(f"{path}: its SHA-256 is not {wanted.sha256}...; move it away and try again")
        if by_hand.is_file():
            return by_hand
        _download(wanted, path)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"{wanted.file} cannot be downloaded from {wanted.url} ({error}); put it into {folder} by hand, "
            "or set config.model.pretrained = None to go without"
        ) from error
    return path


def _cache_folder() -> pathlib.Path:
    if own := os.environ.get("JAXSEG_CACHE"):
        return paths.expanded(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return paths.expanded(shared or "~/.cache") / "jaxseg"


def _download(wanted: Published, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # several processes may download at once
    file = temporary.open("xb")
    try:
        with file, urllib.request.urlopen(wanted.url, timeout=30) as response:
            shutil.copyfileobj(response, file)
        if not wanted.is_in(temporary):
            raise OSError(f"the download has a SHA-256 that does not begin with {wanted.sha256}")
        temporary.replace(path)
    except urllib.error.HTTPError as error:
        error.close()  # it is the response too, with an open connection
        raise
    finally:
        temporary.unlink(missing_ok=True)
