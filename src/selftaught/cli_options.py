"""Options on the command line: declared from the catalogue, checked by its rules, explained. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught.catalog.rules import Rule
from selftaught.catalog.text import show
from selftaught.errors import UserError

__all__ = ["Parser", "checked", "parse_train", "peek"]

_METAVARS = {"int": "N", "float": "X", "list": "A,B"}
_SIGNS_OF_A_GPU = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/kfd", "/dev/dxg")


class Parser(argparse.ArgumentParser):
    """Errors in one line that names the option; a mistyped option is answered with the nearest one."""

    def error(self, message: str) -> Any:
        """Refuse the command.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse has it, but an unknown option is named before anything that is missing."""
        arguments = list(sys.argv[1:] if args is None else args)
        for argument in arguments[: arguments.index("--")] if "--" in arguments else arguments:
            name = argument.partition("=")[0]
            known = list(self._option_string_actions)
            if self._subparsers is None and name.startswith("--") and not any(o.startswith(name) for o in known):
                near = difflib.get_close_matches(name, known, 1)
                self.error(f"no option {name}: did you mean {near[0]}?" if near else f"no option {name}")
        return super().parse_known_args(arguments, namespace)


class _Checked(argparse.Action):
    """Reads a value by its rule."""

    def __init__(self, *, rule: Rule, **extra: Any) -> None:
        self.rule = rule
        super().__init__(**extra)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            value = self.rule.parse(values)
            if isinstance(value, list):  # given several times, a list grows
                value = [*(getattr(namespace, self.dest, None) or []), *value]
            setattr(namespace, self.dest, value)
        except ValueError as error:
            raise UserError(f"{self.option_strings[0]} {values}; it may be: {error}") from None


def checked(group: Any, flag: str, hint: Any, text: str, **extra: Any) -> None:
    """Declare an option whose value is checked by a type, such as ``Count``, as options of methods are."""
    rule = Rule.of(hint)
    group.add_argument(flag, action=_Checked, rule=rule, help=text, **{"metavar": _metavar(rule)} | extra)


def _metavar(rule: Rule) -> str:
    choices = ",".join(map(str, rule.choices))
    return f"{{{choices}}}" if choices else _METAVARS.get(rule.type, "TEXT")


def peek(arguments: Sequence[str], name: str) -> str | None:
    """Value of an option before the arguments are parsed."""
    for k, argument in enumerate(arguments):
        if argument == name and k + 1 < len(arguments):
            return arguments[k + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None


# ---- train -------------------------------------------------------------------------------------------------------
def parse_train(slug: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Options of the run and of the method, typed by their declarations; only those given are returned.

    Raises:
        UserError: an unknown option, or a value that an option can't take.
    """
    card = catalog.card(slug)
    asked = "--help" in arguments or "-h" in arguments
    preset, here = _defaults(card, arguments) if asked else (None, {})
    recipes = ", ".join(catalog.presets(slug)) or "none"
    parser = Parser(
        prog=f"selftaught train {slug}",
        description=card.summary,
        epilog=f"presets: {recipes}" + (f" (defaults of preset {preset})" if preset else ""),
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="a run's config.yaml to repeat")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="folder of an interrupted run to go on with; auto: the one in --out, or start it",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    text = "evaluate and write the report at the end (default on)"
    parser.add_argument("--report", action=argparse.BooleanOptionalAction, help=text)
    for role in catalog.roles(slug)[0 if catalog.changes_a_run(slug) else 1 :]:
        if role != "data":  # an option of every run
            parser.add_argument(f"--{role}", metavar="SOURCE", help=f"the samples that {slug} reads as {role}")
    for title, found in (("the run", catalog.settings()), (slug, catalog.options(slug))):
        group = parser.add_argument_group(f"options of {title}")
        for option in found:
            if option.rule.type != "dict":
                _add_option(group, option, here.get(option.name, option.default))
    return vars(parser.parse_args(arguments))


def _add_option(group: Any, option: catalog.Option, default: Any) -> None:
    """One option of a method or setting of a run, with what it may be and what it is if not given."""
    told = option.rule.range is not None or option.rule.form is not None
    facts = [option.kind] if told else []
    facts += [f"default {show(default)}"] if default is not None and default != "" else []
    text = (option.help + (f" ({'; '.join(facts)})" if facts else "")).replace("%", "%%")
    if option.rule.type == "bool":
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, help=text, dest=option.name)
        return
    group.add_argument(
        option.flag, action=_Checked, rule=option.rule, help=text, dest=option.name, metavar=_metavar(option.rule)
    )


def _defaults(card: catalog.Card, arguments: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The preset that would be taken here, and what it and the machine set besides the declared defaults."""
    preset = peek(arguments, "--preset")
    if preset is None:
        preset = catalog.default_preset(card.slug, card.modalities[0], _on_cpu(peek(arguments, "--device") or "auto"))
    given = catalog.presets(card.slug).get(preset or "", {})
    return preset, {"preset": preset, "data": catalog.default_data(card.slug)} | given


def _on_cpu(device: str) -> bool:
    """Whether a run would train on the CPU; torch is asked only where there are signs of something else."""
    if device != "auto":
        return device == "cpu"
    if sys.platform == "linux" and not any(Path(sign).exists() for sign in _SIGNS_OF_A_GPU):
        return True
    from selftaught.engine.precision import accelerator

    return accelerator() == "cpu"
