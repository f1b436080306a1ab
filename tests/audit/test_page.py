"""Which cases an audit is of: those of training may be missing elsewhere than on the run's own data."""

import pathlib
import types

import ml_collections
import pytest

from jaxseg.audit import page
from jaxseg.errors import InputError


def test_training_cases_may_be_missing_elsewhere_alone(monkeypatch, tmp_path):
    config = ml_collections.ConfigDict({"data": {"dataset": "own/set", "domains": ()}})
    monkeypatch.setattr(page, "load_run", lambda folder, prepare: types.SimpleNamespace(config=config, trained_on=None))
    monkeypatch.setattr(page.contract, "check_split", lambda *_: None)
    monkeypatch.setattr(page.subject, "of_run", lambda loaded, test, familiar: (test, familiar))

    def cases(directory, config, split, count, domains):
        if split == "train":
            raise InputError(f"{directory}: holds no prepared data set")
        return split

    monkeypatch.setattr(page, "_cases", cases)
    settings = types.SimpleNamespace(cases=3, familiar_cases=3)
    request = lambda dataset: page.Request(tmp_path, None, None, dataset, "test")
    prepare = lambda name: pathlib.Path(name)
    assert page._load(request("other/set"), settings, prepare) == (("test", None), "other/set")
    for own in ("own/set", None):
        with pytest.raises(InputError, match="own/set: holds no prepared data set"):
            page._load(request(own), settings, prepare)
