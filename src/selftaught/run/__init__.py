"""A run: a folder that holds a trained model, and what one does with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from selftaught.errors import UserError
from selftaught.networks import name_module
from selftaught.run import annealing, evaluations, extending, reporting, training
from selftaught.run.ranks import is_first
from selftaught.run.run import Run, Say, silent

__all__ = ["Run", "compare", "load", "train"]


def train(
    method: str,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    report: bool = False,
    **options: Any,
) -> Run:
    """Train a method and return the run.

    Args:
        method: slug of the method, such as "dcl" (``selftaught methods`` lists them).
        data: a source string, path, array, torch Dataset or Source; None takes the method's built-in data set.
        config: a run's config.yaml to repeat.
        resume: folder of an interrupted run to go on with; all else is its own. "auto": the one in ``out``, or start.
        quiet: no progress bar.
        report: evaluate and write report.html at the end.
        **options: settings of the run (``epochs``, ``batch_size``, ``out``, ...) or options of the method;
            ``finish_now``: with ``resume``, end the run where it stands;
            ``own_views`` (or ``views``, where the method has no such option): views of your own in place of the
            method's (a YAML file, pipelines, a ViewSet or a Recipe); ``encoder``: a name, or a module of your own;
            ``callbacks``: further Lightning callbacks; ``trainer``: further options of Lightning's trainer, such as
            ``{"deterministic": True, "profiler": "simple"}`` (what a run has of its own is refused).

    Returns:
        The finished run.

    Raises:
        UserError: bad input, in one line that names the option or file and the mend.

    >>> selftaught.train("dcl", data="photos/", epochs=100).evaluate()
    """
    if resume == "auto":
        resume, options = training.begun(options)
    if options.get("anneal") is not None:
        resume, options = annealing.branch_off(**training.branch_options(options)), {}
    if options.get("extend") is not None:
        known = ("steps", "epochs", "out")
        if other := [name for name, value in options.items() if value is not None and name not in ("extend", *known)]:
            raise UserError(f"--extend goes on as the run was begun; leave out --{other[0].replace('_', '-')}")
        resume = extending.extend(options["extend"], **{name: options.get(name) for name in known})
        options = {}
    if options.get("finish_now") and resume is None:
        raise UserError("--finish-now ends an interrupted run: name it with --resume RUN")
    if resume is not None:
        run = load(training.go_on(resume, data, method=method, quiet=quiet, **options))
    else:
        run = load(training.start(method, data, config=config, quiet=quiet, **options))
    if report and is_first():
        run.report()
    return run


def rehearse(
    method: str, data: Any = None, *, config: str | Path | dict[str, Any] | None = None, **options: Any
) -> str:
    """What `train` would do with these arguments, without doing it: nothing is trained or written.

    Says how the data were understood, the networks' parameters, each stage's steps, learning rates and other schedules
    as sketches, the shapes of a batch, and the memory that a step takes.

    Args:
        method: as `train`.
        data: as `train`.
        config: as `train`.
        **options: as `train`.

    Raises:
        UserError: what `train` would refuse before it begins.
    """
    return "\n".join(training.rehearse(method, data, config=config, **options))


def load(path: str | Path, *, partial: bool = False, encoder: nn.Module | None = None) -> Run:
    """Open a run's folder.

    Args:
        path: the folder.
        partial: take an interrupted run as its last checkpoint left it; a finished one is taken as it is.
        encoder: the module that the run was trained with (``train(..., encoder=MODULE)``), with any weights.

    Raises:
        UserError: not a run folder.
    """
    if encoder is not None:
        name_module(encoder)
    return Run(path, partial=partial)


def compare(paths: Iterable[str | Path], out: str | Path, say: Say = silent) -> Path:
    """One page that sets several runs side by side."""
    runs = [Run(path) for path in paths]
    for run in runs:
        if not evaluations.all_evaluations(run.layout):
            run.report(say)
    return reporting.write(Path(out), [run._sections_of_report(say) for run in runs], say)
