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
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selftaught import __version__
from selftaught._paths import ON_DISK
from selftaught._words import one_line, typed
from selftaught.cli.commands import COMMANDS
from selftaught.cli.options import Parser
from selftaught.errors import Remark, UserError, command_line, mend_of

_EXAMPLES = """examples:
  selftaught demo                                     train, evaluate and report on the built-in photographs
  selftaught methods denoise                          what is there for a job
  selftaught train dcl --data photos/                 an encoder from a folder of images
  selftaught train c-bsn --data noisy/                a denoiser from noisy images alone
  selftaught evaluate runs/dcl-photos --data labelled/
  selftaught apply runs/dcl-photos more/ --out embeddings.parquet
"""


_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP,
    errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
}  # fmt: skip
"""Errors of the disk, and of names on it, wherever they come from; all other ones may be faults of the program and show
a traceback."""


_LESS_MEMORY = "there is not enough memory; a smaller --batch-size, smaller samples or a smaller network need less"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 bad input, 130 or 143 stopped by a signal and resumable."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ON_DISK)  # names of files that are not UTF-8 are printed as they are
    with command_line(), _remarks_are_lines(), _signals_raise(last=argv is None) as signals:
        try:
            return _dispatch(arguments)
        except (Exception, KeyboardInterrupt, _Terminated) as error:
            signals.ending = True
            return _ended(error, arguments, debug, list(signals.came))


def _ended(error: BaseException, arguments: Sequence[str], debug: bool, told: list[int]) -> int:
    """The exit code of a command that an error or a signal ended, and its line.

    Raises:
        BaseException: the error, where it is a fault of the program, or ``debug`` asks for it.
    """
    if type(error).__name__ == "Interrupted":
        print(f"selftaught: stopped and saved; go on with: {_resume_line()}", file=sys.stderr)
        return 128 + int(error.signum)  # type: ignore[attr-defined]
    if told or isinstance(error, KeyboardInterrupt | _Terminated):  # whatever a library made of the signal's exception
        signum = told[0] if told else int(error.args[0]) if error.args else signal.SIGINT
        print(f"selftaught: stopped; {_how_to_go_on(arguments)}", file=sys.stderr)
        return 128 + signum
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if debug:
        raise error
    if isinstance(error, UserError):
        print(f"selftaught: {one_line(str(error))}", file=sys.stderr)
    elif isinstance(error, OSError) and error.errno in _DISK:
        where = f"{error.filename}: " if error.filename else ""
        print(f"selftaught: {where}{error.strerror}; {mend_of(error)}", file=sys.stderr)
    elif _out_of_memory(error):
        print(f"selftaught: {_LESS_MEMORY}", file=sys.stderr)
    else:
        raise error
    return 2


@contextlib.contextmanager
def _remarks_are_lines() -> Iterator[None]:
    """A remark of the program's own is a line, without the place in the code that Python's warnings name."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: Any = None,
        ) -> None:
            if issubclass(category, Remark):
                print(f"selftaught: {one_line(str(message))}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        warnings.simplefilter("always", Remark)
        yield


def _out_of_memory(error: BaseException) -> bool:
    """Whether the system, NumPy, OpenCV or torch had no memory to give."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:  # a file that could not be mapped
        return True
    if type(error).__module__ == "cv2" and "Insufficient memory" in str(error):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class _Terminated(BaseException):
    """A signal; no exception that something on the way could take for a fault and go on after."""


class _Signals:
    """What came of them.

    Attributes:
        came: the signals, in their order.
        ending: the command is over, whatever ended it: no further signal unwinds what is left to do.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self.ending = False


@contextlib.contextmanager
def _signals_raise(last: bool) -> Iterator[_Signals]:
    """Ctrl-C and SIGTERM unwind a command, so that its processes end and its files are left whole.

    A second one meanwhile changes nothing; a third ends the process as it stands. What is raised while Python runs a
    ``__del__`` is swallowed there: such a signal is sent once more.

    Args:
        last: nothing comes after the command in this process: what comes while Python clears up changes nothing, too.

    Yields:
        the signals that came.
    """
    found = _Signals()

    def stop(signum: int, frame: object) -> None:
        found.came.append(signum)
        if len(found.came) > 2:
            os._exit(128 + signum)
        if len(found.came) == 1 and not found.ending:
            raise _Terminated(signum)

    def swallowed(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, _Terminated):
            signum = found.came.pop()  # again a little later, when this hook is left: here it would be swallowed, too
            threading.Timer(0.05, os.kill, (os.getpid(), signum)).start()
        else:
            usual(lost)

    try:
        before = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever owns it owns the signals
        yield found
        return
    usual, sys.unraisablehook = sys.unraisablehook, swallowed
    try:
        yield found
    finally:
        found.ending = True
        if not last:
            sys.unraisablehook = usual
            for signum, handler in before.items():
                signal.signal(signum, handler)


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
    return f"selftaught train --resume {typed(os.environ.get('SELFTAUGHT_RUN_FOLDER', 'RUN'))}"


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
