"""Speed and memory side by side with the PyTorch originals, in one run on one machine.

python -m launch.benchmark analyses --workdir=runs/benchmark
python -m launch.benchmark train --workdir=runs/benchmark
python -m launch.benchmark replicas --workdir=runs/benchmark
python -m launch.benchmark data --workdir=runs/benchmark
python -m launch.benchmark depths --workdir=runs/benchmark
python -m launch.benchmark augmentation --workdir=runs/benchmark
python -m launch.benchmark audit --workdir=runs/benchmark
"""

import pathlib

from absl import flags

from launch import cli

_WORKDIR = flags.DEFINE_string("workdir", "runs/benchmark", "Folder for the results, one JSON file per benchmark.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How often the two sides of a comparison take turns.", lower_bound=1)
_STEPS = flags.DEFINE_multi_string(
    "step", [], "Of augmentation: WIDTH,SIZE,BATCH or WIDTH,SIZE,BATCH,RANK to measure in place of the usual ones."
)


def main(name: str) -> None:
    from jaxseg import atomic, benchmarks

    result = benchmarks.run(name, rounds=_ROUNDS.value, steps=_STEPS.value)
    path = pathlib.Path(_WORKDIR.value) / f"{name}.json"
    atomic.write_json(path, {"command": cli.command()} | result)
    print(benchmarks.text(result))
    print(path)


if __name__ == "__main__":
    cli.run(main, commands=("analyses", "train", "replicas", "data", "depths", "augmentation", "audit"))
