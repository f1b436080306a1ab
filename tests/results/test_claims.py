"""What a claim and a verdict leave in a report's file."""

from jaxseg.metrics.intervals import Estimate
from jaxseg.results.claims import FAILS, HOLDS, Claim, Verdict
from jaxseg.results.table import Row


def test_a_claim_has_the_number_that_decides_without_what_it_is_of_there():
    row = Row({"network": "a"}, Estimate(0.5, 0.25, 0.75, 4, 1, 3), "mean", more={"paper": 0.6})
    claim = Claim({"encoder": "b"}, "it helps", HOLDS, "by 0.5", "0.6", row)
    said = {"encoder": "b", "claim": "it helps", "answer": "holds", "sentence": "by 0.5", "paper": "0.6"}
    estimate = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4, "undefined": 1, "patients": 3}
    how = {"interval": "bootstrap over patients, 95 %", "convention": "mean"}
    assert claim.record() == said | estimate | how
    assert Claim({}, "it helps", FAILS, "by 0", "0.6").record() == {
        "claim": "it helps", "answer": "does not hold", "sentence": "by 0", "paper": "0.6",
    }  # fmt: skip


def test_a_verdict_says_what_it_is_of():
    assert Verdict("yes", "it does").record() == {"verdict": "yes", "sentence": "it does"}
    assert Verdict("no", "it does not", {"unit": 3}).record() == {
        "unit": 3, "verdict": "no", "sentence": "it does not",
    }  # fmt: skip
