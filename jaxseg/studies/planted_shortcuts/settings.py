"""What the planted-shortcuts study needs of its config, which is checked here."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import ml_collections

from jaxseg.audit import run as audits
from jaxseg.audit.probe import BORDER, OVERLAY, SCANNER
from jaxseg.errors import InputError
from jaxseg.settings import count, number, one_of, read, share, some_of
from jaxseg.studies.base import changed, read_settings
from jaxseg.training import checks

# of a cue -> that of the finding it should lead to
KINDS = {"border": BORDER, "calipers": OVERLAY, "gray_calipers": OVERLAY, "text": OVERLAY, "scanner": SCANNER}
PLANTED, TWIN = ARMS = ("planted", "twin")
_SHOWN_IN = "configs/planted_shortcuts.py"


class Network(NamedTuple):
    """Which network: the kind of cue, planted, twin or a null's name, and the seed of images, network and order."""

    kind: str
    arm: str
    seed: int


@dataclasses.dataclass(frozen=True)
class World:
    """How many images of each split are rendered, how difficult scans are, and how long a network is trained."""

    train: int = count()
    validation: int = count()
    test: int = count()
    epochs: int = count()
    difficulty: float = number(least=0, most=1)  # of `synthetic.ultrasound`


@dataclasses.dataclass(frozen=True)
class Null:
    """A network of another make that cannot have a shortcut, and the world it is trained on."""

    kind: str = one_of(*KINDS)
    images: str = one_of(*ARMS)
    model: ml_collections.ConfigDict = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks are trained, and how they are audited."""

    world: World
    run: ml_collections.ConfigDict  # config of a training run, but for its seed and epochs
    audit: audits.Settings
    nulls: Mapping[str, Null]
    seeds: tuple[int, ...]  # of the pairs of worlds
    null_seeds: tuple[int, ...]  # of the networks of other makes
    learned: float = share()  # Dice on its own test images above which a network has learned
    kinds: tuple[str, ...] = some_of(*KINDS)

    @property
    def networks(self) -> tuple[Network, ...]:
        """All of them; of a seed, every planted one before its twin, as kinds share scenes."""
        pairs = [Network(kind, arm, seed) for seed in self.seeds for kind in self.kinds for arm in ARMS]
        nulls = {name: one for name, one in self.nulls.items() if one.kind in self.kinds}
        return (*pairs, *(Network(one.kind, name, seed) for seed in self.null_seeds for name, one in nulls.items()))

    @property
    def arms(self) -> tuple[tuple[str, str], ...]:
        """Kind and arm of all networks, each once, in the order in which they are told."""
        return tuple(dict.fromkeys((kind, one.arm) for kind in self.kinds for one in self.networks if one.kind == kind))

    def images(self, network: Network) -> str:
        """The arm on whose images it is trained."""
        return self.nulls[network.arm].images if network.arm in self.nulls else network.arm

    def of_run(self, network: Network) -> ml_collections.ConfigDict:
        """The config of one training run."""
        run = changed(self.run, {"seed": network.seed, "training.epochs": self.world.epochs})
        if network.arm not in self.nulls:
            return run
        made = run.unlock()
        common = {name: run.model[name] for name in ("padding", "remat", "dtype", "pretrained")}
        made.model = ml_collections.ConfigDict(common | self.nulls[network.arm].model.to_dict())
        return made.lock()


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    given = config.get("nulls")
    if not isinstance(given, ml_collections.ConfigDict):
        raise InputError(f"config.nulls is {given!r}; it must be a section, as in {_SHOWN_IN}")
    nulls = {name: read(Null, config, f"nulls.{name}", shown_in=_SHOWN_IN) for name in given}
    made = read_settings(Settings, config, changes_levels=True, nulls=nulls, audit=audits.settings(config.get("audit")))
    data = made.run.data
    for name in ("seeds", "null_seeds"):
        seeds = getattr(made, name)
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise InputError(f"config.{name} is {seeds!r}; give numbers of at least 0, each once")
    if data.source_size != data.image_size:
        raise InputError(
            f"config.data.source_size is {data.source_size}, image_size {data.image_size}; images are rendered at the "
            "size that the network sees, so give the same"
        )
    for network in {one.arm: one for one in made.networks}.values():
        checks.check(made.of_run(network))
    return made
