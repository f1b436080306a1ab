"""Networks of any make, by one door: linen modules, functions of NumPy or JAX, PyTorch modules, nnU-Net's folders."""

from jaxseg.networks.base import Network
from jaxseg.networks.functions import from_function
from jaxseg.networks.linen import of_linen
from jaxseg.networks.nnunet import from_nnunet
from jaxseg.networks.pytorch import from_torch
from jaxseg.networks.slices import slice_by_slice

__all__ = ["Network", "from_function", "from_nnunet", "from_torch", "of_linen", "slice_by_slice"]
