"""Options of commands, made from settings dataclasses, where names, types, defaults, help and limits stand once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from memloc.cli._common import progress as common_progress
from memloc.cli._flags import COMMON
from memloc.progress import Report
from memloc.settings import KnownSetting, plain_type, settings_of

_CONTEXT = "context"


class Given(dict[str, Any]):
    """The values of a command's settings; `named` are those that the command line or the settings file gave.

    Options that several commands share are attributes.

    >>> Given({"epochs": 200, "seed": 1}, named={"seed"}).only_named()
    {'seed': 1}
    """

    weights: str | None
    state_key: str | None
    strip_prefix: str | None
    output: str = "auto"
    size: int | None
    max_bad: int
    device: str
    trust: bool
    dry_run: bool
    as_json: bool
    overwrite: bool

    def __init__(self, values: Mapping[str, Any], *, named: set[str], **common: Any) -> None:
        super().__init__(values)
        self.named = named
        vars(self).update(common)

    @property
    def keys_of(self) -> dict[str, str | None]:
        """Where in a checkpoint to look, as `load_encoder` takes it."""
        return {"state_key": self.state_key, "strip_prefix": self.strip_prefix}

    @property
    def progress(self) -> Report:
        """Progress on standard error; none under --json."""
        return common_progress(self.as_json)

    def only_named(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: value for name, value in self.items() if name in self.named}

    def kept(self, kind: type) -> dict[str, Any]:
        """The values that are settings of a dataclass."""
        return {known.name: self[known.name] for known in settings_of(kind) if known.name in self}

    def of(self, kind: type) -> Any:
        """A settings dataclass with the values that are its."""
        return kind(**self.kept(kind))

    def flags(self, *names: str) -> list[str]:
        """The flags of those of some settings or parameters that were given."""
        return [f"--{name.replace('_', '-')}" for name in names if name in self.named]


def with_settings(
    *kinds: type,
    common: tuple[str, ...] = (),
    leave_out: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the fields of settings dataclasses as options, and their values as its argument `settings`.

    Args:
        kinds: the dataclasses; a name in several stands once. common: names of COMMON.
        leave_out: fields that are no options here.
        defaults: other than the fields' own. flags: other names of fields.
    """
    seen: dict[str, KnownSetting] = {}
    for kind in kinds:
        for known in settings_of(kind):
            if known.name not in leave_out:
                usual = (defaults or {}).get(known.name, known.default)
                seen.setdefault(known.name, replace(known, default=usual))

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = dict(inspect.signature(command).parameters)
        hints = get_type_hints(command, include_extras=True)
        own.pop("settings")

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            context: typer.Context = values.pop(_CONTEXT)
            named = {name for name in context.params if _was_given(context, name)}
            shared = {name: values.pop(name) for name in common}
            settings = Given({name: values.pop(name) for name in seen}, named=named, **shared)
            _refuse_if_in_use(values.get("out"))
            return command(**values, settings=settings)

        parameters = [
            *(_keyword(name, hints[name], each.default) for name, each in own.items()),
            *(_option(known, (flags or {}).get(known.name)) for known in seen.values()),
            *(_keyword(name, *COMMON[name]) for name in common),
            _keyword(_CONTEXT, typer.Context),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _refuse_if_in_use(out: object) -> None:
    """Raise before any work where another process works on the output folder."""
    if isinstance(out, Path) and out.is_dir():
        from memloc.results import check_free

        check_free(out)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def _option(known: KnownSetting, flag: str | None) -> inspect.Parameter:
    one = known.setting
    text = one.text
    if one.choices and not all(choice in text for choice in one.choices):
        text = f"{text} One of {', '.join(one.choices)}."
    names = [f"--{known.name.replace('_', '-')}"] if flag is None else [flag]
    if plain_type(known.kind) is bool and known.default is True:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    kind = one.text_type or plain_type(known.kind)
    annotation: Any = Annotated[kind, typer.Option(*names, help=text)]
    return _keyword(known.name, annotation, known.default)
