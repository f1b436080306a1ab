# %% [markdown]
# # Your own network and data
#
# The analyses are functions of arrays. So the network may be any that gives you its activations, and the data any
# images with masks. Here a folder of image files becomes a data set, a network that the library does not know is
# trained on it, and is asked everything that the four papers ask. At the end: weights from PyTorch.
#
# Two CPU cores need about two minutes.

# %%
import csv
import itertools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image
from PIL import Image as Picture
from safetensors.numpy import save_file

from jaxseg import models
from jaxseg.analysis import distortion, gradcam, hellinger, mahalanobis, position, prototypes, uncertainty, vog
from jaxseg.data import augment, builders, pipeline
from jaxseg.data.synthetic import smear, smear_drawn
from jaxseg.metrics import overlap, ranking
from jaxseg.models import autoencoder, capture, weight_files, weights
from jaxseg.report import figures
from jaxseg.training import losses

SIZE = "demo"
WORK = pathlib.Path("runs/own")
CASES, STEPS = {"demo": (240, 300), "tiny": (40, 8)}[SIZE]

# %% [markdown]
# ## Data: files and a table
#
# What you have: images, masks (0 and 255, or class numbers), and `cases.csv` that says which belong together, whom they
# show, and where they are from. We draw ours: cells from two laboratories, of which the second has darker images.

# %%
folder = WORK / "cells"
folder.mkdir(parents=True, exist_ok=True)
templates = smear_drawn.drawn_templates(1)
with (folder / "cases.csv").open("w") as file:
    table = csv.writer(file)
    table.writerow(["case", "image", "mask", "domain", "patient"])
    for i in range(CASES):
        image, mask, _ = smear.render(1, i, 64, templates=templates)
        domain = f"lab{1 + i // 2 % 2}"  # not by turns, as sparse and dense images are
        Picture.fromarray(np.uint8(image * (1.0 if domain == "lab1" else 0.6))).save(folder / f"{i}.png")
        Picture.fromarray(np.uint8(255 * mask)).save(folder / f"{i}_mask.png")
        table.writerow([i, f"{i}.png", f"{i}_mask.png", domain, f"p{i}"])

# %% [markdown]
# The doctor looks at every file before anything is written: what cannot be used, and what a network may take as a
# shortcut. Then `folder/NAME` is a data set like any other; `launch.train` takes it too.

# %%
report = builders.check("folder/cells", data_dir="data", manual_dir=folder)
for finding in report.findings:
    print(finding.summary)
directory = builders.prepare("folder/cells", data_dir="data", manual_dir=folder)
split = lambda name, *domains: pipeline.in_memory(pipeline.Split(directory, name, size=64, domains=domains))
train, test = split("train", "lab1"), split("test")
print(len(train), "to train on, all of lab1;", len(test), "to test on, of both;", "classes:", test.class_names)


# %% [markdown]
# ## Network: any linen module
#
# A small fully convolutional network. All that matters later is that its parts have names.


