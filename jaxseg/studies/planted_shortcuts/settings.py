"""What the planted-shortcuts study needs of its config, which is checked here."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import ml_collections

from jaxseg.audit import run as audits
from jaxseg.errors import InputError
from jaxseg.settings import count, number, read, share, some_of
from jaxseg.studies.base import changed, read_settings
from jaxseg.training import checks

KINDS = ("border", "overlay")
PLANTED, TWIN = ARMS = ("planted", "twin")
_SHOWN_IN = "configs/planted_shortcuts.py"


class Network(NamedTuple):
    """Which network: the kind of shortcut, planted or twin, and the seed of images, network and order of cases."""

    kind: str
    arm: str
    seed: int


@dataclasses.dataclass(frozen=True)
class World:
    """How many images of each split are rendered, and how long a network is trained on them."""

    train: int = count()
    validation: int = count()
    test: int = count()
    epochs: int = count()


@dataclasses.dataclass(frozen=True)
class Worlds:
    """The world of every kind, and how difficult the scans are (`synthetic.ultrasound`)."""

    of: Mapping[str, World]
    difficulty: float = number(least=0, most=1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks are trained, and how they are audited."""

    worlds: Worlds  # that are rendered
    run: ml_collections.ConfigDict  # config of a training run, but for its seed and epochs
    audit: audits.Settings
    seeds: tuple[int, ...]  # of the pairs of worlds
    learned: float = share()  # Dice on its own test images above which a network has learned
    kinds: tuple[str, ...] = some_of(*KINDS)

    @property
    def networks(self) -> tuple[Network, ...]:
        """All of them, every planted one before its twin."""
        return tuple(Network(kind, arm, seed) for kind in self.kinds for seed in self.seeds for arm in ARMS)

    def of_run(self, network: Network) -> ml_collections.ConfigDict:
        """The config of one training run."""
        return changed(self.run, {"seed": network.seed, "training.epochs": self.worlds.of[network.kind].epochs})


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    of_kinds = {kind: read(World, config, f"worlds.{kind}", shown_in=_SHOWN_IN) for kind in KINDS}
    worlds = read(Worlds, config, "worlds", shown_in=_SHOWN_IN, of=of_kinds)
    made = read_settings(
        Settings, config, changes_levels=True, worlds=worlds, audit=audits.settings(config.get("audit"))
    )
    data = made.run.data
    if not made.seeds or len(set(made.seeds)) < len(made.seeds) or min(made.seeds) < 0:
        raise InputError(f"config.seeds is {made.seeds!r}; give numbers of at least 0, each once")
    if data.source_size != data.image_size:
        raise InputError(
            f"config.data.source_size is {data.source_size}, image_size {data.image_size}; images are rendered at the "
            "size that the network sees, so give the same"
        )
    for kind in made.kinds:
        checks.check(made.of_run(Network(kind, PLANTED, made.seeds[0])))
    return made
