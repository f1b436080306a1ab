"""What a trained network has learned that it should not have: probes, each a question with its numbers, and findings.

A probe (`probe.Probe`) asks one thing of any network and any prepared data set; none knows the others. What it cannot
ask it says, with the reason. `findings` chooses what of the answers a person has to know. `audit` does all of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxseg.audit.public import audit as audit


def __getattr__(name: str) -> Any:
    """`audit`, imported when it is asked for: that takes seconds, and configs/audit.py needs the defaults alone."""
    if name == "audit":
        return importlib.import_module(f"{__name__}.public").audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
