"""Questions: numbers of all cases and pictures of a few, what is made of cases, and answers that outlast a process."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.audit import pictures, progress

BOTH = ("original", "quadrant")


def answers(seen):
    """The mean of an image is a number, the image a picture."""
    twice = jnp.stack([seen["images"], -seen["images"]], 1)
    shown = {
        "images": twice,
        "labels": jnp.stack([seen["labels"]] * 2, 1),
        "classes": jnp.stack([seen["index"]] * 2, 1),
    }
    return {"mean": jnp.mean(seen["images"], (1, 2, 3)), "pictures": shown}


@pytest.mark.parametrize("view", BOTH)
def test_pictures_are_of_the_chosen_cases_alone_and_in_their_order(networks, subject_of, squares, view):
    subject = subject_of(networks.Threshold(), squares(11), view=view, resized=16)
    asked = subject.asks(lambda network, seen: answers(seen))
    told = subject.asks(lambda network, seen: answers(seen)["pictures"])(subject.test)
    numbers = asked(subject.test)
    assert set(numbers) == {"mean"}
    np.testing.assert_allclose(numbers["mean"], told["images"][:, 0].mean((1, 2, 3)), atol=1e-6)
    chosen = np.array([9, 2, 10])
    found = asked.pictures(subject.test, chosen)
    for name, values in told.items():
        np.testing.assert_array_equal(found[name], values[chosen])
    nothing = pictures.of(asked, subject.test, chosen[:0])
    assert nothing.images.shape == (0, 2, 16, 16, 3) and not len(nothing.chosen)


def test_pairs_are_of_the_two_pictures_that_are_wanted():
    found = {name: np.arange(12).reshape(3, 4) + i for i, name in enumerate(("images", "labels", "classes"))}
    asked = types.SimpleNamespace(pictures=lambda cases, chosen: {name: v[chosen] for name, v in found.items()})
    pairs = pictures.of(asked, None, np.array([2, 0]), both=(3, 1))
    np.testing.assert_array_equal(pairs.images, [[11, 9], [3, 1]])
    np.testing.assert_array_equal(pairs.labels, pairs.images + 1)
    np.testing.assert_array_equal(pairs.classes, pairs.images + 2)


@pytest.mark.parametrize("view", BOTH)
def test_what_is_made_of_a_case_is_seen_as_the_case_is(networks, subject_of, squares, view):
    """Images as images are, masks as shares of pixels, numbers as they are; whichever cases are asked about."""
    subject = subject_of(networks.Threshold(), squares(11), view=view, resized=16)

    def make(case, place):
        mask = np.zeros((2, 32, 32), bool)
        mask[0] = case["labels"] > 0
        return {"images": np.stack([255 - case["image"], case["image"]]), "masks": mask, "place": np.int32(place)}

    def question(network, seen):
        return {"numbers": seen["place"], "pictures": {name: seen[name] for name in ("images", "made", "masks")}}

    asked = subject.asks(question, make=make)
    np.testing.assert_array_equal(asked(subject.test)["numbers"], np.arange(11))
    chosen = np.array([7, 3])
    seen = asked.pictures(subject.test, chosen)
    assert seen["made"].shape == (2, 2, 16, 16, 3) and seen["masks"].shape == (2, 2, 16, 16)
    np.testing.assert_allclose(seen["made"][:, 1], seen["images"], atol=1e-6)
    np.testing.assert_allclose(seen["made"][:, 0], -seen["images"], atol=1e-6)
    assert not seen["masks"][:, 1].any()
    whole = np.array([(subject.test.labels[i] > 0).mean() for i in chosen])
    if view == "original":  # resizing keeps areas, away from the border
        np.testing.assert_allclose(seen["masks"][:, 0].mean((1, 2)), whole, rtol=1e-5)
    inside = seen["masks"][:, 0] == 1
    assert (
        inside.any() and (seen["images"][inside] > 0.5).all() and (seen["images"][seen["masks"][:, 0] == 0] < 0).all()
    )


class Numbers:
    """Cases that are a number each."""

    name = "drawn/test"

    def __init__(self, count):
        self.read = []
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        self.read.append(int(index))
        return {"image": np.float32(index) ** 2}


def twice(batch):
    return {"twice": 2 * batch["image"], "parity": batch["index"] % 2}


class DiedError(Exception):
    """In place of a kill."""


@pytest.mark.parametrize("damaged", [False, True])
def test_answers_of_a_process_that_died_are_taken_over(tmp_path, monkeypatch, damaged):
    monkeypatch.setattr(progress, "_EVERY", 0)
    wanted = {"twice": 2 * np.arange(11, dtype=np.float32) ** 2, "parity": np.arange(11) % 2}
    cases, seen = Numbers(11), []

    def dies(batch):
        if len(seen) == 3:
            raise DiedError
        seen.append(batch["index"].tolist())
        return twice(batch)

    with pytest.raises(DiedError):
        progress.Progress("drawn", tmp_path).over_cases(dies, cases, batch_size=2)
    assert seen == [[0, 1], [2, 3], [4, 5]]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    if damaged:
        files[1].write_bytes(files[1].read_bytes()[:100])
    again, asked = progress.Progress("drawn", tmp_path), []
    run = lambda batch: asked.append(batch["index"].tolist()) or twice(batch)
    for question in range(2):  # the second is another question, of which nothing is known
        found = again.over_cases(run, cases, batch_size=2)
        assert asked == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 10]][0 if question else 1 if damaged else 3 :]
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)
        asked.clear()
    third = progress.Progress("drawn", tmp_path).over_cases(run, cases, batch_size=2)  # all of it was kept
    assert not asked and third["twice"].tolist() == wanted["twice"].tolist()
    progress.Progress("drawn", tmp_path).over_cases(run, Numbers(9), batch_size=2)
    assert asked[0] == [0, 1]  # of other cases


def test_a_bar_has_the_name_of_the_probe_and_counts_cases(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, items, name, total, **options):
            bars.append([name, total, options["initial"], options["disable"]])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            bars[-1].append(count)

    monkeypatch.setattr(progress.tqdm, "tqdm", Bar)
    asked = progress.Progress("padding")
    found = asked.over_cases(twice, Numbers(5), batch_size=2)
    assert found["parity"].tolist() == [0, 1, 0, 1, 0]
    assert len(list(asked.batches(Numbers(5), batch_size=2, first=2))) == 1
    assert bars == [["padding", 5, 0, None, 2, 2, 1], ["padding", 5, 4, None, 1]]  # None: on a terminal alone
