"""Newest and best checkpoints, and what happens to damaged ones."""

import errno
import functools
import hashlib
import io
import json
import math
import os
import re
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.training import checkpoints, fitting, stored
from jaxseg.training.checkpoints import Checkpoints, restore_newest


def example(step):
    return {
        "step": jnp.asarray(step),
        "key": jax.random.key(step),
        "w": jnp.full((3, 2), float(step)),
        "b": jnp.arange(5, dtype=jnp.bfloat16),
        "m": jnp.zeros(5),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`(folder, scores, progress)` puts checkpoints there; each set is saved once and copied from then on."""
    made = {}

    def put(folder, scores, progress=lambda step: {"note": step}):
        held = {step: progress(step) for step in scores}
        key = repr((scores, held))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("saved")
            with Checkpoints(made[key]) as store:
                for step, score in scores.items():
                    store.save(example(step), {"progress": held[step]}, step=step, score=score)
        shutil.copytree(made[key], folder, dirs_exist_ok=True)

    return put


def test_the_two_newest_and_the_best_are_kept_and_come_back(saved, tmp_path):
    saved(tmp_path, {1: 0.2, 2: 0.9, 3: None, 4: 0.1, 5: None})
    with Checkpoints(tmp_path) as store:
        assert store.steps == [2, 4, 5]
        assert store.progress(5) == {"note": 5}
        latest, values = store.restore(5, example(0))
        step, best, score = store.restore_best({"w": jnp.zeros((3, 2))})
    assert int(latest["step"]) == 5 and values == {"progress": {"note": 5}}
    np.testing.assert_array_equal(jax.random.key_data(latest["key"]), jax.random.key_data(jax.random.key(5)))
    np.testing.assert_array_equal(latest["b"], np.arange(5))
    assert (step, score) == (2, 0.9) and best.keys() == {"w"}
    np.testing.assert_array_equal(best["w"], 2.0)


def test_multiples_of_a_number_of_steps_stay_too(tmp_path):
    with Checkpoints(tmp_path, keep_every=3) as store:
        for step in range(1, 8):
            store.save(example(step), {}, step=step, score=0.9 if step == 2 else 0.1)
    with Checkpoints(tmp_path, read_only=True) as store:
        assert store.steps == [2, 3, 6, 7]


def test_a_run_without_a_defined_score_still_has_a_checkpoint(saved, tmp_path):
    saved(tmp_path, {1: None})
    with Checkpoints(tmp_path) as store:
        step, _, score = store.restore_best({"w": jnp.zeros((3, 2))})
        assert step == 1 and math.isnan(score)


def test_a_checksum_sees_every_change_of_one_word():
    before = checkpoints.checksums(example(1))
    for name, other in (("w", example(1)["w"].at[2, 1].add(1e-7)), ("b", example(1)["b"].at[0].set(-0.0))):
        after = checkpoints.checksums({**example(1), name: other})
        assert [key for key in before if before[key] != after[key]] == [name]
    swapped = checkpoints.checksums({**example(1), "b": example(1)["b"][::-1]})
    assert swapped["b"] != before["b"]
    assert checkpoints.checksums({**example(1), "key": jax.random.key(2)})["key"] != before["key"]


def emptied(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def flipped(folder):
    """Overwrites the values of one array with others of the same size, in a file that can be read."""
    other = folder.parent.parent / "other"
    with Checkpoints(other) as store:
        store.save({**example(int(folder.name)), "m": jnp.ones(5)}, {}, step=99, score=None)
    shutil.rmtree(folder / "state")
    (other / "99" / "state").rename(folder / "state")


def without_values(folder):
    (folder / "values" / "metadata").write_text("{")


def byte_flipped(folder):
    """One byte of the file that holds the values."""
    [path] = (folder / "state" / "d").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def array_file_gone(folder):
    [path] = (folder / "state" / "d").iterdir()
    path.unlink()


def description_emptied(folder):
    (folder / "state" / "_METADATA").write_bytes(b"")


def state_gone(folder):
    shutil.rmtree(folder / "state")


def without_seal(damage):
    """The same in a checkpoint of an earlier version, which has no digests of its files."""

    @functools.wraps(damage)
    def both(folder):
        damage(folder)
        (folder / "seal.json").unlink()

    return both


DAMAGES = [emptied, flipped, without_values, byte_flipped, array_file_gone, description_emptied, state_gone]


@pytest.mark.parametrize("damage", [*DAMAGES, *map(without_seal, DAMAGES)])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(saved, tmp_path, capsys, damage):
    saved(tmp_path / "run", {1: None, 2: None, 3: None})
    damage(tmp_path / "run" / "3")
    with Checkpoints(tmp_path / "run") as store:
        [(state, values)], step = restore_newest([store], example(0))
        assert (step, int(state["step"]), values) == (2, 2, {"progress": {"note": 2}})
        assert store.steps == [2]
        if damage is emptied:
            store.save(example(3), {}, step=3, score=None)  # its place is free again
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and f"{tmp_path / 'run' / '3'}: " in message and "is damaged" in message
    assert "it is now damaged_3" in message
    assert ", and the run resumes from step 2\n" in message
    assert (tmp_path / "run" / "damaged_3").is_dir()


def test_the_only_checkpoint_is_left_where_it_is_when_damaged(saved, tmp_path):
    saved(tmp_path / "run", {1: 0.5})
    emptied(tmp_path / "run" / "1")
    with Checkpoints(tmp_path / "run") as store, pytest.raises(InputError, match=r"run/1: is damaged \(") as error:
        restore_newest([store], example(0))
    assert "\n" not in str(error.value) and (tmp_path / "run" / "1").is_dir()
    with (
        Checkpoints(tmp_path / "run", read_only=True) as store,
        pytest.raises(InputError, match=r"run/1: is damaged \("),
    ):
        store.restore_best(example(0))
    assert (tmp_path / "run" / "1").is_dir()


def replaced(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def as_earlier_versions(folder):
    """Without a seal, and with the score in orbax's file and in the progress alone."""
    (folder / "seal.json").unlink()
    path = folder / "values" / "metadata"
    values = json.loads(path.read_text())
    values.pop("score")
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("metrics/metrics", b"0.266", b"0.966"),  # the score stands among the values too
        ("values/metadata", b"0.266", b"0.966"),
        ("values/metadata", b'"score"', b'"scoru"'),
    ],
)
def test_a_sealed_file_that_was_changed_decides_nothing(saved, tmp_path, capsys, path, old, new):
    saved(tmp_path, {1: 0.5, 2: 0.266, 3: 0.1}, lambda step: {"note": step})
    file = tmp_path / "2" / path
    file.write_bytes(file.read_bytes().replace(old, new))
    with Checkpoints(tmp_path, read_only=True) as store:
        assert store.restore_best({"w": jnp.zeros((3, 2))})[::2] == (1, 0.5)
    said = capsys.readouterr().err
    if path == "values/metadata":
        assert (
            said == f"{tmp_path / '2'}: is damaged ({path} is not what was written); it does not count, step 1 does\n"
        )
    else:
        assert not said


