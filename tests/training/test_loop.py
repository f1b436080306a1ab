"""Whole runs in one process: what ends them, what they see, replicas beside runs of their own."""

import itertools
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder, train
from jaxseg.analysis import distortion
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.models import capture
from jaxseg.training import autoencoders, loop, runs


@pytest.fixture(autouse=True)
def optax_mixes_types():
    """Adam's bias correction raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def splits(tiny):
    return runs.Splits(tiny, small().data.source_size)


def small(**changes):
    """The smallest run, two epochs of three steps; `section__field=value` changes a field."""
    config = train.get_config("tiny").unlock()
    config.model.features = (2, 4)
    config.model.skips = (True,)
    config.data.image_size = 8
    for name, value in changes.items():
        *section, field = name.split("__")
        (config[section[0]] if section else config)[field] = value
    return config.lock()


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "steps_per_second"} for row in found]


def final(folder):
    """The state after the last step, as a list of arrays."""
    with runs.Checkpoints(folder / "checkpoints") as store:
        last = folder / "checkpoints" / str(store.steps[-1]) / "values" / "metadata"
    return json.loads(last.read_text())["checksums"]


def params(config, folder, splits):
    _, variables, _ = runs.load_best(config, folder, (1, 8, 8, 3), splits.num_classes)
    return jax.device_get(variables)


def test_boundaries_are_validations_saves_and_the_end():
    """First, as a run whose next boundary lies behind it would never end."""
    fields = dict.fromkeys(("program", "summarise", "learning_rate", "tensors", "skip_nonfinite", "patience"))
    fields |= {"selection": ("dice", 1), "steps_per_call": 1, "name": "", "total_steps": 20, "evaluate_every": 6}
    both, one = loop.Loop(**fields, save_every=4), loop.Loop(**fields, save_every=0)
    assert [both.boundary(step) for step in (0, 3, 4, 5, 6, 11, 12, 17, 18, 19)] == [4, 4, 6, 6, 8, 12, 16, 18, 20, 20]
    assert [one.boundary(step) for step in (0, 5, 6, 17, 18)] == [6, 6, 12, 18, 20]
    assert [step for step in range(1, 21) if both.evaluates(step)] == [6, 12, 18, 20]


def test_cases_from_disk_give_the_same_bits_as_cases_on_the_device(shallow_runs, splits, tmp_path):
    for residence in ("device", "stream"):
        runs.train(small(data__residence=residence, data__view="quadrant"), splits, tmp_path / residence)
    assert rows(tmp_path / "device") == rows(tmp_path / "stream")
    assert final(tmp_path / "device") == final(tmp_path / "stream")


def test_several_steps_in_one_call_give_the_same_numbers(shallow_runs, splits, tmp_path):
    config = small(training__epochs=1)
    runs.train(config, splits, tmp_path / "one")
    many = small(training__epochs=1, training__steps_per_call=2)  # a call of two steps, and one of one
    runs.train(many, splits, tmp_path / "many")
    a, b = (params(c, tmp_path / name, splits) for c, name in ((config, "one"), (many, "many")))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


@pytest.mark.parametrize(("vary", "count"), [("seed", 2), ("fold", 2), pytest.param("fold", 5, marks=pytest.mark.slow)])
def test_replicas_equal_runs_of_their_own(shallow_runs, splits, tmp_path, vary, count):
    folds = {"data__folds": count, "training__selection": "miou"} if vary == "fold" else {}
    together = small(replicas=count, vary=vary, training__epochs=3, training__patience=1, **folds)
    runs.train(together, splits, tmp_path / "together")
    summaries = json.loads((tmp_path / "together" / "summary.json").read_text())
    for i, (config, place) in enumerate(runs.member_runs(together, tmp_path / "together")):
        assert place == tmp_path / "together" / f"replica_{i}"
        runs.train(config, splits, tmp_path / f"own_{i}")
        ours, own = rows(place), rows(tmp_path / f"own_{i}")
        assert [row["step"] for row in ours] == [row["step"] for row in own]
        for a, b in zip(ours, own, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
        one, other = params(config, place, splits), params(config, tmp_path / f"own_{i}", splits)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), one, other)
        assert summaries[f"replica_{i}"] == pytest.approx(
            json.loads((tmp_path / f"own_{i}" / "summary.json").read_text()), abs=1e-5
        )
        assert json.loads(runs.read_config(place).to_json()) == json.loads(config.to_json())
    firsts = [rows(tmp_path / "together" / f"replica_{i}")[0]["loss"] for i in range(count)]
    assert len(set(firsts)) == count
    before = summaries
    runs.train(together, splits, tmp_path / "together")  # finished: nothing happens
    assert json.loads((tmp_path / "together" / "summary.json").read_text()) == before


def test_folds_share_no_patient_and_hold_out_every_case_once(shallow_runs, splits):
    config = small(data__folds=4)
    data = runs.Data(config, splits)
    held_out = []
    for fold in range(4):
        of_fold = small(data__folds=4, data__fold=fold)
        member = runs.Data(of_fold, splits).member(of_fold)
        patients = np.array(splits.pool.patients)
        assert not set(patients[member.train.index]) & set(patients[member.validation.index])
        held_out += list(member.validation.index)
        assert runs.Data(of_fold, splits).steps_per_epoch == data.steps_per_epoch
    assert sorted(held_out) == list(range(len(splits["train"]) + len(splits["validation"])))


def test_early_stopping_ends_a_run_that_no_longer_gets_better(shallow_runs, splits, tmp_path):
    config = small(training__learning_rate=1e-12, training__patience=2, training__epochs=50)
    runs.train(config, splits, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_early"] and summary["last_step"] == summary["best_step"] + 2 * 3 < 50 * 3
    assert len(rows(tmp_path / "run")) == summary["last_step"] // 3
    assert summary["best_validation_dice"] == max(row["validation_dice"] for row in rows(tmp_path / "run"))


def test_checkpoints_of_every_so_many_epochs_stay(shallow_runs, splits, tmp_path):
    config = small(training__epochs=5)
    runs.train(config, splits, tmp_path / "run", keep_every=2)
    like = params(config, tmp_path / "run", splits)
    kept = runs.restore_kept(tmp_path / "run", like, every=2 * 3)
    assert list(kept) == [6, 12]  # 12 and 15 are the newest; 6 stays by this alone, or because it is the best
    first, second = (jax.tree.leaves(one["params"]) for one in kept.values())
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_on_cpu_every_convolution_of_several_steps_is_outside_of_loops_and_calls(splits, tmp_path, monkeypatch):
    """In a computation of its own, XLA runs a convolution on one thread: ten times as long."""
    seen = []
    monkeypatch.setattr(runs, "fit", lambda loop, *rest: seen.append((loop.program, *rest)))
    runs.train(small(training__steps_per_call=2), splits, tmp_path / "run")
    program, [state], *_ = seen[0]
    items = np.stack(list(itertools.islice(program.items(0), 2)))
    store = program._stores[id(program.members[0].train.source)]
    text = program._run.lower(program.join([state]), store, items).compile().as_text()
    called, entry = text.split("ENTRY ")
    assert "convolution(" not in called
    assert entry.count("convolution(") > 2 * 3 * 5  # forward and two gradients of five layers, but one, in two steps


def test_progress_counts_validations_without_a_better_one():
    progress = loop.Progress()
    stopped = []
    for step, score in enumerate((None, 0.3, 0.5, 0.5, math.nan and None, 0.6, 0.1, 0.2, 0.6)):
        progress.validate(score, step, 3)
        stopped.append(progress.stopped)
    assert (progress.best, progress.best_step) == (0.6, 5)
    assert stopped == [False] * 8 + [True]


def test_what_is_not_finite_ends_the_run_and_names_step_and_tensors(shallow_runs, splits, tmp_path):
    config = small(training__learning_rate=1e30, training__optimizer="sgd")
    with pytest.raises(InputError, match=r"not finite at step \d+: the loss, the gradient of .* and \d+ more") as error:
        runs.train(config, splits, tmp_path / "run")
    assert "\n" not in str(error.value) and "on_nonfinite to 'skip'" in str(error.value)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_skipping_goes_on_and_counts(shallow_runs, splits, tmp_path):
    config = small(training__learning_rate=1e30, training__optimizer="sgd", on_nonfinite="skip")
    with pytest.raises(InputError, match="no step since the last validation was finite, up to step 6"):
        runs.train(config, splits, tmp_path / "run")
    [row] = rows(tmp_path / "run")
    assert row["skipped_steps"] == 2 and row["loss"] < 1  # the first step was


def test_a_schedule_goes_by_the_steps_that_were_taken(shallow_runs, splits, tmp_path, monkeypatch):
    poisoned = lambda inner: (
        lambda key, variables, batch: (
            lambda loss, stats: (loss * jnp.where(batch["images"][0, 0, 0, 0] > 0, jnp.nan, 1.0), stats)
        )(*inner(key, variables, batch))
    )
    built = runs.checks.build_objective
    monkeypatch.setattr(runs.checks, "build_objective", lambda *arguments: poisoned(built(*arguments)))
    config = small(on_nonfinite="skip", training__schedule="cosine", training__epochs=6)
    runs.train(config, splits, tmp_path / "run")
    found = rows(tmp_path / "run")
    skipped = [row["skipped_steps"] for row in found]
    assert 0 < sum(skipped) < 18 and max(skipped) < 3
    for i, row in enumerate(found):
        taken = 3 * (i + 1) - sum(skipped[: i + 1])
        expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * (taken - 1) / 18))
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-5)


def test_equal_scores_keep_the_first(shallow_runs, splits, tmp_path):
    config = small(training__optimizer="sgd", training__learning_rate=1e-30, model__norm="group", training__epochs=4)
    runs.train(config, splits, tmp_path / "run")
    assert len({row["validation_dice"] for row in rows(tmp_path / "run")}) == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_step"] == 3
    stored = (1, 11, 11, 3)  # no size that the network could take; it sees 8 x 8
    assert runs.load_best(config, tmp_path / "run", stored, 2)[2]["step"] == 3


def test_damaged_records_are_one_line_also_when_they_are_streamed(shallow_runs, splits, tmp_path):
    directory = tmp_path / "data"
    shutil.copytree(splits._directory, directory)
    for shard in directory.glob("*train*array_record*"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 3 : len(content) // 3 + 4000] = bytes(4000)
        shard.write_bytes(content)
    config = small(data__residence="stream")
    with pytest.raises(InputError, match="is damaged"):
        runs.train(config, runs.Splits(directory, config.data.source_size), tmp_path / "run")


def test_an_autoencoder_is_fitted_to_the_best_network(shallow_autoencoders, splits, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "network")
    config = autoencoder.get_config("tiny").unlock()
    config.data.image_size = 8
    config.network = str(tmp_path / "network")
    config.training.epochs = 4
    autoencoders.train(config, splits, tmp_path / "autoencoder")
    losses = [row["validation_loss"] for row in rows(tmp_path / "autoencoder")]
    for row in rows(tmp_path / "autoencoder"):
        assert row["validation_loss"] == pytest.approx(row["validation_seg"] + row["validation_mse"])
        assert row["validation_seg"] > 0 and row["validation_mse"] > 0
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    made, variables, of_run = autoencoders.load_best(config, tmp_path / "autoencoder", 2, 3)
    network, frozen = of_run.model, of_run.variables

    @jax.jit
    def by_hand(images):
        seen = images.astype(jnp.float32) / 127.5 - 1
        logits, held = capture.capture(network, frozen, seen, ("bottleneck",))
        familiar = made.apply(variables, held["bottleneck"])
        after = capture.replace(network, frozen, seen, {"bottleneck": lambda _: familiar})
        distance = lambda a, b: jnp.mean(jnp.square(a - b))
        distorted = jnp.mean(distortion.segmentation_distortion(logits, after))
        return distance(logits, after), distance(held["bottleneck"], familiar), distorted

    squashed = pipeline.Split(splits._directory, "validation", size=8)
    [best] = [row for row in rows(tmp_path / "autoencoder") if row["validation_loss"] == losses[-1]]
    found = by_hand(np.stack([case["image"] for case in squashed]))
    names = ("validation_seg", "validation_mse", "validation_distortion")
    np.testing.assert_allclose([best[name] for name in names], found, rtol=0.05)
    expected = params(small(), tmp_path / "network", splits)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(frozen), expected)
    for module, held, shape, out in (
        (made, variables, made.shape, made.shape),
        (network, frozen, (8, 8, 3), (8, 8, 2)),
    ):
        given = jax.ShapeDtypeStruct((1, *shape), np.float32)
        assert jax.eval_shape(module.apply, held, given).shape == (1, *out)
    moved = config.copy_and_resolve_references()
    moved.network = str((tmp_path / "network").rename(tmp_path / "moved"))
    autoencoders.train(moved, splits, tmp_path / "autoencoder")  # the same network, elsewhere
    best = json.loads((tmp_path / "moved" / "summary.json").read_text())["best_step"]
    shutil.rmtree(tmp_path / "moved" / "checkpoints" / str(best))
    with pytest.raises(
        InputError, match=r"made with another network; choose another work directory, or the same network"
    ):
        autoencoders.train(moved, splits, tmp_path / "autoencoder")
    for field, value, message in (
        ("network", "", "config.network is missing"),
        ("layer", "nothing", "config.layer or config.autoencoder: "),
        ("network", str(tmp_path / "elsewhere"), "holds no training run"),
        ("data.image_size", 16, r"config.data.image_size is 16, the network of .*moved was trained with 8; give the"),
    ):
        other = moved.copy_and_resolve_references()
        other.update_from_flattened_dict({field: value})
        with pytest.raises(InputError, match=message):
            autoencoders.train(other, splits, tmp_path / "other")
