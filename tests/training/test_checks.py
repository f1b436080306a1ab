"""What a config may say, field by field, and what of it goes together."""

import re

import pytest

from configs import train
from jaxseg.errors import InputError
from jaxseg.training import checks


def changed(**fields):
    """The tiny config, with `section__field=value`."""
    config = train.get_config("tiny").unlock()
    with config.ignore_type():
        for name, value in fields.items():
            *section, field = name.split("__")
            (config[section[0]] if section else config)[field] = value
    return config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"study": "border_shortcut"}, "the config is that of a study, not of a run"),
        ({"training__batch_size": 2.0}, "config.training.batch_size is 2.0; it must be a whole number"),
        ({"replicas": True}, "config.replicas is True; it must be a whole number"),
        ({"data__domains": "A"}, "config.data.domains is 'A'; it must be a list of texts"),
        ({"data__domains": (1,)}, "config.data.domains is (1,); it must be a list of texts"),
        ({"data__view": None}, "config.data.view is None; it must be a text"),
        ({"training__loss_options": 3}, "config.training.loss_options is 3; it must be a section"),
        ({"training__ability_weight": float("nan")}, "config.training.ability_weight is nan; it must be at least 0"),
        ({"training__ability_weight": "1"}, "config.training.ability_weight is 1; it must be at least 0"),
        ({"data__view": "whole"}, "config.data.view is 'whole'; choose one of "),
        ({"training__ability_layers": ("bottleneck",)}, "ability_layers are named, but ability_weight is 0"),
        ({"data__source_size": 15}, "config.data.source_size is 15; quadrants need an even size"),
        ({"data__folds": 3, "data__fold": 3}, "config.data.folds is 3 and fold 3; give at least 2 folds"),
        ({"replicas": 2, "parallel": "pmap"}, "config.parallel 'pmap' trains one run at a time"),
        ({"replicas": 2, "data__residence": "stream"}, "config.replicas share the cases on the device"),
        (
            {"vary": "fold", "replicas": 3, "data__folds": 3, "data__fold": 1},
            "config.data.fold is what the replicas vary; leave it at 0",
        ),
        ({"vary": "fold", "replicas": 2, "data__folds": 3}, "it must be config.data.folds, 3"),
        ({"data__folds": 3, "data__residence": "stream"}, "config.data.folds needs the masks of all cases"),
        ({"parallel": "pmap", "deterministic": True}, "config.deterministic needs options that pmap does not take"),
    ],
)
def test_what_cannot_be_laid_out_is_named(fields, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        checks.check_common(changed(**fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", checks._AT_LEAST)
def test_a_number_may_be_the_least_and_no_less(monkeypatch, name):
    monkeypatch.setattr(checks, "_check_recipe", lambda config: None)
    monkeypatch.setattr(checks, "_check_layout", lambda config: None)
    least = {"training.ability_weight": 0.0}.get(name, checks._AT_LEAST[name])
    checks.check_common(changed(**{name.replace(".", "__"): least}))
    with pytest.raises(InputError, match=re.escape(f"config.{name} is {least - 1}; it must be at least {least:g}")):
        checks.check_common(changed(**{name.replace(".", "__"): least - 1}))


@pytest.mark.parametrize(
    "fields",
    [
        {"data__folds": 2, "data__fold": 1},
        {"vary": "fold", "replicas": 3, "data__folds": 3},
        {"vary": "fold", "data__folds": 3, "data__fold": 2},  # a replica by itself
        {"vary": "fold"},
        {"replicas": 2, "data__folds": 3, "data__fold": 1},  # of several seeds
        {"parallel": "pmap"},
        {"data__residence": "stream"},
        {"deterministic": True},
    ],
    ids=str,
)
def test_what_can_be_laid_out_is_let_through(fields):
    checks.check_common(changed(**fields))


def test_losses_and_networks_that_do_not_fit_are_named():
    dtu = changed(model__name="dtu_net", training__loss="dtu", training__ability_weight=1.0)
    dtu.training.loss_options = {}
    with pytest.raises(InputError, match="ability_weight is for losses of logits and labels, not 'dtu'"):
        checks._check_loss(dtu)
    with pytest.raises(InputError, match=r"^config.model: "):
        checks.check(changed(model__padding="none"))
    with pytest.raises(InputError, match=r"config.model.dtype is 'float16'; choose one of float32, bfloat16"):
        checks.check(changed(model__dtype="float16"))
    with pytest.raises(InputError, match=r"^config.data.image_size or config.training with config.model: "):
        checks.check(changed(data__image_size=9))


@pytest.mark.parametrize(
    ("section", "name"), [(None, "seed"), ("data", "fold"), ("model", "dtype"), ("training", "patience")]
)
def test_a_field_that_is_missing_is_named(section, name):
    config = train.get_config("tiny").unlock()
    del (config[section] if section else config)[name]
    with pytest.raises(InputError, match=f"config.{section + '.' if section else ''}{name} is missing; configs/train"):
        checks.check_fields(config)
    if section:
        del config[section]
        with pytest.raises(InputError, match=f"config.{section}.* is missing"):
            checks.check_fields(config)


def test_of_a_larger_config_the_run_is_taken():
    config = changed(further=3)
    taken = checks.run_config(config)
    assert taken.to_dict() | {"further": 3} == config.to_dict()
    with pytest.raises(InputError, match=r"config.seed is 0.5; it must be a whole number"):
        checks.run_config(changed(seed=0.5))


def test_pmap_is_for_one_host(monkeypatch):
    config = train.get_config("tiny").unlock()
    config.parallel = "pmap"
    checks.check(config)
    monkeypatch.setattr(checks.jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"config.parallel 'pmap' is for one host; use 'jit' for many"):
        checks.check(config)
