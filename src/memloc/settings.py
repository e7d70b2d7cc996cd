"""Settings: frozen dataclasses whose fields carry their help and limits.

Flags of the command line, keys of TOML files, checks, docstrings and docs/settings.md all follow from the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from memloc.errors import SpecError, nearest

SEEDS = 2**32 - 1
"""The largest seed: what NumPy's and scikit-learn's generators take."""
_WHOLE = 2**63 - 1  # the largest whole number
_Kind = TypeVar("_Kind", bound=type)


@dataclass(frozen=True)
class Setting:
    """What is known of one setting besides its name, type and default.

    Attributes:
        text: its help. choices: the values it takes; () for any.
        low, high: the least and largest number. above, below: numbers it must not reach.
        example: what to type where a value is wrong; its default where there is one.
        text_type: how a command line reads it where that is not the field's own type.
    """

    text: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    example: Any = None
    text_type: type | None = None


@dataclass(frozen=True)
class KnownSetting:
    """A field of a settings dataclass: its name, type, default and what is known of it."""

    name: str
    kind: Any
    default: Any
    setting: Setting

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return flag_of(self.name)

    @property
    def limits(self) -> str:
        """Its choices or limits in words; "" where there are none."""
        one = self.setting
        if one.choices:
            return ", ".join(one.choices)
        ends = ((one.low, "at least {}"), (one.above, "above {}"), (one.high, "at most {}"), (one.below, "below {}"))
        return ", ".join(words.format(f"{end:.12g}") for end, words in ends if end is not None)


def setting(default: Any, text: str, *, choices: Iterable[str] = (), **limits: Any) -> Any:
    """A field of a settings dataclass.

    Args:
        text: its help. choices: the values it takes.
        limits: low, high, above, below, example or text_type, as in Setting.
    """
    return field(default=default, metadata={"setting": Setting(text, tuple(choices), **limits)})


def settings_of(kind: type) -> list[KnownSetting]:
    """The settings of a dataclass, in order.

    >>> @dataclass(frozen=True)
    ... class Spec:
    ...     epochs: int = setting(200, "Of every encoder.", low=1)
    >>> [(known.flag, known.default, known.limits) for known in settings_of(Spec)]
    [('--epochs', 200, 'at least 1')]
    """
    hints = get_type_hints(kind)
    return [
        KnownSetting(each.name, hints[each.name], each.default, each.metadata["setting"])
        for each in fields(kind)
        if "setting" in each.metadata
    ]


def flag_of(name: str) -> str:
    """The flag of a setting.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def check_limits(spec: Any) -> None:
    """Raise SpecError where a setting is of another type, none of its choices or beyond its limits; None is never
    looked at."""
    kinds = {known.name: plain_type(known.kind) for known in settings_of(type(spec))}
    for each in fields(spec):
        one: Setting | None = each.metadata.get("setting")
        value = getattr(spec, each.name)
        if one is None or value is None:
            continue
        _check_type(each, one, kinds[each.name], value)
        if one.choices and isinstance(value, str):
            check_choice(each.name, value, one.choices, example=_example(each, one))
        elif isinstance(value, Real) and not isinstance(value, bool):
            if isinstance(value, Integral) and abs(int(value)) > _WHOLE:
                raise SpecError(
                    f"{each.name} is a number of more than 18 digits. Expected at most {_WHOLE}. Pass"
                    f" {flag_of(each.name)} {_example(each, one) or 1}."
                )
            _check_number(each, one, value)


def check_choice(name: str, value: str, choices: Iterable[str], *, example: str | None = None) -> None:
    """Raise SpecError where a value is none of a setting's choices.

    >>> check_choice("optimizer", "sdg", ("adamw", "sgd"))
    Traceback (most recent call last):
    memloc.errors.SpecError: there is no optimizer 'sdg'. Nearest: 'sgd'. Expected one of adamw, sgd. Pass \
--optimizer adamw.
    """
    known = list(choices)
    if value not in known:
        raise SpecError(
            f"there is no {name} {value!r}. {nearest(value, known)} Expected one of {', '.join(known)}."
            f" Pass {flag_of(name)} {example or known[0]}."
        )


