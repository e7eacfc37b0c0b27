"""Input files that have rotted: listed or refused in a line, and the whole ones beside them are read.

    python benchmarks/robustness/rot.py [--only WORDS] [--place FOLDER --minutes 14]

A file of every format that is read, its bytes changed, cut, put in or wiped out in ways drawn by chance: ``data check``
must list it, refuse it in a line, or find that it can still be read; in 15 s and 12 GiB, without a traceback.
"""

from __future__ import annotations

import logging
import resource
import shutil
import sys
import warnings
from pathlib import Path

from trials import forked, start

from tests.data.rotten import KINDS, checked, rotted

TIMES = 60
"""Ways in which each file rots."""


def attack(kind: str, seed: int, whole: bytes, folder: Path) -> str:
    """What is wrong with how one was met."""

    def work() -> int:
        from selftaught.errors import UserError

        warnings.simplefilter("ignore")
        logging.disable()
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        try:
            report = checked(kind, rotted(whole, seed), whole, folder)
        except UserError as error:
            print(f"selftaught: {error}", file=sys.stderr)
            return 2
        alone = KINDS[kind][0] in (".npz", ".dcm", ".tar")
        if not alone and report.ok < 2:
            print(f"the whole ones were not read: {report.problems}", file=sys.stderr)
            return 3
        return 0

    shutil.rmtree(folder, ignore_errors=True)
    return forked(work, seconds=15).fault


def main() -> int:
    """Every format, every way."""
    table, place, options = start("rot", str(__doc__).splitlines()[0])
    for kind, (_, make, _) in KINDS.items():
        if table.wanted(what := f"{kind}: a line or a listed sample"):
            whole = make(place)
            with table.row(what) as row:
                for seed in range(TIMES):
                    row.ask(f"seed {seed}", lambda seed=seed: attack(kind, seed, whole, place / "in"))  # noqa: B023
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
