# %% [markdown]
# # Shortcuts: the border of the image, and marks on it
#
# Lin, Weng et al. 2024, *Shortcut Learning in Medical Image Segmentation*, show two cues that a network takes in place
# of anatomy. Section 4: zero padding tells it where the border is, and lesions that lie in the middle teach it that
# border pixels are background. Section 3: calipers and text, which sonographers put on a scan, tell it what and where
# the organ is.
#
# Two CPU cores need about eight minutes.

# %%
import pathlib

import jax
import numpy as np
from IPython.display import Image

from configs import overlay_shortcut, train
from jaxseg.analysis import gradcam
from jaxseg.data import augment, builders, overlays, pipeline
from jaxseg.data.synthetic import ultrasound
from jaxseg.metrics import intervals, overlap, regions
from jaxseg.models import capture
from jaxseg.report import figures
from jaxseg.results.text import estimate_text
from jaxseg.training import runs

SIZE = "demo"
WORK = pathlib.Path("runs/shortcuts")


def trained(config, splits, name):
    """The network of a run with its best weights; it is trained where that was not done yet."""
    runs.train(config, splits, WORK / name)
    cases = splits["test"]
    return runs.load_best(config, WORK / name, cases.images.shape, cases.num_classes)[:2]


# %% [markdown]
# ## The border
#
# Two networks of one seed: `M_ori` sees whole images, `M_crop` one of their quadrants, another each time, in which
# lesions reach the border. Both are tested on quadrants.

# %%
config = train.get_config(SIZE)
splits = runs.Splits(builders.prepare(config.data.dataset, data_dir="data", manual_dir=None), config.data.source_size)
of_quadrants = config.copy_and_resolve_references().unlock()
of_quadrants.data.view = "quadrant"
networks = {"M_ori": trained(config, splits, "M_ori"), "M_crop": trained(of_quadrants.lock(), splits, "M_crop")}