def test_a_changed_value_of_a_sealed_step_is_damage_when_a_run_goes_on(saved, tmp_path, capsys):
    saved(tmp_path, {1: 0.5, 2: 0.25}, lambda step: {"best": 0.5, "best_step": 1, "since_best": step - 1})
    replaced(tmp_path / "2" / "values" / "metadata", b'"since_best": 1', b'"since_best": 9')
    with Checkpoints(tmp_path) as store:
        with pytest.raises(checkpoints.Damaged, match="values/metadata is not what was written"):
            store.progress(2)
        [(_, values)], step = restore_newest([store], example(0))
    assert (step, values["progress"]["since_best"]) == (1, 0)
    assert "values/metadata is not what was written); it is now damaged_2" in capsys.readouterr().err


def test_progress_that_an_earlier_version_cannot_have_written_is_damage(saved, tmp_path, capsys):
    saved(tmp_path, {1: None, 2: None}, lambda step: {"stopped": False})
    as_earlier_versions(tmp_path / "2")
    replaced(tmp_path / "2" / "values" / "metadata", b'"stopped"', b'"stoqped"')
    kind = lambda *, stopped: stopped
    with Checkpoints(tmp_path) as store:
        with pytest.raises(checkpoints.Damaged, match="values/metadata holds no progress") as error:
            store.progress(2, kind=kind)
        store.fall_back(error.value, store.steps)
        assert store.progress(1, kind=kind) is False and store.steps == [1]
    assert "it is now damaged_2, and the run resumes from step 1" in capsys.readouterr().err


