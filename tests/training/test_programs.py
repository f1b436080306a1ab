"""Which cases a program sees, member by member and host by host; its steps note what they were given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data import pipeline
from jaxseg.training.programs import Cases, Member, Program
from jaxseg.training.state import TrainState

COUNT, BATCH = 11, 2


@pytest.fixture(scope="module")
def source():
    images = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 2, 2, 1)).copy()
    names = tuple(map(str, range(COUNT)))
    return pipeline.InMemory("drawn", ("a", "b"), images, 2 * images[..., 0], names, names, *pipeline.nowhere(COUNT))


def of(source, *index):
    return Cases(source, np.array(index, np.int32))


def state(value):
    weights = {"w": jnp.float32(value)}
    return TrainState(step=jnp.int32(0), params=weights, batch_stats={}, opt_state=(), key=jax.random.key(0))


def train_step(state, batch):
    gray = jnp.sum(batch["image"][:, 0, 0, 0].astype(jnp.float32) + batch["labels"][:, 1, 1].astype(jnp.float32))
    new = state.replace(step=state.step + 1, params={"w": state.params["w"] * 2 + gray})
    return new, {"loss": gray, "finite": jnp.stack([state.params["w"], gray])}


def eval_step(variables, batch):
    index = batch["index"].astype(jnp.float32)
    return jnp.stack([index, jnp.broadcast_to(variables["params"]["w"], index.shape)], -1)


@pytest.mark.parametrize(("layout", "replicas"), [("jit", 1), ("jit", 2), ("pmap", 1)])
def test_every_member_sees_its_own_cases_in_its_own_order(source, layout, replicas):
    members = [
        Member(of(source, 1, 3, 5, 7, 9), of(source, 10, 8, 6), seed=1),
        Member(of(source, 0, 2, 4, 6, 8), of(source, 5), seed=2),
    ][:replicas]
    program = Program(members, train_step, eval_step, batch_size=BATCH, layout=layout)
    items = program.items(1)
    given = [next(items) for _ in range(3)]
    begun = [state(10.0 * (i + 1)) for i in range(replicas)]
    joined, metrics = program.run(program.join(begun), given)
    metrics = program.fetch(metrics)
    after = program.split(joined)
    scores = program.evaluate(joined)
    for i, member in enumerate(members):
        order = pipeline.order(5, batch_size=BATCH, seed=member.seed, start_step=1)
        weight = 10.0 * (i + 1)
        for step in range(3):
            chosen = member.train.index[next(order)]
            np.testing.assert_array_equal(given[step][i] if replicas > 1 else given[step], chosen)
            gray = 3.0 * chosen.sum()
            assert metrics["loss"].shape == (3, replicas) and metrics["finite"].shape == (3, replicas, 2)
            assert metrics["loss"][step, i] == gray
            np.testing.assert_array_equal(metrics["finite"][step, i], [weight, gray])
            weight = 2 * weight + gray
        assert float(after[i].params["w"]) == weight and int(after[i].step) == 3
        np.testing.assert_array_equal(scores[i][:, 0], member.validation.index)  # each once, in order
        np.testing.assert_array_equal(scores[i][:, 1], weight)


def test_hosts_share_every_batch(source, monkeypatch):
    members = [Member(of(source, 1, 3, 5, 7, 9), of(source, 10, 8, 6), seed=i) for i in range(2)]
    program = Program(members, train_step, eval_step, batch_size=BATCH)
    whole, validation = next(program.items(0)), list(program._validation_items())
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts, of_validation = [], []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(next(program.items(0)))
        of_validation.append(list(program._validation_items()))
    assert whole.shape == (2, BATCH)
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
    for batch, *own in zip(validation, *of_validation, strict=True):
        np.testing.assert_array_equal(np.concatenate(own, 1), batch)
