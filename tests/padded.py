"""Cases of many sizes, and the batch in which they are padded to one, with rubbish where nothing counts."""

import numpy as np

SIZES = ((5, 8), (7, 4))
CANVAS = (9, 10)
CORNERS = ((0, 0), (2, 5))  # where a case lies


def cases(seed, **draw):
    """Per size the arrays of a case, `draw[name](random, (1, *size))`."""
    random = np.random.default_rng(seed)
    return [{name: make(random, (1, *size)) for name, make in draw.items()} for size in SIZES]


def batch(cases, *, finite=False):
    """The arrays of all cases on one canvas, and where they count; around them numbers that nothing may depend on.

    Integers are 0 there, as labels are; floats huge, infinite and NaN, or with `finite` only wild.
    """
    random = np.random.default_rng(1)
    whole = {}
    for name, first in cases[0].items():
        shape = (len(cases), *CANVAS, *first.shape[3:])
        if first.dtype.kind == "f":
            rubbish = random.choice([3.0, -2.0, 0.5] if finite else [1e30, -np.inf, np.inf, np.nan], shape)
        else:
            rubbish = np.zeros(shape)
        whole[name] = rubbish.astype(first.dtype)
    valid = np.zeros((len(cases), *CANVAS), bool)
    for i, (one, place) in enumerate(zip(cases, places(), strict=True)):
        valid[i][place] = True
        for name, array in one.items():
            whole[name][i][place] = array[0]
    return whole | {"valid": valid}


def places():
    """The slices in which the cases lie."""
    return [
        tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))
        for corner, size in zip(CORNERS, SIZES, strict=True)
    ]


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def logits(random, shape, classes=3):
    return random.standard_normal((*shape, classes)).astype(np.float32)


def labels(random, shape, classes=3):
    return random.integers(0, classes, shape).astype(np.int32)
