"""A part of the archive that is chosen anew, again and again, by what the network knows by then.

    epochs 0 .. T_w - 1: all samples; at epoch T_w and every T_s epochs after it:
        F = features of the whole archive, no augmentation, evaluation mode
        active = chosen(F, rho |D|)                    from the whole archive, never from the last choice alone

A sample that was dropped can return. An epoch has rho |D| samples throughout, so that the number of steps, and with it
every schedule, is fixed before training begins (Kerdreux et al. 2025, arXiv 2504.06962).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from selftaught.catalog.rules import Natural, PositiveShare, rules_of
from selftaught.data import Source
from selftaught.data.curation.selection import Selection, SelectionOptions, choose
from selftaught.engine.distributed import is_distributed, rank, world_size
from selftaught.engine.embedding import feature_table
from selftaught.engine.orders import ActiveSet
from selftaught.errors import UserError

__all__ = ["Reselection", "ReselectionOptions"]


@dataclass
class ReselectionOptions(SelectionOptions):
    """How much of the archive is learnt from, and when it is chosen anew."""

    rho: PositiveShare = 0.2
    """Share of the archive that is kept; 1 keeps all, and is plain training."""
    select_after: Natural = 5
    """Epochs T_w on all samples before the first choice; untrained features mean nothing, so at least 1 (0: random)."""
    select_every: Natural = 5
    """Epochs T_s between choices; 0 chooses once."""
    rescale_epochs: bool = False
    """Count epochs as passes over the whole archive, so that there are as many steps as without a choice."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection != "random" and self.select_after < 1 and self.rho < 1:
            raise UserError("select_after=0: the features of an untrained network mean nothing; use 1 or more epochs")

    @classmethod
    def of(cls, text: str) -> ReselectionOptions:
        """Options from a text: a share such as ``0.2``, or ``rho=0.2,select_every=3,eta=1``.

        Raises:
            UserError: no such option, or a value that it can't have.
        """
        rules = rules_of(cls)  # type: ignore[arg-type]
        found: dict[str, Any] = {}
        for part in (text if "=" in text else f"rho={text}").split(","):
            name, _, value = part.strip().partition("=")
            if name not in rules:
                raise UserError(f"--curate {text}: no option {name!r}; it has {', '.join(f.name for f in fields(cls))}")
            try:
                rule = rules[name]
                found[name] = value.lower() in ("true", "yes", "1") if rule.type == "bool" else rule.parse(value)
            except ValueError as error:
                raise UserError(f"--curate {part}; it may be: {error}") from None
        return cls(**found)


