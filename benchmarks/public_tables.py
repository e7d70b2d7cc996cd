"""Tables that PyPI, npm and Debian packages ship, valued at defaults: python benchmarks/public_tables.py FOLDER

FOLDER holds the files of public_tables_list.json, as each package ships them (where it ships R's or another form: as .csv).
Tables that are not there are named and keep their figures in public_tables.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

from stored import keep

from memloc.errors import MemlocError
from memloc.valuation import ValueSpec, table_work

HERE = Path(__file__).parent


def outcome(path: Path, target: str, learners: int) -> dict:
    """How a table is read and what is said of it; of a refusal, its words."""
    began = time.monotonic()
    try:
        work = table_work(str(path), target, ValueSpec(learners=learners))
        with tempfile.TemporaryDirectory() as place:
            found = work.run(Path(place) / "out")
    except MemlocError as refusal:
        return {"refused": str(refusal)}
    kinds: dict[str, int] = {}
    for column in work.table.columns:
        kinds[column.kind] = kinds.get(column.kind, 0) + 1
    record = found.record
    return {
        "rows": len(work.table.X),
        "columns": kinds,
        "notices": len(work.table.notices),
        "regression": record["regression"],
        "score": round(record["oob_score"], 3),
        "suspects": int((found.suspects["score"] > 0.5).sum()),
        "checks": sorted(set(found.checks["check"])),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Value every table that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--learners", type=int, default=200)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for one in json.loads((HERE / "public_tables_list.json").read_text()):
        path = given.folder / one["file"]
        if not path.is_file():
            print(f"{one['name']}: {path} is not there", file=sys.stderr)
            continue
        found = {"source": one["source"], **outcome(path, one["target"], given.learners)}
        print(one["name"], json.dumps(found), flush=True)
        keep("public_tables.json", {"tables": {one["name"]: found}, "learners": given.learners}, depth=2)


if __name__ == "__main__":
    main()
