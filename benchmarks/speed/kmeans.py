"""Our k-means beside faiss's own: a million points of width 128, equal iterations, all points; time and memory.

    python benchmarks/speed/kmeans.py [--points 1000000] [--clusters 1000] [--iterations 10] [--rounds 1]

Each contender runs in a process of its own, which tells its seconds and the peak of its memory. Then a tree of two
levels (clusters, clusters / 5) with a balanced tenth of the points. On a busy machine the processor time tells more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from common import HERE, compared, machine

WORK = """
import json, resource, sys, time
import numpy as np
kind, n, k, iterations, threads = sys.argv[1], *map(int, sys.argv[2:])
import torch
torch.set_num_threads(threads)
rng = np.random.default_rng(0)
x, centres = np.empty((n, 128), np.float32), 4 * rng.standard_normal((256, 128), dtype=np.float32)
for part in np.array_split(x, max(1, n // 10_000)):  # in parts, so that the peak is the work's, not the data's making
    rng.standard_normal(dtype=np.float32, out=part)
    part += centres[rng.integers(256, size=len(part))]
from selftaught.data import curation
start = x[np.random.default_rng(1).choice(n, k, replace=False)]
began, cpu = time.perf_counter(), time.process_time()
if kind == "faiss":
    import faiss
    faiss.omp_set_num_threads(threads)
    run = faiss.Kmeans(128, k, niter=iterations, max_points_per_centroid=n, seed=1)
    run.train(x, init_centroids=start)
    labels = run.index.search(x, 1)[1][:, 0]
    d = len(labels)
elif kind == "selftaught":
    d = len(curation.kmeans(x, k, iterations=iterations, start=start).labels)
else:
    tree = curation.hierarchical_kmeans(x, (k, max(1, k // 5)), iterations=iterations)
    d = len(curation.balanced_sample(tree, n // 10))
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak, "result": d}))
"""


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    told = [kind, options.points, options.clusters, options.iterations, options.threads]
    done = subprocess.run([sys.executable, "-c", WORK, *map(str, told)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told = f"{found['seconds']:8.1f} s ({found['cpu_seconds']:.1f} s of processor time)"
    print(f"  {kind:12s} {told}   peak {found['peak_gb']:.2f} GB", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("points", 1_000_000), ("clusters", 1000), ("iterations", 10), ("rounds", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"selftaught": [], "faiss": []}
    cpu: dict[str, list[float]] = {"selftaught": [], "faiss": []}
    peaks = {"selftaught": 0.0, "faiss": 0.0}
    for _ in range(options.rounds):
        for kind in rates:
            found = measure(kind, options)
            rates[kind].append(options.points * options.iterations / found["seconds"])
            cpu[kind].append(options.points * options.iterations / found["cpu_seconds"])
            peaks[kind] = max(peaks[kind], found["peak_gb"])
    tree = measure("hierarchical", options)
    content = {
        "work": "points x iterations per second of k-means, equal starts and iterations, all points",
        "options": vars(options),
        **compared(rates, "selftaught"),
        "by processor time": compared(cpu, "selftaught"),
        "peak GiB": peaks | {"hierarchical": tree["peak_gb"]},
        "hierarchical_seconds": tree["seconds"],
        "machine": machine(),
    }
    (HERE / "kmeans.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps({"ratio to": content["ratio to"], "by processor time": content["by processor time"]}, indent=1))


if __name__ == "__main__":
    main()
