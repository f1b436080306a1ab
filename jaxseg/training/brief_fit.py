"""An autoencoder of a network's bottleneck, fitted in a few steps (Lennartz and Schultz 2023, Eqs. 1 to 3)."""

from typing import Any

import jax
import numpy as np
import optax

from jaxseg.data import augment, pipeline
from jaxseg.models import autoencoder
from jaxseg.networks import Network, host
from jaxseg.training import objectives, state, steps


def fit_autoencoder(
    network: Network,
    cases: pipeline.InMemory | pipeline.Streamed,
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
      network: whose roles name its bottleneck.
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
    layer = network.roles.bottleneck
    if layer is None:
        raise ValueError("the network has no bottleneck whose activations could be reconstructed")
    sides = cases.sides if size is None else (size, size)
    image: Any = jax.ShapeDtypeStruct((1, *sides, cases.num_channels), np.float32)
    own: Any = jax.eval_shape(lambda network, images: network.activations(images, (layer,))[layer], network, image)
    made = autoencoder.for_activations(own, latent=latent, width=width)
    optimizer = optax.adam(1e-3)
    # created by one program, so that the state of the first step is placed as that of the second: one compilation
    create = jax.jit(lambda key, frozen: state.create(key, made, optimizer, (1, *made.shape)).replace(frozen=frozen))
    fresh = create(jax.random.key(seed), network)
    seen = augment.training_view(view, size=size)
    step = steps.make_train_step(objectives.reconstruction(made, layer), optimizer, seen)
    # one call a step: in a loop on the device, convolutions would run on one thread of a CPU
    run = jax.jit(step, compiler_options=network.compiler_options or None)
    order = pipeline.order(len(cases), batch_size=min(batch_size, len(cases)), seed=seed)
    metrics: Any = {}
    for _ in range(steps_taken):
        batch = pipeline.stack(cases, next(order))
        # Adam's bias correction raises a float to an integer power
        with jax.numpy_dtype_promotion("standard"), host.plainly():
            fresh, metrics = run(fresh, batch)
    if not np.isfinite(float(metrics["loss"])):
        raise FloatingPointError("the autoencoder's loss is not finite; take fewer steps")
    return made, {"params": fresh.params}
