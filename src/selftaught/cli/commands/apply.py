"""``apply``: what a run makes of samples, written to a table or a folder."""

from __future__ import annotations

import argparse
import os
import sys

from selftaught.catalog import applied_with
from selftaught.catalog.rules import Natural, Workers
from selftaught.cli._command import Command
from selftaught.cli.options import add_partial, checked


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("input", help="source to apply it to")
    sub.add_argument(
        "--out", required=True, help="a .parquet, .csv or .npy file; for images and videos a folder, or a file for one"
    )
    checked(sub, "--workers", Workers, "loader processes; -1 chooses", default=-1)
    tile = "largest side restored in one piece, 0 for any (default: as memory allows; videos 512)"
    checked(sub, "--tile", Natural, tile, default=None)
    sub.add_argument("--overwrite", action="store_true", help="replace what another run wrote to --out")
    for name, told in applied_with().items():
        sub.add_argument(f"--{name}", **told)
    sub.add_argument(
        "--adapt",
        nargs="?",
        const=True,
        default=False,
        choices=("set", "video"),
        help="let the method adapt to the samples first, where it can: to all (set) or to each (video)",
    )
    add_partial(sub)


def _call(options: argparse.Namespace) -> None:
    # torch's OpenMP threads spin while they wait, and so take the cores from the loader's processes. The variable is
    # read once, when torch is loaded, and costs a training step a twelfth: so for this command alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich.console import Console
    from rich.progress import Progress

    import selftaught
    from selftaught.run.ranks import is_first

    run = selftaught.load(options.run, partial=options.partial)
    with Progress(console=Console(stderr=True), disable=not (sys.stderr.isatty() and is_first())) as bar:
        task = bar.add_task("apply", total=None)
        written = run.apply(
            options.input,
            options.out,
            workers=options.workers,
            tile=options.tile,
            overwrite=options.overwrite,
            adapt=options.adapt,
            progress=lambda done: bar.update(task, completed=done),
            **{name: getattr(options, name) for name in applied_with()},
        )
    if not is_first():
        return
    print(f"{written} written to {written.out}" + (f" ({written.kept} were there already)" if written.kept else ""))
    for why, count in written.left_out.items():
        print(f"{count} left out: {why}")
    if written.skipped:
        print(f"{len(written.skipped)} could not be used, listed in {written.listed}")
    for note in written.notes:
        print(note)


COMMAND = Command(
    "apply", "embeddings to a table, restored images or depth to a folder; resumable", _options, _call, order=30
)