class Reselection:
    """Chooses the active samples of a method's first stream as it learns; the choice is in the order's checkpoint.

    Args:
        options: how much, by which rule and when.

    Attributes:
        folder: where the kept names are written, ``selections/step-N.txt``, and a line each in ``selections.csv``;
            None: nowhere.
        say: called with a line where a choice could not be made as asked.
    """

    def __init__(self, options: ReselectionOptions) -> None:
        self.options = options
        self.folder: Path | None = None
        self.say: Callable[[str], None] = _silent
        self.source: Source | None = None
        self.active: ActiveSet | None = None
        self.seed = 0

    def order(self, source: Source, batch_size: int, seed: int) -> ActiveSet:
        """The order of a stream: all samples at first, rho |D| of them an epoch."""
        target = self.target(len(source))
        length = len(source) if self.options.rho == 1 else min(len(source), max(target, batch_size))
        self.source, self.seed = source, seed
        self.active = ActiveSet(len(source), length, repeats=self.options.multiplier > 1)
        if self.options.select_after == 0 and self.options.rho < 1:
            self.active.select(choose(np.zeros((len(source), 1)), target, self.options, seed=seed).indices)
        return self.active

    def target(self, samples: int) -> int:
        """How many samples are kept."""
        return max(1, round(self.options.rho * samples))

    def due(self, epoch: int) -> bool:
        """Whether a choice precedes an epoch."""
        c, since = self.options, epoch - self.options.select_after
        if c.rho == 1 or since < 0 or epoch == 0:
            return False
        return since % c.select_every == 0 if c.select_every else since == 0

    def after_batch(self, method: Any, batches: int) -> None:
        """Choose anew where a batch was the last of its epoch and the next one is due.

        Args:
            method: what learns; gives ``selection_features``.
            batches: of the stage that are done.
        """
        epoch, rest = divmod(batches, method.epoch_batches)
        if rest or not self.due(epoch) or method.steps >= method.total_steps or self.source is None:
            return
        assert self.active is not None
        began = time.monotonic()
        chosen = self.choose(method)
        if chosen.note:
            self.say(f"step {method.steps}: {chosen.note}")
        before = self.active.active
        self.active.select(chosen.indices)
        if self.folder is not None and rank() == 0:
            self._write(method, chosen, before, epoch, time.monotonic() - began)

    def choose(self, method: Any) -> Selection:
        """The choice that the method's features make now, from the whole archive; the same on every process."""
        assert self.source is not None
        target = self.target(len(self.source))
        if self.options.selection == "random":
            return choose(np.zeros((len(self.source), 1)), target, self.options, seed=self.seed)
        table = self._features(method)
        if not is_distributed():
            return choose(table, target, self.options, seed=self.seed)
        holder: list[Any] = [None]
        if rank() == 0:
            found = choose(table, target, self.options, seed=self.seed)
            holder = [Selection(found.indices, found.mode, found.note)]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def _features(self, method: Any) -> np.ndarray:
        """(n, D) features of the whole archive; every process embeds its part, the first one gets all."""
        assert self.source is not None
        n, world = len(self.source), world_size()
        with torch.compiler.set_stance("force_eager"):
            bounds = np.linspace(0, n, world + 1).astype(int)
            start, stop = int(bounds[rank()]), int(bounds[rank() + 1])
            table = feature_table(method, self.source, method.selection_features, start=start, stop=stop)
        if world == 1:
            return table
        parts: list[Any] | None = [None] * world if rank() == 0 else None
        dist.gather_object(table, parts, dst=0)
        return np.concatenate(parts) if parts is not None else table

    # ---- what is written -------------------------------------------------------------------------------------
    def _write(self, method: Any, chosen: Selection, before: np.ndarray, epoch: int, seconds: float) -> None:
        """The kept names, and a line about them; lines of steps that a resumed run takes again are replaced."""
        assert self.folder is not None
        assert self.source is not None
        place = self.folder / "selections"
        place.mkdir(parents=True, exist_ok=True)
        names = "\n".join(str(self.source.names[i]) for i in chosen.indices) + "\n"
        _whole(place / f"step-{method.steps:08d}.txt", lambda file: file.write(names))
        summary = self.folder / "selections.csv"
        rows: list[dict[str, Any]] = []
        if summary.exists():
            with summary.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < method.steps]
        embedded = 0 if chosen.mode == "random" and not chosen.note else len(self.source)
        row = {
            "step": method.steps,
            "epoch": epoch,
            "kept": len(chosen.indices),
            "mode": chosen.mode,
            "jaccard": f"{jaccard(chosen.indices, before):.4f}",
            "images_trained": method.steps * method.samples_per_step,
            "images_embedded": embedded + (int(rows[-1]["images_embedded"]) if rows else 0),
            "seconds": f"{seconds:.2f}",
            "label_entropy": "",
            "note": chosen.note,
        }
        if self.source.labels is not None:
            row["label_entropy"] = f"{label_entropy(self.source.labels[chosen.indices]):.4f}"

        def table(file: Any) -> None:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*rows, row])

        _whole(summary, table)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Shared over all different members of two sets of positions."""
    both = len(np.intersect1d(a, b))
    return both / max(1, len(np.union1d(a, b)))


def label_entropy(labels: np.ndarray) -> float:
    """Entropy in bits of the labels that are known (0 or more); for the record, no label is read for a choice."""
    counts = np.bincount(labels[labels >= 0])
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log2(share)).sum()) + 0.0


def _whole(path: Path, fill: Callable[[Any], Any]) -> None:
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        fill(file)
    part.replace(path)


def _silent(line: str) -> None:
    """Say nothing."""
