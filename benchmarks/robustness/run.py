"""All counts of robustness, one after the other; some need root (a small tmpfs is mounted).

    python benchmarks/robustness/run.py [NAME ...]

Prints what was tried and survived, and stores a JSON beside each script; the docs' table is made from these. The exit
code is 0 where everything was survived.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys

from trials import load_all

NAMES = ("kills", "folders", "values", "disk", "names", "signals", "cache", "hostile", "mixing", "rot")


def main() -> int:
    """Run the counts named, or all; each in a process of its own, forked from this one, which has loaded everything."""
    wanted = sys.argv[1:] or NAMES
    for name in wanted:
        if name not in NAMES:
            print(f"no count {name}: {', '.join(NAMES)}")
            return 2
    load_all()
    failed = 0
    for name in wanted:
        print(f"\n== {name}", flush=True)
        pid = os.fork()
        if pid == 0:
            sys.argv[1:] = []
            code = 1
            try:
                code = importlib.import_module(name).main()
                atexit._run_exitfuncs()
            finally:
                sys.stdout.flush()
                os._exit(code)
        failed += bool(os.waitpid(pid, 0)[1])
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
