"""Run by test_devices.py in a process of its own, with eight virtual CPU devices: writes gradients to a file."""

import sys

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxseg.data import augment, pipeline
from jaxseg.data.augmentation.settings import INTENSITIES
from jaxseg.errors import InputError
from jaxseg.models import layers
from jaxseg.training import losses, objectives, parallel, state, steps
from jaxseg.training.programs import Cases, Member, Program

SIZE, BATCH, STEPS = 16, 16, 2


def source(count=24):
    random = np.random.default_rng(0)
    labels = np.zeros((count, SIZE, SIZE), np.uint8)
    for i in range(count):
        labels[i, 2 + i % 5 : 9 + i % 4, 3 : 12 - i % 6] = 1
    images = (labels[..., None] * 90 + random.integers(0, 100, (count, SIZE, SIZE, 3))).astype(np.uint8)
    names = tuple(f"case{i}" for i in range(count))
    return pipeline.InMemory(
        "drawn/train", ("background", "object"), images, labels, names, names, *pipeline.nowhere(len(names))
    )


class Shallow(nn.Module):
    """What a U-Net has of a batch as a whole, the norm, without what makes it long to compile."""

    @nn.compact
    def __call__(self, images, train=False):
        return layers.Conv(2, kernel=1, use_bias=True, name="head")(layers.ConvNorm(4, name="conv")(images, train))


def setting(axis=None):
    model = Shallow()
    moved = {"flip_horizontal": 0.5, "rotate": 20.0, "scale": (0.9, 1.1), "elastic": 0.5}
    view = augment.training_view("quadrant", size=8, augmentation=moved | dict.fromkeys(INTENSITIES, 0.3))
    optimizer = optax.sgd(1.0)  # what it adds to the parameters is the gradient itself
    objective = objectives.supervised(model, losses.dice_cross_entropy_loss)
    step = steps.make_train_step(objective, optimizer, view, axis=axis)
    create = jax.jit(lambda key: state.create(key, model, optimizer, (1, 8, 8, 3)))
    fresh = lambda seed: create(jax.random.key(seed))
    evaluate = steps.make_counts_step(model, augment.testing_view("original", size=8, cases=()), 2)
    return step, evaluate, fresh


def member(cases, seed=3):
    everything = Cases(cases, np.arange(len(cases), dtype=np.int32))
    return Member(everything, everything, seed)


def keyless(run):
    """On the host, where a key cannot be."""
    return jax.device_get(run.replace(key=()))


def gradients(program, fresh, seeds=(0,)):
    """What two steps add to parameters and batch statistics, and the validation counts, of every member."""
    before = [keyless(fresh(seed)) for seed in seeds]
    run, items = program.join([fresh(seed) for seed in seeds]), program.items(0)
    for _ in range(STEPS):
        run, metrics = program.run(run, [next(items)])
    after = [keyless(one) for one in program.split(run)]
    counts = program.evaluate(run)
    loss = program.fetch(metrics)["loss"]
    results = []
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        change = jax.tree.map(np.subtract, (b.params, b.batch_stats), (a.params, a.batch_stats))
        named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(change)}
        results.append(named | {"counts": counts[i], "loss": loss[-1, i]})
    return results


def on_one_device(step, evaluate, fresh, cases, seed=3, start=0):
    """The plain way, without any of the program's machinery."""
    run, order = fresh(start), pipeline.order(len(cases), batch_size=BATCH, seed=seed)
    before, step = keyless(run), jax.jit(step)
    for _ in range(STEPS):
        index = next(order)
        run, metrics = step(run, {"image": cases.images[index], "labels": cases.labels[index], "index": index})
    after = keyless(run)
    everything = {"image": cases.images, "labels": cases.labels, "index": np.arange(len(cases))}
    change = jax.tree.map(np.subtract, (after.params, after.batch_stats), (before.params, before.batch_stats))
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(change)}
    counts = jax.jit(evaluate)(after.variables, everything)
    return named | {"counts": np.asarray(counts), "loss": np.asarray(metrics["loss"])}


def main(path):
    assert jax.device_count() == 8
    cases = source()
    step, evaluate, fresh = setting()
    results = {
        "one": on_one_device(step, evaluate, fresh, cases),
        "other": on_one_device(step, evaluate, fresh, cases, seed=4, start=1),
        "jit": gradients(Program([member(cases)], step, evaluate, batch_size=BATCH), fresh)[0],
    }
    spread = Program([member(cases)], step, evaluate, batch_size=BATCH, sharded=True)
    results["sharded"] = gradients(spread, fresh)[0]
    held = next(iter(spread._stores.values()))["image"].addressable_shards
    assert [shard.data.shape[0] for shard in held] == [3] * 8
    for array in (np.arange(42, dtype=np.float16).reshape(21, 2), np.arange(21) % 3 == 0):  # no multiple of eight
        index = np.random.default_rng(0).integers(0, 21, 16).astype(np.int32)
        given = jax.jit(parallel.take)(parallel.shard(array), parallel.place(index, parallel.AXIS))
        np.testing.assert_array_equal(given, array[index])
    mapped = setting(axis=parallel.AXIS)[0]
    program = Program([member(cases)], mapped, evaluate, batch_size=BATCH, layout="pmap")
    results["pmap"] = gradients(program, fresh)[0]
    parallel.over_replicas = jax.vmap  # as accelerators do it
    pair = Program([member(cases, 3), member(cases, 4)], step, evaluate, batch_size=BATCH)
    results["vmapped_0"], results["vmapped_1"] = gradients(pair, fresh, seeds=(0, 1))
    messages = []
    for size, parts in ((20, 1), (3, 1), (24, 2)):
        try:
            parallel.check_batch(size, accumulate=parts)
        except InputError as error:
            messages.append(str(error))
    flat = {f"{way}:{name}": value for way, found in results.items() for name, value in found.items()}
    np.savez(path, messages=np.array(messages), **flat)


if __name__ == "__main__":
    main(sys.argv[1])