def test_of_damaged_steps_the_next_best_is_used_and_one_line_said_where_there_is_none(saved, tmp_path, capsys):
    saved(tmp_path, {1: 0.9, 2: 0.5, 3: 0.1}, lambda step: {})
    before = sorted(path.name for path in tmp_path.iterdir())
    for step, message in ((1, "step 2 does"), (2, "step 3 does"), (3, None)):
        emptied(tmp_path / str(step))
        with Checkpoints(tmp_path, read_only=True) as store:
            if message:
                assert store.restore_best({"w": jnp.zeros((3, 2))})[0] == step + 1
                assert f"it does not count, {message}\n" in capsys.readouterr().err
                continue
            with pytest.raises(checkpoints.Damaged) as error:
                store.restore_best({"w": jnp.zeros((3, 2))})
        assert "\n" not in str(error.value) and not capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_seal_proves_nothing_of_the_files(saved, tmp_path):
    saved(tmp_path, {1: 0.5})
    seal = tmp_path / "1" / "seal.json"
    whole = seal.read_bytes()
    for position in range(0, len(whole), 7):
        seal.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert stored.values(tmp_path / "1")["score"] == 0.5


SCORES = ["", "{", '{"score": "', '{"scoru": 0.9}', '{"score": null}', "[]", "\udcff", None]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_damaged_score_is_no_damaged_state(saved, tmp_path, capsys, earlier):
    saved(tmp_path, {1: 0.9, 2: 0.1}, lambda step: {"best": 0.9, "best_step": 1})
    for content in SCORES:
        for folder in (tmp_path / "1", tmp_path / "2"):
            if earlier and (folder / "seal.json").exists():
                as_earlier_versions(folder)
            if content is None:
                (folder / "metrics" / "metrics").unlink()
            else:
                (folder / "metrics" / "metrics").write_bytes(content.encode(errors="surrogateescape"))
        with Checkpoints(tmp_path, read_only=True) as store:
            assert store.restore_best({"w": jnp.zeros((3, 2))})[::2] == (1, 0.9), content
        with Checkpoints(tmp_path) as store:
            assert restore_newest([store], example(0))[1] == 2, content
    with Checkpoints(tmp_path) as store:
        for step in (3, 4):
            store.save(example(step), {}, step=step, score=None)
        store.wait()
        assert store.steps == [1, 3, 4]
    assert not capsys.readouterr().err


def test_a_score_that_nothing_knows_is_never_the_best(saved, tmp_path):
    saved(tmp_path, {1: 0.9, 2: 0.1})
    as_earlier_versions(tmp_path / "1")
    (tmp_path / "1" / "metrics" / "metrics").write_text("")
    with Checkpoints(tmp_path, read_only=True) as store:
        assert store.restore_best({"w": jnp.zeros((3, 2))})[::2] == (2, 0.1)
        assert int(store.restore(1, example(0))[0]["step"]) == 1
    shutil.rmtree(tmp_path / "2")
    with Checkpoints(tmp_path) as store:
        step, _, score = store.restore_best({"w": jnp.zeros((3, 2))})
        assert step == 1 and math.isnan(score) and restore_newest([store], example(0))[1] == 1


def test_every_flip_in_what_describes_the_arrays_of_an_earlier_version_is_damage_or_harmless(saved, tmp_path):
    saved(tmp_path / "run", {1: None})
    as_earlier_versions(tmp_path / "run" / "1")
    state = tmp_path / "run" / "1" / "state"
    found, harmless = set(), 0
    with Checkpoints(tmp_path / "run", read_only=True) as store:
        for path in (state / "manifest.ocdbt", state / "_METADATA", *(state / "d").iterdir()):
            whole = path.read_bytes()
            for position in range(0, len(whole), 9):
                path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
                try:
                    read, _ = store.restore(1, example(0))
                except checkpoints.Damaged as error:
                    found.add(path.name)
                    assert "\n" not in str(error)
                else:
                    np.testing.assert_array_equal(read["w"], 1.0)
                    harmless += 1
            path.write_bytes(whole)
    assert len(found) == 3 and harmless < 100


