"""What is just within a range is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data import overlays, shifts
from jaxseg.data.synthetic import cardiac, dermoscopy, smear, smear_drawn, ultrasound


@pytest.mark.parametrize(
    "render",
    [
        lambda size: dermoscopy.render(0, 0, size)[0],
        lambda size: ultrasound.render(0, 0, size, difficulty=0).image,
        lambda size: ultrasound.render(0, 0, size, difficulty=1).image,
        lambda size: cardiac.render(0, 0, 0, size, vendor="D", strength=0)[0],
        lambda size: cardiac.render(0, 0, 1, size, vendor="D", strength=1)[0],
        lambda size: cardiac.volume(0, 0, size, slices=1)[0][0],
    ],
)
def test_an_image_may_be_one_pixel(render):
    assert render(1).shape[:2] == (1, 1)


def test_a_smear_may_be_one_pixel_or_the_canvas_and_have_all_the_stain_of_cells():
    templates = smear_drawn.drawn_templates(0)
    for size in (1, smear.CANVAS):
        assert smear.render(0, 0, size, templates=templates, stain=1)[0].shape == (size, size, 3)


def test_marks_of_one_pixel_and_holes_of_one_size():
    _, covered = overlays.draw_calipers(np.zeros((9, 9), np.uint8), [[4, 4]], size=1, thickness=1)
    assert np.argwhere(covered).tolist() == [[4, 4]]
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    cut = lambda key, images: overlays.holes(key, {"images": images}, count=1, size=(5.0, 5.0))["masks"]
    assert jax.eval_shape(cut, jax.random.key(0), image).shape == (1, 8, 8)


def test_a_field_may_have_one_half_wave():
    field = lambda key: shifts.draw_bias_field(key, (6, 5), 0.5, half_waves=1)
    assert jax.eval_shape(field, jax.random.key(0)).shape == (6, 5)
