"""What an audit is of: a finished training run, or encoders and sets of images by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from memloc.data import Images, as_images, check_splits, concatenate, origins
from memloc.encoders import RANDOM, Encoder, encoder_name, fit_for, load_encoder, published_fit, trial
from memloc.engine._audit import Options, ViewOptions
from memloc.engine._job import Job
from memloc.engine._prepare import prepare
from memloc.engine._protocols import protocol_settings
from memloc.engine._sets import images_of_any, joined_sets, splits_of
from memloc.errors import SpecError
from memloc.fit import Fit
from memloc.runs import Run, images_of, open_run
from memloc.views import POLICIES, Views


@dataclass(frozen=True)
class Subject:
    """Encoders and images to audit.

    Attributes:
        arguments: of `prepare`. policy: the views of their training, where that is known.
        extra: what the audit's record should hold besides. inputs: what was read, as it was named.
    """

    arguments: dict[str, Any]
    policy: str | None
    extra: dict[str, Any]
    inputs: tuple[str | Path | None, ...] = ()


def is_run(subject: object) -> bool:
    """Whether something is a Run, or a folder, unless that has the name of an encoder."""
    if isinstance(subject, Run):
        return True
    if not isinstance(subject, (str, Path)) or not Path(subject).is_dir():
        return False
    named = encoder_name(str(subject))
    return not (named.is_built_in or named.is_adapted)


def run_subject(
    run: Run | str | Path,
    *,
    external: object = None,
    max_bad: int = 0,
    changed: Sequence[str] | None = None,
    trust: bool = False,
) -> Subject:
    """Encoders, images and splits of a finished training run.

    Args:
        external: further images that no encoder saw: a path, or what `as_images` takes.
        max_bad: unreadable images to accept. changed: checkpoints to audit in f's place, such as what memloc prune made
            of it.
        trust: as in `open_run`.
    """
    opened = run if isinstance(run, Run) else open_run(run, trust=trust)
    name = str(run if not isinstance(run, Run) else run.folder)
    record, points = opened.record, opened.points
    images, given = images_of(opened, max_bad=max_bad)
    own = len(images)
    images = images if given is None else concatenate(images, given)
    splits = points["split"].tolist()
    if external is not None:
        others = images_of_any(external, fit=Fit(record["size"]), max_bad=max_bad)
        splits += ["external"] * len(others)
        images = concatenate(images, others, namespace="more")
    extra: dict[str, Any] = {"run": name, "training": record["spec"]}
    if "external" in splits:
        extra["origin"] = _origin(images, splits, own)
        removed = points.loc[points["origin"] == "removed", "point"] if "origin" in points else ()
        extra["origin"] |= dict.fromkeys(removed, "removed")
    known = [extra.get("origin", {}).get(point) for point in images.ids.tolist()]
    arguments: dict[str, Any] = {
        "images": images,
        "splits": splits,
        "held_out": [origin == "held-out" for origin in known],
        "chosen": [origin == "removed" for origin in known],
    }
    if opened.repeats:
        extra["repeats"] = opened.repeats
    if "pair" in points and changed is None:
        coins = points[points["pair"] >= 0]
        extra["coins"] = {
            "pair": dict(zip(coins["point"].tolist(), coins["pair"].tolist(), strict=True)),
            "delta": float(((record.get("privacy") or {}).get("delta") or {}).get(next(iter(opened.encoders)), 0.0)),
        }
    if opened.is_ensemble:
        seen = torch.zeros(len(opened.encoders), len(images), dtype=torch.bool)
        seen[:, : len(points)] = torch.from_numpy(opened.sees)
        arguments |= {"encoders": list(opened.encoders.values()), "membership": seen}
    else:
        # a run without an f is one that memloc remove trained, of one encoder by another name
        f, g = opened.side("f"), opened.side("g")
        arguments |= {"f": f or list(opened.encoders.values()), "g": (g or None) if f else None}
        arguments["paired"] = not record["spec"]["unpaired"]
    if changed is not None:
        arguments["f"] = _changed(changed, name, opened)
        extra["changed"] = list(changed)
    named = external if isinstance(external, (str, Path)) else None
    inputs = (opened.folder, record.get("data"), record.get("external"), named, *(changed or ()))
    return Subject(arguments, record["augmentation"], extra, inputs)


def _origin(images: Images, splits: Sequence[str], own: int) -> dict[int, str]:
    """Where each external point comes from, by id; the first `own` images are those that were trained on."""
    return dict(zip(images.ids.tolist(), origins(splits, given=len(splits) - own), strict=True))


def _changed(changed: Sequence[str], run: str, opened: Run) -> list[Encoder]:
    foreign = next((each for each in changed if not encoder_name(each).is_checkpoint), None)
    if foreign is not None:
        raise SpecError(
            f"--f {foreign} is given beside the run {run!r}, which already says which encoders to audit. Expected none,"
            " or a checkpoint made from its f, such as pruned/encoder.safetensors. Leave --f out, or name --data."
        )
    if opened.is_ensemble:
        raise SpecError(
            f"--f is given beside {run!r}, an ensemble, in which every encoder has its own training set. Expected a run"
            " of f and g. Leave --f out."
        )
    before = opened.side("f") or list(opened.encoders.values())
    found = [load_encoder(each) for each in changed]
    # what was changed is the encoder; its head and objective are those of the training
    like = [before[min(number, len(before) - 1)] for number in range(len(found))]
    return [
        replace(encoder, head=each.head, objective=each.objective) for encoder, each in zip(found, like, strict=True)
    ]


def named_subject(
    run: str | Path | None,
    f: Sequence[str],
    g: Sequence[str],
    *,
    sets: Mapping[str, str | Path | None],
    beside_run: Sequence[str] = (),
    max_bad: int = 0,
    trust: bool = False,
    **named: Any,
) -> Subject:
    """What a command names: a run, perhaps with external images and a checkpoint in f's place, or encoders and sets.

    Args:
        beside_run: flags that were given and do not go with a run. named: as in `sets_subject`.
    Raises:
        SpecError: both, or neither.
    """
    if run is not None:
        if beside_run:
            raise SpecError(
                f"{beside_run[0]} is given beside the run {str(run)!r}, which already says which encoders and images to"
                f" audit. Expected one or the other. Leave {beside_run[0]} out."
            )
        return run_subject(run, external=sets["external"], max_bad=max_bad, changed=f or None, trust=trust)
    if not f or sets["candidate"] is None:
        raise SpecError(
            "there is nothing to audit. Expected a run, or --f and --data. Type: memloc audit RUN --out DIR, or memloc"
            " audit --f ENC --data DATA --out DIR"
        )
    return sets_subject(f, g, sets=sets, max_bad=max_bad, **named)


def sets_subject(
    f: Sequence[str],
    g: Sequence[str] = (),
    *,
    sets: Mapping[str, str | Path | None],
    f_weights: str | None = None,
    g_weights: str | None = None,
    f_head: Sequence[str] = (),
    g_head: Sequence[str] = (),
    layers: str | Sequence[str] = "auto",
    size: int | None = None,
    max_bad: int = 0,
    earlier: bool = False,
    **loading: Any,
) -> Subject:
    """Encoders by name, and a set of images for each split.

    Args:
        sets: images by split, as `open_images` takes them; candidates at least.
        f_weights, g_weights: checkpoints of one f and one g. f_head, g_head: files of heads, one for each encoder of
            the side, or none. size, max_bad: as in `open_images`.
        loading: mean, std, state_key, strip_prefix and output, as in `load_encoder`.
    """
    weights = {"f": f_weights, "g": g_weights}
    first = trial(f[0], lambda: _load(f[0], f_weights, 0, layers, loading))
    if not any(weights.values()) and any(loading.get(key) is not None for key in ("state_key", "strip_prefix")):
        raise SpecError(
            "--state-key and --strip-prefix are given without a checkpoint. Expected one. Pass --f-weights FILE."
        )
    images, splits, own = joined_sets(sets, fit=fit_of(first, size), max_bad=max_bad)
    shape = (images.pixels.shape[1], *images.pixels.shape[2:])
    if first is not None:  # its layers, at the size of these images
        first = load_encoder(
            replace(first, layers=()), layers=layers, shape=shape, output=loading.get("output", "auto")
        )
    loaded: dict[str, list[Encoder]] = {"f": [], "g": []}
    for side, names in (("f", f), ("g", g)):
        if weights[side] is not None and len(names) != 1:
            raise SpecError(
                f"--{side}-weights is given for {len(names)} encoders. Expected one --{side}. Name checkpoints that"
                " memloc wrote instead."
            )
        known = {f[0]: first} if side == "f" and first is not None else {}
        loaded[side] = [
            known.get(name) or _load(name, weights[side], 2 * number + (side == "g"), layers, loading, shape=shape)
            for number, name in enumerate(names)
        ]
    arguments = {"f": loaded["f"], "g": loaded["g"] or None, "images": images, "splits": splits, "earlier": earlier}
    arguments |= {"f_head": list(f_head) or None, "g_head": list(g_head) or None}
    extra = {"origin": _origin(images, splits, own)} if "external" in splits else {}
    inputs = (*f, *g, *sets.values(), *weights.values(), *f_head, *g_head)
    return Subject(arguments, loaded["f"][0].augmentation, extra, inputs)


def given_images(given: Mapping[str, Any], sets: Mapping[str, Any]) -> dict[str, Any]:
    """Images, their splits and where external ones come from, of the arguments of `audit`.

    Raises:
        SpecError: images beside sets, neither, or points and labels beside sets.
    """
    named = [name for name, value in sets.items() if value is not None]
    images, splits = given["images"], given["splits"]
    if images is None and not named:
        raise SpecError(
            "there are no images. Expected the points to score. Pass images=, or candidate= and external=, or a run."
        )
    fit = _fit_of_first(_sided(given["f"]) + _sided(given["encoders"]), given["size"])
    how: dict[str, Any] = {"fit": fit, "asked": given["size"] is not None, "max_bad": given["max_bad"]}
    if images is not None and "candidate" in named:
        raise SpecError("images is given beside candidate. Expected one of them. Leave images out.")
    own: Images | None = None
    own_splits: list[str] | None = None
    if images is not None:
        own = images_of_any(images, **how)
        if given["points"] is not None or given["labels"] is not None:
            own = as_images(own, points=given["points"], labels=given["labels"])
        own_splits = splits_of(splits, own)
    elif splits is not None or given["points"] is not None or given["labels"] is not None:
        raise SpecError(
            "splits, points or labels are given without images. Expected them beside images=, since each of candidate=,"
            " independent=, shared= and external= is a split of its own. Leave them out, or pass images=."
        )
    if not named:
        return {"images": own, "splits": own_splits, "points": None, "labels": None}
    if own is None:
        joined, found, _ = joined_sets(sets, **how)
    else:  # further sets beside images
        check_splits(own_splits or ["candidate"] * len(own), len(own))
        joined, found = own, list(own_splits or ["candidate"] * len(own))
        for name in named:
            more = images_of_any(sets[name], **how)
            joined, found = concatenate(joined, more, namespace=name), found + [name] * len(more)
    return {"images": joined, "splits": found, "points": None, "labels": None}


def _fit_of_first(encoders: list[Any], size: int | None) -> Fit:
    """How images are brought to the size of the first encoder, or to one that a user asks for."""
    first = next((each for each in encoders if each is not None), None)
    if isinstance(first, (str, Path)):
        return fit_for(str(first), size, lambda: load_encoder(first))
    fit = published_fit(first) if isinstance(first, (torch.nn.Module, Encoder)) else Fit()
    return fit if size is None else fit.at(size)


def _sided(side: Any) -> list[Any]:
    return list(side) if isinstance(side, (list, tuple)) else [side]


def fit_of(encoder: Encoder | None, size: int | None) -> Fit:
    """How images are brought to an encoder's size, or to one that a user asks for."""
    if encoder is None:
        return Fit(size)
    return encoder.fit if size is None else encoder.fit.at(size)