def test_where_a_damaged_step_cannot_be_set_aside_that_is_said(saved, tmp_path, monkeypatch):
    saved(tmp_path, {1: None, 2: None})
    emptied(tmp_path / "2")
    with Checkpoints(tmp_path) as store:
        monkeypatch.setattr(type(tmp_path), "rename", forbidden)
        with pytest.raises(InputError, match=r"2: is damaged and cannot be set aside \(Permission denied\); see to"):
            restore_newest([store], example(0))
    assert (tmp_path / "2").is_dir()


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ((2, 4), (2,), 2),  # killed while the second save was under way
        ((2, 4), (2, 4), 4),
        ((2,), (), 0),  # killed in the first save
        ((2, 4), (), None),  # no kill explains this
        ((2, 4), (6, 8), None),
        ((2, 4, 6), (2,), None),
    ],
)
def test_replicas_go_on_from_the_newest_step_that_all_have_or_not_at_all(saved, tmp_path, a, b, found):
    scores = lambda steps: {step: 9.0 if step == 2 else None for step in steps}  # so that 2 stays
    saved(tmp_path / "a" / "checkpoints", scores(a))
    saved(tmp_path / "b" / "checkpoints", scores(b))
    with Checkpoints(tmp_path / "a" / "checkpoints") as one, Checkpoints(tmp_path / "b" / "checkpoints") as other:
        if found is None:
            with pytest.raises(InputError, match=r"a has 2, 4(, 6)?; b has .* cannot resume together") as error:
                restore_newest([one, other], example(0))
            assert "\n" not in str(error.value)
        else:
            restored, step = restore_newest([one, other], example(0))
            assert step == found and len(restored) == (2 if found else 0)
        assert (one.steps, other.steps) == (list(a), list(b))  # nothing is removed
        one.save(example(4), {}, step=4, score=None)  # and what is there already can be saved again
        one.wait()
        assert 4 in one.steps


def test_a_reader_leaves_a_run_that_is_saving_alone(saved, tmp_path):
    saved(tmp_path / "run", {1: 0.5})
    half = tmp_path / "run" / "2.orbax-checkpoint-tmp"
    half.mkdir()
    with Checkpoints(tmp_path / "run", read_only=True) as store:
        step, _, score = store.restore_best({"w": jnp.zeros((3, 2))})
    assert (step, score) == (1, 0.5) and half.is_dir()


def test_a_step_that_a_run_removes_while_a_reader_looks_is_not_missed(saved, tmp_path, monkeypatch, capsys):
    saved(tmp_path, {1: 0.5, 2: 0.1})
    read = stored.score

    def removed(step):
        if step.name == "2":
            shutil.rmtree(step)
        return read(step)

    monkeypatch.setattr(stored, "score", removed)
    with Checkpoints(tmp_path, read_only=True) as store:
        assert store.restore_best({"w": jnp.zeros((3, 2))})[::2] == (1, 0.5)
    assert not capsys.readouterr().err


def test_no_checkpoint_is_said(tmp_path):
    with Checkpoints(tmp_path / "run") as store, pytest.raises(InputError, match="holds no checkpoint; train the run"):
        store.restore_best({"w": jnp.zeros(2)})
    with pytest.raises(InputError, match="nowhere holds no checkpoint; train the run first"):
        Checkpoints(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file where checkpoints belong"):
        Checkpoints(tmp_path / "file")


def stale(*_, **__):
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def forbidden(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def too_many_files(*_, **__):
    raise ValueError("RESOURCE_EXHAUSTED: Error opening file: Too many open files [tensorstore_spec='...']")


def no_memory(*_, **__):
    raise MemoryError


def library_broken(*_, **__):
    raise RuntimeError("not implemented")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (stale, "Stale file handle"),
        (forbidden, "Permission denied"),
        (too_many_files, "Too many open files"),
        (no_memory, "MemoryError"),
        (library_broken, "RuntimeError: not implemented"),
    ],
)
def test_what_cannot_be_read_here_is_not_called_damaged(saved, tmp_path, monkeypatch, capsys, fault, reason, sealed):
    saved(tmp_path / "run", {1: None, 2: 0.5})
    if not sealed:
        (tmp_path / "run" / "2" / "seal.json").unlink()
    before = files(tmp_path)
    with Checkpoints(tmp_path / "run") as store:
        for read in (lambda: restore_newest([store], example(0)), lambda: store.restore_best(example(0))):
            with monkeypatch.context() as patched, pytest.raises(InputError) as error:
                patched.setattr(stored.tensorstore, "open", fault)
                read()
            assert f"run/2: cannot be read here: {reason}" in str(error.value) and "\n" not in str(error.value)
            assert not re.search("damaged|remove", str(error.value))
        [(state, _)], step = restore_newest([store], example(0))
    assert step == 2 and int(state["step"]) == 2
    assert files(tmp_path) == before and not capsys.readouterr().err


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({**example(0), "w": jnp.zeros((3, 4))}, r"another network: w has the shape \(3, 2\) there and \(3, 4\) here"),
        ({**example(0), "extra": jnp.zeros(2)}, "another network or optimiser: it lacks extra"),
        ({name: x for name, x in example(0).items() if name != "m"}, None),
        ({**example(0), "m": jnp.zeros(5, jnp.bfloat16)}, "cannot be read here: m is float32 there and bfloat16 here"),
    ],
)
def test_a_checkpoint_of_another_network_is_said_to_be_that(saved, tmp_path, like, message):
    saved(tmp_path / "run", {1: None, 2: None})
    before = files(tmp_path)
    with Checkpoints(tmp_path / "run") as store:
        if message is None:
            assert store.restore(2, like)[0].keys() == like.keys()  # a part is what was asked for
            return
        with pytest.raises(InputError, match=message) as error:
            restore_newest([store], like)
    assert "\n" not in str(error.value) and not re.search("damaged|remove", str(error.value))
    assert files(tmp_path) == before


