# %% [markdown]
# # Quickstart: what has this network really learned?
#
# We train a small U-Net on drawn skin images, in which lesions lie in the middle as in ISIC 2017, and ask it three
# questions: where does it fail, which layers separate the lesion, and which of them know where the border is? Then it
# predicts images that it has not seen, and says itself which of them a person should look at.
#
# Two CPU cores need about four minutes, half of them for drawing the images. With `SIZE = "tiny"` all cells run within
# seconds, and nothing is learned.

# %%
import csv
import pathlib

import jax
import numpy as np
from IPython.display import Image
from PIL import Image as Picture

from configs import train
from jaxseg.analysis import position, prototypes
from jaxseg.data import augment, builders, pipeline
from jaxseg.metrics import intervals, overlap, regions
from jaxseg.models import capture
from jaxseg.prediction import page as predictions
from jaxseg.report import figures
from jaxseg.results.text import estimate_text
from jaxseg.training import runs, trained

SIZE = "demo"
WORK = pathlib.Path("runs/quickstart")

# %% [markdown]
# ## Data
#
# `prepare` writes a data set once and reads it back later; `dermoscopy` is drawn, so nothing is downloaded. It has
# known truth: every lesion's outline is that with which it was drawn.

# %%
config = train.get_config(SIZE)
directory = builders.prepare(config.data.dataset, data_dir="data", manual_dir=None)
splits = runs.Splits(directory, config.data.source_size)
test = splits["test"]
shown = {"image": [(x, None) for x in test.images[:4]], "lesion": list(zip(test.images, test.labels, strict=True))[:4]}
figures.strip("images.png", shown, titles=test.cases[:4])
Image("images.png", width=600)

# %% [markdown]
# ## Training
#
# A run is a config and a folder. Every number stands in the config (`print(config)` shows them), and a call that was
# interrupted resumes where it was.

# %%
runs.train(config, splits, WORK / "unet")
network, variables, best = runs.load_best(config, WORK / "unet", test.images.shape, test.num_classes)
best

# %% [markdown]
# ## Where does it fail?
#
# The network has seen whole images. We test it on whole images and on quadrants of them, in which lesions reach the
# border. `band_dice` scores square rings; the rightmost is the border (Lin, Weng et al. 2024, section 4).

# %%
batch = next(pipeline.epoch(test, batch_size=len(test)))
seen = {
    view: augment.testing_view(view, size=config.data.image_size, cases=test.cases)(batch)
    for view in ("original", "quadrant")
}
predict = jax.jit(lambda images: network.apply(variables, images).argmax(-1))
predicted = {view: predict(shown["images"]) for view, shown in seen.items()}

patients = np.array(test.patients)
of_lesion = jax.jit(lambda labels, predicted: overlap.dice(labels, predicted, num_classes=2)[:, 0])
for view, shown in seen.items():
    dice = of_lesion(shown["labels"], predicted[view])
    found = intervals.bootstrap_mean(np.asarray(dice), patients)
    print(f"Dice on {view} images: {estimate_text(found.mean, found.low, found.high)}, n = {found.n}")

# %%
series = []
band_dice = jax.jit(lambda labels, predicted: regions.band_dice(labels, predicted, width=config.data.image_size // 16))
for view, shown in seen.items():
    distance, dice = band_dice(shown["labels"], predicted[view])
    bands = [intervals.bootstrap_mean(values, patients, resamples=500) for values in np.asarray(dice).T]
    series.append(figures.Series(view, distance, *zip(*[(b.mean, b.low, b.high) for b in bands], strict=True)))
figures.curves("bands.png", {"": series}, xlabel="distance from the centre (px)", ylabel="Dice")
Image("bands.png", width=600)

# %% [markdown]
# On both, the line falls to next to nothing at the border: pixels there are called background, whatever they show. Zero
# padding shows a network where the border is, and in training hardly a lesion lay there. That is the border shortcut.
# Quadrants also show lesions larger than the network has seen them, which costs Dice everywhere. The notebook
# `border_and_overlay_shortcuts` tells the two apart: it trains a network that has seen quadrants.
#
# ## Which layers separate the lesion, and which know the border?
#
# `capture` reads activations by name. The *segmentation ability* of a layer is the Dice of the map that its two
# prototypes, lesion and background, make of the image (He et al. 2022, Eqs. 6 to 8): 1 separates perfectly. *R²* is how
# well the distance from the border can be read off the layer: 0 means that it does not know where it is.

# %%
layers = network.numbered_layers


@jax.jit
def profile(images, labels):
    """Segmentation ability and R² of every layer."""
    logits, activations = capture.capture(network, variables, images, layers)
    lesion = jax.nn.softmax(logits)[..., 1]
    ability = [prototypes.sa_score(activations[name], lesion, labels) for name in layers]
    return ability, [position.position_r2(activations[name]) for name in layers]


ability, knows = jax.tree.map(np.asarray, profile(seen["original"]["images"], seen["original"]["labels"]))

# %%
numbers = np.arange(1, len(layers) + 1)
means = [intervals.bootstrap_mean(values, patients, resamples=500) for values in ability]
bounds = zip(*[(m.mean, m.low, m.high) for m in means], strict=True)
panels = {
    "segmentation ability": [figures.Series("U-Net", numbers, *bounds)],
    "R² of the border distance": [figures.Series("U-Net", numbers, knows, knows, knows)],
}
figures.curves("layers.png", panels, xlabel="layer, from input to output", ylabel="")
Image("layers.png", width=600)

# %% [markdown]
# ## New images
#
# Some quadrants as files, as if they came from elsewhere. Masks and a table are written; `mean_sa` is the mean
# segmentation ability of the last two layers' units against the network's own output (He et al. 2022, Eq. 12), which
# needs no annotation. An image is flagged where 80 % of the validation cases look better.

# %%
(WORK / "new").mkdir(parents=True, exist_ok=True)
for case, image in zip(test.cases[:6], np.asarray(seen["quadrant"]["images"]), strict=False):
    Picture.fromarray(np.uint8(np.round((image + 1) * 127.5))).save(WORK / "new" / f"{case}.png")
outcome = predictions.run(
    source=trained.Source(run=WORK / "unet"),
    paths=[WORK / "new"],
    output=WORK / "masks",
    options=predictions.Options(),
    prepare=lambda name: builders.prepare(name, data_dir="data", manual_dir=None),
    command="colab/quickstart.ipynb",
)
for row in csv.DictReader(outcome.table.open()):
    print({name: row[name] for name in ("file", "mean_sa", "mean_sa_percentile", "entropy", "flagged")})

# %%
Image(str(outcome.sheet), width=600) if outcome.sheet else "no image was flagged"

# %% [markdown]
# ## Further
#
# - The other notebooks: one for each paper, and `your_own_network_and_data`.
# - The same study with all its tables, intervals and one report page, which opens on a phone too:
#   `python -m launch.study --config=configs/border_shortcut.py:demo --workdir=runs/demo`