def _check_type(of: Field[Any], one: Setting, kind: Any, value: Any) -> None:
    """Raise SpecError where a value is no number of the kind that a setting takes."""
    wanted = next((part for part in (get_args(kind) or (kind,)) if part is not type(None)), kind)
    fits = {
        int: isinstance(value, Integral) and not isinstance(value, bool),
        float: isinstance(value, Real) and not isinstance(value, bool),
        bool: isinstance(value, bool),
    }.get(wanted, True)
    if not fits:
        words = {int: "a whole number", float: "a number", bool: "true or false"}[wanted]
        raise SpecError(
            f"{of.name} is {value!r}. Expected {words}. Pass {flag_of(of.name)} {_example(of, one) or one.low or 1}."
        )


def _check_number(of: Field[Any], one: Setting, value: Any) -> None:
    """Raise SpecError where a number is beyond a limit; NaN is beyond all."""
    for end, holds, words in (
        (one.low, lambda end: value >= end, "at least {}"),
        (one.high, lambda end: value <= end, "at most {}"),
        (one.above, lambda end: value > end, "a number above {}"),
        (one.below, lambda end: value < end, "a number below {}"),
    ):
        if end is not None and not holds(end):
            raise SpecError(
                f"{of.name} is {value}. Expected {words.format(f'{end:.12g}')}. Pass {flag_of(of.name)}"
                f" {_example(of, one) or f'{end:.12g}'}."
            )


def _example(of: Field[Any], one: Setting) -> str | None:
    """What to type for a setting, as text; None where nothing is known."""
    usual = one.example if one.example is not None else of.default
    return None if usual is MISSING or usual is None else str(usual)


def make_spec(kind: type, settings: Mapping[str, Any]) -> Any:
    """A settings dataclass from keywords; an unknown key is an error with the nearest match.

    >>> @dataclass(frozen=True)
    ... class Spec:
    ...     temperature: float = setting(0.5, "Of the loss.", above=0)
    >>> make_spec(Spec, {"temprature": 3})
    Traceback (most recent call last):
    memloc.errors.SpecError: there is no setting 'temprature'. Nearest: 'temperature'. Expected a field of Spec. \
Correct the key.
    """
    known = [each.name for each in fields(kind)]
    for key in settings:
        if key not in known:
            raise SpecError(
                f"there is no setting {key!r}. {nearest(key, known)} Expected a field of {kind.__name__}. Correct the"
                " key."
            )
    return kind(**settings)


def documented(kind: _Kind) -> _Kind:
    """Add what the fields say to a settings dataclass's docstring.

    >>> @documented
    ... @dataclass(frozen=True)
    ... class Spec:
    ...     '''How long.'''
    ...
    ...     epochs: int = setting(200, "Of every encoder.", low=1)
    >>> print(Spec.__doc__)
    How long.
    <BLANKLINE>
    Attributes:
        epochs: Of every encoder (at least 1; 200 by default).
    """
    kind.__doc__ = f"{(kind.__doc__ or '').rstrip()}\n\nAttributes:\n{settings_in_words(kind)}"
    return kind


def settings_in_words(kind: type) -> str:
    """A line for each setting of a dataclass, as docstrings have them."""
    return "\n".join(f"    {known.name}: {_sentence(known)}" for known in settings_of(kind))


def _sentence(known: KnownSetting) -> str:
    usual = "" if known.default is None else f"{known.default!r} by default"
    more = "; ".join(part for part in (known.limits, usual) if part)
    return f"{known.setting.text.rstrip('.')}{f' ({more})' if more else ''}."


def plain_type(kind: Any) -> Any:
    """A field's type as a command line reads it: text for choices, the first of several types, lists as they are.

    >>> from typing import Literal
    >>> plain_type(Literal["l1", "l2"]), plain_type(float | None), plain_type(list[str] | None)
    (<class 'str'>, float | None, list[str] | None)
    """
    if get_origin(kind) is not None and get_origin(kind) not in (list, Sequence) and not _is_union(kind):
        return str
    if _is_union(kind):
        parts = [part for part in get_args(kind) if part is not type(None)]
        first = plain_type(parts[0]) if len(parts) == 1 else str
        return first | None if type(None) in get_args(kind) else first
    return kind


def _is_union(kind: Any) -> bool:
    import types

    return get_origin(kind) in (Union, types.UnionType)
