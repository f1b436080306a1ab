"""Audits of runs on rectangles, several sizes and patches: from the run to the page, and beside evaluation."""

import dataclasses
import html
import json
import re
import types

import jax
import numpy as np
import pytest
from PIL import Image

from configs import audit as audit_config
from configs import train
from jaxseg import inference, models
from jaxseg.audit import page
from jaxseg.audit import run as audits
from jaxseg.audit.subject import of_trained
from jaxseg.data import builders, inputs, overlays, pipeline
from jaxseg.data.grids import Placement
from jaxseg.networks import of_linen
from jaxseg.training import runs, trained

SIZES = ((24, 32), (20, 30))
CASES = {"train": 8, "validation": 4, "test": 10}


def write(folder):
    """Colour pictures of two sizes and two scanners, with calipers on all, whose last column has no annotation."""
    random = np.random.default_rng(0)
    rows = ["case,image,mask,patient,domain,split"]
    for split, count in CASES.items():
        for i in range(count):
            name, size, scanner = f"{split}{i}", SIZES[i // 2 % 2], "AB"[i % 2]
            labels = np.zeros(size, np.uint8)
            y, x = random.integers(5, 8), random.integers(8, 14)
            labels[y : y + 8, x : x + 10] = 1
            gray = 60 + 110 * labels + random.integers(-20, 21, size) - 30 * (scanner == "B")
            image = np.stack([gray, gray + 10, gray + 5], -1).astype(np.uint8)
            ends = np.array([[y, x], [y + 8, x + 10]])
            image, _ = overlays.draw_calipers(image, ends, style="plus", size=3)
            labels[:, -1] = 9
            Image.fromarray(image).save(folder / f"{name}.png")
            Image.fromarray(labels).save(folder / f"{name}_mask.png")
            rows.append(f"{name},{name}.png,{name}_mask.png,{name},{scanner},{split}")
    (folder / "cases.csv").write_text("\n".join(rows))
    (folder / "classes.csv").write_text("value,name\n0,background\n1,object\n9,ignore\n")


RUNS = {  # options, normalisation, probes: in patches those that ask what the window says
    "keep": ({"size": (24, 32)}, "z_score", ()),
    "patches": (
        {"size": (16, 16), "overlap": 0.25},
        "percentiles",
        ("accuracy", "calibration", "failures", "gray levels", "padding", "translation"),
    ),
}


def drawn(*sizes):
    """Cases of several sizes, without a pixel that matters."""

    def read(place, pictured):
        size = sizes[place]
        texts = dict.fromkeys(("case", "patient", "domain"), "x")
        arrays = {"image": np.zeros((*size, 3), np.float16), "labels": np.zeros(size, np.uint8)}
        more = {"scale": np.zeros((4, 3), np.float32), "inside": np.array([(0, 0), size], np.int32)}
        return texts | arrays | more | {"valid": np.ones(size, bool), "spacing": np.ones(2)}

    classes = {"class_names": ("a", "b"), "num_classes": 2, "num_channels": 3, "name": "x/test"}
    split = types.SimpleNamespace(read=read, bytes_of=lambda pixels: 8 * pixels, **classes)
    placements = tuple(Placement(size, size, (0, 0), size) for size in sizes)
    texts = (("x",) * len(sizes),) * 4
    return pipeline.Streamed(split, np.arange(len(sizes)), *texts, placements, sizes[0])


def test_a_batch_of_whole_cases_has_as_many_pixels_as_one_of_patches():
    config = train.get_config("tiny").unlock()
    config.data.update(geometry="patches", normalisation="z_score")
    config.data.geometry_options.update(size=(16, 12), overlap=0.25)
    config.training.batch_size = 12
    model = models.build("unet", 2, features=(2, 4), skips=(True,))
    network = of_linen(model, {}, image_size=(16, 12))
    run = lambda: trained.of_config(config, (network,), None, name="run")
    made = of_trained(run(), drawn((20, 30), (24, 13)), drawn((18, 31)))
    assert made.sides == (24, 32) and made.familiar.sides == (24, 32)  # even, for one pooling
    assert made.batch_size == 12 * 16 * 12 // (24 * 32) == 3
    assert (made.tiling.sides(2), made.tiling.overlap, made.tiling.batch) == ((16, 12), 0.25, 12)
    np.testing.assert_array_equal(made.test.insides, [[(2, 1), (22, 31)], [(0, 9), (24, 22)]])
    assert "a window of 12x16 px" in made.notes[0] and "2 of 2 test cases do not fill it" in made.notes[1]
    whole = of_trained(run(), drawn((20, 30), (20, 30)), None)
    assert whole.sides == (20, 30) and whole.familiar is None and len(whole.notes) == 1
    config.data.geometry = "keep"
    config.data.geometry_options.update(multiple=(2,), size=(), overlap=0.5)
    keeping = of_trained(run(), drawn((20, 30), (24, 12)), None)
    assert (keeping.tiling, keeping.batch_size, keeping.sides) == (None, 12, (24, 30))
    assert keeping.ensemble == ()
    two = run()
    weights = ({"params": {"a": np.full(1, value)}} for value in (0.0, 1.0))
    two = two._replace(members=tuple(dataclasses.replace(two.members[0], variables=one) for one in weights))
    several = of_trained(two, drawn((20, 30), (24, 12)), None)
    assert several.network is two.members[0] and "2 replicas: the first is audited" in several.notes[-1]
    assert several.ensemble == two.members
    assert several.fingerprint["network"] != several.fingerprint["member_1"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    write(raw)
    return builders.prepare("folder/mine", data_dir=tmp_path_factory.mktemp("data"), manual_dir=raw)


@pytest.fixture(scope="module", params=RUNS)
def audited(request, pictures, tmp_path_factory):
    """Geometry, the run's config and folder, and the folder of its audit."""
    options, normalisation, probes = RUNS[request.param]
    place, config = tmp_path_factory.mktemp(request.param), train.get_config("tiny").unlock()
    config.data.update(dataset="folder/mine", geometry=request.param, normalisation=normalisation, image_size=16)
    config.data.geometry_options.update(options)
    config.model.update(features=(2, 4), skips=(True,))
    config.training.update(epochs=20, batch_size=4)
    settings = audit_config.get_config().unlock()
    settings.update(resamples=100, autoencoder_steps=2, latent=2, autoencoder_width=2, probes=probes)
    with jax.numpy_dtype_promotion("standard"):
        runs.train(config.lock(), runs.Splits(pictures, inputs.of_config(config)), place / "run")
        page.run(
            page.Request(run=place / "run"),
            settings.lock(),
            workdir=place / "audit",
            prepare=lambda name: pictures,
            command="python -m launch.audit",
        )
    return request.param, config, place


def test_an_audit_of_any_geometry_asks_every_probe(audited):
    geometry, _, place = audited
    results = json.loads((place / "audit" / "results.json").read_text())
    # of the scores that predict failures, those of several checkpoints or networks
    assert {row["probe"] for row in results["numbers"] if row["quantity"] == "not asked"} <= {"failures"}
    wanted = RUNS[geometry][2] or [probe.name for probe in audits.all_probes()]
    assert {row["probe"] for row in results["numbers"]} == set(wanted)
    words = re.sub(r"\s+", " ", html.unescape((place / "audit" / "report.html").read_text()))
    told = "a window of 16x16 px slides over a case, and the next one repeats 25% of it" in words
    assert told == (geometry == "patches") == ("How the cases are seen" in words)
    assert ("in the middle of one grid of 32x24 px; 4 of 10 test cases do not fill it" in words) == told


def test_an_audit_measures_the_dice_that_evaluation_does(audited, pictures):
    """Of every case; in patches, of those that fill the grid, on which a window slides as over the case alone."""
    geometry, _, place = audited
    asked = trained.of_run(place / "run", lambda name: pictures)
    rows, _ = inference.evaluate(asked, pictures, split="test", view="original")
    wanted = np.array([row["dice_object"] for row in rows])
    fills = [geometry == "keep" or i // 2 % 2 == 0 for i in range(len(rows))]
    for probe in ("accuracy", "failures"):
        found = np.load(place / "audit" / "probes" / f"{probe}.npz")["dice"][:, 0]
        np.testing.assert_array_equal(found[fills], wanted[fills].astype(np.float32))
    assert sum(fills) >= 6 and 0 < wanted.mean() < 1