# %%
test = splits["test"]
size = config.data.image_size
batch = next(pipeline.epoch(test, batch_size=len(test)))
seen = augment.testing_view("quadrant", size=size, cases=test.cases)(batch)
predicted = {
    name: jax.jit(lambda images, net=net, v=v: net.apply(v, images).argmax(-1))(seen["images"])
    for name, (net, v) in networks.items()
}
dice = {name: regions.band_dice(seen["labels"], p, width=size // 16) for name, p in predicted.items()}

# %%
patients = np.array(test.patients)
series = []
for name, (distance, of_bands) in dice.items():
    bands = [intervals.bootstrap_mean(values, patients, resamples=500) for values in np.asarray(of_bands).T]
    series.append(figures.Series(name, distance, *zip(*[(b.mean, b.low, b.high) for b in bands], strict=True)))
figures.curves("bands.png", {"": series}, xlabel="distance from the centre (px)", ylabel="Dice on quadrants")
Image("bands.png", width=600)

# %%
border = {name: np.asarray(of_bands)[:, -1] for name, (_, of_bands) in dice.items()}
gap = intervals.bootstrap_contrast([(1.0, border["M_crop"]), (-1.0, border["M_ori"])], patients)
print("gap at the border, M_crop minus M_ori:", estimate_text(gap.mean, gap.low, gap.high))
order = np.argsort(np.nan_to_num(border["M_crop"] - border["M_ori"], nan=-1.0))[::-1][:3]
images = np.uint8(np.round((np.asarray(seen["images"]) + 1) * 127.5))
rows = [(test.cases[i], images[i], seen["labels"][i], {name: p[i] for name, p in predicted.items()}) for i in order]
figures.overlays("quadrants.png", rows)
Image("quadrants.png", width=500)

# %% [markdown]
# The three cases with the largest gap, so the worst and not typical ones: `M_ori` may even draw a lesion in the middle,
# where lesions lay in training. The interval is over patients and does not cover what another training run would
# change. `config.model.padding` may also be `reflect`, `replicate`, `circular` or `valid`;
# `border_shortcut.py:demo,padding` compares all five.
#
# ## Marks
#
# A drawn scan, while it is annotated: name of the plane, calipers, values. What lies below never changes.

# %%
frames = ultrasound.clip(1, 4, 128, plane="head", frames=4)
figures.strip("clip.png", {"frozen scan": [(frame.image, None) for frame in frames]}, titles=["0", "1", "2", "3"])
Image("clip.png", width=600)

# %% [markdown]
# Marks can be found and removed. `detect` knows no truth: it looks for colour and for strokes with sharp edges.

# %%
frame = frames[-1]
found = overlays.detect(frame.image)
removed = {m: overlays.remove(frame.image, found, method=m) for m in overlays.REMOVALS if m != "network"}
columns = {"marked": frame.image, "clean": frame.clean, **removed}
figures.strip("removed.png", {"head": [(image, None) for image in columns.values()]}, titles=list(columns))
print(f"of the pixels with marks {found[frame.overlay].mean():.0%} are found")
print(f"of what is found {frame.overlay[found].mean():.0%} are marks (the machine's own legend does not count as one)")
Image("removed.png", width=700)

# %% [markdown]
# ## Does a network segment by the marks?
#
# The baseline is trained on annotated scans, and tested on the same test scans with and without marks.

# %%
study = overlay_shortcut.get_config(SIZE)
marked = train.get_config(SIZE).unlock()
marked.data = study.data.to_dict()
marked.data.domains = ("annotated",)
marked.training = study.training.to_dict()
directory = builders.prepare(marked.data.dataset, data_dir="data", manual_dir=None)
scans = {d: runs.Splits(directory, marked.data.source_size, (d,)) for d in ("annotated", "clean")}
network, variables = trained(marked.lock(), scans["annotated"], "baseline")

# %%
predict = jax.jit(lambda images: network.apply(variables, images).argmax(-1))
view = augment.testing_view("original", size=marked.data.image_size, cases=())
seen = {d: view(next(pipeline.epoch(s["test"], batch_size=len(s["test"])))) for d, s in scans.items()}
predicted = {d: predict(shown["images"]) for d, shown in seen.items()}
classes = scans["clean"]["test"].class_names
organ = np.asarray(seen["clean"]["labels"].max((1, 2)))  # one organ an image
scored = {d: np.asarray(overlap.dice(seen[d]["labels"], predicted[d], num_classes=len(classes))) for d in seen}

# %%
people = np.array(scans["clean"]["test"].patients)
own = lambda d, k: np.where(organ == k, scored[d][:, k - 1], np.nan)
drops = []
for k in range(1, len(classes)):
    drop = intervals.bootstrap_contrast([(1.0, own("annotated", k)), (-1.0, own("clean", k))], people, resamples=1000)
    drops.append((classes[k], "", drop.mean, drop.low, drop.high))
figures.dots("drops.png", drops, xlabel="Dice with marks minus Dice without")
Image("drops.png", width=600)

# %% [markdown]
# To the right of 0 the network needs the marks. An organ that it has not learned at all stays at 0, whatever is on the
# image; so look at the Dice too. Where it looks, Grad-CAM shows (the paper's appendix, Fig. 2): here for the scan that
# loses most among those whose organ is found, if badly, without marks too. A map may be blank, where the layer's
# channels speak against the class.

# %%
drop = np.nansum([own("annotated", k) - own("clean", k) for k in range(1, len(classes))], 0)
on_both = np.all([(p == organ[:, None, None]).any((1, 2)) for p in predicted.values()], 0)
i = int(np.argmax(np.where(on_both, drop, -1)))
layer = "bottleneck/conv_1"
maps = {}
for d, shown in seen.items():
    x = shown["images"][i : i + 1]
    activations = capture.capture(network, variables, x, [layer])[1][layer]
    forward = lambda a, x=x: capture.replace(network, variables, x, {layer: lambda _: a})
    gradients = gradcam.score_gradients(forward, activations, class_index=int(organ[i]))
    maps[d] = gradcam.gradcam(activations, gradients, size=x.shape[1:3])[0]
figures.heat_maps("gradcam.png", maps, extent_label="place in the image, half sides", label="Grad-CAM")
pictures = [np.uint8(np.round((np.asarray(shown["images"][i]) + 1) * 127.5)) for shown in seen.values()]
figures.strip("scan.png", {classes[organ[i]]: [(picture, None) for picture in pictures]}, titles=list(seen))
Image("gradcam.png", width=500)

# %%
Image("scan.png", width=500)

# %% [markdown]
# ## The whole studies
#
# All networks, intervals, the mitigation and the paper's numbers beside ours, in one report page each:
#
#     python -m launch.study --config=configs/border_shortcut.py:demo --workdir=runs/demo
#     python -m launch.study --config=configs/overlay_shortcut.py:demo --workdir=runs/overlays