def test_arrays_that_an_earlier_version_stored_in_64_bits_are_read(tmp_path):
    with jax.enable_x64(True), Checkpoints(tmp_path) as store:
        state = {"w": jnp.linspace(0, 1, 5, dtype=jnp.float64), "n": jnp.int64(7)}
        store.save(state, {"progress": {}}, step=1, score=None)
        expected = np.linspace(0, 1, 5).astype(np.float32)
    with Checkpoints(tmp_path) as store:
        found, _ = store.restore(1, {"w": jnp.zeros(5), "n": jnp.int32(0)})
    np.testing.assert_array_equal(found["w"], expected)
    assert found["w"].dtype == jnp.float32 and found["n"].dtype == jnp.int32 and int(found["n"]) == 7


def test_a_checkpoint_of_another_version_that_cannot_be_decoded_here_is_left_alone(saved, tmp_path):
    saved(tmp_path / "run", {1: None, 2: None})
    step = tmp_path / "run" / "2"
    (step / "seal.json").unlink()
    values = json.loads((step / "values" / "metadata").read_text())
    values["values"]["versions"] = {"orbax-checkpoint": "99.0"}
    (step / "values" / "metadata").write_text(json.dumps(values))
    (step / "state" / "_METADATA").write_text('{"a layout": "of tomorrow"}')
    with (
        Checkpoints(tmp_path / "run") as store,
        pytest.raises(InputError, match="run/2: cannot be read here: ") as error,
    ):
        restore_newest([store], example(0))
    assert "orbax 99.0" in str(error.value) and store.steps == [1, 2]


def nothing(manager, place, step):
    """A save that writes nothing and says nothing."""


def half(manager, place, step):
    (place / str(step) / "state").mkdir(parents=True)


@pytest.mark.parametrize("written", [nothing, half])
def test_a_save_that_did_not_happen_is_an_error_and_older_ones_stay(saved, tmp_path, monkeypatch, written):
    folder = tmp_path / "run"
    saved(folder, {1: 0.9, 2: None, 3: None})
    with (
        monkeypatch.context() as patched,
        pytest.raises(InputError, match="run/4: was saved but cannot be read") as error,
        Checkpoints(folder) as store,
    ):
        patched.setattr(store._manager, "save", lambda step, **_: written(store._manager, folder, step))
        store.save(example(4), {}, step=4, score=1.0)
        store.save(example(5), {}, step=5, score=None)
    assert "\n" not in str(error.value) and "the older checkpoints are kept" in str(error.value)
    assert all((folder / str(step) / "state" / "_METADATA").is_file() for step in (1, 2, 3))


