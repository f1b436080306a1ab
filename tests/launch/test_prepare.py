"""The launcher, as a person runs it."""

import subprocess

import numpy as np
import pytest
from PIL import Image

from jaxseg.data.builders.isic2017 import FOLDERS


def problems(result: subprocess.CompletedProcess) -> list[str]:
    """The lines of a failure that a person can fix."""
    assert result.returncode == 2 and result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()


@pytest.fixture
def raw(tmp_path):
    for number, (images, masks) in enumerate(FOLDERS.values()):
        for name in (images, masks):
            (tmp_path / "raw" / name).mkdir(parents=True)
        for case in range(2):
            name, size = f"ISIC_{10 * number + case:07d}", (30 + 10 * case, 24)
            Image.new("RGB", size, (200, 150, 10 * number + case)).save(tmp_path / "raw" / images / f"{name}.jpg")
            mask = Image.fromarray(np.eye(*size[::-1], dtype=np.uint8) * 255)
            mask.save(tmp_path / "raw" / masks / f"{name}_segmentation.png")
    return tmp_path / "raw"


def test_prepares_and_says_what_there_is(raw, tmp_path, launch):
    flags = ("--dataset=isic2017/256", f"--manual_dir={raw}", f"--data_dir={tmp_path / 'data'}")
    for said in ("isic2017/256: usable; 1 warning", f"{tmp_path}/data/isic2017/256/2.0.0 is already prepared"):
        result = launch("prepare", *flags)
        assert result.returncode == 0
        assert result.stderr.startswith(said) and len(result.stderr.splitlines()) == 1
        assert result.stdout.splitlines() == [
            f"{tmp_path}/data/isic2017/256/2.0.0",
            "train: 2 cases",
            "validation: 2 cases",
            "test: 2 cases",
        ]


def test_lists_every_problem_and_writes_nothing(raw, tmp_path, launch):
    (images, masks), (_, other_masks), (test_images, _) = FOLDERS.values()
    (raw / masks / "ISIC_0000000_segmentation.png").unlink()
    Image.new("L", (40, 24), 1).save(raw / masks / "ISIC_0000001_segmentation.png")
    Image.new("L", (31, 24), 255).save(raw / other_masks / "ISIC_0000010_segmentation.png")
    (raw / test_images / "ISIC_0000020.jpg").write_bytes((raw / test_images / "ISIC_0000020.jpg").read_bytes()[:-100])
    (raw / test_images / "ISIC_0000021.jpg").write_text("not an image")
    summary, *lines = problems(
        launch("prepare", "--dataset=isic2017/256", f"--manual_dir={raw}", f"--data_dir={tmp_path / 'data'}")
    )
    assert summary == f"error: 5 problems in {raw}; nothing was prepared:"
    for line, (name, part) in zip(
        lines,
        [
            (f"{images}/ISIC_0000000.jpg", "has no mask"),
            (f"{masks}/ISIC_0000001_segmentation.png", "holds the value 1; a mask is 0 outside"),
            (f"{other_masks}/ISIC_0000010_segmentation.png", "is 31x24, its image is 30x24"),
            (f"{test_images}/ISIC_0000020.jpg", "cannot be read as an image"),
            (f"{test_images}/ISIC_0000021.jpg", "no known image format"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{raw / name}: {part}") or (line.startswith(f"{raw / name}: ") and part in line)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--dataset=isic2017/256"], "error: isic2017/256 is not prepared in "),
        (["--dataset=isic2016"], "error: unknown data set 'isic2016'; choose one of dermoscopy/demo"),
        ([], "error: flag --dataset=None"),
    ],
)
def test_wrong_flags(tmp_path, launch, flags, wanted):
    (line,) = problems(launch("prepare", *flags, f"--data_dir={tmp_path / 'data'}"))
    assert line.startswith(wanted)
    assert not (tmp_path / "data").exists()
