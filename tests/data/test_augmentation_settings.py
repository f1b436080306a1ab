"""What a config may say of augmentation."""

import pytest

from configs import base, train
from jaxseg.data import augment
from jaxseg.data.augmentation import settings
from jaxseg.errors import InputError


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shear": 1.0}, "shear is unknown; choose from flip_horizontal, "),
        ({"flip_vertical": 1.5}, "flip_vertical is 1.5; it must be a number in 0 to 1"),
        ({"rotate": -1.0}, "rotate is -1.0; it must be a number in 0 to 180"),
        ({"translate": "far"}, "translate is 'far'; it must be a number in 0 to 1"),
        ({"scale": 1.1}, "scale is 1.1; it must be a pair of numbers above 0, the lower first"),
        ({"scale": (1.1, 0.9)}, "scale is (1.1, 0.9); it must be a pair"),
        ({"crop": (0.5, 1.5)}, "crop is (0.5, 1.5); it must be a pair of numbers above 0 and at most 1"),
        ({"fill": "wrap"}, "fill is 'wrap'; it must be one of reflect, constant"),
        ({"fill_value": float("nan")}, "fill_value is nan; it must be a number"),
        ({"interpolation": 3}, "interpolation is 3; it must be one of linear, cubic"),
        ({"elastic": True}, "elastic is True; it must be a number in 0 to 1"),
        (
            {"elastic_amplitude": (0.0, 0.5)},
            "elastic_amplitude is (0.0, 0.5); it must be a pair of numbers at least 0 ",
        ),
        ({"elastic_spacing": (0.0, 0.5)}, "elastic_spacing is (0.0, 0.5); it must be a pair of numbers at least 0.05 "),
        ({"noise_shared": 1}, "noise_shared is 1; it must be True or False"),
        ({"noise_std": (0.0, float("inf"))}, "noise_std is (0.0, inf); it must be a pair of numbers at least 0, the "),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma is (0.0, 1.0); it must be a pair of numbers above 0 and at most 16, "),
        ({"brightness_shift_std": -1}, "brightness_shift_std is -1; it must be a number, at least 0"),
        ({"low_resolution_scale": [0.5, 2]}, "low_resolution_scale is [0.5, 2]; it must be a pair of numbers above 0 "),
        (
            {"gamma_exponent": ("a", 1.0)},
            "gamma_exponent is ('a', 1.0); it must be a pair of numbers above 0, the lower",
        ),
    ],
)
def test_augmentations_that_cannot_be_are_named(options, message):
    with pytest.raises(InputError) as error:
        augment.training_view("original", size=8, augmentation=options)
    assert str(error.value).startswith(f"config.data.augmentation.{message}")


def test_configs_show_every_field_with_its_default():
    shown = settings.check_augmentation(base.run().data.augmentation.to_dict())
    assert set(base.run().data.augmentation) == set(settings.Augmentation._fields)
    assert shown == settings.Augmentation() == settings.check_augmentation({})
    assert not shown.moves and not shown.intensities


@pytest.mark.parametrize("recipe", ["nnunet", "nnunet_3d"])
def test_nnunets_recipes_can_be_trained(recipe):
    given = train.get_config(f"tiny,unet,{recipe}").data.augmentation.to_dict()
    chosen = settings.check_augmentation(given)
    assert chosen.moves and not chosen.deforms
    assert chosen.intensities == tuple(name for name in settings.INTENSITIES if name != "brightness_shift")
    assert bool(chosen.tilt) == bool(chosen.flip_depth) == (recipe == "nnunet_3d")
    settings.check_augmentation_rank(given, 3, dataset="acdc/volumes")


@pytest.mark.parametrize(
    ("given", "moves"),
    [
        ({"rotate": 10.0}, True),
        ({"rotate": 10.0, "rotate_probability": 0.0}, False),
        ({"tilt": 10.0}, True),
        ({"scale": (1.0, 1.1)}, True),
        ({"scale": [1.0, 1.1], "scale_probability": 0}, False),
        ({"scale": [1, 1], "crop": [1, 1]}, False),
        ({"flip_depth": 0.1}, True),
        ({"elastic": 0.1}, True),
        ({"elastic": 0.1, "elastic_amplitude": (0.0, 0.0)}, False),
        ({"fill": "constant", "interpolation": "cubic", "noise": 1.0}, False),
    ],
)
def test_what_cannot_move_anything_is_known(given, moves):
    assert settings.check_augmentation(given).moves == moves
