"""All that training a run takes, the method that is built for its data, and what depends on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from selftaught._words import plural
from selftaught.data import Scale, Source
from selftaught.engine.method import Method
from selftaught.engine.reselection import Reselection, ReselectionOptions
from selftaught.errors import UserError, for_caller
from selftaught.run import own_views
from selftaught.run.ranks import is_first
from selftaught.run.tasks import Task
from selftaught.run_settings import Settings

__all__ = ["Job", "build", "curate", "fit_batch", "fit_to_data", "teller"]


@dataclass
class Job:
    """All that training a run takes."""

    folder: Path
    kind: type[Method]
    settings: Settings
    config: Any
    facts: dict[str, Any]
    sources: dict[str, Source]
    data: Any
    quiet: bool = False
    callbacks: list[Any] | None = None
    trainer: dict[str, Any] | None = None
    """Further options of Lightning's trainer."""
    watched: Source | None = None
    """Samples of another source that are watched, not learnt from (``--validation``)."""
    tasks: list[Task] = field(default_factory=list)
    """Of a stream of tasks; empty for an ordinary run."""
    finish_now: bool = False
    """End where the last checkpoint stands."""
    plan: list[str] = field(default_factory=list)
    """What to say before training begins."""

    @property
    def source(self) -> Source:
        """The samples of the first stream."""
        return next(iter(self.sources.values()))


def build(kind: type[Method], config: Any, facts: dict[str, Any]) -> Method:
    """The method for this data, its pixel statistics set."""
    method: Method = kind(
        config,
        channels=facts["channels"],
        length=facts.get("length"),
        samples=facts["samples"],
        classes=facts.get("class_count", 0),
        modality=facts.get("modality"),
    )
    if "mean" in facts:
        method.pixel_mean.copy_(torch.tensor(facts["mean"]))
        method.pixel_std.copy_(torch.tensor(facts["std"]))
    if "value_range" in facts:
        method.value_range = Scale(facts.get("value_range"), facts.get("depth"))
    if facts.get("views"):
        own_views.install(method, facts["views"])
    return method


def curate(method: Method, text: str) -> None:
    """Let a method choose its samples as it learns (``--curate``).

    Raises:
        UserError: it chooses already, or has no features to choose by; an option that there is not.
    """
    if method.reselection is not None:
        raise UserError(f"--curate: {method.slug} chooses its samples by options of its own, such as --rho")
    if method.output not in ("embedding", "classes"):
        raise UserError(f"--curate: {method.slug} gives no features to choose by; leave it out")
    method.reselection = Reselection(ReselectionOptions.of(text))


def fit_batch(settings: Settings, source: Source, quiet: bool) -> None:
    """Lower a batch size that nobody asked for to what few samples allow: a power of two, two batches at least."""
    processes = settings.devices * settings.nodes
    if len(source) >= settings.batch_size * processes or len(source) < 4 * processes:
        return
    lowered = 1 << ((len(source) // (2 * processes)).bit_length() - 1)
    if not quiet:
        said = f"{source.name} has {plural(len(source), 'sample')}: batches of {lowered} in place of "
        print(for_caller(f"{said}{settings.batch_size} (--batch-size chooses)"), file=sys.stderr)
    settings.batch_size = lowered


def fit_to_data(config: Any, facts: dict[str, Any]) -> None:
    """Settle what was left to the data, and refuse what it can't give."""
    if getattr(config, "class_names", ()) is None and facts.get("classes"):
        config.class_names = list(facts["classes"])
    if getattr(config, "worn", None) == "" and facts.get("devices"):
        config.worn = ",".join(facts["devices"])
    short = facts.get("short_side")
    if short is None:
        return
    if getattr(config, "image_size", None) == 0:
        config.image_size = 32 if short <= 40 else 64
    patch = getattr(config, "patch", None)
    if isinstance(patch, int) and short < patch and hasattr(config, "width"):
        raise UserError(f"{facts['name']}: images of {short} pixels are smaller than --patch {patch}")


def teller(quiet: bool) -> Callable[[str], None]:
    """Print lines for the terminal, from the first process alone, unless the run is quiet."""

    def say(line: str) -> None:
        if not quiet and is_first():
            print(for_caller(line), file=sys.stderr, flush=True)

    return say
