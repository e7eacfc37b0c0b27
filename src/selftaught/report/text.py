"""Numbers and settings as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selftaught._words import plural as plural

#: Shown where there is no value.
NOTHING = "–"

_LOWER = re.compile(
    r"loss|error|rmse|abs rel|sq rel|spread|lpips|niqe|perplexity|flicker|seconds|\b(mae|mape|mse|time|fid|gap)\b",
    re.IGNORECASE,
)
_NEITHER = re.compile(
    r"align|uniform|\brank\b|\bdead\b|\bstability\b|\bstd\b|count|^n$|temperature|samples|tolerance", re.IGNORECASE
)


def decimals(values: Iterable[float | None]) -> int:
    """How many decimals make the largest of these values about three to four digits long (0 to 3)."""
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 10 else 3


def number(value: float | None, places: int | None = None) -> str:
    """A number for reading: thousands separated, a true minus sign, very small ones in powers of ten.

    Args:
        value: the number; ``None`` and NaN give a dash.
        places: decimals; by default whole numbers have none and others as many as :func:`decimals` says.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if places is None:
        if float(value).is_integer() and abs(value) < 1e15:
            places = 0
        elif 0 < abs(value) < 0.001:
            return f"{value:.1e}".replace("-", "\N{MINUS SIGN}")
        else:
            places = decimals([value])
    text = f"{value:,.{places}f}"
    if text.strip("-0.,") == "":
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def interval(low: float | None, high: float | None, places: int) -> str:
    """``low to high`` with an en dash (words when a sign would be misread), or nothing when either end is missing.

    Nothing for ends that are equal, too: seeds that all gave the same value do not make it certain.
    """
    if low is None or high is None or low == high:
        return ""
    joint = " to " if min(low, high) < 0 else "–"
    return f"{number(low, places)}{joint}{number(high, places)}"


def duration(seconds: float | None) -> str:
    """Seconds as ``48 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def sentence(words: str) -> str:
    """The words with a capital in front and a full stop behind; nothing stays nothing."""
    words = words.strip()
    if not words:
        return ""
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?" else ".")


def shorten(name: str, limit: int) -> str:
    """Cut a name in its middle, which keeps both what it starts with and what tells it from its neighbours."""
    if len(name) <= limit:
        return name
    head = limit // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of dotted names to text, in their own order."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = setting(value)
    return flat


def setting(value: Any) -> str:
    """One value of a configuration as it would be typed."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(setting(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {setting(item)}" for key, item in value.items()) + "}"
    return str(value)


def direction(metric: str) -> str:
    """Whether "high" or "low" values of a metric are better, judged by its name; "none" where neither is."""
    spaced = re.sub(r"[_\W]+", " ", metric)
    if _NEITHER.search(spaced):
        return "none"
    return "low" if _LOWER.search(spaced) else "high"


def known(values: Sequence[float | None] | None) -> list[float]:
    """The values that are there and finite."""
    return [v for v in values or [] if v is not None and math.isfinite(v)]
