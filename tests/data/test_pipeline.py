"""Reading: every case once per epoch, batches that are a function of their step, and what is stored is what is read."""

import collections
import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import pipeline
from jaxseg.data.synthetic.dermoscopy import render
from jaxseg.errors import InputError

CASES = {"train": 48, "validation": 16, "test": 16}


@pytest.fixture(scope="module")
def directory(tiny):
    return tiny


@pytest.fixture(scope="module")
def memory(directory):
    return pipeline.in_memory(pipeline.Split(directory, "train", size=16))


def take(iterator, n):
    return list(itertools.islice(iterator, n))


class Grey:
    """A source of N one-channel cases whose pixels say which case it is."""

    name = "grey"

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return {
            "case": str(index),
            "patient": str(index),
            "image": np.full((2, 2, 1), index, np.uint8),
            "labels": np.full((2, 2), index % 2, np.uint8),
        }


def test_some_cases_are_those_of_all_whether_decoded_alone_or_taken(directory, memory):
    chosen = [5, 0, 3]
    decoded = pipeline.in_memory(pipeline.Split(directory, "train", size=16), chosen=chosen)
    for some in (decoded, memory.take(np.array(chosen))):
        assert some.name == memory.name and len(some) == 3
        for place, case in zip(chosen, some, strict=True):
            for name, value in memory[place].items():
                np.testing.assert_array_equal(case[name], value)


def test_split_describes_itself(directory):
    split = pipeline.Split(directory, "validation", size=64)
    assert split.name == "dermoscopy/tiny/validation"
    assert (len(split), split.num_cases, split.num_classes, split.num_channels) == (16, 16, 2, 3)
    assert split.class_names == ("background", "lesion")
    assert pipeline.split_sizes(directory) == pipeline.split_sizes(str(directory)) == CASES


def test_split_reads_any_case(directory):
    split = pipeline.Split(directory, "validation", size=64)
    for index in (7, 0, 15, -1):
        case = split[index]
        assert case["image"].shape == (64, 64, 3) and case["image"].dtype == np.uint8
        assert case["labels"].shape == (64, 64) and case["labels"].dtype == np.uint8
        assert set(np.unique(case["labels"])) <= {0, 1}
        assert case["case"] == case["patient"] == f"synthetic{48 + index % 16:05d}"
    for index in (16, -17):
        with pytest.raises(IndexError):
            split[index]
    assert [case["case"] for case in split] == [f"synthetic{48 + i:05d}" for i in range(16)]


@pytest.mark.parametrize("size", [16, 40, 100])
def test_split_resizes(directory, size, slow_resize):
    image, labels = render(2017, 5, 64)
    case = pipeline.Split(directory, "train", size=size)[5]
    np.testing.assert_allclose(case["image"], slow_resize(image, size, size), atol=1.0)  # half a level, and ties
    wanted = Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(case["labels"], np.asarray(wanted))


def test_split_can_be_read_by_many_threads(directory, memory):
    split, wrong = pipeline.Split(directory, "train", size=16), []

    def read(indices):
        wrong.extend(i for i in indices if (split[i]["image"] != memory.images[i]).any())

    threads = [threading.Thread(target=read, args=(np.random.default_rng(seed).permutation(48),)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_in_memory_is_the_same_source(directory, memory):
    split = pipeline.Split(directory, "train", size=16)
    assert memory.images.shape == (48, 16, 16, 3) and memory.labels.shape == (48, 16, 16)
    assert memory.images.dtype == memory.labels.dtype == np.uint8
    for name in ("name", "class_names", "num_classes", "num_cases", "num_channels"):
        assert getattr(memory, name) == getattr(split, name)
    assert len(memory) == len(memory.cases) == len(memory.patients) == 48
    for stored, read in zip(split, memory, strict=True):
        assert stored.keys() == read.keys()
        assert (stored["case"], stored["patient"]) == (read["case"], read["patient"])
        np.testing.assert_array_equal(stored["image"], read["image"])
        np.testing.assert_array_equal(stored["labels"], read["labels"])


def test_batches_hold_arrays_alone(memory):
    batch = next(pipeline.batches(memory, batch_size=5, seed=0))
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "image": ((5, 16, 16, 3), "uint8"),
        "labels": ((5, 16, 16), "uint8"),
        "index": ((5,), "int32"),
    }
    np.testing.assert_array_equal(batch["image"], memory.images[batch["index"]])
    np.testing.assert_array_equal(batch["labels"], memory.labels[batch["index"]])


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10])
def test_every_epoch_has_every_case_once(batch_size):
    epochs, n = 4, 10
    steps = -(-epochs * n // batch_size)
    stream = pipeline.batches(Grey(n), batch_size=batch_size, seed=3)
    order = np.concatenate([batch["index"] for batch in take(stream, steps)])
    orders = [tuple(order[n * i : n * (i + 1)]) for i in range(epochs)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert len(set(orders)) == epochs  # shuffled anew


@pytest.mark.parametrize("start_step", [1, 5, 16])
def test_batches_resume_at_a_step(directory, start_step):
    split = pipeline.Split(directory, "train", size=16)
    wanted = take(pipeline.batches(split, batch_size=9, seed=1), start_step + 8)[start_step:]
    found = take(pipeline.batches(split, batch_size=9, seed=1, start_step=start_step), 8)
    for before, after in zip(wanted, found, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


def test_batches_resume_far_ahead():
    wanted = take(pipeline.batches(Grey(11), batch_size=2, seed=1), 64)[60:]
    found = take(pipeline.batches(Grey(11), batch_size=2, seed=1, start_step=60), 4)
    assert [list(batch["index"]) for batch in wanted] == [list(batch["index"]) for batch in found]
    assert len(next(pipeline.batches(Grey(11), batch_size=2, seed=1, start_step=10**12))["index"]) == 2


def test_seed_sets_the_order():
    def order(seed):
        return [tuple(batch["index"]) for batch in take(pipeline.batches(Grey(20), batch_size=5, seed=seed), 4)]

    assert order(0) == order(0) != order(1)


def test_epoch_is_every_case_once_in_order(directory, memory):
    split = pipeline.Split(directory, "train", size=16)
    found = list(pipeline.epoch(split, batch_size=20))
    assert [batch["image"].shape for batch in found] == [(20, 16, 16, 3)] * 3
    assert found[0]["index"].dtype == np.int32 and found[0]["real"].dtype == np.bool_
    real = np.concatenate([batch["real"] for batch in found])
    np.testing.assert_array_equal(real, np.arange(60) < 48)
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in found])[real], np.arange(48))
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch in found])[:48], memory.images)
    np.testing.assert_array_equal(np.concatenate([batch["labels"] for batch in found])[:48], memory.labels)
    np.testing.assert_array_equal(found[-1]["image"][8:], np.repeat(memory.images[-1:], 12, 0))
    np.testing.assert_array_equal(found[-1]["index"][8:], 47)


