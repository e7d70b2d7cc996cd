"""Text in a column's cells as numbers, dates or durations: separators, currencies, units, order of day and month."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BLANKS = frozenset(
    (
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "#na",
        "nan",
        "-nan",
        "<na>",
        "null",
        "none",
        "nil",
        "-",
        "--",
        "---",
        "?",
        "??",
        ".",
        "..",
        "missing",
        "unknown",
        "#value!",
        "#div/0!",
        "#null!",
    )
) | {"", "not available", "no data", "not applicable"}
"""What stands for a missing value in a column of numbers, dates or durations, in lower case."""

_SPACES = "\u0020\u00a0\u202f\u2009"
_CURRENCIES = ("R$", "US$", "A$", "C$", "CA$", "HK$", "NZ$", "kr", "kr.", "zł", "Kč", "Rs", "Rs.", "Fr.", "$", "€", "£",
               "¥", "₹", "₽", "₩", "₺", "USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "AUD", "CAD", "SEK", "NOK",
               "DKK",               "PLN", "BRL", "MXN", "ZAR")  # fmt: skip
_BEFORE = "|".join(re.escape(each) for each in sorted(_CURRENCIES, key=len, reverse=True))
_NUMBER = re.compile(
    rf"(?P<open>\()?(?P<sign>[-+−]?)[{_SPACES}]*(?P<before>{_BEFORE})?[{_SPACES}]*(?P<inner>[-−]?)"
    rf"(?P<body>\d[\d.,'’{_SPACES}]*|[.,]\d+)(?P<power>[eE][-+]?\d+)?[{_SPACES}]*"
    r"(?P<after>(?:[^\W\d_]|[%‰°$€£¥₹₽′″\"])[^\d\s()+−]{0,7}(?: [^\d\s()+−]{1,8})?[\d²³]?)?(?P<close>\))?(?P<last>-?)",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}")
_TIMES = {"k": 1e3, "K": 1e3, "M": 1e6, "Mio": 1e6, "mn": 1e6, "B": 1e9, "bn": 1e9}
_ORDINALS = {"st", "nd", "rd", "th", "t"}  # of 1st, whose s is a plural's to what strips it
_LEADING_ZERO = re.compile(r"[-+]?0\d{2,}|0\d+[eE]\d+")
_CLOCK = re.compile(r"-?\d+:[0-5]\d(?P<lap>[.,]\d+)?(?::[0-5]\d(?:[.,]\d+)?)?(?P<half>\s?[aApP]\.?[mM]\.?)?")
_SPAN = re.compile(r"-?\d+(?:\.\d+)? ?(?:d|days?)\b.*|-?P(?=\d|T\d)(?:\d+[YMWD])*(?:T(?:\d+(?:\.\d+)?[HMS])+)?")
_SPOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>days?|d|hours?|hrs?|h|minutes?|mins?|min|m|seconds?|secs?|sec|s)\b"
    r"\.?,? ?(?:and )?",
    re.IGNORECASE,
)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DATE = re.compile(
    r"\d{4}[- ]?Q[1-4]|[A-Za-z]{3} [A-Za-z]{3} {1,2}\d{1,2} \d\d:\d\d:\d\d(?: [A-Z]{3,4})? \d{4}"
    r"|\d{8}T\d{4,6}Z?|(?:\w{3,9},? )?(?:\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    r"|\d{1,2}(?:st|nd|rd|th)?[-/. ]{1,2}[A-Za-z]{3,9}\.?,?[-/. ]{1,2}(?:\d{4}|\d{2})"
    r"|[A-Za-z]{3,9}\.?[-/. ]\d{1,2}(?:st|nd|rd|th)?,? \d{4}|[A-Za-z]{3,9}\.?[-/. ]\d{4})(?P<time>[T ,].*)?"
)
_PARTS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})(?P<time>[T ].*)?")
_YEARS = (1500, 2500)  # of dates; 9999-12-31 is one that stands for none
_FORMS = 6  # of dates in one column, at most
_COMPACT = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class Parsed:
    """What some texts are as numbers, or as dates.

    Attributes:
        values: float64, or datetime64[us]; NaN, or NaT, where a text is none. words: what was made of their form, to
            say. units: the units found, where they are several, so that the texts are no numbers of one kind.
        decided: what the texts as a whole decided, to read others alike.
    """

    values: NDArray[np.float64] | NDArray[np.datetime64]
    words: tuple[str, ...] = ()
    units: tuple[str, ...] = field(default=())
    decided: Mapping[str, Any] = field(default_factory=dict)


def has_decimal_commas(texts: Sequence[str]) -> bool | None:
    """Whether numbers among some texts are written with a decimal comma; None where they do not show it.

    >>> has_decimal_commas(["1,5", "2"]), has_decimal_commas(["1,234", "5.5"]), has_decimal_commas(["1,234"])
    (True, False, None)
    """
    found = [one for one in map(_NUMBER.fullmatch, texts) if one and not one["after"]]
    bodies = [one["body"] for one in found]
    thousands = {sign for body in bodies for sign, other in (",.", ".,") if _is_grouped(body, sign, other)}
    if thousands:
        return None if len(thousands) > 1 else thousands == {"."}
    if any(one["power"] and "," in one["body"] for one in found):
        return True
    comma = any(body.count(",") == 1 and _after_last(body, ",") for body in bodies)
    point = any(body.count(".") == 1 and _after_last(body, ".") for body in bodies)
    return None if comma == point else comma


def _is_grouped(body: str, sign: str, other: str) -> bool:
    """Whether a sign stands between thousands more than once, as no decimal sign does."""
    whole = body.partition(other)[0]
    return whole.count(sign) > 1 and _THOUSANDS.fullmatch(whole.replace(sign, ",")) is not None


def _after_last(body: str, sign: str) -> bool:
    """Whether a sign can only be the decimal one: it comes after the other, or no three digits follow it."""
    whole, _, rest = body.rpartition(sign)
    other = "." if sign == "," else ","
    return other in whole or (other not in rest and (len(rest.strip()) != 3 or len(whole) > 3 or whole in ("", "0")))


def as_numbers(
    texts: Sequence[str], *, comma: bool = False, decimal: bool | None = None, unit: str | None = None
) -> Parsed:
    """Texts as numbers: with thousands separators, a currency, per cent or one unit, brackets for minus.

    Args:
        comma: whether the file writes decimal commas, where the texts themselves do not show it. decimal: whether
            they do in any case. unit: the one that numbers may have; others are none.

    >>> as_numbers(["$1,234.50", "(7)", "x"]).values.tolist()
    [1234.5, -7.0, nan]
    >>> as_numbers(["1.234,5", "2 kg", "3 lb"]).units
    ('kg', 'lb')
    """
    plain = pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    plain = np.where(
        np.isinf(plain) & ~np.array([text.lower().lstrip("+-").startswith("inf") for text in texts]), np.nan, plain
    )
    if not np.isnan(plain).any() and not (comma if decimal is None else decimal):
        doubt = ("points as decimal signs: 1.234 is 1.234, not 1234",) if _may_group(texts) else ()
        return Parsed(plain, doubt, decided={"decimal": False})
    found = [_NUMBER.fullmatch(text) for text in texts]
    found = [one if one and bool(one["open"]) == bool(one["close"]) else None for one in found]
    shown = has_decimal_commas(texts) if decimal is None else decimal
    decimal = comma if shown is None else shown
    values, ambiguous = np.full(len(texts), np.nan), 0
    units: dict[str, str] = {}
    signs: set[str] = set()
    scales: set[str] = set()
    without, grouped, around = 0, False, False
    for place, one in enumerate(found):
        if one is None:
            if np.isinf(plain[place]):
                values[place] = plain[place]
            continue
        digits = _digits(one["body"], decimal=decimal)
        if digits is None:
            continue
        after = one["after"] or ""
        scale = _TIMES.get(after, 1.0)
        if unit is not None and after and after not in _TIMES and _singular(after) != unit:
            continue
        if one["before"]:
            signs.add(one["before"])
        if after and after not in _TIMES:
            units.setdefault(_singular(after), after)
        scales |= {after} & set(_TIMES)
        around |= bool(one["open"] or one["last"])
        without += not after and not one["before"]
        grouped |= digits != one["body"].strip()
        ambiguous += shown is None and bool(_THOUSANDS.fullmatch(one["body"]))
        minus = (one["sign"] in "-−" and one["sign"] != "") + bool(one["open"]) + bool(one["inner"]) + bool(one["last"])
        values[place] = (-1.0 if minus % 2 else 1.0) * float(digits + (one["power"] or "")) * scale
    if set(units) <= _ORDINALS and len(units) > 1:
        return Parsed(plain)
    if len(units) > 1 or len({sign.lower().rstrip(".") for sign in signs}) > 1:
        return Parsed(values, units=tuple(sorted({*units.values(), *signs})))
    if without and "%" in units:
        return Parsed(values, units=("with %", "without"))
    words = [f"{one} left out" for one in sorted({*signs, *units.values()})]
    if without and (units or signs) and without < np.isfinite(values).sum():
        words.append(f"{without} different values have none")
    if ambiguous and not decimal:
        words.append("commas as separators of thousands: 1,234 is 1234")
    elif decimal:
        words.append("decimal commas: 1,5 is 1.5")
    elif grouped:
        words.append("separators of thousands left out")
    words += [f"times {scale:g} for {sign}" for sign, scale in _TIMES.items() if sign in scales]
    if around:
        words.append("(5) or 5- is -5")
    held = next(iter(units), None)
    return Parsed(values, tuple(words), decided={"decimal": decimal} | ({"unit": held} if held else {}))


def _may_group(texts: Sequence[str]) -> bool:
    """Whether points may separate thousands: three digits follow each, numbers without one are below 1000, and there
    are some of both."""
    pointed = [text for text in texts if "." in text]
    rest = [text for text in texts if "." not in text]
    return (
        len(pointed) > 2
        and bool(rest)
        and all(re.fullmatch(r"[-+]?[1-9]\d{0,2}\.\d{3}", text) for text in pointed)
        and all(re.fullmatch(r"[-+]?\d{1,3}", text) for text in rest)
    )


def _singular(unit: str) -> str:
    """A unit in one form: 3 days, 1 day, 2 kg., 2 KG."""
    return unit.lower().rstrip("s.") or unit


def _digits(body: str, *, decimal: bool) -> str | None:
    """A number without separators of thousands and with a decimal point; None of what is no number."""
    body = body.strip(_SPACES)
    between = next((sign for sign in f"'’{_SPACES}" if sign in body), None)
    if between is not None:
        parts = re.fullmatch(rf"(\d{{1,3}}(?:{re.escape(between)}\d{{3}})+)(?:[.,](\d*))?", body)
        return None if parts is None else parts[1].replace(between, "") + (f".{parts[2]}" if parts[2] else "")
    thousand, point = (".", ",") if decimal else (",", ".")
    whole, _, rest = body.partition(point)
    if point in rest or thousand in rest:
        return None
    if thousand in whole:
        if not _THOUSANDS.fullmatch(whole.replace(thousand, ",")):
            return None
        whole = whole.replace(thousand, "")
    return f"{whole or '0'}.{rest}" if point in body and rest else whole


def are_codes(texts: Sequence[str]) -> bool:
    """Whether some texts are of digits that are no numbers, since they begin with zeros, as postcodes do.

    >>> are_codes(["02139", "10001"]), are_codes(["0.5", "01"])
    (True, False)
    """
    return any(_LEADING_ZERO.fullmatch(text) for text in texts)


def as_durations(texts: Sequence[str], *, hours: bool | None = None) -> Parsed:
    """Texts such as 12:30 as hours, such as 1 day 02:00:00 or 2 h 30 min as seconds.

    Args:
        hours: whether they are hours of a day; found by default.

    >>> as_durations(["12:30", "23:00"]).values.tolist(), as_durations(["26:00:00", "1 days"]).values.tolist()
    ([12.5, 23.0], [93600.0, 86400.0])
    """
    values = np.full(len(texts), np.nan)
    clocks = [_CLOCK.fullmatch(text) for text in texts]
    spoken = [None if clock else _spoken(text) for clock, text in zip(clocks, texts, strict=True)]
    spans = [
        one is not None or (not clock and bool(_SPAN.fullmatch(text)))
        for one, clock, text in zip(spoken, clocks, texts, strict=True)
    ]
    laps = any(clock and clock["lap"] for clock in clocks)  # minutes and seconds, as 1:23.4
    units = (60, 1) if laps else (3600, 60, 1)
    for place, (text, clock) in enumerate(zip(texts, clocks, strict=True)):
        if clock:
            half = clock["half"] or ""
            parts = [float(part) for part in text.removesuffix(half).lstrip("-").replace(",", ".").split(":")]
            first = parts[0] % 12 + 12 * ("p" in half.lower()) if half else parts[0]
            seconds = sum(
                part * unit
                for part, unit in zip([first, *parts[1:]], units[-len(parts) :] if laps else units, strict=False)
            )
            values[place] = -seconds if text.startswith("-") else seconds
        elif spoken[place] is not None:
            values[place] = spoken[place]
        elif spans[place]:
            values[place] = pd.to_timedelta(pd.Series([text]), errors="coerce").dt.total_seconds().iloc[0]
    known = values[~np.isnan(values)]
    if hours is None:
        hours = bool(not laps and not any(spans) and len(known) and known.min() >= 0 and known.max() < 24 * 3600)
    if hours:
        return Parsed(values / 3600, ("hours of a day",), decided={"hours": True})
    return Parsed(values, ("seconds",), decided={"hours": False})


def _spoken(text: str) -> float | None:
    """Seconds of a text such as 2 h 30 min; None of other text, and of 5 m or 5 s alone, which may be other things."""
    text = text.strip()
    parts, place = [], 0
    while place < len(text):
        found = _SPOKEN.match(text, place)
        if found is None:
            return None
        parts.append((float(found["number"]), found["unit"].lower()))
        place = found.end()
    if not parts or (len(parts) == 1 and parts[0][1] in ("m", "s")):
        return None
    order = [_SECONDS[unit[0]] for _, unit in parts]
    return sum(number * unit for (number, _), unit in zip(parts, order, strict=True)) if _falls(order) else None


def _falls(numbers: Sequence[float]) -> bool:
    return all(after < before for before, after in itertools.pairwise(numbers))


def as_dates(texts: Sequence[str], *, day_first: bool = False, days: bool | None = None) -> Parsed:
    """Texts as dates and times, in UTC where they name a zone; which of day and month comes first is found, and said
    where it cannot be.

    Args:
        day_first: what to take where either would do. days: whether the day comes first in any case.

    >>> as_dates(["2020-01-31", "x"]).values.astype("datetime64[D]").astype(str).tolist()
    ['2020-01-31', 'NaT']
    >>> as_dates(["03/04/2020", "05/06/2020"]).words
    ('month before day, which either could be',)
    """
    values = np.full(len(texts), np.datetime64("NaT"), dtype="datetime64[us]")
    parts = [_PARTS.fullmatch(text) for text in texts]
    known = [one for one in parts if one]
    first, second = (any(int(one[group]) > 12 for one in known) for group in (1, 3))
    if days is None and first and second:  # those that either could be cannot be told
        return Parsed(values, units=("day before month", "month before day"))
    points = any(one[2] == "." for one in known)
    words = []
    told = days is not None
    if days is None:
        days = first or (not second and (day_first or points))
    if not told and known and not first and not second and not points:
        words.append(f"{'day before month' if days else 'month before day'}, which either could be")
    plain = [_plain(text, one, days) for text, one in zip(texts, parts, strict=True)]
    left = [place for place, text in enumerate(texts) if _DATE.fullmatch(text)]
    forms = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while left and forms < _FORMS:
            form = _form_of(plain[left[0]])
            if form is None:
                left = left[1:]
                continue
            some = pd.Series([plain[place] for place in left], dtype=object)
            found = pd.to_datetime(some, format=form, errors="coerce", utc=True)
            good = found.notna().to_numpy(copy=True)
            values[np.array(left)[good]] = found[good].dt.tz_localize(None).to_numpy().astype("datetime64[us]")
            forms += bool(good.any())
            good[0] = True  # of this form, or of none
            left = [place for place, is_found in zip(left, good, strict=True) if not is_found]
    if forms > 1:
        words.append("written in several ways")
    years = values.astype("datetime64[Y]").astype(np.int64) + 1970
    values[(years < _YEARS[0]) | (years > _YEARS[1])] = np.datetime64("NaT")
    return Parsed(values, tuple(words), decided={"days": days})


def _plain(text: str, parts: re.Match[str] | None, days: bool) -> str:
    """A date with the year before the month and the day where it is of numbers, and without the endings of ordinals."""
    if parts is None:
        quarter = re.fullmatch(r"(\d{4})[- ]?Q([1-4])", text)
        if quarter:
            return f"{quarter[1]}-{3 * int(quarter[2]) - 2:02d}-01"
        return re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text)
    day, month = (parts[1], parts[3]) if days else (parts[3], parts[1])
    year = int(parts[4])
    year += 0 if len(parts[4]) > 2 else 2000 if year < 69 else 1900
    time = parts["time"] or ""
    time = time.replace(".", ":") if re.fullmatch(r"[T ]\d{1,2}\.\d\d(?:\.\d\d)?", time) else time
    return f"{year:04d}-{int(month):02d}-{int(day):02d}{time}"


def _form_of(text: str) -> str | None:
    """The form of a date, as pandas names it."""
    from pandas.tseries.api import guess_datetime_format

    for form in ("ISO8601", "%Y-%m-%d %I:%M %p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m", "%Y/%m", "%B %Y", "%b %Y", "%b-%Y",
                 "%d-%b-%y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%d %b %y", "%a %b %d %H:%M:%S %Y",
                 "%a %b %d %H:%M:%S %Z %Y"):  # fmt: skip
        if pd.notna(pd.to_datetime(pd.Series([text]), format=form, errors="coerce", utc=True).iloc[0]):
            return form
    return guess_datetime_format(text) or None


def are_compact_dates(texts: Sequence[str]) -> bool:
    """Whether whole numbers are dates such as 20200131: every one, of several years or months.

    >>> are_compact_dates(["20200131", "20200201"]), are_compact_dates(["20200131", "99999999"])
    (True, False)
    """
    return all(map(_COMPACT.fullmatch, texts)) and len({text[:6] for text in texts}) > 1


def word_count(texts: Sequence[str]) -> float:
    """Mean number of words.

    >>> word_count(["a late train", "B-12"])
    2.0
    """
    return float(np.mean([max(len(text.split()), 1) for text in texts])) if len(texts) else 0.0
