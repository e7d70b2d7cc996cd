"""What commands that act on an encoder are given besides it: what a probe's images hold, an audit, the run it is of."""

from __future__ import annotations

from pathlib import Path

from memloc.data import Images
from memloc.encoders import Encoder, fingerprint
from memloc.errors import SpecError
from memloc.results import Audit


def prints(parts: tuple[Images, Images] | None) -> dict[str, str | None]:
    """What a probe's images hold, so that other images are other work."""
    one, two = (None, None) if parts is None else (each.fingerprint() for each in parts)
    return {"train_fingerprint": one, "test_fingerprint": two}


def audit_of(encoder: Encoder, folder: Path, *, units: bool = False) -> Audit:
    """The audit in a folder, which must be of this encoder.

    Args:
        units: whether its units are used, which are those of the first encoder alone.
    """
    audit = Audit.load(folder)
    known = list((audit.record.get("fingerprints") or {}).get("encoders") or [])
    if fingerprint(encoder.module) not in (known[:1] if units else known):
        which = f"the units of {audit.record.get('encoder')}" if units else f"{len(known)} other encoders"
        raise SpecError(
            f"the audit {str(folder)!r} is of {which}, not of {encoder.name}. Expected the audit of this encoder's own"
            " weights. Make it with memloc audit, and pass the encoder it names first."
        )
    return audit


def run_of(encoder: str) -> Path | None:
    """The training run of f and g that a checkpoint lies in as f, so that its splits can be used again."""
    path = Path(encoder)
    folder = path.parent.parent
    return folder if path.parent.name == "encoders" and path.stem == "f" and (folder / "run.json").is_file() else None
