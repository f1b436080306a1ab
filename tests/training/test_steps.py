"""One update: the optimiser's formula, random keys, learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import models
from jaxseg.data import augment
from jaxseg.metrics import overlap
from jaxseg.training import losses, objectives, state, steps


@pytest.fixture(autouse=True)
def optax_mixes_types():
    """Adam's bias correction raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def setting(shallow):
    random = np.random.default_rng(0)
    labels = np.zeros((4, 16, 16), np.uint8)
    for i in range(4):
        labels[i, 2 + i : 9 + i, 3 : 12 - i] = 1
    image = (labels[..., None] * 90 + random.integers(0, 100, (4, 16, 16, 3))).astype(np.uint8)
    return shallow(2), {"image": image, "labels": labels, "index": np.arange(4, dtype=np.int32)}


def fresh(model, optimizer):
    return jax.jit(lambda key: state.create(key, model, optimizer, (1, 16, 16, 3)))(jax.random.key(0))


def test_with_sgd_a_step_is_minus_rate_times_gradient(setting):
    model, batch = setting
    optimizer = optax.sgd(0.1)
    view = augment.training_view("original", size=16)
    before = fresh(model, optimizer)
    after, metrics = jax.jit(steps.make_train_step(objectives.supervised(model, losses.dice_loss), optimizer, view))(
        before, batch
    )
    seen = jax.jit(view)(jax.random.key(0), batch)

    def loss(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, _ = model.apply(variables, seen["images"], train=True, mutable=["batch_stats"])
        return losses.dice_loss(logits, seen["labels"])

    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(before.params))
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    expected = jax.tree.map(lambda p, g: p - np.float32(0.1) * g, jax.device_get(before.params), gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.params, expected)
    assert int(after.step) == 1


def test_it_learns_a_batch_and_the_evaluation_agrees(setting):
    model, batch = models.build("unet", 2, features=(4, 6)), setting[1]
    optimizer = optax.adam(1e-2)
    view = augment.training_view("original", size=16)
    step = jax.jit(steps.make_train_step(objectives.supervised(model, losses.dice_loss), optimizer, view))
    evaluate = jax.jit(steps.make_counts_step(model, augment.testing_view("original", size=16, cases="abcd"), 2))
    run = fresh(model, optimizer)
    first = None
    for _ in range(60):
        run, metrics = step(run, batch)
        first = first or float(metrics["loss"])
    assert float(metrics["loss"]) < 0.3 * first
    counts = evaluate(run.variables, batch)
    assert counts.shape == (4, 2, 3)
    assert np.mean(overlap.dice_from_counts(counts)) > 0.9


def test_the_same_step_sees_the_same_quadrants_and_the_next_step_others(setting):
    model, batch = setting
    optimizer = optax.adam(1e-3)
    step = jax.jit(
        steps.make_train_step(
            objectives.supervised(model, losses.dice_loss), optimizer, augment.training_view("quadrant", size=16)
        )
    )
    start = fresh(model, optimizer)
    losses_seen = [float(step(start.replace(step=np.int32(i)), batch)[1]["loss"]) for i in (0, 0, 1, 2)]
    assert losses_seen[0] == losses_seen[1]
    assert len(set(losses_seen)) == 3


def not_a_number(key, variables, batch):
    """An objective that is not finite where the first pixel is object."""
    loss = jnp.sum(jnp.square(variables["params"]["head"]["conv"]["kernel"]))
    return loss * jnp.where(batch["labels"][0, 0, 0] == 1, jnp.nan, 1.0), variables["batch_stats"]


def test_a_step_that_is_not_finite_is_told_and_can_be_left_out(setting):
    model, batch = setting
    optimizer = optax.adam(1e-1)
    view = augment.training_view("original", size=16)
    start = fresh(model, optimizer)
    bad = {**batch, "labels": np.ones_like(batch["labels"])}
    names = steps.tensor_names(start.params)
    for choice in ("stop", "skip"):
        step = jax.jit(steps.make_train_step(not_a_number, optimizer, view, on_nonfinite=choice))
        good, metrics = step(start, batch)
        assert metrics["finite"].all() and len(names) == len(metrics["finite"])
        after, metrics = step(good, bad)
        assert [name for name, finite in zip(names, metrics["finite"], strict=True) if not finite] == [
            "the loss",
            "the gradient of head/conv/kernel",
        ]
        head = lambda run: np.asarray(run.params["head"]["conv"]["kernel"])
        assert int(after.step) == 2
        if choice == "skip":
            moments = lambda run: jax.tree.leaves(run.opt_state)
            np.testing.assert_array_equal(head(after), head(good))
            jax.tree.map(np.testing.assert_array_equal, moments(after), moments(good))
            assert not np.array_equal(head(good), head(start))
        else:
            assert np.isnan(head(after)).all()


