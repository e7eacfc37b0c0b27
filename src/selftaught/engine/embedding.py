"""A whole source through a trained network: batch by batch in its own order, in the method's view and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught._words import plural
from selftaught.data import Source
from selftaught.data.kinds import Camera, kind_of
from selftaught.engine.in_order import evaluation_batches
from selftaught.engine.memory import freed_memory_kept
from selftaught.engine.method import Method
from selftaught.engine.precision import autocast_dtype
from selftaught.errors import UserError

__all__ = ["batches_of", "check_channels", "feature_table", "through"]


def through(
    method: Method,
    source: Source,
    function: Callable[[dict[str, Any]], Any],
    *,
    pipeline: Any = None,
    precision: str = "auto",
    **options: Any,
) -> Iterator[tuple[Any, np.ndarray, list[tuple[int, str]]]]:
    """Call a function with every batch of a source, on the method's device and in its precision.

    Args:
        method: says device, evaluation view and range of values.
        source: samples, in the order of the batches.
        function: of a batch as training sees it; called without gradient.
        pipeline: view of images; None is the method's evaluation view.
        precision: as in training.
        **options: of `evaluation_batches`: ``batch_size``, ``workers``, ``start``, ``stop``.

    Yields:
        what it returned (None for a batch without a sample that can be read), the samples' indices (n,), and what was
        skipped as (index, reason) pairs.
    """
    device = method.device
    dtype = autocast_dtype(precision, device.type)
    pipeline = pipeline or method.evaluation_view()
    with freed_memory_kept():
        for batch in batches_of(method, source, pipeline, **options):
            skipped, index = batch.pop("skipped"), batch["index"].numpy()
            if not len(index):
                yield None, index, skipped
                continue
            moved = {name: _on(device, value) for name, value in batch.items()}
            with torch.inference_mode(), torch.autocast(device.type, dtype or torch.bfloat16, enabled=bool(dtype)):
                found = function(method.on_after_batch_transfer(moved))
            yield found, index, skipped


def none_usable(source: Source, skipped: Sequence[tuple[Any, str]], count: int | None = None) -> UserError:
    """What to say where no sample can be used: why the first one can't, which may be a matter of the run's, too."""
    why = f", the first because: {skipped[0][1]}" if skipped else "; run: selftaught data check"
    count = len(source) if count is None else count
    said = "its only sample can't" if count == 1 else f"none of its {plural(count, 'sample')} can"
    return UserError(f"{source.name}: {said} be used{why}")


def feature_table(
    method: Method, source: Source, function: Callable[[dict[str, Any]], Tensor], **options: Any
) -> np.ndarray:
    """What a function of batches gives for every sample between ``start`` and ``stop``: (stop - start, D) float32.

    Rows of samples that can't be read are NaN. The method is in evaluation mode meanwhile, and afterwards as before.

    Args:
        method: whose view and device are taken.
        source: the samples.
        function: of a batch; gives (n, D).
        **options: of :func:`through`.

    Raises:
        UserError: no sample can be read.
    """
    start = int(options.get("start", 0))
    count = int(options.get("stop") or len(source)) - start
    was = [module for module in method.modules() if module.training]
    method.eval()
    table = None
    lost: list[tuple[int, str]] = []
    try:
        for found, index, skipped in through(method, source, function, **options):
            lost += skipped
            if found is None:
                continue
            if table is None:
                table = np.full((count, found.shape[1]), np.nan, dtype=np.float32)
            table[index - start] = found.float().cpu().numpy()
    finally:
        for module in was:
            module.training = True
    if table is None:
        raise none_usable(source, lost, count)
    return table


def batches_of(method: Method, source: Source, view: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """Batches of a source as a method looks at it: its range of values, its channels; see `evaluation_batches`."""
    check_channels(method, source)
    options["batch_size"] = min(options.get("batch_size", method.evaluation_rows), method.evaluation_rows)
    fixed = {"value_range": method.value_range, "channels": method.channels}
    return evaluation_batches(source, view, **fixed, **options)


def check_channels(method: Method, source: Source) -> None:
    """Whether a run can look at a source: of its channels, or grey where it takes RGB, or RGBA, which is laid on white.

    Raises:
        UserError: other channels.
    """
    have, wanted = source.channels, method.channels
    if have is None or have in method.also_channels:
        return
    if problem := kind_of(source.modality).misfit(have, wanted, bool(source.bands)):
        source.check_read()  # its channels are a guess then
        asked = f"; ask for grey: {source.name.rstrip('/')}?channels=1" if (have, wanted) == (3, 1) else ""
        raise UserError(f"{source.name} {problem}{asked}")


def _on(device: torch.device, value: Any) -> Any:
    if isinstance(value, list):
        return [_on(device, one) for one in value]
    if isinstance(value, dict):
        return {name: _on(device, one) for name, one in value.items()}
    if isinstance(value, Camera):
        return Camera(*(part.to(device) for part in value))
    return value.to(device) if isinstance(value, Tensor) else value
