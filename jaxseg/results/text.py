"""An estimate in words: the one place where numbers with intervals become text."""

import math

from jaxseg.metrics.intervals import Estimate


def estimate_text(mean: float, low: float, high: float, *, digits: int = 2) -> str:
    """An estimate with its interval: `0.42 [0.37, 0.47]`; `undefined` where there is no mean."""
    if not math.isfinite(mean):
        return "undefined"
    return f"{mean:z.{digits}f} {interval_text(low, high, digits=digits)}"


def interval_text(low: float, high: float, *, digits: int = 2) -> str:
    """`[0.37, 0.47]`."""
    low_text, high_text = (f"{v:z.{digits}f}" if math.isfinite(v) else "undefined" for v in (low, high))
    return f"[{low_text}, {high_text}]"


def text_of(estimate: Estimate, *, digits: int = 2) -> str:
    """`estimate_text` of an estimate."""
    return estimate_text(estimate.mean, estimate.low, estimate.high, digits=digits)
