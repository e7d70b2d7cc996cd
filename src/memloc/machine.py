"""What of this machine a process may use."""

from __future__ import annotations


def cores() -> int:
    """Processor cores that this process may use: those of its affinity and its container, where they are fewer.

    >>> cores() >= 1
    True
    """
    from joblib import cpu_count

    return int(cpu_count())
