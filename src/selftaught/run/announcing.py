"""What a run says before it begins: what was understood of the data, and what will be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught._words import plural
from selftaught.data import Source
from selftaught.data.kinds import kind_of
from selftaught.engine.precision import accelerator, lightning_precision
from selftaught.networks.encoders import Encoder
from selftaught.run_settings import Settings


def plan_lines(
    method: str,
    source: Source,
    settings: Settings,
    config: Any,
    folder: Path,
    chosen: str = "",
    labels: bool = True,
    beside: Mapping[str, Source] | None = None,
) -> list[str]:
    """Lines for the terminal: data as understood, recipe, machine, folder.

    Args:
        method: slug.
        source: the training samples; its notes (what was left out or not understood) get lines of their own.
        settings: of the run.
        config: the method's options.
        folder: of the run.
        chosen: why the preset was taken.
        labels: whether they are of use, to learn from or to judge by; False says nothing of labels that there are not.
        beside: further streams by role.
    """
    device = accelerator(settings.device)
    precision = {"32-true": "float32", "bf16-mixed": "bf16", "16-mixed": "float16"}[
        lightning_precision(settings.precision, device)
    ]
    steps = settings.steps if config.learns else 1
    length = plural(steps, "step") if steps is not None else _epochs(settings.epochs or 0)
    size = getattr(config, "image_size", None) or getattr(config, "patch", None)
    preset = f"preset {settings.preset}{f' ({chosen})' if chosen else ''}" if settings.preset else "the paper's recipe"
    parts = [
        preset,
        length,
        f"batches of {settings.batch_size}" + (f" x {settings.accumulate}" if settings.accumulate > 1 else ""),
        *([f"{size} pixels"] if size and kind_of(source.modality).pixels else []),
        *_watching(settings),
        f"{device}, {precision}" + (f", {settings.devices * settings.nodes} processes" if settings.devices > 1 else ""),
    ]
    notes = [note for note in source.notes if labels or not note.startswith(("no labels", "labels dropped"))]
    for role, one in (beside or {}).items():
        notes += [f"{role}: {line}" for line in (one.describe(), *one.notes)]
    return [f"{method} on {source.describe()}", *notes, "; ".join(parts), f"into {folder}"]


def _watching(settings: Settings) -> list[str]:
    """What is watched, as part of a line."""
    return [f"watching {settings.validation}"] if settings.validation not in ("", "0", "0.0") else []


def network_lines(method: nn.Module, settings: Settings) -> list[str]:
    """What of a method's networks is not as their names say or not as on one process, a line each."""
    found = [module.changed for module in method.modules() if isinstance(module, Encoder)]
    several = settings.devices * settings.nodes > 1 and accelerator(settings.device) == "cpu"
    if several and any(isinstance(module, _BatchNorm) for module in method.modules()):
        found.append(
            "BatchNorm is not synchronised over processes of a CPU: each takes the statistics of its own part of the "
            "batch, and the weights are not quite those of one process"
        )
    return [line for line in dict.fromkeys(found) if line]


def _epochs(count: float) -> str:
    return plural(int(count), "epoch") if count == int(count) else f"{count:g} epochs"
