"""Calibration: do the probabilities say how often the network is right? (Guo et al. 2017.)"""

import dataclasses
import math

import jax
import numpy as np

from jaxseg.audit.probe import Answer, Arrays, Candidate, Figure, Kind, Probe, number, plain
from jaxseg.audit.subject import Seen, Subject
from jaxseg.metrics import calibration
from jaxseg.networks import Network
from jaxseg.report import figures
from jaxseg.results.table import Row
from jaxseg.results.text import text_of
from jaxseg.settings import count, share

CALIBRATION = Kind("calibration")


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    bins: int = count()
    calibration_margin: float = share()
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """Per case and bin of confidence: pixels, their confidence, how many are right, `sums` `[N,bins,3]`; `brier`."""

    def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
        probabilities = subject.probabilities(network, seen["images"])
        labels, valid = seen["labels"], seen.get("valid")
        return {
            "sums": calibration.calibration_sums(probabilities, labels, bins=settings.bins, valid=valid),
            "brier": calibration.brier(probabilities, labels, valid=valid),
        }

    return subject.asks(question)(subject.test)


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """The calibration error of the whole set, and whether confidence is too high."""
    sums, patients = arrays["sums"].astype(float), subject.patients(settings.resamples)

    def error(case: np.ndarray, over: bool = False) -> float:
        pixels, confidence, right = np.moveaxis(sums[case.astype(int)].sum(0), -1, 0)
        excess = confidence - right
        return float((excess if over else abs(excess)).sum() / pixels.sum())

    cases = {"case": np.arange(len(sums))}
    ece = patients.statistic(error, cases)
    excess = patients.statistic(lambda case: error(case, True), cases)
    convention = f"over all pixels of the set, {settings.bins} bins of confidence in the most likely class"
    rows = [
        number("expected calibration error (0 is best)", ece, convention),
        number("confidence minus accuracy (above 0: too sure)", excess, convention),
        number("Brier score (0 is best)", patients.mean(arrays["brier"]), "mean over pixels and cases"),
        *_bins(sums),
    ]
    figure = _reliability(sums)
    pixels, confidence, right = sums.sum((0, 1))
    candidate = Candidate(
        kind=CALIBRATION,
        name="calibration",
        title="The probabilities do not say how often the network is right",
        sentence=(
            f"The network is {confidence / pixels:.0%} sure of its pixels and right on {right / pixels:.0%}; level "
            f"by level of confidence, the two differ by {text_of(ece)} on average (expected calibration "
            "error, 0 is best)."
        ),
        quantity="expected calibration error",
        estimate=ece,
        margin=settings.calibration_margin,
        damage=math.nan,
        remedy="Fit a temperature on validation cases before anybody reads the probabilities, or read the masks alone.",
        figure=figure,
    )
    return Answer(rows, (candidate,), [figure])


def _bins(sums: np.ndarray) -> list[Row]:
    """The points of the reliability curve."""
    bins = sums.shape[1]
    convention = "of all pixels with that confidence, whose number is n"
    where = lambda i, mean: f"confidence {i / bins:.3f} to {(i + 1) / bins:.3f}, mean {mean:.3f}"
    return [
        plain("share of right pixels", right / pixels, convention, where=where(i, confidence / pixels), n=int(pixels))
        for i, (pixels, confidence, right) in enumerate(sums.sum(0))
        if pixels
    ]


def _reliability(sums: np.ndarray) -> Figure:
    pixels, confidence, right = np.moveaxis(sums.sum(0), -1, 0)
    there = pixels > 0
    x, y = confidence[there] / pixels[there], right[there] / pixels[there]
    unknown = np.full(len(x), np.nan)
    of = lambda label, y, style: figures.Series(label, x, y, unknown, unknown, style)
    series = [of("the network", y, "-"), of("ideal", x, "--")]
    return Figure(
        "calibration",
        "Confidence and how often it is right",
        "Line of the share of right pixels against confidence, with the diagonal.",
        "Below the ideal line the network is surer than it is right. All pixels of the test cases in bins of the "
        "probability of their most likely class; after Guo et al. 2017.",
        lambda path: figures.curves(path, {"": series}, xlabel="confidence of the network", ylabel="share right"),
    )


PROBE = Probe("calibration", "Do the probabilities say how often it is right?", "trust", Settings, measure, tabulate)
