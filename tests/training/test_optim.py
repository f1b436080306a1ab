"""Optimisers against their formulas, schedules against closed forms."""

import jax
import numpy as np
import optax
import pytest

from jaxseg.errors import InputError
from jaxseg.training import optim

RUN = {"steps_per_epoch": 5, "total_steps": 250}


@pytest.fixture(autouse=True)
def optax_mixes_types():
    """Adam's bias correction raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def make(**options):
    return optim.make(**{"optimizer": "adam", "learning_rate": 0.1, "schedule": "constant", **RUN, **options})


def rates(name, **options):
    schedule = jax.jit(optim.make_schedule(name, 0.8, **RUN, schedule_options=options))
    return lambda step: float(schedule(step))


def test_the_step_schedule_halves_at_epochs_20_and_40_and_nowhere_else():
    schedule = optim.make_schedule("step", 0.8, **RUN)
    found = np.asarray(jax.jit(jax.vmap(schedule))(np.arange(250, dtype=np.int32)))
    expected = np.float32(0.8) * np.repeat([1, 0.5, 0.25], [100, 100, 50]).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert rates("step", every_epochs=2, factor=0.1)(10) == pytest.approx(0.08)


def test_the_cosine_goes_from_the_rate_over_its_half_to_its_end():
    rate = rates("cosine")
    assert [rate(0), rate(125), rate(250)] == pytest.approx([0.8, 0.4, 0.0], abs=1e-7)
    assert rate(300) == pytest.approx(0, abs=1e-7)
    rate = rates("cosine", warmup_epochs=10, final_fraction=0.25)
    assert [rate(0), rate(24), rate(49)] == pytest.approx([0.016, 0.4, 0.8])  # 50 steps of warm-up
    assert [rate(50), rate(150), rate(250)] == pytest.approx([0.8, 0.5, 0.2])


def test_the_constant_rate_is_constant_after_its_warmup():
    assert rates("constant")(0) == rates("constant")(249) == np.float32(0.8)
    rate = rates("constant", warmup_epochs=2)
    assert [rate(0), rate(9), rate(10), rate(249)] == pytest.approx([0.08, 0.8, 0.8, 0.8])


def test_adams_first_step_is_the_rate_against_the_sign_of_the_gradient():
    params, grads = {"kernel": np.ones(3, np.float32)}, {"kernel": np.float32([2, -0.01, 30])}
    optimizer = make(schedule="step", schedule_options={"every_epochs": 0.2})  # halves every step
    state, update = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    for expected in (0.1, 0.05, 0.025):  # with equal gradients every step is that of the first
        updates, state = update(grads, state, params)
        np.testing.assert_allclose(updates["kernel"], expected * np.array([-1, 1, -1]), rtol=1e-4)


def test_weight_decay_shrinks_kernels_alone():
    ones = lambda *shape: np.ones(shape, np.float32)
    params = {"conv": {"kernel": 3 * ones(2, 2), "bias": ones(2)}, "norm": {"scale": ones(4, 4, 2)}}
    optimizer = make(optimizer="adamw", optimizer_options={"weight_decay": 0.5})
    zeros = jax.tree.map(np.zeros_like, params)
    updates = jax.jit(lambda p: optimizer.update(zeros, optimizer.init(p), p)[0])(params)
    np.testing.assert_allclose(updates["conv"]["kernel"], -0.1 * 0.5 * 3, rtol=1e-6)
    assert not np.any(updates["conv"]["bias"]) and not np.any(updates["norm"]["scale"])


def test_sgd_with_momentum_and_clipping():
    params, grads = {"kernel": np.zeros(2, np.float32)}, {"kernel": np.float32([3, 4])}

    def twice(grads, **options):
        """The first and the second update with equal gradients."""
        optimizer = make(optimizer="sgd", **options)

        @jax.jit
        def run(grads):
            first, state = optimizer.update(grads, optimizer.init(params), params)
            return first["kernel"], optimizer.update(grads, state, params)[0]["kernel"]

        return np.asarray(run(grads))

    clipped = {"optimizer_options": {"momentum": 0.5}, "clip_norm": 1.0}
    first, second = twice(grads, **clipped)
    np.testing.assert_allclose(first, [-0.06, -0.08], rtol=1e-6)
    np.testing.assert_allclose(second, 1.5 * first, rtol=1e-6)
    np.testing.assert_allclose(twice({"kernel": np.float32([0.3, 0.4])}, **clipped)[0], [-0.03, -0.04], rtol=1e-6)
    nesterov = twice(grads, optimizer_options={"momentum": 0.5, "nesterov": True})
    np.testing.assert_allclose(nesterov[0], [-0.45, -0.6], rtol=1e-6)


@pytest.mark.parametrize("name", list(optim.OPTIMIZERS))
def test_many_runs_at_once_and_a_restored_state_do_as_one_run(name):
    optimizer = make(optimizer=name, schedule="cosine", clip_norm=1.0)

    def run(params, steps, state=None):
        state = optimizer.init(params) if state is None else state

        def body(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.tree.map(lambda p: p - 1.0, params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), None, steps)[0]

    starts = {"kernel": np.float32([[4, 2], [1, -3]])}
    together, _ = jax.jit(jax.vmap(lambda p: run(p, 6)))(starts)
    one = jax.jit(lambda p: run(p, 6)[0])
    for i in range(2):
        np.testing.assert_allclose(together["kernel"][i], one({"kernel": starts["kernel"][i]})["kernel"], rtol=1e-6)
    half, state = jax.jit(lambda p: run(p, 3))({"kernel": starts["kernel"][0]})
    leaves, tree = jax.tree.flatten(state)
    restored = jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in leaves])
    resumed, _ = jax.jit(lambda p, s: run(p, 3, s))(half, restored)
    np.testing.assert_allclose(resumed["kernel"], together["kernel"][0], rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": "lion"}, "config.training.optimizer is 'lion'; choose one of adam, adamw, sgd"),
        ({"schedule": "poly"}, "config.training.schedule is 'poly'; choose one of constant, cosine, step"),
        (
            {"optimizer_options": {"weight_decay": 0.1}},
            "config.training.optimizer_options.weight_decay is 0.1, but adam has no weight_decay; adamw has",
        ),
        (
            {"schedule": "step", "schedule_options": {"warmup_epochs": 1}},
            "config.training.schedule_options.warmup_epochs is 1, but step has no warmup_epochs; constant, cosine has",
        ),
        ({"learning_rate": 0.0}, "config.training.learning_rate is 0.0; it must be above 0"),
        ({"clip_norm": -1.0}, "config.training.clip_norm is -1.0; it must be at least 0"),
        ({"optimizer_options": {"b1": 1.0}}, "config.training.optimizer_options.b1 is 1.0; it must be at least 0"),
        (
            {"schedule": "cosine", "schedule_options": {"warmup_epochs": 50}},
            "config.training.schedule_options.warmup_epochs is 50, which is no less than the run's 250 steps",
        ),
        (
            {"optimizer": "sgd", "optimizer_options": {"nesterov": True}},
            "config.training.optimizer_options.nesterov needs a momentum",
        ),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(InputError) as error:
        make(**options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_every_option_has_a_range():
    import inspect

    for function in (*optim.OPTIMIZERS.values(), *optim.SCHEDULES.values()):
        parameters = inspect.signature(function).parameters.values()
        names = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
        for name, default in names.items():
            optim._check_value(name, name, default)


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("learning_rate", (1e-9, 3), (0.0, -1.0, float("inf"), float("nan"), "1e-3", None)),
        ("clip_norm", (0.0, 2), (-1e-9,)),
        ("b1", (0.0, 0.99), (1.0, -0.1)),
        ("b2", (0.0, 0.99), (1.0, -0.1)),
        ("eps", (1e-12,), (0.0,)),
        ("weight_decay", (0.0,), (-1e-9,)),
        ("momentum", (0.0, 0.99), (1.0, -0.1)),
        ("nesterov", (True, False), (0.5,)),
        ("warmup_epochs", (0, 1.5), (-1,)),
        ("final_fraction", (0.0, 1.0), (-0.1, 1.1)),
        ("every_epochs", (1e-9,), (0.0,)),
        ("factor", (1.0, 1e-9), (0.0, 1.1)),
    ],
)
def test_the_ends_of_every_range(name, taken, refused):
    for value in taken:
        optim._check_value(name, name, value)
    for value in refused:
        with pytest.raises(InputError, match=f"config.training.{name} is .*; it must be {optim._RANGES[name][0]}"):
            optim._check_value(name, name, value)


def test_a_warmup_may_end_before_the_last_step_and_needs_a_run():
    optim.make_schedule("cosine", 0.8, **RUN, schedule_options={"warmup_epochs": 49.8})  # 249 of 250 steps
    # at most every step
    assert rates("step", every_epochs=0.01)(3) == pytest.approx(0.1)