# %%
class Block(nn.Module):
    """Convolution and ReLU."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.width, (3, 3), self.stride)(x))


class TinyFCN(nn.Module):
    """Three blocks, the last two at half the resolution; `images [B,H,W,C] -> logits [B,H,W,2]`."""

    @nn.compact
    def __call__(self, images):
        x = Block(16, name="first")(images)
        x = Block(32, stride=2, name="second")(x)
        x = Block(32, name="third")(x)
        logits = nn.Conv(2, (1, 1), name="head")(x)
        return jax.image.resize(logits, (*images.shape[:3], 2), "linear")


network = TinyFCN()
variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
optimizer = optax.adam(3e-3)


@jax.jit
def step(variables, state, batch):
    seen = augment.whole(batch, size=64)
    loss = lambda v: losses.dice_cross_entropy_loss(network.apply(v, seen["images"]), seen["labels"])
    value, gradient = jax.value_and_grad(loss)(variables)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(variables, updates), state, value


state, checkpoints = optimizer.init(variables), []
batches = pipeline.batches(train, batch_size=8, seed=0)
for i in range(STEPS):
    variables, state, value = step(variables, state, next(batches))
    if (i + 1) % (STEPS // 4) == 0:
        checkpoints.append(variables)
        print(f"step {i + 1}: loss {value:.3f}")

# %% [markdown]
# ## Activations by name

# %%
read_all = lambda cases: augment.whole(next(pipeline.epoch(cases, batch_size=len(cases))), size=64)
seen, known = read_all(test), read_all(train)
images, labels, domains = seen["images"], seen["labels"], np.array(test.domains)
print(capture.layer_names(network, variables, images))
LAYERS = ("first", "second", "third")
read = jax.jit(lambda x: capture.capture(network, variables, x, LAYERS))
logits, found = read(images)
mask = jax.nn.softmax(logits)[..., 1]
dice = np.asarray(overlap.dice(labels, logits.argmax(-1), num_classes=2))[:, 0]
for lab in ("lab1", "lab2"):
    print(f"Dice on {lab}: {np.nanmean(dice[domains == lab]):.2f}")
i = [int(np.flatnonzero(domains == lab)[0]) for lab in ("lab1", "lab2")]
figures.overlays(
    "cells.png", [(str(domains[k]), test.images[k], labels[k], {"TinyFCN": logits[k].argmax(-1)}) for k in i]
)
Image("cells.png", width=450)

# %% [markdown]
# ## What the papers ask
#
# *Segmentation ability* of every layer (He et al.): how well do two averages separate the object? *R²* (for the border
# shortcut of Lin, Weng et al.): does the layer know where it is? *Hellinger distance* (Wilm et al.): how far has the
# second laboratory moved it?

# %%
lab1, lab2 = (np.flatnonzero(domains == lab) for lab in ("lab1", "lab2"))


@jax.jit
def ask(x):
    """Of a layer: SA score, that of every unit, how far lab2 has moved it, and R²."""
    vectors = hellinger.pool_vectors(x, grid=(4, 4)).reshape(len(x), -1, x.shape[-1])
    flat = [vectors[where].reshape(-1, x.shape[-1]) for where in (lab1, lab2)]
    moved = hellinger.layer_distance(hellinger.hellinger_distance(*flat))
    ability, units = prototypes.sa_score(x, mask, labels), prototypes.unit_sa_scores(x, mask, labels)
    return ability, units, moved, position.position_r2(x, folds=2)


for name in LAYERS:
    ability, units, moved, knows = map(np.asarray, ask(found[name]))
    best = np.nanmax(np.nanmean(units, 0))
    print(f"{name}: SA {np.nanmean(ability):.2f}, best unit {best:.2f}; R² {knows:.2f}; moved by {moved:.2f}")

# %% [markdown]
# *Segmentation distortion* (Lennartz and Schultz) needs an autoencoder of one layer's activations, fitted on the images
# that the network was trained on.

# %%
LAYER = "third"
of_training = read(known["images"])[1][LAYER]
repair = autoencoder.for_activations(of_training, latent=32, width=16)
weights_of_repair = jax.jit(repair.init)(jax.random.key(1), of_training[:1])
state = optimizer.init(weights_of_repair)
onward = lambda x, activations: capture.replace(network, variables, x, {LAYER: lambda _: activations})


@jax.jit
def fit(w, state, x, activations):
    def loss(w):
        r = repair.apply(w, activations)
        return distortion.autoencoder_loss(network.apply(variables, x), onward(x, r), activations, r).mean()

    updates, state = optimizer.update(jax.grad(loss)(w), state)
    return optax.apply_updates(w, updates), state


for i in range(STEPS):
    some = np.arange(8 * i, 8 * i + 8) % len(of_training)
    weights_of_repair, state = fit(weights_of_repair, state, known["images"][some], of_training[some])
after = jax.jit(lambda w, x, activations: onward(x, repair.apply(w, activations)))(
    weights_of_repair, images, found[LAYER]
)

# %% [markdown]
# Scores that need no annotation, and how well each orders the cases by 1 - Dice (Spearman: 1 is the same order, -1 the
# reverse). The cases are of both laboratories, so a score that only tells them apart looks good too; within `lab1` is
# the harder question.

# %%
gradient_of = jax.jit(lambda v, x: vog.input_gradients(lambda x: network.apply(v, x), x))
gradients = jnp.stack([gradient_of(v, images) for v in checkpoints])
known_cases = mahalanobis.fit(of_training)


@jax.jit
def without_annotation(logits, after, found, gradients):
    mask = jax.nn.softmax(logits)
    return {
        "segmentation distortion": distortion.segmentation_distortion(logits, after),
        "Mahalanobis distance": mahalanobis.distance(known_cases, found[LAYER]),
        "entropy": uncertainty.entropy(mask),
        "1 - mean SA of the units": 1 - prototypes.mean_sa_score([found["second"], found["third"]], mask[..., 1]),
        "variance of gradients": vog.variance_of_gradients(gradients),
    }


scores = without_annotation(logits, after, found, gradients)
for name, score in scores.items():
    score = np.asarray(score)
    within = ranking.spearman(score[lab1], 1 - dice[lab1])
    print(f"{name}: {ranking.spearman(score, 1 - dice):.2f}, within lab1 {within:.2f}")

# %% [markdown]
# And where it looks, by Grad-CAM:

# %%
k = int(lab1[0])
x = images[k : k + 1]


@jax.jit
def looks_at(x, activations, mask):
    slope = gradcam.score_gradients(lambda a: onward(x, a), activations, class_index=1)
    return {
        "Grad-CAM": gradcam.gradcam(activations, slope, size=(64, 64))[0],
        "probability": mask[0],
        "prototypes": prototypes.object_probability(activations, mask)[0],
    }


maps = looks_at(x, found[LAYER][k : k + 1], mask[k : k + 1])
figures.heat_maps("maps.png", maps, extent_label="place in the image, half sides")
Image("maps.png", width=600)

# %% [markdown]
# ## Weights from PyTorch
#
# `weight_files.read` reads `.pth`, `.safetensors` and `.npz` without PyTorch, and runs nothing that a file holds. For
# the library's networks `weights.from_torch` knows the layouts of the papers' code; what does not fit is listed by
# name, with both shapes. We have no such file here, so we write one with drawn numbers: the U-Net of the shortcut
# paper, small.


# %%
def torch_unet(features, channels, classes):
    """A state dict as PyTorch has it: names, and kernels [out, in, height, width]."""
    tensors, draw = {}, np.random.default_rng(0).normal

    def block(name, *widths):
        for i, (read, width) in enumerate(itertools.pairwise(widths)):
            tensors[f"{name}.double_conv.{3 * i}.weight"] = draw(0, (2 / (9 * read)) ** 0.5, (width, read, 3, 3))
            tensors[f"{name}.double_conv.{3 * i}.bias"] = np.zeros(width)
            for part, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
                tensors[f"{name}.double_conv.{3 * i + 1}.{part}"] = np.full(width, value)

    block("inc", channels, features[0], features[0])
    for i, (above, width) in enumerate(itertools.pairwise(features)):
        block(f"down{i + 1}.maxpool_conv.1", above, width, width)
        block(f"up{len(features) - 1 - i}.conv", 2 * above, above, features[max(i - 1, 0)])
    tensors["outc.conv.weight"], tensors["outc.conv.bias"] = (
        draw(0, 0.1, (classes, features[0], 1, 1)),
        np.zeros(classes),
    )
    return {name: np.float32(value) for name, value in tensors.items()}


save_file(torch_unet((8, 16, 16), channels=3, classes=2), WORK / "unet.safetensors")
unet = models.build("unet", num_classes=2, features=(8, 16, 16), upsample="bilinear_aligned")
imported = weights.from_torch(unet, weight_files.read(WORK / "unet.safetensors"), images.shape)
print(jax.jit(unet.apply)(imported, images).shape, capture.layer_names(unet, imported, images)[:4])

# %% [markdown]
# A network of your own needs one line per tensor: PyTorch's kernels `[out, in, height, width]` become linen's `[height,
# width, in, out]`.

# %%
kernel = np.ones((16, 3, 3, 3), np.float32)  # as in a state dict
by_hand = {**variables["params"], "first": {"Conv_0": {"kernel": kernel.transpose(2, 3, 1, 0), "bias": np.zeros(16)}}}
network.apply({"params": by_hand}, images).shape
