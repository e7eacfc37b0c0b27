"""``train``: options of the run and of the method, from the catalogue."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught.cli._command import Command
from selftaught.cli.options import Parser, add_option, peek, say
from selftaught.errors import UserError

__all__ = ["COMMAND", "parse_train"]

_SIGNS_OF_A_GPU = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/kfd", "/dev/dxg")


def _call(arguments: list[str]) -> int:
    """Train, evaluate and report."""
    slug = arguments[0] if arguments and not arguments[0].startswith("-") else None
    resume, config = peek(arguments, "--resume"), peek(arguments, "--config")
    if slug is None:
        slug = _method_of(resume or peek(arguments, "--anneal") or peek(arguments, "--extend"), config)
    else:
        arguments = arguments[1:]
    if slug is None:
        if "--help" in arguments or "-h" in arguments:
            slug = "simclr"
        else:
            raise UserError("which method? selftaught train METHOD --data SOURCE (see selftaught methods)")
    given = parse_train(slug, arguments)
    quiet, report = given.pop("quiet", False), given.pop("report", True)
    data, resume, config = given.pop("data", None), given.pop("resume", None), given.pop("config", None)
    if resume and resume != "auto":
        os.environ["SELFTAUGHT_RUN_FOLDER"] = str(resume)
    import selftaught
    from selftaught.run.ranks import is_first

    if given.pop("dry_run", False):
        if other := [name for name in ("resume", "anneal", "extend") if name in given or (name == "resume" and resume)]:
            raise UserError(f"--dry-run shows a run that begins anew; leave out --{other[0]}")
        print(selftaught.rehearse(slug, data, config=config, **given))
        return 0
    run = selftaught.train(slug, data, config=config, resume=resume, quiet=quiet, **given)
    if is_first():
        if report:
            run.report(say=say(quiet))
        print("\n".join(run.summary()))
    return 0


def _method_of(resume: str | None, config: str | None) -> str | None:
    if resume is None and config is None:
        return None
    from pathlib import Path

    from selftaught.run.layout import Layout, read_yaml

    if resume == "auto":
        return None
    content = Layout(resume).read_config() if resume is not None else read_yaml(Path(str(config)))
    if "method" not in content:
        raise UserError(f"{config}: names no method")
    return str(content["method"])


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
    parser.add_argument("--finish-now", action="store_true", help="with --resume: train no more, finish as it stands")
    parser.add_argument(
        "--dry-run", action="store_true", help="show shapes, steps, schedules and memory; train nothing"
    )
    parser.add_argument("--own-views", metavar="FILE.yaml", help="views of your own in place of the method's")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    text = "evaluate and write the report at the end (default on)"
    parser.add_argument("--report", action=argparse.BooleanOptionalAction, help=text)
    for role in catalog.roles(slug)[0 if catalog.changes_a_run(slug) else 1 :]:
        if role != "data":  # an option of every run
            parser.add_argument(f"--{role}", metavar="SOURCE", help=f"the samples that {slug} reads as {role}")
    taken = {option.name for option in catalog.options(slug)} | ({*catalog.roles(slug)} - {"data"})
    for title, found in (("the run", catalog.settings()), (slug, catalog.options(slug))):
        group = parser.add_argument_group(f"options of {title}")
        for option in found:
            if option.rule.type != "dict" and option.name not in taken:
                add_option(group, option, here.get(option.name, option.default))
        taken = set()
    return vars(parser.parse_args(arguments))


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


COMMAND = Command(
    "train",
    "train a method: selftaught train METHOD --data SOURCE [options]",
    lambda sub: None,
    _call,
    order=10,
    reads_arguments=True,
)
