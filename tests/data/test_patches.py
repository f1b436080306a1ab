"""Patches of cases of any size: where they lie, how many hold foreground, that a batch is a function of its step."""

import itertools

import numpy as np
import pytest

from jaxseg.data.patches import Sampler
from jaxseg.data.pipeline import Listed
from jaxseg.errors import InputError


def case(seed, size, square=3):
    """Every pixel has a number of its own; a square of class 1 and one of class 2, far apart."""
    image = np.arange(np.prod(size), dtype=np.float32).reshape(*size, 1) + 1e5 * seed
    labels = np.zeros(size, np.uint8)
    labels[(slice(0, square),) * len(size)] = 1
    labels[tuple(slice(n - square, n) for n in size)] = 2
    valid = np.ones(size, bool)
    valid[..., 0] = False
    return {"case": f"c{seed}", "image": image, "labels": labels, "valid": valid}


def source(sizes=((40, 50), (30, 64), (33, 33), (90, 31))):
    return Listed("mine/train", ("background", "a", "b"), tuple(case(i, size) for i, size in enumerate(sizes)), "print")


def first(sampler, count, **options):
    return list(itertools.islice(sampler.batches(**{"batch_size": 4, "seed": 0} | options), count))


def test_a_patch_is_a_part_of_its_case():
    cases = source()
    for batch in first(Sampler(cases, sides=(16, 24), foreground=0.5), 20):
        assert batch["image"].shape == (4, 16, 24, 1) and batch["valid"].dtype == bool
        for image, labels, valid, index in zip(*(batch[n] for n in ("image", "labels", "valid", "index")), strict=True):
            whole = cases[index]
            y, x = np.argwhere(whole["image"][..., 0] == image[0, 0, 0])[0]
            where = (slice(y, y + 16), slice(x, x + 24))
            np.testing.assert_array_equal(image, whole["image"][where])
            np.testing.assert_array_equal(labels, whole["labels"][where])
            np.testing.assert_array_equal(valid, whole["valid"][where])


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize(("share", "in_turn"), [(0.0, (0,)), (1 / 3, (0, 0, 1)), (0.5, (0, 1)), (1.0, (1,))])
def test_a_share_of_the_patches_holds_foreground(share, in_turn, batch_size):
    """The last ones of a batch, as in nnU-Net; of the others some do by chance, and classes are drawn alike."""
    sampler = Sampler(source(((200, 200),) * 4), sides=(20, 20), foreground=share)
    batches = first(sampler, 240 // batch_size, batch_size=batch_size)
    sure = np.resize(in_turn, 240).reshape(-1, batch_size).sum(1)
    assert sure.sum() == 240 * share
    chosen = np.arange(batch_size) >= batch_size - sure[:, None]
    classes = np.stack([batch["labels"].max((1, 2)) for batch in batches])
    assert (classes[chosen] > 0).all()
    assert chosen.all() or (classes[~chosen] > 0).mean() < 0.1
    assert not chosen.any() or 0.3 < (classes[chosen] == 1).mean() < 0.7


def test_a_batch_is_a_function_of_its_step_for_any_number_of_hosts():
    sampler = Sampler(source(), sides=(16, 16), foreground=0.5)
    straight = first(sampler, 9)
    for later, one in zip(
        first(Sampler(source(), sides=(16, 16), foreground=0.5), 4, start_step=5), straight[5:], strict=True
    ):
        for name in one:
            np.testing.assert_array_equal(later[name], one[name])
    halves = [first(sampler, 3, part=(i, 2)) for i in range(2)]
    for one, left, right in zip(straight, *halves, strict=False):
        for name in one:
            np.testing.assert_array_equal(np.concatenate([left[name], right[name]]), one[name])
    assert not np.array_equal(straight[0]["image"], first(sampler, 1, seed=1)[0]["image"])


def test_patches_reach_every_pixel_and_stay_inside():
    sampler = Sampler(source(((9, 12),)), sides=(4, 4), foreground=0)
    rng = np.random.default_rng(0)
    corners = {sampler.draw(rng, 0, sure=False)["image"][0, 0, 0] for _ in range(1500)}
    assert corners == {12.0 * y + x for y in range(6) for x in range(9)}


def test_volumes_and_cases_without_foreground():
    empty = case(0, (12, 20, 20))
    empty["labels"][:] = 0
    cases = Listed("v", ("background", "a"), (empty, case(1, (12, 24, 20))), "print")
    for batch in first(Sampler(cases, sides=(8, 16, 16), foreground=1.0), 5, batch_size=2):
        assert batch["image"].shape == (2, 8, 16, 16, 1)
        for labels, index in zip(batch["labels"], batch["index"], strict=True):
            assert (labels > 0).any() == (index == 1)


def test_a_batch_of_more_cases_than_there_are_is_refused():
    with pytest.raises(InputError, match="mine/train: has 4 cases, fewer than the batch size 5"):
        Sampler(source(), sides=(4, 4), foreground=0).batches(batch_size=5, seed=0)
