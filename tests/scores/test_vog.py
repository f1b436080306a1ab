"""When checkpoints are kept for the variance of gradients; tests/studies asks for the variance itself."""

import ml_collections
import pytest

from jaxseg.errors import InputError
from jaxseg.scores import vog


@pytest.mark.parametrize(
    ("every", "epochs", "message"),
    [
        (0, 8, "vog_every is 0; it must be a multiple of training.evaluate_every"),
        (3, 8, "vog_every is 3; it must be a multiple of training.evaluate_every"),
        (4, 7, "vog_every is 4 of 7 epochs; a variance needs two checkpoints"),
        (4, 8, None),
        (2, 4, None),
    ],
)
def test_a_variance_needs_two_checkpoints_that_follow_validations(every, epochs, message):
    training = ml_collections.ConfigDict({"evaluate_every": 2, "epochs": epochs})
    if message is None:
        vog.check(every, training)
        return
    with pytest.raises(InputError, match=message):
        vog.check(every, training)
