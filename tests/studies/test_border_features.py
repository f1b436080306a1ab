"""What features know of the border: layers of an untrained network, and the projection."""

import jax
import numpy as np
import pytest

from configs import border_shortcut as config_file
from jaxseg import models
from jaxseg.analysis import position
from jaxseg.data import augment, pipeline
from jaxseg.models import capture
from jaxseg.studies.border_shortcut import features as border_features
from jaxseg.studies.border_shortcut.settings import settings

SIZE = 16


@pytest.fixture(scope="module")
def test_cases():
    """Noise: nothing in the images tells where a pixel is."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (22, SIZE, SIZE, 3), dtype=np.uint8)
    names = tuple(f"case{i}" for i in range(22))
    labels = np.zeros(images.shape[:3], np.uint8)
    return pipeline.InMemory(
        "noise/test", ("background", "lesion"), images, labels, names, names, *pipeline.nowhere(22)
    )


def settings_of(**evaluation):
    config = config_file.get_config("tiny").unlock()
    config.data.update(source_size=SIZE, image_size=SIZE)
    config.training.batch_size = 8  # 22 cases: the last batch is filled up
    config.evaluation.update(evaluation)
    return settings(config)


@pytest.fixture(scope="module")
def measured(test_cases, drawn_variables):
    """`(padding, network) -> model, variables, what is measured` with 220 pixels in the projection."""

    def measure(padding, name="unet", **options):
        options = options or {"features": (4, 8), "skips": (True,)}
        model = models.build(name, 2, padding=padding, **options)
        variables = drawn_variables(model, jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32))
        return model, variables, border_features.measure(settings_of(feature_pixels=220), model, variables, test_cases)

    return measure


@pytest.fixture(scope="module")
def zero(measured):
    return measured("zero")


def test_zero_padding_tells_the_border_and_circular_does_not(measured, zero):
    _, _, circular = measured("circular")
    assert zero[2]["position"].shape == (6,)
    assert zero[2]["position"].max() > 0.1
    assert circular["position"].max() < 0.05


def test_of_a_transformer_positions_tell_the_border_and_without_them_no_layer_knows_it(measured):
    small = {"patch": 2, "width": 8, "depth": 1, "heads": 2}
    waves, bare = (measured("circular", "vit", position=p, **small) for p in ("sinusoidal", "none"))
    layers = waves[0].roles.convolutions
    assert layers[:3] == ("patches", "layer_0", "bottleneck") and waves[2]["position"].shape == (len(layers),)
    assert (waves[2]["position"] > 0.1).all()
    assert bare[2]["position"].max() < 0.05


def test_the_score_is_that_of_all_images_at_once(test_cases, zero):
    model, variables, found = zero
    view = augment.testing_view("original", size=SIZE, cases=test_cases.cases)
    layer = model.numbered_layers[3]
    folds = np.unique(test_cases.patients, return_inverse=True)[1].astype(np.int32) % 5

    @jax.jit
    def at_once(variables, image, labels):
        seen = view({"image": image, "labels": labels})["images"]
        features = capture.capture(model, variables, seen, [layer])[1][layer]
        return position.compute(position.update(position.init(features.shape[-1], folds=5), features, folds))

    expected = at_once(variables, test_cases.images, test_cases.labels)
    np.testing.assert_allclose(found["position"][3], expected, atol=1e-4)


def test_the_projection_has_the_pixels_asked_for_and_their_distances(measured, zero):
    found = zero[2]
    assert found["projection"].shape == (220, 2) and found["projection_distance"].shape == (220,)
    possible = np.unique(position.border_distance((SIZE, SIZE)))
    assert np.isin(found["projection_distance"], possible).all()
    again = measured("zero")[2]
    np.testing.assert_array_equal(found["projection"], again["projection"])


def test_pixels_that_do_not_count_are_neither_shown_nor_asked(zero, test_cases, monkeypatch):
    model, variables, everywhere = zero
    valid, read = np.zeros(test_cases.labels.shape, bool), pipeline.epoch
    valid[:, 4:-4, 4:-4] = True
    valid[5] = False
    told = lambda *args, **options: (batch | {"valid": valid[batch["index"]]} for batch in read(*args, **options))
    monkeypatch.setattr(pipeline, "epoch", told)
    inside = border_features.measure(settings_of(feature_pixels=220), model, variables, test_cases)
    assert len(inside["projection_distance"]) == 210  # of one case nothing counts
    assert inside["projection_distance"].min() == position.border_distance((SIZE, SIZE))[4, 4]
    assert (inside["position"] < everywhere["position"]).all()  # what the padding marks lies outside
