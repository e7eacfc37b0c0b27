"""The model in a run's folder: built as the run built it, with the weights that it ended with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from selftaught import methods
from selftaught._words import typed
from selftaught.data import Scale
from selftaught.engine.checkpoint import read_checkpoint
from selftaught.engine.method import Method
from selftaught.engine.precision import accelerator
from selftaught.errors import UserError, first_line
from selftaught.networks.own import begin_anew
from selftaught.run import configuration, stages
from selftaught.run.job import build
from selftaught.run.layout import Layout
from selftaught.run.ranks import local_rank, process_count

__all__ = ["built", "facing", "loaded", "untrained"]


def built(config: dict[str, Any], path: Path, seed: int | None = None) -> Method:
    """The method of a run as it was before its first step.

    Args:
        config: of the run, as its config.yaml has it.
        path: its folder, for the errors.
        seed: of its first weights; None: the run's own.
    """
    torch.manual_seed(config["settings"]["seed"] if seed is None else seed)
    kind = methods.get(config["method"])
    options = config["options"] | ({"pretrained": False} if "pretrained" in config["options"] else {})
    return build(kind, configuration.options_of(kind, options, path), config["data"])


def loaded(layout: Layout, config: dict[str, Any], *, partial: bool) -> Method:
    """The trained method of a run, in evaluation mode, on the device that serves best.

    Args:
        layout: of the run.
        config: as its config.yaml has it.
        partial: take an interrupted run as its last checkpoint left it.

    Raises:
        UserError: the run was interrupted before its end and ``partial`` was not asked for; weights that are missing,
            damaged, or not finite.
    """
    method = built(config, layout.path)
    path = layout.weights
    if not path.exists():
        path = _last_checkpoint(layout, method, partial)
    elif problem := stages.deliverable_problem(layout):
        raise UserError(f"{problem}; write it again with: selftaught train --resume {typed(layout.path)}")
    try:
        if path == layout.weights:
            method.deliverable().load_state_dict(load_file(path))
        else:
            content = read_checkpoint(path)
            method.load_state_dict(content.get("state_dict", content))
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: not this run's weights, or damaged ({first_line(error, 80)})") from error
    for name, value in method.deliverable().state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: NaN or infinity in {name}: the training diverged; train again, with --clip 1")
    device = accelerator(config["settings"].get("device", "auto"))
    if device == "cuda" and process_count() > 1:
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    return method.to(device).eval()


def _last_checkpoint(layout: Layout, method: Method, partial: bool) -> Path:
    """The checkpoint of the last stage that has one: what a finished stage ended with, else its last."""
    several = len(method.stages) > 1
    found = []
    for stage in method.stages:
        final = layout.stage(stage, several).final
        found.append(final if final.exists() else layout.checkpoint(stage))
    found = [path for path in found if path.exists()]
    if not found:
        raise UserError(f"{layout.path}: interrupted before its first checkpoint; train again: nothing is lost")
    if not partial:
        raise UserError(
            f"{layout.path}: not finished; go on with: selftaught train --resume {typed(layout.path)} "
            "(or use what there is, with --partial)"
        )
    return found[-1]


def untrained(config: dict[str, Any], path: Path, trained: Method) -> Method:
    """The method of a run with other first weights, that never learnt: what ``trained`` is judged beside."""
    fresh = built(config, path, config["settings"]["seed"] + 10_007)
    begin_anew(fresh)
    fresh.same_survey(trained)
    return fresh.to(trained.device).eval()


def facing(method: Method, known: dict[str, Any], data: Any) -> Method:
    """The method, ready for the kind of samples of ``data`` where it takes several; None: the run's own.

    Samples of another kind than the run's are scaled by their own range of values.

    Args:
        method: of the run.
        known: what the run's configuration says of its data.
        data: a source to be judged on, or to be applied to.
    """
    if method.takes_any:
        own = known["modality"]
        method.modality = own if data is None else configuration.modality_of(type(method), data)
        mine = known if method.modality == own else {}
        method.value_range = Scale(mine["value_range"], mine.get("depth")) if "value_range" in mine else None
    return method
