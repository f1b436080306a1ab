"""Which of the tensors that a module returns is its answer; stand-ins for tensors, so PyTorch is not needed."""

import collections
import dataclasses
import types

import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.networks import picking


class Tensor(np.ndarray):
    """What is asked of a tensor."""

    requires_grad = False

    def numel(self):
        return self.size


def tensor(*shape):
    return np.zeros(shape, np.float32).view(Tensor)


@dataclasses.dataclass
class Kept:
    """An answer that is no dictionary."""

    logits: Tensor


WHOLE, HALF, QUARTER = (tensor(2, 3, side, side) for side in (8, 4, 2))
FEATURES, TOKENS = tensor(2, 16, 8, 8), tensor(2, 64, 3)


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        [WHOLE, HALF, QUARTER],
        (QUARTER, HALF, WHOLE),
        (WHOLE, tensor(2, 7)),
        {"out": WHOLE, "aux": tensor(2, 3, 8, 8)},
        {"aux": tensor(2, 3, 8, 8), "out": WHOLE},
        {"loss": tensor(), "logits": WHOLE, "hidden_states": (FEATURES, TOKENS)},
        collections.OrderedDict(prediction=[None, {"deep": WHOLE}], features=FEATURES, name="x"),
    ],
)
def test_the_answer_is_found_wherever_it_stands(answer):
    assert picking.picked(answer, 2, (8, 8), (3,), "it") is WHOLE


def test_all_classes_go_before_one_channel_and_a_mask_may_lack_its_axis():
    mask, both = tensor(2, 1, 8, 8), tensor(2, 2, 8, 8)
    assert picking.picked([mask, both], 2, (8, 8), (2, 1), "it") is both
    assert picking.picked({"mask": mask}, 2, (8, 8), (2, 1), "it") is mask
    assert picking.picked(tensor(2, 8, 8), 2, (8, 8), (2, 1), "it").shape == (2, 1, 8, 8)
    assert picking.picked(tensor(2, 2, 4, 8, 8), 2, (4, 8, 8), (2, 1), "it").shape == (2, 2, 4, 8, 8)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ([WHOLE, tensor(2, 3, 8, 8)], "it gave 2 answers alike, 0, 1; give a module that returns the one that counts"),
        (FEATURES, r"it gave \(2, 16, 8, 8\) for 8 x 8 images, and none of 3 channels; give num_classes"),
        ({"out": FEATURES, "x": [TOKENS]}, r"gave out \(2, 16, 8, 8\), x/0 \(2, 64, 3\) for 8 x 8 images"),
        (None, r"it gave a NoneType for 8 x 8 images; give a module that returns a tensor \[2,K,8,8\], or dict"),
        (types.SimpleNamespace(logits=WHOLE), "it gave a SimpleNamespace for 8 x 8 images; give a module that returns"),
        (Kept(WHOLE), "it gave a Kept for 8 x 8 images; give a module that returns a tensor"),
        (tensor(2, 8, 8, 3), r"it gave \(2, 8, 8, 3\) for 8 x 8 images, with the channels last; give a module th"),
        (tensor(1, 3, 8, 8), r"it gave \(1, 3, 8, 8\) for 8 x 8 images; give a module that returns a tensor"),
        (tensor(2, 7, 8, 8), "and none of 3 channels; give num_classes as it has them"),
    ],
)
def test_no_answer_or_several_are_refused(answer, sentence):
    with pytest.raises(InputError, match=sentence):
        picking.picked(answer, 2, (8, 8), (3,), "it")


def test_answers_may_be_smaller_by_a_whole_factor():
    for given, sides in (((8, 8), (8, 8)), ((2, 3), (8, 12)), ((3, 2), (9, 5)), ((1, 2, 2), (4, 8, 8))):
        picking.check_size(given, sides, "it")
    for given, sides in (
        ((388, 388), (572, 572)),
        ((1, 1), (8, 8)),
        ((16, 16), (8, 8)),
        ((4, 8), (8, 8)),
        ((6, 8), (8, 8)),
    ):
        with pytest.raises(InputError, match=f"it gave {given[0]} x {given[1]} answers for {sides[0]} x {sides[1]} im"):
            picking.check_size(given, sides, "it")
