"""Fields: what the samples of a source consist of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from selftaught.data.kinds import kind_of
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["LABEL", "Field", "wanted_fields"]

LABEL = "label"
"""The name of the field that `Source.labels` gives."""


@dataclass(frozen=True)
class Field:
    """One field of a source's samples.

    Attributes:
        kind: one of `selftaught.data.kinds.KINDS`: "image", "mask", "clip", "series", "text", "label" ...
        channels: of every sample; None where they differ, aren't known or the kind has none.
    """

    kind: str
    channels: int | None = None

    def __post_init__(self) -> None:
        kind_of(self.kind)


def wanted_fields(fields: Mapping[str, Field], want: Iterable[str] | None, source: str) -> list[str]:
    """The names of the wanted fields, all of them for None.

    Raises:
        UserError: `source` has no such field.
    """
    if want is None:
        return list(fields)
    names = [want] if isinstance(want, str) else list(want)
    for name in names:
        if name not in fields:
            raise UserError(f"{source} has no field {name!r}{near(name, fields)}; it has {', '.join(fields)}")
    return names
