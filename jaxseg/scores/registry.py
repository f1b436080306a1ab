"""All quality scores by their keys: every file of this folder that has one."""

import importlib
import pkgutil
from collections.abc import Collection

from jaxseg import scores
from jaxseg.scores.base import LAYERS, Score


def all_scores() -> dict[str, Score]:
    """Those that need least first, of these those of good segmentation before those of bad, else by key."""
    modules = [importlib.import_module(f"{scores.__name__}.{m.name}") for m in pkgutil.iter_modules(scores.__path__)]
    found = [module.SCORE for module in modules if hasattr(module, "SCORE")]
    return {
        score.key: score
        for score in sorted(found, key=lambda score: (len(score.needs - {LAYERS}), not score.high_is_good, score.key))
    }


SCORES = all_scores()


def explained(names: Collection[str]) -> str:
    """What scores are that a table or a figure has by these names."""
    return "; ".join(f"{score.name}: {score.meaning}" for score in SCORES.values() if score.name in names)


def computable(given: Collection[str], *, without: Collection[str] = ()) -> tuple[Score, ...]:
    """The scores that can be computed of a forward pass.

    Args:
      given: what there is beside the network and its layers, such as an autoencoder.
      without: what of all that there is not.
    """
    there = {LAYERS, *given} - set(without)
    return tuple(score for score in SCORES.values() if score.compute and score.needs <= there)
