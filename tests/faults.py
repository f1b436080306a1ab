"""Whether the tests notice faults: one after another is put into a copy of the package, and its room's tests are run.

    python tests/faults.py --count=40 --seed=0

The faults are drawn evenly over the rooms of the package and over the kinds below, each in a single line. Without any,
the tests of every room have to pass. Of a fault, first the test file of the same name is asked, then all of the room.
Prints a line for every fault.
"""

import argparse
import ast
import collections
import concurrent.futures
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = (
    *("analysis", "metrics", "results", "models", "data", "training", "prediction", "scores", "studies", "audit"),
    *("report", "benchmarks", "networks"),
)

_SIGNS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}
_ORDERS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}


class Fault(NamedTuple):
    """A line of a file as it would be."""

    path: pathlib.Path
    kind: str
    line: int
    start: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """Columns count bytes, as `ast` does."""
        lines = source.encode().split(b"\n")
        line = lines[self.line - 1]
        lines[self.line - 1] = line[: self.start] + self.text.encode() + line[self.end :]
        return b"\n".join(lines).decode()


def faults(path: pathlib.Path) -> Iterator[Fault]:
    """All that can be put into a file."""
    source = path.read_text()
    parts = lambda *nodes: (ast.get_source_segment(source, node) for node in nodes)
    for node in _numeric(ast.parse(source)):
        if getattr(node, "lineno", 0) != getattr(node, "end_lineno", 1):
            continue
        put = lambda kind, text, node=node: Fault(path, kind, node.lineno, node.col_offset, node.end_col_offset, text)
        match node:
            case ast.BinOp(left, op, right) if type(op) in _SIGNS and not _is_text(left) and not _is_text(right):
                a, b = parts(left, right)
                yield put("sign", f"(({a}) {_SIGNS[type(op)]} ({b}))")
                yield put("dropped term", f"({a})")
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                yield put("sign", f"(+({next(parts(operand))}))")
            case ast.Compare(left, [op], [right]) if type(op) in _ORDERS:
                a, b = parts(left, right)
                yield put("order", f"(({a}) {_ORDERS[type(op)]} ({b}))")
            case ast.Subscript(_, ast.Constant(int())) | ast.Subscript(_, ast.Slice()):
                for number in ast.walk(node.slice):
                    if isinstance(number, ast.Constant) and isinstance(number.value, int):
                        place = (number.lineno, number.col_offset, number.end_col_offset)
                        yield Fault(path, "off by one", *place, str(number.value + 1))
            case ast.Call(ast.Name("range"), [*_, last]):
                yield Fault(
                    path, "off by one", last.lineno, last.col_offset, last.end_col_offset, f"({next(parts(last))}) - 1"
                )
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.If(test, [ast.Raise()], []) if test.lineno == test.end_lineno:
                yield Fault(path, "skipped check", test.lineno, test.col_offset, test.end_col_offset, "False")


def _is_text(node: ast.AST) -> bool:
    """Whether it is part of a path or a message."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _numeric(node: ast.AST) -> Iterator[ast.AST]:
    """Expressions, but for those of types and texts."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or name in ("annotation", "returns"):
                continue
            yield child
            yield from _numeric(child)


def drawn(count: int, seed: int) -> list[Fault]:
    """Evenly over rooms, and within a room over kinds."""
    draw = random.Random(seed)
    queues = []
    for room in ROOMS:
        kinds = collections.defaultdict(list)
        for path in sorted((ROOT / "jaxseg" / room).rglob("*.py")):
            for fault in faults(path):
                kinds[fault.kind].append(fault)
        for found in kinds.values():
            draw.shuffle(found)
        order = sorted(kinds)
        draw.shuffle(order)
        queues.append([kinds[kind].pop() for _ in range(count) for kind in order if kinds[kind]])
    return [queue[number] for number in range(count) for queue in queues if number < len(queue)][:count]


def noticed(fault: Fault, copy: pathlib.Path) -> bool:
    """Whether the tests of its room fail with it."""
    path = copy / fault.path.relative_to(ROOT)
    sound = path.read_text()
    room = path.relative_to(copy / "jaxseg").parts[0]
    names = {f"test_{name}.py" for name in (path.stem, path.parent.name)}  # a study is a folder
    own = sorted(test for test in (copy / "tests" / room).rglob("test_*.py") if test.name in names)
    path.write_text(fault.applied(sound))
    try:
        return any(_status(copy, tests) in (1, 2) for tests in ([own] if own else []) + [[copy / "tests" / room]])
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(sound)


def _status(copy: pathlib.Path, tests: list[pathlib.Path]) -> int:
    """Of pytest: 0 where all pass, 1 and 2 where tests, or their collection, fail. Raises where it takes too long."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *map(str, tests)]
    # all of its own, so that nothing fails but for the fault
    own = {"PYTHONPATH": str(copy), "JAX_COMPILATION_CACHE_DIR": str(copy / ".jax_cache")}
    environment = os.environ | own | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=900).returncode


def main() -> None:
    """Two copies, as CI has two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
        copies = [pathlib.Path(folder, str(number)) for number in range(2)]
        for copy in copies:
            for name in tracked:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        statuses = pool.map(lambda room: _status(copies[0], [copies[0] / "tests" / room]), ROOMS)
        if unsound := [room for room, status in zip(ROOMS, statuses, strict=True) if status]:
            sys.exit(f"without any fault, the tests of {', '.join(unsound)} fail")
        free = list(copies)

        def ask(fault: Fault) -> bool:
            copy = free.pop()
            try:
                found = noticed(fault, copy)
            finally:
                free.append(copy)
            line = fault.path.read_text().splitlines()[fault.line - 1].strip()
            place = f"{fault.path.relative_to(ROOT)}:{fault.line}"
            print(f"{'noticed' if found else 'MISSED':8s}{place}  {fault.kind}: {line}  ->  {fault.text}", flush=True)
            return found

        found = list(pool.map(ask, drawn(given.count, given.seed)))
    print(f"{sum(found)} of {len(found)} noticed")
    sys.exit(0 if all(found) else 1)


if __name__ == "__main__":
    main()
