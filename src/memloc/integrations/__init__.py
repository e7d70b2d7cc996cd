"""Ways into and out of other tools."""

from typing import Any

from memloc.integrations._exports import check_suffix as check_suffix
from memloc.integrations._exports import issues_table as issues_table
from memloc.integrations._exports import write_any as write_any


def __getattr__(name: str) -> Any:
    """AuditCallback, which imports Lightning."""
    if name == "AuditCallback":
        from memloc.integrations._lightning import AuditCallback

        return AuditCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