@pytest.fixture
def no_file_above_1_mb():
    """As on a full disk."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_what_cannot_be_written_is_said_in_one_line_and_the_checkpoint_before_stays(
    tmp_path, capfd, no_file_above_1_mb
):
    # noise, which tensorstore cannot pack
    large = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(1 << 20, np.float32))}
    small = {"w": jnp.zeros(5)}
    with Checkpoints(tmp_path) as store:
        store.save(small, {}, step=1, score=0.0)
    with pytest.raises(InputError) as error, Checkpoints(tmp_path) as store:
        store.save(large, {}, step=2, score=0.0)
    assert str(error.value).startswith(f"{tmp_path}: a checkpoint cannot be written (File too large); make room there")
    assert "\n" not in str(error.value) and "Traceback" not in capfd.readouterr().err  # of a thread of orbax's
    no_file_above_1_mb()
    with Checkpoints(tmp_path) as store:
        assert store.steps == [1]
        store.restore(1, small)
        store.save(large, {}, step=2, score=0.0)


def test_a_digest_is_half_of_blake2b(tmp_path):
    content = b"a checkpoint's file"
    digest = stored._digest(io.BytesIO(content))
    assert digest == hashlib.blake2b(content).hexdigest()[:32] and len(digest) == 32


def test_a_save_that_has_no_room_is_not_begun(saved, tmp_path, monkeypatch):
    needed = 1_000_000 + 4 + 8 + 24 + 10 + 20  # of `example`: a step, a key of two words, and its arrays
    free = iter([needed, needed - 1])
    usage = lambda folder: type("Usage", (), {"free": next(free)})
    with Checkpoints(tmp_path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints.shutil, "disk_usage", usage)
            store.save(example(1), {}, step=1, score=None)
            with pytest.raises(InputError, match=r"takes up to 1\.0 MB, 1\.0 MB are free; make room there"):
                store.save(example(2), {}, step=2, score=None)
        assert store.steps == [1]


def test_names_of_checkpoints_are_numbers(tmp_path):
    assert not checkpoints.has_steps(tmp_path / "nothing")
    (tmp_path / "damaged_3").mkdir()
    assert not checkpoints.has_steps(tmp_path)
    (tmp_path / "3").mkdir()
    assert checkpoints.has_steps(tmp_path)


def test_a_damaged_step_is_set_aside_under_a_name_of_its_own(tmp_path):
    for wanted in ("damaged_3", "damaged_3_2", "damaged_3_3"):
        (tmp_path / "3").mkdir()
        assert checkpoints._set_aside(tmp_path, 3) == tmp_path / wanted and (tmp_path / wanted).is_dir()


def test_a_checksum_is_the_sum_of_the_words_each_times_its_odd_number():
    words = np.array([3, 1 << 31, 7, (1 << 32) - 1], np.uint32)
    wanted = sum((2 * i + 1) * int(word) for i, word in enumerate(words)) % 2**32
    found = checkpoints.checksums({"w": words.view(np.float32), "b": np.array([3, 5], np.uint8)})
    assert found == {"w": wanted, "b": 3 + 15} and stored.checksum(words.view(np.float32)) == wanted
    assert stored.checksum(np.array([1.0], np.float64)) == (2 * 1 + 1) * 0x3FF00000


def test_arrays_are_compared_one_by_one():
    arrays = {"a": np.float32([1]), "b": np.int32([2])}
    sums = {name: stored.checksum(array) for name, array in arrays.items()}
    stored.check(arrays, sums)
    stored.check({"a": arrays["a"]}, sums, wanted=["a"])
    for read, held, wanted, said in (
        ({"a": arrays["a"]}, sums, None, "b is not there"),
        ({"a": arrays["a"]}, sums, ["a", "b"], "b is not there"),
        (arrays | {"b": np.int32([3])}, sums, None, "b is not what was saved"),
        (arrays, {"a": sums["a"]}, None, "b has no checksum"),
    ):
        with pytest.raises(stored.Changed, match=said):
            stored.check(read, held, wanted=wanted)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0.5, 0.5), (3, 3.0), (stored.UNDEFINED, None), (math.inf, None), (math.nan, None), ("1", None), (None, None)],
)
def test_a_score_is_a_finite_number_or_unknown(value, wanted):
    assert stored._number(value) == wanted


@pytest.mark.parametrize(
    ("array", "dtype", "fits"),
    [
        (np.float32([0.1]), np.float32, True),
        (np.float64([0.1]), np.float32, True),  # rounded
        (np.int64([7]), np.int32, True),
        (np.int64([1 << 40]), np.int32, False),
        (np.int64([7]), np.float32, False),
        (np.float32([0.5]), np.float16, False),
        (np.float32([0.5]), np.float64, False),
        (np.int64([7]), np.int16, False),
    ],
)
def test_arrays_twice_as_wide_as_wanted_are_those_of_an_earlier_version(array, dtype, fits):
    assert fitting._fits(array, np.dtype(dtype)) == fits
