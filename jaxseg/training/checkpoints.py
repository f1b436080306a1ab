"""The latest and the best checkpoint of a run, with orbax."""

import logging
import math
import pathlib
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxseg.errors import InputError

_METRIC = "dice"


class Checkpoints:
    """Keeps the newest step and the one with the best validation Dice under `folder`; saves in the background.

    Use as a context manager: leaving it waits for the writes.
    """

    def __init__(self, folder: pathlib.Path):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save at warning level
        # max_to_keep together with best_fn would delete the newest step when it scores badly
        keep = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(n=1),
                preservation_policy.BestN(n=1, get_metric_fn=lambda metrics: metrics[_METRIC]),
            ]
        )
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file where checkpoints belong; remove it")
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=lambda metrics: metrics[_METRIC], best_mode="max", preservation_policy=keep
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: Any, *, step: int, dice: float) -> None:
        """Saves `state` after `step` updates; an undefined (NaN) `dice` never counts as best."""
        metrics = {_METRIC: -1.0 if math.isnan(dice) else dice}
        self._manager.save(step, metrics=metrics, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)))

    def restore_latest(self, like: Any) -> Any:
        """The newest state, with the structure, shapes and types of `like`."""
        return self._restore(self.latest_step, like)

    def restore_best(self, like: Any) -> tuple[int, float, Any]:
        """Step, validation Dice (NaN if undefined) and those fields of the best state that the mapping `like` names."""
        step = self._manager.best_step()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint; train the run first")
        metrics = self._manager.metrics(step)
        assert metrics is not None  # every save passes them
        dice = float(metrics[_METRIC])
        return step, math.nan if dice < 0 else dice, self._restore(step, like, partial=True)

    def _restore(self, step: int | None, like: Any, *, partial: bool = False) -> Any:
        abstract = _abstract(like)
        placed = ocp.checkpoint_utils.construct_restore_args(abstract)  # else orbax asks the file, and warns
        args = ocp.args.PyTreeRestore(abstract, restore_args=placed, partial_restore=partial)
        try:
            return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        except Exception as error:  # tensorstore and orbax raise nearly anything for a damaged file
            raise InputError(
                f"{self._folder / str(step)}: cannot be read ({type(error).__name__}); remove that folder to go on "
                "from an older checkpoint, or the run's folder to start anew"
            ) from error


def has_steps(folder: pathlib.Path) -> bool:
    """Whether `folder` holds a checkpoint, without opening it."""
    return folder.is_dir() and any(child.name.isdigit() for child in folder.iterdir())


def _abstract(tree: Any) -> Any:
    replicated = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec())
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated), tree)
