"""An autoencoder of a trained U-Net's bottleneck, for segmentation distortion (Lennartz and Schultz 2023).

    python -m launch.train --config=configs/train.py:demo --workdir=runs/unet
    python -m launch.train --config=configs/autoencoder.py:demo --config.network=runs/unet --workdir=runs/autoencoder

Sizes (tiny, demo, cpu, paper) and data are those of configs/train.py, and must be those that the network was trained
with. The network stays as it is; the autoencoder is fitted by L_seg + L_mse (Eqs. 1 to 3), with Adam at its default
rate, and the checkpoint with the least of it on the validation cases is kept.
"""

import ml_collections

from configs import base, train


def get_config(size: str = "demo") -> ml_collections.ConfigDict:
    """The autoencoder of a network of that size."""
    run = train.get_config(size)
    config = base.run()
    del config.model
    config.data = run.data.to_dict()
    config.training = run.training.to_dict()
    config.training.loss = "reconstruction"
    config.training.loss_options = {}
    config.training.selection = "loss"
    config.network = ""  # folder of the run whose network is taken
    config.layer = "bottleneck"
    config.autoencoder = {
        "kind": "plain",  # or denoising, variational
        "latent": 128,  # the paper has 64 for brains and 128 for hearts
        "width": 64,  # channels of the first block
        "noise": 0.1,  # of denoising: standard deviation, as a fraction of the activations' own
    }
    if size == "tiny":
        config.autoencoder.update(latent=8, width=4)
    return config.lock()
