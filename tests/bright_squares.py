"""A folder of pictures without a cue: bright squares in the middle of dark images, a patient each."""

import numpy as np
from PIL import Image


def write(folder, side):
    """`cases.csv`, `classes.csv` and PNG files of `side` pixels a side, for `folder/NAME`."""
    random = np.random.default_rng(0)
    rows = ["case,image,mask,patient,split"]
    for split, count in {"train": 6, "validation": 2, "test": 8}.items():
        for i in range(count):
            y, x = side // 3 - 1 + random.integers(0, 3, 2)
            labels = np.zeros((side, side), np.uint8)
            labels[y : y + side // 3, x : x + side // 3] = 1
            gray = np.where(labels, 200, 40) + random.integers(-9, 10, labels.shape)
            name = f"{split}{i}"
            Image.fromarray(np.repeat(gray[..., None], 3, -1).astype(np.uint8)).save(folder / f"{name}.png")
            Image.fromarray(labels).save(folder / f"{name}_mask.png")
            rows.append(f"{name},{name}.png,{name}_mask.png,{name},{split}")
    (folder / "cases.csv").write_text("\n".join(rows))
    (folder / "classes.csv").write_text("value,name\n0,background\n1,square\n")
