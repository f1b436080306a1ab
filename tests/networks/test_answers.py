"""Answers of all kinds as logits of one softmax: closed forms, and what cannot be one."""

import jax
import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.networks import answers

RANDOM = np.random.default_rng(0)
SHARES = RANDOM.uniform(0.05, 0.95, (2, 3, 4, 3)).astype(np.float32)
SOFTMAX = SHARES / SHARES.sum(-1, keepdims=True)
LOGITS = RANDOM.normal(0, 3, (2, 3, 4, 3)).astype(np.float32)


def exactly_once(shares, *, or_never=False):
    """Probabilities of which of independent answers is the only yes, by going through them."""
    whole = [np.prod(1 - shares, -1)] if or_never else []
    for chosen in range(shares.shape[-1]):
        whole.append(shares[..., chosen] * np.prod(np.delete(1 - shares, chosen, -1), -1))
    return np.stack(whole, -1) / np.sum(whole, 0)[..., None]


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("answer", "classes", "given", "told", "expected"),
    [
        (LOGITS, 3, None, "logits", softmax(LOGITS)),
        (LOGITS[..., :1], 2, None, "logits", np.stack([1 - (s := 1 / (1 + np.exp(-LOGITS[..., 0]))), s], -1)),
        (SOFTMAX, 3, None, "probabilities", SOFTMAX),
        (SOFTMAX.astype(np.float16), 3, None, "probabilities", SOFTMAX),
        (SHARES[..., :1], 2, None, "probabilities", np.stack([1 - SHARES[..., 0], SHARES[..., 0]], -1)),
        (SHARES[..., :1], 2, "logits", "logits", softmax(np.concatenate([0 * SHARES[..., :1], SHARES[..., :1]], -1))),
        (SOFTMAX, 3, "logits", "logits", softmax(SOFTMAX)),
        (SHARES, 3, "sigmoids", "sigmoids", exactly_once(SHARES)),
        (SHARES, 4, "sigmoids", "sigmoids", exactly_once(SHARES, or_never=True)),
        (0 * LOGITS, 3, None, "logits", np.full(LOGITS.shape, 1 / 3)),
    ],
)
def test_every_kind_of_answer_is_a_softmax(answer, classes, given, told, expected):
    reading = answers.read(answer, classes, given, "it")
    assert reading.output == told
    logits = reading.logits(answer)
    assert logits.dtype == np.float32 and logits.shape[-1] == classes
    np.testing.assert_allclose(softmax(np.asarray(logits)), expected, atol=1e-3 if answer.dtype == np.float16 else 1e-6)


def test_what_is_certain_has_finite_logits_that_say_so():
    mask = RANDOM.integers(0, 2, (1, 4, 4, 1))
    for answer, classes in ((mask, 2), (mask.astype(bool), 2), (np.concatenate([1 - mask, mask], -1), 2)):
        logits = np.asarray(answers.read(answer, classes, None, "it").logits(jax.numpy.asarray(answer)))
        assert np.isfinite(logits).all() and (logits.argmax(-1) == mask[..., 0]).all()
        np.testing.assert_allclose(softmax(logits)[..., 1], mask[..., 0], atol=1e-6)


def test_a_note_says_what_answers_are_where_they_are_no_logits_of_all_classes():
    note = lambda channels, output: answers.Reading(3 if channels > 1 else 2, channels, output).notes
    assert note(3, "logits") == ()
    assert note(1, "logits") == ("The answer is one logit, that of the foreground.",)
    assert note(1, "probabilities") == ("The answer is one probability, that of the foreground.",)
    assert note(3, "probabilities") == ("The answers are probabilities, taken as their logarithms.",)
    assert note(2, "sigmoids") == ("The answers are 2 sigmoids, without one of the background.",)


@pytest.mark.parametrize(
    ("answer", "classes", "output", "sentence"),
    [
        (LOGITS, 2, None, "it gave 3 channels for num_classes=2; give the number of its classes"),
        (LOGITS[..., :1], 3, None, "it gave 1 channels for num_classes=3"),
        (LOGITS, 1, None, "num_classes is 1; the background counts"),
        (LOGITS, 3, "odds", "output is 'odds'; choose one of logits, probabilities, sigmoids"),
        (SHARES, 3, None, "between 0 and 1 that do not sum to 1; if these are independent yes or no answers, give"),
        (SHARES, 3, "probabilities", "it gave channels that do not sum to 1"),
        (LOGITS, 3, "sigmoids", "which are no sigmoids; give output='logits'"),
        (np.full((2, 3, 4, 1), 0.5), 2, None, "it gave 0.5 everywhere on trial images, which may be a logit or a prob"),
        (np.where(LOGITS > 5, np.nan, LOGITS), 3, None, "it gave NaN; look at its weights"),
        (RANDOM.integers(0, 3, (2, 3, 4, 1)), 2, None, "it gave whole numbers up to 2; of a mask give 0 and 1"),
    ],
)
def test_what_can_be_no_softmax_is_one_sentence(answer, classes, output, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")) as error:
        answers.read(answer, classes, output, "it")
    assert "\n" not in str(error.value)
