"""All counts of robustness, one after the other; some need root (a small tmpfs is mounted).

    python benchmarks/robustness/run.py [NAME ...]

Prints what was tried and survived, and stores a JSON beside each script; the docs' table is made from these. The exit
code is 0 where everything was survived.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("kills", "folders", "values", "disk", "names", "signals", "cache", "hostile")


def main() -> int:
    """Run the counts named, or all; each in a process of its own."""
    failed = 0
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            print(f"no count {name}: {', '.join(NAMES)}")
            return 2
        print(f"\n== {name}", flush=True)
        failed += bool(
            subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False).returncode
        )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
