"""Do the tests notice faults: python scripts/mutants.py [--each 20] [--seed 0] [--room ROOM] [--again]

Runs faults that are planted on purpose (tests/faults.toml) and a seeded sample of cosmic-ray's mutants of every room, one at a
time, against the tests of the room and of the rooms that reach it. The library is never edited: a fault is written to a copy.
Results go to benchmarks/mutants.json; `make docs` renders docs/mutants.md from them.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

from render.mutants import key

ROOT = Path(__file__).parents[1]
RECORD, FAULTS = ROOT / "benchmarks/mutants.json", ROOT / "tests/faults.toml"
TESTS = {  # of each room: its own tests first, then quick ones that reach it
    "metrics": ("metrics", "stats", "golden"),
    "stats": ("stats", "metrics"),
    "views": ("views",),
    "valuation": ("valuation",),
    "coreset": ("coreset",),
    "engine": ("engine", "golden"),
    "pretrain": ("pretrain",),
}
SAMPLED = tuple(room for room in TESTS if room != "pretrain")  # whose tests are quick enough
PRELOADED = ("torch", "pandas", "pyarrow", "scipy.stats", "sklearn.ensemble", "hypothesis", "jaxtyping", "beartype")
LEFT_OUT = ("ExceptionReplacer", "RemoveDecorator")  # the first breaks on tuples of exceptions
BITS, IDENTITY = {"RShift", "LShift", "BitOr", "BitAnd", "BitXor"}, {"Is", "IsNot"}


def planted(rooms: list[str]) -> Iterator[dict[str, Any]]:
    """Faults of tests/faults.toml, wherever in the room their text stands; one that stands nowhere, or twice, is an error."""
    for fault in tomllib.loads(FAULTS.read_text())["fault"]:
        if fault["room"] not in rooms:
            continue
        found = [path for path in files(fault["room"]) if fault["old"] in path.read_text()]
        if len(found) != 1 or found[0].read_text().count(fault["old"]) != 1:
            sys.exit(
                f"tests/faults.toml: {fault['what']!r} no longer applies: its old text stands in {len(found)} files of {fault['room']}, once is expected"
            )
        code = found[0].read_text()
        line = code[: code.index(fault["old"])].count("\n") + 1
        yield mutant(
            fault["room"], found[0], line, "planted", code, code.replace(fault["old"], fault["new"]), fault["what"]
        )


def sampled(room: str, each: int, seed: int) -> Iterator[dict[str, Any]]:
    """A seeded sample of places in a room's code where cosmic-ray mutates, with one of its mutants of each."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    provider = OperatorProvider()
    operators = {name: provider[name]() for name in provider if not provider[name].arguments() and telling(name)}
    places: dict[tuple[Path, tuple[int, int]], list[tuple[str, int]]] = {}
    for path in files(room):
        code = path.read_text()
        nodes, left_out, lines = list(ast_nodes(get_ast(code))), silent(code), code.splitlines()
        for name, operator in operators.items():
            positions = (position for node in nodes for position in operator.mutation_positions(node))
            for occurrence, (start, _) in enumerate(positions):
                bare = lines[start[0] - 1][start[1] :].startswith("*,")  # before arguments that go by name
                if not bare and not any(first <= start < last for first, last in left_out):
                    places.setdefault((path, start), []).append((name, occurrence))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for drawn, path, start, mutants in sorted(_drawn(places, seed), key=lambda one: one[0]):
        if len(found) == each:
            break
        name, occurrence = mutants[drawn % len(mutants)]
        code = path.read_text()
        changed = mutate_code(code, operators[name], occurrence)
        if changed is not None and compiles(changed) and ast.dump(ast.parse(code)) != ast.dump(ast.parse(changed)):
            one = mutant(room, path, start[0], name, code, changed, "")
            found.setdefault(key(one), one)
    yield from found.values()


def _drawn(places: dict[Any, Any], seed: int) -> Iterator[tuple[int, Path, tuple[int, int], list[tuple[str, int]]]]:
    """A random number of every place, which follows from its line alone: code that moves or changes elsewhere draws no other mutants."""
    for (path, (row, column)), mutants in places.items():
        line = path.read_text().splitlines()[row - 1]
        place = f"{seed} {column - len(line) + len(line.lstrip())} {line.strip()}"
        yield (
            int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "big"),
            path,
            (row, column),
            mutants,
        )


def telling(operator: str) -> bool:
    """Whether an operator's mutants die of more than a TypeError: no bits for numbers, no order for identities."""
    ends = operator.split("_")[-2:]
    return operator not in LEFT_OUT and (
        len(ends) < 2 or not any((ends[0] in kind) != (ends[1] in kind) for kind in (BITS, IDENTITY))
    )


