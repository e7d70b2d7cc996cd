"""Render the documents: python scripts/make_docs.py (`make docs`). Reads JSON and the result schema, measures nothing.

What the figures lack stays as it is committed and is named on standard error; a table that would lose rows is refused
(exit 1), and its page is left alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from render import renderings

from memloc.results import replacing

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Write what changed."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    refused = 0
    for each in renderings(ROOT):
        for line in each.kept:
            print(f"{each.target}: kept as it is, the figures lack it: {line}", file=sys.stderr)
        if each.refused is not None:
            refused += 1
            print(f"{each.target}: not written: {each.refused}", file=sys.stderr)
        elif each.text != each.now:
            with replacing(ROOT / each.target) as temporary:
                temporary.write_text(each.text)
            print(f"{each.target}: written")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
