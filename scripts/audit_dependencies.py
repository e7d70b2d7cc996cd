"""Known weaknesses of the installed dependencies, from osv.dev: python scripts/audit_dependencies.py

Ends with 1 where there are some, with 0 where there are none or where the database cannot be reached, which is said.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from importlib.metadata import distributions

DATABASE = "https://api.osv.dev/v1/querybatch"
SECONDS = 5


def main() -> int:
    installed = sorted({(each.metadata["Name"], each.version) for each in distributions()})
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in installed]
    request = urllib.request.Request(DATABASE, json.dumps({"queries": queries}).encode())
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = json.load(answer)["results"]
    except (urllib.error.URLError, OSError, ValueError, KeyError) as problem:
        print(f"dependencies were not looked up: {DATABASE} cannot be reached ({problem})")
        return 0
    known = [
        (name, version, weakness["id"])
        for (name, version), each in zip(installed, found, strict=True)
        for weakness in each.get("vulns", [])
    ]
    for name, version, weakness in known:
        print(f"{name} {version}: {weakness}, see https://osv.dev/vulnerability/{weakness}")
    print(f"{len(installed)} dependencies looked up, {len(known)} known weaknesses")
    return int(bool(known))


if __name__ == "__main__":
    sys.exit(main())
