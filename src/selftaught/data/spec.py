"""Source strings: ``WHERE?option=value&option=value``, and the options that every source knows."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from selftaught._words import SEVERAL
from selftaught.errors import UserError

_OPTIONS = re.compile(r"\?(\w+=[^&]*(?:&\w+=[^&]*)*)$")


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """A source string as (where, options).

    ``watch?step=50&window=200`` is ("watch", {"step": "50", "window": "200"}). A question mark that no ``name=value``
    follows is left alone, so that the glob ``img?.png`` works, and so is the name of a file that exists.
    """
    match = _OPTIONS.search(spec)
    if match is None or "://" in spec or Path(spec).exists():
        return spec, {}
    pairs = [pair.split("=", 1) for pair in match.group(1).split("&")]
    return spec[: match.start()], dict(pairs)


def several(spec: str) -> list[str]:
    """The sources of a string that names several, ``a/ + b/?n=100``, else the string alone."""
    parts = [part.strip() for part in spec.split(SEVERAL)]
    where = parse(spec)[0]
    path = SEVERAL in where and Path(where).exists()  # a folder that is called so
    return [spec] if len(parts) == 1 or not all(parts) or path else parts


def with_option(spec: str, name: str, value: Any) -> str:
    """A source string with an option added at its end, unless it has that option or can't take any."""
    where, options = parse(spec)
    longer = f"{spec}{'&' if options else '?'}{name}={value}"
    return longer if name not in options and parse(longer)[0] == where else spec


def call(build: Callable[..., Any], where: str, options: dict[str, Any], *args: Any) -> Any:
    """Call `build` with `args` and the options as its keyword arguments, text turned into numbers where the default is
    one.

    Raises:
        UserError: an option that `build` does not have, or a value that is not what its default is.
    """
    known = {
        p.name: p for p in inspect.signature(build).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(build).parameters.values()):
        return build(
            *args, **{k: literal(v) if k not in known else _typed(where, k, v, known[k]) for k, v in options.items()}
        )
    unknown = [k for k in options if k not in known]
    if unknown:
        allowed = ", ".join(sorted([*known, "by", "classes", "corrections", "imbalance", "n", "wrong_labels"]))
        raise UserError(f"{where} has no option {unknown[0]!r}{near(unknown[0], known)}; it knows {allowed}")
    return build(*args, **{k: _typed(where, k, v, known[k]) for k, v in options.items()})


def near(word: str, words: Iterable[str]) -> str:
    """' (did you mean X, Y?)' for words like `word`, or nothing."""
    found = difflib.get_close_matches(word, list(words), n=3, cutoff=0.55)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def literal(value: Any) -> Any:
    """Text as the Python number, tuple or flag that it spells, else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.capitalize() if value in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):
        return value


def _finite(text: str) -> float:
    """A number that counts: nan and inf spoil whatever is computed with them.

    Raises:
        ValueError: it is none.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number to count with")
    return number


def _typed(where: str, name: str, value: Any, parameter: inspect.Parameter) -> Any:
    if not isinstance(value, str):
        return value
    wanted = str(parameter.annotation)
    try:
        if "int" in wanted:
            return int(value)
        if "float" in wanted:
            return _finite(value)
        if "bool" in wanted:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
    except (ValueError, KeyError):
        kind = "a whole number" if "int" in wanted else "a number" if "float" in wanted else "true or false"
        raise UserError(f"{where}: {name}={value!r} must be {kind}") from None
    return value
