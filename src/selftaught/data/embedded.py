"""The data sets that come with packages or are fetched by one command: their list, and how one is brought here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selftaught.data.builtin import BUILT_IN
from selftaught.data.source import Modality, Source
from selftaught.data.spec import near
from selftaught.errors import UserError


@dataclass(frozen=True)
class Embedded:
    """One built-in data set.

    Attributes:
        name: what to write as the source.
        modality: the kind of its samples.
        what: what it holds, in one line.
        package: what brings it.
        present: whether it can be opened now without fetching anything.
    """

    name: str
    modality: Modality
    what: str
    package: str
    present: bool


EMBEDDED_NAMES = tuple(BUILT_IN)
"""Name of every built-in data set, in the order of `list_embedded`."""


def list_embedded() -> list[Embedded]:
    """One row for each built-in data set: kind, content, what brings it, whether it is here."""
    return [Embedded(e.name, e.modality, e.what, e.package, e.present) for e in BUILT_IN.values()]


def embedded_modality(name: str) -> Modality:
    """What samples a built-in data set holds."""
    return BUILT_IN[name].modality


def embedded_builder(name: str) -> Callable[..., Source]:
    """The function that opens a built-in data set; its keyword arguments are the options."""
    return BUILT_IN[name].build


def fetch(name: str) -> str:
    """See that a built-in data set is here, fetching it where that is possible.

    Returns:
        One line: where it is.

    Raises:
        UserError: an unknown name, or what must be installed by hand (the command is named).
    """
    if name not in BUILT_IN:
        raise UserError(f"no built-in data set {name!r}{near(name, BUILT_IN)}; there are {', '.join(BUILT_IN)}")
    return BUILT_IN[name].bring()
