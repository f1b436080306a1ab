"""A folder of pictures without a cue: bright squares in the middle of dark images, a patient each."""

import numpy as np
from PIL import Image


def write(folder, side, *, test=8, domains=(), classes=2):
    """`cases.csv`, `classes.csv` and PNG files of `side` pixels a side, for `folder/NAME`.

    Cases are of the domains by turns; of three classes, the third is the middle of a square.
    """
    random = np.random.default_rng(0)
    rows = ["case,image,mask,patient,split" + (",domain" if domains else "")]
    for split, count in {"train": 6, "validation": 2, "test": test}.items():
        for i in range(count):
            y, x = side // 3 - 1 + random.integers(0, 3, 2)
            labels = np.zeros((side, side), np.uint8)
            labels[y : y + side // 3, x : x + side // 3] = 1
            if classes == 3:
                labels[y + side // 9 : y + 2 * side // 9, x + side // 9 : x + 2 * side // 9] = 2
            gray = np.array([40, 200, 120])[labels] + random.integers(-9, 10, labels.shape)
            name = f"{split}{i}"
            Image.fromarray(np.repeat(gray[..., None], 3, -1).astype(np.uint8)).save(folder / f"{name}.png")
            Image.fromarray(labels).save(folder / f"{name}_mask.png")
            rows.append(",".join([name, f"{name}.png", f"{name}_mask.png", name, split, *domains[i % 2 : i % 2 + 1]]))
    (folder / "cases.csv").write_text("\n".join(rows))
    names = ("background", "square", "middle")[:classes]
    lines = [f"{value},{name}" for value, name in enumerate(names)]
    (folder / "classes.csv").write_text("\n".join(["value,name", *lines]) + "\n")
