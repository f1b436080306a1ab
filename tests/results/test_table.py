"""Rows are found by their keys, and give the records that files have."""

import math

import pytest

from jaxseg.metrics.intervals import Estimate
from jaxseg.results.table import NONE, Row, exact, records, table

DICE = table(
    Row(
        {"network": network, "view": view},
        Estimate(mean, mean - 0.1, mean + 0.1, 12, 1, 6),
        "mean",
        more={"paper": 0.8},
    )
    for network, view, mean in (("a", "whole", 0.5), ("a", "quadrant", 0.25), ("b", "whole", -0.001))
    for estimate in [Estimate(mean, mean - 0.1, mean + 0.1, 12, 1, 6)]
)


def test_a_row_is_found_by_its_keys():
    assert DICE.one(network="a", view="quadrant").estimate.mean == 0.25
    assert [row["view"] for row in DICE.where(network="a")] == ["whole", "quadrant"]
    assert DICE.values("network") == ("a", "b") and len(DICE.where(paper=0.8)) == 3
    for keys in ({"network": "a"}, {"network": "c"}):
        with pytest.raises(LookupError, match="of 3 rows have"):
            DICE.one(**keys)
    with pytest.raises(KeyError):
        DICE.where(encoder="resnet18")


def test_a_difference_the_other_way_round():
    assert DICE[1].negative().numbers == pytest.approx((-0.25, -0.35, -0.15))
    assert DICE[1].negative().record() == DICE[1].record() | {"mean": -0.25, "low": -0.35, "high": -0.15}
    assert [list(column) for column in DICE.numbers] == [
        list(column) for column in zip(*(row.numbers for row in DICE), strict=True)
    ]


def test_a_record_has_everything():
    assert records(DICE)[1] == {
        "network": "a", "view": "quadrant", "mean": 0.25, "low": 0.15, "high": 0.35, "n": 12, "undefined": 1,
        "patients": 6, "paper": 0.8, "interval": "bootstrap over patients, 95 %", "convention": "mean",
    }  # fmt: skip
    assert records([{"case": 1}]) == [{"case": 1}]


@pytest.mark.parametrize(
    ("row", "digits", "text"),
    [
        (DICE[0], 2, "0.50 [0.40, 0.60]"),
        (DICE[2], 2, "0.00 [-0.10, 0.10]"),  # never -0.00
        (DICE[0], 1, "0.5 [0.4, 0.6]"),
        (Row({}, exact(0.25, 3), "r2", NONE), 2, "0.25"),
        (Row({}, exact(math.nan, 0), "r2", NONE), 2, "undefined"),
        (Row({}, Estimate(0.5, math.nan, math.nan, 1, 0, 1), "mean"), 2, "0.50 [undefined, undefined]"),
    ],
)
def test_a_number_has_one_text(row, digits, text):
    assert row.text(digits=digits) == text
