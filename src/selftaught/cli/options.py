"""Options on the command line: declared from the catalogue, checked by its rules, explained. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from selftaught._words import SEVERAL
from selftaught.catalog import Option
from selftaught.catalog.rules import Rule
from selftaught.catalog.text import show
from selftaught.errors import UserError, has_options

__all__ = ["Checked", "Parser", "add_option", "add_partial", "checked", "metavar", "names", "peek", "say"]

_CHOICE = re.compile(r"(?P<name>[^:]+): invalid choice: '?(?P<value>.*?)'? \(choose from (?P<choices>.*)\)")
"""How argparse refuses what is none of the choices."""
_LEFT = "unrecognized arguments: "
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
_METAVARS = {"int": "N", "float": "X", "list": "A,B"}


class Parser(argparse.ArgumentParser):
    """Errors in one line that names the option; a mistyped option is answered with the nearest one."""

    _has_data = False

    def error(self, message: str) -> Any:
        """Refuse the command.

        Raises:
            UserError: always.
        """
        message = message.removeprefix("argument ")
        if wrong := _CHOICE.fullmatch(message):
            name, choices = wrong["name"], re.findall(r"[^', ]+", wrong["choices"])
            near = difflib.get_close_matches(wrong["value"], choices, 1)
            said = f"no command {wrong['value']}" if name == "COMMAND" else f"{name} {wrong['value']}"
            message = f"{said}: did you mean {near[0]}?" if near else f"{said}; it may be: {', '.join(choices)}"
        if message.startswith(_LEFT) and "--data" in self._option_string_actions and not self._has_data:
            message += "; data are given by --data SOURCE"
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse has it, but an unknown option is named before anything that is missing."""
        arguments = list(sys.argv[1:] if args is None else args)
        self._has_data = any(argument.partition("=")[0] == "--data" for argument in arguments)
        for argument in arguments[: arguments.index("--")] if "--" in arguments else arguments:
            name = argument.partition("=")[0]
            known = list(self._option_string_actions)
            if self._subparsers is None and name.startswith("--") and not any(o.startswith(name) for o in known):
                near = difflib.get_close_matches(name, known, 1)
                self.error(f"no option {name}: did you mean {near[0]}?" if near else f"no option {name}")
        has_options(self._option_string_actions)
        return super().parse_known_args(self._switched(arguments), namespace)

    def _switched(self, arguments: list[str]) -> list[str]:
        """``--use-dmd off``, as a card shows its value, is ``--no-use-dmd``; so is ``--use-dmd=off``."""
        found: list[str] = []
        for argument in arguments:
            name, _, value = argument.partition("=")
            alone = value == "" and bool(found) and self._is_switch(found[-1])
            if alone and argument in _SWITCH:
                found[-1] = found[-1] if _SWITCH[argument] else f"--no-{found[-1][2:]}"
            elif value in _SWITCH and self._is_switch(name):
                found.append(name if _SWITCH[value] else f"--no-{name[2:]}")
            else:
                found.append(argument)
        return found

    def _is_switch(self, name: str) -> bool:
        known = self._option_string_actions.get(name)
        return isinstance(known, argparse.BooleanOptionalAction) and not name.startswith("--no-")


class Checked(argparse.Action):
    """Reads a value by its rule."""

    def __init__(self, *, rule: Rule, **extra: Any) -> None:
        self.rule = rule
        super().__init__(**extra)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store the value.

        Raises:
            UserError: the rule refuses it.
        """
        try:
            value = self.rule.parse(values)
            if isinstance(value, list):  # given several times, a list grows
                value = [*(getattr(namespace, self.dest, None) or []), *value]
            elif self.dest == "data":
                value = _joined(namespace, value)
            setattr(namespace, self.dest, value)
        except ValueError as error:
            raise UserError(f"{self.option_strings[0]} {values}; it may be: {error}") from None


class Sources(argparse.Action):
    """Source of samples; given several times, all of them, one after the other."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store the source, or add it to those before it."""
        setattr(namespace, self.dest, _joined(namespace, values))


def _joined(namespace: Any, source: str) -> str:
    before = getattr(namespace, "data", None)
    return SEVERAL.join((before, source)) if before else source


def checked(group: Any, flag: str, hint: Any, text: str, **extra: Any) -> None:
    """Declare an option whose value is checked by a type, such as ``Count``, as options of methods are."""
    rule = Rule.of(hint)
    group.add_argument(flag, action=Checked, rule=rule, help=text, **{"metavar": metavar(rule)} | extra)


def metavar(rule: Rule) -> str:
    """What stands for an option's value in the help."""
    choices = ",".join(map(str, rule.choices))
    return f"{{{choices}}}" if choices else _METAVARS.get(rule.type, "TEXT")


def add_option(group: Any, option: Option, default: Any) -> None:
    """One option of a method or setting of a run, with what it may be and what it is if not given."""
    told = option.rule.range is not None or option.rule.form is not None
    facts = [option.kind] if told else []
    facts += [f"default {show(default)}"] if default is not None and default != "" else []
    text = (option.help + (f" ({'; '.join(facts)})" if facts else "")).replace("%", "%%")
    if option.rule.type == "bool":
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, help=text, dest=option.name)
        return
    group.add_argument(
        option.flag, action=Checked, rule=option.rule, help=text, dest=option.name, metavar=metavar(option.rule)
    )


def peek(arguments: Sequence[str], name: str) -> str | None:
    """Value of an option before the arguments are parsed."""
    for k, argument in enumerate(arguments):
        if argument == name and k + 1 < len(arguments):
            return arguments[k + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None


def names(text: str) -> list[str]:
    """``a,b`` as a list."""
    return [name for name in text.split(",") if name]


def add_partial(sub: Any) -> None:
    """Declare ``--partial``, which commands that take a run have."""
    sub.add_argument("--partial", action="store_true", help="take an interrupted run as its last checkpoint left it")


def say(quiet: bool = False) -> Callable[[str], None]:
    """A function that prints lines for the person at the terminal, or none."""

    def tell(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return tell
