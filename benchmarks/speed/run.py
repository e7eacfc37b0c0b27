"""All speed benchmarks, one after the other: ``make speed``. Leave the machine alone meanwhile.

python benchmarks/speed/run.py [ROW ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROWS = {
    "start": [], "loss": [], "warp": [], "splat": [], "sparse": [], "views": [], "degrade": [], "kmeans": [],
    "embed": [], "tiles": [], "pairs": [], "mae_step": [], "reselect": [], "clips": [], "clip_step": [],
    "step": ["--compile", "--accuracy"],
}  # fmt: skip


def main() -> int:
    """Run the rows named, or all; each in a process of its own."""
    chosen = sys.argv[1:] or list(ROWS)
    for row in chosen:
        if row not in ROWS:
            print(f"no row {row}: {', '.join(ROWS)}")
            return 2
        print(f"\n== {row}", flush=True)
        script = Path(__file__).with_name(f"{row}.py")
        if code := subprocess.run([sys.executable, str(script), *ROWS[row]], check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
