"""What an option may be, said once: its annotation. Types, ranges, forms and choices, checked alike everywhere.

A field ``temperature: Positive = 0.1`` of a config is read by :func:`check_options` when the config is made in Python,
and from the syntax tree by the command line, ``selftaught methods`` and the pages. Standard library only.

>>> Rule.of(Share).check(2)
Traceback (most recent call last):
    ...
ValueError: a number from 0 to 1
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal

from selftaught.errors import UserError

__all__ = [
    "Count",
    "Form",
    "Natural",
    "NonNegative",
    "Positive",
    "PositiveShare",
    "Range",
    "Rule",
    "Seed",
    "Share",
    "Widths",
    "WidthsOrNone",
    "Workers",
    "check_options",
    "rules_of",
]


@dataclass(frozen=True)
class Range:
    """Limits of a number: ``low`` and ``high`` belong to it, ``above`` and ``below`` don't; None leaves a side open."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"from {self.low:.10g} to {self.high:.10g}"
        upper = f"at most {self.high:g}" if self.high is not None else ""
        upper = f"below {self.below:g}" if self.below is not None else upper
        if self.low is not None:
            return f"from {self.low:g} on and {upper}" if upper else f"of at least {self.low:g}"
        lower = f"above {self.above:g}" if self.above is not None else ""
        return " and ".join(part for part in (lower, upper) if part)


@dataclass(frozen=True)
class Form:
    """Form of a text: a regular expression for the whole of it, and ``words`` that say the same to a reader."""

    pattern: str
    words: str


Count = Annotated[int, Range(above=0)]
Natural = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**31 - 1)]
"""What every generator takes, and every stage's own seed still does."""
Workers = Annotated[int, Range(-1, 1024)]
"""Loader processes; -1 chooses."""
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(above=0, high=1)]
Widths = Annotated[str, Form(r"[1-9]\d*(-[1-9]\d*)*", "widths such as 2048-128")]
WidthsOrNone = Annotated[str, Form(r"none|[1-9]\d*(-[1-9]\d*)*", "widths such as 4096-256, or none")]

_NOUNS = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": "a list of names",
    "dict": "a mapping",
}


@dataclass(frozen=True)
class Rule:
    """What one option may be.

    Attributes:
        type: "bool", "int", "float", "str", "list" or "dict"; "choice" for a ``Literal``; "" where all is allowed.
        optional: whether it may be None, too.
        choices: the values of a ``Literal``.
        range: limits of a number.
        form: form of a text.
    """

    type: str = ""
    optional: bool = False
    choices: tuple[Any, ...] = ()
    range: Range | None = None
    form: Form | None = None

    @classmethod
    def of(cls, hint: Any) -> Rule:
        """The rule that a type says: ``float``, ``Literal[...]``, ``Annotated[int, Range(1)]``, or one ``| None``."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            rule = cls.of(arguments[0])
            for note in arguments[1:]:
                rule = replace(rule, range=note) if isinstance(note, Range) else rule
                rule = replace(rule, form=note) if isinstance(note, Form) else rule
            return rule
        if origin in (typing.Union, types.UnionType):
            kept = [part for part in arguments if part is not type(None)]
            rule = cls.of(kept[0]) if len(kept) == 1 else cls()
            return replace(rule, optional=rule.optional or len(kept) < len(arguments))
        if origin is Literal:
            return cls("choice", choices=arguments)
        name = getattr(origin or hint, "__name__", "")
        return cls(name if name in _NOUNS else "")

    def after(self, earlier: Rule | None) -> Rule:
        """This rule of an override, which keeps the limits of the ``earlier`` one unless it has its own."""
        bare = self.range is None and self.form is None and self.type != "choice"
        if earlier is None or not bare or self.type != earlier.type:
            return self
        return replace(earlier, optional=self.optional)

    @property
    def words(self) -> str:
        """What it may be, for a reader: "a number above 0", "a, b, c"."""
        said = ", ".join(map(str, self.choices)) if self.choices else _NOUNS.get(self.type, "anything")
        said = self.form.words if self.form else said
        said = f"{said} {self.range}" if self.range else said
        return f"{said} or None" if self.optional else said

    def check(self, value: Any) -> Any:
        """The value in its plain type: NumPy's numbers become Python's, an int becomes a float where one is asked for.

        Raises:
            ValueError: with :attr:`words`; it is of another type, or outside its limits.
        """
        if not self.type or (value is None and self.optional):
            return value
        if self.type == "choice":
            for choice in self.choices:
                if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                    return choice
            raise ValueError(self.words)
        plain = self._plain(value)
        if plain is None or (self.range is not None and plain not in self.range):
            raise ValueError(self.words)
        if self.form is not None and not re.fullmatch(self.form.pattern, plain):
            raise ValueError(self.words)
        return plain

    def _plain(self, value: Any) -> Any:
        """The value as the plain type, or None if it is no such thing."""
        is_bool = isinstance(value, bool) or type(value).__name__ == "bool"  # numpy.bool is no bool
        if self.type == "bool":
            return bool(value) if is_bool else None
        if self.type == "int":
            return int(value) if isinstance(value, numbers.Integral) and not is_bool else None
        if self.type == "float":
            number = float(value) if isinstance(value, numbers.Real) and not is_bool else math.nan
            return number if math.isfinite(number) else None
        if self.type == "str":
            if self.form is not None and isinstance(value, int) and not is_bool:
                return str(value)
            return os.fspath(value) if isinstance(value, str | os.PathLike) else None
        if self.type == "dict":
            return dict(value) if isinstance(value, Mapping) else None
        return list(value) if isinstance(value, list | tuple) else None

    def parse(self, text: str) -> Any:
        """The value that a text on the command line stands for.

        Raises:
            ValueError: with :attr:`words`; it stands for none.
        """
        try:
            if self.type == "choice":
                return next(choice for choice in self.choices if str(choice) == text)
            if self.type == "list":
                return [part for part in text.split(",") if part]
            return self.check({"int": int, "float": float}.get(self.type, str)(text))
        except (ValueError, StopIteration):
            raise ValueError(self.words.removesuffix(" or None")) from None


ANY = Rule()


@cache
def rules_of(kind: type[Any]) -> dict[str, Rule]:
    """The rule of every field of a dataclass; an override without limits keeps those of the field that it overrides."""
    found: dict[str, Rule] = {}
    names = {field.name for field in dataclasses.fields(kind)}
    for ancestor in reversed(kind.__mro__):
        own = names & set(inspect.get_annotations(ancestor))
        hints = typing.get_type_hints(ancestor, include_extras=True) if own else {}
        found |= {name: Rule.of(hints[name]).after(found.get(name)) for name in own}
    return found


def check_options(config: Any) -> None:
    """Check every field of a dataclass' instance by its annotation, and bring it to its plain type.

    Raises:
        UserError: names the option, its value, and what it may be.
    """
    kind: Any = type(config)
    for name, rule in rules_of(kind).items():
        value = getattr(config, name)
        try:
            setattr(config, name, rule.check(value))
        except ValueError as error:
            raise UserError(f"{name}={_shown(value)}; it may be: {error}") from None


def _shown(value: Any) -> str:
    """A value in few words: the beginning of its first line."""
    first, *more = repr(value).splitlines() or [""]
    return first if len(first) <= 60 and not more else f"{first[:60]}..."
