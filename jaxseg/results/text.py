"""An estimate in words: the one place where numbers with intervals become text."""

import math

from jaxseg.metrics.intervals import Estimate


def estimate_text(mean: float, low: float, high: float, *, digits: int = 2) -> str:
    """An estimate with its interval: `0.42 [0.37, 0.47]`; `undefined` where there is no mean."""
    if not math.isfinite(mean):
        return "undefined"
    number = lambda value: f"{value:z.{digits}f}" if math.isfinite(value) else "undefined"
    return f"{number(mean)} [{number(low)}, {number(high)}]"


def text_of(estimate: Estimate, *, digits: int = 2) -> str:
    """`estimate_text` of an estimate."""
    return estimate_text(estimate.mean, estimate.low, estimate.high, digits=digits)