def silent(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change says nothing of the tests: messages, annotations, aliases of types, decorators, assertions for the type checker."""
    found: list[Any] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)):
            found.append(node)
        elif isinstance(node, (ast.AnnAssign, ast.arg)):
            found.append(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found += [*node.decorator_list, getattr(node, "returns", None)]
        elif isinstance(node, ast.keyword) and node.arg == "strict":
            found.append(node.value)
        elif isinstance(node, ast.Assign) and re.match("_?[A-Z][a-z]", getattr(node.targets[0], "id", "")):
            found.append(node)
    return [((one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)) for one in found if one is not None]


def compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def files(room: str) -> list[Path]:
    """The room's code."""
    return sorted((ROOT / "src/memloc" / room).rglob("*.py"))


def mutant(room: str, path: Path, line: int, operator: str, code: str, changed: str, what: str) -> dict[str, Any]:
    lines = difflib.unified_diff(code.splitlines(), changed.splitlines(), n=0, lineterm="")
    diff = "\n".join(each for each in list(lines)[2:] if not each.startswith("@@"))
    return {
        "room": room,
        "file": str(path.relative_to(ROOT)),
        "line": line,
        "operator": operator,
        "what": what,
        "diff": diff,
        "code": changed,
    }


def tested(copy: Path, paths: list[str], limit: float) -> tuple[str, str]:
    """survived, killed (by the first test that fails) or timeout."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(copy, paths))
    process.start()
    try:
        process.join(limit)
        if process.is_alive():
            return "timeout", ""
    finally:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
    if process.exitcode == 0:
        return "survived", ""
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", (copy / "pytest.txt").read_text(), flags=re.M)
    return "killed", failed[1] if failed else f"exit {process.exitcode}"


def _run(copy: Path, paths: list[str]) -> None:
    """In a process of its own, which has the heavy libraries already."""
    import pytest

    os.setpgrp()
    os.chdir(copy)
    with (copy / "pytest.txt").open("w") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    os.environ |= {
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MEMLOC_OPTIONAL": str(ROOT / ".optional"),
    }
    sys.dont_write_bytecode = True  # a file that changes twice a second would be taken for its bytecode
    sys.path.insert(0, str(copy / "src"))
    for name in [each for each in sys.modules if each.partition(".")[0] == "memloc"]:
        del sys.modules[name]  # the tests import the copy
    flags = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not slow",
        "--hypothesis-seed=0",
        "--tb=line",
        "-rfE",
    ]
    sys.exit(pytest.main([*flags, *paths]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=20, help="sampled mutants a room; 0 for planted faults alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=TESTS, action="append", help="these rooms alone; all by default")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that the tests of one mutant may take")
    parser.add_argument(
        "--again", action="store_true", help="only what survived the last time, with its results put in place"
    )
    given = parser.parse_args()
    rooms = given.room or list(TESTS)
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {"mutants": []}
    listed = list(planted(rooms))
    listed += [one for room in rooms if room in SAMPLED for one in sampled(room, given.each, given.seed)]
    if given.again:
        open_ones = {key(one) for one in before["mutants"] if one["result"] == "survived"}
        listed = [one for one in listed if key(one) in open_ones]
    listed.sort(key=lambda one: rooms.index(one["room"]))
    record = {"tool": f"cosmic-ray {version('cosmic-ray')}", "date": time.strftime("%Y-%m-%d"), "seed": given.seed}
    places = {key(one): one for one in before["mutants"] if one["room"] not in rooms or given.again}
    for one in measured(listed, given.limit):  # written each time: an interrupt keeps those done
        places[key(one)] = one
        mutants = sorted(places.values(), key=lambda each: list(TESTS).index(each["room"]))
        temporary = RECORD.with_suffix(".partial")
        temporary.write_text(json.dumps({**record, "mutants": mutants}, indent=1) + "\n")
        temporary.replace(RECORD)
    print(RECORD)


def measured(listed: list[dict[str, Any]], limit: float) -> Iterator[dict[str, Any]]:
    """What became of each mutant, in a copy of the library and its tests."""
    if not listed:
        return
    os.environ |= {"OMP_NUM_THREADS": "1"}
    for name in PRELOADED:
        importlib.import_module(name)
    paths = {room: [*(f"tests/{name}" for name in names), f"src/memloc/{room}"] for room, names in TESTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        state, by = tested(copy, sorted({path for one in listed for path in paths[one["room"]]}), 4 * limit)
        if state != "survived":
            sys.exit(f"the tests fail without any fault: {by or state}")
        for number, one in enumerate(listed, 1):
            target, began = copy / one["file"], time.monotonic()
            sound = target.read_text()
            target.write_text(one.pop("code"))
            state, by = tested(copy, paths[one["room"]], limit)
            target.write_text(sound)
            found = {**one, "result": state, "by": by, "seconds": round(time.monotonic() - began, 1)}
            print(
                number,
                "of",
                len(listed),
                one["room"],
                state,
                found["seconds"],
                "s",
                one["what"] or one["operator"],
                by,
                flush=True,
            )
            yield found


if __name__ == "__main__":
    main()
