"""What the speed benchmarks share: turns within rounds, paired ratios, the machine, the stored JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = ("lightly", "stable-pretraining", "albumentations", "kornia")


def rounds(contenders: Mapping[str, Callable[[], float]], count: int, warm: int = 1) -> dict[str, list[float]]:
    """Rates of every contender in every round; they take turns, so a busy machine slows all alike.

    Args:
        contenders: name -> a function that works for a while and returns its rate (larger is faster).
        count: rounds that count.
        warm: rounds before them that do not.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm + count):
        for name, work in contenders.items():
            rate = work()
            if turn >= warm:
                rates[name].append(rate)
                print(f"  round {turn - warm + 1}/{count}  {name:28s} {rate:10.1f}", flush=True)
    return rates


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compared(rates: dict[str, list[float]], ours: str) -> dict[str, Any]:
    """Spread of every contender's rates, and of ``ours`` over each other one, paired by round."""
    ratios = {
        name: spread([a / b for a, b in zip(rates[ours], values, strict=True)])
        for name, values in rates.items()
        if name != ours
    }
    return {"rates": {name: spread(values) for name, values in rates.items()}, "ratio to": ratios}


def machine() -> dict[str, Any]:
    """Processor, cores, load and versions: what a number is worth without."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = set(line.split(":", 1)[1].split())
    versions = {}
    for name in ("torch", "torchvision", "lightning", "timm", "opencv-python-headless", "selftaught", *PEERS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "instructions": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "load before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def store(name: str, result: dict[str, Any]) -> None:
    """Write NAME.json beside this file and print the rows."""
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path.name}")


def stored(name: str) -> dict[str, Any]:
    """What NAME.json holds from an earlier run; {} where there is none."""
    path = HERE / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def show(title: str, run: dict[str, Any], unit: str) -> None:
    """Print one comparison as a small table."""
    print(f"\n{title}")
    for name, values in run["rates"].items():
        ratio = run["ratio to"].get(name)
        beside = f"   ours is {ratio['median']:.2f}x ({ratio['min']:.2f}-{ratio['max']:.2f})" if ratio else ""
        print(f"  {name:30s} {values['median']:10.1f} {unit} ({values['min']:.1f}-{values['max']:.1f}){beside}")
