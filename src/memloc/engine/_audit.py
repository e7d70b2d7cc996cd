"""The door of the engine: the settings of an audit, flat, and the function that takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from memloc.errors import SpecError, warn
from memloc.progress import Report, silent
from memloc.settings import SEEDS, check_limits, documented, setting
from memloc.views import POLICIES

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from memloc.encoders import Encoder
    from memloc.report import Audit
    from memloc.runs import Run
    from memloc.views import Views

    AnyEncoder: TypeAlias = str | Path | nn.Module | Encoder
    AnyHead: TypeAlias = str | Path | nn.Module

Protocol = Literal["memloc", "paper", "published-code"]
Distance = Literal["l2", "l1", "cosine", "angular"]
Rest = Literal["mean", "median"]
Scale = Literal["ratio", "range"]
Signed = Literal["rectify", "raw"]
Dtype = Literal["float32", "float64", "bfloat16"]
PROTOCOL_NAMES = ("memloc", "paper", "published-code")
_SUBJECT = (
    *("f", "g", "images", "points", "splits", "labels", "encoders", "membership", "f_head", "g_head"),
    *("paired", "earlier"),
)  # arguments of an audit that a run brings


@documented
@dataclass(frozen=True)
class Options:
    """How scores are computed."""

    distance: Distance = setting("l2", "Between representations.", choices=("l2", "l1", "cosine", "angular"))
    rest: Rest = setting("mean", "Of the other points in UnitMem.", choices=("mean", "median"))
    scale: Scale = setting(
        "ratio",
        "In the layers' tables: ratio (SSLMem') or range (raw scores over their range, as the published code).",
        choices=("ratio", "range"),
    )
    signed: Signed = setting("rectify", "Activations in UnitMem.", choices=("rectify", "raw"))
    dtype: Dtype = setting(
        "float32", "Of the encoders; bfloat16 by autocast.", choices=("float32", "float64", "bfloat16")
    )
    batch_size: int | None = setting(None, "Points per batch; by image size by default.", low=1)
    shard_size: int = setting(1024, "Points per shard, the unit of resuming.", low=1)
    thumbnails: bool = setting(True, "Keep small pictures for the report.")
    decoys: float | None = setting(
        None,
        "Share of held-out points scored as if they were candidates, to count false names; a fifth by default where"
        " there are 100 or more.",
        low=0,
        high=0.9,
    )
    seed: int = setting(0, "Of bootstrap and sampling.", low=0, high=SEEDS)

    def __post_init__(self) -> None:
        check_limits(self)


@documented
@dataclass(frozen=True)
class ViewOptions:
    """Which views are drawn; what is not given follows from the protocol, the policy from the training where known."""

    protocol: Protocol = setting(
        "memloc", "Sets what is not given of views, sampling, pairs, rest, scale.", choices=PROTOCOL_NAMES
    )
    policy: str | None = setting(
        None, f"Views: {', '.join(POLICIES)}; as in training by default.", choices=POLICIES, example="normal"
    )
    views: str = setting("16", "Views per point, or auto.")
    views_seed: int = setting(0, "Of the views.", low=0, high=SEEDS)
    sampling: Literal["sobol", "independent"] = setting(
        "sobol", "Evenly spread or plain draws.", choices=("sobol", "independent")
    )
    pairs: Literal["views", "original"] = setting(
        "views",
        "Distances of views from each other, or of the image itself from each view.",
        choices=("views", "original"),
    )
    patch: int | None = setting(None, "Side of the patches that the mask policy hides.", low=1)

    def __post_init__(self) -> None:
        check_limits(self)


def audit(
    f: AnyEncoder | Sequence[AnyEncoder] | Run | None = None,
    g: AnyEncoder | Sequence[AnyEncoder] | None = None,
    *,
    images: object = None,
    points: Sequence[int] | Tensor | None = None,
    splits: Sequence[str] | Mapping[Any, Any] | None = None,
    labels: Sequence[int] | Sequence[str] | Tensor | None = None,
    candidate: object = None,
    independent: object = None,
    shared: object = None,
    external: object = None,
    encoders: Sequence[AnyEncoder] | None = None,
    membership: Tensor | np.ndarray | None = None,
    f_head: AnyHead | Sequence[AnyHead] | None = None,
    g_head: AnyHead | Sequence[AnyHead] | None = None,
    layers: str | Sequence[str] = "auto",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | None = None,
    max_bad: int = 0,
    output: str = "auto",
    views: Views | int | None = None,
    protocol: Protocol = "memloc",
    distance: Distance = "l2",
    rest: Rest | None = None,
    scale: Scale | None = None,
    signed: Signed = "rectify",
    dtype: Dtype = "float32",
    batch_size: int | None = None,
    shard_size: int = 1024,
    thumbnails: bool = True,
    decoys: float | None = None,
    seed: int = 0,
    device: str = "auto",
    paired: bool = False,
    earlier: bool = False,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
    trust: bool = False,
) -> Audit:
    """Score memorization per point, layer, unit and class in one pass of views through each encoder.

    Args:
        f: the encoder, or several training runs of it; or a run that `memloc train` finished (Run or folder), which
            brings encoders, images, splits and views. g: the reference that never saw the candidates, likewise;
            without it UnitMem and ClassMem are computed and, where there are external points, the alignment gap.
        images: a path (see `memloc.open_images`), a dataset, uint8 images (see `memloc.as_images`) or Images; not
            beside a run.
        points: ids, 0 to N-1 by default. labels: class numbers or names, for ClassMem.
        splits: "shared", "candidate", "independent" or "external" per point, as a list or a mapping; all candidates by
            default.
        candidate, independent, shared, external: instead of images with splits, the images of each split: those that f
            was trained on and g was not, g and not f, both, neither; each what `images` may be. Beside a run external
            alone: further images that no encoder saw.
        encoders, membership: instead of f and g, any number of encoders and which was trained on which point, bool
            (encoder, point).
        f_head, g_head: the projection heads that f and g were trained with, as modules or files of weights; a run's are
            read anyway. One for each encoder of the side.
        layers: "auto" (main chain), "fine", or names and globs.
        mean, std: per channel, of modules whose configuration does not tell them. output: as in `load_encoder`.
        size: height and width to bring the images to; by default what f takes, where it takes one alone.
        max_bad: unreadable images of a path to accept.
        views: the recipe for views, by the protocol by default (Views() for "memloc"), or their number alone;
            `Views(n="auto")` chooses their number by a pilot.
        protocol: "memloc", "paper" (their text) or "published-code": sets what is not given of views, rest and scale.
        distance, rest, scale, signed, dtype, batch_size, shard_size, thumbnails, decoys, seed: as in Options.
        device: "auto", "cpu" or "cuda".
        paired: whether f[0] and g[0] were trained in a pair, and so on, as `train_pair(runs=...)` does; they are then
            resampled together.
        earlier: g is an earlier checkpoint of f's training rather than a reference that never saw the candidates.
        out: folder for the tables and audit.json, which an interrupted audit resumes from.
        progress: called with what is going on, points done and points in all.
        overwrite: begin anew in `out`, without what memloc wrote there.
        trust: beside a folder of a run, as in `open_run`.
    Returns:
        Audit with .points, .layers, .units, .point_layers and .separation.
    Raises:
        MemlocError: one of its children, before work starts, for anything that cannot be audited.
    Source: REFERENCE Part A.

    >>> import numpy as np
    >>> from memloc import Views
    >>> from memloc.encoders import ResNet9
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> splits = ["candidate"] * 6 + ["independent"] * 6
    >>> found = audit(ResNet9(), ResNet9(), images=images, splits=splits, views=Views(n=4))
    >>> found.layers[["layer", "layermem_calibrated"]].shape
    (11, 2)
    """
    given = locals()
    from memloc.engine._prepare import prepare
    from memloc.engine._protocols import protocol_settings
    from memloc.engine._run import run_job
    from memloc.engine._sets import SETS
    from memloc.engine._subjects import given_images, is_run, run_subject, unit_recipe, view_recipe

    wanted = protocol_settings(protocol, {"rest": rest, "scale": scale})
    options = {name: given[name] for name in Options.__dataclass_fields__} | {
        key: wanted[key] for key in ("rest", "scale")
    }
    arguments: dict[str, Any] = {name: given[name] for name in _SUBJECT}
    policy, extra = wanted["policy"], None
    inputs: tuple[Any, ...] = tuple(
        each for side in (f, g) for each in (side if isinstance(side, (list, tuple)) else [side]) if _is_named(each)
    )
    if is_run(f):
        for name in (*_SUBJECT[1:], "candidate", "independent", "shared", "mean", "std", "size"):
            if given[name] is not None and given[name] is not False:
                raise SpecError(
                    f"{name} is given beside a run, which already says which encoders and images to audit. Expected one"
                    f" or the other. Leave {name} out."
                )
        subject = run_subject(f, external=external, trust=trust)  # type: ignore[arg-type]
        arguments, extra, policy = subject.arguments, subject.extra, subject.policy or policy
        inputs = subject.inputs
    else:
        sets = {name: given[name] for name in SETS}
        arguments |= given_images(given, sets)
        inputs += tuple(each for each in (images, *sets.values()) if _is_named(each))
    if views is None:
        views = view_recipe(policy, wanted, protocol=protocol)
    elif isinstance(views, int):
        views = replace(view_recipe(policy, wanted, protocol=protocol), n=views)
    apart = unit_recipe(wanted, views)
    loading = {name: given[name] for name in ("mean", "std", "output")}
    job = prepare(**arguments, **loading, layers=layers, views=views, unit_views=apart, device=device, **options)
    for text in job.found:
        warn(text)
    return run_job(job, out=out, progress=progress, overwrite=overwrite, extra=extra, inputs=inputs)


def _is_named(encoder: object) -> bool:
    return isinstance(encoder, (str, Path))
