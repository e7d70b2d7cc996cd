"""What commands that probe or act on an encoder are given: it with its metadata, images, an audit of it."""

from __future__ import annotations

from pathlib import Path

import torch

from memloc.data import Images, open_images
from memloc.encoders import Encoder, encoder_name, file_of, fingerprint, load_encoder, read_weights
from memloc.errors import SpecError
from memloc.results import Audit


def opened(
    text: str,
    weights: str | None,
    *,
    state_key: str | None = None,
    strip_prefix: str | None = None,
    images: Images | None = None,
) -> tuple[Encoder, dict[str, str]]:
    """An encoder that a user named, and the text to keep with weights that are made from it."""
    shape = None if images is None else (images.pixels.shape[1], images.pixels.shape[2], images.pixels.shape[3])
    named = encoder_name(text)
    with torch.random.fork_rng(devices=[]):  # random weights are the same in every call
        torch.manual_seed(0)
        encoder = load_encoder(
            text,
            weights=weights,
            state_key=state_key,
            strip_prefix=strip_prefix,
            shape=None if named.has_own_size else shape,
        )
    if named.is_checkpoint and weights is None:
        return encoder, {**read_weights(text)[1], "format": "memloc"}
    found = {"encoder": text, "format": "memloc"}
    if shape is not None:
        found["shape"] = " ".join(map(str, shape))
    if encoder.preprocess.mean:
        found |= {key: " ".join(map(repr, getattr(encoder.preprocess, key))) for key in ("mean", "std")}
    return encoder, found if encoder.augmentation is None else {**found, "augmentation": encoder.augmentation}


def own_size(
    text: str, weights: str | None, size: int | None, state_key: str | None = None, strip_prefix: str | None = None
) -> int | None:
    """The size to bring images to: what the user says, else what an encoder of another library, or a ViT, takes."""
    if size is not None or not encoder_name(text).has_own_size:
        return size
    return opened(text, weights, state_key=state_key, strip_prefix=strip_prefix)[0].size


def labelled(train: str | None, test: str | None, size: int | None, max_bad: int) -> tuple[Images, Images] | None:
    """Images of a probe; both or neither."""
    if (train is None) != (test is None):
        raise SpecError(
            "only one of --train and --test is given. Expected both, or neither. Pass labelled images for both."
        )
    if train is None or test is None:
        return None
    return open_images(train, size=size, max_bad=max_bad), open_images(test, size=size, max_bad=max_bad)


def prints(parts: tuple[Images, Images] | None) -> dict[str, str | None]:
    """What a probe's images hold, so that other images are other work."""
    one, two = (None, None) if parts is None else (each.fingerprint() for each in parts)
    return {"train_fingerprint": one, "test_fingerprint": two}


def keep_apart(out: Path, *inputs: str | Path | None) -> None:
    """Raise SpecError where the output folder is, or holds, something that the command reads: --overwrite would delete
    it."""
    place = out.resolve()
    for each in inputs:
        path = None if each is None else file_of(str(each))
        if path is not None and path.exists() and (place == path.resolve() or place in path.resolve().parents):
            raise SpecError(
                f"--out {str(out)!r} is or holds {str(each)!r}, which this command reads. Expected another folder: the"
                " input is left as it is. Pass another --out."
            )


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


def opened_with_probe(
    text: str,
    weights: str | None,
    train: str | None,
    test: str | None,
    *,
    size: int | None = None,
    max_bad: int = 0,
    **keys: str | None,
) -> tuple[Encoder, dict[str, str], tuple[Images, Images] | None]:
    """An encoder that a user named with the text to keep with its weights, and the images of a probe, if any.

    Args:
        train, test: labelled images; both or neither. keys: state_key and strip_prefix, as in `load_encoder`.
    """
    parts = labelled(train, test, own_size(text, weights, size, **keys), max_bad)
    source, metadata = opened(text, weights, **keys, images=parts and parts[0])
    return source, metadata, parts
