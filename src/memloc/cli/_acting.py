"""What commands share that probe an encoder or act on one: loading it with its metadata, and measuring before and
after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli._flags import ENCODERS
from memloc.errors import SpecError
from memloc.progress import roughly

if TYPE_CHECKING:
    from memloc.data import Images
    from memloc.encoders import Encoder
    from memloc.probe import Probe
    from memloc.results import Audit

_TIMED, _AT_ONCE, _ACTIVATIONS = (
    32,
    250,
    60,
)  # images to time, images at once, floats of activations per float of input in a small net

EncoderName = Annotated[str, typer.Argument(help=ENCODERS)]
Weights = Annotated[str | None, typer.Option(help="Checkpoint of ENCODER, or random.")]
Train = Annotated[str | None, typer.Option(help="Labelled images to fit a linear probe on, before and after.")]
Test = Annotated[str | None, typer.Option(help="Labelled images to test that probe on.")]
Out = Annotated[Path, typer.Option(help="Folder for the new checkpoint and the record; the input is left as it is.")]
Layers = Annotated[list[str] | None, typer.Option(help="Layers by name; repeat for more.")]
Seed = Annotated[int, typer.Option(help="Of random choices and of training.")]
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
            text,
            weights=weights,
            state_key=state_key,
            strip_prefix=strip_prefix,
            shape=None if foreign or text.endswith(".safetensors") else shape,
        )
    if text.endswith(".safetensors") and weights is None:
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
    if size is not None or not (
        text.endswith(".safetensors") or text.partition(":")[0] in ("timm", "torchvision", "hf")
    ):
        return size
    return opened(text, weights, state_key=state_key, strip_prefix=strip_prefix)[0].size


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


def prints(parts: tuple[Images, Images] | None) -> dict[str, str | None]:
    """What a probe's images hold, so that other images are other work."""
    one, two = (None, None) if parts is None else (each.fingerprint() for each in parts)
    return {"train_fingerprint": one, "test_fingerprint": two}


def keep_apart(out: Path, *inputs: str | Path | None) -> None:
    """Raise SpecError where the output folder is, or holds, something that the command reads: --overwrite would delete
    it."""
    place = out.resolve()
    for each in inputs:
        path = None if each is None else Path(str(each).partition(":")[0] if ".py:" in str(each) else each)
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
    from memloc.encoders import fingerprint
    from memloc.results import Audit

    audit = Audit.load(folder)
    known = list((audit.record.get("fingerprints") or {}).get("encoders") or [])
    if fingerprint(encoder.module) not in (known[:1] if units else known):
        which = f"the units of {audit.record.get('encoder')}" if units else f"{len(known)} other encoders"
        raise SpecError(
            f"the audit {str(folder)!r} is of {which}, not of {encoder.name}. Expected the audit of this encoder's own"
            " weights. Make it with memloc audit, and pass the encoder it names first."
        )
    return audit


def measured(
    encoder: Encoder, parts: tuple[Images, Images] | None, device: str, seed: int
) -> Callable[[Encoder], Probe] | None:
    """The probe to fit before and after, its images checked at once."""
    from memloc.probe import check_probe, probe_encoder

    if parts is None:
        return None
    train, test = parts
    check_probe(encoder, train, test, device=device)
    return lambda each: probe_encoder(each, train, test, device=device, seed=seed)


def planned(encoder: Encoder, images: Images, *, forward: int, backward: int = 0, **chosen: Any) -> dict[str, Any]:
    """What a command will take, from a few timed images: passes, and expected seconds and memory.

    Args:
        forward: images that go through the encoder. backward: those of them that are trained on. chosen: what the
            command has chosen.
    """
    import time

    from memloc.encoders import represent

    few = images.pixels[:_TIMED]
    represent(encoder, few, device="cpu")
    began = time.perf_counter()
    represent(encoder, few, device="cpu")
    each = (time.perf_counter() - began) / len(few)
    weights = sum(value.numel() * value.element_size() for value in encoder.module.state_dict().values())
    batch = _ACTIVATIONS * 4 * _AT_ONCE * few[0].numel()
    return {
        **chosen,
        "forward_passes": forward,
        "backward_passes": backward,
        "seconds": roughly(each * (forward + 2 * backward)),
        "memory_mb": round((2 * images.pixels.numel() + 4 * weights + batch) / 2**20),
    }


def probing(encoder: Encoder, parts: tuple[Images, Images] | None, **chosen: Any) -> dict[str, Any]:
    """The plan of a command that only probes before and after."""
    if parts is None:
        return {**chosen, "forward_passes": 0, "backward_passes": 0, "seconds": 0.0}
    return planned(encoder, parts[0], forward=2 * (len(parts[0]) + len(parts[1])), **chosen)


def told(record: dict[str, Any], out: Path, *lines: str, run: Path | None = None) -> str:
    """What a person reads of an intervention's record."""
    found = [*lines, *(f"warning: {text}" for text in record.get("warnings", []))]
    if "probe" in record:
        probe = record["probe"]
        found.append(
            f"linear probe: {_figure(probe['before'])} before, {_figure(probe['after'])} after; change"
            f" {probe['change']:+.3f} (95 % interval {probe['low']:+.3f} to {probe['high']:+.3f}, over test images)"
        )
    found += [f"checkpoint: {out / record['checkpoint']}", f"record: {out / 'intervention.json'}"]
    return "\n".join(
        found
        if run is None
        else [
            *found,
            f"what it did to memorization: memloc audit {run} --f {out / record['checkpoint']} --out {out}-audit",
        ]
    )


def run_of(encoder: str) -> Path | None:
    """The training run of f and g that a checkpoint lies in as f, so that its splits can be used again."""
    path = Path(encoder)
    folder = path.parent.parent
    return folder if path.parent.name == "encoders" and path.stem == "f" and (folder / "run.json").is_file() else None


def _figure(probe: dict[str, Any]) -> str:
    return f"{probe['accuracy']:.3f} [{probe['low']:.3f}, {probe['high']:.3f}]"
