"""The networks of the four papers, nnU-Net's and a transformer, by name."""

from typing import Any

from jaxseg.models.dtu_net import DTUNet
from jaxseg.models.nnunet import NNUNet
from jaxseg.models.residual_unet import ResidualUNet
from jaxseg.models.resnet_unet import ResNetUNet
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.models.unet import UNet
from jaxseg.models.vit import ViT

_NETWORKS: dict[str, type[UNetSkeleton]] = {
    "unet": UNet,
    "resnet_unet": ResNetUNet,
    "residual_unet": ResidualUNet,
    "dtu_net": DTUNet,
    "nnunet": NNUNet,
    "vit": ViT,
}


def build(name: str, num_classes: int, **options: Any) -> UNetSkeleton:
    """A linen network `images -> logits` with the methods `encode` and `decode`.

    Args:
      name: unet, resnet_unet, residual_unet, dtu_net, nnunet or vit.
      num_classes: K, background included.
      **options: attributes of the network: `padding`, `skips`, `remat` and `dtype` in all; the class has the others.

    Raises:
      ValueError: an unknown name, option or value; the message lists the known ones.
    """
    if name not in _NETWORKS:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(_NETWORKS)}")
    network = _NETWORKS[name]
    known = [field for field in network.__dataclass_fields__ if field not in ("parent", "name", "num_classes")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    fixed: dict[str, Any] = {name: _hashable(value) for name, value in options.items()}
    module = network(num_classes=num_classes, **fixed)
    module.check()
    return module


def _hashable(value: Any) -> Any:
    """Lists, which a config read from JSON has, as tuples: a linen module must be hashable."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