def _load(name: str, weights: str | None, draw: int, layers: Any, loading: Mapping[str, Any], **more: Any) -> Encoder:
    """An encoder by name; random weights are the same in every call, so that it can be repeated."""
    if weights in (None, RANDOM):  # where in a checkpoint to look says nothing to one without
        loading = {**loading, "state_key": None, "strip_prefix": None}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draw)  # torch.manual_seed imports PyTorch's compiler, which takes seconds
        return load_encoder(name, weights=weights, layers=layers, **loading, **more)


def view_recipe(
    policy: str,
    wanted: Mapping[str, Any],
    *,
    protocol: str,
    chosen: ViewOptions | None = None,
) -> Views:
    """The views of an audit.

    Args:
        policy: of the training, or the protocol's. wanted: the protocol's settings, with those that were given.
        chosen: the policy, seed and patch that were given, which go before all.
    """
    if protocol == "paper" and f"{policy}-paper" in POLICIES:
        policy = f"{policy}-paper"
    given = chosen or ViewOptions()
    policy = given.policy or policy
    if given.patch is not None and policy != "mask":
        raise SpecError(
            f"--patch is given for the policy {policy!r}, which hides no patches. Expected it with --policy mask. Leave"
            " --patch out."
        )
    return Views(
        policy,
        n=wanted["views"],
        seed=given.views_seed,
        sampling=wanted["sampling"],
        patch=given.patch,
        original=wanted["original"],
    )


