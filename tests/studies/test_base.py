"""What several studies share: settings with sections, records of cases, what is left when cases are rejected."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.settings import count, read
from jaxseg.studies import base


@dataclasses.dataclass(frozen=True)
class Part:
    """A section of its own."""

    examples: int = count()


@dataclasses.dataclass(frozen=True)
class Settings:
    """With a section in it."""

    part: Part
    seed: int = count(least=0)


def test_a_field_that_is_a_dataclass_is_read_of_the_section_of_its_name():
    config = {"seed": 3, "part": {"examples": 2}}
    asked = lambda **changes: read(Settings, ml_collections.ConfigDict(config | changes), shown_in="configs/x.py")
    assert asked() == Settings(Part(examples=2), seed=3)
    with pytest.raises(InputError, match=r"config.part.examples is 0; it must be at least 1"):
        asked(part={"examples": 0})
    with pytest.raises(InputError, match=r"config.part is 5; it must be a section, as in configs/x.py"):
        asked(part=5)


def test_a_record_of_a_case_has_what_is_said_of_all_and_its_own_values():
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)
    cases = pipeline.InMemory("x/test", ("a", "b"), images, labels, ("c0", "c1"), ("p", "q"), *pipeline.nowhere(2))
    first, second = base.case_records(cases, {"dice": np.float32([0.5, 0.25]), "plane": ["head", ""]}, network="online")
    assert first == {"case": "c0", "patient": "p", "network": "online", "dice": 0.5, "plane": "head"}
    assert list(second.items())[1:] == [("patient", "q"), ("network", "online"), ("dice", 0.25), ("plane", "")]
    assert type(first["dice"]) is float  # as JSON takes it


def test_what_is_kept_is_the_mean_of_the_best_by_their_share():
    worse, values = np.array([[0.1, 0.4, 0.2, 0.3]]), np.array([[0.9, 0.1, 0.8, 0.6]])
    shares = np.array([0.25, 0.5, 0.75, 1.0])
    series = base.of_kept("score", worse, values, shares, style=":")
    np.testing.assert_allclose(series.mean, [0.9, 0.85, (0.9 + 0.8 + 0.6) / 3, 0.6])
    assert (series.label, series.style, series.low, series.high) == ("score", ":", None, None)
    both = base.of_kept("score", np.concatenate([worse, -worse]), np.concatenate([values, values]), shares)
    np.testing.assert_allclose(both.mean[[0, 3]], [(0.9 + 0.1) / 2, 0.6])
    assert np.isnan(base.of_kept("score", np.full((1, 4), np.nan), values, shares).mean).all()
