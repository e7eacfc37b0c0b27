"""The command line: parses, calls, prints; decides nothing. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from selftaught import __version__
from selftaught.cli.commands import COMMANDS
from selftaught.cli.options import Parser
from selftaught.errors import UserError

_EXAMPLES = """examples:
  selftaught demo                                     train, evaluate and report on the built-in photographs
  selftaught methods denoise                          what is there for a job
  selftaught train dcl --data photos/                 an encoder from a folder of images
  selftaught train c-bsn --data noisy/                a denoiser from noisy images alone
  selftaught evaluate runs/dcl-photos --data labelled/
  selftaught apply runs/dcl-photos more/ --out embeddings.parquet
"""


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
"""Errors of the disk, wherever they come from; all other ones may be faults of the program and show a traceback."""


_LESS_MEMORY = "there is not enough memory; a smaller --batch-size, smaller samples or a smaller network need less"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 bad input, 130 or 143 stopped by a signal and resumable."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8 are printed as they are
    try:
        with _sigterm_raises():
            return _dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"selftaught: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"selftaught: stopped; {_how_to_go_on(arguments)}", file=sys.stderr)
        return 130
    except _Terminated:
        print(f"selftaught: stopped; {_how_to_go_on(arguments)}", file=sys.stderr)
        return 143
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug or error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"selftaught: {where}{error.strerror}; make room, or write to another place", file=sys.stderr)
        return 2
    except Exception as error:
        if not debug and _out_of_memory(error):
            print(f"selftaught: {_LESS_MEMORY}", file=sys.stderr)
            return 2
        if debug or type(error).__name__ != "Interrupted":
            raise
        signum = error.signum  # type: ignore[attr-defined]
        print(f"selftaught: stopped and saved; go on with: {_resume_line()}", file=sys.stderr)
        return 128 + int(signum)


def _out_of_memory(error: Exception) -> bool:
    """Whether the system, NumPy or torch had no memory to give."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class _Terminated(BaseException):
    """SIGTERM; no exception that something on the way could take for a fault and go on after."""


_STOPS: dict[type[BaseException], int] = {_Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
"""What a signal raises, and the signal."""


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM unwinds a command as Ctrl-C does, so that its processes end and its files are left whole.

    What is raised while Python runs a ``__del__`` is swallowed there; either signal is sent once more then.
    """

    def stop(signum: int, frame: object) -> None:
        raise _Terminated

    def told(lost: sys.UnraisableHookArgs) -> None:
        signum = _STOPS.get(lost.exc_type)
        if signum is None:
            tell(lost)
        else:  # a little later, when this hook is left: here the exception would be swallowed again
            threading.Timer(0.05, os.kill, (os.getpid(), signum)).start()

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: whoever owns it owns the signals
        yield
        return
    tell, sys.unraisablehook = sys.unraisablehook, told
    try:
        yield
    finally:
        sys.unraisablehook = tell
        signal.signal(signal.SIGTERM, before)


def _how_to_go_on(arguments: Sequence[str]) -> str:
    """What to do after a command was stopped in the middle."""
    command = arguments[0] if arguments else ""
    folder = os.environ.get("SELFTAUGHT_RUN_FOLDER")
    if command == "train" and folder and (Path(folder) / "config.yaml").exists():
        return f"go on with: {_resume_line()}"
    if command in ("apply", "benchmark", "degrade"):
        return "the same command goes on where it stopped"
    return "give the same command again"


def _resume_line() -> str:
    return f"selftaught train --resume {os.environ.get('SELFTAUGHT_RUN_FOLDER', 'RUN')}"


def _dispatch(arguments: list[str]) -> int:
    parser = _parser(arguments[:1])
    if not arguments:
        parser.print_help()
        return 0
    command = COMMANDS.get(arguments[0])
    if command is not None and command.reads_arguments:
        return command.call(arguments[1:]) or 0
    options = parser.parse_args(arguments)
    return int(options.call(options) or 0)


def _parser(asked: Sequence[str] = tuple(COMMANDS)) -> Parser:
    """All commands; only those that are asked for declare their options."""
    parser = Parser(
        prog="selftaught",
        description="Learning without labels: train, evaluate, apply, export and report.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"selftaught {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS.values():
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        if command.name in asked:
            command.add_options(sub)
        sub.set_defaults(call=command.call)
    return parser
