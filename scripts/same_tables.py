"""Are the tables of two versions the same, to the bit? `run MEMLOC OUT` runs one version, `compare A B` its tables with another's.

python scripts/same_tables.py run /path/to/old/.venv/bin/memloc /tmp/old
python scripts/same_tables.py run .venv/bin/memloc /tmp/new
python scripts/same_tables.py compare /tmp/old /tmp/new
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from safetensors import safe_open
from sklearn.datasets import load_breast_cancer

# Each is one command; {} is the folder that holds them all.
COMMANDS = {
    "demo": "demo --quick --out {}/demo",
    "ensemble-run": "train {}/some.npz --external {}/others.npz --ensemble 4 --epochs 4 --batch-size 32 --out {}/ensemble-run",
    "ensemble": "audit {}/ensemble-run --out {}/ensemble --views 8",
    "pairs-run": "train {}/some.npz --runs 3 --epochs 2 --batch-size 32 --candidates 20 --out {}/pairs-run",
    "pairs": "audit {}/pairs-run --out {}/pairs --views 8 --layers fine",
    "alone": "audit --f {}/demo/run/encoders/f.safetensors --data {}/some.npz --external {}/others.npz --out {}/alone --views 8 --size 28",
    "published": "audit {}/demo/run --protocol published-code --out {}/published",
    "value": "value {}/table.csv --target target --learners 200 --out {}/value",
    "coreset": "coreset {}/some.npz --epochs 8 --batch-size 16 --out {}/coreset",
    "coreset-table": "coreset {}/table.csv --target target --rounds 2 --out {}/coreset-table",
}


def run(memloc: str, out: Path) -> None:
    """Run every command of one version."""
    out.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, count in (("some", 60), ("others", 40)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.savez(out / f"{name}.npz", images=images, labels=generator.integers(0, 4, count))
    load_breast_cancer(as_frame=True).frame.to_csv(out / "table.csv", index=False)
    for name, command in COMMANDS.items():
        done = subprocess.run(
            [memloc, *command.format(*[out] * 9).split()], capture_output=True, text=True, check=False
        )
        print(f"{name}: exit {done.returncode}", done.stderr[-600:] if done.returncode else "", flush=True)


def compare(one: Path, two: Path) -> bool:
    """Print every table with whether it is the same; returns whether all are."""
    tables = sorted({path.relative_to(folder) for folder in (one, two) for path in folder.rglob("*.parquet")})
    weights = sorted({path.relative_to(folder) for folder in (one, two) for path in folder.rglob("*.safetensors")})
    same = True
    for name in tables:
        missing = [str(folder) for folder in (one, two) if not (folder / name).is_file()]
        if missing:
            print(f"{name}: not in {missing[0]}")
            same = False
            continue
        left, right = (pq.read_table(folder / name) for folder in (one, two))
        columns = [*left.column_names, *(column for column in right.column_names if column not in left.column_names)]
        unlike = [column for column in columns if not _same(left, right, column)]
        print(
            f"{name}: {left.num_rows} rows, {len(columns)} columns, "
            + (f"differ: {', '.join(unlike)}" if unlike else "same to the bit")
        )
        same &= not unlike
    for name in weights:
        equal = all((folder / name).is_file() for folder in (one, two)) and _same_weights(one / name, two / name)
        print(f"{name}: {'same to the bit' if equal else 'differ'}")
        same &= equal
    return same


def _same(left, right, column: str) -> bool:
    if column not in left.column_names or column not in right.column_names:
        return False
    one, two = (table.column(column).to_pandas() for table in (left, right))
    if one.dtype != two.dtype or len(one) != len(two):
        return False
    if pd.api.types.is_float_dtype(one.dtype):
        return one.to_numpy().tobytes() == two.to_numpy().tobytes() or bool(
            ((one == two) | (one.isna() & two.isna())).all()
        )
    return bool(one.equals(two))


def _same_weights(one: Path, two: Path) -> bool:
    """Whether tensors and metadata are equal; the order of metadata in a file is the library's."""
    found = []
    for path in (one, two):
        with safe_open(path, framework="np") as opened:
            found.append(({name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()))  # noqa: SIM118
    (left, said), (right, told) = found
    return (
        said == told
        and left.keys() == right.keys()
        and all(left[name].tobytes() == right[name].tobytes() for name in left)
    )


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(0 if compare(Path(sys.argv[2]), Path(sys.argv[3])) else 1)
