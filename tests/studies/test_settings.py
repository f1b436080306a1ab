"""Whatever stands in a field of a study's config or an audit's: it works, or is refused in one line that names it."""

import importlib

import ml_collections
import pytest

from jaxseg.audit import run as audits
from jaxseg.errors import InputError

STUDIES = (
    "border_shortcut",
    "distortion",
    "overlay_shortcut",
    "planted_shortcuts",
    "segmentation_ability",
    "skip_pruning",
)
ODD = (None, "x", -1, 2.5, float("nan"), (), ("x",), 7)


def cases():
    for name in STUDIES:
        config = importlib.import_module(f"configs.{name}").get_config("tiny")
        settings = importlib.import_module(f"jaxseg.studies.{name}.settings").settings
        yield name, config, settings
    yield "audit", importlib.import_module("configs.audit").get_config(), audits.settings


CASES = {name: (config, settings) for name, config, settings in cases()}
OWN = {  # fields and sections of the studies themselves; those of a run are its own tests' (tests/training)
    name: [
        field
        for field in [
            *config,
            *(f"{s}.{f}" for s in config if isinstance(config[s], ml_collections.ConfigDict) for f in config[s]),
        ]
        if field.partition(".")[0]
        not in ("study", "size", "model", "training", "autoencoder_training", "parallel", "deterministic")
    ]
    for name, (config, _) in CASES.items()
}


def without(config, field):
    made = ml_collections.ConfigDict(config.to_dict())
    *section, name = field.split(".")
    del (made[section[0]] if section else made)[name]
    return made


def with_value(config, field, value):
    made = config.to_dict()
    *section, name = field.split(".")
    (made[section[0]] if section else made)[name] = value
    return ml_collections.ConfigDict(made)


def accepted_or_refused(settings, config):
    try:
        settings(config)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", CASES)
def test_a_field_that_is_missing_is_named(name):
    config, settings = CASES[name]
    for field in OWN[name]:
        accepted_or_refused(settings, without(config, field))
    for section in ("data", "training", "model", "evaluation", "audit", "worlds", "shifted", "removal"):
        if section in config:
            with pytest.raises(InputError, match=rf"config\.({section}|probes)"):
                settings(without(config, section))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_field_of_another_kind_is_refused(name, value):
    config, settings = CASES[name]
    for field in OWN[name]:
        accepted_or_refused(settings, with_value(config, field, value))


@pytest.mark.parametrize("field", ["resamples", "examples", "cases", "findings", "latent"])
@pytest.mark.parametrize("value", [2.5, True, "2", None])
def test_a_count_is_a_whole_number(field, value):
    config, settings = CASES["audit"]
    with pytest.raises(InputError, match=rf"config.{field} is .*; it must be a whole number"):
        settings(with_value(config, field, value))


def test_an_autoencoder_that_cannot_be_is_refused_before_anything_is_trained():
    config, settings = CASES["distortion"]
    for field, value in (("kind", "x"), ("latent", 0), ("width", -1)):
        with pytest.raises(InputError, match=r"config.layer or config.autoencoder"):
            settings(with_value(config, f"autoencoder.{field}", value))


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_that_changes_gray_levels_is_of_gray_levels(name):
    config, settings = CASES[name]
    changed = with_value(config, "data.normalisation", "z_score")
    if name in ("overlay_shortcut", "planted_shortcuts", "skip_pruning"):
        with pytest.raises(InputError, match="normalisation is 'z_score'; this study changes gray levels: use 'range'"):
            settings(changed)
    else:
        assert settings(changed).run.data.normalisation == "z_score"
    with pytest.raises(InputError, match="studies take squares"):
        settings(with_value(config, "data.geometry", "patches"))
