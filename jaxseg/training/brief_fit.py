"""An autoencoder of a network's bottleneck, fitted in a few steps (Lennartz and Schultz 2023, Eqs. 1 to 3)."""

from typing import Any

import jax
import numpy as np
import optax

from jaxseg.data import augment, pipeline
from jaxseg.models import autoencoder
from jaxseg.models.skeleton import UNetSkeleton, compiler_options
from jaxseg.networks import host
from jaxseg.networks.base import Network
from jaxseg.networks.linen import LinenNetwork, network_of
from jaxseg.training import objectives, state, steps


def fit_autoencoder(
    model: UNetSkeleton | None,
    variables: dict[str, Any] | Network,
    cases: pipeline.InMemory,
    *,
    view: str,
    size: int | None,
    batch_size: int,
    steps_taken: int,
    latent: int,
    width: int,
    seed: int = 0,
) -> tuple[autoencoder.Autoencoder, dict[str, Any]]:
    """A fixed number of steps with Adam at 1e-3; nothing is selected.

    Args:
      model: the network, whose roles name its bottleneck; None where there is a network in place of its variables.
      variables: of it, or a network of any make.
      cases: that it was trained on.
      view: what it sees of a case.
      size: to how many pixels a side cases are resized for it; None: they come as it sees them.
      batch_size: cases in a step, at most.
      steps_taken: how many.
      latent: dimension to which the activations are reduced.
      width: of the autoencoder's first block.
      seed: of its first weights and of the order of the cases.

    Returns:
      The autoencoder and its variables.

    Raises:
      ValueError: the network has no bottleneck.
      FloatingPointError: the last loss is not finite.
    """
    asked: Any = variables if isinstance(variables, Network) else model
    layer = asked.roles.bottleneck
    if layer is None:
        raise ValueError(f"{type(asked).__name__} has no bottleneck whose activations could be reconstructed")
    read = lambda variables, images: network_of(model, variables, images).activations(images, (layer,))[layer]
    sides = cases.labels.shape[1:] if size is None else (size,) * (cases.labels.ndim - 1)
    image: Any = jax.ShapeDtypeStruct((1, *sides, cases.num_channels), np.float32)
    made = autoencoder.for_activations(jax.eval_shape(read, variables, image), latent=latent, width=width)
    optimizer = optax.adam(1e-3)
    # created by one program, so that the state of the first step is placed as that of the second: one compilation
    create = jax.jit(lambda key, frozen: state.create(key, made, optimizer, (1, *made.shape)).replace(frozen=frozen))
    fresh = create(jax.random.key(seed), variables if isinstance(variables, Network) else dict(variables))
    seen = augment.training_view(view, size=size)
    step = steps.make_train_step(objectives.reconstruction(model, made, layer), optimizer, seen)
    # one call a step: in a loop on the device, convolutions would run on one thread of a CPU
    module = variables.model if isinstance(variables, LinenNetwork) else model
    run = jax.jit(step, compiler_options=compiler_options(module) if isinstance(module, UNetSkeleton) else None)
    order = pipeline.order(len(cases), batch_size=min(batch_size, len(cases)), seed=seed)
    metrics: Any = {}
    for _ in range(steps_taken):
        index = next(order)
        batch = {name: values[index] for name, values in cases.arrays.items()} | {"index": index}
        # Adam's bias correction raises a float to an integer power
        with jax.numpy_dtype_promotion("standard"), host.plainly():
            fresh, metrics = run(fresh, batch)
    if not np.isfinite(float(metrics["loss"])):
        raise FloatingPointError("the autoencoder's loss is not finite; take fewer steps")
    return made, {"params": fresh.params}
