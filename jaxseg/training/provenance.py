"""On what a number was computed: date, machine, versions."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

import jax

_PACKAGES = ("jaxseg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy")
_FILE = "sessions.jsonl"


def here() -> dict[str, Any]:
    """Today, this machine, and the versions of what computes."""
    device = jax.devices()[0]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{jax.device_count()} {device.platform} device ({device.device_kind}), "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of what computes."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def record(folder: pathlib.Path, step: int) -> None:
    """Notes in a run's folder that it is being trained here from `step` on."""
    with (folder / _FILE).open("a") as file:
        file.write(json.dumps({"from_step": step, **here()}) + "\n")


def sessions(folder: pathlib.Path) -> list[dict[str, Any]]:
    """What was noted in a run's folder, oldest first."""
    path = folder / _FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
