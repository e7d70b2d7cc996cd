"""Mutate sound files and open them: python -m tests.fuzz.fuzzer FINISHED --each 500 [--only KIND]

FINISHED is a folder with an audit, run, value and coreset. Every input is opened in a child process; what becomes of it is
one of: opened, refused (one clear error), traceback, hang, crash.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memloc.errors import MemlocError
from tests.fuzz.inputs import Input, every_input

LIMIT = 20  # seconds for one input
_BIG = [b"9" * 400, b"-1", b"1e999", b"NaN", b"\xff\xfe", b"\0" * 8, b"[" * 2000, b"null", b"true", b'"\xed\xa0\x80"', b"\\u0000", b"18446744073709551616"]  # fmt: skip


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to four changes: bits, bytes, blocks cut, doubled, zeroed or filled, words and numbers that break readers."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(found) + 1)
        near = draw.randrange(min(len(found), 256) + 1)
        how = draw.randrange(11)
        if how <= 2 and found:
            found[min(place if how else near, len(found) - 1)] ^= 1 << draw.randrange(8)
        elif how == 3:
            del found[place:]
        elif how == 4:
            del found[place : place + draw.choice((1, 4, 64))]
        elif how == 5:
            found[place:place] = found[place : place + draw.choice((1, 16, 400))]
        elif how == 6:
            length = len(found[place : place + draw.choice((1, 4, 8, 128))])
            found[place : place + length] = bytes([draw.choice((0, 255, 127, 128))]) * length
        elif how == 7:
            found[place:place] = draw.choice(_BIG)
        elif how == 8:
            number = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
            width = draw.choice((4, 8))
            found[near : near + width] = (number % 256**width).to_bytes(width, draw.choice(("little", "big")))
        elif how == 9:
            found = bytearray(_with_other_value(bytes(found), draw))
        else:
            found[near:near] = os.urandom(0) + bytes(draw.randrange(256) for _ in range(draw.choice((1, 7, 31))))
    return bytes(found)


def _with_other_value(content: bytes, draw: random.Random) -> bytes:
    """Of JSON, one value of another type or an entry less; other files as they are but for one byte."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return content[:-1]
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(whole)
    if not places:
        return b"[]"
    inside, key = draw.choice(places)
    if draw.random() < 0.2:
        del inside[key]
    else:
        inside[key] = draw.choice((None, -1, 0, 1e308, True, "", "x" * 300, [], {}, [[]], {"a": []}, 10**400, "../../etc", "\ud800"))  # fmt: skip
    return json.dumps(whole).encode()


def tried(each: Input, content: bytes) -> tuple[str, str]:
    """What becomes of one input."""
    place = Path(tempfile.mkdtemp(prefix="memloc-fuzz-"))
    try:
        (place / each.path).parent.mkdir(parents=True, exist_ok=True)
        (place / each.path).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            each.open(place)
        return "opened", ""
    except MemlocError as problem:
        text = str(problem)
        whole = len(text) < 2000 and "Expected" in text
        return ("refused", "") if whole else ("traceback", f"no clear error: {text[:300]}")
    except TimeoutError:
        return "hang", ""
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _child(each: Input, contents: list[bytes], results: Any) -> None:
    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    for content in contents:
        signal.alarm(LIMIT)
        results.send(tried(each, content))
        signal.alarm(0)
    results.close()
    os._exit(0)


def opened_apart(each: Input, contents: list[bytes]) -> Iterator[tuple[str, str]]:
    """What becomes of some inputs, each opened in a child process, which is made anew where one ends it."""
    left = list(contents)
    while left:
        receiving, sending = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=_child, args=(each, left, sending))
        process.start()
        sending.close()
        done = 0
        while done < len(left):
            if not receiving.poll(2 * LIMIT):
                process.kill()
                yield "hang", ""
                done += 1
                break
            try:
                yield receiving.recv()
            except EOFError:
                process.join()
                yield "crash", f"exit {process.exitcode}"
                done += 1
                break
            done += 1
        process.join()
        receiving.close()
        left = left[done:]


def fuzzed(each: Input, count: int, seed: int = 0) -> Iterator[tuple[bytes, str, str]]:
    """Mutations of one sound file: content, what became of it, and the traceback where there is one."""
    draw = random.Random(f"{seed} {each.name}")
    contents = [mutated(each.content, draw) for _ in range(count)]
    for content, (state, text) in zip(contents, opened_apart(each, contents), strict=True):
        yield content, state, text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("finished", type=Path)
    parser.add_argument("--each", type=int, default=500, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--keep", type=Path, help="folder for inputs that were neither opened nor refused")
    parser.add_argument("--record", type=Path, help="JSON file for the counts")
    given = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    for each in every_input(given.finished):
        if given.only not in each.name:
            continue
        found = counts[each.name] = Counter()
        shown = 0
        for number, (content, state, text) in enumerate(fuzzed(each, given.each, given.seed)):
            found[state] += 1
            if state in ("opened", "refused"):
                continue
            if given.keep:
                given.keep.mkdir(exist_ok=True)
                (given.keep / f"{each.name.replace('/', '-').replace(' ', '-')}-{number}").write_bytes(content)
            if shown < 3:
                print(each.name, state, text[-1500:], flush=True)
            shown += 1
        print(each.name, dict(found), flush=True)
    total: Counter[str] = sum(counts.values(), Counter())
    print(dict(total))
    if given.record:
        given.record.write_text(json.dumps({"seed": given.seed, "kinds": counts, "total": total}, indent=1) + "\n")
    return int(total["traceback"] + total["hang"] + total["crash"] > 0)


if __name__ == "__main__":
    sys.exit(main())
