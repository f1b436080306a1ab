"""The folder that nnU-Net 2 leaves of a trained network: its plans, and the network with its weights."""

from jaxseg.models.nnunet_folder.loading import from_folder
from jaxseg.models.nnunet_folder.plans import Channel, Plans, Resampling

__all__ = ["Channel", "Plans", "Resampling", "from_folder"]
