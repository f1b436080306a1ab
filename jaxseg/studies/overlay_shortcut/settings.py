"""What the overlay-shortcut study needs of its config, which is checked here."""

import dataclasses

import ml_collections

from jaxseg.data import overlays
from jaxseg.errors import InputError
from jaxseg.settings import count, number, one_of
from jaxseg.studies.base import changed, layer_names, read_settings
from jaxseg.training import checks

SOURCES = ("world", "drawn", "burnt_in")
COMPARED = ("baseline", "mitigation")  # networks that figures and pages show
NETWORKS = {"baseline": "annotated", "mitigation": "cleaned", "reference": "clean"}  # network -> what it is trained on


@dataclasses.dataclass(frozen=True)
class Removal:
    """How marks are found and removed, and how the network that fills them in is trained."""

    features: tuple[int, ...]
    method: str = one_of(*overlays.REMOVALS)
    gray_share: float = number(least=0, most=1)
    margin: int = count(least=0)
    steps: int = count()
    batch_size: int = count()
    crop: int = count()
    learning_rate: float = number(above=0)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How the networks are tested; see configs/overlay_shortcut.py."""

    saliency_layer: str
    clips: int = count()
    clip_frames: int = count(least=2)  # with marks and without
    clip_seed: int = count(least=0)
    examples: int = count()
    resamples: int = count()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where marks come from, how they are removed, and how networks are trained and tested."""

    removal: Removal
    evaluation: Evaluation
    run: ml_collections.ConfigDict  # config of a training run, whatever its images
    source: str = one_of(*SOURCES)  # of the images with marks and without

    @property
    def clean_known(self) -> bool:
        """Whether it is known what is below the marks."""
        return self.source != "burnt_in"

    @property
    def networks(self) -> tuple[str, ...]:
        """Those of `NETWORKS` that can be trained."""
        return tuple(name for name, images in NETWORKS.items() if self.clean_known or images != "clean")

    def of_run(self, network: str) -> ml_collections.ConfigDict:
        """The config of one training run; its domain names the images that it is trained on."""
        return changed(self.run, {"data.domains": (NETWORKS[network],), "data.residence": "device"})


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    made = read_settings(Settings, config, "overlays", changes_levels=True)
    checks.check(made.run)  # networks differ in their images alone
    removal, data = made.removal, made.run.data
    if data.view != "original" or data.folds or made.run.replicas > 1 or data.residence == "stream":
        raise InputError(
            "the study trains on whole images in memory; leave config.data.view, folds, residence and config.replicas "
            "at their defaults"
        )
    if made.source == "world" and data.domains:
        raise InputError("config.data.domains must be empty: a world has the domains annotated and clean")
    if not removal.features or min(removal.features) < 1:
        raise InputError(f"config.removal.features is {removal.features!r}; give a number of features for every level")
    unit = 2 ** (len(removal.features) - 1)
    if removal.crop > data.source_size or removal.crop % unit:
        raise InputError(
            f"config.removal.crop is {removal.crop}; it must be at most config.data.source_size ({data.source_size}) "
            f"and divisible by {unit}, as the features halve it"
        )
    known, layer = layer_names(made.run), made.evaluation.saliency_layer
    if layer not in known:
        shown = ", ".join(name for name in known if name.count("/") == 1)
        raise InputError(f"config.evaluation.saliency_layer is {layer!r}; the network has {shown}")
    return made
