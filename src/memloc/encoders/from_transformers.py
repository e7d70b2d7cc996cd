"""Encoders of the transformers library: the built-in ViTs, and any vision model of the hub, a folder, or a
configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from memloc.encoders._built import Built, Recipe
from memloc.encoders._processing import recipe_of
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, MemlocError, MissingExtraError, nearest
from memloc.fit import Fit

_POOLED = ("ViTModel", "DeiTModel", "BeitModel")  # whose pooler may be left out
_SHAPES = {  # patch, width, blocks, heads: LocMem App. B and Dosovitskiy et al., ICLR 2021
    "vit-tiny": (4, 192, 12, 3),
    "vit-base": (16, 768, 12, 12),
}


def build_vit(name: str, *, size: int = 32, channels: int = 3) -> nn.Module:
    """A Vision Transformer with random weights; its output is every token, CLS first, after the last norm.

    Args:
        name: "vit-tiny" (patches of 4 pixels) or "vit-base" (of 16, or of 4 for images below 64). size: height and
            width.

    >>> from memloc.encoders._flow import as_tensor
    >>> import torch
    >>> as_tensor(build_vit("vit-tiny", size=8).eval()(torch.zeros(1, 3, 8, 8))).shape
    torch.Size([1, 5, 192])
    """
    library = _library()
    patch, width, blocks, heads = _SHAPES[name]
    patch = min(patch, 4) if size < 64 else patch
    if size % patch:
        raise EncoderError(
            f"images of {size} pixels cannot be cut into patches of {patch}. Expected a multiple of {patch}. Pass"
            f" --size {size // patch * patch}."
        )
    config = library.ViTConfig(
        image_size=size,
        patch_size=patch,
        num_channels=channels,
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return library.ViTModel(config, add_pooling_layer=False)


def build(name: str, options: dict[str, Any], *, pretrained: bool, follow: bool = True) -> Built:
    """A vision model by its name on the hub, its folder, or (with random weights) its type.

    Args:
        name: such as "facebook/dinov2-base", a folder that `save_pretrained` wrote, or a type such as "dinov2".
        options: of the configuration, such as hidden_size. pretrained: load the weights that belong to the name.
    """
    library = _library()
    is_type = name in library.CONFIG_MAPPING and not Path(name).is_dir()
    if is_type:
        if pretrained:
            raise EncoderError(
                f"'hf:{name}' is a type of model, without weights. Expected a name on the hub or a folder. Pass random"
                " weights (--f-weights random; for memloc layers --weights random), a file, or hf:OWNER/NAME."
            )
        config = library.AutoConfig.for_model(name)
    else:
        config = _opened(library.AutoConfig, name, {})
    _check_options(name, config, options)
    for key, value in options.items():
        wanted = getattr(config, key)
        if isinstance(wanted, (int, float)) and not isinstance(value, (int, float)):
            raise EncoderError(
                f"option {key} of hf:{name} is {value!r}. Expected a number, such as {wanted}. Correct it."
            )
        setattr(config, key, value)
    projected = getattr(config, "projection_dim", None) if hasattr(config, "vision_config") else None
    config = getattr(config, "vision_config", config)
    if projected is not None and hasattr(config, "projection_dim"):
        config.projection_dim = projected  # of the whole model, which its images and texts share
    kind = _class_of(library, config, projected=projected is not None)
    plain = is_type or config.model_type == "vit_mae" or not pretrained  # a pooler that was not trained says nothing
    extra = {"add_pooling_layer": False} if plain and kind.__name__ in _POOLED else {}
    try:
        module = _with_weights(kind, name, config, extra) if pretrained else kind(config, **extra)
    except ImportError as problem:  # a package that this model alone needs; transformers says which
        said = " ".join(str(problem).split())
        raise MissingExtraError(
            f"hf:{name} needs a package that is not here ({said}). Expected it installed. Install it with pip."
        ) from problem
    except (TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as problem:
        if isinstance(problem, MemlocError):
            raise
        raise EncoderError(
            f"hf:{name} cannot be made with these options ({str(problem).splitlines()[0]}). Expected values that fit"
            " together. Correct them."
        ) from problem
    wanted = getattr(config, "image_size", None)
    size = wanted if isinstance(wanted, int) else None
    if is_type:
        return Built(module, Recipe(fit=Fit(size)), size)
    recipe = processing(name, size) if follow else None
    return Built(module, recipe, size if recipe is None or recipe.fit.size is None else recipe.fit.size)


def _class_of(library: Any, config: Any, *, projected: bool = False) -> Any:
    """The class that encodes images: MAE's encoder without its random masking, the vision half of CLIP and SigLIP, with
    its projection where the whole model, or the one that was saved, has one."""
    kinds = {"vit_mae": "ViTModel", "clip_vision_model": "CLIPVisionModel", "siglip_vision_model": "SiglipVisionModel"}
    named = getattr(config, "architectures", None) or ()
    saved = next((each for each in named if each.endswith("WithProjection")), None)
    whole = f"{kinds.get(config.model_type, '')}WithProjection"
    if (saved is not None or projected) and hasattr(library, saved or whole):
        return getattr(library, saved or whole)
    if config.model_type in kinds:
        return getattr(library, kinds[config.model_type])
    try:
        return library.MODEL_MAPPING[type(config)]
    except KeyError as problem:
        raise EncoderError(
            f"transformers has no encoder for the type {config.model_type!r}. Expected a vision model. Pass another hf:"
            " name."
        ) from problem


def _check_options(name: str, config: Any, options: dict[str, Any]) -> None:
    known = config.to_dict()
    for key in options:
        if key not in known:
            raise EncoderError(
                f"hf:{name} has no option {key!r}. {nearest(key, known)} Expected one of its configuration. Correct it."
            )


def _with_weights(kind: Any, name: str, config: Any, extra: dict[str, Any]) -> Any:
    """A model with the weights of its name, all of them; without its pooler where that has none."""
    module, report = _opened(kind, name, {"config": config, **extra, "output_loading_info": True})
    missing = sorted(report["missing_keys"]) + sorted(str(each[0]) for each in report["mismatched_keys"])
    if missing and not extra and kind.__name__ in _POOLED and all(each.startswith("pooler.") for each in missing):
        return _with_weights(kind, name, config, {"add_pooling_layer": False})
    if missing:
        raise CheckpointError(
            f"the weights of hf:{name} lack {len(missing)} of the model's, such as {missing[0]!r}. Expected all of"
            " them: the others would be random. Pass another checkpoint, or --f-weights FILE."
        )
    return module


def _opened(kind: Any, name: str, options: dict[str, Any]) -> Any:
    try:
        with quiet():
            return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise DataNotFoundError(
            f"'hf:{name}' cannot be opened ({reason}). Expected a folder with config.json and weights, or a name on the"
            " hub and a network. Check the name, or pass a type with random weights, such as hf:dinov2 with"
            " --f-weights random."
        ) from problem


def processing(name: str, size: int | None, *, here: bool = False) -> Recipe | None:
    """The preprocessing of the image processor that belongs to a model's name or folder; None where it has none.

    Args:
        size: height and width that the model takes. here: look in the cache alone, not on the hub.
    Raises:
        MissingExtraError: it needs a package that is not here. EncoderError: it takes steps that are not followed.
    """
    library = _library()
    try:
        found = library.AutoImageProcessor.from_pretrained(name, local_files_only=here)
    except OSError:
        return None
    except (ValueError, ImportError) as problem:
        said = " ".join(str(problem).split())
        if isinstance(problem, ValueError) and "image processor class" not in said:
            return None  # a model without one
        raise MissingExtraError(
            f"the image processor of hf:{name} needs a package that is not here ({said[:200]}). Expected it installed."
            " Install it with pip, or pass --mean and --std."
        ) from problem
    return recipe_of(found, size, f"hf:{name}")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's bars and reports: what is wrong with weights is an error of memloc's."""
    logging = _library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _library() -> Any:
    try:
        import transformers
    except ImportError as problem:
        raise MissingExtraError(
            "transformers is not installed. Expected it for ViTs and hf: encoders. Install it with: pip install"
            " 'memloc[hf]'"
        ) from problem
    return transformers


