"""What this machine computes fast in: precision and memory format by measurement of its flags, not by guess."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def cpu_flags() -> set[str]:
    """Return the processor's feature flags (Linux), or an empty set where they can't be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def has_fast_bf16(device: str) -> bool:
    """Say whether bf16 autocast pays on ``device`` ("cpu", "cuda", "mps")."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
    return False


def accelerator(device: str = "auto") -> str:
    """Resolve ``auto | cpu | gpu | mps`` to the torch device type that training will run on."""
    if device == "gpu":
        return "cuda"
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return device


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """Return the autocast type for ``precision`` (auto | 32 | bf16 | 16) on a torch device type, None for float32."""
    if precision == "16":
        return torch.float16
    if precision == "bf16" or (precision == "auto" and has_fast_bf16(device)):
        return torch.bfloat16
    return None


def lightning_precision(precision: str, device: str) -> str:
    """The name that ``lightning.Trainer`` has for :func:`autocast_dtype`'s answer."""
    names = {torch.float16: "16-mixed", torch.bfloat16: "bf16-mixed", None: "32-true"}
    return names[autocast_dtype(precision, device)]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
