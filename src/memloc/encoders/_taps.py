"""Read layers during a forward pass: hooks that reduce at once and keep no activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._evaluating import evaluating
from memloc.encoders._flow import as_tensor
from memloc.encoders._layer import INPUT, Layer
from memloc.encoders._output import output_of
from memloc.errors import EncoderError, LayerNotFoundError, NonFiniteError

Reduce = Callable[[Layer, Tensor], None]


@contextmanager
def tapped(module: nn.Module, layers: Sequence[Layer], reduce: Reduce) -> Iterator[Callable[[Tensor], None]]:
    """Hook the layers of a module; the yielded function runs one forward pass and hands each layer's output to
    `reduce`.

    The module runs in eval mode without gradients. On leaving, also by an exception, the hooks are gone and every
    submodule is in the mode it was in.

    Raises:
        LayerNotFoundError: a layer that is not there or was not called. EncoderError: one that was called twice.
    """
    parts = dict(module.named_modules())
    by_module = _by_module(module, layers)
    calls: dict[str, int] = {}
    reading: list[bool] = []  # holds something during a forward pass of this module

    def hook_of(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not reading:
                return  # another encoder shares this module and is being read
            number = calls[name] = calls.get(name, -1) + 1
            for wanted, layer in by_module[name]:
                if layer.read_at.endswith(INPUT):
                    continue
                if wanted is None and number > 0:
                    raise EncoderError(
                        f"layer {layer.name!r} is called more than once in a forward pass. Expected one call. Address"
                        f" one of them as '{name}#0' or '{name}#1'."
                    )
                if wanted is None or wanted == number:
                    tensor = as_tensor(output) if name else output_of(output, layer.take)
                    if tensor is None:
                        raise EncoderError(
                            f"layer {layer.name!r} returns no tensor. Expected one. Tap a module inside it."
                        )
                    reduce(layer, tensor)

        return hook

    def before_of(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            for wanted, layer in by_module[name] if reading else []:
                tensor = as_tensor(inputs if inputs else named)
                if layer.read_at.endswith(INPUT) and tensor is not None and (wanted or 0) == calls.get(name, -1) + 1:
                    reduce(layer, tensor)

        return hook

    def forward(batch: Tensor) -> None:
        calls.clear()
        reading.append(True)
        try:
            with torch.no_grad():  # not in inference mode, whose tensors a module's caches would keep
                module(batch)
        finally:
            reading.clear()
        for name, wanted in by_module.items():
            for number, layer in wanted:
                if calls.get(name, -1) < (number or 0):
                    raise LayerNotFoundError(
                        f"layer {layer.name!r} was not called in the forward pass. Expected a layer that every image"
                        " goes through. List them with: memloc layers ENCODER"
                    )

    handles = [parts[name].register_forward_hook(hook_of(name)) for name in by_module]
    handles += [parts[name].register_forward_pre_hook(before_of(name), with_kwargs=True) for name in by_module]
    try:
        with evaluating(module):
            yield forward
    finally:
        for handle in handles:
            handle.remove()


def _by_module(module: nn.Module, layers: Sequence[Layer]) -> dict[str, list[tuple[int | None, Layer]]]:
    """The layers that are read at each module, by its name, with the number of the call."""
    found: dict[str, list[tuple[int | None, Layer]]] = {}
    known = {name for name, _ in module.named_modules()}
    for layer in layers:
        name, _, call = layer.read_at.removesuffix(INPUT).partition("#")
        if name not in known:
            raise LayerNotFoundError(
                f"{type(module).__name__} has no module {name!r}. Expected one of its modules. List them with: memloc"
                " layers"
            )
        found.setdefault(name, []).append((int(call) if call else None, layer))
    return found


def unit_means(layer: Layer, output: Tensor, views: int, *, rectify: bool = True, skip: int = 0) -> Tensor:
    """Mean activation of each unit over the views of each point but the first `skip`, rectified before any mean:
    (point, unit), float64-safe.

    Outputs are read as (view, unit), (view, token, unit) or (view, channel, height, width) by their number of axes;
    with the units last of four axes where the layer says so.
    """
    active = output.clamp_min(0) if layer.signed and rectify else output
    if output.ndim == 4 and layer.last:
        active = active.flatten(1, 2).mean(dim=1, dtype=_wide(output))
    elif output.ndim == 4:
        if output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous():
            active = active.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1, dtype=_wide(output))
        else:
            active = active.flatten(2).mean(dim=2, dtype=_wide(output))
    elif output.ndim == 3:
        active = active.mean(dim=1, dtype=_wide(output))
    elif output.ndim != 2:
        raise EncoderError(
            f"layer {layer.name!r} has an output of shape {tuple(output.shape)}. Expected (point, unit), (point, token,"
            " unit) or (point, channel, height, width). Name another layer with --layers."
        )
    return active.unflatten(0, (-1, views))[:, skip:].mean(dim=1, dtype=_wide(output))


def check_finite_reading(layer: Layer, reading: Tensor, encoder: str) -> None:
    """Raise NonFiniteError if a layer's reading holds NaN or Inf."""
    if not reading.isfinite().all():
        raise NonFiniteError(
            f"layer {layer.name!r} of {encoder} gives NaN or Inf. Expected finite activations. Check its weights and"
            " preprocessing (--mean, --std), or pass --dtype float32."
        )


def _wide(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.dtype == torch.float64 else torch.float32