@pytest.mark.parametrize(("cases", "batch_size", "batches"), [(3, 8, 1), (8, 8, 1), (9, 8, 2), (1, 1, 1)])
def test_epoch_sizes(cases, batch_size, batches):
    found = list(pipeline.epoch(Grey(cases), batch_size=batch_size))
    assert [batch["image"].shape for batch in found] == [(batch_size, 2, 2, 1)] * batches
    assert sum(batch["real"].sum() for batch in found) == cases


def test_errors_name_the_remedy(directory, tmp_path):
    with pytest.raises(InputError, match=r"has no split 'val'; choose one of train, validation, test$"):
        pipeline.Split(directory, "val", size=16)
    with pytest.raises(InputError, match=r"holds no prepared data set; prepare one with python -m launch\.prepare"):
        pipeline.Split(tmp_path, "train", size=16)
    with pytest.raises(InputError, match="holds no prepared data set"):
        pipeline.split_sizes(tmp_path / "nowhere")
    with pytest.raises(InputError, match="size is 0"):
        pipeline.Split(directory, "train", size=0)
    with pytest.raises(
        InputError, match="grey: has 3 cases, fewer than the batch size 4; choose a batch size of at most 3"
    ):
        pipeline.batches(Grey(3), batch_size=4, seed=0)
    for function in (
        lambda n: pipeline.batches(Grey(3), batch_size=n, seed=0),
        lambda n: pipeline.epoch(Grey(3), batch_size=n),
    ):
        with pytest.raises(InputError, match="the batch size is 0; it must be at least 1"):
            function(0)


def test_an_unreadable_case_is_an_error_not_a_hang():
    class Broken(Grey):
        def __getitem__(self, index):
            if index == 2:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="the disk is gone"):
        take(pipeline.batches(Broken(6), batch_size=3, seed=0), 4)


READ = """
import sys
from jaxseg.data import pipeline
split = pipeline.Split(sys.argv[1], "train", size=32)
next(pipeline.batches(pipeline.in_memory(split), batch_size=4, seed=0))
next(pipeline.epoch(split, batch_size=4))
assert "tensorflow" not in sys.modules
"""


def test_reading_is_quiet_and_needs_no_tensorflow(directory):
    result = subprocess.run([sys.executable, "-c", READ, str(directory)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError(), RuntimeError("not built")])
def test_what_keeps_a_data_set_from_being_read_is_not_called_damage(directory, monkeypatch, error):
    def fail(_):
        raise error

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder_from_directory", fail)
    with pytest.raises(InputError, match="cannot be read here: ") as told:
        pipeline.Split(directory, "train", size=None)
    assert not any(word in str(told.value) for word in ("damaged", "remove", "\n"))


def test_every_size_has_its_share_of_the_steps():
    """In as many steps as there are cases every group has as many steps as cases, the smallest too."""
    sizes = [(8, 8)] * 7 + [(8, 16)] * 2 + [(32, 8)]
    cases = pipeline.Listed(
        "many", ("a", "b"), tuple({"image": np.zeros((*s, 1)), "labels": np.zeros(s)} for s in sizes), ""
    )
    batches = itertools.islice(pipeline.batches(cases, batch_size=2, seed=3), 40)
    counts = collections.Counter(batch["labels"].shape[1:] for batch in batches)
    assert counts == {(8, 8): 28, (8, 16): 8, (32, 8): 4}
    index = [batch["index"].tolist() for batch in itertools.islice(pipeline.batches(cases, batch_size=2, seed=3), 12)]
    resumed = pipeline.batches(cases, batch_size=2, seed=3, start_step=7)
    assert [next(resumed)["index"].tolist() for _ in range(5)] == index[7:]
    epoch = list(pipeline.epoch(cases, batch_size=4))
    order = np.concatenate([b["index"] for b in epoch])
    places = pipeline.in_order(order, np.concatenate([b["real"] for b in epoch]))
    assert order[places].tolist() == list(range(10)) and len(epoch) == 2 + 1 + 1