def test_parts_of_a_batch_add_up_to_its_gradient(shallow, setting):
    model, batch = shallow(2, norm="group"), setting[1]  # no statistics of the batch
    optimizer, view = optax.sgd(1.0), augment.training_view("quadrant", size=8)
    before = jax.jit(lambda key: state.create(key, model, optimizer, (1, 8, 8, 3)))(jax.random.key(0))
    objective = objectives.supervised(model, losses.dice_loss)
    found = {}
    for parts in (1, 2):
        after, metrics = jax.jit(steps.make_train_step(objective, optimizer, view, accumulate=parts))(before, batch)
        found[parts] = jax.tree.map(np.subtract, *jax.device_get((after.params, before.params))), metrics["loss"]
    np.testing.assert_allclose(found[1][1], found[2][1], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found[1][0], found[2][0])
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found[1][0])) > 1e-2


def test_parts_take_turns_and_hand_on_their_statistics():
    """Of six cases in three parts: the loss is a mean, the statistics go from one to the next, draws differ."""
    batch = {"index": np.arange(6, dtype=np.int32)}
    view = lambda key, stored: {"index": stored["index"].astype(jnp.float32)}

    def objective(key, variables, seen):
        assert seen["index"].shape == (2,)
        mean = jnp.mean(seen["index"])
        drawn = variables["batch_stats"]["drawn"] + jax.random.uniform(key) * mean
        return mean * variables["params"]["w"], {"last": 10 * variables["batch_stats"]["last"] + mean, "drawn": drawn}

    stats = {"last": jnp.float32(0), "drawn": jnp.float32(0)}
    start = state.TrainState(jnp.int32(4), {"w": jnp.float32(3)}, stats, (), jax.random.key(1))
    optimizer = optax.GradientTransformation(lambda _: (), lambda grads, *_: (grads, ()))

    @jax.jit
    def run(start):
        key = jax.random.fold_in(jax.random.fold_in(start.key, 4), 1)
        draws = jnp.stack([jax.random.uniform(jax.random.fold_in(key, i)) for i in range(3)])
        return steps.make_train_step(objective, optimizer, view, accumulate=3)(start, batch), draws

    (after, metrics), draws = run(start)
    means = np.array([1.5, 2.5, 3.5])  # of cases 0 and 3, 1 and 4, 2 and 5
    assert metrics["loss"] == pytest.approx(3 * 2.5) and metrics["grad_norm"] == pytest.approx(2.5)
    assert after.params["w"] == pytest.approx(3 + 2.5) and int(after.step) == 5
    assert after.batch_stats["last"] == pytest.approx(150 + 25 + 3.5)
    assert after.batch_stats["drawn"] == pytest.approx(float(np.sum(draws * means)), rel=1e-5)


def test_a_fresh_state_is_for_any_batch_and_keeps_its_keys_apart(shallow):
    """Its weights are drawn once, with the shapes of one case."""
    asked = []

    class Module:
        def init(self, key, images):
            asked.append(images.shape)
            return {"params": {"w": jax.random.bits(key, dtype=jnp.uint32)}}

    create = lambda key: state.create(key, Module(), optax.identity(), (7, 5, 6, 3))
    one, other = (jax.jit(create)(jax.random.key(seed)) for seed in (0, 1))
    assert asked == [(1, 5, 6, 3)] and int(one.step) == 0 and one.batch_stats == {} == one.frozen
    assert int(one.params["w"]) != int(other.params["w"])
    run_key = jax.random.split(jax.random.key(0))[1]
    np.testing.assert_array_equal(jax.random.key_data(one.key), jax.random.key_data(run_key))