def is_vit(module: nn.Module) -> bool:
    """Whether a module is one of transformers' ViTs, whose patches MAE can hide."""
    embeddings: Any = getattr(module, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    return (
        hasattr(embeddings, "patch_embeddings")
        and getattr(embeddings, "cls_token", None) is not None
        and getattr(embeddings, "distillation_token", None) is None
        and isinstance(positions, Tensor)
        and positions.shape[1] == embeddings.patch_embeddings.num_patches + 1
        and hasattr(module, "layers")
        and hasattr(module, "layernorm")
    )


def mae_decoder(module: nn.Module, *, width: int = 96, blocks: int = 2, heads: int = 3) -> nn.Module:
    """MAE's decoder for a ViT, with fixed sine and cosine positions on both sides; it attends as the ViT does.

    Args:
        width, blocks, heads: of the decoder; the published one has 512, 8 and 16 for images of 224 pixels.
    """
    library = _library()
    if not is_vit(module):
        raise EncoderError(
            f"{type(module).__name__} is no ViT of transformers, whose patches could be hidden. Expected one for the"
            " objective mae. Pass --encoder vit-tiny."
        )
    own: Any = module.config
    config = library.ViTMAEConfig(
        **{
            name: getattr(own, name)
            for name in (
                "hidden_size",
                "num_attention_heads",
                "intermediate_size",
                "image_size",
                "patch_size",
                "num_channels",
            )
        },
        num_hidden_layers=1,
        decoder_hidden_size=width,
        decoder_num_hidden_layers=blocks,
        decoder_num_attention_heads=heads,
        decoder_intermediate_size=4 * width,
        attn_implementation=own._attn_implementation,
    )
    decoder = library.ViTMAEForPreTraining(config).decoder
    embeddings: Any = module.embeddings
    side = round((embeddings.position_embeddings.shape[1] - 1) ** 0.5)
    # transformers leaves the decoder's at 0 where the weights are random, so that no hidden patch would know its place
    with torch.no_grad():
        for positions in (embeddings.position_embeddings, decoder.decoder_pos_embed):
            positions.copy_(mae_positions(side, positions.shape[2]))
            positions.requires_grad_(False)
        decoder.mask_token.normal_(std=own.initializer_range)
    return decoder


@torch.no_grad()
def draw_as_mae(*modules: nn.Module) -> None:
    """Draw the weights of every linear layer and patch embedding anew as MAE does (He et al., App. A.1): uniform after
    Glorot, biases 0.

    transformers draws all with a deviation of .02, which suits widths of several hundred: a small ViT then starts with
    patches that are a twentieth of its positions and with blocks that add next to nothing.

    >>> layer = nn.Linear(6, 6)
    >>> draw_as_mae(layer)
    >>> bool(layer.weight.abs().max() < (6 / 12) ** 0.5), layer.bias.abs().max().item()
    (True, 0.0)
    """
    for part in (each for module in modules for each in module.modules()):
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            drawn = nn.init.xavier_uniform_(torch.empty(len(part.weight), part.weight[0].numel()))
            part.weight.copy_(drawn.view_as(part.weight))
            if part.bias is not None:
                part.bias.zero_()


def mae_positions(side: int, width: int) -> Tensor:
    """MAE's fixed positions of a square grid of patches: (1, 1 + patch, width), 0 for CLS.

    A quarter each of sines and cosines of the column, then of the row, at frequencies 10000^(-4i / width).

    >>> mae_positions(2, 4)[0].round(decimals=2)                     # CLS, then the patches row by row
    tensor([[0.0000, 0.0000, 0.0000, 0.0000],
            [0.0000, 1.0000, 0.0000, 1.0000],
            [0.8400, 0.5400, 0.0000, 1.0000],
            [0.0000, 1.0000, 0.8400, 0.5400],
            [0.8400, 0.5400, 0.8400, 0.5400]])
    """
    if width % 4:
        raise EncoderError(
            f"MAE's positions cannot be made for a width of {width}. Expected a multiple of 4. Pass an encoder of"
            " another hidden_size."
        )
    frequency = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    row, column = (
        each.flatten()[:, None] * frequency
        for each in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    )
    grid = torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=grid.dtype), grid])[None].float()


def visible_tokens(module: nn.Module, inputs: Tensor, kept: Tensor) -> Tensor:
    """Encode some patches of each image: (image, 1 + kept, feature), CLS first.

    Args:
        inputs: shape (image, channel, height, width). kept: places of the patches, shape (image, kept).
    """
    parts: Any = module
    positions = parts.embeddings.position_embeddings
    tokens = parts.embeddings.patch_embeddings(inputs) + positions[:, 1:]
    tokens = tokens.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]))
    first = (parts.embeddings.cls_token + positions[:, :1]).expand(len(inputs), -1, -1)
    tokens = torch.cat([first, tokens], dim=1)
    for layer in parts.layers:
        tokens = layer(tokens)
    return parts.layernorm(tokens)


def patches_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Pixels of each patch, shape (image, patch, pixel x channel), row by row."""
    patch = int(cast(Any, module).config.patch_size)
    images, channels, height, width = inputs.shape
    cut = inputs.reshape(images, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
