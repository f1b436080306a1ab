# %% [markdown]
# # Segmentation ability: which layers and units separate the object?
#
# He et al. 2022, *Segmentation Ability Map*, take the features of any layer, average them over the object and over the
# background by the network's own output, and call every pixel by the nearer of the two averages (section 3, Eqs. 6 to
# 8). The Dice of that map is the layer's *segmentation ability* (SA). No layer is trained for it, and none is
# up-sampled.
#
# Two CPU cores need about four minutes.

# %%
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Image

from configs import train
from jaxseg.analysis import prototypes
from jaxseg.data import augment, builders, pipeline
from jaxseg.metrics import intervals, overlap, ranking
from jaxseg.models import capture
from jaxseg.report import figures
from jaxseg.results.text import estimate_text
from jaxseg.training import runs

SIZE = "demo"
WORK = pathlib.Path("runs/ability")

# %%
config = train.get_config(SIZE)
splits = runs.Splits(builders.prepare(config.data.dataset, data_dir="data", manual_dir=None), config.data.source_size)
runs.train(config, splits, WORK / "unet")
test = splits["test"]
network, variables, best = runs.load_best(config, WORK / "unet", test.images.shape, test.num_classes)
best

# %% [markdown]
# ## Layer by layer (Fig. 5)
#
# The paper numbers the convolutions of a U-Net from input to output, 18 of them with four poolings.

# %%
view = augment.testing_view("original", size=config.data.image_size, cases=test.cases)
seen = view(next(pipeline.epoch(test, batch_size=len(test))))
layers = network.numbered_layers
logits, found = jax.jit(lambda x: capture.capture(network, variables, x, layers))(seen["images"])
mask, labels = jax.nn.softmax(logits)[..., 1], seen["labels"]  # the soft output makes the prototypes
ability = {name: np.asarray(prototypes.sa_score(found[name], mask, labels)) for name in layers}
output = np.asarray(overlap.dice(labels, logits.argmax(-1), num_classes=2))[:, 0]

# %%
patients, numbers = np.array(test.patients), np.arange(1, len(layers) + 1)
means = [intervals.bootstrap_mean(values, patients, resamples=500) for values in ability.values()]
series = figures.Series("layer", numbers, *zip(*[(m.mean, m.low, m.high) for m in means], strict=True))
dice = intervals.bootstrap_mean(output, patients)
level = [np.full(len(layers), value) for value in (dice.mean, dice.low, dice.high)]
panel = [series, figures.Series("the network's output", numbers, *level, style=":")]
figures.curves("layers.png", {"": panel}, xlabel="layer, from input to output", ylabel="SA score (Dice)")
print("best layer:", layers[int(np.argmax([m.mean for m in means]))])
Image("layers.png", width=600)

# %% [markdown]
# Early layers see colours and edges, and where the lesion is darker than the skin that is a good part of it; the middle
# of the network is coarse; the last layers hold what the output says. SA speaks of two averages and a straight cut
# between them: a layer can know more than that.
#
# What the maps look like, for the case with the median Dice:

# %%
i = int(np.argsort(output)[len(output) // 2])
chosen = {"first layer": layers[0], "middle": layers[len(layers) // 2 - 1], "last": layers[-1]}
maps = {what: prototypes.object_probability(found[k][i : i + 1], mask[i : i + 1])[0] for what, k in chosen.items()}
figures.heat_maps("maps.png", maps, extent_label="place in the image, half sides", label="probability of the lesion")
picture = np.uint8(np.round((np.asarray(seen["images"][i]) + 1) * 127.5))
row = (test.cases[i], picture, labels[i], {what: np.asarray(p) > 0.5 for what, p in maps.items()})
figures.overlays("map_outlines.png", [row])
Image("maps.png", width=600)

# %%
Image("map_outlines.png", width=600)

# %% [markdown]
# ## Unit by unit (section 4.5, Figs. 7 and 9)
#
# Every channel of the last layer by itself. Units with a low score are inert for this task; a network as narrow as this
# one may have none.

# %%
units = np.asarray(prototypes.unit_sa_scores(found[layers[-1]], mask, labels))  # [N,C]
rows = []
for unit in np.argsort(np.nanmean(units, 0))[::-1]:
    m = intervals.bootstrap_mean(units[:, unit], patients, resamples=500)
    rows.append((f"unit {unit}", "", m.mean, m.low, m.high))
figures.dots("units.png", rows, xlabel=f"SA score of the units of {layers[-1]}")
Image("units.png", width=600)

# %% [markdown]
# Does the network need the inert ones? Each half is set to 0 in turn, all else as it was (the paper only suggests
# this).

# %%
order = np.argsort(np.nanmean(units, 0))
half = len(order) // 2
for what, silenced in {"the inert half": order[:half], "the better half": order[half:]}.items():
    off = {layers[-1]: lambda x, silenced=silenced: x.at[..., silenced].set(0.0)}
    changed = capture.replace(network, variables, seen["images"], off)
    after = np.asarray(overlap.dice(labels, changed.argmax(-1), num_classes=2))[:, 0]
    m = intervals.bootstrap_contrast([(1.0, after), (-1.0, output)], patients)
    print(f"Dice without {what}, minus that of the network:", estimate_text(m.mean, m.low, m.high))

# %% [markdown]
# ## Quality without annotation (section 4.6, Eq. 12)
#
# The mean SA score of the units of the last two layers, with the network's own output in place of the annotation. If it
# goes with the Dice, it can tell which outputs a person should look at.

# %%
quality = np.asarray(prototypes.mean_sa_score([found[name] for name in layers[-2:]], mask))
rank = ranking.spearman_estimate(1 - quality, 1 - output, patients, resamples=500)
print("rank correlation with the Dice:", estimate_text(rank.mean, rank.low, rank.high))
kept = quality >= np.nanmedian(quality)
print(f"Dice of the better half by this score {np.nanmean(output[kept]):.2f}, of all {np.nanmean(output):.2f}")
figures.points("quality.png", {"mean SA of the last two layers": {"": (quality, output)}}, ylabel="Dice")
Image("quality.png", width=500)

# %% [markdown]
# ## Separableness of the images (section 4.7)
#
# The same with the raw colours as features: how much of the task is colour alone? The difference is what the network
# adds.

# %%
gain = np.asarray(prototypes.segmentation_gain(seen["images"], mask, labels))
colours = np.asarray(prototypes.sa_score(jnp.asarray(seen["images"]), mask, labels))
for what, values in {"separableness of the colours": colours, "gain of the network": gain}.items():
    m = intervals.bootstrap_mean(values, patients)
    print(what, estimate_text(m.mean, m.low, m.high), f"n = {m.n}")

# %% [markdown]
# ## The whole study
#
# With the network that is trained for its segmentation ability (`config.training.ability_weight`), noise, and the
# paper's numbers beside ours:
#
#     python -m launch.study --config=configs/segmentation_ability.py:demo --workdir=runs/ability_study
