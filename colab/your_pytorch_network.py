# %% [markdown]
# # Your PyTorch network
#
# A module of PyTorch, yours or one of MONAI, segmentation_models_pytorch, torchvision or nnU-Net, is audited as it is:
# one line makes it a network that the library can ask, one asks it everything, and a page says what it found. Here a
# small module is trained first, on drawn skin images, in which lesions lie in the middle.
#
# PyTorch has to be there (Colab has it; elsewhere `pip install -e ".[torch]"`). Two CPU cores need some minutes,
# most of them for drawing the images and for the audit.

# %%
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import torch
from IPython.display import Image

from jaxseg import networks
from jaxseg.audit import audit
from jaxseg.data import builders, pipeline

SIZE = "demo"
WORK = pathlib.Path("runs/pytorch")
SIDE, EPOCHS = {"demo": (64, 12), "tiny": (32, 2)}[SIZE]

# %% [markdown]
# ## A network
#
# Nothing here knows of the library but `Split`, which reads the images. With a trained module of your own you skip it:
# what the audit needs of you is written below the training.


# %%
def block(read, width):
    return torch.nn.Sequential(
        torch.nn.Conv2d(read, width, 3, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU(inplace=True)
    )


class SmallUNet(torch.nn.Module):
    """Down twice and up twice, with one logit for the lesion."""

    def __init__(self, width=12):
        super().__init__()
        self.first, self.second, self.bottom = block(3, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up, self.top = block(6 * width, 2 * width), block(3 * width, width)
        self.head = torch.nn.Conv2d(width, 1, 1)
        self.down, self.larger = torch.nn.MaxPool2d(2), torch.nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x):
        first = self.first(x)
        second = self.second(self.down(first))
        up = self.up(torch.cat([second, self.larger(self.bottom(self.down(second)))], 1))
        return self.head(self.top(torch.cat([first, self.larger(up)], 1)))


directory = builders.prepare(f"dermoscopy/{SIZE}", data_dir="data", manual_dir=None)
read = lambda name: pipeline.in_memory(pipeline.Split(directory, name, size=SIDE))
train, test = read("train"), read("test")
tensor = lambda cases: torch.from_numpy(np.moveaxis(cases.images, -1, 1)).float() / 127.5 - 1
images, lesions = tensor(train), torch.from_numpy(train.labels[:, None] == 1).float()

torch.manual_seed(0)
module = SmallUNet()
adam = torch.optim.Adam(module.parameters(), 3e-3)
for epoch in range(EPOCHS):
    for batch in torch.randperm(len(images)).split(16):
        adam.zero_grad()
        logits, wanted = module(images[batch]), lesions[batch]
        both = 2 * (logits.sigmoid() * wanted).sum() / (logits.sigmoid().sum() + wanted.sum())
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted) + 1 - both
        loss.backward()
        adam.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

module.eval()
with torch.no_grad():
    found = (module(tensor(test)) > 0)[:, 0].numpy()
truth = test.labels == 1
dice = float(np.mean(2 * (found & truth).sum((1, 2)) / (found.sum((1, 2)) + truth.sum((1, 2)))))
print(f"test Dice {dice:.2f}")

# %% [markdown]
# ## Three lines
#
# `normalise` is what the module was trained on, mean and standard deviation of gray levels from 0 to 1, as one number
# or one per channel. `output` says whether it answers logits, probabilities or sigmoids; left out, that is guessed from
# a trial, and a single logit of a network that is never sure looks like a probability. One channel or K, dictionaries,
# deep supervision and smaller answers are understood. `bottleneck` is the layer between encoder and decoder, by its
# name in `module.named_modules()`; it may be left out, and with it three scores that predict failures.
# (`encoder.layer4` of smp's ResNets, `bottleneck` of MONAI's DynUNet, `encoder.stages.7` of an nnU-Net of eight.)
#
# Your own data set in place of `directory`: `your_own_network_and_data` makes one of image files.
#
# `known_dice` is what you know the network for on such cases. If it has another one here, the audit ends and says why
# that may be, as what it found would be about the wrong input.

# %%
given = {"normalise": (0.5, 0.5), "output": "logits", "bottleneck": "bottom"}
network = networks.from_torch(module, num_classes=2, image_size=SIDE, **given)
result = audit(network, directory, WORK / "audit", known_dice=dice, name="my network")
print(result.page)  # open it in a browser: one file, with everything in it

# %% [markdown]
# ## The page in short

# %%
print("Does it use a shortcut?", result.verdict)
for finding in result.findings:
    print(f"- {finding.kind}: {finding.sentence}")

# %% [markdown]
# On the page each of them has its picture and a remedy. All that might have been a finding, with the margin that its
# whole interval has to lie above:

# %%
Image(str(WORK / "audit/figures/candidates.png"), width=600)

# %% [markdown]
# ## Layers
#
# The same network answers questions of your own, inside `jax.jit`, `vmap` and `grad`: PyTorch computes, forwards and
# backwards. Images are channels last, from -1 to 1. Here: how much less is called lesion, if a channel of the
# bottleneck is silenced? All functions of `jaxseg.analysis` take such arrays.

# %%
few = jnp.asarray(test.images[:8] / np.float32(127.5) - 1)


@jax.jit
def silenced(images):
    logits, found = network.captured(images, ("bottom",))
    area = lambda logits: jnp.mean(jax.nn.softmax(logits)[..., 1])
    without = lambda channel: area(network.replaced(images, {"bottom": found["bottom"].at[..., channel].set(0)}))
    return area(logits) - jax.lax.map(without, jnp.arange(found["bottom"].shape[-1]))


lost = np.asarray(silenced(few))
for channel in np.argsort(-lost)[:3]:
    print(f"channel {channel} of the bottleneck: {lost[channel]:.3f} of the image less without it")
