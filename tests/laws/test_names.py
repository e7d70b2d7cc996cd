"""Names that users' scripts rely on, as docs/inputs.md lists them."""

import inspect
import re
from pathlib import Path

import pytest

import memloc

PAGE = (Path(__file__).parents[2] / "docs/inputs.md").read_text()
LISTED = re.findall(r"^\| `([\w.]+)(?:\(([^)`]*)\))?` \|", PAGE.partition("## Names")[2], flags=re.M)


def found(path):
    value = memloc
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_the_page_lists_them():
    assert len(LISTED) >= 12


@pytest.mark.parametrize(("path", "arguments"), LISTED, ids=[path for path, _ in LISTED])
def test_what_is_listed_is_there(path, arguments):
    owner, _, name = path.rpartition(".")
    fields = getattr(found(owner), "__dataclass_fields__", {}) if owner and owner[0].isupper() else {}
    if name in fields:
        return
    value = found(path)
    if arguments:
        known = inspect.signature(value).parameters
        names = [each.strip().rstrip("=") for each in arguments.split(",")]
        lacking = [each for each in names if each not in known and each.isidentifier() and not each.isupper()]
        assert not lacking, lacking
