"""What an audit asks, how often, and from where on an answer is a finding; for `launch.audit`.

    python -m launch.audit --run=runs/unet --workdir=runs/audit
    python -m launch.audit --run=runs/unet --workdir=runs/audit --audit.cases=100

Every number stands, with what it means, in jaxseg/audit/defaults.py, from where `jaxseg.audit.audit` has them too; one
that differs may be given here, as in `defaults.config(cases=100)`.
"""

import ml_collections

from jaxseg.audit import defaults


def get_config() -> ml_collections.ConfigDict:
    """Every number of an audit."""
    return defaults.config().lock()
