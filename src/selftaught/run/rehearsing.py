"""What a run would be, without training it: shapes, parameters, steps, schedules, memory (``train --dry-run``)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from selftaught._words import plural
from selftaught.engine.checkpointing import keep_activations, recompute_activations
from selftaught.engine.fit import stage_steps
from selftaught.engine.loader import DataModule
from selftaught.engine.method import Method
from selftaught.engine.optimisers import Optim
from selftaught.errors import SampleError
from selftaught.run.announcing import network_lines
from selftaught.run.job import Job, build
from selftaught.run.stages import of_stage

__all__ = ["activation_bytes", "lines", "sketch"]

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS, _ROWS = 40, (2, 4)


def lines(job: Job) -> list[str]:
    """What the run's method, data and schedules are, a line each.

    Args:
        job: the run as it would begin; its folder is not touched.
    """
    torch.manual_seed(job.settings.seed)
    method = build(job.kind, job.config, job.facts)
    method.survey(job.sources)
    found = [*job.plan[:-1], *_networks(method), *network_lines(method, job.settings)]
    for number, stage in enumerate(method.stages):
        method.enter_stage(stage)
        _, settings, read, _ = of_stage(job, method, stage, job.sources)
        processes = settings.devices * settings.nodes
        data = DataModule(read, method, batch_size=settings.batch_size, workers=0, seed=settings.seed)
        batches = data.epoch_batches(processes)
        total = stage_steps(settings, batches)
        method.accumulate = settings.accumulate
        method.plan(total, batches, settings.batch_size * settings.accumulate * processes)
        name = f"stage {number + 1}, {stage}: " if len(method.stages) > 1 else ""
        passes = total * settings.accumulate / batches
        told = f"{passes:,.0f}" if passes >= 100 else f"{passes:.3g}"
        found.append(f"{name}{plural(total, 'step')}, {told} {'pass' if told == '1' else 'passes'} over the data")
        found += [line for key, optim in method.optimisers().items() for line in _optimiser(method, key, optim)]
        found += _schedules(method)
    method.enter_stage(method.stages[0])
    return [*found, *_batches(job, method), "nothing was trained or written (--dry-run)"]


def sketch(values: Sequence[float]) -> str:
    """A curve in one line of text, from its lowest to its highest value.

    >>> sketch([0.0, 0.5, 1.0])
    '▁▅█'
    """
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int((value - low) / span * len(_BARS)))] for value in values)


def _networks(method: Method) -> list[str]:
    found = []
    for name, module in method.named_children():
        count = sum(p.numel() for p in module.parameters())
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        if count:
            part = "" if trained == count else ", none trained" if not trained else f", {_count(trained)} trained"
            found.append(f"  {name}: {_count(count)} parameters{part}")
    total = sum(p.numel() for p in method.parameters())
    return [f"{type(method).__name__}: {_count(total)} parameters", *(found if len(found) > 1 else [])]


def _optimiser(method: Method, name: str, optim: Optim) -> list[str]:
    total = -(-method.total_steps // optim.every)
    rate = method.rate(optim)
    values = [optim.lr * rate(step) for step in _at(total)]
    every = f", every {optim.every} steps" if optim.every > 1 else ""
    return [f"  {name}: {optim.optimizer}, lr {_range(values)}{every}  {sketch(values)}"]


def _schedules(method: Method) -> list[str]:
    """Options that change over the stage, drawn by standing at some of its steps."""
    traces: dict[str, list[float]] = {}
    for step in _at(method.total_steps):
        method.steps = step
        for name, value in method.scheduled().items():
            traces.setdefault(name, []).append(value)
    method.steps = 0
    changing = {name: values for name, values in traces.items() if min(values) < max(values)}
    return [f"  {name} {_range(values)}  {sketch(values)}" for name, values in changing.items()]


def _at(total: int) -> list[int]:
    return [round(k * max(0, total - 1) / (_COLUMNS - 1)) for k in range(_COLUMNS)]


def _range(values: Sequence[float]) -> str:
    first, last, high, low = values[0], values[-1], max(values), min(values)
    if low == high:
        return f"{low:.3g}"
    top = "" if high in (first, last) else f" -> {high:.3g}"
    return f"{first:.3g}{top} -> {last:.3g}"


# ---- one batch ---------------------------------------------------------------------------------------------------
def _batches(job: Job, method: Method) -> list[str]:
    """Shapes of a batch, and the memory that a step takes."""
    rows = [min(count, job.settings.batch_size, len(job.source)) for count in _ROWS]
    try:
        shown = [_one_batch(job, method, count) for count in rows]
    except SampleError as error:
        return [f"  no batch could be drawn: {error}"]
    said = [f"  {name}: {shape}" for name, shape in _shapes(shown[-1], rows[-1])]
    return ["a batch holds, for N samples:", *said, *_memory(job, method, shown, rows)]


def _one_batch(job: Job, method: Method, rows: int) -> dict[str, Any]:
    data = DataModule(job.sources, method, batch_size=rows, workers=0, seed=job.settings.seed)
    data.total_batches = 1
    batch = next(iter(data.train_dataloader()))
    return method.on_after_batch_transfer(batch)


def _shapes(batch: dict[str, Any], rows: int, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in batch.items():
        if isinstance(value, dict):
            found += _shapes(value, rows, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            found += [(f"{prefix}{name}[{k}]", _shape(part, rows)) for k, part in enumerate(value)]
        elif isinstance(value, Tensor) and value.dim() > 1:
            found.append((f"{prefix}{name}", _shape(value, rows)))
    return found


def _shape(value: Tensor, rows: int) -> str:
    first = "N" if len(value) == rows else f"{len(value) // rows}N" if len(value) % rows == 0 else str(len(value))
    return f"({', '.join([first, *map(str, value.shape[1:])])}) {str(value.dtype).removeprefix('torch.')}"


def _memory(job: Job, method: Method, batches: Sequence[dict[str, Any]], rows: Sequence[int]) -> list[str]:
    """Weights, their gradients and the optimisers' moments, and what a forward pass keeps, carried on to a batch."""
    weights = sum(t.numel() * t.element_size() for t in method.state_dict().values())
    optims = list(method.optimisers().values())
    known = set[int]().union(*(optim.moved() for optim in optims))
    moved = [p for p in method.parameters() if id(p) in known]
    copies = 2 if optims and optims[0].optimizer in ("sgd", "lars") else 3
    state = weights + copies * sum(p.numel() * p.element_size() for p in moved)
    line = f"memory: {_bytes(state)} for weights, gradients and moments"
    if rows[0] == rows[1] or type(method).step is not Method.step:
        return [line + "; what a step keeps was not measured (it has several losses)"]
    method.train()
    recomputed = recompute_activations(method) if job.settings.recompute else []
    kept = [activation_bytes(partial(_loss, method, batch)) for batch in batches]
    keep_activations(recomputed)
    each = max(0.0, (kept[1] - kept[0]) / (rows[1] - rows[0]))
    held = max(0.0, kept[0] - each * rows[0]) + each * job.settings.batch_size
    return [line + f", about {_bytes(held)} for what a batch of {job.settings.batch_size} keeps in float32"]


def _loss(method: Method, batch: dict[str, Any]) -> Tensor:
    """Of a copy, so that queues and centres stay as they are."""
    return copy.deepcopy(method).loss(batch)["loss"]


def activation_bytes(loss: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, each piece of memory counted once.

    Args:
        loss: computes a scalar with a gradient.
    """
    seen: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is given out twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return sum(size for size, _ in seen.values())


def _count(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _bytes(number: float) -> str:
    return f"{number / 2**30:.2g} GiB" if number >= 2**30 else f"{number / 2**20:.3g} MiB"
