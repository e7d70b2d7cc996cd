"""The module that a name stands for: a built-in net, another library's, a user's function, or a checkpoint's."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from memloc.encoders._built import Built
from memloc.encoders._checkpoints import check_storable, load_weights, read_weights
from memloc.encoders._encoder import Encoder
from memloc.encoders._live import live
from memloc.encoders._names import ADAPTERS, BUILT_IN, ENCODER_NAMES, VITS, EncoderName, encoder_name, is_inert
from memloc.encoders._resnet import ResNet
from memloc.encoders._resnet9 import ResNet9
from memloc.encoders.from_transformers import build_vit
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, nearest
from memloc.fit import Fit

_RESNETS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet9": ResNet9,
    "resnet18": lambda: ResNet((2, 2, 2, 2)),
    "resnet34": lambda: ResNet((3, 4, 6, 3)),
    "resnet50": lambda: ResNet((3, 4, 6, 3), bottleneck=True),
}


def made(
    encoder: str | Path | nn.Module, *, pretrained: bool, shape: tuple[int, int, int] | None, follow: bool = True
) -> tuple[Built, str, dict[str, str]]:
    """The module with its preprocessing, its name, and the text stored with its weights.

    Args:
        follow: whether its preprocessing is asked for, rather than given.
    """
    if isinstance(encoder, nn.Module):
        check_storable(encoder, name=type(encoder).__name__, stored=False)
        return live(_bare(encoder), follow=follow), type(encoder).__name__, {}
    text, named = str(encoder), encoder_name(str(encoder))
    if named.is_built_in:
        return Built(_built_in(text, shape)), text, {}
    if named.is_checkpoint:
        return _trained(text)
    if named.is_code:
        module = _from_file(named)
        check_storable(module, name=text, stored=False)
        return live(_bare(module), follow=follow), text, {}
    if named.is_adapted:
        adapter = importlib.import_module(f"memloc.encoders.{ADAPTERS[named.library][0]}")
        return adapter.build(named.name, dict(named.options), pretrained=pretrained, follow=follow), text, {}
    raise EncoderError(
        f"there is no encoder {text!r}. {nearest(text, [*BUILT_IN, *ADAPTERS])} Expected one of {ENCODER_NAMES} that"
        " memloc wrote. Pass one of these, or an nn.Module from Python."
    )


def published_fit(encoder: nn.Module | Encoder) -> Fit:
    """How a module's own configuration brings images to its size."""
    if isinstance(encoder, Encoder):
        return encoder.fit
    recipe = live(_bare(encoder)).recipe
    return Fit() if recipe is None else recipe.fit


def _built_in(name: str, shape: tuple[int, int, int] | None) -> nn.Module:
    """A built-in net; ViTs are made for the size of the images."""
    if name not in VITS:
        return _RESNETS[name]()
    size = 32 if shape is None else shape[1]
    return build_vit(name, size=size)


def _bare(module: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile, whose parameters are the same."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _trained(path: str) -> tuple[Built, str, dict[str, str]]:
    """An encoder that memloc trained: its file names a built-in architecture."""
    tensors, metadata = read_weights(path)
    if metadata.get("encoder") is None:
        raise CheckpointError(
            f"{path} does not say which architecture it holds. Expected a file that memloc wrote. "
            "Name the architecture and pass the file as weights, for instance: --f resnet9 --f-weights FILE"
        )
    name = metadata["encoder"]
    named = encoder_name(name)
    if not named.is_built_in and not named.is_adapted:
        raise CheckpointError(
            f"{path} names the architecture {name!r}, which is not built in; loading it could run code. Expected "
            f"one of {', '.join(BUILT_IN)}. "
            + (
                f"Name the architecture yourself: --f {name} --f-weights {path}"
                if named.is_code
                else f"Name a function that returns it: --f FILE.py:FACTORY --f-weights {path}, or audit it in Python"
            )
        )
    if not is_inert(named):
        raise CheckpointError(
            f"{path} names the architecture {name!r}, whose options could load other files. Expected options of sizes"
            f" alone. If you know who made it, name the architecture yourself: --f {name} --f-weights {path}"
        )
    channels, height, width = (int(part) for part in metadata.get("shape", "3 32 32").split())
    built, _, _ = made(name, pretrained=False, shape=(channels, height, width))
    load_weights(built.module, tensors, name=path)
    return replace(built, size=height if name in VITS else built.size), Path(path).stem, metadata


def _from_file(named: EncoderName) -> nn.Module:
    """What a user's function returns."""
    text, path, factory = named.text, named.path, named.factory
    if not Path(path).is_file():
        raise DataNotFoundError(
            f"there is no file {path!r}. Expected a Python file with the function {factory!r}. Check the path."
        )
    spec = importlib.util.spec_from_file_location("memloc_user_encoder", path)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    build = getattr(loaded, factory, None)
    if not callable(build):
        names = [name for name, value in vars(loaded).items() if inspect.isfunction(value)]
        raise EncoderError(
            f"{path} has no function {factory!r}. {nearest(factory, names)} Expected one that returns a module. Pass"
            f" {path}:NAME."
        )
    try:
        module = build()
    except Exception as problem:  # whatever the user's own function raises
        raise EncoderError(
            f"{text} fails ({type(problem).__name__}: {problem}). Expected a function without arguments that returns a"
            " module. Call it in Python to see where."
        ) from problem
    if not isinstance(module, nn.Module):
        raise EncoderError(
            f"{text} returned a {type(module).__name__}. Expected a torch nn.Module. Return the model itself."
        )
    return module
