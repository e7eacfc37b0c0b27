"""What a command says of itself, and how the files of a room of commands are found."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from selftaught._rooms import room_modules


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: its word on the command line.
        help: what it does, in one line.
        add_options: declares its options on its parser.
        call: does it, given the parsed options; returns the exit code, None for 0.
        order: its place in the list of commands.
        reads_arguments: ``call`` takes the list of arguments, not yet parsed.
    """

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    call: Callable[[Any], int | None]
    order: int = 50
    reads_arguments: bool = False


def commands_of(package: str, path: Iterable[str]) -> dict[str, Command]:
    """The commands that the files of a package give, each in ``COMMAND``, in their order.

    Raises:
        ImportError: a file without one, or a name that two files give.
    """
    found: dict[str, Command] = {}
    for file, module in room_modules(package, path):
        command = getattr(module, "COMMAND", None)
        if not isinstance(command, Command):
            raise ImportError(f"{package}.{file} gives no COMMAND")
        if command.name in found:
            raise ImportError(f"{package}.{file}: there is a command {command.name!r} already")
        found[command.name] = command
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))
