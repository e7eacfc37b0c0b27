"""``selftaught doctor``: what this machine can do, measured, and which floor a training run will sit on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from selftaught._words import typed
from selftaught.data import Source, open_source
from selftaught.data.kinds import kind_of
from selftaught.engine.batches import Batches
from selftaught.engine.precision import accelerator, autocast_dtype, cores, cpu_flags
from selftaught.errors import SampleError
from selftaught.methods import get

_MUCH = 0.4


def examine(data: str = "photos", *, batch_size: int = 64, seconds: float = 4.0) -> str:
    """Measure reading, and on images views and steps of SimCLR; say what limits training, and what to set.

    Args:
        data: source to read, of any kind of samples.
        batch_size: samples per measured batch.
        seconds: time to spend on each measurement.
    """
    device = accelerator()
    flags = cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}
    memory = _memory()
    lines = [f"cores {cores()}, memory {memory}, instructions {', '.join(sorted(flags)) or 'unknown'}"]
    lines.append(f"device {device}" + (f" ({torch.cuda.get_device_name()})" if device == "cuda" else ""))
    source = open_source(data, split="train")
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    reading = _rate(lambda k: _read(source, order[k % len(order)]), 1, seconds / 2)
    lines.append(f"reading {data}: {reading:.0f} {kind_of(source.modality).rate} on one core")
    if source.modality != "image":
        lines.append(
            f"views and steps are measured on images; {source.modality} data: selftaught data check {typed(data)}"
        )
        return "\n".join(lines)
    method = get("simclr")(
        image_size=64, encoder="resnet10-narrow", projector="256-128", augment="small", channels=source.channels or 3
    ).to(device)
    batches = Batches(source, method.views(), seed=0)
    ids = list(range(min(batch_size, len(source))))
    views = _rate(lambda k: batches[(k, ids)], len(ids), seconds)
    batch = batches[(0, ids)]
    rates = {name: _steps(method, batch, name, len(ids), seconds) for name in ("32", "bf16")}
    best = max(rates, key=lambda name: rates[name])
    lines.append(f"views of {data} at 64 pixels: {views:.0f} images/s on one core")
    lines += [f"training step, {name}: {rate:.0f} images/s" for name, rate in rates.items()]
    chosen = "bf16" if autocast_dtype("auto", device) is torch.bfloat16 else "32"
    if rates[best] > 1.1 * rates[chosen]:
        lines.append(f"set --precision {best}: it is {rates[best] / rates[chosen]:.1f} times as fast as auto's choice")
    share = min(1.0, views / reading)
    if share > _MUCH:
        lines.append(f"set --cache: {share:.0%} of the time for views goes into reading and decoding the files")
    lines.append(_limit(views, rates[best], device))
    return "\n".join(lines)


def _read(source: Source, i: int) -> None:
    """Read one sample; one that can't be used costs its time too."""
    with contextlib.suppress(SampleError):
        source.sample(i)


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB"


def _rate(call: Callable[[int], Any], samples: int, seconds: float) -> float:
    call(0)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds / 2 or done < 2:
        done += 1
        call(done)
    return samples * done / (time.perf_counter() - began)


def _steps(method: Any, batch: dict[str, Any], precision: str, samples: int, seconds: float) -> float:
    device = method.device.type
    dtype = autocast_dtype(precision, device)
    optimizer = torch.optim.AdamW(method.parameters(), 1e-4)
    fresh = {k: [x.to(method.device) for x in v] if k == "views" else v for k, v in batch.items() if k != "skipped"}

    def step(_: int) -> None:
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = method.loss(method.on_after_batch_transfer(dict(fresh)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return _rate(step, samples, seconds)


def _limit(views: float, steps: float, device: str) -> str:
    share = cores() if device != "cpu" else max(1, cores() // 2)
    if views * share < steps:
        return (
            f"limit: making views ({views * share:.0f} images/s on {share} cores); "
            "use --cache, --view-device model, or more cores"
        )
    return f"limit: the training step ({steps:.0f} images/s); views could feed {views * share:.0f} images/s"
