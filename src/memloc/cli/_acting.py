"""What commands share that probe an encoder or act on one: loading it with its metadata, and measuring before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli._flags import ENCODERS
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.data import Images
    from memloc.encoders import Encoder
    from memloc.probe import Probe

EncoderName = Annotated[str, typer.Argument(help=ENCODERS)]
Weights = Annotated[str | None, typer.Option(help="Checkpoint of ENCODER, or random.")]
Train = Annotated[str | None, typer.Option(help="Labelled images to fit a linear probe on, before and after.")]
Test = Annotated[str | None, typer.Option(help="Labelled images to test that probe on.")]
Out = Annotated[Path, typer.Option(help="Folder for the new checkpoint and the record; the input is left as it is.")]
AuditFolder = Annotated[Path | None, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder.")]


def opened(
    text: str,
    weights: str | None,
    *,
    state_key: str | None = None,
    strip_prefix: str | None = None,
    images: Images | None = None,
) -> tuple[Encoder, dict[str, str]]:
    """An encoder that a user named, and the text to keep with weights that are made from it."""
    import torch

    from memloc.encoders import load_encoder, read_weights

    shape = None if images is None else (images.pixels.shape[1], images.pixels.shape[2], images.pixels.shape[3])
    foreign = text.partition(":")[0] in ("timm", "torchvision", "hf")
    with torch.random.fork_rng(devices=[]):  # random weights are the same in every call
        torch.manual_seed(0)
        encoder = load_encoder(
            text, weights=weights, state_key=state_key, strip_prefix=strip_prefix, shape=None if foreign or text.endswith(".safetensors") else shape
        )  # fmt: skip
    if text.endswith(".safetensors") and weights is None:
        return encoder, {**read_weights(text)[1], "format": "memloc"}
    found = {"encoder": text, "format": "memloc"}
    if shape is not None:
        found["shape"] = " ".join(map(str, shape))
    if encoder.preprocess.mean:
        found |= {key: " ".join(map(repr, getattr(encoder.preprocess, key))) for key in ("mean", "std")}
    return encoder, found if encoder.augmentation is None else {**found, "augmentation": encoder.augmentation}


def labelled(train: str | None, test: str | None, size: int | None, max_bad: int) -> tuple[Images, Images] | None:
    """Images of a probe; both or neither."""
    from memloc.data import open_images

    if (train is None) != (test is None):
        raise SpecError(
            "only one of --train and --test is given. Expected both, or neither. Pass labelled images for both."
        )
    if train is None or test is None:
        return None
    return open_images(train, size=size, max_bad=max_bad), open_images(test, size=size, max_bad=max_bad)


def measured(
    encoder: Encoder, parts: tuple[Images, Images] | None, device: str, seed: int
) -> Callable[[Encoder], Probe] | None:
    """The probe to fit before and after, its images checked at once."""
    from memloc.probe import check_probe, probe_encoder

    if parts is None:
        return None
    train, test = parts
    check_probe(encoder, train, test)
    return lambda each: probe_encoder(each, train, test, device=device, seed=seed)


def told(record: dict[str, Any], out: Path, *lines: str) -> str:
    """What a person reads of an intervention's record."""
    found = [*lines]
    if "probe" in record:
        probe = record["probe"]
        found.append(
            f"linear probe: {_figure(probe['before'])} before, {_figure(probe['after'])} after; change {probe['change']:+.3f} (95 % interval "
            f"{probe['low']:+.3f} to {probe['high']:+.3f}, over test images)"
        )
    return "\n".join([*found, f"checkpoint: {out / record['checkpoint']}", f"record: {out / 'intervention.json'}"])


def _figure(probe: dict[str, Any]) -> str:
    return f"{probe['accuracy']:.3f} [{probe['low']:.3f}, {probe['high']:.3f}]"