def unit_recipe(wanted: Mapping[str, Any], views: Views) -> Views | None:
    """The views of UnitMem, where a protocol draws them apart."""
    if "unit_policy" not in wanted:
        return None
    return replace(views, policy=wanted["unit_policy"], n=wanted["unit_views"], sampling="independent", original=False)


def plan_audit(
    subject: Subject,
    chosen: ViewOptions,
    options: Options,
    *,
    given: Collection[str],
    layers: str | Sequence[str] = "auto",
    device: str = "auto",
) -> Job:
    """A job, as `memloc audit` makes it.

    Args:
        chosen, options: settings.
        given: the names of those that were given; the others follow from the protocol and from the training.
    """
    number: Any = int(chosen.views) if chosen.views.lstrip("-").isdigit() else chosen.views
    settings = {
        "views": number,
        "sampling": chosen.sampling,
        "original": chosen.pairs == "original",
        "rest": options.rest,
        "scale": options.scale,
    }
    known = {"original": "pairs"}
    wanted = protocol_settings(
        chosen.protocol, {name: value for name, value in settings.items() if known.get(name, name) in given}
    )
    views = view_recipe(subject.policy or wanted["policy"], wanted, protocol=chosen.protocol, chosen=chosen)
    scored = {**asdict(options), "rest": wanted["rest"], "scale": wanted["scale"]}
    return prepare(
        **subject.arguments,
        layers=layers,
        views=views,
        unit_views=unit_recipe(wanted, views),
        device=device,
        **scored,
    )
